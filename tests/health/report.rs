//! Methods of [`Report`](lifesign::Report): the state, the checks and the heartbeats.

use std::time::{Duration, SystemTime};

use lifesign::{Probe, ServiceState, Status};

use crate::service::{Dependency, builder, next_second, with_a_failing_cache};

#[tokio::test(start_paused = true)]
async fn checks_have_a_name_a_status_a_duration_and_a_time() {
    let health = with_a_failing_cache();
    health.set_ready();

    let before = SystemTime::now();
    let report = health.report(Probe::Health).await;
    let after = SystemTime::now();

    let results: Vec<_> = report
        .checks()
        .map(|check| (check.name, check.is_required, check.status, check.duration))
        .collect();
    assert_eq!(
        results,
        [
            ("db", true, Status::Pass, Duration::from_millis(12)),
            ("cache", false, Status::Fail, Duration::ZERO),
        ]
    );
    for check in report.checks() {
        assert!((before..=after).contains(&check.last_run), "{check:?}");
    }
    // Results are reused for a second, so `last_run` stays the same.
    let same = health.status_only().report(Probe::Readiness).await;
    assert!(same.checks().eq(report.checks()));
    next_second().await;
    let next = health.report(Probe::Health).await;
    let pairs: Vec<_> = next.checks().zip(report.checks()).collect();
    assert_eq!(pairs.len(), 2);
    assert!(
        pairs
            .iter()
            .all(|(next, last)| next.last_run > last.last_run)
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_reported_with_the_timeout() {
    let health = builder()
        .required("hangs", std::future::pending::<Result<(), String>>)
        .check_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let report = health.report(Probe::Readiness).await;
    let hangs = report.checks().next().unwrap();
    assert_eq!(hangs.status, Status::Fail);
    assert_eq!(hangs.duration, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn liveness_and_a_drain_have_no_checks() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    assert_eq!(health.report(Probe::Liveness).await.checks().count(), 0);
    assert_eq!(health.report(Probe::Readiness).await.checks().count(), 1);
    health.begin_drain();
    assert_eq!(health.report(Probe::Readiness).await.checks().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_reported_in_its_order() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder().required("db", db.check()).build().unwrap();
    let state = async || health.report(Probe::Liveness).await.state();
    assert_eq!(state().await, ServiceState::Starting);
    health.set_ready();
    assert_eq!(state().await, ServiceState::Waiting);
    db.set_broken(false);
    let report = health.report(Probe::Readiness).await;
    assert_eq!(report.state(), ServiceState::Ready);
    db.set_broken(true);
    next_second().await;
    let report = health.report(Probe::Readiness).await;
    assert_eq!(
        (report.status(), report.state()),
        (Status::Fail, ServiceState::Ready)
    );
    health.begin_drain();
    assert_eq!(state().await, ServiceState::Draining);
    assert_eq!(state().await.to_string(), "draining");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_have_a_name_and_a_status() {
    let health = builder().build().unwrap();
    let mailer = health.heartbeat("mailer", Duration::from_secs(30)).unwrap();
    let sender = health.heartbeat("sender", Duration::from_secs(30)).unwrap();
    drop(sender);
    let report = health.report(Probe::Liveness).await;
    let heartbeats: Vec<_> = report.heartbeats().collect();
    assert_eq!(
        heartbeats,
        [("mailer", Status::Pass), ("sender", Status::Fail)]
    );
    mailer.finish();
}

/// The `Debug` output can end up in a log, and must not contain more than the body.
#[tokio::test(start_paused = true)]
async fn debug_output_has_no_error() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder().required("db", db.check()).build().unwrap();
    let report = health.report(Probe::Readiness).await;
    assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
}
