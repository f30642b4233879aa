//! Checks, and evaluations, each of which runs all checks once.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use super::{
    builder::{Mistake, validate_name},
    lock,
};

/// How long the results of an evaluation are reused, counted from its start. With a longer time, a
/// load balancer would notice a failure later.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// How much longer than the check timeout a prober waits for an evaluation. An evaluation takes
/// longer only if it runs on a blocked runtime.
pub(super) const EVALUATION_MARGIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// While the check fails, readiness fails and health warns.
    Required,
    /// While the check fails, health and readiness warn.
    Optional,
}

/// Name and kind of a check. Results share this and not the check, so that they do not keep the
/// check's closure alive.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) need: Need,
    /// Whether the last log line about the check was a failure.
    logged_failure: AtomicBool,
}

/// How a check failed. Not `Debug`, because the text of an error can contain a secret.
#[derive(Clone)]
pub(crate) enum Failure {
    Failed(String),
    TimedOut,
    Panicked(String),
}

pub(crate) struct CheckResult {
    pub(crate) check: Arc<Label>,
    pub(crate) began: SystemTime,
    pub(crate) failure: Option<Failure>,
    pub(crate) took: Duration,
}

/// Results of one run of all checks.
pub(crate) struct Evaluation {
    started: Instant,
    pub(crate) results: Vec<CheckResult>,
}

impl Evaluation {
    pub(crate) fn failing(&self, need: Need) -> impl Iterator<Item = &CheckResult> {
        let failing =
            move |result: &&CheckResult| result.check.need == need && result.failure.is_some();
        self.results.iter().filter(failing)
    }

    /// Returns the checks that have failed or recovered since they were last logged, and marks them
    /// as logged.
    fn transitions(&self) -> Vec<&CheckResult> {
        let changed = |result: &&CheckResult| {
            let fails = result.failure.is_some();
            result.check.logged_failure.swap(fails, Ordering::Relaxed) != fails
        };
        self.results.iter().filter(changed).collect()
    }
}

impl CheckResult {
    fn log(&self) {
        let (check, took) = (&self.check.name, self.took);
        let error = match &self.failure {
            None => return info!(check, ?took, "check recovered"),
            Some(Failure::Failed(error) | Failure::Panicked(error)) => error,
            Some(Failure::TimedOut) => "timed out",
        };
        let required = self.check.need == Need::Required;
        warn!(check, required, ?took, error, "check failed");
    }
}

type Run = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

pub(super) struct Check {
    label: Arc<Label>,
    run: Box<Run>,
    last: Mutex<Option<LastRun>>,
}

struct LastRun {
    task: AbortHandle,
    began: SystemTime,
    started: Instant,
    /// Failure and duration of the run. `None` until the run has ended.
    ended: Option<(Option<Failure>, Duration)>,
}

impl Check {
    pub(super) fn new<F, Fut, T, E>(name: String, need: Need, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        let run = move || -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            let future = check();
            // For `anyhow::Error` and similar types, `{:#}` also prints the causes.
            Box::pin(async move { future.await.map(drop).map_err(|e| format!("{e:#}")) })
        };
        Self {
            label: Arc::new(Label {
                name,
                need,
                logged_failure: AtomicBool::new(false),
            }),
            run: Box::new(run),
            last: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.label.name
    }

    /// Starts a run, unless the last run has not ended. A run that blocks its thread cannot be
    /// aborted, and another run would block another thread.
    fn start(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let mut last = lock(&self.last);
        if last.as_ref().is_some_and(|last| !last.task.is_finished()) {
            return None;
        }
        let check = Arc::clone(self);
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut run = pin!(async { (check.run)().await });
            // A panic is caught here, so that the duration of the run can be measured.
            let poll = poll_fn(|context| {
                let poll = AssertUnwindSafe(|| run.as_mut().poll(context));
                match catch_unwind(poll) {
                    Ok(poll) => poll.map(|result| result.err().map(Failure::Failed)),
                    Err(panic) => Poll::Ready(Some(Failure::Panicked(message(&*panic)))),
                }
            });
            let ended = (poll.await, started.elapsed());
            if let Some(last) = &mut *lock(&check.last) {
                last.ended = Some(ended);
            }
        });
        *last = Some(LastRun {
            task: task.abort_handle(),
            began: SystemTime::now(),
            started: Instant::now(),
            ended: None,
        });
        Some(task)
    }

    /// Waits for a run. `started` is the start of the evaluation. `task` is `None` if the run was
    /// not started.
    async fn finish(
        &self,
        task: Option<JoinHandle<()>>,
        started: Instant,
        timeout: Duration,
    ) -> CheckResult {
        if let Some(mut task) = task
            && timeout_at(started + timeout, &mut task).await.is_err()
        {
            task.abort();
        }
        self.result(started, timeout)
    }

    /// Returns the result of the run in the evaluation that began at `started`.
    fn result(&self, started: Instant, timeout: Duration) -> CheckResult {
        let last = lock(&self.last);
        let last = last.as_ref();
        let ended = last.filter(|last| last.started >= started);
        let (failure, took) = match ended.and_then(|last| last.ended.clone()) {
            // A check that blocks its thread also delays the timer of `timeout_at`, so the measured
            // time decides.
            Some((_, took)) if took > timeout => (Some(Failure::TimedOut), took),
            Some(ended) => ended,
            None => (Some(Failure::TimedOut), timeout),
        };
        CheckResult {
            check: Arc::clone(&self.label),
            began: last.map_or_else(SystemTime::now, |last| last.began),
            failure,
            took,
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.label.fmt(f)
    }
}

