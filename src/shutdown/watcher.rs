//! The task that listens for signals, and takes the service through its shutdown.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    mem, process,
    time::Duration,
};

use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::Shutdown;
use crate::{Health, health::Signal};

/// Minimum time between two signals that are counted apart. `timeout` and some init systems send
/// the same signal to the process and to its group.
const REPEATED_SIGNAL: Duration = Duration::from_millis(100);

/// How long Ctrl-C in a terminal takes before the terminal is told what the service waits for.
const HINT_AFTER: Duration = Duration::from_millis(300);

/// Takes the service through its shutdown.
pub(super) async fn watch(health: Health, mut signals: Signals) {
    let watcher = Watcher(health);
    let health = &watcher.0;
    let started = Shutdown(health.clone()).started();
    select! {
        signal = signals.first() => if health.drain(Some(signal)) {
            info!(signal = signal.name, "draining");
        },
        () = started => {}
    }

    let is_interactive = is_interactive(health);
    let delay = if is_interactive || !was_ready(health) {
        Duration::ZERO
    } else {
        health.inner.settings.drain_delay
    };
    info!(?delay, "the port stays open for the drain delay");
    select! {
        () = sleep(delay) => {}
        signal = signals.another() => {
            info!(signal = signal.name, "second signal: drain delay cut short");
        }
    }
    watcher.end_delay();

    let hint = async {
        sleep(HINT_AFTER).await;
        if is_interactive {
            let timeout = health.inner.settings.shutdown_timeout;
            let hint = "for requests in flight; press Ctrl-C again to end at once";
            // Not to the log: it is for the person at the keyboard. A closed stderr is no error.
            let _ = writeln!(io::stderr(), "waiting up to {timeout:?} {hint}");
        }
        pending::<()>().await;
    };
    select! {
        () = hint => {}
        signal = signals.another() => exit(signal),
    }
}

/// Whether somebody pressed Ctrl-C in a terminal, where no load balancer has to notice the drain.
fn is_interactive(health: &Health) -> bool {
    let end = health.inner.life.end.borrow();
    let signal = end.drain.as_ref().and_then(|drain| drain.signal);
    signal == Some(Signal::INTERRUPT) && io::stderr().is_terminal()
}

fn was_ready(health: &Health) -> bool {
    let end = health.inner.life.end.borrow();
    end.drain.as_ref().is_some_and(|drain| drain.was_ready)
}

#[expect(
    clippy::exit,
    reason = "the user asked again, and `main` may never return"
)]
fn exit(signal: Signal) -> ! {
    warn!(signal = signal.name, "ended by another signal");
    process::exit(128 + signal.number)
}

/// Ends the shutdown if the runtime drops the task: nobody would hear a signal any more.
struct Watcher(Health);

impl Watcher {
    fn end_delay(&self) {
        self.0.inner.life.end.send_if_modified(|end| {
            let ends = end.delay_over.is_none();
            end.delay_over.get_or_insert_with(Instant::now);
            ends
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.drain(None);
        self.end_delay();
    }
}

pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
    last: Option<Instant>,
    /// Whether the first signal has arrived.
    counted: bool,
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
            counted: false,
        })
    }

    async fn first(&mut self) -> Signal {
        let signal = self.next().await;
        self.counted = true;
        signal
    }

    /// Waits for a signal that is not the first. The program can begin the drain before that.
    async fn another(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if mem::replace(&mut self.counted, true) {
                return signal;
            }
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
