//! How long each kind of client delays the end of each kind of service, with the default times.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    http2::{DATA, GOAWAY, HEADERS, Http2},
    process::{Program, connect},
};

const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(4);

/// How late a service may end: 0.5 s, for which `serve` keeps an idle HTTP/2 connection open, and
/// what a busy machine needs.
const MARGIN: Duration = Duration::from_millis(1300);

/// When a service ends while a client of this kind is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    AtOnce,
    AfterTheDelay,
    AfterTheTimeout,
}

use Ends::{AfterTheDelay, AfterTheTimeout, AtOnce};

struct Row {
    client: &'static str,
    /// Connects, and sends and receives what the client does before the signal. The connection
    /// stays open as long as the returned value exists.
    connect: fn(SocketAddr) -> Box<dyn Send>,
    serve: Ends,
    pieces: Ends,
}

/// Sends a request. Reads the first byte of the response if `responds` is true.
fn http1(address: SocketAddr, request: &str, responds: bool) -> Box<dyn Send> {
    let mut stream = connect(address).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    if responds {
        stream.read_exact(&mut [0]).expect("a response");
    }
    Box::new(stream)
}

/// Sends a request, and then reads in another thread until the server closes the connection.
fn http2(address: SocketAddr, path: &str, until: u8) -> Box<dyn Send> {
    let mut client = Http2::connect(address);
    client.get(1, path);
    client.read_until(until);
    thread::spawn(move || drop(client.read_to_end()));
    Box::new(())
}

const ROWS: [Row; 11] = [
    Row {
        client: "silent",
        connect: |address| http1(address, "", false),
        serve: AfterTheDelay,
        pieces: AfterTheDelay,
    },
    Row {
        client: "one byte",
        connect: |address| http1(address, "G", false),
        serve: AfterTheDelay,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "half a head",
        connect: |address| http1(address, "GET / HTTP/1.1\r\nHost", false),
        serve: AfterTheDelay,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "kept after a response",
        connect: |address| http1(address, "GET /health HTTP/1.1\r\nHost: test\r\n\r\n", true),
        serve: AfterTheDelay,
        pieces: AfterTheDelay,
    },
    Row {
        client: "endless upload",
        connect: |address| {
            let head = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nx";
            http1(address, head, false)
        },
        serve: AfterTheTimeout,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "response never read",
        connect: |address| http1(address, "GET /large HTTP/1.1\r\nHost: test\r\n\r\n", true),
        serve: AfterTheTimeout,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "event stream",
        connect: |address| http1(address, "GET /events HTTP/1.1\r\nHost: test\r\n\r\n", true),
        serve: AfterTheTimeout,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "HTTP/2, open stream",
        connect: |address| http2(address, "/events", DATA),
        serve: AfterTheTimeout,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "HTTP/2, idle",
        connect: |address| http2(address, "/", DATA),
        serve: AfterTheDelay,
        pieces: AfterTheDelay,
    },
    Row {
        client: "HTTP/2, idle and frozen",
        connect: |address| {
            let mut client = Http2::connect(address);
            client.get(1, "/");
            client.read_until(DATA);
            Box::new(client)
        },
        serve: AfterTheDelay,
        pieces: AfterTheTimeout,
    },
    Row {
        client: "HTTP/2, preface only",
        connect: |address| Box::new(Http2::connect(address)),
        serve: AfterTheDelay,
        pieces: AfterTheTimeout,
    },
];

#[test]
fn every_service_ends_in_time() {
    println!("| client | serve | pieces | worker |");
    println!("|---|--:|--:|--:|");
    thread::scope(|scope| {
        for row in &ROWS {
            scope.spawn(move || {
                let took = thread::scope(|scope| {
                    let modes = [
                        ("serve", row.serve),
                        ("pieces", row.pieces),
                        ("worker", AtOnce),
                    ];
                    let runs = modes.map(|(mode, ends)| scope.spawn(move || end(row, mode, ends)));
                    runs.map(|run| run.join().expect("no failure"))
                });
                let cell = |took: Option<Duration>| {
                    took.map_or("".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()))
                };
                let [serve, pieces, worker] = took.map(cell);
                println!("| {} | {serve} | {pieces} | {worker} |", row.client);
            });
        }
    });
}

fn end(row: &Row, mode: &str, ends: Ends) -> Option<Duration> {
    // The worker's listener has no routes with large or endless responses, and no HTTP/2.
    if mode == "worker"
        && ["response", "event", "HTTP/2"]
            .iter()
            .any(|it| row.client.starts_with(it))
    {
        return None;
    }
    let (program, address) = Program::listening(mode, &[]);
    let _held = (row.connect)(address);

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{mode}, {}: {}", row.client, end.log);
    let (from, to) = match ends {
        AtOnce => (Duration::ZERO, Duration::ZERO),
        AfterTheDelay => (DELAY, DELAY),
        AfterTheTimeout => (DELAY + TIMEOUT, DELAY + TIMEOUT),
    };
    let range = from..to + MARGIN;
    assert!(range.contains(&end.took), "{mode}, {}: {end:?}", row.client);
    Some(end.took)
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
