//! Step 4b, ask: one request to the service, one deadline, one verdict.
//!
//! One blocking socket and nothing else, since this is what an engine executes every few seconds
//! in every container: no runtime, no resolver, no proxy, no redirect, no retry, no half-close
//! (hyper drops its answer to a peer that shut its side down).

mod summary;

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

pub(crate) use self::summary::Summary;
use crate::endpoint::{Endpoint, Place, Scheme};

/// Below the `--timeout=5s` of the reference HEALTHCHECK and ECS's default of 5 s, so that the
/// reason is printed before anyone kills the probe.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest head that is read. hyper sends less than 200 bytes, proxies accept 8 KiB.
const HEAD_MAX: usize = 16 * 1024;

/// More interim answers than that before the final one are no answer.
const INTERIM_MAX: u32 = 8;

/// How much of an answer is read at all.
const BODY_MAX: usize = 64 * 1024;

/// One read. A report with a dozen checks fits.
const CHUNK: usize = 2048;

/// What a request without headers of its own comes to, with room for the path.
const REQUEST: usize = 384;

/// One write. Every request without headers of extraordinary length fits.
const PIECE: usize = 16 * 1024;

/// A wait whose eighth is no longer to be neglected.
const LONG: Duration = Duration::from_millis(100);

/// How much of a stranger's text goes into a reason.
const EXCERPT_MAX: usize = 200;

const USER_AGENT: &str = concat!("lifesign/", env!("CARGO_PKG_VERSION"));

/// What to ask, and how long to wait.
#[derive(Debug)]
pub(crate) struct Inquiry {
    pub(crate) endpoint: Endpoint,
    /// Path and query, as they go on the wire.
    pub(crate) target: String,
    /// Names and values that were checked by [`valid_header`].
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
}

/// The service answered, and it is well.
#[derive(Debug)]
pub(crate) struct Healthy {
    pub(crate) code: u16,
    summary: Summary,
    took: Duration,
}

impl fmt::Display for Healthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.summary.status.as_deref() {
            Some(status @ ("pass" | "warn")) => f.write_str(status)?,
            // Another's word: it may be "DOWN", and the code is what counts.
            Some(status) => write!(f, "{} {status}", self.code)?,
            None => self.code.fmt(f)?,
        }
        let tenths = self.took.as_secs() * 10_000 + u64::from(self.took.subsec_micros() + 50) / 100;
        write!(f, " in {}.{} ms", tenths / 10, tenths % 10)?;
        // What passes with a reason is a warning.
        match &self.summary.output {
            Some(output) => write!(f, ": {output}"),
            None => Ok(()),
        }
    }
}

/// Why a service counts as not well. The text is all that a person will see of it.
#[derive(Debug)]
pub(crate) struct ProbeError {
    kind: Kind,
    /// Whom we asked, for people: `127.0.0.1:8080`.
    peer: String,
}

#[derive(Debug)]
enum Kind {
    Connect(io::Error),
    ConnectTimeout(Duration),
    Send(io::Error),
    Receive(io::Error),
    /// The deadline passed after that many bytes of the answer.
    Timeout(Duration, usize),
    /// The peer closed the connection after that many bytes of the head.
    Closed(usize),
    TooLong,
    TooManyInterim,
    Malformed(String),
    Tls,
    Http2,
    SelfConnect,
    Status {
        code: u16,
        location: Option<String>,
        reason: Reason,
    },
    #[cfg(not(feature = "https"))]
    HttpsUnsupported,
    #[cfg(feature = "https")]
    Https(String),
}

/// What an unhealthy answer says of itself.
#[derive(Debug)]
enum Reason {
    Report(Summary),
    Text(String),
}

impl ProbeError {
    fn new(peer: &impl fmt::Display, kind: Kind) -> Self {
        let peer = peer.to_string();
        Self { kind, peer }
    }

    fn connect(peer: &impl fmt::Display, error: io::Error, clock: &Clock) -> Self {
        let kind = if is_timeout(&error) {
            Kind::ConnectTimeout(clock.timeout)
        } else {
            Kind::Connect(error)
        };
        Self::new(peer, kind)
    }

