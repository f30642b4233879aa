//! Life of a service: the progress of its start, and of its end.

use tokio::time::Instant;

use super::ServiceState;

/// Progress of a service from start to shutdown. It only moves forward.
#[derive(Debug)]
pub(crate) struct Life {
    /// The progress of the start. Never [`ServiceState::Draining`].
    pub(crate) reached: ServiceState,
    pub(crate) drain: Option<Drain>,
    /// Time at which the drain delay was over.
    pub(crate) delay_over: Option<Instant>,
}

/// The circumstances in which the drain began.
#[derive(Debug)]
pub(crate) struct Drain {
    /// Name of the signal that began the drain. `None` if the program or the end of its runtime
    /// began it.
    pub(crate) signal: Option<&'static str>,
    pub(crate) broken: Option<String>,
}

impl Life {
    pub(crate) const fn new() -> Self {
        Self {
            reached: ServiceState::Starting,
            drain: None,
            delay_over: None,
        }
    }

    pub(crate) fn signal(&self) -> Option<&'static str> {
        self.drain.as_ref()?.signal
    }

    pub(crate) const fn state(&self) -> ServiceState {
        match self.drain {
            Some(_) => ServiceState::Draining,
            None => self.reached,
        }
    }
}
