//! Whatever checks and heartbeats there are, however they end, and in whatever order the program
//! starts, drains and is asked: the answers are those of the table on [`Health`].
//!
//! [`Model`] is that table a second time, as plainly as it can be written. Time is paused, so that
//! seconds cost nothing.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use lifesign::{Health, Heartbeat, Probe, build_info};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;
use tokio::time::{Instant, advance, sleep};
use tower::ServiceExt;

const CASES: u32 = 512;

/// A check passes on these, and on nothing else.
const PASSING: [Behaviour; 2] = [Behaviour::Pass, Behaviour::PassSlowly];

/// An answer may be as old as that, and no check is waited for longer than the other.
const CACHED: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(800);

const WITHIN: Duration = Duration::from_secs(10);

/// How a check ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Pass,
    PassSlowly,
    PassTooLate,
    Fail,
    Panic,
    PanicAtOnce,
    Hang,
}

/// What happens to a service. An `Index` is one of its checks or heartbeats.
#[derive(Debug, Clone)]
enum Event {
    Ready,
    Drain,
    Change(Index, Behaviour),
    Beat(Index),
    Finish(Index),
    Drop(Index),
    /// Milliseconds.
    Pass(u64),
    Ask(Probe),
}

#[derive(Debug, Clone)]
struct Plan {
    /// Whether it is required, and how it ends at first.
    checks: Vec<(bool, Behaviour)>,
    heartbeats: usize,
    events: Vec<Event>,
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        5 => Just(Behaviour::Pass),
        1 => Just(Behaviour::PassSlowly),
        1 => Just(Behaviour::PassTooLate),
        2 => Just(Behaviour::Fail),
        1 => Just(Behaviour::Panic),
        1 => Just(Behaviour::PanicAtOnce),
        1 => Just(Behaviour::Hang),
    ]
}

fn probe() -> impl Strategy<Value = Probe> {
    prop_oneof![
        Just(Probe::Health),
        Just(Probe::Readiness),
        Just(Probe::Liveness),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<Index>;
    prop_oneof![
        4 => Just(Event::Ready),
        1 => Just(Event::Drain),
        6 => (index(), behaviour()).prop_map(|(which, how)| Event::Change(which, how)),
        4 => index().prop_map(Event::Beat),
        1 => index().prop_map(Event::Finish),
        1 => index().prop_map(Event::Drop),
        6 => prop_oneof![1..1200_u64, Just(1000_u64), 1000..12_000_u64].prop_map(Event::Pass),
        12 => probe().prop_map(Event::Ask),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let checks = vec((any::<bool>(), behaviour()), 0..5);
    (checks, 0..3_usize, vec(event(), 1..40)).prop_map(|(checks, heartbeats, events)| Plan {
        checks,
        heartbeats,
        events,
    })
}

/// What a prober sees.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: u16,
    status: String,
    reason: Reason,
    /// Name and status of each entry, sorted by name.
    entries: Vec<(String, String)>,
}

/// Why an answer is not "pass", in the order in which a service goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Starting,
    /// Or nothing at all.
    Failing,
    Draining,
}

/// The service, and handles to all that can happen to it.
struct Service {
    health: Health,
    behaviours: Vec<Arc<Mutex<Behaviour>>>,
    heartbeats: Vec<Option<Heartbeat>>,
}

impl Service {
    /// Registers the checks in that order.
    fn new(plan: &Plan, order: impl Iterator<Item = usize>) -> Self {
        let behaviours: Vec<_> = plan
            .checks
            .iter()
            .map(|(_, how)| Arc::new(Mutex::new(*how)))
            .collect();
        let mut builder = Health::builder(build_info!());
        for i in order {
            let behaviour = Arc::clone(&behaviours[i]);
            let name = check_name(i);
            let run = move || {
                let how = *behaviour.lock().unwrap();
                assert!(how != Behaviour::PanicAtOnce, "at once");
                behave(how)
            };
            builder = match plan.checks[i].0 {
                true => builder.required(name, run),
                false => builder.optional(name, run),
            };
        }
        let health = builder.build().unwrap();
        let heartbeat = |i| health.heartbeat(heartbeat_name(i), WITHIN).unwrap();
        let heartbeats = (0..plan.heartbeats).map(heartbeat).map(Some).collect();
        Self {
            health,
            behaviours,
            heartbeats,
        }
    }

