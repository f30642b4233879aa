//! Helpers that build a service and send requests to its routes without a socket.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response},
};
use lifesign::{Health, HealthBuilder, build_info};
use serde_json::Value;
use tokio::time::{advance, sleep};
use tower::ServiceExt;

pub(crate) const ROUTES: [&str; 3] = ["/health", "/health/ready", "/health/live"];
pub(crate) const SECRET: &str = "postgres://svc:hunter2@db.internal/prod";

pub(crate) fn builder() -> HealthBuilder {
    Health::builder(build_info!())
}

/// A dependency whose checks fail while the test has broken it.
#[derive(Clone, Default)]
pub(crate) struct Dependency {
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) runs: Arc<AtomicUsize>,
}

impl Dependency {
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, SeqCst);
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }

    pub(crate) fn check(
        &self,
    ) -> impl Fn() -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
        let this = self.clone();
        move || {
            this.runs.fetch_add(1, SeqCst);
            std::future::ready(match this.broken.load(SeqCst) {
                true => Err(format!("connect to {SECRET}: refused")),
                false => Ok(()),
            })
        }
    }

    /// Returns a check that takes 500 ms.
    pub(crate) fn slow_check(
        &self,
    ) -> impl Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync + 'static
    {
        let check = self.check();
        move || {
            let result = check();
            Box::pin(async {
                sleep(Duration::from_millis(500)).await;
                result.await
            })
        }
    }
}

/// A service with a database, whose check takes 12 ms, and a cache, whose check fails.
pub(crate) fn with_a_failing_cache() -> Health {
    let cache = Dependency::default();
    cache.set_broken(true);
    let db = async || {
        sleep(Duration::from_millis(12)).await;
        Ok::<_, String>(())
    };
    let builder = builder().required("db", db);
    let health = builder.optional("cache", cache.check()).build();
    health.expect("valid names")
}

pub(crate) async fn send(app: Router, method: Method, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).expect("a fixed request");
    app.oneshot(request).await.expect("routers do not fail")
}

pub(crate) async fn fetch(health: &Health, path: &str) -> (u16, Value) {
    let response = send(health.routes(), Method::GET, path).await;
    let code = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("the body is in memory");
    (code, serde_json::from_slice(&body).expect("JSON"))
}

/// Returns the status code and the status of each of the three routes, such as `200 pass`.
pub(crate) async fn row(health: &Health) -> [String; 3] {
    let mut row = [const { String::new() }; 3];
    for (cell, path) in row.iter_mut().zip(ROUTES) {
        let (code, body) = fetch(health, path).await;
        let status = body["status"].as_str().expect("a status");
        *cell = format!("{code} {status}");
    }
    row
}

/// Advances the clock until cached results have expired.
pub(crate) async fn next_second() {
    advance(Duration::from_millis(1001)).await;
}
