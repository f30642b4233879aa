//! The listener for services without axum: routes, timeouts, eviction, and malformed requests.
//!
//! The tables of requests are also sent to axum's server. Where the listener and axum's server
//! differ, the table lists the responses of both.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use lifesign::{Health, HealthBuilder, Probe, build_info};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::spawn_blocking,
};

/// Time limit of a read. It is longer than any timeout of the listener.
const TIMEOUT: Duration = Duration::from_secs(10);

async fn serve(builder: HealthBuilder) -> (Health, SocketAddr) {
    #[cfg(target_os = "linux")]
    crate::flood::raise_descriptor_limit();
    let health = builder.build().unwrap();
    let listener = health.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener.serve());
    (health, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Sends a request, and reads until the listener closes the connection.
fn converse(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_to_close(&mut stream)
}

fn read_to_close(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the listener did not close: {error}"),
    }
    String::from_utf8(response).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    request(address, "GET", path)
}

fn request(address: SocketAddr, method: &str, target: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    converse(address, &request)
}

/// Asserts that a probe gets a 200 within the limit.
fn passes_within(limit: Duration, address: SocketAddr) {
    let started = Instant::now();
    assert_eq!(code(&get(address, "/health")), "200");
    let took = started.elapsed();
    assert!(took < limit, "{took:?}");
}