    async fn meets(&mut self, event: &Event) -> Option<Answer> {
        match event {
            Event::Ready => self.health.set_ready(),
            Event::Drain => self.health.begin_drain(),
            Event::Change(which, how) => {
                if let Some(i) = pick(*which, self.behaviours.len()) {
                    *self.behaviours[i].lock().unwrap() = *how;
                }
            }
            Event::Beat(which) => {
                if let Some(i) = pick(*which, self.heartbeats.len())
                    && let Some(heartbeat) = &self.heartbeats[i]
                {
                    heartbeat.beat();
                }
            }
            Event::Finish(which) => {
                if let Some(i) = pick(*which, self.heartbeats.len())
                    && let Some(heartbeat) = self.heartbeats[i].take()
                {
                    heartbeat.finish();
                }
            }
            Event::Drop(which) => {
                if let Some(i) = pick(*which, self.heartbeats.len()) {
                    self.heartbeats[i] = None;
                }
            }
            Event::Pass(time) => advance(Duration::from_millis(*time)).await,
            Event::Ask(probe) => return Some(self.answer(*probe).await),
        }
        None
    }

    async fn answer(&self, probe: Probe) -> Answer {
        let path = match probe {
            Probe::Readiness => "/health/ready",
            Probe::Liveness => "/health/live",
            _ => "/health",
        };
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.health.routes().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let entries = body["checks"].as_object().unwrap().iter();
        let entries = entries.map(|(name, entry)| {
            let name = name.strip_suffix(":responseTime").unwrap_or(name);
            (name.to_owned(), text(&entry[0]["status"]))
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_unstable();
        // What does not pass has a reason, and what passes has none.
        assert_eq!(body["output"].is_string(), body["status"] != "pass");
        Answer {
            code,
            status: text(&body["status"]),
            reason: match body["output"].as_str() {
                Some("draining") => Reason::Draining,
                Some(output) if output.starts_with("starting") => Reason::Starting,
                _ => Reason::Failing,
            },
            entries,
        }
    }
}

async fn behave(how: Behaviour) -> Result<(), &'static str> {
    match how {
        Behaviour::Pass => {}
        Behaviour::PassSlowly => sleep(DEADLINE / 2).await,
        Behaviour::PassTooLate => sleep(DEADLINE + Duration::from_millis(1)).await,
        Behaviour::Fail => return Err("fails"),
        Behaviour::Panic | Behaviour::PanicAtOnce => panic!("panics"),
        Behaviour::Hang => pending().await,
    }
    Ok(())
}

/// The table, and what it needs to know.
struct Model {
    required: Vec<bool>,
    behaviours: Vec<Behaviour>,
    heartbeats: Vec<Beat>,
    said_ready: bool,
    passed_once: bool,
    draining: bool,
    /// When the last evaluation started, and which checks passed in it.
    run: Option<(Instant, Vec<bool>)>,
}

#[derive(Debug, Clone, Copy)]
enum Beat {
    Last(Instant),
    Finished,
    Dropped,
}

impl Model {
    fn new(plan: &Plan) -> Self {
        Self {
            required: plan.checks.iter().map(|(required, _)| *required).collect(),
            behaviours: plan.checks.iter().map(|(_, how)| *how).collect(),
            heartbeats: vec![Beat::Last(Instant::now()); plan.heartbeats],
            said_ready: false,
            passed_once: false,
            draining: false,
            run: None,
        }
    }

    /// Called before the service meets the event, when its time is still that of the asking.
    fn meets(&mut self, event: &Event) {
        match event {
            Event::Ready => self.said_ready = true,
            Event::Drain => self.draining = true,
            Event::Change(which, how) => {
                if let Some(i) = pick(*which, self.behaviours.len()) {
                    self.behaviours[i] = *how;
                }
            }
            Event::Beat(which) => self.beat(*which, Beat::Last(Instant::now())),
            Event::Finish(which) => self.beat(*which, Beat::Finished),
            Event::Drop(which) => self.beat(*which, Beat::Dropped),
            Event::Ask(probe) if *probe != Probe::Liveness && !self.draining => {
                self.evaluate();
            }
            Event::Pass(_) | Event::Ask(_) => {}
        }
    }

    fn beat(&mut self, which: Index, beat: Beat) {
        if let Some(i) = pick(which, self.heartbeats.len())
            && matches!(self.heartbeats[i], Beat::Last(_))
        {
            self.heartbeats[i] = beat;
        }
    }

