//! The advertisement of the test process, read from where the probe reads it.
#![cfg(all(target_os = "linux", feature = "axum", feature = "listener"))]

use std::{
    fs,
    net::SocketAddr,
    process,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{Router, body::Body, http::Request};
use lifesign::{Health, HealthBuilder, Probe, build_info};
use tokio::runtime::Builder;
use tower::ServiceExt;

/// Serializes the tests, because one process has one advertisement.
static FILE: Mutex<()> = Mutex::new(());

fn exclusive() -> MutexGuard<'static, ()> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn builder() -> HealthBuilder {
    Health::builder(build_info!())
}

fn service() -> Health {
    builder()
        .build()
        .expect("nothing is wrong with the defaults")
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Returns the lines of the advertisement: the format, the endpoint, the three paths, the time
/// for the checks in milliseconds, and the number of the instance.
fn advertised() -> Option<Vec<String>> {
    let namespace = fs::read_link("/proc/self/ns/mnt").expect("a process has a mount namespace");
    let namespace = namespace.to_str().expect("its name is ASCII");
    let number = namespace.trim_matches(|c: char| !c.is_ascii_digit());
    let (name, pid) = (build_info!().name(), process::id());
    let text = fs::read_to_string(format!("/dev/shm/lifesign.{number}.{name}.{pid}")).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

fn endpoint() -> Option<String> {
    advertised().map(|lines| lines[1].clone())
}

#[test]
fn the_time_for_the_checks_is_advertised() {
    let _alone = exclusive();
    for (timeout, millis) in [(1, "101"), (2500, "2600"), (120_000, "120100")] {
        let timeout = std::time::Duration::from_millis(timeout);
        let health = builder().check_timeout(timeout).build().unwrap();
        health.advertise(address(8001));
        assert_eq!(advertised().unwrap()[5], millis);
    }
}

#[test]
fn the_last_advertisement_replaces_earlier_ones() {
    let _alone = exclusive();
    let health = service();
    health.advertise(address(8001)).advertise(address(8002));
    assert_eq!(endpoint().as_deref(), Some("http://127.0.0.1:8002"));

    drop(health);
    assert_eq!(endpoint(), None);
}

#[test]
fn dropping_a_replaced_advertisement_leaves_the_newer_one() {
    let _alone = exclusive();
    let (old, new) = (service(), service());
    old.advertise(address(8001));
    new.advertise(address(8002));

    drop(old);
    assert_eq!(endpoint().as_deref(), Some("http://127.0.0.1:8002"));

    drop(new);
    assert_eq!(endpoint(), None);
}

#[test]
fn advertised_paths_match_nested_axum_routes() {
    let _alone = exclusive();
    let runtime = Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without IO needs nothing");
    for (prefix, root) in [
        ("/api", "/health"),
        ("/api/", "/health"),
        ("/api/v1", "/health/"),
        ("/api", "/"),
        ("/api/", "/"),
    ] {
        let health = builder()
            .path(Probe::Health, root)
            .path(Probe::Readiness, "/ready")
            .path(Probe::Liveness, "/live")
            .nested_under(prefix);
        let health = health.build().expect("these are paths");
        health.advertise(address(8001)).set_ready();
        let app: Router = Router::new().nest(prefix, health.routes());

        for path in &advertised().expect("the endpoint is advertised")[2..5] {
            let request = Request::builder().uri(path).body(Body::empty());
            let request = request.expect("the line is a path");
            let response = runtime.block_on(app.clone().oneshot(request));
            let response = response.expect("routers do not fail");
            assert_eq!(response.status(), 200, "{prefix} {root}: {path}");
        }
    }
}
