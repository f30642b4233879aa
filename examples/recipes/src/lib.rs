//! The code of `docs/checks.md` and `docs/telemetry.md`, which `tests/recipes.rs` runs.

use std::{env, error::Error, time::Duration};

use axum::Router;
use lifesign::{BuildInfo, Health, HealthBuilder};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::{Request, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower_http::trace::TraceLayer;

pub fn with_checks(
    builder: HealthBuilder,
    (pool, cache, channel): (PgPool, ConnectionManager, Channel),
    upstream_url: String,
    last: watch::Receiver<Last>,
) -> HealthBuilder {
    builder
        .required_with("postgres", pool, postgres)
        .optional_with("redis", cache, redis)
        .optional_with("upstream", (reqwest::Client::new(), upstream_url), upstream)
        .required_with("orders", channel, orders)
        .optional_with("quota", last, quota)
}

type BoxError = Box<dyn Error + Send + Sync>;

pub async fn postgres(pool: PgPool) -> Result<(), BoxError> {
    let select = sqlx::query("SELECT 1").execute(&pool);
    if let Ok(result) = timeout(Duration::from_millis(500), select).await {
        return Ok(result.map(drop)?);
    }
    // The pool retries a refused connection. A connection outside the pool fails with the cause.
    let options = pool.connect_options();
    let connection = PgConnection::connect_with(&options);
    let connected = timeout(Duration::from_millis(200), connection).await;
    connected.map_err(|_| "PostgreSQL does not respond")??;
    Err("no connection of the pool was free for 500 ms".into())
}

pub fn redis_client(url: &str) -> redis::RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(Duration::from_millis(300)))
        .set_response_timeout(Some(Duration::from_millis(300)));
    ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)
}

pub async fn redis(mut connection: ConnectionManager) -> redis::RedisResult<()> {
    let ping = redis::cmd("PING");
    // The first command after an outage fails with the outage's error, and reconnects.
    if ping.exec_async(&mut connection).await.is_ok() {
        return Ok(());
    }
    ping.exec_async(&mut connection).await
}

pub async fn upstream((client, url): (reqwest::Client, String)) -> anyhow::Result<()> {
    let request = client.get(url).timeout(Duration::from_millis(500));
    request.send().await?.error_for_status()?;
    Ok(())
}

pub async fn orders(channel: Channel) -> tonic::Result<()> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(500));
    let response = HealthClient::new(channel).check(request).await?;
    match response.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        status => Err(Status::unavailable(status.as_str_name())),
    }
}

/// Time and result of the last call.
type Last = (Instant, Result<(), String>);

pub fn ask_repeatedly<F>(call: impl Fn() -> F + Send + 'static) -> watch::Receiver<Last>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (sender, last) = watch::channel((Instant::now(), Err("no result yet".to_owned())));
    tokio::spawn(async move {
        loop {
            let result = match timeout(Duration::from_secs(20), call()).await {
                Ok(result) => result.map_err(|error| format!("{error:#}")),
                Err(_) => Err("no result within 20 s".to_owned()),
            };
            let _ = sender.send((Instant::now(), result));
            sleep(Duration::from_secs(30)).await;
        }
    });
    last
}

pub async fn quota(last: watch::Receiver<Last>) -> Result<(), String> {
    let (at, result) = last.borrow().clone();
    match at.elapsed() {
        age if age > Duration::from_secs(60) => Err(format!("no result for {} s", age.as_secs())),
        _ => result,
    }
}

pub fn traced(app: Router, health: &Health) -> Router {
    app.layer(TraceLayer::new_for_http()).merge(health.routes())
}

pub fn resource(build: BuildInfo) -> Resource {
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| build.name().to_owned());
    let revision = |commit| KeyValue::new("vcs.ref.head.revision", commit);
    Resource::builder()
        .with_service_name(name)
        .with_attribute(KeyValue::new("service.version", build.version()))
        .with_attributes(build.commit().map(revision))
        .build()
}
