//! A constant load of requests, and the count of their responses.
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time limit for a connection attempt and for each read.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The method of a client's requests. The service responds to a POST with 405, which counts as a
/// success. A POST is tested because a proxy must not repeat it on another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
}

/// Clients that request `/` again and again until [`stop`](Self::stop).
pub struct Load {
    stop: Arc<AtomicBool>,
    counted: Arc<Counted>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counted {
    kept: AtomicU64,
    fresh: AtomicU64,
    posts: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// Numbers of requests by kind, and the failures.
pub struct Tally {
    /// Requests on reused connections.
    pub kept: u64,
    /// Requests on new connections.
    pub fresh: u64,
    /// POST requests, on reused and on new connections.
    pub posts: u64,
    /// The time and the error of each failure.
    pub failed: Vec<String>,
}

impl Load {
    /// Starts ten clients, which send about 500 requests a second: four that keep their connection,
    /// four that do not, and one more of each kind that sends POSTs.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counted = Arc::new(Counted::default());
        let started = Instant::now();
        let clients = (0..10).map(|client| {
            let (stop, counted) = (Arc::clone(&stop), Arc::clone(&counted));
            let keeps = client % 2 == 0;
            let method = if client < 8 {
                Method::Get
            } else {
                Method::Post
            };
            thread::spawn(move || {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let kept = connection.is_some();
                    let how = match (method, request(address, &mut connection, method, keeps)) {
                        (Method::Get, Ok(200)) | (Method::Post, Ok(405)) => None,
                        (_, Ok(status)) => Some(status.to_string()),
                        (_, Err(error)) => Some(error.to_string()),
                    };
                    if let Some(how) = how {
                        counted.failure(started, method, kept, &how);
                    }
                    let counter = if kept { &counted.kept } else { &counted.fresh };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if method == Method::Post {
                        counted.posts.fetch_add(1, Ordering::Relaxed);
                    }
                    // The pause limits the load, because a saturated machine would delay the
                    // probes.
                    thread::sleep(Duration::from_millis(20));
                }
            })
        });
        Self {
            clients: clients.collect(),
            stop,
            counted,
        }
    }

    pub fn failed(&self) -> usize {
        self.counted.failed.lock().unwrap().len()
    }

    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        Tally {
            kept: self.counted.kept.load(Ordering::Relaxed),
            fresh: self.counted.fresh.load(Ordering::Relaxed),
            posts: self.counted.posts.load(Ordering::Relaxed),
            failed: std::mem::take(&mut *self.counted.failed.lock().unwrap()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kept,
            fresh,
            posts,
            failed,
        } = self;
        write!(
            f,
            "{kept} requests on kept connections, {fresh} on fresh ones, {posts} of them POSTs, {} failed",
            failed.len()
        )?;
        for failure in failed.iter().take(5).chain(failed.last()) {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

impl Counted {
    fn failure(&self, started: Instant, method: Method, kept: bool, how: &str) {
        let at = started.elapsed();
        let connection = if kept { "kept" } else { "fresh" };
        let failure = format!("after {at:.1?}, {method:?}, {connection} connection: {how}");
        self.failed.lock().unwrap().push(failure);
    }
}

/// Sends one request and returns the status code of the complete response.
fn request(
    address: SocketAddr,
    connection: &mut Option<BufReader<TcpStream>>,
    method: Method,
    keep: bool,
) -> io::Result<u16> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let close = if keep { "" } else { "Connection: close\r\n" };
    // The POST has no body, because hyper closes the connection if no handler reads the body.
    let (method, length) = match method {
        Method::Get => ("GET", ""),
        Method::Post => ("POST", "Content-Length: 0\r\n"),
    };
    let request = format!("{method} / HTTP/1.1\r\nHost: test\r\n{length}{close}\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut head = Head::default();
    let mut line = String::new();
    while head.read(&mut stream, &mut line)? {}
    head.skip_body(&mut stream)?;
    if keep && !head.closes {
        *connection = Some(stream);
    }
    Ok(head.status)
}

#[derive(Default)]
struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    closes: bool,
}

impl Head {
    /// Reads a line of the head. Returns false at the end of the head.
    fn read(&mut self, stream: &mut impl BufRead, line: &mut String) -> io::Result<bool> {
        line.clear();
        if stream.read_line(line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before the end of the head",
            ));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(status) = line.strip_prefix("http/1.1 ") {
            self.status = status[..3].parse().map_err(io::Error::other)?;
        } else if let Some(length) = line.strip_prefix("content-length: ") {
            self.length = Some(length.parse().map_err(io::Error::other)?);
        }
        self.chunked |= line == "transfer-encoding: chunked";
        self.closes |= line == "connection: close";
        Ok(!line.is_empty())
    }

    fn skip_body(&self, stream: &mut impl BufRead) -> io::Result<()> {
        if self.chunked {
            return loop {
                let mut size = String::new();
                stream.read_line(&mut size)?;
                let size = u64::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
                skip(stream, size + 2)?;
                if size == 0 {
                    break Ok(());
                }
            };
        }
        match self.length {
            Some(length) => skip(stream, length),
            None => io::copy(stream, &mut io::sink()).map(drop),
        }
    }
}

fn skip(stream: &mut impl BufRead, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut stream.take(length), &mut io::sink())?;
    if skipped < length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed before the end of the body",
        ));
    }
    Ok(())
}