/// All checks of a service. Clones share them.
#[derive(Clone)]
pub(super) struct Checks {
    registry: Arc<Mutex<Registry>>,
    timeout: Duration,
}

#[derive(Default)]
struct Registry {
    checks: Vec<Arc<Check>>,
    last: Option<Arc<Evaluation>>,
    running: Option<Running>,
}

/// An evaluation that has not ended.
#[derive(Clone)]
struct Running {
    started: Instant,
    /// Time at which probers stop waiting for the evaluation.
    deadline: Instant,
    done: watch::Receiver<Option<Arc<Evaluation>>>,
}

impl Running {
    /// Whether the evaluation can still end in time. Its runtime may be blocked or dropped.
    fn is_alive(&self) -> bool {
        Instant::now() < self.deadline && self.done.has_changed().is_ok()
    }
}

impl Checks {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            registry: Arc::default(),
            timeout,
        }
    }

    pub(super) fn add(&self, check: Check) -> Result<(), Mistake> {
        validate_name(check.name())?;
        let mut registry = lock(&self.registry);
        if registry.contains(check.name()) {
            return Err(Mistake::Duplicate(check.name().to_owned()));
        }
        registry.checks.push(Arc::new(check));
        // The last results do not include the new check.
        registry.last = None;
        Ok(())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        lock(&self.registry).contains(name)
    }

    pub(super) fn any_required(&self) -> bool {
        let required = |check: &Arc<Check>| check.label.need == Need::Required;
        lock(&self.registry).checks.iter().any(required)
    }

    /// Whether every required check passed. `false` if a check was added after the evaluation
    /// began.
    pub(super) fn pass(&self, evaluation: &Evaluation) -> bool {
        let complete = evaluation.results.len() == lock(&self.registry).checks.len();
        complete && evaluation.failing(Need::Required).next().is_none()
    }

    /// Returns the last evaluation if it began less than [`CACHE_TTL`] ago. Otherwise waits for the
    /// evaluation that is running, or starts one. Returns `None` if there are no checks.
    pub(super) async fn evaluate(&self) -> Option<Arc<Evaluation>> {
        let mut running = {
            let mut registry = lock(&self.registry);
            if registry.checks.is_empty() {
                return None;
            }
            if let Some(last) = &registry.last
                && last.started.elapsed() < CACHE_TTL
            {
                return Some(Arc::clone(last));
            }
            match &registry.running {
                Some(running) if running.is_alive() => running.clone(),
                _ => registry.start(self),
            }
        };
        let done = timeout_at(running.deadline, running.done.wait_for(Option::is_some)).await;
        let evaluation = done.ok().and_then(|done| done.ok()?.clone());
        Some(evaluation.unwrap_or_else(|| self.timed_out(&running)))
    }

    /// Returns the results of an evaluation that has not ended. Its runs that have not ended have
    /// timed out.
    fn timed_out(&self, running: &Running) -> Arc<Evaluation> {
        let started = running.started;
        let result = |check: &Arc<Check>| check.result(started, self.timeout);
        let results = lock(&self.registry).checks.iter().map(result).collect();
        Arc::new(Evaluation { started, results })
    }

    async fn run(self, checks: Vec<Arc<Check>>, done: watch::Sender<Option<Arc<Evaluation>>>) {
        let started = Instant::now();
        let ours = done.subscribe();
        match &mut lock(&self.registry).running {
            // The runtime or the whole process can have been frozen since the evaluation was
            // spawned, so the time begins now.
            Some(running) if running.done.same_channel(&ours) => {
                running.deadline = started + self.timeout + EVALUATION_MARGIN;
            }
            // Another evaluation has replaced this one.
            _ => return,
        }
        let tasks: Vec<_> = checks.iter().map(|check| (check, check.start())).collect();
        let mut results = Vec::with_capacity(tasks.len());
        for (check, task) in tasks {
            results.push(check.finish(task, started, self.timeout).await);
        }
        let evaluation = Arc::new(Evaluation { started, results });
        let mut transitions = Vec::new();
        {
            let mut registry = lock(&self.registry);
            let running = &mut registry.running;
            running.take_if(|running| running.done.same_channel(&ours));
            // Results are not cached or logged if a check was added since the start, which makes
            // them incomplete, or if a later evaluation has ended, which makes them outdated.
            let last = registry.last.as_ref();
            if evaluation.results.len() == registry.checks.len()
                && last.is_none_or(|last| last.started <= started)
            {
                registry.last = Some(Arc::clone(&evaluation));
                transitions = evaluation.transitions();
            }
        }
        done.send_replace(Some(Arc::clone(&evaluation)));
        // Log last and without a lock, because writing to a log can block.
        transitions.into_iter().for_each(CheckResult::log);
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lock(&self.registry).checks.fmt(f)
    }
}

impl Registry {
    fn contains(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name() == name)
    }

    /// Starts an evaluation in a task of its own, so that a prober that disconnects does not cancel
    /// it for other probers.
    fn start(&mut self, checks: &Checks) -> Running {
        let (sender, done) = watch::channel(None);
        let started = Instant::now();
        tokio::spawn(checks.clone().run(self.checks.clone(), sender));
        let running = Running {
            started,
            deadline: started + checks.timeout + EVALUATION_MARGIN,
            done,
        };
        self.running.insert(running).clone()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("no message"))
}