fn code(response: &str) -> &str {
    response.get(9..12).unwrap_or("nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_are_those_of_the_router() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    spawn_blocking(move || {
        for path in [
            "/health",
            "/health/ready",
            "/health/live",
            "/health/",
            "/health/ready/",
            "/health/live/",
            "/health?verbose=1",
        ] {
            let response = get(address, path);
            assert_eq!(code(&response), "200", "{path}");
            assert!(response.contains("content-type: application/health+json\r\n"));
            assert!(response.contains("cache-control: no-store\r\n"));
            assert!(response.contains("\r\n\r\n{\"status\":\"pass\""));
        }
        for path in ["/", "/health//", "/healthz", "//health"] {
            assert_eq!(code(&get(address, path)), "404", "{path}");
        }
        let head = converse(
            address,
            "HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(code(&head), "200");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let post = converse(
            address,
            "POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(code(&post), "405");
        assert!(post.contains("allow: GET,HEAD\r\n"));
        health.begin_drain();
        assert_eq!(code(&get(address, "/health/ready")), "503");
        assert_eq!(code(&get(address, "/health/live")), "200");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_paths_and_a_prefix_are_served_where_the_probe_looks() {
    let builder = Health::builder(build_info!())
        .path(Probe::Health, "/healthz")
        .path(Probe::Readiness, "/readyz")
        .path(Probe::Liveness, "/livez")
        .nested_under("/internal");
    let (health, address) = serve(builder).await;
    health.set_ready();
    spawn_blocking(move || {
        assert_eq!(code(&get(address, "/internal/healthz")), "200");
        assert_eq!(code(&get(address, "/healthz")), "404");
        assert_eq!(code(&get(address, "/health")), "404");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_at_the_root_of_a_prefix_is_the_prefix() {
    let builder = Health::builder(build_info!())
        .path(Probe::Health, "/")
        .path(Probe::Readiness, "/ready")
        .path(Probe::Liveness, "/live")
        .nested_under("/internal");
    let (health, address) = serve(builder).await;
    health.set_ready();
    spawn_blocking(move || {
        assert_eq!(code(&get(address, "/internal")), "200");
        assert_eq!(code(&get(address, "/internal/")), "200");
        assert_eq!(code(&get(address, "/internal/ready")), "200");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    let error = health.listen(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_request_and_says_so() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    spawn_blocking(move || {
        let kept = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
        for request in [kept, &kept.repeat(1000)] {
            let response = converse(address, request);
            assert_eq!(codes(&response), "200 ");
            assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
        }
        let kept = "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let response = converse(address, kept);
        assert_eq!(codes(&response), "200 ");
        assert!(
            !response.contains("\r\nconnection: keep-alive\r\n"),
            "{response}"
        );
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_half_closing_clients_get_responses() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    spawn_blocking(move || {
        // This is the request of HAProxy's `option httpchk` without arguments.
        assert_eq!(
            code(&converse(address, "OPTIONS / HTTP/1.0\r\n\r\n")),
            "404"
        );
        assert_eq!(
            code(&converse(address, "GET /health HTTP/1.0\r\n\r\n")),
            "200"
        );
        // `nc`, when a request is piped to it, shuts its write side down after the request.
        let mut stream = connect(address);
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(code(&read_to_close(&mut stream)), "200");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_head_closes_the_connection() {
    let (_health, address) = serve(Health::builder(build_info!())).await;
    spawn_blocking(move || {
        let waits: Vec<_> = [
            "",
            "GET /health HT",
            "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        ]
        .map(|start| {
            std::thread::spawn(move || {
                let mut stream = connect(address);
                stream.write_all(start.as_bytes()).unwrap();
                let since = Instant::now();
                read_to_close(&mut stream);
                (start, since.elapsed())
            })
        })
        .into();
        for wait in waits {
            let (start, took) = wait.join().unwrap();
            let expected = Duration::from_millis(3900)..Duration::from_millis(5500);
            assert!(expected.contains(&took), "after {start:?}: {took:?}");
        }
    })
    .await
    .unwrap();
}

/// A check that takes 4.5 s is longer than a connection without a check timeout may last.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lasts_longer_than_the_check_timeout() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(4500)).await;
        Ok::<_, String>(())
    };
    let builder = Health::builder(build_info!())
        .required("slow", slow)
        .check_timeout(Duration::from_secs(5));
    let (health, address) = serve(builder).await;
    health.set_ready();
    let ready = spawn_blocking(move || get(address, "/health/ready")).await;
    assert_eq!(code(&ready.unwrap()), "200");
}

/// With a long check timeout, the connections of probers that have given up last long too.
#[tokio::test(flavor = "multi_thread")]
async fn slow_checks_do_not_lock_out_liveness() {
    let builder = Health::builder(build_info!())
        .required("hangs", std::future::pending::<Result<(), String>>)
        .check_timeout(Duration::from_secs(60));
    let (_health, address) = serve(builder).await;
    spawn_blocking(move || {
        let request = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n";
        let gone: Vec<_> = (0..300)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(request).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                stream
            })
            .collect();
        // With 256 open connections, the listener closes connections older than 4 s.
        let live = get(address, "/health/live");
        assert_eq!(code(&live), "200");
        drop(gone);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_has_the_same_deadline() {
    let (_health, address) = serve(Health::builder(build_info!())).await;
    spawn_blocking(move || {
        let mut stream = connect(address);
        let started = Instant::now();
        while stream.write_all(b"G").is_ok() && !is_closed(&stream) {
            std::thread::sleep(Duration::from_millis(100));
            assert!(started.elapsed() < TIMEOUT, "the head has no deadline");
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(3900), "{took:?}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_response_closes_the_connection() {
    // The body is larger than the socket buffers of the client and of the listener.
    let names = (0..5000).map(|n| format!("{n:0>64}"));
    let pass = async || Ok::<_, String>(());
    let builder = names.fold(Health::builder(build_info!()), |builder, name| {
        builder.optional(name, pass)
    });
    let (_health, address) = serve(builder).await;
    spawn_blocking(move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let started = Instant::now();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
            assert!(started.elapsed() < TIMEOUT, "the response has no deadline");
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(3900), "{took:?}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_waiting_for_a_slow_check_are_not_evicted() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok::<_, String>(())
    };
    let (health, address) = serve(Health::builder(build_info!()).required("slow", slow)).await;
    health.set_ready();
    spawn_blocking(move || {
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let waiting: Vec<_> = (0..300)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(request).unwrap();
                stream
            })
            .collect();
        for mut stream in waiting {
            assert_eq!(code(&read_to_close(&mut stream)), "200");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_probes_get_through() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    spawn_blocking(move || {
        // The clients keep their connections open and send nothing. The listener keeps 256 of these
        // connections.
        let since = Instant::now();
        let silent: Vec<_> = (0..400).map(|_| connect(address)).collect();
        passes_within(Duration::from_secs(1), address);
        // The time limit is below the connection timeout of 4 s, which would close all connections.
        loop {
            let closed = silent.iter().filter(|stream| is_closed(stream)).count();
            if closed >= 145 {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_millis(3400),
                "{closed} of 400 closed"
            );
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_flood_on_a_busy_runtime_does_not_lock_out_a_probe() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    // The task occupies the only runtime thread for two milliseconds each time that it is polled.
    tokio::spawn(async {
        loop {
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2) {}
            tokio::task::yield_now().await;
        }
    });
    spawn_blocking(move || {
        let _silent: Vec<_> = (0..1500).map(|_| connect(address)).collect();
        passes_within(Duration::from_secs(1), address);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_request_waiting_for_a_thread_is_not_evicted() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, String>(())
    };
    let (health, address) = serve(Health::builder(build_info!()).required("slow", slow)).await;
    health.set_ready();
    let first = spawn_blocking(move || {
        let first = connect(address);
        let others: Vec<_> = (0..253).map(|_| connect(address)).collect();
        (first, others)
    });
    let (mut first, _others) = first.await.unwrap();
    // The listener accepts in order. A response on a later connection proves that the earlier
    // connections were accepted, and polled before they sent a request.
    let live = spawn_blocking(move || get(address, "/health/live")).await;
    assert_eq!(code(&live.unwrap()), "200");

    // The code from here to the sleep does not await, so the only runtime thread does nothing else.
    // The third of these connections is the 257th, or the 258th if the connection of the request
    // for `/health/live` is still open.
    let _more = [(); 3].map(|()| connect(address));
    first
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    // The sleep keeps the runtime from reading the request until the connection counts as idle.
    std::thread::sleep(Duration::from_millis(50));

    let response = spawn_blocking(move || read_to_close(&mut first)).await;
    assert_eq!(code(&response.unwrap()), "200");
}

/// A connection that is older than the grace period of 10 ms may be evicted, so the first attempts
/// can fail on a machine that is slow for a moment.
#[tokio::test]
async fn a_new_connection_is_not_evicted_before_its_request() {
    for _ in 0..5 {
        if responds_to_a_late_request().await {
            return;
        }
    }
    panic!("the new connection was evicted in all five attempts");
}

async fn responds_to_a_late_request() -> bool {
    let held = async || {
        std::future::pending::<()>().await;
        Ok::<_, String>(())
    };
    let (health, address) = serve(Health::builder(build_info!()).required("held", held)).await;
    health.set_ready();
    // These connections cannot be evicted, because their requests wait for the check.
    let request = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n";
    let _waiting: Vec<_> = (0..255)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    let live = spawn_blocking(move || get(address, "/health/live")).await;
    assert_eq!(code(&live.unwrap()), "200");

    // The new connection is the 256th and the only idle one, so the listener can accept the next
    // connection only by evicting it.
    let mut new = connect(address);
    let _one_more = connect(address);
    // During a yield, the only runtime thread polls the sockets and all other tasks.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let sent = new.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = spawn_blocking(move || read_to_close(&mut new)).await;
    sent.is_ok() && code(&response.unwrap()) == "200"
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_requests_do_not_lock_out_a_probe() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..500 {
        tokio::spawn(async move {
            loop {
                let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
                    continue;
                };
                let mut response = [0; 4096];
                while stream.write_all(request).await.is_ok()
                    && matches!(stream.read(&mut response).await, Ok(1..))
                {}
            }
        });
    }
    spawn_blocking(move || {
        for _ in 0..20 {
            passes_within(Duration::from_secs(2), address);
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_close_a_probe_in_flight() {
    let running = Arc::new(Notify::new());
    let flooded = Arc::new(Notify::new());
    let (started, resume) = (running.clone(), flooded.clone());
    let check = move || {
        let (started, resume) = (started.clone(), resume.clone());
        async move {
            started.notify_one();
            resume.notified().await;
            Ok::<_, String>(())
        }
    };
    let builder = Health::builder(build_info!()).required("slow", check);
    let (health, address) = serve(builder).await;
    health.set_ready();

    let probe = spawn_blocking(move || get(address, "/health"));
    running.notified().await;
    let silent = spawn_blocking(move || {
        let silent: Vec<_> = (0..400).map(|_| connect(address)).collect();
        while silent.iter().filter(|stream| is_closed(stream)).count() < 144 {}
        silent
    });
    let silent = silent.await.unwrap();
    flooded.notify_one();

    // On a slow machine, the check misses its deadline and the response is a 503.
    let response = probe.await.unwrap();
    assert!(matches!(code(&response), "200" | "503"), "{response}");
    drop(silent);
}

#[tokio::test]
async fn an_unaccepted_flood_does_not_delay_a_probe() {
    #[cfg(target_os = "linux")]
    crate::flood::raise_descriptor_limit();
    let health = Health::builder(build_info!()).build().unwrap();
    let listener = health.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody calls `serve`, so no connection is accepted.
    let at_once = Duration::from_millis(500);
    let connect = |_| TcpStream::connect_timeout(&address, at_once);
    let flood: Result<Vec<_>, _> = (0..1000).map(connect).collect();
    assert_eq!(flood.unwrap().len(), 1000);
}

/// Builds a table of names, requests, and axum's expected responses in the notation of
/// [`responses`]. The listener must send the first of these responses and then close, unless its own
/// responses are on the left of a `|`.
macro_rules! scenarios {
    ($($name:literal: $sent:expr => $ours:literal $(| $axums:literal)?),+ $(,)?) => {
        [$(($name, String::from($sent), $ours, [$ours $(, $axums)?].last().copied().unwrap())),+]
    };
}

/// Returns a request for `/health` with these header lines, followed by `rest`.
fn get_with(lines: &str, rest: &str) -> String {
    format!("GET /health HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{rest}")
}

fn post(lines: &str, rest: &str) -> String {
    get_with(lines, rest).replacen("GET", "POST", 1)
}

/// A request. Inside the body of another request, it must not get a response.
const INNER: &str = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";

/// Length of [`INNER`] as a header.
const LENGTH: &str = "Content-Length: 38";
/// Length of [`INNER`] as the size of a chunk.
const CHUNK: &str = "26\r\n";

const CHUNKED: &str = "Transfer-Encoding: chunked";

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_treated_as_a_request() {
    let end = &format!("0\r\n\r\n{INNER}");
    let chunk = |size: &str| post(CHUNKED, &format!("{size}{INNER}\r\n0\r\n\r\n"));
    let both = |first, second, body| post(&format!("{first}\r\n{second}"), body);
    let mega = &"x".repeat(1_000_000);
    both_servers(scenarios! {
        // The body is skipped. axum's server then serves the next request.
        "a body": post(LENGTH, INNER) => "405",
        "a body of a GET": get_with(LENGTH, INNER) => "200",
        "a body, and a request": get_with(LENGTH, &INNER.repeat(2)) => "200 200",
        "chunks": chunk(CHUNK) => "405",
        "chunks, and a request": chunk(CHUNK) + INNER => "405 200",
        "chunks of something packed": post("Transfer-Encoding: gzip, chunked", end) => "405 200",
        "trailers": post(CHUNKED, &format!("0\r\n{LENGTH}\r\n\r\n{INNER}")) => "405 200",
        "the same length twice": both(LENGTH, LENGTH, INNER) => "405",
        // A proxy could see another length of the body, so the server reads nothing more.
        "CL.TE": both("Content-Length: 43", CHUNKED, end) => "405 closed",
        "TE.CL": both(CHUNKED, "Content-Length: 5", end) => "405 closed",
        "TE.CL, in a chunk": both(CHUNKED, "Content-Length: 4", &chunk(CHUNK)) => "405 closed",
        "two lengths": both("Content-Length: 0", LENGTH, INNER) => "400 closed",
        "a list of lengths": post("Content-Length: 38, 38", INNER) => "400 closed",
        "a length with a sign": post("Content-Length: +38", INNER) => "400 closed",
        "a negative length": post("Content-Length: -1", INNER) => "400 closed",
        "a hexadecimal length": post("Content-Length: 0x26", INNER) => "400 closed",
        "an empty length": post("Content-Length:", INNER) => "400 closed",
        "a length of 67 bits": post("Content-Length: 99999999999999999999", INNER) => "400 closed",
        "a length of 64 bits": post("Content-Length: 18446744073709551615", INNER) => "431 closed",
        "a space before the colon": post("Content-Length : 38", INNER) => "400 closed",
        "the same before a coding": post("Transfer-Encoding : chunked", end) => "400 closed",
        "a folded length": post("Content-Length:\r\n 38", INNER) => "400 closed",
        "a folded coding": post("Transfer-Encoding:\r\n chunked", end) => "400 closed",
        "a control before a coding": post("Transfer-Encoding: \x0bchunked", end) => "400 closed",
        "an unknown coding": post("Transfer-Encoding: xchunked", end) => "400 closed",
        "no coding": post("Transfer-Encoding: identity", INNER) => "400 closed",
        "chunks in another": post("Transfer-Encoding: chunked, identity", end) => "400 closed",
        "two codings": both(CHUNKED, "Transfer-Encoding: identity", end) => "400 closed",
        "chunks in HTTP/1.0": post(CHUNKED, end).replacen("1.1", "1.0", 1) => "400 closed",
        // The server responds before it reads the body. If the body is invalid, incomplete or long,
        // the server then closes the connection.
        "a size that is no number": chunk("zz\r\n") => "405 closed",
        "a negative size": chunk("-26\r\n") => "405 closed",
        "a size with a prefix": chunk("0x26\r\n") => "405 closed",
        "a size of 65 bits": chunk("10000000000000026\r\n") => "405 closed",
        "no size": chunk("\r\n") => "405 closed",
        "a size that is too small": chunk("1\r\n") => "405 closed",
        "a size and LF": chunk("26\n") => "405 closed",
        "an extension and LF": post(CHUNKED, &format!("0;\n\r\n{INNER}")) => "405 closed",
        "half a body": post("Content-Length: 1000", INNER) => "405 closed",
        "half a chunk": post(CHUNKED, "3e8\r\nGET /health/live") => "405 closed",
        "1 MB": post("Content-Length: 1000000", mega) => "405 closed",
        "1 MB of a GET": get_with("Content-Length: 1000000", mega) => "200 closed",
        "1 MB in one chunk": post(CHUNKED, &format!("f4240\r\n{mega}\r\n{end}")) => "405 closed",
        // The server never sends 100 (Continue).
        "a body that waits": both("Expect: 100-continue", LENGTH, "") => "405 closed",
        "no body that waits": get_with("Expect: 100-continue", "") => "200",
        "an expectation beyond all": get_with("Expect: 200-ok", "") => "200",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_head_has_one_response() {
    let get = |line| get_with(line, "");
    both_servers(scenarios! {
        "a bare CR for an end": "GET /health HTTP/1.1\rHost: x\r\r" => "400 closed",
        "a bare CR in a value": get("X: a\rContent-Length: 3") => "400 closed",
        "NUL in a value": get("X: a\0b") => "400 closed",
        "NUL in a name": get("X\0: a") => "400 closed",
        "a folded line": get("X: a\r\n b") => "400 closed",
        "a folded first line": "GET /health HTTP/1.1\r\n Host: x\r\n\r\n" => "400 closed",
        "no colon": get("nonsense") => "400 closed",
        "TLS": "\x16\x03\x01\x02\0\x01\0" => "400 closed",
        "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" => "closed",
        "HTTP/0.9": "GET /health\r\n" => "400 closed",
        "HTTP/1.2": "GET /health HTTP/1.2\r\nHost: x\r\n\r\n" => "400 closed",
        "HTTP/2.0": "GET /health HTTP/2.0\r\nHost: x\r\n\r\n" => "400 closed",
        "two spaces": "GET  /health HTTP/1.1\r\nHost: x\r\n\r\n" => "400 closed",
        "HTTP/1.0": format!("GET /health HTTP/1.0\r\n\r\n{INNER}") => "200 closed",
        "HTTP/1.0, kept": "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" => "200",
        "HAProxy": "OPTIONS / HTTP/1.0\r\n\r\n" => "404 closed",
        "the last of a connection": get_with("Connection: close", INNER) => "200 closed",
        "a good one and a bad one": INNER.to_owned() + &get("Bad Name: x") => "200 400 closed",
        // The servers ignore the Host header, because requests by hand often have none.
        "no host": "GET /health HTTP/1.1\r\n\r\n" => "200",
        "two hosts": get("Host: y") => "200",
        "no name of a host": get("Host: a b@/c") => "200",
        // RFC 9112 allows both deviations, and requests by hand often have them.
        "LF only": "GET /health HTTP/1.1\nHost: x\n\n" => "200",
        "empty lines before": format!("\r\n\r\n{INNER}") => "200",
        // The servers do not offer upgrades.
        "HTTP/2 instead": get_with("Connection: upgrade\r\nUpgrade: h2c", INNER) => "200 200",
        "a WebSocket": get("Connection: upgrade\r\nUpgrade: websocket") => "200",
        "a part, if it is new": get("Range: bytes=0-1\r\nIf-None-Match: *") => "200",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_more_than_8_kib_is_refused() {
    let (long, short) = (&"x".repeat(9 * 1024), &"x".repeat(7 * 1024));
    let get = |target, line: &str| format!("GET {target} HTTP/1.1\r\n{line}\r\n\r\n{INNER}");
    let path = |name| get(name, "Host: x");
    let value = |value| get("/health", &format!("X: {value}"));
    let lines = |count| get("/health", &vec!["A: b"; count].join("\r\n"));
    // axum uses hyper's default limit of 408 KiB.
    both_servers(scenarios! {
        "a long value": value(long) => "431 closed" | "200 200",
        "a long name": get("/health", &format!("{long}: x")) => "431 closed" | "200 200",
        "a long path": path(&format!("/{long}")) => "431 closed" | "404 200",
        "a long query": path(&format!("/health?{long}")) => "431 closed" | "200 200",
        "a long method": format!("{long} / HTTP/1.1\r\n\r\n{INNER}") => "431 closed" | "404 200",
        "a long value after another request": format!("{INNER}{}", value(long)) =>
            "200 200 200",
        "a value of 1 MB": value(&long.repeat(100)) => "431 closed",
        "101 lines": lines(101) => "431 closed",
        "100 lines": lines(100) => "200 200",
        "a value within the bound": value(short) => "200 200",
        "a path within the bound": path(&format!("/{short}")) => "404 200",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_targets_of_every_kind() {
    let methods =
        "GET HEAD POST PUT DELETE PATCH OPTIONS TRACE CONNECT PROPFIND get G !#$%&'*+-.^_`|~";
    let routes = "/health /health/ready /health/live /health? /health?x=/health/live /health#live \
                  http://x/health http://other:1/health https://user:secret@x/health";
    // Neither server decodes paths, so no path is decoded twice.
    let no_routes = "/ * //health /health// /healthz /HEALTH /Health /health;x /%68ealth \
                     /health%2fready /health%00 /../health /health/../health /./health /h\u{e9}alth \
                     /{health} http://x http://x/ http://x//health x:80";
    let (health, listener) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    let axum = serve_axum(&health).await;
    spawn_blocking(move || {
        for address in [listener, axum] {
            let expect = |method, target, expected| {
                let response = request(address, method, target);
                assert_eq!(codes(&response).trim(), expected, "{method} {target}");
                let allow = response.contains("\r\nallow: GET,HEAD\r\n");
                assert_eq!(allow, expected == "405", "{method} {target}: {response}");
            };
            for method in methods.split(' ') {
                for target in routes.split(' ') {
                    let allowed = matches!(method, "GET" | "HEAD");
                    expect(method, target, if allowed { "200" } else { "405" });
                }
                for target in no_routes.split(' ') {
                    expect(method, target, "404");
                }
            }
            for method in ["G@T", "G(T", "GET\0", "\u{c9}", ""] {
                expect(method, "/health", "400");
            }
            for target in ["?x", "http://", "/health\0", "/a b", ""] {
                expect("GET", target, "400");
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_the_body() {
    let (health, listener) = serve(Health::builder(build_info!())).await;
    let axum = serve_axum(&health).await;
    spawn_blocking(move || {
        for address in [listener, axum] {
            let parts = |method| {
                let response = request(address, method, "/health/ready");
                let (head, body) = response.split_once("\r\n\r\n").unwrap();
                let lines = head.lines().filter(|line| !line.starts_with("date: "));
                (lines.map(str::to_owned).collect::<Vec<_>>(), body.len())
            };
            let ((get, length), (head, nothing)) = (parts("GET"), parts("HEAD"));
            assert_eq!(head, get);
            assert_eq!(nothing, 0);
            assert!(
                get.contains(&format!("content-length: {length}")),
                "{get:?}"
            );
        }
    })
    .await
    .unwrap();
}

/// Sends each request to the listener and to axum's server.
async fn both_servers<const N: usize>(
    scenarios: [(&'static str, String, &'static str, &'static str); N],
) {
    let (health, listener) = serve(Health::builder(build_info!())).await;
    health.set_ready();
    let axum = serve_axum(&health).await;
    spawn_blocking(move || {
        let mut mismatches = Vec::new();
        for (name, request, ours, axums) in scenarios {
            let first = ours.split(' ').next().unwrap_or_default();
            let ours = match first {
                "closed" => first.to_owned(),
                code => format!("{code} closed"),
            };
            for (server, address, expected) in [("ours", listener, &*ours), ("axum's", axum, axums)]
            {
                let responses = responses(address, &request, expected);
                if responses != expected {
                    mismatches.push(format!("{name}, {server}: {responses}, not {expected}"));
                }
            }
        }
        assert!(mismatches.is_empty(), "{mismatches:#?}");
    })
    .await
    .unwrap();
}

async fn serve_axum(health: &Health) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let routes: Router = health.routes();
    tokio::spawn(async { axum::serve(socket, routes).await });
    address
}

/// Returns the status codes of the responses in order, followed by "closed" if the server closes
/// the connection, such as "405 closed".
fn responses(address: SocketAddr, request: &str, expected: &str) -> String {
    let mut stream = connect(address);
    // A write error is ignored, because a server can refuse a request and close the connection
    // before the whole request is sent.
    let _ = stream.write_all(request.as_bytes());
    if expected.ends_with("closed") {
        return codes(&read_to_close(&mut stream)) + "closed";
    }
    let mut responses = String::new();
    while codes(&responses).trim().len() < expected.len() {
        let mut part = [0; 4096];
        match stream.read(&mut part).unwrap() {
            0 => return codes(&responses) + "closed",
            count => responses += str::from_utf8(&part[..count]).unwrap(),
        }
    }
    // The connection is still open if one more request gets a response. Its 404 is the last status
    // code.
    stream
        .write_all(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let codes = codes(&(responses + &read_to_close(&mut stream)));
    codes.strip_suffix(" 404 ").unwrap_or(&codes).to_owned()
}

/// Returns the status codes of responses. The text "HTTP/1." occurs only in status lines.
fn codes(responses: &str) -> String {
    let responses = responses.split("HTTP/1.").skip(1);
    responses
        .map(|response| response[2..5].to_owned() + " ")
        .collect()
}

/// Returns whether the peer has closed the connection, without waiting.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
