//! How long each kind of client delays the end of each kind of service, with the default times.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    http2::{ACK, DATA, GOAWAY, HEADERS, Http2, PING, SETTINGS},
    process::{Program, connect, drains, eventually, get},
};

const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum delay of a service's end: the 1 s for which `serve` keeps an idle HTTP/2 connection
/// open, and 0.8 s for a busy machine.
const MARGIN: Duration = Duration::from_millis(1800);

/// Time at which a service ends while a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    AtOnce,
    AfterTheDelay,
    AfterTheTimeout,
}

use Ends::{AfterTheDelay, AfterTheTimeout, AtOnce};

/// The columns of the table: three modes of `tests/lifecycle/program.rs`, and `examples/service.rs`
/// with a Redis that replies only to PING.
const SERVICES: [&str; 4] = ["serve", "pieces", "worker", "reference"];

struct Row {
    client: &'static str,
    /// Connects, and sends and receives what the client does before the signal. The connection
    /// stays open as long as the returned value exists.
    connect: fn(SocketAddr) -> Box<dyn Send>,
    /// The expected end of each of [`SERVICES`]. `None` if the service has no route, or no HTTP/2,
    /// for this client.
    ends: [Option<Ends>; SERVICES.len()],
}

const DELAYED: Option<Ends> = Some(AfterTheDelay);
const CUT: Option<Ends> = Some(AfterTheTimeout);
const NOW: Option<Ends> = Some(AtOnce);

const ROWS: [Row; 15] = [
    Row {
        client: "silent",
        connect: |address| http1(address, "", false),
        ends: [DELAYED, DELAYED, NOW, DELAYED],
    },
    Row {
        client: "one byte",
        connect: |address| http1(address, "G", false),
        ends: [DELAYED, CUT, NOW, DELAYED],
    },
    Row {
        client: "half a head",
        connect: |address| http1(address, "GET / HTTP/1.1\r\nHost", false),
        ends: [DELAYED, CUT, NOW, DELAYED],
    },
    Row {
        client: "kept after a response",
        connect: |address| http1(address, HEALTH, true),
        ends: [DELAYED, DELAYED, NOW, DELAYED],
    },
    Row {
        client: "half a head, pipelined",
        connect: |address| {
            let one_and_a_half = format!("{HEALTH}GET / HTTP/1.1\r\nHost");
            http1(address, &one_and_a_half, true)
        },
        ends: [DELAYED, DELAYED, NOW, DELAYED],
    },
    Row {
        client: "endless upload",
        connect: |address| {
            let head = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nx";
            http1(address, head, false)
        },
        // The worker and the reference service have no route `/upload`, and respond with 404 at
        // once.
        ends: [CUT, CUT, NOW, DELAYED],
    },
    Row {
        client: "response never read",
        connect: |address| http1(address, "GET /large HTTP/1.1\r\nHost: test\r\n\r\n", true),
        ends: [CUT, CUT, None, None],
    },
    Row {
        client: "responses never read",
        connect: requests_without_end,
        ends: [CUT, CUT, None, CUT],
    },
    Row {
        client: "response that never comes",
        connect: |address| http1(address, "GET / HTTP/1.1\r\nHost: test\r\n\r\n", false),
        ends: [None, None, None, CUT],
    },
    Row {
        client: "event stream",
        connect: |address| http1(address, "GET /events HTTP/1.1\r\nHost: test\r\n\r\n", true),
        ends: [CUT, CUT, None, None],
    },
    Row {
        client: "HTTP/2, open stream",
        connect: |address| http2(address, "/events", DATA),
        ends: [CUT, CUT, None, None],
    },
    Row {
        client: "HTTP/2, response that never comes",
        connect: |address| http2(address, "/", SETTINGS),
        ends: [None, None, None, CUT],
    },
    Row {
        client: "HTTP/2, idle",
        connect: |address| http2(address, "/health/live", DATA),
        ends: [DELAYED, DELAYED, None, DELAYED],
    },
    Row {
        client: "HTTP/2, idle and frozen",
        connect: |address| {
            let mut client = Http2::connect(address);
            client.get(1, "/health/live");
            client.read_until(DATA);
            Box::new(client)
        },
        ends: [DELAYED, CUT, None, DELAYED],
    },
    Row {
        client: "HTTP/2, preface only",
        connect: |address| Box::new(Http2::connect(address)),
        ends: [DELAYED, CUT, None, DELAYED],
    },
];

