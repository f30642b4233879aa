//! How far a service has come, from its start to its end.

use tokio::time::Instant;

use super::ServiceState;

/// Progress of a service, which only moves forward.
#[derive(Debug)]
pub(crate) struct Life {
    /// State apart from the drain. It is never [`ServiceState::Draining`].
    pub(crate) reached: ServiceState,
    /// `None` before the drain.
    pub(crate) drain: Option<Drain>,
    /// Time at which the drain delay ended.
    pub(crate) delay_over: Option<Instant>,
}

/// The circumstances in which the drain began.
#[derive(Debug)]
pub(crate) struct Drain {
    /// Name of the signal that began the drain. `None` if the program called `begin_drain`, or
    /// dropped the runtime.
    pub(crate) signal: Option<&'static str>,
    /// The heartbeats that were late or dropped when the drain began.
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
