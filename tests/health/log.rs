//! The log messages of checks, and a log whose writer blocks.

use std::{
    io,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use axum::{body::to_bytes, http::Method};
use lifesign::{Probe, Status};
use tokio::time::sleep;

use crate::service::{Dependency, ROUTES, SECRET, builder, fetch, next_second, send};

#[tokio::test(start_paused = true)]
async fn error_texts_are_only_logged_and_once_per_change() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish(),
    );
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    for broken in [true, true, true, false, false, true] {
        db.set_broken(broken);
        for path in ROUTES {
            let response = send(health.routes(), Method::GET, path).await;
            let head = format!("{:?}", response.headers());
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(!(head + &body).contains("hunter2"), "{path}");
        }
        next_second().await;
    }
    let log = log.text();
    assert_eq!(log.matches("check failed").count(), 2, "{log}");
    assert_eq!(log.matches(SECRET).count(), 2, "{log}");
    assert_eq!(log.matches("check recovered").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_logged_with_its_message_and_duration() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(log.clone())
            .finish(),
    );
    let health = builder()
        .required("slow", async || {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, io::Error>(())
        })
        .required("panics", async || -> io::Result<()> { panic!("no rows") })
        .optional("formats", async || -> io::Result<()> { panic!("{SECRET}") })
        .build()
        .unwrap();

    let report = health.report(Probe::Readiness).await;

    let durations: Vec<_> = report.checks().map(|check| check.duration).collect();
    let none = Duration::ZERO;
    assert_eq!(durations, [Duration::from_millis(500), none, none]);
    let log = log.text();
    for message in ["no rows", SECRET] {
        let error = format!("took=0ns error=\"panicked: {message}\"");
        assert!(log.contains(&error), "{log}");
    }
}

#[tokio::test]
async fn a_blocked_log_does_not_delay_workers() {
    let log = BlockedLog::default();
    let entered = Arc::clone(&log.entered);
    let health = builder().build().unwrap();
    drop(health.heartbeat("dies", Duration::MAX).unwrap());
    let first = health.clone();
    let prober = thread::spawn(move || in_runtime(log, first.report(Probe::Liveness)).status());
    entered.wait();

    // The prober's thread is blocked in its log now, so it would still hold any lock that it held
    // while logging.
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = health.clone();
    thread::spawn(move || sender.send(other.heartbeat("lives", Duration::MAX)));
    let heartbeat = receiver.recv_timeout(Duration::from_secs(5));

    entered.wait();
    assert_eq!(prober.join().unwrap(), Status::Fail);
    heartbeat.expect("no lock is held").unwrap().finish();
}

#[tokio::test]
async fn a_blocked_log_does_not_delay_responses() {
    let log = BlockedLog::default();
    let entered = Arc::clone(&log.entered);
    let health = builder()
        .required("down", async || Err::<(), _>("down"))
        .optional("well", async || Ok::<_, io::Error>(()))
        .build()
        .unwrap();
    health.set_ready();
    let first = health.clone();
    let prober = thread::spawn(move || in_runtime(log, first.report(Probe::Readiness)).status());
    entered.wait();

    // The prober's thread is blocked in its log, but the evaluation that it ran has ended.
    let (code, body) = fetch(&health, "/health/ready").await;

    entered.wait();
    assert_eq!(prober.join().unwrap(), Status::Fail);
    assert_eq!(code, 503);
    assert_eq!(body["checks"]["down:responseTime"][0]["status"], "fail");
    assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
}

/// Runs a future on a new runtime, and writes its log to `log`.
fn in_runtime<T>(log: BlockedLog, future: impl Future<Output = T>) -> T {
    let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A log whose first write blocks until the test releases it.
#[derive(Clone)]
struct BlockedLog {
    entered: Arc<Barrier>,
    blocks: Arc<AtomicBool>,
}

impl Default for BlockedLog {
    fn default() -> Self {
        Self {
            entered: Arc::new(Barrier::new(2)),
            blocks: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl io::Write for BlockedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.blocks.swap(false, SeqCst) {
            self.entered.wait();
            self.entered.wait();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
