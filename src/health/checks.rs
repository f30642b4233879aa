//! Step 1, register: one named check, what its failure means, and the errors of registering it.

use std::{error::Error, fmt, future::Future, pin::Pin, time::Duration};

/// Why a check, a heartbeat or a path was not accepted.
///
/// A mistake in a registry is an error when the program starts, not at 3 a.m.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterError(pub(crate) Mistake);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mistake {
    Name(String),
    Duplicate(String),
    Path(String),
    SamePath(String),
    Period(String, Duration),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Mistake::Name(name) => write!(
                f,
                "name {name:?}: expected 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"
            ),
            Mistake::Duplicate(name) => write!(f, "name {name:?} is registered twice"),
            Mistake::Path(path) => write!(
                f,
                "path {path:?}: expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
            ),
            Mistake::SamePath(path) => write!(f, "path {path:?} is given to two routes"),
            Mistake::Period(name, within) => write!(
                f,
                "heartbeat {name:?}: a beat within {within:?} cannot be kept, expected 1ms or more"
            ),
        }
    }
}

impl Error for RegisterError {}

/// What the failure of a check means for traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Holds traffic back.
    Required,
    /// Warns.
    Optional,
}

type Run = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) need: Need,
    run: Box<Run>,
}

impl Check {
    pub(crate) fn new<F, Fut, T, E>(name: String, need: Need, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        let run = move || -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            let future = check();
            // `{:#}` so that anyhow and its like give the whole chain of causes.
            Box::pin(async move { future.await.map(drop).map_err(|e| format!("{e:#}")) })
        };
        Self {
            name,
            need,
            run: Box::new(run),
        }
    }

    pub(crate) async fn run(&self) -> Result<(), String> {
        (self.run)().await
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("need", &self.need)
            .finish_non_exhaustive()
    }
}

const NAME_MAX: usize = 64;

/// Names go on the wire and into log lines: nothing that would need escaping, and no ':', which
/// separates the component from the measurement in the health+json draft.
pub(crate) fn valid_name(name: &str) -> Result<(), RegisterError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
        return Err(RegisterError(Mistake::Name(name.to_owned())));
    }
    Ok(())
}
