//! Helpers for tests of whole programs: the examples as child processes, and hostile servers.
#![allow(
    dead_code,
    unreachable_pub,
    unused_macros,
    unused_imports,
    reason = "each test binary uses only some of the helpers, and tests/e2e makes them public"
)]

pub mod hostile;
pub mod scenarios;

use std::{
    env,
    fs::{File, create_dir_all},
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time limit for a program. The programs in these tests end much sooner.
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the path of an example's executable, which has the features `build` and `https` if the
/// calling test has them.
pub fn example(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(build_examples).join(name)
}

/// Returns the root directory of the repository, for tests of the crate and of `tests/e2e`.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match env!("CARGO_PKG_NAME") {
        "lifesign" => package,
        _ => package
            .ancestors()
            .nth(2)
            .expect("the package is in tests/"),
    }
}

/// Returns Cargo's directory for files of tests. Tests need not remove their files.
pub fn scratch() -> PathBuf {
    let scratch = target().join("tmp");
    create_dir_all(&scratch).expect("cargo's own directory can be made");
    scratch
}

/// Returns Cargo's target directory.
pub fn target() -> PathBuf {
    profile()
        .parent()
        .expect("profiles are built in a directory")
        .to_owned()
}

/// Returns the directory `TARGET/PROFILE`, from the path of the test's executable:
/// `TARGET/PROFILE/deps/probe-0123456789abcdef`.
fn profile() -> PathBuf {
    let test = env::current_exe().expect("a running test has a path");
    test.ancestors()
        .nth(2)
        .expect("tests are built in deps")
        .to_owned()
}

/// Builds the examples, because `cargo test --test NAME` does not. A plain `cargo test` has
/// already built them.
fn build_examples() -> PathBuf {
    let profile = profile();
    let profile_name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} is no profile", profile.display()),
    };
    let features = [
        ("build", cfg!(feature = "build")),
        ("https", cfg!(feature = "https")),
    ];
    let features = features.map(|(name, on)| if on { name } else { "" });
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--examples", "--manifest-path"])
        .arg(repository().join("Cargo.toml"))
        .args(["--profile", profile_name, "--target-dir"])
        .arg(target())
        .args(["--features", &features.join(" ")]);
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the examples do not build");
    profile.join("examples")
}

/// Exit code and output of a program.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code, or `None` if a signal ended the program. If `took` reaches [`DEADLINE`], the
    /// signal is the SIGKILL from [`Running::finish`].
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs a program until it exits, or kills it at the [`DEADLINE`].
pub fn run(command: &mut Command) -> Outcome {
    start(command).finish()
}

/// Starts a program, for tests that signal it or close its streams while it runs.
pub fn start(command: &mut Command) -> Running {
    let started = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Running { child, started }
}

/// A running program. Dropping it kills the program, so that no program outlives a failed test.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    started: Instant,
}

impl Running {
    /// Waits until the program exits, or kills it at the [`DEADLINE`].
    pub fn finish(mut self) -> Outcome {
        let stdout = collect(self.child.stdout.take());
        let stderr = collect(self.child.stderr.take());
        let ended = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if self.started.elapsed() < DEADLINE => {
                    thread::sleep(Duration::from_millis(1));
                }
                None => {
                    self.child.kill().expect("a running child can be killed");
                    break self.child.wait().expect("a killed child ends");
                }
            }
        };
        let took = self.started.elapsed();
        let text = |stream: JoinHandle<Vec<u8>>| {
            let bytes = stream.join().expect("reading does not panic");
            String::from_utf8(bytes).expect("programs print UTF-8")
        };
        Outcome {
            code: ended.code(),
            stdout: text(stdout),
            stderr: text(stderr),
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors are ignored, because the program may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream to its end in another thread, so that the program never blocks on a full pipe.
fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // Errors are ignored, and the bytes before the error are kept.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Starts a server on 127.0.0.1 that stops listening when it has accepted one connection.
pub fn serve(behaviour: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    serve_on(listener, behaviour)
}

/// Serves one connection of a given listener, as [`serve`] does.
pub fn serve_on(
    listener: TcpListener,
    behaviour: impl FnOnce(TcpStream) + Send + 'static,
) -> SocketAddr {
    let address = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            drop(listener);
            behaviour(stream);
        }
    });
    address
}

/// Locks a name across all test processes. Without the lock, tests that run the same example would
/// see each other's advertisement.
#[must_use = "the lock is released when the file is dropped"]
pub fn exclusive(name: &str) -> File {
    let lock = File::create(scratch().join(format!("{name}.lock"))).expect("a lock can be made");
    lock.lock().expect("a lock can be waited for");
    lock
}
