//! State of a service: its checks, its heartbeats, and its progress from start to end.
//!
//! The modules `report`, `serve`, `shutdown` and `advertise` add methods to [`Health`].

mod builder;
mod checks;
mod heartbeat;
mod life;
mod verdict;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::info;

pub(crate) use self::{
    builder::Settings,
    checks::{CheckResult, Evaluation, Failure, Need},
    heartbeat::Pulse,
    life::{Drain, Life},
};
pub use self::{
    builder::{HealthBuilder, RegisterError},
    heartbeat::Heartbeat,
    verdict::{Probe, ServiceState, Status},
};
use self::{
    builder::{Mistake, PERIOD_MIN, validate_name},
    checks::{Check, Checks},
    heartbeat::{Heartbeats, Pulses},
    verdict::{Failing, verdict},
};
use crate::BuildInfo;

/// Health of a service: its checks, its heartbeats and its state.
///
/// Clones share the same state. The [crate's documentation](crate) shows a service with axum. A
/// worker without a server of its own starts like this:
///
/// ```no_run
/// # #[derive(Clone)]
/// # struct Pool;
/// # impl Pool { async fn ping(&self) -> std::io::Result<()> { Ok(()) } }
/// # async fn connect() -> std::io::Result<Pool> { Ok(Pool) }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
/// tokio::spawn(health.listen("[::]:8080".parse()?)?.serve());
/// let pool = connect().await?; // Meanwhile, the routes report "starting".
/// health.required_with("postgres", pool, async |pool| pool.ping().await)?;
/// health.set_ready();
/// # Ok(())
/// # }
/// ```
///
/// | state of the service | health | readiness | liveness |
/// |---|---|---|---|
/// | starting | 503 fail | 503 fail | 200 pass |
/// | ready, all checks pass | 200 pass | 200 pass | 200 pass |
/// | ready, an optional check fails | 200 warn | 200 warn | 200 pass |
/// | ready, a required check fails | 200 warn | 503 fail | 200 pass |
/// | broken: a heartbeat is late or was dropped | 503 fail | 503 fail | 503 fail |
/// | draining | 503 fail | 503 fail, or [as if ready](HealthBuilder::ready_during_drain) | 200 pass |
///
/// During the drain, liveness ignores heartbeats: workers end, and a restart would cut the drain
/// short.
#[derive(Clone)]
pub struct Health {
    pub(crate) inner: Arc<Inner>,
    /// Whether the bodies of this handle's reports contain only the status.
    pub(crate) status_only: bool,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    /// The file with the advertised endpoint, which is removed when this is dropped. `None` before
    /// [`Health::advertise`].
    pub(crate) advertisement: Mutex<Option<Box<dyn Send>>>,
    pub(crate) life: watch::Sender<Life>,
    pub(crate) handles_signals: Mutex<bool>,
    checks: Checks,
    heartbeats: Heartbeats,
    /// The last snapshot of each probe.
    snapshots: [Mutex<Option<Arc<Snapshot>>>; 3],
}

/// State of the service at one moment, for one probe.
pub(crate) struct Snapshot {
    pub(crate) status: Status,
    pub(crate) state: ServiceState,
    pub(crate) evaluation: Option<Arc<Evaluation>>,
    pub(crate) heartbeats: Pulses,
    /// The response body. [`Health::report`] writes it once.
    pub(crate) body: OnceLock<Bytes>,
}

impl Health {
    /// Returns a builder for the service that [`build_info!`](crate::build_info) describes.
    pub fn builder(build: BuildInfo) -> HealthBuilder {
        HealthBuilder::new(build)
    }

