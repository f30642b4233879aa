//! The end of a service, from the first signal to the exit of the process.

mod watcher;

use std::{
    future::{Future, IntoFuture, pending},
    io,
    process::ExitCode,
};

use tokio::{runtime::Handle, select, time::sleep_until};
use tracing::{info, warn};

use self::watcher::{Signals, watch};
use crate::{
    Health,
    health::{Drain, Inner, Life, lock},
    report::describe,
};

/// Handle to the shutdown of a service, from [`Health::handle_signals`].
///
/// | step | what happens | awaited with |
/// |---|---|---|
/// | the first signal, or [`Health::begin_drain`] | health and readiness fail, and the port stays open while load balancers notice this | [`started`](Self::started) |
/// | the end of the [drain delay](crate::HealthBuilder::drain_delay) | the port closes, and requests in flight go on | [`delay_over`](Self::delay_over) |
/// | the end of the [shutdown timeout](crate::HealthBuilder::shutdown_timeout) | work that still runs is cut | [`bound`](Self::bound) |
///
/// The second signal ends the drain delay, or the process if the delay is over. Any later signal
/// ends the process at once, with exit code 128 plus the signal's number. There is no drain delay
/// if the drain begins before [`set_ready`](Health::set_ready), or by Ctrl-C while stderr is a
/// terminal.
///
/// [`Health::serve`] does all of this for an axum router. Use the handle for workers, for start-up
/// work, and for servers of other frameworks. Clones share one shutdown.
///
/// ```no_run
/// # async fn next_job() {}
/// # async fn example(health: lifesign::Health) -> std::io::Result<std::process::ExitCode> {
/// let shutdown = health.handle_signals()?;
/// health.set_ready();
/// let worker = async {
///     while !shutdown.has_started() {
///         next_job().await;
///     }
/// };
/// match shutdown.bound(worker).await {
///     Some(()) => Ok(shutdown.exit_code()),
///     None => Ok(std::process::ExitCode::FAILURE), // A job was cut.
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Shutdown(Health);

impl Health {
    /// Installs handlers for SIGTERM and SIGINT (Ctrl-C), and spawns a task that begins the drain
    /// when a signal arrives.
    ///
    /// Call it before the program awaits anything for long: in a container the service is PID 1,
    /// and the kernel ignores a SIGTERM to PID 1 that has no handler. Every further call returns a
    /// handle to the same shutdown. If the runtime is dropped, the drain begins without a delay.
    ///
    /// After a signal, the process ends with exit code 1 if `main` has not returned half a second
    /// after the shutdown timeout. Without this limit, the process could live on, because dropping
    /// a runtime waits for blocking work, such as a DNS lookup. If `main` calls tokio's
    /// `Runtime::shutdown_timeout`, pass less than half a second.
    ///
    /// ```no_run
    /// # use axum::Router;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    /// # let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
    /// # let (listener, app) = (tokio::net::TcpListener::bind("[::]:8080").await?, Router::new());
    /// let shutdown = health.handle_signals()?;
    /// health.advertise(listener.local_addr()?).set_ready();
    /// let server = axum::serve(listener, app.merge(health.routes()))
    ///     .with_graceful_shutdown(shutdown.delay_over());
    /// // `None` means that connections were cut, which is not a failure of the service.
    /// shutdown.bound(server).await.transpose()?;
    /// Ok(shutdown.exit_code())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The handlers cannot be installed, or there is no tokio runtime. A program without tokio can
    /// create a runtime with one worker thread, and enter it.
    ///
    /// # Panics
    ///
    /// If the tokio runtime was built without IO. Without time, the task panics when the drain
    /// begins.
    pub fn handle_signals(&self) -> io::Result<Shutdown> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let mut installed = lock(&self.inner.handles_signals);
        if !*installed {
            runtime.spawn(watch(self.clone(), Signals::new()?));
            *installed = true;
        }
        Ok(Shutdown(self.clone()))
    }

    /// Begins the drain: health and readiness fail from now on.
    ///
    /// [Signal handlers](Self::handle_signals) do this on the first signal. Call it in a service
    /// that has another reason to stop, or that has its own signal handlers. A drain cannot be
    /// undone.
    ///
    /// ```
    /// # use axum::{Router, routing::post};
    /// # fn example(admin: Router, health: lifesign::Health) -> Router {
    /// admin.route("/shutdown", post(async move || health.begin_drain()))
    /// # }
    /// ```
    pub fn begin_drain(&self) {
        if self.drain(None) {
            info!("draining");
        }
    }

    /// Begins the drain. Returns `false` if the drain had begun before.
    fn drain(&self, signal: Option<&'static str>) -> bool {
        // This is read before the drain begins, because workers then end and can drop their
        // heartbeats.
        let broken = broken(&self.inner);
        self.inner.life.send_if_modified(|life| {
            let begins = life.drain.is_none();
            life.drain.get_or_insert(Drain { signal, broken });
            begins
        })
    }
}

