//! Life of a service: how far its start has come, and how far its end.

use tokio::time::Instant;

use super::State;

/// Life of a service. It only moves forward.
#[derive(Debug)]
pub(crate) struct Life {
    /// How far the start has come: anything but [`State::Draining`].
    pub(crate) reached: State,
    pub(crate) drain: Option<Drain>,
    /// When the drain delay ended.
    pub(crate) delay_over: Option<Instant>,
}

/// What held when the drain began.
#[derive(Debug)]
pub(crate) struct Drain {
    /// Name of the signal that began it. `None` if the program did.
    pub(crate) signal: Option<&'static str>,
    pub(crate) broken: Option<String>,
}

impl Life {
    pub(crate) const fn new() -> Self {
        Self {
            reached: State::Starting,
            drain: None,
            delay_over: None,
        }
    }

    /// Name of the signal that began the drain.
    pub(crate) fn signal(&self) -> Option<&'static str> {
        self.drain.as_ref()?.signal
    }

    pub(crate) const fn state(&self) -> State {
        match self.drain {
            Some(_) => State::Draining,
            None => self.reached,
        }
    }
}