    fn new(settings: Settings, checks: Checks) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                advertisement: Mutex::default(),
                life: watch::Sender::new(Life::new()),
                handles_signals: Mutex::default(),
                checks,
                heartbeats: Heartbeats::default(),
                snapshots: Default::default(),
            }),
            status_only: false,
        }
    }

    /// Returns a handle to the same service whose response bodies contain nothing but the status:
    /// no check names, no build metadata.
    ///
    /// Use it for routes that the public can reach. The reason for a failure is still in the log
    /// and in the responses of other handles:
    ///
    /// ```no_run
    /// # async fn serve(
    /// #     health: lifesign::Health,
    /// #     public: tokio::net::TcpListener,
    /// #     app: axum::Router,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// // `listen` advertises the internal port, so `healthcheck` probes it and not the public port.
    /// tokio::spawn(health.listen("[::]:9090".parse()?)?.serve());
    /// health.status_only().serve(public, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status_only(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            status_only: true,
        }
    }

    /// Marks the program as started.
    ///
    /// The service becomes ready once every required check has passed. Until then, health and
    /// readiness fail. During the drain, this has no effect.
    pub fn set_ready(&self) {
        self.inner.enter(match self.inner.checks.any_required() {
            true => ServiceState::Waiting,
            false => ServiceState::Ready,
        });
    }

    /// Adds a required check to a service that is starting, like [`HealthBuilder::required`].
    ///
    /// Use this if a check needs a value that start-up work creates, such as a connection pool, and
    /// the routes must already report "starting" during this work.
    ///
    /// # Errors
    ///
    /// - The name is empty, is longer than 64 bytes, contains anything but ASCII letters, digits,
    ///   `-`, `_` and `.`, or belongs to another check or heartbeat.
    /// - The program has called [`set_ready`](Self::set_ready).
    pub fn required<F, Fut, T, E>(
        &self,
        name: impl Into<String>,
        check: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.add(Check::new(name.into(), Need::Required, check))
    }

    /// Adds an optional check to a service that is starting, like [`HealthBuilder::optional`].
    ///
    /// # Errors
    ///
    /// Those of [`required`](Self::required).
    pub fn optional<F, Fut, T, E>(
        &self,
        name: impl Into<String>,
        check: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.add(Check::new(name.into(), Need::Optional, check))
    }

    /// Adds a required check with the state it needs, like [`HealthBuilder::required_with`].
    ///
    /// # Errors
    ///
    /// Those of [`required`](Self::required).
    pub fn required_with<S, F, Fut, T, E>(
        &self,
        name: impl Into<String>,
        state: S,
        check: F,
    ) -> Result<(), RegisterError>
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.required(name, move || check(state.clone()))
    }

    /// Adds an optional check with the state it needs, like [`HealthBuilder::optional_with`].
    ///
    /// # Errors
    ///
    /// Those of [`required`](Self::required).
    pub fn optional_with<S, F, Fut, T, E>(
        &self,
        name: impl Into<String>,
        state: S,
        check: F,
    ) -> Result<(), RegisterError>
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.optional(name, move || check(state.clone()))
    }

    fn add(&self, check: Check) -> Result<(), RegisterError> {
        let name = check.name();
        if matches!(
            self.inner.state(),
            ServiceState::Waiting | ServiceState::Ready
        ) {
            return Err(Mistake::TooLate(name.to_owned()).into());
        }
        if self.inner.heartbeats.contains(name) {
            return Err(Mistake::Duplicate(name.to_owned()).into());
        }
        Ok(self.inner.checks.add(check)?)
    }

    /// Registers a worker loop that calls [`beat`](Heartbeat::beat) at least once in every
    /// `period`.
    ///
    /// The first period starts immediately, so call this where the worker is spawned.
    ///
    /// # Errors
    ///
    /// - The name is empty, is longer than 64 bytes, contains anything but ASCII letters, digits,
    ///   `-`, `_` and `.`, or belongs to a check or to a heartbeat that has not finished.
    /// - The period is shorter than 1 ms.
    pub fn heartbeat(
        &self,
        name: impl Into<String>,
        period: Duration,
    ) -> Result<Heartbeat, RegisterError> {
        let name = name.into();
        validate_name(&name)?;
        if period < PERIOD_MIN {
            return Err(Mistake::Period(name, period).into());
        }
        let free = !self.inner.checks.contains(&name);
        let heartbeat = free.then(|| self.inner.heartbeats.register(&name, period));
        Ok(heartbeat.flatten().ok_or(Mistake::Duplicate(name))?)
    }

    /// Returns the state for a probe. Evaluates the checks, unless the probe is liveness or reports
    /// the drain.
    pub(crate) async fn snapshot(&self, probe: Probe) -> Arc<Snapshot> {
        let inner = &self.inner;
        let evaluation = match (probe, inner.seen_by(probe)) {
            (Probe::Liveness, _) | (_, ServiceState::Draining) => None,
            _ => inner.checks.evaluate().await,
        };
        if let Some(evaluation) = &evaluation
            && inner.state() == ServiceState::Waiting
            && inner.checks.pass(evaluation)
        {
            inner.enter(ServiceState::Ready);
        }
        inner.snapshot(probe, evaluation)
    }
}