    /// Whether the service was not reached at all, so that the address itself is in doubt.
    pub(crate) const fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect(_) | Kind::SelfConnect)
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.peer;
        match &self.kind {
            Kind::Connect(error) => write!(f, "connect to {peer}: {}", Cause(error)),
            Kind::ConnectTimeout(timeout) => {
                write!(f, "connect to {peer}: no answer within {timeout:?}")
            }
            Kind::Send(error) => write!(f, "send to {peer}: {}", Cause(error)),
            Kind::Receive(error) => write!(f, "receive from {peer}: {}", Cause(error)),
            Kind::Timeout(timeout, 0) => write!(f, "{peer} sent nothing within {timeout:?}"),
            Kind::Timeout(timeout, _) => {
                write!(f, "{peer} sent an incomplete answer within {timeout:?}")
            }
            Kind::Closed(0) => write!(f, "{peer} closed the connection without an answer"),
            Kind::Closed(_) => {
                write!(
                    f,
                    "{peer} closed the connection in the middle of its answer"
                )
            }
            Kind::TooLong => write!(f, "{peer} sent a head of more than 16 KiB"),
            Kind::TooManyInterim => {
                write!(
                    f,
                    "{peer} sent more than {INTERIM_MAX} interim (1xx) answers"
                )
            }
            Kind::Malformed(start) => {
                write!(f, "{peer} does not speak HTTP/1: it sent \"{start}\"")
            }
            Kind::Tls => write!(f, "{peer} speaks TLS: use https"),
            Kind::Http2 => write!(f, "{peer} speaks HTTP/2 only: point the probe at HTTP/1"),
            Kind::SelfConnect => write!(f, "connect to {peer}: connection refused"),
            Kind::Status {
                code,
                location: Some(location),
                ..
            } => write!(
                f,
                "{code} redirect to {location}: not followed, point the probe there"
            ),
            Kind::Status { code, reason, .. } => write!(f, "{code}{reason}"),
            #[cfg(not(feature = "https"))]
            Kind::HttpsUnsupported => {
                write!(
                    f,
                    "https to {peer}: this binary is built without lifesign's feature \"https\""
                )
            }
            #[cfg(feature = "https")]
            Kind::Https(text) => write!(f, "https to {peer}: {text}"),
        }
    }
}

impl Error for ProbeError {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(summary) => {
                if let Some(status) = &summary.status {
                    write!(f, " {status}")?;
                }
                match &summary.output {
                    Some(output) => write!(f, ": {output}"),
                    None => Ok(()),
                }
            }
            Self::Text(text) if text.is_empty() => Ok(()),
            Self::Text(text) => write!(f, ": {text}"),
        }
    }
}

/// Asks once.
pub(crate) fn ask(inquiry: &Inquiry) -> Result<Healthy, ProbeError> {
    let clock = Clock::start(inquiry.timeout);
    match &inquiry.endpoint.0 {
        Place::Tcp {
            scheme: Scheme::Http,
            host,
            port,
        } => {
            let (stream, peer) = connect(host.addresses(*port), &clock)?;
            exchange(stream, inquiry, &peer, &clock)
        }
        #[cfg(feature = "https")]
        Place::Tcp { host, port, .. } => https::ask(inquiry, host.addresses(*port), &clock),
        #[cfg(not(feature = "https"))]
        Place::Tcp { host, port, .. } => {
            let (peer, _) = host.addresses(*port);
            Err(ProbeError::new(&peer, Kind::HttpsUnsupported))
        }
        Place::Unix(path) => {
            let stream = connect_unix(path, &clock)
                .map_err(|error| ProbeError::connect(&path.display(), error, &clock))?;
            exchange(stream, inquiry, &path.display(), &clock)
        }
    }
}

/// The two loopback addresses, or the only one: the second counts only when there is no
/// connection to the first.
type Addresses = (SocketAddr, Option<SocketAddr>);

