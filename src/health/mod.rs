//! Step 2, evaluate: the checks and heartbeats of one service, and the state that they are read in.

mod checks;
mod heartbeat;

use std::{
    fmt,
    future::Future,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinError},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

pub use self::{checks::RegisterError, heartbeat::Heartbeat};
use self::{
    checks::{Check, Mistake, Need, valid_name},
    heartbeat::{Beat, Pulse},
};
use crate::{
    BuildInfo, Endpoint, Probe, Report, Status,
    advertise::Advertisement,
    report::{DEFAULT_PATHS, Detail, Entry, Facts},
};

/// One evaluation answers every prober for this long, however many they are. Longer would delay
/// the moment at which a load balancer hears of a failure.
const CACHED: Duration = Duration::from_secs(1);

/// All checks of an evaluation share this deadline. Below 1 s, the kubelet's default
/// `timeoutSeconds`: a later answer would be none.
const DEADLINE: Duration = Duration::from_millis(800);

/// After that, nobody waits for an evaluation: the runtime that it was started on is blocked, and
/// a service can have several.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long the port stays open after SIGTERM unless the service says otherwise: at the default
/// periods of most load balancers, long enough to see one failing probe or two.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// A service's health: what it registered, and the state that it is in.
///
/// A cheap handle to one registry; clones share it. See the [crate] for a whole program.
///
/// | state of the service | health | readiness | liveness |
/// |---|---|---|---|
/// | starting | 503 fail | 503 fail | 200 pass |
/// | ready, all checks pass | 200 pass | 200 pass | 200 pass |
/// | ready, an optional check fails | 200 warn | 200 warn | 200 pass |
/// | ready, a required check fails | 200 warn | 503 fail | 200 pass |
/// | broken: a heartbeat is late, or was dropped | 503 fail | 503 fail | 503 fail |
/// | draining | 503 fail | 503 fail | 200 pass |
///
/// A service that drains stays alive whatever its heartbeats do: its workers are ending, and a
/// restart would cut the drain short.
#[derive(Clone)]
pub struct Health {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    build: BuildInfo,
    checks: Vec<Check>,
    /// The last run of each check: one that blocks its worker thread is not started again.
    runs: Vec<Mutex<Option<AbortHandle>>>,
    beats: Mutex<Vec<(Arc<Beat>, Pulse)>>,
    state: AtomicU8,
    flight: Mutex<Flight>,
    rendered: [Mutex<Option<Rendered>>; 3],
    advertisement: Mutex<Option<Advertisement>>,
    #[cfg(feature = "axum")]
    paths: [String; 3],
    /// The paths of the routes as a client outside sees them.
    outer_paths: [String; 3],
    status_only: bool,
    pub(crate) drain_delay: Duration,
}

/// The state only ever grows, so every change is one `fetch_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Starting,
    /// The program said ready; required checks have not all passed yet.
    Waiting,
    Ready,
    Draining,
}

impl State {
    const ALL: [Self; 4] = [Self::Starting, Self::Waiting, Self::Ready, Self::Draining];
}

/// The single flight: the last evaluation, and the one that is under way since some moment.
#[derive(Default)]
struct Flight {
    last: Option<Arc<Evaluation>>,
    running: Option<(Instant, watch::Receiver<Option<Arc<Evaluation>>>)>,
}

/// What all checks said in one run. `outcomes` is in the order of the registry.
struct Evaluation {
    started: Instant,
    outcomes: Vec<(Outcome, Duration)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Pass,
    Failed(String),
    TimedOut,
    Panicked(String),
}

/// A report, and all that it was made from: it is rendered again only when one of them changes.
struct Rendered {
    state: State,
    evaluation: Option<Arc<Evaluation>>,
    pulses: Vec<(Arc<Beat>, Pulse)>,
    report: Report,
}

impl Health {
    /// Starts a registry for the service that `build` describes; see
    /// [`build_info!`](crate::build_info).
    pub fn builder(build: BuildInfo) -> HealthBuilder {
        HealthBuilder {
            build,
            checks: Vec::new(),
            paths: DEFAULT_PATHS.map(str::to_owned),
            nested_under: String::new(),
            status_only: false,
            drain_delay: DRAIN_DELAY,
        }
    }

