//! The task that receives signals and carries out the shutdown.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    mem, process, thread,
    time::Duration,
};

use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::Shutdown;
use crate::{Health, health::ServiceState};

/// Minimum time between two signals. `timeout` and some init systems send each signal twice, to the
/// process and to its group, so a signal that follows sooner is ignored.
const REPEATED_SIGNAL: Duration = Duration::from_millis(100);

/// How long `main` may take after the shutdown timeout to drop the runtime and return.
const EXIT_MARGIN: Duration = Duration::from_millis(500);

/// Delay of the hint to press Ctrl-C again, which a service that ends sooner does not print.
const HINT_AFTER: Duration = Duration::from_millis(300);

/// Waits until a signal or the program begins the drain, and takes the service through its
/// shutdown.
pub(super) async fn watch(health: Health, signals: Signals) {
    let mut watcher = Watcher {
        health: health.clone(),
        signals,
    };
    let started = Shutdown(health.clone()).started();
    select! {
        signal = watcher.signals.first() => if health.drain(Some(signal.name)) {
            info!(signal = signal.name, "draining");
        },
        () = started => {}
    }

    let (is_interactive, delay) = {
        let life = health.inner.life.borrow();
        // A service that runs in a terminal has no load balancer that must notice the drain.
        let is_interactive =
            life.signal() == Some(Signal::INTERRUPT.name) && io::stderr().is_terminal();
        let has_delay = !is_interactive && life.reached != ServiceState::Starting;
        let delay = has_delay.then_some(health.inner.settings.drain_delay);
        (is_interactive, delay.unwrap_or_default())
    };
    info!(?delay, "the port stays open for the drain delay");
    select! {
        () = sleep(delay) => {}
        signal = watcher.signals.another() => {
            info!(signal = signal.name, "second signal: drain delay cut short");
        }
    }
    watcher.end_delay();

    let hint = async {
        sleep(HINT_AFTER).await;
        if is_interactive {
            let timeout = health.inner.settings.shutdown_timeout;
            let hint = "for work in flight; press Ctrl-C again to end at once";
            // The hint is for the person at the terminal, so it does not go to the log.
            let _ = writeln!(io::stderr(), "waiting up to {timeout:?} {hint}");
        }
        pending::<()>().await;
    };
    let end = async {
        let signals = &mut watcher.signals;
        if !signals.has_first {
            let signal = signals.first().await;
            info!(signal = signal.name, "already draining");
        }
        let timeout = health.inner.settings.shutdown_timeout;
        select! {
            signal = signals.another() => {
                warn!(signal = signal.name, "ended by another signal");
                exit(128 + signal.number)
            }
            () = sleep(timeout.saturating_add(EXIT_MARGIN)) => exit_for_main(),
        }
    };
    select! {
        () = hint => {}
        () = end => {}
    }
}

/// State of the task, which is dropped with the runtime. Dropping it begins the drain and ends its
/// delay, because no signal can do so without the task.
struct Watcher {
    health: Health,
    signals: Signals,
}

impl Watcher {
    fn end_delay(&self) {
        self.health.inner.life.send_if_modified(|life| {
            let ends = life.delay_over.is_none();
            life.delay_over.get_or_insert_with(Instant::now);
            ends
        });
    }

    /// After a signal, ends the process if `main` does not return in time. A runtime that is
    /// dropped waits without limit for blocking work, such as a DNS lookup.
    fn bound_exit(&self) {
        let life = self.health.inner.life.borrow();
        let (true, Some(delay_over)) = (self.signals.has_first, life.delay_over) else {
            return;
        };
        let timeout = match life.reached {
            ServiceState::Starting => Duration::ZERO,
            _ => self.health.inner.settings.shutdown_timeout,
        };
        let left = timeout.saturating_sub(delay_over.elapsed());
        let left = left.saturating_add(EXIT_MARGIN);
        drop(life);
        let wait = move || {
            thread::sleep(left);
            exit_for_main();
        };
        if let Err(error) = thread::Builder::new().spawn(wait) {
            warn!(%error, "cannot limit how long `main` takes to return");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.health.drain(None);
        self.end_delay();
        self.bound_exit();
    }
}

fn exit_for_main() -> ! {
    warn!("ended, because `main` has not returned");
    exit(1)
}

#[expect(clippy::exit, reason = "`main` may never return")]
fn exit(code: i32) -> ! {
    process::exit(code)
}

#[derive(Debug, Clone, Copy)]
struct Signal {
    name: &'static str,
    number: i32,
}

impl Signal {
    const INTERRUPT: Self = Self {
        name: if cfg!(windows) { "Ctrl-C" } else { "SIGINT" },
        number: 2,
    };
    #[cfg(unix)]
    const TERMINATE: Self = Self {
        name: "SIGTERM",
        number: 15,
    };
}

pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
    last: Option<Instant>,
    /// Whether a signal has arrived.
    has_first: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(windows)]
            interrupt: tokio::signal::windows::ctrl_c()?,
            last: None,
            has_first: false,
        })
    }

    async fn first(&mut self) -> Signal {
        let signal = self.next().await;
        self.has_first = true;
        signal
    }

    /// Waits for a signal that is not the first. If the program began the drain, the first signal
    /// is still to come, and is only logged.
    async fn another(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if mem::replace(&mut self.has_first, true) {
                return signal;
            }
            info!(signal = signal.name, "already draining");
        }
    }

    async fn next(&mut self) -> Signal {
        loop {
            let signal = self.receive().await;
            let now = Instant::now();
            let last = self.last.replace(now);
            if last.is_none_or(|last| now - last >= REPEATED_SIGNAL) {
                return signal;
            }
        }
    }

    async fn receive(&mut self) -> Signal {
        #[cfg(unix)]
        select! {
            Some(()) = self.terminate.recv() => Signal::TERMINATE,
            Some(()) = self.interrupt.recv() => Signal::INTERRUPT,
            else => pending().await,
        }
        #[cfg(windows)]
        match self.interrupt.recv().await {
            Some(()) => Signal::INTERRUPT,
            None => pending().await,
        }
    }
}
