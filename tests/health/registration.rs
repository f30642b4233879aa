//! Names, paths and heartbeats that are refused.

use std::{io, time::Duration};

use lifesign::{HealthBuilder, Probe, RegisterError};
use serde_json::json;

use crate::service::{builder, fetch};

#[test]
fn invalid_registrations_fail_the_build() {
    let ok = async || Ok::<_, io::Error>(());
    let names = |names: &[&str]| {
        let add = |b: HealthBuilder, name: &&str| b.optional(*name, ok);
        names.iter().fold(builder(), add).build()
    };
    let paths = |health: &str, ready: &str, live: &str| {
        builder()
            .path(Probe::Health, health)
            .path(Probe::Readiness, ready)
            .path(Probe::Liveness, live)
            .build()
    };
    let long = "x".repeat(65);
    for (built, text) in [
        (
            names(&[""]),
            "name \"\": expected 1 to 64 letters, digits, '-', '_' or '.'".to_owned(),
        ),
        (
            names(&["db:x"]),
            "name \"db:x\": expected 1 to 64 letters, digits, '-', '_' or '.'".to_owned(),
        ),
        (
            names(&[&long]),
            format!("name {long:?}: expected 1 to 64 letters, digits, '-', '_' or '.'"),
        ),
        (
            names(&["db", "cache", "db"]),
            "name \"db\" is registered twice".to_owned(),
        ),
        (
            paths("/a", "/b", "/a"),
            "two routes have the path \"/a\"".to_owned(),
        ),
        (
            paths("/a/", "/b", "/a"),
            "two routes have the path \"/a\"".to_owned(),
        ),
        (
            paths("/b", "/a/", "/a//"),
            "two routes have the path \"/a//\"".to_owned(),
        ),
        (
            paths("a", "/b", "/c"),
            "path \"a\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
        (
            paths("/{id}", "/b", "/c"),
            "path \"/{id}\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
        (
            builder().check_timeout(Duration::ZERO).build(),
            "check timeout 0ns: expected 1ms to 120s".to_owned(),
        ),
        (
            builder()
                .check_timeout(Duration::from_millis(120_001))
                .build(),
            "check timeout 120.001s: expected 1ms to 120s".to_owned(),
        ),
        (
            builder().nested_under("api").build(),
            "path \"api\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
    ] {
        assert_eq!(built.unwrap_err().to_string(), text);
    }
}

#[tokio::test]
async fn invalid_heartbeats_fail_at_registration() {
    let health = builder()
        .optional("db", async || Ok::<_, io::Error>(()))
        .build()
        .unwrap();
    let text = |result: Result<_, RegisterError>| result.map(drop).unwrap_err().to_string();
    let second = Duration::from_secs(1);
    assert_eq!(
        text(health.heartbeat("db", second)),
        "name \"db\" is registered twice"
    );
    assert_eq!(
        text(health.heartbeat("worker", Duration::ZERO)),
        "heartbeat \"worker\": expected a period of at least 1ms, not 0ns"
    );
    let first = health.heartbeat("worker", second).unwrap();
    assert_eq!(
        text(health.heartbeat("worker", second)),
        "name \"worker\" is registered twice"
    );
    first.finish();
    health.heartbeat("worker", second).unwrap().finish();
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_after_a_finished_one_has_its_own_name() {
    let health = builder().build().unwrap();
    health.set_ready();
    let first = health.heartbeat("first", Duration::MAX).unwrap();
    let (_, body) = fetch(&health, "/health/live").await;
    assert_eq!(body["checks"], json!({"first": [{"status": "pass"}]}));

    first.finish();
    let second = health.heartbeat("second", Duration::MAX).unwrap();
    let (_, body) = fetch(&health, "/health/live").await;
    assert_eq!(body["checks"], json!({"second": [{"status": "pass"}]}));
    second.finish();
}