    /// Tells this container's `healthcheck` where the service really listens, whatever flag, file
    /// or `PORT=0` decided it.
    ///
    /// Takes the address that the listener reports, or an [`Endpoint`] for HTTPS and Unix
    /// sockets. The last call counts. On Linux the endpoint is written to a file in `/dev/shm`
    /// that is named after the container's mount namespace and the service, is locked as long as
    /// this process lives, and holds nothing but addresses and paths; elsewhere this does
    /// nothing, without `/dev/shm` it logs that, and the probe falls back to `PORT`.
    pub fn advertise(&self, endpoint: impl Into<Endpoint>) -> &Self {
        self.advertise_endpoint(&endpoint.into());
        self
    }

    /// Not generic, so that it is compiled once, and here.
    fn advertise_endpoint(&self, endpoint: &Endpoint) {
        // The old file goes first: two at once would be two services.
        let mut advertisement = lock(&self.inner.advertisement);
        *advertisement = None;
        match Advertisement::write(self.inner.build.name(), endpoint, &self.inner.outer_paths) {
            Ok(written) => *advertisement = written,
            Err(error) => warn!(
                %endpoint, %error,
                "the endpoint could not be advertised: healthcheck will use HEALTHCHECK_URL or PORT"
            ),
        }
    }

    /// Says that the program has started. Traffic comes once all required checks have passed.
    ///
    /// Until then health and readiness fail, so that start gates wait. After a drain has begun it
    /// changes nothing.
    pub fn set_ready(&self) {
        let gated = self.inner.checks.iter().any(|c| c.need == Need::Required);
        self.inner
            .enter(if gated { State::Waiting } else { State::Ready });
    }

    /// Says that the program is about to stop: health and readiness fail from now on.
    ///
    /// [`handle_signals`](Self::handle_signals) does this on SIGTERM; this is for services with signal handling of
    /// their own. There is no way back.
    pub fn begin_drain(&self) {
        self.inner.enter(State::Draining);
    }

    /// Registers a worker loop that beats at least once in every `within`.
    ///
    /// The first period starts now. Call it where the worker is spawned.
    ///
    /// # Errors
    ///
    /// A name that is empty, longer than 64 bytes, holds anything but letters, digits, `-`, `_`
    /// and `.`, or belongs to a check or a heartbeat that has not finished; a period under 1 ms.
    pub fn heartbeat(
        &self,
        name: impl Into<String>,
        within: Duration,
    ) -> Result<Heartbeat, RegisterError> {
        let name = name.into();
        valid_name(&name)?;
        if within < Duration::from_millis(1) {
            return Err(RegisterError(Mistake::Period(name, within)));
        }
        let mut beats = lock(&self.inner.beats);
        beats.retain(|(beat, _)| beat.pulse() != Pulse::Finished);
        let taken = beats.iter().any(|(beat, _)| beat.name == name)
            || self.inner.checks.iter().any(|check| check.name == name);
        if taken {
            return Err(RegisterError(Mistake::Duplicate(name)));
        }
        let (heartbeat, beat) = Heartbeat::new(name, within);
        beats.push((beat, Pulse::Beating));
        Ok(heartbeat)
    }

    /// Answers a probe now, as the routes do: for gRPC health, gauges and tests.
    ///
    /// Health and readiness run the checks if the last run is older than 1 s; all who ask
    /// meanwhile wait for the same run, 900 ms at most. Liveness never runs a check.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time enabled.
    pub async fn report(&self, probe: Probe) -> Report {
        let inner = &self.inner;
        let evaluation = match probe {
            Probe::Liveness => None,
            _ if inner.checks.is_empty() || inner.state() == State::Draining => None,
            _ => Some(Inner::evaluate(inner).await),
        };
        if let Some(evaluation) = &evaluation {
            inner.latch(evaluation);
        }
        inner.answer(probe, evaluation)
    }

    #[cfg(feature = "axum")]
    pub(crate) fn paths(&self) -> [(Probe, &str); 3] {
        by_probe(&self.inner.paths)
    }

    #[cfg(feature = "listener")]
    pub(crate) fn probe(&self, outer_path: &str) -> Option<Probe> {
        let mut paths = by_probe(&self.inner.outer_paths).into_iter();
        paths.find_map(|(probe, path)| (path == outer_path).then_some(probe))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("state", &self.inner.state())
            .field("checks", &self.inner.checks)
            .finish_non_exhaustive()
    }
}