impl Inner {
    pub(crate) fn state(&self) -> ServiceState {
        self.life.borrow().state()
    }

    /// Returns the state that a probe reports. With `ready_during_drain`, readiness reports `Ready`
    /// during the drain.
    fn seen_by(&self, probe: Probe) -> ServiceState {
        let life = self.life.borrow();
        if life.reached == ServiceState::Ready
            && self.settings.ready_during_drain
            && probe == Probe::Readiness
        {
            return ServiceState::Ready;
        }
        life.state()
    }

    /// Advances to `state`, unless the service is in this state or a later one.
    fn enter(&self, state: ServiceState) {
        let moved = self.life.send_if_modified(|life| {
            let moves = life.state() < state;
            if moves {
                life.reached = state;
            }
            moves
        });
        match state {
            ServiceState::Waiting if moved => info!("waiting for the required checks"),
            ServiceState::Ready if moved => info!("ready"),
            _ => {}
        }
    }

    /// Returns the name of the first heartbeat whose worker panicked.
    pub(crate) fn panicked(&self) -> Option<Arc<str>> {
        self.heartbeats.panicked()
    }

    /// Returns the pulse of each heartbeat. Logs changes, except during the drain.
    pub(crate) fn pulses(&self) -> Pulses {
        let (pulses, changed) = self.heartbeats.pulses();
        if self.state() != ServiceState::Draining {
            heartbeat::log(&changed);
        }
        pulses
    }

    /// Returns the last snapshot if nothing has changed since, so that its body is written once.
    fn snapshot(&self, probe: Probe, evaluation: Option<Arc<Evaluation>>) -> Arc<Snapshot> {
        let mut heartbeats = self.pulses();
        // The state is read after the heartbeats, because a worker may end when the drain begins.
        // If the state were read first, the heartbeat of this worker could be reported as dropped.
        let state = self.seen_by(probe);
        if state != self.state() {
            heartbeats.clear();
        }
        let mut last = lock(&self.snapshots[probe as usize]);
        if let Some(last) = last.as_ref()
            && last.state == state
            && last.evaluation.as_ref().map(Arc::as_ptr) == evaluation.as_ref().map(Arc::as_ptr)
            && last.heartbeats == heartbeats
        {
            return Arc::clone(last);
        }
        let fails = |need| evaluation.iter().any(|e| e.failing(need).next().is_some());
        let failing = Failing {
            required: fails(Need::Required),
            optional: fails(Need::Optional),
            heartbeat: heartbeats.iter().any(|(_, pulse)| pulse.is_failing()),
        };
        let snapshot = Snapshot {
            status: verdict(state, probe, failing),
            state,
            evaluation,
            heartbeats,
            body: OnceLock::new(),
        };
        Arc::clone(last.insert(Arc::new(snapshot)))
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

/// Locks a mutex, even if a thread panicked while it held the lock: a panic never leaves the data
/// half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
