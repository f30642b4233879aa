//! Evaluation of checks: on demand, once for simultaneous probes, at most once a second, and with
//! one deadline for all checks.

use std::{
    future::{pending, ready},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use lifesign::{Health, Probe, Report, Status};
use tokio::{
    runtime::Runtime,
    sync::Semaphore,
    task::{JoinHandle, yield_now},
    time::{advance, sleep},
};

use crate::service::{Dependency, SECRET, builder, fetch, next_second, row};

#[tokio::test(start_paused = true)]
async fn liveness_runs_no_check() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    fetch(&health, "/health/live").await;
    assert_eq!(db.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_simultaneous_probes_run_a_slow_check_once() {
    let db = Dependency::default();
    let health = builder().required("db", db.slow_check()).build().unwrap();
    health.set_ready();
    let probes: Vec<_> = (0..1000)
        .map(|_| {
            let health = health.clone();
            tokio::spawn(async move { fetch(&health, "/health/ready").await.0 })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap(), 200);
    }
    assert_eq!(db.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_is_cached_for_one_second() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    for _ in 0..3 {
        fetch(&health, "/health").await;
        fetch(&health, "/health/ready").await;
    }
    assert_eq!(db.runs(), 1);
    advance(Duration::from_millis(999)).await;
    fetch(&health, "/health").await;
    assert_eq!(db.runs(), 1);
    advance(Duration::from_millis(1)).await;
    fetch(&health, "/health").await;
    assert_eq!(db.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_checks_can_be_set() {
    let slow = async || {
        sleep(Duration::from_secs(5)).await;
        Ok::<_, io::Error>(())
    };
    for (timeout, expected) in [(4999, Status::Fail), (5001, Status::Pass)] {
        let health = builder()
            .required("slow", slow)
            .check_timeout(Duration::from_millis(timeout))
            .build()
            .unwrap();
        health.set_ready();
        let started = tokio::time::Instant::now();
        let report = health.report(Probe::Readiness).await;
        assert_eq!(report.status(), expected, "{timeout} ms");
        let took = Duration::from_millis(timeout.min(5000));
        assert_eq!(started.elapsed(), took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails_at_the_deadline_and_is_aborted() {
    struct Running(Arc<AtomicBool>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let health = builder()
        .required("hangs", {
            let ended = Arc::clone(&ended);
            move || {
                let running = Running(Arc::clone(&ended));
                async move {
                    let _running = running;
                    pending::<Result<(), io::Error>>().await
                }
            }
        })
        .optional("well", Dependency::default().check())
        .build()
        .unwrap();
    let started = tokio::time::Instant::now();
    let (code, body) = fetch(&health, "/health/ready").await;
    assert_eq!(started.elapsed(), Duration::from_millis(800));
    assert_eq!(code, 503);
    assert_eq!(
        body["output"],
        "starting: set_ready() has not been called yet, waiting for hangs"
    );
    assert_eq!(body["checks"]["hangs:responseTime"][0]["status"], "fail");
    assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
    yield_now().await;
    assert!(ended.load(SeqCst), "the task was left running");
}

#[tokio::test(start_paused = true)]
async fn all_checks_share_one_deadline() {
    let mut builder = builder();
    for name in ["a", "b", "c", "d"] {
        builder = builder.required(name, async || pending::<Result<(), io::Error>>().await);
    }
    let health = builder.build().unwrap();
    let started = tokio::time::Instant::now();
    fetch(&health, "/health").await;
    assert_eq!(started.elapsed(), Duration::from_millis(800));
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_only_its_own_check() {
    let calls = AtomicUsize::new(0);
    let health = builder()
        .required("panics", move || {
            // The first call panics before it returns a future, the future of the second call
            // panics, and later calls pass.
            let call = calls.fetch_add(1, SeqCst);
            assert!(call != 0, "in the closure: {SECRET}");
            async move {
                assert!(call != 1, "in the future: {SECRET}");
                Ok::<_, io::Error>(())
            }
        })
        .optional("well", Dependency::default().check())
        .build()
        .unwrap();
    health.set_ready();
    for _ in 0..2 {
        let (code, body) = fetch(&health, "/health/ready").await;
        assert_eq!(code, 503);
        assert_eq!(body["checks"]["panics:responseTime"][0]["status"], "fail");
        assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
        next_second().await;
    }
    assert_eq!(fetch(&health, "/health/ready").await.0, 200);
}

#[tokio::test]
async fn a_late_success_is_a_failure() {
    let health = builder()
        // The check blocks the only thread, so the deadline's timer cannot fire before the check
        // succeeds.
        .required("late", async || {
            thread::sleep(Duration::from_millis(900));
            Ok::<_, io::Error>(())
        })
        .build()
        .unwrap();
    health.set_ready();
    let (code, body) = fetch(&health, "/health/ready").await;
    assert_eq!(code, 503);
    assert_eq!(body["checks"]["late:responseTime"][0]["status"], "fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_that_blocks_its_thread_is_late_and_not_started_again() {
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let calls = Arc::new(AtomicUsize::new(0));
    let health = builder()
        .required("blocks", {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, SeqCst);
                let blocked = Arc::clone(&blocked);
                async move {
                    let _ = blocked
                        .lock()
                        .unwrap()
                        .recv_timeout(Duration::from_secs(20));
                    Ok::<_, io::Error>(())
                }
            }
        })
        .build()
        .unwrap();
    health.set_ready();
    let mut last_runs = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        let report = health.report(Probe::Readiness).await;
        assert_eq!(report.status(), Status::Fail);
        last_runs.extend(report.checks().map(|check| check.last_run));
        assert!(started.elapsed() < Duration::from_millis(1500));
        sleep(Duration::from_millis(1001)).await;
    }
    assert_eq!(calls.load(SeqCst), 1);
    assert_eq!(last_runs.len(), 2);
    assert_eq!(last_runs[0], last_runs[1]);
    assert_eq!(health.report(Probe::Liveness).await.status(), Status::Pass);
    unblock.send(()).unwrap();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Spawns an evaluation without polling it. It hangs, because nothing drives the runtime after
/// `block_on`.
fn spawn_evaluation(runtime: &Runtime, health: &Health) {
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = health.report(Probe::Readiness) => panic!("the evaluation was not polled"),
            () = ready(()) => {}
        }
    });
}

#[test]
fn a_blocked_runtime_does_not_block_probers_of_another() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    let blocked = runtime();
    spawn_evaluation(&blocked, &health);

    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let row = || runtime().block_on(row(&health));
        sender.send([row(), row()]).unwrap();
    });
    let [first, second] = receiver
        .recv_timeout(Duration::from_secs(5))
        .expect("a response within the deadline");
    assert_eq!(first, ["503 fail", "200 pass", "200 pass"]);
    assert_eq!(second, ["200 pass", "200 pass", "200 pass"]);
    assert_eq!(db.runs(), 1);
    drop(blocked);
}

#[test]
fn checks_that_passed_before_their_runtime_was_blocked_pass() {
    let db = Dependency::default();
    let health = builder()
        .required("db", db.check())
        .optional("hangs", async || pending::<Result<(), io::Error>>().await)
        .build()
        .unwrap();
    health.set_ready();
    let blocked = runtime();
    blocked.block_on(async {
        let check_has_run = async {
            while db.runs() == 0 {
                yield_now().await;
            }
        };
        tokio::select! {
            _ = health.report(Probe::Readiness) => panic!("a check hangs"),
            () = check_has_run => {}
        }
    });

    let report = runtime().block_on(health.report(Probe::Readiness));
    let statuses: Vec<_> = report.checks().map(|check| check.status).collect();
    assert_eq!(statuses, [Status::Pass, Status::Fail]);
    assert_eq!(report.status(), Status::Warn);
    drop(blocked);
}

/// A service whose first evaluation was spawned on the runtime `frozen`, and was not polled until
/// its deadline.
struct Frozen {
    health: Health,
    frozen: Runtime,
    healthy: Runtime,
    /// Number of runs of the required check.
    runs: Arc<AtomicUsize>,
    /// Each permit lets one run pass.
    gate: Arc<Semaphore>,
}

impl Frozen {
    fn new() -> Self {
        let (frozen, healthy) = (runtime(), runtime());
        let (runs, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let check = (Arc::clone(&runs), Arc::clone(&gate));
        let health = builder()
            .required_with(
                "db",
                check,
                async |(runs, gate): (Arc<AtomicUsize>, Arc<Semaphore>)| {
                    runs.fetch_add(1, SeqCst);
                    gate.acquire().await.map(drop)
                },
            )
            .check_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        health.set_ready();
        spawn_evaluation(&frozen, &health);
        let late = healthy.block_on(health.report(Probe::Readiness));
        assert_eq!((late.status(), runs.load(SeqCst)), (Status::Fail, 0));
        Self {
            health,
            frozen,
            healthy,
            runs,
            gate,
        }
    }

    /// Polls the first evaluation, and the run that it starts.
    fn thaw(&self) {
        self.frozen.block_on(poll_tasks());
    }

    /// Spawns a prober, and polls it and the evaluation that it starts.
    fn probe(&self) -> JoinHandle<Report> {
        let health = self.health.clone();
        let report = async move { health.report(Probe::Readiness).await };
        let report = self.healthy.spawn(report);
        self.healthy.block_on(poll_tasks());
        report
    }
}

/// Polls the tasks of the runtime often enough that they all wait.
async fn poll_tasks() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[test]
fn an_evaluation_that_starts_late_replaces_no_other() {
    let service = Frozen::new();
    let report = service.probe();
    service.thaw();
    service.gate.add_permits(1);

    let report = service.healthy.block_on(report).unwrap();
    assert_eq!(report.status(), Status::Pass);
    let cached = service
        .healthy
        .block_on(service.health.report(Probe::Readiness));
    assert_eq!(cached.status(), Status::Pass);
    assert_eq!(service.runs.load(SeqCst), 1);
}

#[test]
fn a_prober_waits_for_an_evaluation_that_started_late() {
    let service = Frozen::new();
    service.thaw();
    let report = service.probe();
    service.gate.add_permits(1);
    service.thaw();

    let report = service.healthy.block_on(report).unwrap();
    assert_eq!(report.status(), Status::Pass);
    assert_eq!(service.runs.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disconnecting_prober_does_not_affect_others() {
    let db = Dependency::default();
    let health = builder().required("db", db.slow_check()).build().unwrap();
    health.set_ready();
    let impatient = tokio::time::timeout(Duration::from_millis(100), fetch(&health, "/health"));
    assert!(impatient.await.is_err());

    let (code, _) = fetch(&health, "/health").await;
    assert_eq!((code, db.runs()), (200, 1));
}
