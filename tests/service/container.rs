//! Isolates the processes of each test, as containers isolate services.
//!
//! The probe distinguishes containers by their mount namespace. As root on Linux, each test gets a
//! mount namespace. Elsewhere the tests run one after another, and tests that need namespaces or
//! other users print that they are skipped.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    ops::{Deref, Range},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Response, get},
    process::{AT_ONCE, POLL, Process, TIMEOUT, eventually},
    support::{Outcome, example, exclusive, run},
};

/// Environment variable for a drain delay longer than any test, so that only the test can end the
/// drain.
pub(crate) const LONG_DRAIN: (&str, &str) = ("DRAIN_SECONDS", "600");

pub(crate) fn assert_healthy(outcome: &Outcome, report: &str) {
    assert!(
        is_healthy(outcome, report),
        "expected healthy: {report}, not {outcome:?}"
    );
}

/// Whether a probe printed `healthy: pass in 0.4 ms` for the report `pass`, or
/// `healthy: warn in 0.4 ms: mail failed` for `warn: mail failed`, and nothing else.
pub(crate) fn is_healthy(outcome: &Outcome, report: &str) -> bool {
    let (status, reason) = report.split_at(report.find(':').unwrap_or(report.len()));
    let took = outcome
        .stdout
        .strip_prefix(&format!("healthy: {status} in "))
        .and_then(|rest| rest.strip_suffix(&format!(" ms{reason}\n")));
    (outcome.code, outcome.stderr.as_str()) == (Some(0), "")
        && took.is_some_and(|took| took.parse::<f64>().is_ok())
}

pub(crate) fn assert_unhealthy(outcome: &Outcome, reason: &str) {
    let line = outcome.stderr.split(" (GET http://").next();
    let line = line.map(|line| line.trim_end_matches('\n').to_owned());
    let expected = (Some(1), "", Some(format!("unhealthy: {reason}")));
    assert_eq!((outcome.code, &*outcome.stdout, line), expected);
}

pub(crate) fn assert_outcome(outcome: &Outcome, code: i32, stdout: &str, stderr: &str) {
    let all = (
        outcome.code,
        outcome.stdout.as_str(),
        outcome.stderr.as_str(),
    );
    assert_eq!(all, (Some(code), stdout, stderr));
}

/// Sends one SIGTERM. Asserts that every response during the drain reports "draining", and that the
/// port closes and the process exits after the drain delay.
pub(crate) fn assert_drains_for(service: Running<'_>, expected: Range<Duration>) {
    let signalled = Instant::now();
    service.signal("TERM");
    service.drains();
    let mut responded = signalled.elapsed();
    while let Ok(response) = get(service.address, "/health/ready") {
        assert_eq!(response.verdict(), "503 fail: draining");
        responded = signalled.elapsed();
        assert!(responded < expected.end, "the port is still open");
        thread::sleep(POLL);
    }
    let outcome = service.finish(AT_ONCE);
    let took = signalled.elapsed();

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    // The last response before the port closes can be early, because a busy machine polls rarely.
    // So the bound is half of the delay.
    assert!(
        responded >= expected.start / 2,
        "closed after {responded:?}"
    );
    assert!(expected.contains(&took), "exited after {took:?}");
}

/// The isolated environment of a test's processes, which stands for a container.
pub(crate) struct Container(pub(crate) Namespace);

pub(crate) enum Namespace {
    /// A mount namespace with its own `/dev/shm`, kept alive by `holder`.
    Own { holder: Child },
    /// The mount namespace of another process, and the PID namespace of its children.
    #[cfg(target_os = "linux")]
    Inside { process: u32 },
    /// The namespace of the test process. The locked files ensure that one test at a time uses it.
    Everyones { _turns: [File; 3] },
}

impl Container {
    pub(crate) fn new() -> Self {
        Self(
            Namespace::unshare("", &[]).unwrap_or_else(|_| Namespace::Everyones {
                _turns: ["hello", "service", "worker"].map(exclusive),
            }),
        )
    }

