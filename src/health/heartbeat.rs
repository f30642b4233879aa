//! Step 1, register: a worker loop that must keep beating.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A worker's sign of life, from [`Health::heartbeat`](crate::Health::heartbeat).
///
/// The loop that holds it calls [`beat`](Self::beat) more often than the period that it
/// registered. A late beat, or a handle that is dropped without [`finish`](Self::finish) because
/// its task panicked, returned early or was cancelled, is a broken process: liveness fails and
/// the orchestrator restarts it. A late beat recovers with the next beat; a dropped handle does
/// not.
///
/// Not `Clone`: two holders would hide each other's silence.
///
/// ```
/// # async fn next_job() -> Option<()> { None }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
/// let heartbeat = health.heartbeat("mailer", std::time::Duration::from_secs(30))?;
/// tokio::spawn(async move {
///     while let Some(job) = next_job().await {
///         heartbeat.beat();
///         // … work on the job …
///     }
///     heartbeat.finish();
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a heartbeat that is dropped without `finish` is a broken process"]
pub struct Heartbeat(Arc<Beat>);

impl Heartbeat {
    pub(crate) fn new(name: String, within: Duration) -> (Self, Arc<Beat>) {
        let beat = Arc::new(Beat {
            name,
            within,
            born: Instant::now(),
            last: AtomicU64::new(0),
            phase: AtomicU8::new(BEATING),
        });
        (Self(Arc::clone(&beat)), beat)
    }

    /// Says that the worker is alive. Costs one clock reading and one atomic store.
    pub fn beat(&self) {
        self.0.last.store(self.0.age(), Ordering::Relaxed);
    }

    /// Ends the heartbeat: the worker is done, and its silence means nothing from now on.
    pub fn finish(self) {
        self.0.phase.store(FINISHED, Ordering::Release);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // Only from BEATING: `finish` drops its handle too.
        let _ =
            self.0
                .phase
                .compare_exchange(BEATING, DROPPED, Ordering::Release, Ordering::Relaxed);
    }
}

const BEATING: u8 = 0;
const FINISHED: u8 = 1;
const DROPPED: u8 = 2;

/// The registry's side of a [`Heartbeat`].
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) name: String,
    within: Duration,
    born: Instant,
    /// Nanoseconds from `born` to the last beat.
    last: AtomicU64,
    phase: AtomicU8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    Beating,
    Late,
    Dropped,
    Finished,
}

impl Beat {
    pub(crate) fn pulse(&self) -> Pulse {
        match self.phase.load(Ordering::Acquire) {
            FINISHED => Pulse::Finished,
            DROPPED => Pulse::Dropped,
            _ => {
                // `last` first: a beat between the two readings must not look like the future.
                let last = self.last.load(Ordering::Relaxed);
                let silence = Duration::from_nanos(self.age().saturating_sub(last));
                if silence > self.within {
                    Pulse::Late
                } else {
                    Pulse::Beating
                }
            }
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