/// Collects the checks of a [`Health`]; from [`Health::builder`].
///
/// Mistakes in names and paths are reported by [`build`](Self::build), all in one place.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct HealthBuilder {
    build: BuildInfo,
    checks: Vec<Check>,
    paths: [String; 3],
    nested_under: String,
    status_only: bool,
    drain_delay: Duration,
}

impl HealthBuilder {
    /// Adds a check whose failure holds traffic back: readiness fails, health warns.
    ///
    /// A check is a name and a closure that returns a future of `Result<T, E>`; any `E` that can
    /// be displayed will do. The text of an error goes to the log, never on the wire. All checks
    /// run at the same time, at most once a second, and share a deadline of 800 ms: a check that
    /// is late, panics or never ends has failed. (A panic is contained as long as panics unwind:
    /// with `panic = "abort"` it ends the process.) Blocking work belongs in `spawn_blocking`,
    /// and must end by itself: what blocks cannot be aborted, and the next run takes the next
    /// thread. A check that is late is dropped where it stands, and what it borrowed from a pool
    /// goes back as it is: `examples/postgres` shows how its pool bears that.
    ///
    /// ```
    /// # struct Pool;
    /// # impl Pool { async fn ping(&self) -> std::io::Result<()> { Ok(()) } }
    /// # let pool = std::sync::Arc::new(Pool);
    /// let health = lifesign::Health::builder(lifesign::build_info!())
    ///     .required("postgres", move || {
    ///         let pool = pool.clone();
    ///         async move { pool.ping().await }
    ///     })
    ///     .build()?;
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub fn required<F, Fut, T, E>(self, name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.check(Check::new(name.into(), Need::Required, check))
    }

    /// Adds a check whose failure warns and changes nothing else.
    ///
    /// For what the service can do without: a cache, a mail server. Otherwise like
    /// [`required`](Self::required).
    pub fn optional<F, Fut, T, E>(self, name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.check(Check::new(name.into(), Need::Optional, check))
    }

    /// Sets the path of one route.
    ///
    /// The defaults are `/health`, `/health/ready` and `/health/live`.
    pub fn path(mut self, probe: Probe, path: impl Into<String>) -> Self {
        self.paths[probe as usize] = path.into();
        self
    }

    /// Says under which prefix the router is nested, so that the probe follows.
    ///
    /// For `Router::new().nest("/api", health.routes())`, say `.nested_under("/api")`. Nothing by
    /// default: routes that are merged need nothing.
    pub fn nested_under(mut self, prefix: impl Into<String>) -> Self {
        self.nested_under = prefix.into();
        self
    }

    /// Leaves only the status in the body: no names of checks, no build metadata.
    ///
    /// For routes that strangers can reach. The reason is then in the log alone.
    pub const fn status_only(mut self) -> Self {
        self.status_only = true;
        self
    }

    /// Sets how long the port stays open after SIGTERM; 5 s by default.
    ///
    /// Longer than the load balancer's period × threshold; with the longest request, shorter than
    /// the orchestrator's grace period (Docker 10 s, Kubernetes 30 s). Zero where a `preStop` hook
    /// waits already.
    pub const fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// Checks the names and paths, and makes the registry. The service is starting.
    ///
    /// # Errors
    ///
    /// A check's name that is empty, longer than 64 bytes, given twice, or that holds anything but
    /// letters, digits, `-`, `_` and `.`; a path or prefix that does not start with `/`, or that
    /// holds anything but letters, digits, `/`, `-`, `_`, `.` and `~`; one path for two routes.
    pub fn build(self) -> Result<Health, RegisterError> {
        for (i, check) in self.checks.iter().enumerate() {
            valid_name(&check.name)?;
            if self.checks[..i].iter().any(|c| c.name == check.name) {
                return Err(RegisterError(Mistake::Duplicate(check.name.clone())));
            }
        }
        for (i, path) in self.paths.iter().enumerate() {
            valid_path(path)?;
            if self.paths[..i].contains(path) {
                return Err(RegisterError(Mistake::SamePath(path.clone())));
            }
        }
        if !self.nested_under.is_empty() {
            valid_path(&self.nested_under)?;
        }
        let outer_paths = self.paths.each_ref();
        let outer_paths = outer_paths.map(|path| nested(&self.nested_under, path));
        Ok(Health {
            inner: Arc::new(Inner {
                build: self.build,
                runs: self.checks.iter().map(|_| Mutex::default()).collect(),
                checks: self.checks,
                beats: Mutex::default(),
                state: AtomicU8::new(State::Starting as u8),
                flight: Mutex::default(),
                rendered: Default::default(),
                advertisement: Mutex::default(),
                #[cfg(feature = "axum")]
                paths: self.paths,
                outer_paths,
                status_only: self.status_only,
                drain_delay: self.drain_delay,
            }),
        })
    }

    fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }
}

impl Inner {
    fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    fn enter(&self, state: State) {
        let before = self.state.fetch_max(state as u8, Ordering::AcqRel);
        if before < state as u8 {
            let now = match state {
                State::Starting => "starting",
                State::Waiting => "started: waiting for the required checks",
                State::Ready => "ready",
                State::Draining => "draining",
            };
            info!("{now}");
        }
    }

    /// The first time that all required checks pass is when a started service becomes ready.
    fn latch(&self, evaluation: &Evaluation) {
        if self.state() == State::Waiting && self.failing(evaluation, Need::Required).is_empty() {
            self.enter(State::Ready);
        }
    }

    fn failing<'a>(&'a self, evaluation: &'a Evaluation, need: Need) -> Vec<Failing<'a>> {
        let results = self.checks.iter().zip(&evaluation.outcomes);
        results
            .filter(|(check, (outcome, _))| check.need == need && *outcome != Outcome::Pass)
            .map(|(check, (outcome, _))| Failing {
                name: &check.name,
                how: outcome.word(),
            })
            .collect()
    }

    /// The single flight: a fresh evaluation, or the one under way, or a new one.
    async fn evaluate(inner: &Arc<Self>) -> Arc<Evaluation> {
        let (started, mut running) = {
            let mut flight = lock(&inner.flight);
            if let Some(last) = &flight.last
                && last.started.elapsed() < CACHED
            {
                return Arc::clone(last);
            }
            match &flight.running {
                Some((started, running))
                    if started.elapsed() < PATIENCE && running.has_changed().is_ok() =>
                {
                    (*started, running.clone())
                }
                _ => {
                    let (done, running) = watch::channel(None);
                    let started = Instant::now();
                    flight.running = Some((started, running.clone()));
                    // A task of its own: a prober that hangs up takes nobody's answer with it. It
                    // ends by itself at the deadline.
                    tokio::spawn(Self::run(Arc::clone(inner), done));
                    (started, running)
                }
            }
        };
        let waited = timeout_at(started + PATIENCE, running.wait_for(Option::is_some)).await;
        let evaluation = waited.ok().and_then(|done| done.ok()?.clone());
        // Without one, the task's runtime is blocked, or has ended and taken the task with it.
        evaluation.unwrap_or_else(|| {
            Arc::new(Evaluation {
                started,
                outcomes: vec![(Outcome::TimedOut, PATIENCE); inner.checks.len()],
            })
        })
    }

    async fn run(self: Arc<Self>, done: watch::Sender<Option<Arc<Evaluation>>>) {
        let started = Instant::now();
        let deadline = started + DEADLINE;
        let runs: Vec<_> = (0..self.checks.len()).map(|i| self.start(i)).collect();
        let mut outcomes = Vec::with_capacity(runs.len());
        for run in runs {
            outcomes.push(match run {
                Some(mut run) => match timeout_at(deadline, &mut run).await {
                    // Timers fire late when a check blocks its thread: what counts is the clock.
                    Ok(Ok((_, took))) if took > DEADLINE => (Outcome::TimedOut, took),
                    Ok(Ok((result, took))) => (Outcome::from(result), took),
                    Ok(Err(error)) => (Outcome::from(error), started.elapsed()),
                    Err(_) => {
                        run.abort();
                        (Outcome::TimedOut, DEADLINE)
                    }
                },
                None => (Outcome::TimedOut, DEADLINE),
            });
        }
        let evaluation = Arc::new(Evaluation { started, outcomes });
        let ours = done.subscribe();
        let mut flight = lock(&self.flight);
        flight
            .running
            .take_if(|(_, running)| running.same_channel(&ours));
        let before = flight.last.clone();
        // A run that was given up on may end after its successor, and then says what was.
        let newest = before.as_ref().is_none_or(|last| last.started <= started);
        if newest {
            flight.last = Some(Arc::clone(&evaluation));
        }
        drop(flight);
        done.send_replace(Some(Arc::clone(&evaluation)));
        // Last, and without a lock: logs can block.
        if newest {
            self.log_transitions(before.as_deref(), &evaluation);
        }
    }

