//! The services have the same commands, routes and life cycle.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Time limit for events that are certain to happen, even on a busy machine.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The default drain delay.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// Maximum time from the signal to the end: the default drain delay, the default shutdown timeout,
/// and 1 s for a busy machine.
const END: Duration = Duration::from_secs(5 + 4 + 1);

#[test]
fn actix_has_the_whole_life_cycle() {
    has_the_whole_life_cycle(env!("CARGO_BIN_EXE_actix"));
}

#[test]
fn axum_0_7_has_the_whole_life_cycle() {
    has_the_whole_life_cycle(env!("CARGO_BIN_EXE_axum07"));
}

#[test]
fn poem_has_the_whole_life_cycle() {
    has_the_whole_life_cycle(env!("CARGO_BIN_EXE_poem"));
}

#[test]
fn hyper_has_the_whole_life_cycle() {
    has_the_whole_life_cycle(env!("CARGO_BIN_EXE_hyper"));
}

fn has_the_whole_life_cycle(app: &str) {
    let mut service = Service::start(app);
    let address = service.address;

    let probe = healthcheck(app);
    let line = String::from_utf8_lossy(&probe.stdout);
    assert!(line.starts_with("healthy: pass in "), "{probe:?}");
    assert_eq!(probe.status.code(), Some(0));
    for path in ["/health", "/health/ready", "/health/live"] {
        let response = get(address, path).expect("a response");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert_has_the_headers(&response);
        let body = response.split("\r\n\r\n").nth(1).expect("a body");
        assert!(body.starts_with(r#"{"status":"pass","#), "{body}");
    }
    let response = request(address, "HEAD", "/health").expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n"), "{response}");

    // One client has sent half of its body, one keeps its connection, and one never sends the rest
    // of its head.
    let mut slow = connect(address).expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n";
    write!(slow, "{head}wo").expect("half a request");
    let mut kept = connect(address).expect("a connection");
    let whole = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    kept.write_all(whole.as_bytes()).expect("a request");
    let mut response = [0; 12];
    kept.read_exact(&mut response).expect("a response");
    assert_eq!(&response, b"HTTP/1.1 200");
    let mut half = connect(address).expect("a connection");
    half.write_all(b"GET / HT").expect("half a head");

    let signalled = Instant::now();
    service.signal("TERM");
    eventually("readiness fails", || {
        let response = get(address, "/health/ready").expect("the port is open");
        response.starts_with("HTTP/1.1 503 ").then(|| {
            assert_has_the_headers(&response);
            assert!(response.contains(r#""output":"draining""#), "{response}");
        })
    });
    let live = get(address, "/health/live").expect("a response");
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n"), "{live}");
    let probe = healthcheck(app);
    let line = String::from_utf8_lossy(&probe.stderr);
    assert!(line.starts_with("unhealthy: 503 fail: draining "), "{line}");
    assert_eq!(probe.status.code(), Some(1));
    // The service closes a kept connection after its next response, so this reads to the end.
    kept.write_all(whole.as_bytes()).expect("a request");
    let mut response = String::new();
    kept.read_to_string(&mut response).expect("a response");
    let response = response.to_ascii_lowercase();
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");

    eventually("the port closes", || connect(address).err());
    assert!(signalled.elapsed() >= DRAIN_DELAY);
    slow.write_all(b"rld").expect("the rest");
    let mut response = String::new();
    slow.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("hello world\n"), "{response}");
    let end = eventually("it ends", || service.child.try_wait().expect("a child"));
    assert_eq!(end.code(), Some(0));
    assert!(signalled.elapsed() < END, "{:?}", signalled.elapsed());
    drop(half);
}

#[track_caller]
fn assert_has_the_headers(response: &str) {
    let head = response.split("\r\n\r\n").next().expect("a head");
    let head = head.to_ascii_lowercase();
    for header in [
        "content-type: application/health+json",
        "cache-control: no-store",
        "lifesign-instance: ",
    ] {
        let lines = head.lines().filter(|line| line.starts_with(header));
        assert_eq!(lines.count(), 1, "{header}: {head}");
    }
}

/// A service in a child process, killed when dropped.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(app: &str) -> Self {
        let mut child = Command::new(app)
            .env("ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.expect(&line).parse().expect("an address");
        Self { child, address }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn healthcheck(app: &str) -> Output {
    let mut probe = Command::new(app);
    probe.arg("healthcheck").env_remove("LIFESIGN_URL");
    probe.output().expect("a probe")
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    request(address, "GET", path)
}

fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, EVENT_TIMEOUT)?;
    stream.set_read_timeout(Some(EVENT_TIMEOUT))?;
    Ok(stream)
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + EVENT_TIMEOUT;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
