//! Progress of a shutdown. `shutdown.rs` moves it forward.

use std::sync::Mutex;

use tokio::{sync::watch, time::Instant};

/// Progress of the shutdown.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) end: watch::Sender<End>,
    /// Whether the signal handlers are installed.
    pub(crate) installed: Mutex<bool>,
}

/// The steps that are done.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) drain: Option<Drain>,
    /// When the drain delay ended.
    pub(crate) delay_over: Option<Instant>,
}

/// What held when the drain began.
#[derive(Debug)]
pub(crate) struct Drain {
    /// `None` if the program began it.
    pub(crate) signal: Option<Signal>,
    pub(crate) was_ready: bool,
    pub(crate) broken: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) number: i32,
}

impl Signal {
    pub(crate) const INTERRUPT: Self = Self {
        name: if cfg!(windows) { "Ctrl-C" } else { "SIGINT" },
        number: 2,
    };
    #[cfg(unix)]
    pub(crate) const TERMINATE: Self = Self {
        name: "SIGTERM",
        number: 15,
    };
}
