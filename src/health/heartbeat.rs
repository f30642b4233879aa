//! Heartbeats, by which worker loops report that they are alive.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::lock;

/// A worker loop's sign of life, from [`Health::heartbeat`](crate::Health::heartbeat).
///
/// Call [`beat`](Self::beat) in the loop, at least once in every period. All probes fail, and the
/// orchestrator restarts the process, if a heartbeat
///
/// - is late: it recovers with the next beat,
/// - is dropped without [`finish`](Self::finish), because its worker panicked, returned early or
///   was cancelled: it does not recover.
///
/// `Health::serve` does not wait for workers. To let a worker finish its job during the shutdown,
/// run `serve` and the worker in `tokio::join!`, with the worker inside
/// [`Shutdown::bound`](crate::Shutdown::bound).
///
/// Not `Clone`: with two handles, the beats of one worker would hide that the other has stopped.
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
#[must_use = "dropping a heartbeat without `finish` reports a broken process"]
pub struct Heartbeat(Arc<Beat>);

impl Heartbeat {
    /// Reports that the worker is alive. This reads the clock and stores one atomic integer.
    pub fn beat(&self) {
        self.0.last.store(self.0.age(), Relaxed);
    }

    /// Ends the heartbeat of a worker that is done.
    pub fn finish(self) {
        self.0.last.store(FINISHED, Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // `finish` also drops the heartbeat.
        if self.0.last.load(Relaxed) != FINISHED {
            let ended = if thread::panicking() {
                PANICKED
            } else {
                DROPPED
            };
            self.0.last.store(ended, Relaxed);
        }
    }
}

/// Values of [`Beat::last`] for a heartbeat that has ended. No heartbeat reaches them as a time:
/// they are 584 years in nanoseconds.
const FINISHED: u64 = u64::MAX;
const DROPPED: u64 = u64::MAX - 1;
const PANICKED: u64 = u64::MAX - 2;

/// The state that a [`Heartbeat`] and [`Heartbeats`] share.
#[derive(Debug)]
struct Beat {
    name: Arc<str>,
    period: Duration,
    registered: Instant,
    /// Nanoseconds from `registered` to the last beat, or `FINISHED`, `DROPPED` or `PANICKED`.
    last: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    Beating,
    Late,
    Dropped,
    Finished,
}

impl Pulse {
    pub(crate) const fn is_failing(self) -> bool {
        matches!(self, Self::Late | Self::Dropped)
    }
}

impl Beat {
    fn pulse(&self) -> Pulse {
        match self.last.load(Relaxed) {
            FINISHED => Pulse::Finished,
            DROPPED | PANICKED => Pulse::Dropped,
            last => match Duration::from_nanos(self.age().saturating_sub(last)) {
                silence if silence > self.period => Pulse::Late,
                _ => Pulse::Beating,
            },
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.registered.elapsed().as_nanos()).unwrap_or_default()
    }
}

pub(crate) type Pulses = Vec<(Arc<str>, Pulse)>;

#[derive(Debug, Default)]
pub(super) struct Heartbeats(Mutex<Vec<Registered>>);

#[derive(Debug)]
struct Registered {
    beat: Arc<Beat>,
    /// The pulse that the last call of [`Heartbeats::pulses`] returned.
    previous: Pulse,
}

impl Heartbeats {
    /// Registers a heartbeat. Returns `None` if a heartbeat of this name has not finished.
    pub(super) fn register(&self, name: &str, period: Duration) -> Option<Heartbeat> {
        let mut heartbeats = lock(&self.0);
        heartbeats.retain(|heartbeat| heartbeat.beat.pulse() != Pulse::Finished);
        if heartbeats
            .iter()
            .any(|heartbeat| *heartbeat.beat.name == *name)
        {
            return None;
        }
        let beat = Arc::new(Beat {
            name: name.into(),
            period,
            registered: Instant::now(),
            last: AtomicU64::new(0),
        });
        heartbeats.push(Registered {
            beat: Arc::clone(&beat),
            previous: Pulse::Beating,
        });
        Some(Heartbeat(beat))
    }

    /// Returns the name of the first heartbeat whose worker panicked.
    pub(super) fn panicked(&self) -> Option<Arc<str>> {
        let heartbeats = lock(&self.0);
        let mut beats = heartbeats.iter().map(|heartbeat| &heartbeat.beat);
        let panicked = beats.find(|beat| beat.last.load(Relaxed) == PANICKED)?;
        Some(Arc::clone(&panicked.name))
    }

    /// Whether a heartbeat of this name has not finished.
    pub(super) fn contains(&self, name: &str) -> bool {
        let taken = |heartbeat: &Registered| {
            *heartbeat.beat.name == *name && heartbeat.beat.pulse() != Pulse::Finished
        };
        lock(&self.0).iter().any(taken)
    }

    /// Returns the pulse of each heartbeat, and the pulses that have changed since the last call.
    pub(super) fn pulses(&self) -> (Pulses, Pulses) {
        let (mut pulses, mut changed) = (Vec::new(), Vec::new());
        for Registered { beat, previous } in lock(&self.0).iter_mut() {
            let pulse = beat.pulse();
            pulses.push((Arc::clone(&beat.name), pulse));
            if mem::replace(previous, pulse) != pulse {
                changed.push((Arc::clone(&beat.name), pulse));
            }
        }
        (pulses, changed)
    }
}

pub(super) fn log(changed: &[(Arc<str>, Pulse)]) {
    for (name, pulse) in changed {
        match pulse {
            Pulse::Late => warn!(heartbeat = %name, "heartbeat late"),
            Pulse::Dropped => warn!(heartbeat = %name, "heartbeat dropped without finish()"),
            Pulse::Beating => info!(heartbeat = %name, "heartbeat recovered"),
            Pulse::Finished => info!(heartbeat = %name, "heartbeat finished"),
        }
    }
}
