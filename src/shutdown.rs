//! Draining: from the first signal to the moment at which the port may close.

use std::{future::Future, io};

use tracing::info;

use crate::Health;

impl Health {
    /// Returns a future for `axum::serve(…).with_graceful_shutdown(…)`.
    ///
    /// On SIGTERM or SIGINT (Ctrl-C) the service is [draining](Self::begin_drain) at once; the port
    /// stays open for the [delay](crate::HealthBuilder::drain_delay), so that load balancers see
    /// the 503 while requests are still served; then the future resolves. A second signal resolves
    /// it at once. In a container the service is PID 1, where an unhandled SIGTERM does nothing:
    /// the handlers are installed by this call, before anything is awaited, and stay.
    ///
    /// It does not end the requests in flight. The server waits for those, and the orchestrator's
    /// grace period bounds the wait.
    ///
    /// # Errors
    ///
    /// The signal handlers cannot be installed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time enabled.
    pub fn handle_signals(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut signals = Signals::new()?;
        let health = self.clone();
        Ok(async move {
            let signal = signals.next().await;
            health.begin_drain();
            let delay = health.inner.settings.drain_delay;
            info!(signal, ?delay, "the port stays open for the drain delay");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                signal = signals.next() => info!(signal, "second signal: drain delay cut short"),
            }
        })
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = tokio::signal::windows::ctrl_c()?;
        Ok(Self { interrupt })
    }

    async fn next(&mut self) -> &'static str {
        let _ = self.interrupt.recv().await;
        "Ctrl-C"
    }
}