    fn evaluate(&mut self) {
        let fresh = |run: &(Instant, _)| run.0.elapsed() < CACHED;
        if !self.run.as_ref().is_some_and(fresh) {
            let passing = self.behaviours.iter().map(|how| PASSING.contains(how));
            self.run = Some((Instant::now(), passing.collect()));
        }
        if self.said_ready && !self.some_fails(true) {
            self.passed_once = true;
        }
    }

    fn some_fails(&self, required: bool) -> bool {
        let passed = self.run.iter().flat_map(|(_, passed)| passed);
        let mut checks = self.required.iter().zip(passed);
        checks.any(|(need, passed)| *need == required && !passed)
    }

    /// Called after the service has answered.
    fn answer(&self, probe: Probe) -> Answer {
        let ready = self.said_ready && (self.passed_once || !self.required.contains(&true));
        let broken = self.heartbeats.iter().any(|beat| !beat.is_well());
        let live = probe == Probe::Liveness;
        let required = self.some_fails(true);
        let readiness = probe == Probe::Readiness;
        let (code, status, reason) = if self.draining && !live {
            (503, "fail", Reason::Draining)
        } else if self.draining {
            (200, "pass", Reason::Failing)
        } else if broken {
            (503, "fail", Reason::Failing)
        } else if live {
            (200, "pass", Reason::Failing)
        } else if !ready {
            (503, "fail", Reason::Starting)
        } else if required && readiness {
            (503, "fail", Reason::Failing)
        } else if required || self.some_fails(false) {
            (200, "warn", Reason::Failing)
        } else {
            (200, "pass", Reason::Failing)
        };
        let word = |well: bool| if well { "pass" } else { "fail" }.to_owned();
        let mut entries = Vec::new();
        if !live && !self.draining {
            let passed = self.run.iter().flat_map(|(_, passed)| passed);
            entries.extend(passed.enumerate().map(|(i, p)| (check_name(i), word(*p))));
        }
        let beats = self.heartbeats.iter().enumerate();
        entries.extend(beats.map(|(i, beat)| (heartbeat_name(i), word(beat.is_well()))));
        entries.sort_unstable();
        Answer {
            code,
            status: status.to_owned(),
            reason,
            entries,
        }
    }
}

impl Beat {
    fn is_well(self) -> bool {
        match self {
            Self::Last(at) => at.elapsed() <= WITHIN,
            Self::Finished => true,
            Self::Dropped => false,
        }
    }
}

fn pick(which: Index, length: usize) -> Option<usize> {
    (length > 0).then(|| which.index(length))
}

fn check_name(i: usize) -> String {
    format!("check-{i}")
}

fn heartbeat_name(i: usize) -> String {
    format!("heartbeat-{i}")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Time stands still but for what the events and the checks take.
fn in_paused_time(
    test: impl Future<Output = Result<(), TestCaseError>>,
) -> Result<(), TestCaseError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_response_matches_the_table(plan in plan()) {
        in_paused_time(async {
            let mut service = Service::new(&plan, 0..plan.checks.len());
            let mut model = Model::new(&plan);
            for event in &plan.events {
                model.meets(event);
                let answer = service.meets(event).await;
                if let (Event::Ask(probe), Some(answer)) = (event, answer) {
                    prop_assert_eq!(answer, model.answer(*probe), "{:?}", event);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_order_of_registration_does_not_matter(plan in plan(), seed in any::<u64>()) {
        let shuffled = {
            let mut order: Vec<_> = (0..plan.checks.len()).collect();
            order.sort_by_key(|i| seed.rotate_left(7 * *i as u32) ^ *i as u64);
            order
        };
        let tell = |order: Vec<usize>| {
            let mut answers = Vec::new();
            in_paused_time(async {
                let mut service = Service::new(&plan, order.into_iter());
                for event in &plan.events {
                    answers.extend(service.meets(event).await);
                }
                Ok(())
            })
            .map(|()| answers)
        };
        prop_assert_eq!(tell(shuffled)?, tell((0..plan.checks.len()).collect())?);
    }

    #[test]
    fn the_state_never_goes_backwards(mut plan in plan()) {
        // These break and mend a service whatever its state is.
        plan.heartbeats = 0;
        in_paused_time(async {
            let mut service = Service::new(&plan, 0..plan.checks.len());
            let mut furthest = Reason::Starting;
            for event in &plan.events {
                let answer = service.meets(event).await;
                if let (Event::Ask(Probe::Health | Probe::Readiness), Some(answer)) = (event, answer) {
                    prop_assert!(answer.reason >= furthest, "{:?} after {:?}", answer, furthest);
                    furthest = answer.reason;
                }
            }
            Ok(())
        })?;
    }
}
