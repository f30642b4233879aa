//! Servers that misbehave on purpose, and what the probe prints about each.
//!
//! The tables of scenarios are in `scenarios.rs`. `tests/probe` runs lifesign's probe against these
//! servers, and `tests/e2e/tests/peers.rs` runs curl, wget and others.

use std::{
    io::{self, Read, Write},
    iter,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

pub use Act::{Drip, Flood, HalfClose, Hold, Pause, Receive, Reply, Reset, Transmit};

/// Builds scenarios: each has a name, the server's behaviour, and the line that the probe prints.
/// In the line, `{peer}` stands for the server's address, `{timeout}` for the timeout, `{cause}`
/// for the likely cause of a 503 without a report, `#` for the elapsed time, and a final `…` for
/// any text.
macro_rules! cases {
    ($($name:literal: $stage:expr => $line:expr),+ $(,)?) => {
        [$($crate::support::hostile::case($name, $stage, $line)),+]
    };
}

pub(crate) use cases;

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub const HEALTHY: &str = "healthy: 200 in # ms";

pub const REPORT: &str =
    r#"{"status":"fail","output":"starting: waiting for postgres","checks":{}}"#;
pub const WAITING: &str = "unhealthy: 503 fail: starting: waiting for postgres";

/// Scenarios for which the probe keeps the same promise. The promise is the name of their test.
pub struct Table {
    pub pace: Pace,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The probe ends before its deadline, even if the server keeps the connection open.
    AtOnce,
    /// The probe ends at its deadline.
    AtTheDeadline,
}

pub fn at_once(cases: impl IntoIterator<Item = Case>) -> Table {
    Table {
        pace: Pace::AtOnce,
        cases: cases.into_iter().collect(),
    }
}

pub fn at_the_deadline(cases: impl IntoIterator<Item = Case>) -> Table {
    Table {
        pace: Pace::AtTheDeadline,
        ..at_once(cases)
    }
}

pub struct Case {
    pub name: String,
    pub stage: Stage,
    /// The line that the probe must print, before [`Scene::complete`] completes it. If the text has
    /// several lines, the probe must print one of them.
    pub line: String,
}

pub fn case(name: impl Into<String>, stage: impl Into<Stage>, line: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        stage: stage.into(),
        line: line.into(),
    }
}

/// The peer that the probe connects to in a scenario.
#[derive(Clone)]
pub enum Stage {
    /// A server on 127.0.0.1.
    Server(Vec<Act>),
    /// One port on 127.0.0.1 and on `::1`. On an address without acts, the port is closed.
    Localhost(Option<Vec<Act>>, Option<Vec<Act>>),
    /// A closed port.
    Closed,
    /// A listener that never accepts.
    Deaf,
    /// A listener whose backlog is full.
    Full,
}

impl From<Vec<Act>> for Stage {
    fn from(acts: Vec<Act>) -> Self {
        Self::Server(acts)
    }
}

impl<const N: usize> From<[Act; N]> for Stage {
    fn from(acts: [Act; N]) -> Self {
        Self::Server(acts.into())
    }
}

/// A step of the server's behaviour on a connection. The server closes the connection after the
/// last step.
#[derive(Clone)]
pub enum Act {
    /// Reads the request.
    Receive,
    /// Reads the request, and sends the response that the function returns.
    Reply(fn(&str) -> Vec<u8>),
    Transmit(Vec<u8>),
    /// Sends each byte in its own segment, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Sends the text repeatedly until the peer closes the connection.
    Flood(String),
    /// Waits until the peer closes the connection.
    Hold,
    Pause(Duration),
    /// Shuts down the sending side.
    HalfClose,
    /// Closes with a reset instead of a FIN.
    Reset,
}

/// Sends a response, and keeps the connection open although the request has `Connection: close`.
pub fn responds(response: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Receive, send(response), Hold]
}

/// Sends a text before it has received a request.
pub fn greets(greeting: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![send(greeting), Hold]
}

pub fn send(bytes: impl Into<Vec<u8>>) -> Act {
    Transmit(bytes.into())
}

pub fn drip(text: &str, milliseconds: u64) -> Act {
    Drip(text.into(), Duration::from_millis(milliseconds))
}

pub fn pause(milliseconds: u64) -> Act {
    Pause(Duration::from_millis(milliseconds))
}

pub fn response(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Returns the line that the probe prints if the first bytes from the peer are not HTTP/1.
pub fn foreign(start: &str) -> String {
    format!("unhealthy: not HTTP/1: the server sent \"{start}\"")
}

/// Returns the line that the probe prints about a redirect.
pub fn redirected(redirect: &str) -> String {
    format!("unhealthy: {redirect}: not followed, merge the routes after the layer that redirects")
}

pub fn perform(acts: &[Act], mut stream: TcpStream) {
    // Errors end the steps and are ignored, because the peer may close at any time.
    let _ = acts.iter().try_for_each(|act| act.perform(&mut stream));
}

impl Act {
    fn perform(&self, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Receive => drop(read_request(stream)),
            Reply(response) => {
                let request = read_request(stream);
                stream.write_all(&response(&request))?;
            }
            Transmit(bytes) => stream.write_all(bytes)?,
            Drip(bytes, pause) => {
                stream.set_nodelay(true)?;
                for byte in bytes {
                    stream.write_all(&[*byte])?;
                    thread::sleep(*pause);
                }
            }
            Flood(text) => loop {
                stream.write_all(text.as_bytes())?;
            },
            Hold => drop(io::copy(stream, &mut io::sink())),
            Pause(time) => thread::sleep(*time),
            HalfClose => stream.shutdown(Shutdown::Write)?,
            Reset => SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?,
        }
        Ok(())
    }
}

