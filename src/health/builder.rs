//! The builder of a [`Health`], which validates names and paths.

use std::{error::Error, fmt, future::Future, time::Duration};

use super::{
    Health,
    checks::{Check, Checks, EVALUATION_MARGIN, Need},
    verdict::Probe,
};
use crate::BuildInfo;

/// Default check timeout. It is shorter than the kubelet's default `timeoutSeconds`, 1 s.
const CHECK_TIMEOUT: Duration = Duration::from_millis(800);

/// Maximum check timeout, which is also the maximum timeout of a health check by an AWS load
/// balancer.
const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// Default drain delay. In this time, a load balancer that probes every 2 s sees two probes fail.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// Default shutdown timeout. Together with the default drain delay, it is 1 s shorter than the 10 s
/// after which Docker kills a container.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum length in bytes of the name of a check or heartbeat.
const NAME_MAX: usize = 64;

/// Minimum period of a heartbeat, and minimum check timeout.
pub(super) const PERIOD_MIN: Duration = Duration::from_millis(1);

/// Registers the checks of a [`Health`] and configures its routes. Created by [`Health::builder`].
///
/// ```
/// use std::time::Duration;
///
/// use lifesign::{Health, Probe, build_info};
/// use tokio::net::TcpStream;
///
/// let health = Health::builder(build_info!())
///     .required("data", async || tokio::fs::metadata("/data").await)
///     .optional("mail", async || TcpStream::connect("mail.internal:25").await)
///     .path(Probe::Health, "/healthz")
///     .nested_under("/internal")
///     .check_timeout(Duration::from_millis(500))
///     .drain_delay(Duration::from_secs(15))
///     .shutdown_timeout(Duration::from_secs(10))
///     .build()?;
/// # Ok::<(), lifesign::RegisterError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct HealthBuilder {
    checks: Vec<Check>,
    nested_under: String,
    settings: Settings,
}

/// The configuration of a service. It never changes after [`HealthBuilder::build`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) build: BuildInfo,
    /// The routes, in the order of [`Probe::ALL`].
    pub(crate) routes: [Route; 3],
    pub(crate) check_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) ready_during_drain: bool,
}

impl Settings {
    /// Returns how long a report waits for the checks.
    pub(crate) fn response_timeout(&self) -> Duration {
        self.check_timeout + EVALUATION_MARGIN
    }
}

#[derive(Debug)]
pub(crate) struct Route {
    #[cfg_attr(
        not(any(feature = "axum", feature = "listener")),
        expect(dead_code, reason = "without routes there is nothing to serve")
    )]
    pub(crate) probe: Probe,
    /// The path within [`Health::routes`].
    pub(crate) path: String,
    /// The path that clients request. It begins with the prefix from
    /// [`nested_under`](HealthBuilder::nested_under).
    pub(crate) outer_path: String,
}

impl HealthBuilder {
    pub(super) fn new(build: BuildInfo) -> Self {
        let route = |probe: Probe| Route {
            probe,
            path: probe.default_path().to_owned(),
            outer_path: String::new(),
        };
        Self {
            checks: Vec::new(),
            nested_under: String::new(),
            settings: Settings {
                build,
                routes: Probe::ALL.map(route),
                check_timeout: CHECK_TIMEOUT,
                drain_delay: DRAIN_DELAY,
                shutdown_timeout: SHUTDOWN_TIMEOUT,
                ready_during_drain: false,
            },
        }
    }

    /// Adds a check of something the service cannot work without.
    ///
    /// While the check fails, readiness fails and health warns. The text of the check's error is
    /// logged, and never sent to a client.
    ///
    /// All checks run at the same time, at most once a second, and share the
    /// [check timeout](Self::check_timeout) of 800 ms. A check fails if it returns an error, panics
    /// or exceeds the timeout. (With `panic = "abort"`, a panic ends the process.) At the timeout,
    /// the check is dropped at its current `.await`. A connection that it took from a pool then
    /// returns to the pool in the middle of a query; `examples/postgres` shows a pool that handles
    /// this. Run blocking code in `spawn_blocking`, and let it end by itself, because it cannot be
    /// aborted.
    ///
    /// ```
    /// let health = lifesign::Health::builder(lifesign::build_info!())
    ///     .required("data", async || tokio::fs::metadata("/data").await)
    ///     .build()?;
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub fn required<F, Fut, T, E>(mut self, name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.checks
            .push(Check::new(name.into(), Need::Required, check));
        self
    }

