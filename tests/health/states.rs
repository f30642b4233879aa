//! The states of a service, and the response of each route.

use std::{io, time::Duration};

use serde_json::json;
use tokio::time::{advance, sleep};

use crate::service::{Dependency, builder, fetch, next_second, row};

#[tokio::test(start_paused = true)]
async fn starting_only_passes_liveness() {
    let health = builder().build().unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn ready_passes_everywhere() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn optional_failure_warns_and_keeps_traffic() {
    let cache = Dependency::default();
    cache.set_broken(true);
    let health = builder().optional("cache", cache.check()).build().unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 warn", "200 warn", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn required_failure_only_fails_readiness() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    db.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["200 warn", "503 fail", "200 pass"]);

    db.set_broken(false);
    next_second().await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn starting_lasts_until_required_checks_have_passed_once() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder().required("db", db.check()).build().unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    let (_, body) = fetch(&health, "/health").await;
    let not_ready = "starting: set_ready() has not been called yet";
    assert_eq!(body["output"], format!("{not_ready}, waiting for db"));
    db.set_broken(false);
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    let (_, body) = fetch(&health, "/health").await;
    assert_eq!(body["output"], not_ready);

    db.set_broken(true);
    health.set_ready();
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    let (_, body) = fetch(&health, "/health").await;
    assert_eq!(body["output"], "starting: waiting for db");

    db.set_broken(false);
    next_second().await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    // A service that is ready does not return to "starting" when a required check fails.
    db.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["200 warn", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn passing_checks_alone_do_not_end_the_start() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn optional_failure_does_not_delay_the_start() {
    let cache = Dependency::default();
    cache.set_broken(true);
    let health = builder()
        .required("db", Dependency::default().check())
        .optional("cache", cache.check())
        .build()
        .unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 warn", "200 warn", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn late_heartbeat_is_broken_until_it_beats_again() {
    let health = builder().build().unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(30)).unwrap();
    health.set_ready();
    advance(Duration::from_secs(30)).await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    advance(Duration::from_millis(1)).await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "503 fail"]);
    let (_, body) = fetch(&health, "/health/live").await;
    assert_eq!(body["output"], "heartbeat mailer is late");

    heartbeat.beat();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_heartbeat_is_broken_for_good() {
    let health = builder().build().unwrap();
    health.set_ready();
    let heartbeat = health.heartbeat("mailer", Duration::MAX).unwrap();
    let worker = tokio::spawn(async move {
        heartbeat.beat();
        panic!("the worker's bug");
    });
    assert!(worker.await.unwrap_err().is_panic());

    assert_eq!(row(&health).await, ["503 fail", "503 fail", "503 fail"]);
    let (_, body) = fetch(&health, "/health").await;
    assert_eq!(body["output"], "heartbeat mailer was dropped");
    assert_eq!(body["checks"]["mailer"], json!([{"status": "fail"}]));
}

#[tokio::test(start_paused = true)]
async fn finished_heartbeat_may_be_silent() {
    let health = builder().build().unwrap();
    health.set_ready();
    let heartbeat = health.heartbeat("import", Duration::from_secs(1)).unwrap();
    heartbeat.finish();
    advance(Duration::from_secs(3600)).await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn draining_is_final_and_live_whatever_workers_do() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(1)).unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    health.begin_drain();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    drop(heartbeat);
    health.set_ready();
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn state_is_read_again_after_the_checks() {
    let health = builder()
        .required("slow", async || {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, io::Error>(())
        })
        .build();
    let health = health.unwrap();
    health.set_ready();
    let response = tokio::spawn({
        let health = health.clone();
        async move { fetch(&health, "/health/ready").await }
    });
    sleep(Duration::from_millis(100)).await;
    health.begin_drain();
    let (code, body) = response.await.unwrap();
    assert_eq!((code, body["output"].as_str()), (503, Some("draining")));
}