fn connect((first, second): Addresses, clock: &Clock) -> Result<(Socket, SocketAddr), ProbeError> {
    let to = |address: SocketAddr| dial(Domain::for_address(address), &address.into(), clock);
    match (to(first), second) {
        (Ok(stream), _) => Ok((stream, first)),
        (Err(error), Some(second)) if !is_timeout(&error) => match to(second) {
            Ok(stream) => Ok((stream, second)),
            // The first one's: without IPv6 the second is merely unreachable.
            Err(_) => {
                let both = format!("{first} or {second}");
                Err(ProbeError::connect(&both, error, clock))
            }
        },
        (Err(error), _) => Err(ProbeError::connect(&first, error, clock)),
    }
}

fn connect_unix(path: &Path, clock: &Clock) -> io::Result<Socket> {
    dial(Domain::UNIX, &SockAddr::unix(path)?, clock)
}

fn dial(domain: Domain, address: &SockAddr, clock: &Clock) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_write_timeout(Some(clock.wait()?))?;
    if cfg!(target_os = "linux") {
        // Linux bounds connecting by the write timeout, Unix sockets included, and takes up an
        // interrupted connect where it was.
        loop {
            match socket.connect(address) {
                Err(error) if is_pause(&error) => socket.set_write_timeout(Some(clock.wait()?))?,
                result => return result.map(|()| socket),
            }
        }
    }
    if domain == Domain::UNIX {
        socket.connect(address)?;
    } else {
        socket.connect_timeout(address, clock.left()?)?;
    }
    Ok(socket)
}

pub(crate) fn exchange(
    mut stream: Socket,
    inquiry: &Inquiry,
    peer: &impl fmt::Display,
    clock: &Clock,
) -> Result<Healthy, ProbeError> {
    let request = request(inquiry);
    converse(&mut stream, request.as_bytes(), clock)
        .and_then(|answer| answer.verdict(clock))
        .map_err(|kind| {
            // A port of the ephemeral range that nobody listens on can be connected to itself.
            let address = |end: io::Result<SockAddr>| end.ok()?.as_socket();
            let here = address(stream.local_addr());
            let alone = matches!(kind, Kind::Malformed(_))
                && here.is_some()
                && here == address(stream.peer_addr());
            let kind = if alone { Kind::SelfConnect } else { kind };
            ProbeError::new(peer, kind)
        })
}

pub(crate) fn request(inquiry: &Inquiry) -> String {
    let mut request = String::with_capacity(REQUEST);
    for part in ["GET ", &inquiry.target, " HTTP/1.1\r\n"] {
        request.push_str(part);
    }
    for (name, value) in headers(inquiry) {
        for part in [name, ": ", &value, "\r\n"] {
            request.push_str(part);
        }
    }
    request.push_str("\r\n");
    request
}

/// Ours where none of that name was given, then those that were.
fn headers(inquiry: &Inquiry) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let given = &inquiry.headers;
    let ours = [
        ("Host", inquiry.endpoint.authority().into()),
        ("User-Agent", USER_AGENT.into()),
        ("Accept", "*/*".into()),
        ("Connection", "close".into()),
    ];
    let is_given = |name| given.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let ours = ours.into_iter().filter(move |(name, _)| !is_given(name));
    ours.chain(
        given
            .iter()
            .map(|(name, value)| (name.as_str(), value.into())),
    )
}

/// A final answer: all that had arrived when its head was complete.
struct Answer {
    code: u16,
    bytes: Vec<u8>,
    /// Where the body starts.
    body: usize,
}

/// Sends the request, and reads until a final head is complete.
fn converse(stream: &mut Socket, request: &[u8], clock: &Clock) -> Result<Answer, Kind> {
    // A peer that answers before it reads may have closed already, and its answer counts: that
    // sending failed is told only when there is nothing to read.
    let sent = send(stream, request, clock);
    let mut bytes = Vec::new();
    let mut interim = 0;
    let mut received = 0;
    let mut more;
    loop {
        match read(stream, &mut bytes, clock) {
            Ok(0) => return Err(Kind::Closed(received)),
            Ok(count) => {
                received += count;
                more = count == CHUNK;
            }
            Err(error) => {
                return Err(match sent {
                    Err(sent) if received == 0 && !is_timeout(&sent) => Kind::Send(sent),
                    _ if is_timeout(&error) => Kind::Timeout(clock.timeout, received),
                    _ => Kind::Receive(error),
                });
            }
        }
        while let Some((code, end)) = head(&bytes)? {
            if end > HEAD_MAX {
                return Err(Kind::TooLong);
            }
            if code >= 200 {
                // Sockets round their timeouts up, and a probe can be paused: what counts is the clock.
                if clock.left().is_err() {
                    return Err(Kind::Timeout(clock.timeout, received));
                }
                if more {
                    collect(stream, &mut bytes);
                }
                let body = end;
                return Ok(Answer { code, bytes, body });
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(Kind::TooManyInterim);
            }
            bytes.drain(..end);
        }
        if bytes.len() >= HEAD_MAX {
            return Err(Kind::TooLong);
        }
    }
}