    /// Starts a check, unless its last run still blocks a worker thread: such a run cannot be aborted, and
    /// a second one would take a second thread.
    fn start(
        self: &Arc<Self>,
        index: usize,
    ) -> Option<tokio::task::JoinHandle<(Result<(), String>, Duration)>> {
        let mut last = lock(&self.runs[index]);
        if last.as_ref().is_some_and(|run| !run.is_finished()) {
            return None;
        }
        let inner = Arc::clone(self);
        let run = tokio::spawn(async move {
            let started = Instant::now();
            let result = inner.checks[index].run().await;
            (result, started.elapsed())
        });
        *last = Some(run.abort_handle());
        Some(run)
    }

    /// Once when a check starts to fail, once when it recovers: the only place where its error is
    /// told.
    fn log_transitions(&self, before: Option<&Evaluation>, now: &Evaluation) {
        for (i, (check, (outcome, took))) in self.checks.iter().zip(&now.outcomes).enumerate() {
            let passed = before.is_none_or(|b| b.outcomes[i].0 == Outcome::Pass);
            let name = check.name.as_str();
            match (passed, outcome) {
                (true, Outcome::Pass) => {}
                (false, Outcome::Pass) => info!(check = name, ?took, "check recovered"),
                (true, failure) => warn!(
                    check = name,
                    required = check.need == Need::Required,
                    ?took,
                    error = failure.text(),
                    "check fails"
                ),
                (false, _) => {}
            }
        }
    }

    /// How the heartbeats are. Logs those that changed, without a lock: logs can block.
    fn pulses(&self) -> Vec<(Arc<Beat>, Pulse)> {
        let mut pulses = Vec::new();
        let mut changed = Vec::new();
        for (beat, told) in lock(&self.beats).iter_mut() {
            let pulse = beat.pulse();
            pulses.push((Arc::clone(beat), pulse));
            if mem::replace(told, pulse) != pulse {
                changed.push((Arc::clone(beat), pulse));
            }
        }
        if self.state() == State::Draining {
            return pulses;
        }
        for (beat, pulse) in changed {
            let name = beat.name.as_str();
            let (well, now) = match pulse {
                Pulse::Late => (false, "is late"),
                Pulse::Dropped => (false, "ended without finish"),
                Pulse::Beating => (true, "recovered"),
                Pulse::Finished => (true, "finished"),
            };
            if well {
                info!(heartbeat = name, "heartbeat {now}");
            } else {
                warn!(heartbeat = name, "heartbeat {now}");
            }
        }
        pulses
    }

    /// The answer, from the last one if nothing that it was made from has changed.
    fn answer(&self, probe: Probe, evaluation: Option<Arc<Evaluation>>) -> Report {
        // The state may have changed while the checks ran: what holds now is what is told. After the
        // heartbeats, since what a service drops while it drains is not broken.
        let pulses = self.pulses();
        let state = self.state();
        let mut rendered = lock(&self.rendered[probe as usize]);
        let same_run = |a: &Option<Arc<Evaluation>>, b: &Option<Arc<Evaluation>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let same_pulses = |a: &[(Arc<Beat>, Pulse)], b: &[(Arc<Beat>, Pulse)]| {
            let known = |(beat, pulse): &(_, Pulse)| (Arc::as_ptr(beat), *pulse);
            a.iter().map(known).eq(b.iter().map(known))
        };
        if let Some(last) = rendered.as_ref()
            && last.state == state
            && same_run(&last.evaluation, &evaluation)
            && same_pulses(&last.pulses, &pulses)
        {
            return last.report.clone();
        }
        let report = self.render(probe, state, evaluation.as_deref(), &pulses);
        *rendered = Some(Rendered {
            state,
            evaluation,
            pulses,
            report: report.clone(),
        });
        report
    }

    fn render(
        &self,
        probe: Probe,
        state: State,
        evaluation: Option<&Evaluation>,
        pulses: &[(Arc<Beat>, Pulse)],
    ) -> Report {
        let (status, output) = self.verdict(probe, state, evaluation, pulses);
        let detail = (!self.status_only).then(|| Detail {
            build: &self.build,
            entries: self.entries(evaluation, pulses),
        });
        Report::render(&Facts {
            status,
            output,
            detail,
        })
    }

