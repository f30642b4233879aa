//! Which status each probe reports in each state of the service.

use std::fmt;

/// A question about the service. Each probe has a route of its own.
///
/// ```
/// # use axum::{Router, routing::get};
/// # use lifesign::{Health, Probe};
/// # fn example(app: Router, health: Health) -> Router {
/// // Readiness at one more path, for a load balancer that requests `/status`.
/// app.route("/status", get(async move || health.report(Probe::Readiness).await))
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// Is the service up? For Docker's `HEALTHCHECK`, Compose, Swarm and ECS.
    Health,
    /// May the service receive traffic? For load balancers and Kubernetes' readiness probe.
    Readiness,
    /// Must the service be restarted? For Kubernetes' liveness and startup probes.
    Liveness,
}

impl Probe {
    pub(crate) const ALL: [Self; 3] = [Self::Health, Self::Readiness, Self::Liveness];

    pub(crate) const fn default_path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Readiness => "/health/ready",
            Self::Liveness => "/health/live",
        }
    }

    /// Returns the probe whose route has `path`. `routes` are the paths of all routes, in the order
    /// of `ALL`.
    pub(crate) fn with_path(path: &str, routes: [&str; 3]) -> Option<Self> {
        let mut probes = Self::ALL.into_iter().zip(routes);
        probes
            .find(|(_, route)| *route == path)
            .map(|(probe, _)| probe)
    }
}

/// Status of a [`Report`](crate::Report), in the words of the health+json draft.
///
/// ```
/// # use lifesign::{Health, Probe, Status};
/// # async fn example(health: Health) {
/// if health.report(Probe::Readiness).await.status() == Status::Fail {
///     // Take no job until the database is back.
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Everything works. Served with status code 200.
    Pass,
    /// Something fails, but the prober should not act on it. Served with status code 200.
    Warn,
    /// The prober should act. Served with status code 503.
    Fail,
}

impl Status {
    /// Returns the word in the response body: `pass`, `warn` or `fail`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of the service. It only moves forward, in this order.
///
/// A late or dropped heartbeat does not change the state.
///
/// ```
/// # use lifesign::{Health, Probe, ServiceState};
/// # async fn example(health: Health) {
/// let state = health.report(Probe::Liveness).await.state();
/// println!("{state}"); // starting
/// if state >= ServiceState::Ready {
///     // Every required check has passed once.
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ServiceState {
    /// The program has not called [`set_ready`](crate::Health::set_ready).
    Starting,
    /// The program has called `set_ready`, but the required checks have not all passed yet.
    Waiting,
    /// The required checks have passed. From now on, a failing check is an outage.
    Ready,
    /// The drain has begun.
    Draining,
}

impl ServiceState {
    /// Returns the state in lower case: `starting`, `waiting`, `ready` or `draining`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether any required check, any optional check or any heartbeat fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) required: bool,
    pub(crate) optional: bool,
    pub(crate) heartbeat: bool,
}

/// Returns the status from the table in the documentation of [`Health`](crate::Health).
pub(crate) const fn verdict(state: ServiceState, probe: Probe, failing: Failing) -> Status {
    match (state, probe) {
        (ServiceState::Draining, Probe::Liveness) => Status::Pass,
        (ServiceState::Draining, _) => Status::Fail,
        _ if failing.heartbeat => Status::Fail,
        (_, Probe::Liveness) => Status::Pass,
        (ServiceState::Starting | ServiceState::Waiting, _) => Status::Fail,
        (ServiceState::Ready, Probe::Readiness) if failing.required => Status::Fail,
        (ServiceState::Ready, _) if failing.required || failing.optional => Status::Warn,
        (ServiceState::Ready, _) => Status::Pass,
    }
}