/// One write, unless the request is huge or the peer takes less than all of it.
fn send(stream: &mut Socket, mut request: &[u8], clock: &Clock) -> io::Result<()> {
    // The first is bounded since before connecting.
    loop {
        // In pieces, since Linux bounds the wait for each buffer of a Unix socket by itself.
        match Write::write(stream, &request[..request.len().min(PIECE)]) {
            Ok(count) => request = &request[count..],
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
        if request.is_empty() {
            return Ok(());
        }
        stream.set_write_timeout(Some(clock.wait()?))?;
    }
}

/// One read, bounded by the deadline of the whole probe.
fn read(stream: &mut Socket, bytes: &mut Vec<u8>, clock: &Clock) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    loop {
        stream.set_read_timeout(Some(clock.wait()?))?;
        match Read::read(stream, &mut chunk) {
            Err(error) if is_pause(&error) => {}
            result => {
                bytes.extend_from_slice(&chunk[..result.as_ref().copied().unwrap_or(0)]);
                return result;
            }
        }
    }
}

/// Takes what else has arrived, without waiting: for the reason, and because closing over unread
/// bytes resets the connection, which services log as an error.
fn collect(stream: &mut Socket, bytes: &mut Vec<u8>) {
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    let mut chunk = [0; CHUNK];
    while bytes.len() < BODY_MAX
        && let Ok(count @ 1..) = Read::read(stream, &mut chunk)
    {
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// The status code of the head that `bytes` starts with, and where it ends; `None` if it is not
/// complete.
///
/// Lenient where servers are sloppy and nothing is at stake (bare LF, no reason phrase, folded
/// lines), strict in what makes it an answer at all. Malformed bytes are told as soon as they are
/// seen, since their sender may be waiting for us to say something else.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize)>, Kind> {
    const VERSION: &[u8] = b"HTTP/1.";
    if !bytes.iter().zip(VERSION).all(|(a, b)| a == b) {
        return Err(foreign(bytes));
    }
    let mut end = 0;
    let mut code = None;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(None);
        };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        end += line.len();
        match code {
            None => code = Some(status_line(text).ok_or_else(|| foreign(text))?),
            Some(code) if text.is_empty() => return Ok(Some((code, end))),
            Some(_) if is_field(text) => {}
            Some(_) => return Err(Kind::Malformed(excerpt(text))),
        }
    }
    Ok(None)
}

/// `HTTP/1.x NNN`, and then nothing or a space and a reason.
fn status_line(line: &[u8]) -> Option<u16> {
    match line {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor,
            b' ',
            a,
            b,
            c,
            rest @ ..,
        ] if minor.is_ascii_digit()
            && matches!(rest, [] | [b' ', ..])
            && [a, b, c].into_iter().all(u8::is_ascii_digit)
            && *a != b'0' =>
        {
            Some(
                [a, b, c]
                    .into_iter()
                    .fold(0, |code, d| code * 10 + u16::from(d - b'0')),
            )
        }
        _ => None,
    }
}

/// `name: value`, or the continuation of one.
fn is_field(line: &[u8]) -> bool {
    matches!(line.iter().position(|b| *b == b':'), Some(1..))
        || line.starts_with(b" ")
        || line.starts_with(b"\t")
}

