//! A service with PostgreSQL behind it: it counts visitors in a table.
//!
//! | part | where it shows |
//! |---|---|
//! | PostgreSQL answers | a required check: an outage takes the traffic away, and restarts nothing |
//! | the schema is up to date | `ready()`: no traffic before |
//! | the sweeper sweeps | a heartbeat: when it hangs or ends, the process is broken, and restarted |
//!
//! ```sh
//! DATABASE_URL=postgres://service:secret@127.0.0.1/service cargo run
//! cargo run -- healthcheck
//! ```
//!
//! `PORT` is 8080 by default.

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use lifesign::{Health, Heartbeat, Subcommand, build_info};
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    net::TcpListener,
    time::{interval, sleep, timeout},
};

/// The most that a request waits for PostgreSQL, which may have stopped to answer without a goodbye.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that a connection has to answer the check. With the pool's five, it leaves enough of the
/// 800 ms that a check is given to make a new one.
const PING: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    if let Some(code) = Subcommand::new(build_info!()).run() {
        return code;
    }
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> Result<(), Box<dyn Error>> {
    let pool = pool(env::var("DATABASE_URL")?.parse()?);
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;

    let health = Health::builder(build_info!())
        .required("postgres", {
            let pool = pool.clone();
            move || ping(pool.clone())
        })
        .build()?;
    let drained = health.drain()?;

    let app = Router::new()
        .route("/", get(visit))
        .with_state(pool.clone())
        .merge(health.routes());
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    health.publish(listener.local_addr()?);

    // Beside the server, which says "starting" meanwhile.
    tokio::spawn({
        let (health, pool) = (health.clone(), pool.clone());
        async move {
            migrate(&pool).await;
            health.ready();
        }
    });
    let sweeper = health.heartbeat("sweeper", Duration::from_secs(30))?;
    tokio::spawn(sweep(pool, sweeper));

    axum::serve(listener, app)
        .with_graceful_shutdown(drained)
        .await?;
    Ok(())
}

fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(5)
        .acquire_timeout(PATIENCE)
        // A connection whose query was given up comes back here and may be dead. The pool would
        // wait for it as long as TCP does, a quarter of an hour, and have one less meanwhile.
        .after_release(|connection, _| {
            Box::pin(async move {
                within(PATIENCE, connection.ping()).await?;
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// The check: an idle connection of the pool answers, or else a new one does.
///
/// It never queues for a connection. Behind requests that hold all of them the check would tell
/// how busy this instance is, and a load balancer would hand its requests to the others, which
/// are no less busy.
async fn ping(pool: PgPool) -> sqlx::Result<()> {
    while let Some(mut idle) = pool.try_acquire() {
        if within(PING, idle.ping()).await.is_ok() {
            return Ok(());
        }
    }
    let new = PgConnection::connect_with(&pool.connect_options()).await?;
    new.close().await
}

/// Tries until it succeeds: a PostgreSQL that comes later than the service is no reason to end.
async fn migrate(pool: &PgPool) {
    while let Err(error) = sqlx::migrate!().run(pool).await {
        tracing::warn!(%error, "the schema is not up to date");
        sleep(Duration::from_secs(1)).await;
    }
}

async fn visit(State(pool): State<PgPool>) -> Result<String, StatusCode> {
    let visit = sqlx::query_scalar("INSERT INTO visits DEFAULT VALUES RETURNING id");
    let visitor: i64 = within(PATIENCE, visit.fetch_one(&pool))
        .await
        .map_err(|error| {
            tracing::warn!(%error, "a visit was not counted");
            StatusCode::SERVICE_UNAVAILABLE
        })?;
    Ok(format!("Hello, visitor {visitor}\n"))
}

/// Forgets visits of more than a day ago.
async fn sweep(pool: PgPool, heartbeat: Heartbeat) {
    let mut ticks = interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        // Whether or not PostgreSQL answers: its outage is not this process's fault.
        heartbeat.beat();
        let old = sqlx::query("DELETE FROM visits WHERE at < now() - interval '1 day'");
        if let Err(error) = within(PATIENCE, old.execute(&pool)).await {
            tracing::warn!(%error, "nothing was swept");
        }
    }
}

async fn within<T>(
    patience: Duration,
    query: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let answer = timeout(patience, query).await;
    answer.unwrap_or_else(|late| Err(io::Error::from(late).into()))
}
