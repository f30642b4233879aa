//! Exact bodies, headers, methods and paths of the routes.

use std::time::Duration;

use axum::{
    Router,
    body::to_bytes,
    http::{Method, StatusCode, header},
    middleware,
    response::Html,
    routing::get,
};
use lifesign::{Probe, build_info};
use serde_json::json;

use crate::service::{Dependency, ROUTES, builder, fetch, next_second, send, with_a_failing_cache};

#[tokio::test(start_paused = true)]
async fn body_is_exactly_this() {
    let health = with_a_failing_cache();
    let _heartbeat = health.heartbeat("mailer", Duration::from_secs(30)).unwrap();
    health.set_ready();

    let response = send(health.routes(), Method::GET, "/health").await;
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();

    let build = build_info!();
    let known = [
        ("releaseId", build.commit()),
        ("commit", build.commit()),
        ("commitDate", build.commit_date()),
        ("buildDate", build.build_date()),
    ];
    let known: String = known
        .iter()
        .filter_map(|(key, value)| Some(format!(r#""{key}":"{}","#, (*value)?)))
        .collect();
    let expected = format!(
        "{}{}{known}{}",
        r#"{"status":"warn","output":"cache failed","serviceId":"lifesign","#,
        format_args!(r#""version":"{}","#, build.version()),
        concat!(
            r#""checks":{"db:responseTime":"#,
            r#"[{"status":"pass","observedValue":12.0,"observedUnit":"ms"}],"#,
            r#""cache:responseTime":"#,
            r#"[{"status":"fail","observedValue":0.0,"observedUnit":"ms"}],"#,
            r#""mailer":[{"status":"pass"}]}}"#
        )
    );
    assert_eq!(str::from_utf8(&body).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn status_only_is_exactly_that() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder()
        .required("db", db.check())
        .optional("cache", db.check())
        .build()
        .unwrap();
    let public = health.status_only();
    for (probe, status) in [("/health", "fail"), ("/health/live", "pass")] {
        let (_, body) = fetch(&public, probe).await;
        assert_eq!(body, json!({"status": status}));
    }
    health.set_ready();
    db.set_broken(false);
    next_second().await;
    assert_eq!(fetch(&public, "/health").await.0, 200);
    db.set_broken(true);
    next_second().await;
    let (code, body) = fetch(&public, "/health").await;
    assert_eq!((code, body), (200, json!({"status": "warn"})));
    // The original handle reports the reason, from the same run of the checks.
    let (_, body) = fetch(&health, "/health").await;
    assert_eq!(body["output"], "db failed, cache failed");
}

#[tokio::test(start_paused = true)]
async fn head_has_the_headers_of_get_and_no_body() {
    let health = builder().build().unwrap();
    for path in ROUTES {
        for method in [Method::GET, Method::HEAD] {
            let response = send(health.routes(), method.clone(), path).await;
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], "application/health+json");
            assert_eq!(headers[header::CACHE_CONTROL], "no-store");
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_not_allowed() {
    let health = builder().build().unwrap();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = send(health.routes(), method, "/health").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    }
}

#[tokio::test(start_paused = true)]
async fn earlier_layers_do_not_apply_to_the_routes() {
    let health = builder().build().unwrap();
    health.set_ready();
    let app = Router::new()
        .route("/", get(async || "hello"))
        .layer(middleware::from_fn(
            async |_: axum::extract::Request, _: middleware::Next| StatusCode::UNAUTHORIZED,
        ))
        .merge(health.routes());
    let root = send(app.clone(), Method::GET, "/").await;
    let probe = send(app, Method::GET, "/health").await;
    assert_eq!(root.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(probe.status(), StatusCode::OK);
}

/// A single-page application serves its page at every path without a route of its own.
#[tokio::test(start_paused = true)]
async fn a_catch_all_route_gets_no_probe() {
    let page = || Router::new().fallback(async || Html("<!doctype html>"));
    let wildcard = || Router::new().route("/{*path}", get(async || Html("<!doctype html>")));
    let health = builder().build().unwrap();
    let nested = Router::new().nest("/api", health.routes());
    for (app, prefix) in [
        (page().merge(health.routes()), ""),
        (wildcard().merge(health.routes()), ""),
        (page().merge(nested.clone()), "/api"),
        (wildcard().merge(nested), "/api"),
    ] {
        for (path, code) in ROUTES.into_iter().zip([503, 503, 200]) {
            for path in [format!("{prefix}{path}"), format!("{prefix}{path}/")] {
                let response = send(app.clone(), Method::GET, &path).await;
                assert_eq!(response.status(), code, "{path}");
                let media_type = &response.headers()[header::CONTENT_TYPE];
                assert_eq!(media_type, "application/health+json", "{path}");
            }
        }
        let response = send(app, Method::GET, "/health/other/").await;
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_may_end_in_a_slash() {
    let health = builder()
        .path(Probe::Health, "/")
        .path(Probe::Readiness, "/ready/")
        .path(Probe::Liveness, "/a//")
        .build()
        .unwrap();
    let nested = Router::new().nest("/api", health.routes());
    for (app, path, code) in [
        (health.routes(), "/", 503),
        (health.routes(), "/ready", 503),
        (health.routes(), "/ready/", 503),
        (health.routes(), "/a/", 200),
        (health.routes(), "/a//", 200),
        (health.routes(), "/a", 404),
        (nested.clone(), "/api", 503),
        (nested, "/api/ready/", 503),
    ] {
        let response = send(app, Method::GET, path).await;
        assert_eq!(response.status(), code, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn paths_can_be_changed() {
    let health = builder()
        .path(Probe::Health, "/healthz")
        .path(Probe::Readiness, "/readyz")
        .path(Probe::Liveness, "/livez")
        .build()
        .unwrap();
    for (path, code) in [
        ("/healthz", 503),
        ("/readyz", 503),
        ("/livez", 200),
        ("/health", 404),
    ] {
        let response = send(health.routes(), Method::GET, path).await;
        assert_eq!(response.status(), code, "{path}");
    }
}