/// What else speaks first, or in another tongue.
fn foreign(bytes: &[u8]) -> Kind {
    match bytes {
        // A TLS alert or handshake record, version 3.x.
        [0x15 | 0x16, 0x03, ..] => Kind::Tls,
        // An HTTP/2 SETTINGS frame on stream 0: three bytes of length, type, flags, stream.
        [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Kind::Http2,
        _ => Kind::Malformed(excerpt(bytes)),
    }
}

impl Answer {
    fn verdict(&self, clock: &Clock) -> Result<Healthy, Kind> {
        let (head, body) = self.bytes.split_at(self.body);
        // Of a chunked body, the first chunk without its size is what can be read as it is.
        let chunked = !body.starts_with(b"{") && field(head, "transfer-encoding").is_some();
        let body = match chunked.then(|| body.iter().position(|b| *b == b'\n')) {
            Some(Some(line)) => &body[line + 1..],
            _ => body,
        };
        let code = self.code;
        let mut summary = Summary::read(body);
        match code {
            200..=299 => {
                // Perhaps another service took the port. The code counts, but somebody should know.
                if summary == Summary::default() && is_page(head) {
                    summary.output = Some("an HTML page, not a health report".to_owned());
                }
                Ok(Healthy {
                    code,
                    summary,
                    took: clock.start.elapsed(),
                })
            }
            _ => Err(Kind::Status {
                code,
                location: field(head, "location")
                    .filter(|to| !to.is_empty() && (300..400).contains(&code))
                    .map(without_query),
                reason: if summary.status.is_some() {
                    Reason::Report(summary)
                } else {
                    Reason::Text(first_line(body))
                },
            }),
        }
    }
}

/// The value of a field, for people.
fn field(head: &[u8], name: &str) -> Option<String> {
    head.split(|b| *b == b'\n').find_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        field
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| excerpt(value))
    })
}

fn is_page(head: &[u8]) -> bool {
    let html = |media_type: String| media_type.to_ascii_lowercase().starts_with("text/html");
    field(head, "content-type").is_some_and(html)
}

/// A place to be sent to: with the query, it can be a stranger's session.
fn without_query(mut place: String) -> String {
    if let Some(at) = place.find('?') {
        place.truncate(at + 1);
    }
    place
}

fn first_line(body: &[u8]) -> String {
    let mut lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    excerpt(lines.find(|line| !line.is_empty()).unwrap_or_default())
}

/// What fits on a line, for people. Escaping comes last, for all of the line at once.
fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_MAX)]).into_owned()
}

/// One monotonic deadline over all that a probe does.
pub(crate) struct Clock {
    start: Instant,
    timeout: Duration,
}

impl Clock {
    pub(crate) fn start(timeout: Duration) -> Self {
        let start = Instant::now();
        Self { start, timeout }
    }

    /// What is left; never zero, which sockets take for no limit at all.
    fn left(&self) -> io::Result<Duration> {
        match self.timeout.checked_sub(self.start.elapsed()) {
            Some(left) if left >= Duration::from_micros(1) => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// How long to wait at once. Linux ends a wait up to an eighth too late, so that a long one
    /// ends early, and what is left is waited for next.
    fn wait(&self) -> io::Result<Duration> {
        let left = self.left()?;
        Ok(if left > LONG { left - left / 8 } else { left })
    }
}

/// Whether what was waited for may still come: only the clock knows that it is too late.
fn is_pause(error: &io::Error) -> bool {
    // ETIMEDOUT is the network's own, and final; Windows says it of a wait as well.
    let is_final = error.kind() == io::ErrorKind::TimedOut && !cfg!(windows);
    error.kind() == io::ErrorKind::Interrupted || (is_timeout(error) && !is_final)
}

/// Timeouts of sockets have many names, by operation, family and system.
fn is_timeout(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    let in_progress = matches!(
        error.raw_os_error(),
        Some(libc::EINPROGRESS | libc::EALREADY)
    );
    #[cfg(not(target_os = "linux"))]
    let in_progress = false;
    in_progress
        || matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        )
}

/// An error as people say it: "connection refused", not "Connection refused (os error 111)".
struct Cause<'a>(&'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let (first, rest) = text.split_at_checked(1).unwrap_or_default();
        write!(f, "{}{rest}", first.to_ascii_lowercase())
    }
}

#[cfg(feature = "https")]
mod https {
    use std::{
        error::Error,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
        panic, thread,
    };