/// Reads a request head up to the empty line, or to the end of the stream.
pub fn read_request(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("requests are ASCII")
}

/// A running scenario. Dropping it closes the listening sockets. A server thread ends when the
/// probe disconnects.
pub struct Scene {
    /// The URL to probe, without a path: `http://127.0.0.1:40123`.
    pub url: String,
    /// The peer's name in the probe's output.
    pub peer: String,
    /// The address of the server that responds.
    server: SocketAddr,
    connections: Arc<AtomicUsize>,
    sockets: Vec<Socket>,
}

impl Scene {
    /// Starts the servers of a scenario. Returns `None` if the scenario needs IPv6 and this machine
    /// has no IPv6.
    pub fn set(stage: &Stage) -> Option<Self> {
        let mut scene = Self {
            url: String::new(),
            peer: String::new(),
            server: (Ipv4Addr::LOCALHOST, 0).into(),
            connections: Arc::default(),
            sockets: Vec::new(),
        };
        let socket = match stage {
            Stage::Server(acts) => scene.serve(closed(), acts),
            Stage::Closed => closed(),
            Stage::Deaf => listener(),
            Stage::Full => {
                let (listener, queue) = full_backlog();
                scene.sockets.extend(queue.into_iter().map(Socket::from));
                listener
            }
            Stage::Localhost(v4, v6) => {
                let (first, second) = closed_pair()?;
                let port = address_of(&first).port();
                scene.url = format!("http://localhost:{port}");
                scene.peer = format!("127.0.0.1:{port} or [::1]:{port}");
                scene.server = address_of(if v4.is_some() { &first } else { &second });
                for (socket, acts) in [(first, v4), (second, v6)] {
                    let socket = match acts {
                        Some(acts) => scene.serve(socket, acts),
                        None => socket,
                    };
                    scene.sockets.push(socket);
                }
                return Some(scene);
            }
        };
        scene.server = address_of(&socket);
        scene.peer = scene.server.to_string();
        scene.url = format!("http://{}", scene.peer);
        scene.sockets.push(socket);
        Some(scene)
    }

    /// Completes the line of a [`Case`]: replaces `{peer}` and `{cause}`, and appends the request,
    /// unless the probe cannot connect or the end of the line is cut off.
    pub fn complete(&self, line: &str) -> String {
        let cause = "not a health report, but from a layer or another server";
        let line = line.replace("{peer}", &self.peer).replace("{cause}", cause);
        let is_whole = line.starts_with("unhealthy: ")
            && !line.starts_with("unhealthy: connect to ")
            && !line.ends_with('…')
            && !line.ends_with("...");
        match is_whole {
            true => format!("{line} (GET http://{}/health)", self.server),
            false => line,
        }
    }

    /// Returns the number of connections that the servers have accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Accepts connections, and performs the steps on each.
    fn serve(&self, socket: Socket, acts: &[Act]) -> Socket {
        socket.listen(8).expect("a bound socket can listen");
        let listener = socket.try_clone().expect("a socket can be cloned");
        let listener = TcpListener::from(listener);
        let (acts, connections) = (acts.to_vec(), Arc::clone(&self.connections));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                connections.fetch_add(1, Ordering::Relaxed);
                let acts = acts.clone();
                thread::spawn(move || perform(&acts, stream));
            }
        });
        socket
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // The shutdown wakes the thread that is blocked in `accept`.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

pub fn listener() -> Socket {
    let socket = closed();
    socket.listen(8).expect("a bound socket can listen");
    socket
}

/// Returns a socket that is bound but does not listen. Connections are refused, and no other
/// process can take the port.
pub fn closed() -> Socket {
    bound((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free")
}

/// Returns two sockets that are bound to the same port of 127.0.0.1 and `::1` but do not listen,
/// or `None` without IPv6.
pub fn closed_pair() -> Option<(Socket, Socket)> {
    for _ in 0..100 {
        let v6 = bound((Ipv6Addr::LOCALHOST, 0).into()).ok()?;
        if let Ok(v4) = bound((Ipv4Addr::LOCALHOST, address_of(&v6).port()).into()) {
            return Some((v4, v6));
        }
    }
    panic!("no port is free on both loopback addresses");
}

pub fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

pub fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().expect("a bound socket has an address");
    address.as_socket().expect("the socket has an IP address")
}

/// Returns a listener whose backlog is full, and the connections that fill the backlog.
pub fn full_backlog() -> (Socket, Vec<TcpStream>) {
    let listener = closed();
    let queue = fill_backlog(&listener);
    (listener, queue)
}

/// Listens on a socket, and returns the connections that fill its backlog.
pub fn fill_backlog(socket: &Socket) -> Vec<TcpStream> {
    socket.listen(0).expect("a bound socket can listen");
    let address = address_of(socket);
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    iter::from_fn(connect).collect()
}
