//! Servers that misbehave on purpose: what they do, where they do it, and what a probe makes of it.
//!
//! `scenarios.rs` has the tables. `tests/probe` puts our own probe through them, `tests/e2e/tests/peers.rs`
//! the programs that people use instead.
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

pub use Act::{Drip, Finish, Flood, Hear, Hold, Pause, Reply, Reset, Say};

/// Scenarios: a name, what the server does, and what the probe prints, in which `{peer}` stands for
/// the server's address, `{timeout}` for the deadline, `#` for the time that it took, and `…` at the
/// end for anything.
macro_rules! cases {
    ($($name:literal: $stage:expr => $line:expr),+ $(,)?) => {
        [$($crate::support::hostile::case($name, $stage, $line)),+]
    };
}

pub(crate) use cases;

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub const HEALTHY: &str = "healthy: 200 in # ms";

pub const REPORT: &str =
    r#"{"status":"fail","output":"starting, waiting for postgres","checks":{}}"#;
pub const WAITING: &str = "unhealthy: 503 fail: starting, waiting for postgres";

/// What one test promises of all its scenarios.
pub struct Table {
    pub pace: Pace,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The verdict is known at once, whatever the server does next.
    AtOnce,
    /// Nothing but the deadline ends it.
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
    /// Of several lines, either.
    pub line: String,
}

pub fn case(name: impl Into<String>, stage: impl Into<Stage>, line: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        stage: stage.into(),
        line: line.into(),
    }
}

/// Where a scenario takes place, and who is there.
#[derive(Clone)]
pub enum Stage {
    /// A server on 127.0.0.1.
    Server(Vec<Act>),
    /// The same port of `localhost` on IPv4 and on IPv6; where there are no acts nobody listens.
    Localhost(Option<Vec<Act>>, Option<Vec<Act>>),
    /// Nobody listens.
    Closed,
    /// Somebody listens, and never accepts.
    Deaf,
    /// And the queue of those who wait for it is full.
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

/// What a server does with a connection. After the last act it closes.
#[derive(Clone)]
pub enum Act {
    /// Reads the request.
    Hear,
    /// Reads the request, and answers what this makes of it.
    Reply(fn(&str) -> Vec<u8>),
    Say(Vec<u8>),
    /// Sends each byte in a segment of its own, and pauses after it.
    Drip(Vec<u8>, Duration),
    /// Sends it again and again until the peer has gone.
    Flood(String),
    /// Waits until the peer has gone.
    Hold,
    Pause(Duration),
    /// Says that it will send no more.
    Finish,
    /// Makes the end an abort.
    Reset,
}

/// Answers and, though it was asked not to, keeps the connection open.
pub fn says(answer: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Hear, say(answer), Hold]
}

/// Speaks before it was spoken to.
pub fn speaks(greeting: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![say(greeting), Hold]
}

pub fn say(bytes: impl Into<Vec<u8>>) -> Act {
    Say(bytes.into())
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

/// The line about a peer that sent this.
pub fn foreign(start: &str) -> String {
    format!("unhealthy: {{peer}} does not speak HTTP/1: it sent \"{start}\"")
}

/// The line about a redirect.
pub fn redirected(redirect: &str) -> String {
    format!("unhealthy: {redirect}: not followed, probe that URL instead")
}

pub fn perform(acts: &[Act], mut stream: TcpStream) {
    // That the peer has gone is the end, not a failure.
    let _ = acts.iter().try_for_each(|act| act.perform(&mut stream));
}

impl Act {
    fn perform(&self, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Hear => drop(read_request(stream)),
            Reply(answer) => {
                let request = read_request(stream);
                stream.write_all(&answer(&request))?;
            }
            Say(bytes) => stream.write_all(bytes)?,
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
            Finish => stream.shutdown(Shutdown::Write)?,
            Reset => SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?,
        }
        Ok(())
    }
}

/// Reads to the empty line, or to the end.
pub fn read_request(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("requests are ASCII")
}

/// A stage that is set. Dropping it takes the sockets away; servers end with their peers.
pub struct Scene {
    /// Without a path: `http://127.0.0.1:40123`.
    pub url: String,
    /// How the probe names whom it asked.
    pub peer: String,
    connections: Arc<AtomicUsize>,
    sockets: Vec<Socket>,
}

impl Scene {
    /// `None` where there is no IPv6 and it is needed.
    pub fn set(stage: &Stage) -> Option<Self> {
        let mut scene = Self {
            url: String::new(),
            peer: String::new(),
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
        scene.peer = address_of(&socket).to_string();
        scene.url = format!("http://{}", scene.peer);
        scene.sockets.push(socket);
        Some(scene)
    }

    /// How often a server was connected to.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Does the same with every connection.
    fn serve(&self, socket: Socket, acts: &[Act]) -> Socket {
        socket.listen(8).expect("a bound socket can listen");
        let listener = socket.try_clone().expect("descriptors are left");
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
            // What waits to accept wakes up.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

pub fn listener() -> Socket {
    let socket = closed();
    socket.listen(8).expect("a bound socket can listen");
    socket
}

/// A port where nobody listens, and nobody else can: it is taken.
pub fn closed() -> Socket {
    bound((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free")
}

/// The same port on both loopback addresses, closed; `None` without IPv6.
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
    address
        .as_socket()
        .expect("it is an address of the internet")
}

/// A listener whose queue of connections is full, and who stands in it.
pub fn full_backlog() -> (Socket, Vec<TcpStream>) {
    let listener = closed();
    listener.listen(0).expect("a bound socket can listen");
    let address = address_of(&listener);
    let enter = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let queue = iter::from_fn(enter).collect();
    (listener, queue)
}