    use reqwest::{Client, Response, redirect};

    use super::*;

    /// Asks over TLS, through reqwest and a runtime of its own.
    ///
    /// The certificate is not verified: it is made for the names that clients use, and this is the
    /// service's own container asking it on its own address. To any other address, where an
    /// impostor could be, nothing is sent.
    pub(super) fn ask(
        inquiry: &Inquiry,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<Healthy, ProbeError> {
        let (first, second) = addresses;
        let ask = || match ask_one(inquiry, first, clock) {
            Err(error) if error.is_connect() => match second {
                Some(second) => ask_one(inquiry, second, clock).map_err(|_| error),
                None => Err(error),
            },
            result => result,
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return ask();
        }
        // Where `main` is asynchronous, this thread drives a runtime, and may drive no other.
        thread::scope(
            |scope| match thread::Builder::new().spawn_scoped(scope, ask) {
                Ok(thread) => thread.join().unwrap_or_else(|p| panic::resume_unwind(p)),
                Err(error) => Err(ProbeError::new(&first, Kind::Https(error.to_string()))),
            },
        )
    }

    fn ask_one(
        inquiry: &Inquiry,
        address: SocketAddr,
        clock: &Clock,
    ) -> Result<Healthy, ProbeError> {
        let err = |kind| ProbeError::new(&address, kind);
        if !is_own(address) {
            let text = "not an address of this container, and nobody else is asked unverified";
            return Err(err(Kind::Https(text.to_owned())));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| err(Kind::Https(error.to_string())))?;
        let answer = runtime.block_on(async {
            let left = clock.left().map_err(Kind::Receive)?;
            tokio::time::timeout(left, exchange(inquiry, address))
                .await
                .map_err(|_| Kind::Timeout(clock.timeout, 0))?
                .map_err(|error| failure(&error))
        });
        // Name resolution is the only thing that blocks a runtime's shutdown; there is none.
        drop(runtime);
        answer.and_then(|answer| answer.verdict(clock)).map_err(err)
    }

    /// To its own addresses, and to no others, a machine speaks from the same address, but for the
    /// loopback's many. Nothing is sent to find out.
    fn is_own(address: SocketAddr) -> bool {
        if address.ip().is_loopback() {
            return true;
        }
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        UdpSocket::bind((any, 0))
            .and_then(|socket| {
                socket.connect(address)?;
                socket.local_addr()
            })
            .is_ok_and(|from| from.ip() == address.ip())
    }

    async fn exchange(inquiry: &Inquiry, address: SocketAddr) -> reqwest::Result<Answer> {
        let client = Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .http1_only()
            .build()?;
        let mut request = client.get(format!("https://{address}{}", inquiry.target));
        for (name, value) in headers(inquiry) {
            request = request.header(name, value.as_bytes());
        }
        let mut response = request.send().await?;
        let mut answer = Answer::from(&response);
        if let Ok(Ok(Some(chunk))) =
            tokio::time::timeout(Duration::from_millis(1), response.chunk()).await
        {
            answer
                .bytes
                .extend_from_slice(&chunk[..chunk.len().min(BODY_MAX)]);
        }
        Ok(answer)
    }

    impl From<&Response> for Answer {
        /// The head again as the lines that a verdict reads.
        fn from(response: &Response) -> Self {
            let mut bytes = b"\n".to_vec();
            for name in ["location", "content-type"] {
                if let Some(value) = response.headers().get(name) {
                    for part in [name.as_bytes(), b": ", value.as_bytes(), b"\n"] {
                        bytes.extend_from_slice(part);
                    }
                }
            }
            Self {
                code: response.status().as_u16(),
                body: bytes.len(),
                bytes,
            }
        }
    }

    /// reqwest names the URL and hides the cause, which is what a person needs.
    fn failure(error: &reqwest::Error) -> Kind {
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        match cause.downcast_ref::<io::Error>() {
            Some(io) if error.is_connect() && io.kind() == io::ErrorKind::ConnectionRefused => {
                Kind::Connect(io.kind().into())
            }
            _ => Kind::Https(cause.to_string()),
        }
    }
}