/// The initial flow-control window of HTTP/2 in bytes (RFC 9113, section 6.9.2).
const WINDOW: usize = 65_535;

/// Length in bytes of the response at `/medium`. hyper buffers the whole response.
const MEDIUM: usize = 6 * WINDOW;

const HEALTH: &str = "GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends a request. Reads the first byte of the response if `responds` is true.
fn http1(address: SocketAddr, request: &str, responds: bool) -> Box<dyn Send> {
    let mut stream = connect(address).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    if responds {
        stream.read_exact(&mut [0]).expect("a response");
    }
    Box::new(stream)
}

/// Sends requests without reading any response, until the server cannot write and stops reading.
fn requests_without_end(address: SocketAddr) -> Box<dyn Send> {
    let stream = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    stream.set_recv_buffer_size(4096).expect("a socket");
    stream.connect(&address.into()).expect("a connection");
    let mut stream = TcpStream::from(stream);
    let blocked = Some(Duration::from_secs(1));
    stream.set_write_timeout(blocked).expect("a socket");
    let requests = HEALTH.repeat(1000);
    while stream.write_all(requests.as_bytes()).is_ok() {}
    Box::new(stream)
}

/// Sends a request and reads until a frame of kind `until`. Another thread then reads until the
/// server closes the connection.
fn http2(address: SocketAddr, path: &str, until: u8) -> Box<dyn Send> {
    let mut client = Http2::connect(address);
    client.get(1, path);
    client.read_until(until);
    thread::spawn(move || drop(client.read_to_end()));
    Box::new(())
}

#[test]
fn every_service_ends_in_time() {
    println!("| client | {} |", SERVICES.join(" | "));
    println!("|---|--:|--:|--:|--:|");
    let redis = redis_that_counts_nothing();
    thread::scope(|scope| {
        for row in &ROWS {
            scope.spawn(move || {
                let cells = thread::scope(|scope| {
                    let services = SERVICES.iter().zip(row.ends);
                    let runs: Vec<_> = services
                        .map(|(service, ends)| scope.spawn(move || end(row, service, ends?, redis)))
                        .collect();
                    runs.into_iter()
                        .map(|run| run.join().expect("the cell passes").unwrap_or_default())
                        .collect::<Vec<_>>()
                });
                println!("| {} | {} |", row.client, cells.join(" | "));
            });
        }
    });
}

/// Runs one cell of the table. Returns how long the service took to end.
fn end(row: &Row, service: &str, ends: Ends, redis: SocketAddr) -> Option<String> {
    let (program, address) = match service {
        "reference" => reference(redis),
        mode => Program::listening(mode, &[]),
    };
    let _held = (row.connect)(address);

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{service}, {}: {}", row.client, end.log);
    let from = match ends {
        AtOnce => Duration::ZERO,
        AfterTheDelay => DELAY,
        AfterTheTimeout => DELAY + TIMEOUT,
    };
    let range = from..from + MARGIN;
    assert!(
        range.contains(&end.took),
        "{service}, {}: {end:?}",
        row.client
    );
    Some(format!("{:.2} s", end.took.as_secs_f64()))
}

/// Starts the reference service.
fn reference(redis: SocketAddr) -> (Program, SocketAddr) {
    let redis = redis.to_string();
    let environment = [("HOST", "127.0.0.1"), ("PORT", "0"), ("REDIS", &*redis)];
    let service = &mut Command::new(env!("CARGO_BIN_EXE_service"));
    let program = Program::spawn(service, &environment);
    let address = program.address();
    eventually("it is ready", || {
        let response = get(address, "/health").ok()?;
        response.starts_with("HTTP/1.1 200").then_some(())
    });
    (program, address)
}

/// Starts a Redis that replies only to PING.
fn redis_that_counts_nothing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut command = [0; 4];
            if stream.read_exact(&mut command).is_ok() && command == *b"PING" {
                let _ = stream.write_all(b"+PONG\r\n");
            }
            open.push(stream);
        }
    });
    address
}

