//! Generates random services and events, and asserts that every response matches the table on
//! [`Health`].
//!
//! [`Model`] is a second and simple implementation of that table. The clock is paused.

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

/// Behaviours of a check that passes.
const PASSING: [Behaviour; 2] = [Behaviour::Pass, Behaviour::PassSlowly];

/// Maximum age of a cached result.
const CACHED: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(800);

const WITHIN: Duration = Duration::from_secs(10);

/// The behaviour of a check when it runs.
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

/// An event in the life of a service. An `Index` selects the check or heartbeat that the event is
/// about.
#[derive(Debug, Clone)]
enum Event {
    Ready,
    Drain,
    Change(Index, Behaviour),
    Beat(Index),
    Finish(Index),
    Drop(Index),
    /// The time advances by this many milliseconds.
    Pass(u64),
    Probe(Probe),
}

#[derive(Debug, Clone)]
struct Plan {
    /// For each check: whether it is required, and its first behaviour.
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
        12 => probe().prop_map(Event::Probe),
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

/// The parts of a response that the model predicts.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    code: u16,
    status: String,
    reason: Reason,
    /// Name and status of each entry, sorted by name.
    entries: Vec<(String, String)>,
}

/// The part of a service's life that a response shows. A service goes through the variants in
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// The program has not called `set_ready`.
    Starting,
    /// The program has called `set_ready`, but a required check has not passed.
    Waiting,
    /// The service is ready, so its checks and heartbeats determine the status.
    Failing,
    Draining,
}

/// The service under test, with the behaviours and heartbeats that events change.
struct Service {
    health: Health,
    behaviours: Vec<Arc<Mutex<Behaviour>>>,
    heartbeats: Vec<Option<Heartbeat>>,
}

impl Service {
    /// Registers the checks in the given order.
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

    async fn apply(&mut self, event: &Event) -> Option<Response> {
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
            Event::Probe(probe) => return Some(self.response(*probe).await),
        }
        None
    }

    async fn response(&self, probe: Probe) -> Response {
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
        // A report has an `output`, unless its status is "pass".
        assert_eq!(body["output"].is_string(), body["status"] != "pass");
        Response {
            code,
            status: text(&body["status"]),
            reason: match body["output"].as_str() {
                Some("draining") => Reason::Draining,
                Some(output) if output.starts_with("starting: set_ready()") => Reason::Starting,
                Some(output) if output.starts_with("starting: waiting for ") => Reason::Waiting,
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

/// The part of a service's state that determines its responses.
struct Model {
    required: Vec<bool>,
    behaviours: Vec<Behaviour>,
    heartbeats: Vec<Beat>,
    ready_set: bool,
    passed_once: bool,
    draining: bool,
    /// Start of the last evaluation, and for each check whether it passed.
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
            ready_set: false,
            passed_once: false,
            draining: false,
            run: None,
        }
    }

    /// Applies an event. Must be called before the service handles the event, because slow checks
    /// advance the clock.
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ready => self.ready_set = true,
            Event::Drain => self.draining = true,
            Event::Change(which, how) => {
                if let Some(i) = pick(*which, self.behaviours.len()) {
                    self.behaviours[i] = *how;
                }
            }
            Event::Beat(which) => self.beat(*which, Beat::Last(Instant::now())),
            Event::Finish(which) => self.beat(*which, Beat::Finished),
            Event::Drop(which) => self.beat(*which, Beat::Dropped),
            Event::Probe(probe) if *probe != Probe::Liveness && !self.draining => {
                self.evaluate();
            }
            Event::Pass(_) | Event::Probe(_) => {}
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
        if self.ready_set && !self.any_fails(true) {
            self.passed_once = true;
        }
    }

    fn any_fails(&self, required: bool) -> bool {
        let passed = self.run.iter().flat_map(|(_, passed)| passed);
        let mut checks = self.required.iter().zip(passed);
        checks.any(|(need, passed)| *need == required && !passed)
    }

    /// Predicts the response. Must be called after the service has responded, because slow checks
    /// advance the clock, so that heartbeats can become late.
    fn response(&self, probe: Probe) -> Response {
        let ready = self.ready_set && (self.passed_once || !self.required.contains(&true));
        let broken = self.heartbeats.iter().any(|beat| !beat.is_healthy());
        let live = probe == Probe::Liveness;
        let required = self.any_fails(true);
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
            let reason = if self.ready_set {
                Reason::Waiting
            } else {
                Reason::Starting
            };
            (503, "fail", reason)
        } else if required && readiness {
            (503, "fail", Reason::Failing)
        } else if required || self.any_fails(false) {
            (200, "warn", Reason::Failing)
        } else {
            (200, "pass", Reason::Failing)
        };
        let word = |healthy: bool| if healthy { "pass" } else { "fail" }.to_owned();
        let mut entries = Vec::new();
        if !live && !self.draining {
            let passed = self.run.iter().flat_map(|(_, passed)| passed);
            entries.extend(passed.enumerate().map(|(i, p)| (check_name(i), word(*p))));
        }
        let beats = self.heartbeats.iter().enumerate();
        entries.extend(beats.map(|(i, beat)| (heartbeat_name(i), word(beat.is_healthy()))));
        entries.sort_unstable();
        Response {
            code,
            status: status.to_owned(),
            reason,
            entries,
        }
    }
}

impl Beat {
    fn is_healthy(self) -> bool {
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

/// Runs a test with tokio's clock paused. Only the plan's events and checks advance the clock.
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
                model.apply(event);
                let response = service.apply(event).await;
                if let (Event::Probe(probe), Some(response)) = (event, response) {
                    prop_assert_eq!(response, model.response(*probe), "{:?}", event);
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
        let play = |order: Vec<usize>| {
            let mut responses = Vec::new();
            in_paused_time(async {
                let mut service = Service::new(&plan, order.into_iter());
                for event in &plan.events {
                    responses.extend(service.apply(event).await);
                }
                Ok(())
            })
            .map(|()| responses)
        };
        prop_assert_eq!(play(shuffled)?, play((0..plan.checks.len()).collect())?);
    }

    #[test]
    fn the_state_never_goes_backwards(mut plan in plan()) {
        // A heartbeat can break the service, or repair it, in any state. So these services have no
        // heartbeats.
        plan.heartbeats = 0;
        in_paused_time(async {
            let mut service = Service::new(&plan, 0..plan.checks.len());
            let mut furthest = Reason::Starting;
            for event in &plan.events {
                let response = service.apply(event).await;
                if let (Event::Probe(Probe::Health | Probe::Readiness), Some(response)) = (event, response) {
                    prop_assert!(response.reason >= furthest, "{:?} after {:?}", response, furthest);
                    furthest = response.reason;
                }
            }
            Ok(())
        })?;
    }
}
