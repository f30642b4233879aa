//! A health route for each contender. All routes have the same checks, which pass immediately.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
    routing::get,
};
use axum_health::indicator::{HealthDetail, HealthIndicator};
use http_body_util::BodyExt as _;
use lifesign::{Health, build_info};
use tower::ServiceExt as _;

/// The compared implementations, in the order of the tables in `benches/README.md`.
pub const CONTENDERS: [&str; 4] = ["static", "lifesign", "healthkit", "axum-health"];

/// Number of runs of all checks together.
pub type Runs = Arc<AtomicU64>;

/// Returns the path of the contender's readiness route.
pub fn path(contender: &str) -> &'static str {
    match contender {
        "healthkit" => "/readyz",
        _ => "/health/ready",
    }
}

/// Returns the contender's router with this number of checks.
pub async fn router(contender: &str, checks: usize, runs: &Runs) -> Router {
    match contender {
        "static" => fixed(checks, runs).await,
        "lifesign" => lifesign(checks, runs),
        "healthkit" => healthkit(checks, runs),
        "axum-health" => axum_health(checks, runs),
        other => panic!("unknown contender: {other}"),
    }
}

/// Returns a router with a static response, which has the same body and headers as lifesign's.
async fn fixed(checks: usize, runs: &Runs) -> Router {
    let response = lifesign(checks, runs)
        .oneshot(probe("lifesign"))
        .await
        .expect("a router is infallible");
    let body = response.into_body().collect().await;
    let body = body.expect("the body is in memory").to_bytes();
    let headers = [
        (header::CONTENT_TYPE, "application/health+json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Router::new().route("/health/ready", get(async move || (headers, body.clone())))
}

fn lifesign(checks: usize, runs: &Runs) -> Router {
    let mut builder = Health::builder(build_info!());
    for name in names(checks) {
        let runs = Arc::clone(runs);
        builder = builder.required(name, move || {
            runs.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, String>(()) }
        });
    }
    let health = builder.build().expect("the names are valid");
    health.set_ready();
    Router::new().merge(health.routes())
}

fn healthkit(checks: usize, runs: &Runs) -> Router {
    let registry = healthkit::HealthRegistry::new();
    for name in names(checks) {
        let runs = Arc::clone(runs);
        registry.add_check(name, move || {
            runs.fetch_add(1, Ordering::Relaxed);
            async { Ok(healthkit::HealthStatus::Healthy) }
        });
    }
    healthkit::axum::readiness_route(registry)
}

fn axum_health(checks: usize, runs: &Runs) -> Router {
    struct Check(String, Runs);

    #[async_trait::async_trait]
    impl HealthIndicator for Check {
        fn name(&self) -> String {
            self.0.clone()
        }

        async fn details(&self) -> HealthDetail {
            self.1.fetch_add(1, Ordering::Relaxed);
            HealthDetail::up()
        }
    }

    let mut builder = axum_health::service::Health::builder();
    for name in names(checks) {
        builder = builder.with_indicator(Check(name, Arc::clone(runs)));
    }
    Router::new()
        .route("/health/ready", get(axum_health::health_check))
        .layer(builder.build())
}

fn names(checks: usize) -> impl Iterator<Item = String> {
    (0..checks).map(|i| format!("dependency-{i}"))
}

/// Returns the request that is sent to the contender.
pub fn probe(contender: &str) -> Request<Body> {
    Request::get(path(contender))
        .body(Body::empty())
        .expect("the request is constant")
}