    /// Adds a check of something the service can work without, such as a cache or a mail server.
    ///
    /// Like [`required`](Self::required), except that readiness only warns while the check fails.
    pub fn optional<F, Fut, T, E>(mut self, name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.checks
            .push(Check::new(name.into(), Need::Optional, check));
        self
    }

    /// Adds a [required](Self::required) check with the state it needs, such as a connection pool.
    ///
    /// The closure gets a clone of the state for each run.
    ///
    /// ```
    /// # #[derive(Clone)]
    /// # struct Pool;
    /// # impl Pool { async fn ping(&self) -> std::io::Result<()> { Ok(()) } }
    /// # let pool = Pool;
    /// let health = lifesign::Health::builder(lifesign::build_info!())
    ///     .required_with("postgres", pool.clone(), async |pool| pool.ping().await)
    ///     .build()?;
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub fn required_with<S, F, Fut, T, E>(self, name: impl Into<String>, state: S, check: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.required(name, move || check(state.clone()))
    }

    /// Adds an [optional](Self::optional) check with the state it needs.
    ///
    /// ```
    /// # async fn ping(_: String) -> std::io::Result<()> { Ok(()) }
    /// let url = std::env::var("REDIS_URL").unwrap_or_default();
    /// let health = lifesign::Health::builder(lifesign::build_info!())
    ///     .optional_with("cache", url, ping)
    ///     .build()?;
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub fn optional_with<S, F, Fut, T, E>(self, name: impl Into<String>, state: S, check: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.optional(name, move || check(state.clone()))
    }

    /// Sets the path of a probe's route.
    ///
    /// The defaults are `/health`, `/health/ready` and `/health/live`.
    pub fn path(mut self, probe: Probe, path: impl Into<String>) -> Self {
        self.settings.routes[probe as usize].path = path.into();
        self
    }

    /// Sets the prefix under which the routes are nested, so that `healthcheck` finds them.
    ///
    /// For `Router::new().nest("/api", health.routes())`, set `/api`. Merged routes need no prefix.
    pub fn nested_under(mut self, prefix: impl Into<String>) -> Self {
        self.nested_under = prefix.into();
        self
    }

    /// Sets how long the checks may take. The default is 800 ms.
    ///
    /// The timeout of every prober must be longer, or it gets no report from a slow check: the
    /// kubelet's `timeoutSeconds` is 1 s by default, and the timeout of load balancers and ECS is
    /// 5 s. The timeout of `healthcheck` is 3 s, or 1.1 s more than the check timeout of an
    /// advertised service if that is longer. For a check timeout above 3 s, set Docker's
    /// `HEALTHCHECK --timeout` to 2 s more than the check timeout.
    pub const fn check_timeout(mut self, timeout: Duration) -> Self {
        self.settings.check_timeout = timeout;
        self
    }

    /// Sets how long the port stays open after SIGTERM. The default is 5 s.
    ///
    /// Choose a delay that is longer than the load balancer's failure threshold × its probe
    /// interval: until then, the load balancer sends requests. The delay plus the
    /// [shutdown timeout](Self::shutdown_timeout) must be shorter than the grace period after which
    /// the orchestrator kills the process. Choose zero if a `preStop` hook already waits.
    pub const fn drain_delay(mut self, delay: Duration) -> Self {
        self.settings.drain_delay = delay;
        self
    }