/// hyper drops a body as soon as it has buffered all of it, although the client's flow control
/// still holds it back. A dropped body therefore does not mean that the response is complete.
#[test]
fn slow_http2_download_is_not_cut_while_it_proceeds() {
    let (program, address) = Program::listening("serve", &[("DRAIN_DELAY", "100")]);
    let mut client = Http2::connect(address);
    client.get(1, "/medium");
    let mut received = client.read_until(DATA).payload.len();
    while received < WINDOW {
        received += client.read_until(DATA).payload.len();
    }

    program.signal("TERM");
    while received < MEDIUM {
        thread::sleep(Duration::from_millis(400));
        client.allow(1, WINDOW);
        let next = (received + WINDOW).min(MEDIUM);
        while received < next {
            received += client.read_until(DATA).payload.len();
        }
    }
    client.read_to_end();
    let end = program.end();

    assert_eq!((end.code, received), (Some(0), MEDIUM), "{}", end.log);
    assert!(!end.log.contains("cut"), "{}", end.log);
    assert!(end.took > Duration::from_secs(2), "{end:?}");
}

#[test]
fn http2_download_that_stops_is_counted_as_cut() {
    let (program, address) = Program::listening("serve", &[("DRAIN_DELAY", "100")]);
    let mut client = Http2::connect(address);
    client.get(1, "/medium");
    client.read_until(DATA);

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(
        end.log.contains("connections cut connections=1"),
        "{}",
        end.log
    );
    assert!(end.took < Duration::from_secs(3), "{end:?}");
}

#[test]
fn http2_clients_are_asked_to_leave_at_the_signal() {
    let (program, address) = Program::listening("serve", &[]);
    let mut client = Http2::connect(address);
    client.get(1, "/sleep/2000");
    client.get(3, "/");
    client.read_until(DATA);

    let signalled = Instant::now();
    program.signal("TERM");
    client.read_until(GOAWAY);
    let asked = signalled.elapsed();
    let rest = client.read_to_end();
    let closed = signalled.elapsed();

    assert!(asked < MARGIN, "{asked:?}");
    assert!(closed < Duration::from_secs(3), "{closed:?}");
    let body = rest
        .iter()
        .filter(|frame| frame.kind == DATA)
        .flat_map(|frame| &frame.payload);
    assert_eq!(body.copied().collect::<Vec<_>>(), b"slept 2000\n");
    assert!(rest.iter().any(|frame| frame.ends_stream()), "{rest:?}");

    // A new connection during the drain is served, and gets a GOAWAY too.
    let mut fresh = Http2::connect(address);
    fresh.get(1, "/");
    let frames = fresh.read_to_end();
    assert!(
        frames.iter().any(|frame| frame.kind == GOAWAY),
        "{frames:?}"
    );
    let body = frames
        .iter()
        .find(|frame| frame.kind == DATA)
        .expect("a body");
    assert_eq!(body.payload, b"hello\n");
    assert!(
        frames.iter().any(|frame| frame.kind == HEADERS),
        "{frames:?}"
    );
    assert_eq!(program.end().code, Some(0));
}

/// A client that gets GOAWAY before its first response takes the GOAWAY for a refusal, and connects
/// again.
#[test]
fn http2_client_is_not_asked_to_leave_before_its_request() {
    let (program, address) = Program::listening("serve", &[]);
    program.signal("TERM");
    drains(address);

    let mut client = Http2::connect(address);
    // The first ping alone is not enough, because the server can receive it together with the
    // preface.
    for _ in 0..2 {
        client.ping();
        loop {
            let frame = client.read().expect("a frame");
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if frame.kind == PING && frame.flags & ACK != 0 {
                break;
            }
        }
    }
    client.get(1, "/");
    let frames = client.read_to_end();

    let body = frames.iter().find(|frame| frame.kind == DATA);
    assert_eq!(body.expect("a body").payload, b"hello\n");
    let goaway = frames.iter().any(|frame| frame.kind == GOAWAY);
    assert!(goaway, "{frames:?}");
}
