//! The programs of `program.rs` as processes.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::support::example;

/// For what happens soon: a machine under load is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// More than the time that anything takes that happens at once, and less than any drain that is
/// not to be waited for.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// A drain delay that no test waits for.
pub(crate) const LONG_DELAY: (&str, &str) = ("DRAIN_DELAY", "600000");

pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    log: Option<thread::JoinHandle<String>>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    /// Since the wait for it began.
    pub(crate) took: Duration,
    pub(crate) log: String,
}

impl Program {
    pub(crate) fn start(mode: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(example("lifecycle"))
            .arg(mode)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
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
            lines,
            log: Some(log),
        }
    }

    /// Starts a program, and waits until it listens.
    pub(crate) fn listening(mode: &str, environment: &[(&str, &str)]) -> (Self, SocketAddr) {
        let program = Self::start(mode, environment);
        let line = program.line();
        let address = line.strip_prefix("listening on ").map(str::parse);
        (program, address.expect(&line).expect("an address"))
    }

    /// Waits for the next line on stdout.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.signals(&[signal]);
    }

    /// Sends signals as fast as a process can.
    pub(crate) fn signals(&self, signals: &[&str]) {
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

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn end(mut self) -> End {
        let started = Instant::now();
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended");
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

/// Sends a request on a connection of its own, and reads until the server closes it.
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
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Waits until the service says that it drains.
pub(crate) fn drains(address: SocketAddr) {
    eventually("it drains", || {
        let response = get(address, "/health").ok()?;
        response.contains("draining").then_some(())
    });
}

pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
