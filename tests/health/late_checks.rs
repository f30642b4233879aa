//! Checks that are added while the service starts, and checks that own a state.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifesign::Probe;
use tokio::time::sleep;

use crate::service::{Dependency, builder, fetch, next_second, row};

#[tokio::test(start_paused = true)]
async fn late_required_check_gates_the_start() {
    let (db, cache) = (Dependency::default(), Dependency::default());
    let health = builder().build().unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);

    db.set_broken(true);
    health.required("db", db.check()).unwrap();
    health.optional("cache", cache.check()).unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);

    db.set_broken(false);
    cache.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["200 warn", "200 warn", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn cached_results_without_a_late_check_do_not_end_the_start() {
    let (db, queue) = (Dependency::default(), Dependency::default());
    let health = builder().required("db", db.check()).build().unwrap();
    fetch(&health, "/health").await;

    queue.set_broken(true);
    health.required("queue", queue.check()).unwrap();
    health.set_ready();

    let (code, body) = fetch(&health, "/health").await;
    assert_eq!(
        (code, body["output"].as_str()),
        (503, Some("starting: waiting for queue"))
    );
}

#[tokio::test(start_paused = true)]
async fn evaluation_under_way_does_not_end_the_start() {
    let slow = async || {
        sleep(Duration::from_millis(500)).await;
        Ok::<_, io::Error>(())
    };
    let queue = Dependency::default();
    queue.set_broken(true);
    let health = builder().required("db", slow).build().unwrap();
    let report = tokio::spawn({
        let health = health.clone();
        async move { health.report(Probe::Readiness).await }
    });
    sleep(Duration::from_millis(100)).await;

    health.required("queue", queue.check()).unwrap();
    health.set_ready();
    let report = report.await.unwrap();
    let start = br#"{"status":"fail","output":"starting: waiting for required checks","#;
    assert!(report.body().starts_with(start));

    let (code, body) = fetch(&health, "/health").await;
    assert_eq!(
        (code, body["output"].as_str()),
        (503, Some("starting: waiting for queue"))
    );
}

#[tokio::test(start_paused = true)]
async fn late_check_does_not_time_out_a_run_under_way() {
    let slow = async || {
        sleep(Duration::from_millis(500)).await;
        Ok::<_, io::Error>(())
    };
    let health = builder().required("db", slow).build().unwrap();
    let first = tokio::spawn({
        let health = health.clone();
        async move { health.report(Probe::Readiness).await }
    });
    sleep(Duration::from_millis(100)).await;

    health
        .optional("cache", Dependency::default().check())
        .unwrap();
    let (_, body) = fetch(&health, "/health").await;

    first.await.unwrap();
    assert_eq!(body["checks"]["db:responseTime"][0]["status"], "pass");
}

#[tokio::test]
async fn late_checks_are_refused_like_others_and_once_ready() {
    let ok = async || Ok::<_, io::Error>(());
    let health = builder().required("db", ok).build().unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(1)).unwrap();
    let refused = |name: &str| health.optional(name, ok).unwrap_err().to_string();

    assert_eq!(
        refused("a b"),
        "name \"a b\": expected 1 to 64 letters, digits, '-', '_' or '.'"
    );
    assert_eq!(refused("db"), "name \"db\" is registered twice");
    assert_eq!(refused("mailer"), "name \"mailer\" is registered twice");
    heartbeat.finish();
    health.optional("mailer", ok).unwrap();
    health.set_ready();
    assert_eq!(
        refused("cache"),
        "check \"cache\" is registered after set_ready()"
    );
}

#[tokio::test(start_paused = true)]
async fn check_gets_a_clone_of_its_state() {
    async fn count(counter: Arc<AtomicUsize>) -> Result<usize, io::Error> {
        Ok(counter.fetch_add(1, Ordering::SeqCst))
    }
    let counter = Arc::<AtomicUsize>::default();
    let health = builder()
        .required_with("a", Arc::clone(&counter), count)
        .optional_with("b", Arc::clone(&counter), async |counter| {
            count(counter).await
        })
        .build()
        .unwrap();
    health
        .required_with("c", Arc::clone(&counter), count)
        .unwrap();
    health
        .optional_with("d", Arc::clone(&counter), count)
        .unwrap();
    health.set_ready();

    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
    assert_eq!(counter.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn readiness_can_be_left_alone_in_the_drain() {
    let db = Dependency::default();
    let health = builder()
        .ready_during_drain()
        .required("db", db.check())
        .build()
        .unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(60)).unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    health.begin_drain();
    drop(heartbeat);
    assert_eq!(row(&health).await, ["503 fail", "200 pass", "200 pass"]);

    db.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    let (_, body) = fetch(&health, "/health/ready").await;
    assert_eq!(body["output"], "db failed");
}

#[tokio::test(start_paused = true)]
async fn drain_before_ready_does_not_make_ready() {
    let db = Dependency::default();
    db.set_broken(true);
    for begun in [false, true] {
        let health = builder()
            .ready_during_drain()
            .required("db", db.check())
            .build()
            .unwrap();
        if begun {
            health.set_ready();
        }

        health.begin_drain();

        assert_eq!(
            row(&health).await,
            ["503 fail", "503 fail", "200 pass"],
            "{begun}"
        );
    }
}