impl Shutdown {
    /// Waits until the drain has begun.
    ///
    /// Use this to stop taking jobs from a queue, to report `NOT_SERVING` in a gRPC health service,
    /// or to close a WebSocket.
    pub fn started(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until(|life| life.drain.is_some())
    }

    /// Returns whether the drain has begun.
    ///
    /// During the drain, [`Health::serve`] asks clients to close their connections. A service with
    /// its own server does the same with a layer:
    ///
    /// ```
    /// use axum::{
    ///     Router,
    ///     http::{StatusCode, header},
    ///     middleware::map_response,
    ///     response::Response,
    /// };
    ///
    /// # fn layered(app: Router, shutdown: lifesign::Shutdown) -> Router {
    /// app.layer(map_response(move |mut response: Response| {
    ///     let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    ///     if shutdown.has_started() && !is_upgrade {
    ///         let close = header::HeaderValue::from_static("close");
    ///         response.headers_mut().insert(header::CONNECTION, close);
    ///     }
    ///     async { response }
    /// }))
    /// # }
    /// ```
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.0.inner.life.borrow().drain.is_some()
    }

    /// Waits until the drain delay is over, for `with_graceful_shutdown` and similar methods.
    pub fn delay_over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until(|life| life.delay_over.is_some())
    }

    /// Runs a server or a worker, and cuts it at the end of the shutdown timeout.
    ///
    /// Returns `None` if the work was cut: a server still had an open connection, or a worker had
    /// not finished its job. If a worker was cut, the service should end with a failing exit code.
    #[must_use = "`None` means that the work was cut"]
    pub async fn bound<F: IntoFuture>(&self, work: F) -> Option<F::Output> {
        select! {
            biased;
            output = work.into_future() => Some(output),
            () = self.timed_out() => {
                warn!(timeout = ?self.0.inner.settings.shutdown_timeout, "cut at the shutdown timeout");
                None
            }
        }
    }

    /// Runs start-up work, and abandons it when the drain begins.
    ///
    /// Use this for slow work before the service is ready: connecting, migrating, warming a cache.
    /// The work is dropped at its current `.await`. Work that blocks its thread cannot be dropped.
    ///
    /// ```no_run
    /// # struct Pool;
    /// # async fn connect() -> std::io::Result<Pool> { Ok(Pool) }
    /// # async fn example(health: lifesign::Health) -> std::io::Result<()> {
    /// let shutdown = health.handle_signals()?;
    /// let pool = shutdown.startup(connect()).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The drain began before the work was done. The error has the kind
    /// [`Interrupted`](io::ErrorKind::Interrupted) and names the signal. If `main` returns it, the
    /// exit code is 1.
    pub async fn startup<F: IntoFuture>(&self, work: F) -> io::Result<F::Output> {
        select! {
            biased;
            () = self.started() => Err(self.interrupted()),
            output = work.into_future() => Ok(output),
        }
    }

    /// Returns the exit code for the end of `main`: a failure if a [heartbeat](Health::heartbeat)
    /// was late or dropped when the drain began, or if a worker with a heartbeat has panicked
    /// since.
    ///
    /// When liveness fails, the orchestrator sends SIGTERM. If the service then ended with exit
    /// code 0, the orchestrator would record unfinished work as completed.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self.broken() {
            None => ExitCode::SUCCESS,
            Some(_) => ExitCode::FAILURE,
        }
    }

    /// Describes the heartbeats that were late or dropped when the drain began, or else the
    /// heartbeat of a worker that has panicked since. Before the drain, describes the heartbeats
    /// that are late or dropped now.
    pub(crate) fn broken(&self) -> Option<String> {
        let inner = &self.0.inner;
        let panicked = |name| format!("the worker of heartbeat {name} panicked");
        match &inner.life.borrow().drain {
            Some(drain) => drain.broken.clone().or(inner.panicked().map(panicked)),
            None => broken(inner),
        }
    }

    fn interrupted(&self) -> io::Error {
        let signal = self.0.inner.life.borrow().signal();
        let reason = signal.unwrap_or("the drain began");
        info!(reason, "start-up abandoned");
        let error = format!("start-up abandoned: {reason}");
        io::Error::new(io::ErrorKind::Interrupted, error)
    }

    pub(crate) async fn timed_out(&self) {
        self.delay_over().await;
        let over = self.0.inner.life.borrow().delay_over;
        match over.and_then(|over| over.checked_add(self.0.inner.settings.shutdown_timeout)) {
            Some(end) => sleep_until(end).await,
            None => pending().await,
        }
    }

    fn until(&self, step: fn(&Life) -> bool) -> impl Future<Output = ()> + Send + use<> {
        let mut life = self.0.inner.life.subscribe();
        async move {
            // This fails only if all handles to the service were dropped, and then the wait ends.
            let _ = life.wait_for(step).await;
        }
    }
}

/// Describes the heartbeats that are late or dropped now.
fn broken(inner: &Inner) -> Option<String> {
    let failing: Vec<_> = inner.pulses().iter().filter_map(describe).collect();
    (!failing.is_empty()).then(|| failing.join(", "))
}
