//! Clients that send requests of zero to three seconds, and count the requests and the lost ones.

use std::{
    fmt,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Durations of the requests in milliseconds, in the order in which a client sends them.
const REQUESTS: [u64; 11] = [0, 3000, 20, 0, 100, 1000, 0, 300, 50, 2000, 0];

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Counted {
    stop: AtomicBool,
    kept: AtomicU64,
    fresh: AtomicU64,
    lost: Mutex<Vec<String>>,
}

/// Clients that each send one request after another.
pub(crate) struct Load {
    counted: Arc<Counted>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests on connections that had a request before.
    pub(crate) kept: u64,
    /// Requests on new connections.
    pub(crate) fresh: u64,
    pub(crate) lost: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.fresh += other.fresh;
        self.lost.extend(other.lost);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, fresh, lost } = self;
        let count = lost.len();
        write!(
            f,
            "{kept} requests on kept connections, {fresh} on fresh ones, {count} lost"
        )?;
        lost.iter()
            .take(10)
            .try_for_each(|lost| write!(f, "\n  {lost}"))
    }
}

impl Load {
    /// Starts `clients` clients that keep their connection, and `clients` that open one per request.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let counted = Arc::<Counted>::default();
        let clients = (0..2 * clients).map(|number| {
            let counted = Arc::clone(&counted);
            let first = number * 3;
            thread::spawn(move || counted.ask(address, number % 2 == 0, first))
        });
        Self {
            clients: clients.collect(),
            counted,
        }
    }

    /// Waits until each client has stopped, because its connection was refused or `stop` was
    /// called.
    pub(crate) fn end(self) -> Tally {
        for client in self.clients {
            client.join().expect("no panic");
        }
        Tally {
            kept: self.counted.kept.load(Ordering::Relaxed),
            fresh: self.counted.fresh.load(Ordering::Relaxed),
            lost: std::mem::take(&mut *self.counted.lost.lock().expect("no panic")),
        }
    }

    pub(crate) fn stop(self) -> Tally {
        self.counted.stop.store(true, Ordering::Relaxed);
        self.end()
    }
}

impl Counted {
    fn ask(&self, address: SocketAddr, keeps: bool, first: usize) {
        let mut connection = None;
        for milliseconds in REQUESTS.iter().cycle().skip(first % REQUESTS.len()) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let kept = connection.is_some();
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => match connect(address) {
                    Ok(stream) => stream,
                    // The port is closed, so the request was not sent and is not lost.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                    Err(error) => {
                        self.lose(*milliseconds, "no connection", &error);
                        break;
                    }
                },
            };
            let count = if kept { &self.kept } else { &self.fresh };
            count.fetch_add(1, Ordering::Relaxed);
            let sent = Instant::now();
            match request(&mut stream, *milliseconds, keeps) {
                Ok(true) => connection = Some(stream),
                Ok(false) => {}
                Err(error) => {
                    let after = sent.elapsed();
                    let how = if kept { "kept" } else { "fresh" };
                    self.lose(
                        *milliseconds,
                        &format!("{how} connection, after {after:?}"),
                        &error,
                    );
                }
            }
        }
    }

    fn lose(&self, milliseconds: u64, how: &str, error: &io::Error) {
        let text = format!("{milliseconds} ms, {how}: {error}");
        self.lost.lock().expect("no panic").push(text);
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Sends one request and reads the response. Returns whether the connection can be used again.
fn request(stream: &mut BufReader<TcpStream>, milliseconds: u64, keeps: bool) -> io::Result<bool> {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let request = format!("GET /sleep/{milliseconds} HTTP/1.1\r\nHost: test\r\n{close}\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut closes, mut length) = (!keeps, 0);
    let mut status = String::new();
    read_line(stream, &mut status)?;
    let mut line = String::new();
    loop {
        line.clear();
        read_line(stream, &mut line)?;
        let lower = line.trim_end().to_ascii_lowercase();
        match lower.split_once(": ") {
            None => break,
            Some(("connection", value)) => closes |= value == "close",
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if body != format!("slept {milliseconds}\n").as_bytes() {
        return Err(io::Error::other(format!(
            "{status:?}, {:?}",
            String::from_utf8_lossy(&body)
        )));
    }
    Ok(!closes)
}

fn read_line(stream: &mut impl BufRead, line: &mut String) -> io::Result<()> {
    match stream.read_line(line)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