    /// Creates a command that runs `program` through a `wrapper` such as `setpriv`, without the
    /// environment variables that configure an example.
    pub(crate) fn command(&self, wrapper: &[&str], program: impl AsRef<OsStr>) -> Command {
        let mut words = self.0.entrance();
        words.extend(wrapper.iter().map(OsString::from));
        words.push(program.as_ref().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for name in [
            "DRAIN_SECONDS",
            "GREETING_FILE",
            "LIFESIGN_URL",
            "HEALTH_ADDRESS",
            "HOST",
            "NO_COLOR",
            "PORT",
            "READY_DURING_DRAIN",
            "REDIS",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn example(&self, name: &str) -> Command {
        self.command(&[], example(name))
    }

    pub(crate) fn service(&self, variables: &[(&str, &str)]) -> Running<'_> {
        let mut command = self.example("service");
        self.start("service", command.envs(variables.iter().copied()))
    }

    pub(crate) fn worker(&self) -> Running<'_> {
        self.start("worker", &mut self.example("worker"))
    }

    /// Starts an example on a free port, and returns when it responds.
    pub(crate) fn start(&self, name: &'static str, command: &mut Command) -> Running<'_> {
        command
            .env("PORT", "0")
            .env("HEALTH_ADDRESS", "127.0.0.1:0");
        let process = Process::spawn(command);
        let mut address: SocketAddr = eventually("the address is printed", TIMEOUT, || {
            let text = process.stdout.text();
            let line = text.split_inclusive('\n').next()?.strip_suffix('\n')?;
            line.rsplit(' ').next()?.parse().ok()
        });
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        eventually("the service lives", TIMEOUT, || {
            get(address, "/health/live").ok()
        });
        Running {
            container: self,
            name,
            address,
            process,
        }
    }
}

impl Namespace {
    /// Creates a namespace. The error is the reason why this is not possible on this machine.
    pub(crate) fn unshare(setup: &str, options: &[&str]) -> Result<Self, String> {
        let script = format!(
            "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && {} && echo ready && exec cat",
            if setup.is_empty() { "true" } else { setup }
        );
        let holder = Command::new("unshare")
            .arg("--mount")
            .args(options)
            .args(["--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut own = Self::Own { holder };
        let Self::Own { holder } = &mut own else {
            unreachable!("`own` is `Self::Own`");
        };
        let mut ready = String::new();
        let mut stdout = BufReader::new(holder.stdout.take().expect("stdout is piped"));
        match stdout.read_line(&mut ready) {
            Ok(1..) => Ok(own),
            _ => Err(format!(
                "not permitted here: unshare --mount {options:?}, {setup:?}"
            )),
        }
    }

    /// Returns the start of a command line that runs a program in this namespace.
    pub(crate) fn entrance(&self) -> Vec<OsString> {
        match self {
            Self::Own { holder } => {
                let id = holder.id();
                vec![
                    "nsenter".into(),
                    format!("--mount=/proc/{id}/ns/mnt").into(),
                    format!("--net=/proc/{id}/ns/net").into(),
                    "--".into(),
                ]
            }
            #[cfg(target_os = "linux")]
            Self::Inside { process } => vec![
                "nsenter".into(),
                format!("--mount=/proc/{process}/ns/mnt").into(),
                format!("--pid=/proc/{process}/ns/pid_for_children").into(),
                "--".into(),
            ],
            Self::Everyones { .. } => Vec::new(),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Self::Own { holder } = self {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A running example.
pub(crate) struct Running<'c> {
    pub(crate) container: &'c Container,
    pub(crate) name: &'static str,
    /// The address at which the test reaches the example.
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

impl Running<'_> {
    pub(crate) fn get(&self, path: &str) -> Response {
        get(self.address, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a request for `/` in another thread, because the response may take long.
    pub(crate) fn visit(&self) -> thread::JoinHandle<io::Result<Response>> {
        let address = self.address;
        thread::spawn(move || get(address, "/"))
    }

    /// Runs the example's `healthcheck` command, as a container engine does.
    pub(crate) fn healthcheck(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.container.example(self.name);
        if !cfg!(target_os = "linux") {
            command.env("PORT", self.address.port().to_string());
        }
        run(command.arg("healthcheck").args(arguments))
    }

    /// Waits until the service reports that it is draining, which must happen at once.
    pub(crate) fn drains(&self) {
        eventually("readiness fails", AT_ONCE, || {
            (self.get("/health/ready").verdict() == "503 fail: draining").then_some(())
        });
    }

    pub(crate) fn finish(self, within: Duration) -> Outcome {
        self.process.finish(within)
    }
}

impl Deref for Running<'_> {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
