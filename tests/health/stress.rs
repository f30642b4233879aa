//! Races on eight threads, each repeated on many services: probes, `set_ready`, `begin_drain` and
//! heartbeats at the same time.
//!
//! The second column of this table lists bugs that were put into the crate to see the test fail.
//!
//! | test | bugs that it detected |
//! |---|---|
//! | [`simultaneous_probes_share_one_run`] | releasing the lock between looking for a run and starting one; forgetting the run |
//! | [`a_disconnecting_prober_does_not_cancel_the_run`] | ending the run with the prober that started it |
//! | [`a_start_is_neither_lost_nor_undone`] | ending the start only at the end of a run; serving a cached body without comparing its state |
//! | [`a_drain_is_seen_by_every_later_probe`] | overwriting a later state; comparing and storing the state in two steps; reading the state before the heartbeats |
//! | [`no_result_is_older_than_the_cache`] | caching for 2 s |
//! | [`short_lived_heartbeats_break_nothing`] | a drop that overwrites `finish`; freeing the name before `finish` |
#![cfg(feature = "core")]

use std::{
    future::{Future, poll_fn},
    hint,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::{Duration, Instant},
};

use lifesign::{Health, Probe, Status, build_info};
use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
    time::sleep_until,
};

/// Duration of each test. How many services are tested in that time depends on the machine.
const TIME: Duration = Duration::from_secs(2);

const PROBERS: usize = 12;

/// Maximum age of a cached result.
const CACHED: Duration = Duration::from_secs(1);

/// A service with one required check that passes after yielding a few times.
#[derive(Clone)]
struct Service {
    health: Health,
    runs: Arc<AtomicUsize>,
}

impl Service {
    fn new() -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let check = move || {
            counter.fetch_add(1, SeqCst);
            async {
                for _ in 0..3 {
                    yield_now().await;
                }
                Ok::<(), &str>(())
            }
        };
        let health = Health::builder(build_info!()).required("db", check).build();
        let health = health.expect("a fixed registry");
        Self { health, runs }
    }

    async fn status(&self, probe: Probe) -> Status {
        self.health.report(probe).await.status()
    }
}

/// Runs a race on one new service after another, until [`TIME`] is over.
async fn race_many<F: Future<Output = ()>>(mut race: impl FnMut(Service, usize) -> F) {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < TIME {
        race(Service::new(), count).await;
        count += 1;
    }
    println!("{count} services");
    assert!(count > 10, "only {count} services in {TIME:?}");
}

/// Starts several actions together. Each is delayed by a small pseudo-random time that differs in
/// each round.
struct Race {
    acts: JoinSet<()>,
    start: Arc<Barrier>,
    delay: usize,
}

impl Race {
    fn new(acts: usize, round: usize) -> Self {
        Self {
            acts: JoinSet::new(),
            start: Arc::new(Barrier::new(acts)),
            delay: round % 97,
        }
    }

    fn enter(&mut self, act: impl Future<Output = ()> + Send + 'static) {
        let start = Arc::clone(&self.start);
        self.delay = (self.delay * 31 + 17) % 997;
        let delay = self.delay;
        self.acts.spawn(async move {
            start.wait().await;
            for _ in 0..delay {
                hint::spin_loop();
            }
            act.await;
        });
    }