    /// Sets how long requests in flight may take after the drain delay. The default is 4 s.
    ///
    /// With the default drain delay, all requests end within 9 s of SIGTERM. Docker kills a
    /// container after 10 s.
    pub const fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.settings.shutdown_timeout = timeout;
        self
    }

    /// Lets readiness ignore the drain, and report as for a ready service.
    ///
    /// Choose this if Kubernetes does all load balancing. Kubernetes takes a deleted pod out of
    /// traffic without a probe, but if all pods of a Service are terminating, it still sends
    /// traffic to the ready pods. Other load balancers notice the drain only if readiness
    /// fails, which is the default.
    ///
    /// ```
    /// let health = lifesign::Health::builder(lifesign::build_info!())
    ///     .ready_during_drain()
    ///     .build()?;
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub const fn ready_during_drain(mut self) -> Self {
        self.settings.ready_during_drain = true;
        self
    }

    /// Validates names and paths, and creates the [`Health`] of a starting service.
    ///
    /// # Errors
    ///
    /// - A check's name is empty, is longer than 64 bytes, is registered twice, or contains
    ///   anything but ASCII letters, digits, `-`, `_` and `.`.
    /// - A path or prefix does not start with one `/`, or contains anything but ASCII letters,
    ///   digits, `/`, `-`, `_`, `.` and `~`.
    /// - Two routes have the same path.
    /// - The check timeout is shorter than 1 ms or longer than 120 s.
    pub fn build(mut self) -> Result<Health, RegisterError> {
        let timeout = self.settings.check_timeout;
        if !(PERIOD_MIN..=CHECK_TIMEOUT_MAX).contains(&timeout) {
            return Err(Mistake::CheckTimeout(timeout).into());
        }
        let checks = Checks::new(timeout);
        for check in self.checks {
            checks.add(check)?;
        }
        if !self.nested_under.is_empty() {
            validate_path(&self.nested_under)?;
        }
        let routes = &mut self.settings.routes;
        for i in 0..routes.len() {
            validate_path(&routes[i].path)?;
            // A route is served with and without a trailing slash, so two paths that differ only in
            // the slash are refused too.
            let trimmed = |route: &Route| route.path.trim_end_matches('/').to_owned();
            if routes[..i]
                .iter()
                .any(|route| trimmed(route) == trimmed(&routes[i]))
            {
                return Err(Mistake::SamePath(routes[i].path.clone()).into());
            }
            routes[i].outer_path = join(&self.nested_under, &routes[i].path);
        }
        Ok(Health::new(self.settings, checks))
    }
}

/// The error for a check, heartbeat, path or setting that is refused.
///
/// ```
/// use lifesign::{Health, RegisterError, build_info};
///
/// fn health(prefix: &str) -> Result<Health, RegisterError> {
///     Health::builder(build_info!()).nested_under(prefix).build()
/// }
///
/// if let Err(error) = health("internal") {
///     println!("{error}"); // path "internal": expected '/' and then letters, …
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterError(Mistake);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mistake {
    Name(String),
    Duplicate(String),
    TooLate(String),
    Path(String),
    SamePath(String),
    Period(String, Duration),
    CheckTimeout(Duration),
}

impl From<Mistake> for RegisterError {
    fn from(mistake: Mistake) -> Self {
        Self(mistake)
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Mistake::Name(name) => write!(
                f,
                "name {name:?}: expected 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"
            ),
            Mistake::Duplicate(name) => write!(f, "name {name:?} is registered twice"),
            Mistake::TooLate(name) => write!(f, "check {name:?} is registered after set_ready()"),
            Mistake::Path(path) => write!(
                f,
                "path {path:?}: expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
            ),
            Mistake::SamePath(path) => write!(f, "two routes have the path {path:?}"),
            Mistake::Period(name, period) => write!(
                f,
                "heartbeat {name:?}: expected a period of at least {PERIOD_MIN:?}, not {period:?}"
            ),
            Mistake::CheckTimeout(timeout) => write!(
                f,
                "check timeout {timeout:?}: expected {PERIOD_MIN:?} to {CHECK_TIMEOUT_MAX:?}"
            ),
        }
    }
}

impl Error for RegisterError {}

/// Validates the name of a check or heartbeat, so that responses and logs need not escape it. The
/// health+json draft reserves `:`, which separates component and measurement.
pub(super) fn validate_name(name: &str) -> Result<(), Mistake> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
        return Err(Mistake::Name(name.to_owned()));
    }
    Ok(())
}

/// Validates a path, so that axum's routes, URLs and advertisements need not escape it.
fn validate_path(path: &str) -> Result<(), Mistake> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(plain) {
        return Err(Mistake::Path(path.to_owned()));
    }
    Ok(())
}

/// Joins a prefix and a path as axum's `nest` does, which nests the route `/` at the prefix itself.
fn join(prefix: &str, path: &str) -> String {
    match prefix.strip_suffix('/') {
        None if path == "/" && !prefix.is_empty() => prefix.to_owned(),
        trimmed => format!("{}{path}", trimmed.unwrap_or(prefix)),
    }
}