    /// The table at the top of [`Health`].
    fn verdict(
        &self,
        probe: Probe,
        state: State,
        evaluation: Option<&Evaluation>,
        pulses: &[(Arc<Beat>, Pulse)],
    ) -> (Status, String) {
        if state == State::Draining {
            return match probe {
                Probe::Liveness => (Status::Pass, String::new()),
                _ => (Status::Fail, "draining".to_owned()),
            };
        }
        let broken: Vec<String> = pulses
            .iter()
            .filter_map(|(beat, pulse)| match pulse {
                Pulse::Late => Some(format!("heartbeat {} is late", beat.name)),
                Pulse::Dropped => Some(format!("heartbeat {} ended", beat.name)),
                Pulse::Beating | Pulse::Finished => None,
            })
            .collect();
        if !broken.is_empty() {
            return (Status::Fail, broken.join(", "));
        }
        let failing = |need| evaluation.map_or_else(Vec::new, |e| self.failing(e, need));
        let required = failing(Need::Required);
        match (probe, state) {
            (Probe::Liveness, _) => (Status::Pass, String::new()),
            (_, State::Starting | State::Waiting) if required.is_empty() => {
                (Status::Fail, "starting".to_owned())
            }
            (_, State::Starting | State::Waiting) => {
                let names: Vec<_> = required.iter().map(|failing| failing.name).collect();
                (
                    Status::Fail,
                    format!("starting, waiting for {}", names.join(", ")),
                )
            }
            _ => {
                let optional = failing(Need::Optional);
                let status = if probe == Probe::Readiness && !required.is_empty() {
                    Status::Fail
                } else if required.is_empty() && optional.is_empty() {
                    Status::Pass
                } else {
                    Status::Warn
                };
                let all = required.iter().chain(&optional);
                let all: Vec<_> = all.map(|f| format!("{} {}", f.name, f.how)).collect();
                (status, all.join(", "))
            }
        }
    }

    fn entries<'a>(
        &'a self,
        evaluation: Option<&Evaluation>,
        pulses: &'a [(Arc<Beat>, Pulse)],
    ) -> Vec<Entry<'a>> {
        let outcomes = evaluation.map_or(&[][..], |e| &e.outcomes);
        let checks = self.checks.iter().zip(outcomes);
        let checks = checks.map(|(check, (outcome, took))| Entry {
            name: &check.name,
            status: match outcome {
                Outcome::Pass => Status::Pass,
                _ => Status::Fail,
            },
            took: Some(*took),
        });
        let beats = pulses.iter().map(|(beat, pulse)| Entry {
            name: &beat.name,
            status: match pulse {
                Pulse::Beating | Pulse::Finished => Status::Pass,
                Pulse::Late | Pulse::Dropped => Status::Fail,
            },
            took: None,
        });
        checks.chain(beats).collect()
    }
}

struct Failing<'a> {
    name: &'a str,
    how: &'static str,
}

impl Outcome {
    /// What strangers may read.
    const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "passes",
            Self::Failed(_) => "fails",
            Self::TimedOut => "timed out",
            Self::Panicked(_) => "panicked",
        }
    }

    /// What the log gets.
    fn text(&self) -> &str {
        match self {
            Self::Failed(text) | Self::Panicked(text) => text,
            _ => self.word(),
        }
    }
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Pass)
    }
}

impl From<JoinError> for Outcome {
    fn from(error: JoinError) -> Self {
        if error.is_panic() {
            Self::Panicked(error.to_string())
        } else {
            Self::TimedOut
        }
    }
}

/// Nothing here is ever left half-changed by a panic: a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What axum's router, an URL and a line of a file all take literally.
fn valid_path(path: &str) -> Result<(), RegisterError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(plain) {
        return Err(RegisterError(Mistake::Path(path.to_owned())));
    }
    Ok(())
}

/// As axum's `nest` joins the two: a route at `/` has the path of its prefix.
fn nested(prefix: &str, path: &str) -> String {
    match prefix.strip_suffix('/') {
        None if path == "/" && !prefix.is_empty() => prefix.to_owned(),
        trimmed => format!("{}{path}", trimmed.unwrap_or(prefix)),
    }
}

#[cfg(any(feature = "axum", feature = "listener"))]
fn by_probe([health, ready, live]: &[String; 3]) -> [(Probe, &str); 3] {
    [
        (Probe::Health, health),
        (Probe::Readiness, ready),
        (Probe::Liveness, live),
    ]
}