    async fn run(mut self) {
        while let Some(act) = self.acts.join_next().await {
            act.expect("no act panics");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn simultaneous_probes_share_one_run() {
    race_many(async |service, round| {
        let start = Instant::now();
        let mut race = Race::new(PROBERS, round);
        for _ in 0..PROBERS {
            let service = service.clone();
            race.enter(async move {
                for probe in [Probe::Health, Probe::Readiness] {
                    assert_eq!(
                        service.status(probe).await,
                        Status::Fail,
                        "before the start"
                    );
                }
            });
        }
        race.run().await;
        let runs = service.runs.load(SeqCst);
        assert!(runs == 1 || start.elapsed() >= CACHED, "{runs} runs");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_disconnecting_prober_does_not_cancel_the_run() {
    race_many(async |service, round| {
        let start = Instant::now();
        service.health.set_ready();
        let mut race = Race::new(PROBERS, round);
        for prober in 0..PROBERS {
            let service = service.clone();
            race.enter(async move {
                if prober % 2 == 0 {
                    let mut report = pin!(service.status(Probe::Health));
                    // The future is polled once and then dropped, like that of a prober that
                    // disconnects.
                    poll_fn(|context| {
                        let _ = report.as_mut().poll(context);
                        Poll::Ready(())
                    })
                    .await;
                } else {
                    let status = service.status(Probe::Health).await;
                    assert_eq!(status, Status::Pass);
                }
            });
        }
        race.run().await;
        let runs = service.runs.load(SeqCst);
        assert!(runs == 1 || start.elapsed() >= CACHED, "{runs} runs");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_start_is_neither_lost_nor_undone() {
    race_many(async |service, round| {
        let started = Arc::new(AtomicBool::new(false));
        let mut race = Race::new(PROBERS + 1, round);
        for _ in 0..PROBERS {
            let (service, started) = (service.clone(), Arc::clone(&started));
            race.enter(async move {
                for _ in 0..4 {
                    let before = started.load(SeqCst);
                    match service.status(Probe::Readiness).await {
                        Status::Pass => started.store(true, SeqCst),
                        status => assert!(!before, "{status} after readiness had passed"),
                    }
                }
            });
        }
        let health = service.health.clone();
        race.enter(async move { health.set_ready() });
        race.run().await;
        let status = service.status(Probe::Readiness).await;
        assert_eq!(
            status,
            Status::Pass,
            "set_ready() was called, and the check passes"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_drain_is_seen_by_every_later_probe() {
    race_many(async |service, round| {
        let draining = Arc::new(AtomicBool::new(false));
        let mut race = Race::new(PROBERS + 2, round);
        for _ in 0..PROBERS {
            let (service, draining) = (service.clone(), Arc::clone(&draining));
            race.enter(async move {
                for _ in 0..4 {
                    let before = draining.load(SeqCst);
                    let report = service.health.report(Probe::Readiness).await;
                    let reported = String::from_utf8_lossy(report.body()).contains("draining");
                    assert!(reported || !before, "{report:?} while draining");
                    let status = service.status(Probe::Liveness).await;
                    assert_eq!(status, Status::Pass);
                }
            });
        }
        let health = service.health.clone();
        race.enter(async move {
            health.set_ready();
        });
        let (health, began) = (service.health.clone(), Arc::clone(&draining));
        let heartbeat = health.heartbeat("worker", Duration::from_secs(60));
        let heartbeat = heartbeat.expect("a name");
        race.enter(async move {
            yield_now().await;
            health.begin_drain();
            // Dropping a heartbeat during the drain is not a failure.
            drop(heartbeat);
            began.store(true, SeqCst);
        });
        race.run().await;
        service.health.set_ready();
        let status = service.status(Probe::Readiness).await;
        assert_eq!(status, Status::Fail, "the drain was undone");
    })
    .await;
}

/// The times at which a dependency broke and recovered.
#[derive(Default)]
struct History(Mutex<Vec<(Instant, bool)>>);

impl History {
    /// Whether the dependency's state differed from `broken` all the time from `from` to `to`.
    fn excludes(&self, broken: bool, from: Instant, to: Instant) -> bool {
        let changes = self.0.lock().unwrap();
        let before = changes.iter().rposition(|(at, _)| *at <= from);
        before.is_some_and(|i| {
            let (_, was) = changes[i];
            was != broken && changes.get(i + 1).is_none_or(|(next, _)| *next > to)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_result_is_older_than_the_cache() {
    let end = tokio::time::Instant::now() + 3 * CACHED;
    let mut all = JoinSet::new();
    for service in 0..200_u32 {
        let history = Arc::new(History::default());
        history.0.lock().unwrap().push((Instant::now(), false));
        let dependency = Arc::clone(&history);
        let check = move || {
            let (_, broken) = *dependency.0.lock().unwrap().last().expect("a first state");
            async move { if broken { Err("broken") } else { Ok(()) } }
        };
        let health = Health::builder(build_info!()).optional("cache", check);
        let health = health.build().expect("a fixed registry");
        health.set_ready();
        let changes = Arc::clone(&history);
        all.spawn(async move {
            // Each service changes at its own interval, so that changes happen at different
            // ages of the cached results.
            let pace = Duration::from_millis(u64::from(150 + service * 7));
            let mut next = tokio::time::Instant::now();
            let mut broken = false;
            while next < end {
                next += pace;
                sleep_until(next).await;
                broken = !broken;
                // The lock is held during the change, so that no check sees the change before its
                // time is recorded.
                let mut changes = changes.0.lock().unwrap();
                changes.push((Instant::now(), broken));
            }
        });
        for prober in 0..2_u32 {
            let (health, history) = (health.clone(), Arc::clone(&history));
            all.spawn(async move {
                let pace = Duration::from_millis(u64::from(37 + 16 * prober));
                let mut next = tokio::time::Instant::now();
                while next < end {
                    next += pace;
                    sleep_until(next).await;
                    let started = Instant::now();
                    let status = health.report(Probe::Health).await.status();
                    let old = started.checked_sub(CACHED);
                    let from = old.expect("this machine has run for a second");
                    let excluded = history.excludes(status == Status::Warn, from, Instant::now());
                    assert!(!excluded, "{status} of more than {CACHED:?} ago");
                }
            });
        }
    }
    while let Some(task) = all.join_next().await {
        task.expect("no task panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn short_lived_heartbeats_break_nothing() {
    race_many(async |service, round| {
        let holders: Arc<[AtomicUsize; 4]> = Arc::default();
        let mut race = Race::new(PROBERS, round);
        for worker in 0..PROBERS {
            let (service, holders) = (service.clone(), Arc::clone(&holders));
            race.enter(async move {
                for _ in 0..4 {
                    // Three workers try to register each name.
                    let name = format!("worker-{}", worker % 4);
                    let holders = &holders[worker % 4];
                    let within = Duration::from_secs(60);
                    if let Ok(heartbeat) = service.health.heartbeat(name, within) {
                        assert_eq!(
                            holders.fetch_add(1, SeqCst),
                            0,
                            "another worker has the name"
                        );
                        heartbeat.beat();
                        holders.fetch_sub(1, SeqCst);
                        heartbeat.finish();
                    }
                    let status = service.status(Probe::Liveness).await;
                    assert_eq!(status, Status::Pass);
                }
            });
        }
        race.run().await;
    })
    .await;
}
