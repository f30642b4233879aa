//! Runs the programs of `program.rs` as child processes.

use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::support::example;

/// Time limit for events that are certain to happen, even on a busy machine.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Time limit for events that must happen at once. Shorter than the drain delay in each test that
/// expects the delay to be skipped.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// Environment variable for a drain delay of ten minutes, which is longer than any test.
pub(crate) const LONG_DELAY: (&str, &str) = ("DRAIN_DELAY", "600000");

pub(crate) struct Program {
    child: Child,
    signalled: Cell<Option<Instant>>,
    lines: Receiver<String>,
    log: Option<thread::JoinHandle<String>>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    /// Time since the last signal. Without a signal, the time since `end` was called.
    pub(crate) took: Duration,
    pub(crate) log: String,
}

impl Program {
    pub(crate) fn start(mode: &str, environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(example("lifecycle")).arg(mode), environment)
    }

    /// Starts a program in a terminal, which `script` of util-linux provides.
    #[cfg(target_os = "linux")]
    pub(crate) fn in_terminal(mode: &str, environment: &[(&str, &str)]) -> (Self, SocketAddr) {
        // `exec` replaces the shell that `script` starts. Otherwise Ctrl-C would end the shell too,
        // and `script` would return the shell's exit code.
        let command = format!("exec {} {mode}", example("lifecycle").display());
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &command,
            "/dev/null",
        ]);
        let program = Self::spawn(&mut script, environment);
        let address = program.address();
        eventually("the service responds", || get(address, "/health").ok());
        (program, address)
    }

    /// Types Ctrl-C in the program's terminal.
    #[cfg(target_os = "linux")]
    pub(crate) fn interrupt(&mut self) {
        self.signalled.set(Some(Instant::now()));
        let terminal = self.child.stdin.as_mut().expect("a pipe");
        terminal.write_all(b"\x03").expect("a terminal");
    }

    pub(crate) fn spawn(command: &mut Command, environment: &[(&str, &str)]) -> Self {
        let mut child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut stderr = child.stderr.take().expect("a pipe");
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let log = thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        Self {
            child,
            signalled: Cell::default(),
            lines,
            log: Some(log),
        }
    }

    /// Starts a program, and waits until it accepts connections.
    pub(crate) fn listening(mode: &str, environment: &[(&str, &str)]) -> (Self, SocketAddr) {
        let program = Self::start(mode, environment);
        let address = program.address();
        if mode.starts_with("serve") || mode == "pieces" {
            // These programs print the line with the address before they have signal handlers or
            // are ready.
            eventually("the service responds", || get(address, "/health").ok());
        }
        (program, address)
    }

    /// Waits for the line `listening on ADDRESS`, and returns the address.
    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.line();
        let address = line.trim_end().strip_prefix("listening on ");
        address.expect(&line).parse().expect("an address")
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stdout that contains `text`.
    #[cfg(target_os = "linux")]
    pub(crate) fn line_with(&self, text: &str) -> String {
        std::iter::repeat_with(|| self.line())
            .find(|line| line.contains(text))
            .expect("a line")
    }

    /// Waits for the next line on stdout.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(EVENT_TIMEOUT).expect("a line")
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.signals(&[signal]);
    }

    /// Sends signals in quick succession, from one shell.
    pub(crate) fn signals(&self, signals: &[&str]) {
        self.signalled.set(Some(Instant::now()));
        let pid = self.child.id();
        let script = signals
            .iter()
            .map(|signal| format!("kill -{signal} {pid};"));
        let sent = Command::new("sh")
            .arg("-c")
            .arg(script.collect::<String>())
            .status();
        assert!(sent.expect("sh runs").success());
    }

    pub(crate) fn end(mut self) -> End {
        let started = self.signalled.get().unwrap_or_else(Instant::now);
        let status = self.wait();
        let took = started.elapsed();
        let log = self.log.take().expect("one end").join();
        End {
            code: status.code(),
            took,
            log: log.expect("no panic"),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + EVENT_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program is still running");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request on a new connection, and reads until the server closes the connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, EVENT_TIMEOUT)?;
    stream.set_read_timeout(Some(EVENT_TIMEOUT))?;
    Ok(stream)
}

/// Waits until `/health` reports that the service is draining.
pub(crate) fn drains(address: SocketAddr) {
    eventually("the service drains", || {
        let response = get(address, "/health").ok()?;
        response.contains("draining").then_some(())
    });
}

pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + EVENT_TIMEOUT;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
