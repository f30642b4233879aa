//! Child processes whose output can be read while they run, and a helper that waits for events.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::support::Outcome;

/// Time limit for events that are certain to happen, even on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Time limit for events that must happen at once.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// Polling interval.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Polls `request` until it returns a result. Panics after the time limit.
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut request: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = request() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        thread::sleep(POLL);
    }
}

/// A child process, killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) started: Instant,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Stream::follow(child.stdout.take().expect("stdout is piped"));
        let stderr = Stream::follow(child.stderr.take().expect("stderr is piped"));
        Self {
            child,
            started: Instant::now(),
            stdout,
            stderr,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        // `kill` is the shell's builtin, because not every system has a program of that name.
        let id = self.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$0" "$1""#, name, &id])
            .status();
        assert!(sent.expect("a shell").success(), "SIG{name} to {id}");
    }

    /// Sends a signal again, late enough not to be taken for a repetition of the previous signal.
    pub(crate) fn signal_again(&self, name: &str) {
        thread::sleep(Duration::from_millis(120));
        self.signal(name);
    }

    /// Waits for the process to exit.
    pub(crate) fn finish(mut self, within: Duration) -> Outcome {
        let code = eventually("the process ends", within, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        let took = self.started.elapsed();
        eventually("its output ends", TIMEOUT, || {
            (self.stdout.reader.is_finished() && self.stderr.reader.is_finished()).then_some(())
        });
        Outcome {
            code: code.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output that a process has written so far.
pub(crate) struct Stream {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    pub(crate) reader: thread::JoinHandle<()>,
}

impl Stream {
    pub(crate) fn follow(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                lock(&ours).extend_from_slice(&chunk[..length]);
            }
        });
        Self { bytes, reader }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

/// A directory that is removed when dropped.
pub(crate) struct TemporaryDirectory(pub(crate) PathBuf);

impl TemporaryDirectory {
    pub(crate) fn new(name: &str) -> Self {
        let id = std::process::id();
        let path = env::temp_dir().join(format!("lifesign-test-{id}-{name}"));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo").success(), "mkfifo {path:?}");
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
