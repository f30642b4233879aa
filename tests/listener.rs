//! The listener for services without axum: real sockets, clients that misbehave, bounds that hold.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use lifesign::{Health, HealthBuilder, build_info};
use tokio::{sync::Notify, task::spawn_blocking};

/// Longer than any bound of the listener, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(10);

async fn serve(builder: HealthBuilder) -> (Health, SocketAddr) {
    let health = builder.build().unwrap();
    let listener = health.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener.serve());
    (health, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends what it is given and reads until the listener closes.
fn converse(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_to_close(&mut stream)
}

fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the listener did not close: {error}"),
    }
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    converse(address, &request)
}

fn code(answer: &str) -> &str {
    answer.get(9..12).unwrap_or("nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_are_those_of_the_router() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.ready();
    spawn_blocking(move || {
        for path in [
            "/health",
            "/health/ready",
            "/health/live",
            "/health?verbose=1",
        ] {
            let answer = get(address, path);
            assert_eq!(code(&answer), "200", "{path}");
            assert!(answer.contains("content-type: application/health+json\r\n"));
            assert!(answer.contains("cache-control: no-store\r\n"));
            assert!(answer.contains("\r\n\r\n{\"status\":\"pass\""));
        }
        for path in ["/", "/health/", "/healthz", "//health"] {
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
        health.draining();
        assert_eq!(code(&get(address, "/health/ready")), "503");
        assert_eq!(code(&get(address, "/health/live")), "200");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_paths_and_a_prefix_are_served_where_the_probe_looks() {
    let builder = Health::builder(build_info!())
        .paths("/healthz", "/readyz", "/livez")
        .nested_under("/internal");
    let (health, address) = serve(builder).await;
    health.ready();
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
        .paths("/", "/ready", "/live")
        .nested_under("/internal");
    let (health, address) = serve(builder).await;
    health.ready();
    spawn_blocking(move || {
        assert_eq!(code(&get(address, "/internal")), "200");
        assert_eq!(code(&get(address, "/internal/")), "404");
        assert_eq!(code(&get(address, "/internal/ready")), "200");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    let error = health.listen(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_probes() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.ready();
    spawn_blocking(move || {
        let mut stream = connect(address);
        for _ in 0..100 {
            stream
                .write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            let mut answer = [0; 4096];
            let count = stream.read(&mut answer).unwrap();
            assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_one_sided_clients_are_answered() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.ready();
    spawn_blocking(move || {
        // HAProxy's `option httpchk` without arguments: a wrong method, but an answer.
        assert_eq!(
            code(&converse(address, "OPTIONS / HTTP/1.0\r\n\r\n")),
            "404"
        );
        assert_eq!(
            code(&converse(address, "GET /health HTTP/1.0\r\n\r\n")),
            "200"
        );
        // `printf … | nc`: says all it has to say, and shuts its side down.
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
async fn a_head_that_does_not_arrive_ends_the_connection_after_two_seconds() {
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
            let expected = Duration::from_millis(1900)..Duration::from_millis(3500);
            assert!(expected.contains(&took), "after {start:?}: {took:?}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_more_than_8_kib_is_refused() {
    let (_health, address) = serve(Health::builder(build_info!())).await;
    spawn_blocking(move || {
        let long = "x".repeat(9 * 1024);
        let request = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n");
        let answer = converse(address, &request);
        assert!(matches!(code(&answer), "431" | "nothing"), "{answer}");
        let request = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = converse(address, &request);
        assert!(
            matches!(code(&answer), "414" | "431" | "nothing"),
            "{answer}"
        );
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_a_flood_keeps_no_probe_out() {
    let (health, address) = serve(Health::builder(build_info!())).await;
    health.ready();
    spawn_blocking(move || {
        // Each holds its connection and says nothing; the listener keeps 256.
        let since = Instant::now();
        let silent: Vec<_> = (0..400).map(|_| connect(address)).collect();
        let asked = Instant::now();
        assert_eq!(code(&get(address, "/health")), "200");
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        // Well before the two seconds after which all of them are closed.
        loop {
            let closed = silent.iter().filter(|stream| is_closed(stream)).count();
            if closed >= 145 {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_millis(1900),
                "{closed} of 400 closed"
            );
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_close_the_probe_that_is_being_answered() {
    let asked = Arc::new(Notify::new());
    let flooded = Arc::new(Notify::new());
    let (started, go_on) = (asked.clone(), flooded.clone());
    let check = move || {
        let (started, go_on) = (started.clone(), go_on.clone());
        async move {
            started.notify_one();
            go_on.notified().await;
            Ok::<_, String>(())
        }
    };
    let builder = Health::builder(build_info!()).required("slow", check);
    let (health, address) = serve(builder).await;
    health.ready();

    let probe = spawn_blocking(move || get(address, "/health"));
    asked.notified().await;
    let silent = spawn_blocking(move || {
        let silent: Vec<_> = (0..400).map(|_| connect(address)).collect();
        while silent.iter().filter(|stream| is_closed(stream)).count() < 144 {}
        silent
    });
    let silent = silent.await.unwrap();
    flooded.notify_one();

    // On a slow machine the check is late, and that is an answer too.
    let answer = probe.await.unwrap();
    assert!(matches!(code(&answer), "200" | "503"), "{answer}");
    drop(silent);
}

#[tokio::test]
async fn a_flood_that_is_not_accepted_yet_keeps_no_probe_waiting_for_a_second() {
    let health = Health::builder(build_info!()).build().unwrap();
    let listener = health.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nothing is accepted: it does not serve.
    let at_once = Duration::from_millis(500);
    let connect = |_| TcpStream::connect_timeout(&address, at_once);
    let flood: Result<Vec<_>, _> = (0..1000).map(connect).collect();
    assert_eq!(flood.unwrap().len(), 1000);
}

/// Without waiting.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
