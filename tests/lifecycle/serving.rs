//! `Health::serve` in the test's own process.

use std::{
    error::Error,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::ConnectInfo,
    http::StatusCode,
    middleware::map_response,
    response::Response,
    routing::{Route, any, get, post},
    serve::{Listener, ListenerExt},
};
use lifesign::{Health, Probe, build_info};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::layer::layer_fn;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A listener whose connections are in memory. Without sockets, tokio's clock can be paused.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        match self.0.recv().await {
            Some(stream) => (stream, (Ipv4Addr::LOCALHOST, 1).into()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 2).into())
    }
}

struct Served {
    health: Health,
    clients: mpsc::Sender<DuplexStream>,
    server: JoinHandle<io::Result<()>>,
}

impl Served {
    fn new(app: Router) -> Result<Self> {
        let health = Health::builder(build_info!()).build()?;
        let (clients, connections) = mpsc::channel(8);
        let server = tokio::spawn({
            let health = health.clone();
            async move { health.serve(Pipes(connections), app).await }
        });
        Ok(Self {
            health,
            clients,
            server,
        })
    }

    async fn connect(&self) -> Result<DuplexStream> {
        let (client, server) = duplex(4096);
        self.clients.send(server).await?;
        Ok(client)
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/upload", post(async |body: Bytes| body.len().to_string()))
}

/// Returns how long the server keeps the connection open from now on.
async fn closed_after(client: &mut DuplexStream) -> Result<Duration> {
    let start = Instant::now();
    assert_eq!(client.read(&mut [0; 64]).await?, 0);
    Ok(start.elapsed())
}

async fn ask(client: &mut DuplexStream, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut response = vec![0; 4096];
    let length = client.read(&mut response).await?;
    Ok(String::from_utf8_lossy(&response[..length]).into_owned())
}

#[tokio::test(start_paused = true)]
async fn head_that_does_not_come_is_cut_after_30_s() -> Result {
    let served = Served::new(app())?;
    for part in ["", "P", "G", "GET / HTTP/1.1\r\nHost"] {
        let mut client = served.connect().await?;
        client.write_all(part.as_bytes()).await?;

        let after = closed_after(&mut client).await?;

        assert_eq!(after.as_secs(), 30, "{part:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn head_that_comes_byte_by_byte_is_cut_after_30_s() -> Result {
    let served = Served::new(app())?;
    let mut client = served.connect().await?;
    assert!(ask(&mut client, "/").await?.ends_with("hello"));
    sleep(Duration::from_secs(70)).await;

    let start = Instant::now();
    while client.write_all(b"x").await.is_ok() {
        sleep(Duration::from_secs(1)).await;
    }

    let after = start.elapsed().as_secs();
    assert!((30..=31).contains(&after), "{after}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn connection_may_be_idle_for_ever() -> Result {
    let served = Served::new(app())?;
    let mut client = served.connect().await?;

    for _ in 0..3 {
        assert!(ask(&mut client, "/").await?.ends_with("hello"));
        sleep(Duration::from_secs(3600)).await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn upload_may_take_for_ever() -> Result {
    let served = Served::new(app())?;
    let mut client = served.connect().await?;
    client
        .write_all(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n")
        .await?;

    for _ in 0..100 {
        client.write_all(b"x").await?;
        sleep(Duration::from_secs(10)).await;
    }

    let mut response = vec![0; 4096];
    let length = client.read(&mut response).await?;
    let response = String::from_utf8_lossy(&response[..length]);
    assert!(response.ends_with("\r\n\r\n100"), "{response}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn routes_are_outside_all_layers() -> Result {
    let layered = app().layer(map_response(async |mut response: Response| {
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    }));
    let served = Served::new(layered)?;
    let mut client = served.connect().await?;

    let app = ask(&mut client, "/").await?;
    assert!(app.starts_with("HTTP/1.1 418 "), "{app}");
    for path in ["/health", "/health/ready", "/health/live"] {
        let response = ask(&mut client, path).await?;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains(r#"{"status":"pass""#), "{response}");
    }
    client
        .write_all(b"DELETE /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .await?;
    let mut response = vec![0; 4096];
    let length = client.read(&mut response).await?;
    let response = String::from_utf8_lossy(&response[..length]);
    assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
    assert!(response.contains("\r\nallow: GET,HEAD\r\n"), "{response}");
    Ok(())
}

/// A layer that is applied again for each connection would multiply the limit or pool that it
/// holds.
#[tokio::test(start_paused = true)]
async fn layers_are_applied_once() -> Result {
    let applied = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&applied);
    let served = Served::new(app().layer(layer_fn(move |service: Route| {
        counted.fetch_add(1, Ordering::Relaxed);
        service
    })))?;
    let mut client = served.connect().await?;
    ask(&mut client, "/").await?;
    let before = applied.load(Ordering::Relaxed);

    for _ in 0..3 {
        ask(&mut client, "/").await?;
    }

    assert_eq!(applied.load(Ordering::Relaxed), before);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn routes_are_where_the_probe_looks() -> Result {
    let health = Health::builder(build_info!())
        .nested_under("/api")
        .path(Probe::Liveness, "/alive")
        .build()?;
    let (clients, connections) = mpsc::channel(8);
    let served = Served {
        health: health.clone(),
        clients,
        server: tokio::spawn(async move { health.serve(Pipes(connections), app()).await }),
    };
    let mut client = served.connect().await?;

    for (path, status) in [
        ("/api/health", 200),
        ("/api/health/ready/", 200),
        ("/api/alive", 200),
        ("/api/alive/", 200),
        ("/health", 404),
    ] {
        let response = ask(&mut client, path).await?;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {response}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn router_with_a_health_route_is_refused() -> Result {
    for (path, route) in [
        ("/health", get(async || "ok")),
        ("/health/", get(async || "ok")),
        ("/health/live", get(async || "ok")),
        ("/health/ready", any(async || "ok")),
    ] {
        let served = Served::new(app().route(path, route))?;

        let end = timeout(Duration::from_secs(10), served.server).await?;
        let panic = end.expect_err("a panic").into_panic();

        let message = panic.downcast_ref::<String>().expect("axum's message");
        assert!(
            message.starts_with("Overlapping method route") || message.contains("fallback"),
            "{path}: {message}"
        );
        if path == "/health" {
            let page = include_str!("../../docs/troubleshooting.md");
            assert!(page.contains(&format!("### ``{message}``\n")), "{message}");
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn drain_is_a_clean_end() -> Result {
    let served = Served::new(app())?;
    let mut client = served.connect().await?;
    assert!(ask(&mut client, "/").await?.ends_with("hello"));
    let start = Instant::now();

    served.health.begin_drain();
    served.server.await??;

    assert_eq!(start.elapsed().as_secs(), 5);
    Ok(())
}

#[tokio::test]
async fn drain_that_began_before_is_an_error_at_once() -> Result {
    let health = Health::builder(build_info!()).build()?;
    health.begin_drain();
    let (_clients, connections) = mpsc::channel(1);

    let error = health
        .serve(Pipes(connections), app())
        .await
        .expect_err("drained");

    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn broken_service_drains_and_is_an_error() -> Result {
    let served = Served::new(app())?;
    drop(served.health.heartbeat("mailer", Duration::from_secs(60))?);
    let mut client = served.connect().await?;
    let response = ask(&mut client, "/health/live").await?;
    assert!(
        response.contains("heartbeat mailer was dropped"),
        "{response}"
    );

    served.health.begin_drain();
    let error = served.server.await?.expect_err("broken");

    assert_eq!(
        error.to_string(),
        "ended while broken: heartbeat mailer was dropped"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn start_is_reported_until_it_is_done() -> Result {
    let health = Health::builder(build_info!()).build()?;
    let (clients, connections) = mpsc::channel(8);
    let (started, start) = oneshot::channel::<Router>();
    let server = tokio::spawn({
        let health = health.clone();
        async move {
            let start = async { start.await.map_err(io::Error::other) };
            health.serve_after(Pipes(connections), start).await
        }
    });
    let served = Served {
        health,
        clients,
        server,
    };
    let mut client = served.connect().await?;

    let response = ask(&mut client, "/health").await?;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    let output = r#""output":"starting: set_ready() has not been called yet""#;
    assert!(response.contains(output), "{response}");
    let response = ask(&mut client, "/").await?;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.ends_with("starting\n"), "{response}");

    started.send(app()).expect("a server");
    sleep(Duration::from_millis(1)).await;
    assert!(ask(&mut client, "/").await?.ends_with("hello"));
    assert!(ask(&mut client, "/health").await?.contains("pass"));
    Ok(())
}

#[tokio::test]
async fn error_of_the_start_is_the_servers() -> Result {
    let health = Health::builder(build_info!()).build()?;
    let (_clients, connections) = mpsc::channel(1);
    let start = async { Err(Box::from("no database")) };

    let served: Result = health.serve_after(Pipes(connections), start).await;

    assert_eq!(served.expect_err("no start").to_string(), "no database");
    Ok(())
}

/// Requests `/`, and returns everything that the server sends until it closes the connection.
async fn response_to(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<String> {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await?;
    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test]
async fn peer_and_socket_are_the_applications() -> Result {
    let health = Health::builder(build_info!()).build()?;
    let peer = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
    tokio::spawn(async move { health.serve(listener, Router::new().route("/", peer)).await });

    let mut client = TcpStream::connect(address).await?;
    let response = response_to(&mut client).await?;

    let expected = client.local_addr()?.to_string();
    assert!(response.ends_with(&expected), "{response}");
    Ok(())
}

#[tokio::test]
async fn unix_socket_is_served() -> Result {
    let path = std::env::temp_dir().join(format!("lifesign-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let health = Health::builder(build_info!()).build()?;
    let peer = get(async |ConnectInfo(_): ConnectInfo<unix::SocketAddr>| "hello");
    let listener = UnixListener::bind(&path)?;
    tokio::spawn(async move { health.serve(listener, Router::new().route("/", peer)).await });

    let mut client = UnixStream::connect(&path).await?;
    let response = response_to(&mut client).await?;

    std::fs::remove_file(&path)?;
    assert!(response.ends_with("hello"), "{response}");
    Ok(())
}

/// A Unix socket whose handlers can extract the user of the peer.
struct WithUser(UnixListener);

impl Listener for WithUser {
    type Io = UnixStream;
    type Addr = Option<u32>;

    async fn accept(&mut self) -> (UnixStream, Option<u32>) {
        let (stream, _) = Listener::accept(&mut self.0).await;
        let user = stream.peer_cred().map(|peer| peer.uid());
        (stream, user.ok())
    }

    fn local_addr(&self) -> io::Result<Option<u32>> {
        Ok(None)
    }
}

#[tokio::test]
async fn listener_chooses_the_connect_info() -> Result {
    let path = std::env::temp_dir().join(format!("lifesign-user-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let health = Health::builder(build_info!()).build()?;
    let peer = get(async |ConnectInfo(user): ConnectInfo<Option<u32>>| format!("{user:?}"));
    let listener = WithUser(UnixListener::bind(&path)?);
    tokio::spawn(async move { health.serve(listener, Router::new().route("/", peer)).await });

    let mut client = UnixStream::connect(&path).await?;
    let own = client.peer_cred()?.uid();
    let response = response_to(&mut client).await?;

    std::fs::remove_file(&path)?;
    assert!(response.ends_with(&format!("Some({own})")), "{response}");
    Ok(())
}
