//! What tests of whole programs share: the examples as programs, and servers that misbehave.
#![allow(
    dead_code,
    unreachable_pub,
    unused_macros,
    unused_imports,
    reason = "each test binary uses a part"
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

/// Nothing here takes that long; what does hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// The program of an example of this package, with the features that this test was built with.
pub fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build_examples).join(name)
}

/// The repository, whichever of its packages the test is in.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match env!("CARGO_PKG_NAME") {
        "lifesign" => package,
        _ => package.ancestors().nth(2).expect("it is in tests/"),
    }
}

/// Cargo's directory for what tests write, and which no test has to remove.
pub fn scratch() -> PathBuf {
    let scratch = target().join("tmp");
    create_dir_all(&scratch).expect("cargo's own directory can be made");
    scratch
}

/// Cargo's target directory, wherever it is.
pub fn target() -> PathBuf {
    profile()
        .parent()
        .expect("profiles are built in a directory")
        .to_owned()
}

/// TARGET/PROFILE of this test, which is TARGET/PROFILE/deps/probe-0123456789abcdef.
fn profile() -> PathBuf {
    let test = env::current_exe().expect("a running test has a path");
    test.ancestors()
        .nth(2)
        .expect("tests are built in deps")
        .to_owned()
}

/// Builds what `cargo test --test NAME` does not; after a plain `cargo test` there is nothing to do.
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

/// What a program that has ended leaves behind.
#[derive(Debug)]
pub struct Outcome {
    /// `None` after a signal, which is ours when `took` reaches [`DEADLINE`].
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs a program to its end, or kills it.
pub fn run(command: &mut Command) -> Outcome {
    start(command).finish()
}

/// Starts a program, for tests that meddle with it while it runs.
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

/// A program that was started. Dropping it ends it, so that a failed test leaves nothing behind.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    started: Instant,
}

impl Running {
    /// Waits for the program to end, or kills it.
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
        // Of one that has ended, neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream to its end, so that a full pipe holds nobody up.
fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error counts.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Starts a server on 127.0.0.1 that does this with its first connection, and takes no other.
pub fn serve(behaviour: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    serve_on(listener, behaviour)
}

/// The same on a listener of one's own.
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

/// Keeps other tests, of other processes too, from using the thing of that name at the same time:
/// what an example advertises is seen by all that run it.
#[must_use = "it lasts as long as the guard"]
pub fn exclusive(name: &str) -> File {
    let lock = File::create(scratch().join(format!("{name}.lock"))).expect("a lock can be made");
    lock.lock().expect("a lock can be waited for");
    lock
}
