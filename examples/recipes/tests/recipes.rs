//! Runs the recipes against real servers. Needs the programs of Debian's packages `postgresql` and
//! `redis-server`.
#![cfg(target_os = "linux")]

use std::{
    env, fmt, fs,
    future::{IntoFuture, pending},
    io::{self, BufRead, BufReader, Write},
    net::{self, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Health, Probe, Status, build_info};
use opentelemetry::{Key, trace::TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{Instant, sleep, timeout},
};
use tonic::transport::Endpoint;
use tower_http::trace::TraceLayer;
use tracing_subscriber::{Layer, Registry, filter::LevelFilter, layer::SubscriberExt};

const BUILD: BuildInfo = build_info!();

/// Time limit for a server to start or stop.
const START: Duration = Duration::from_secs(20);

#[tokio::test]
async fn postgres_check_fails_with_the_cause() {
    let mut server = Server::postgres();
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(server.port)
        .username("postgres");
    // The pool's own timeout is the default of 30 s, so the check needs a shorter one.
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect_lazy_with(options);
    let check = || probe(pool.clone(), recipes::postgres);
    passes(check).await;

    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let exhausted = "no connection of the pool was free for 500 ms";
    assert_eq!(check().await, Err(exhausted.to_owned()));
    drop(held);
    assert_eq!(check().await, Ok(()));

    server.freeze();
    assert_eq!(check().await, Err("PostgreSQL does not respond".to_owned()));
    cut_off(|| recipes::postgres(pool.clone())).await;
    assert!(server.connections() <= 2, "{}", server.connections());
    server.thaw();
    passes(check).await;
    assert!(server.connections() <= 2, "{}", server.connections());

    server.stop();
    let refused = "error communicating with database: Connection refused (os error 111)";
    assert_eq!(check().await, Err(refused.to_owned()));
    server.start();
    passes(check).await;
}

#[tokio::test]
async fn redis_check_fails_with_the_cause() {
    let mut server = Server::redis();
    let url = format!("redis://127.0.0.1:{}", server.port);
    let client = recipes::redis_client(&url).unwrap();
    let check = || probe(client.clone(), recipes::redis);
    passes(check).await;

    server.freeze();
    assert_eq!(check().await, Err("timed out".to_owned()));
    cut_off(|| recipes::redis(client.clone())).await;
    assert!(server.connections() <= 1, "{}", server.connections());
    server.thaw();
    assert_eq!(check().await, Ok(()));
    assert_eq!(server.connections(), 1);

    server.stop();
    assert_eq!(
        check().await,
        Err("Connection refused (os error 111)".to_owned())
    );
    server.start();
    assert_eq!(check().await, Ok(()));
}

#[tokio::test]
async fn http_check_fails_with_the_cause() {
    let mut server = Server::service();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let state = (reqwest::Client::new(), url.clone());
    let check = || probe(state.clone(), recipes::upstream);
    passes(check).await;

    let missing = (state.0.clone(), format!("{url}missing"));
    let error = probe(missing, recipes::upstream).await;
    assert_eq!(
        error,
        Err(format!(
            "HTTP status client error (404 Not Found) for url ({url}missing)"
        ))
    );

    server.freeze();
    let late = format!("error sending request for url ({url}): operation timed out");
    assert_eq!(check().await, Err(late));
    cut_off(|| recipes::upstream(state.clone())).await;
    assert!(server.connections() <= 1, "{}", server.connections());
    server.thaw();
    assert_eq!(check().await, Ok(()));

    server.stop();
    let refused = format!(
        "error sending request for url ({url}): client error (Connect): tcp connect error: \
         Connection refused (os error 111)"
    );
    // The first request may be on the connection that has just been closed.
    assert!(check().await.is_err());
    assert_eq!(check().await, Err(refused));
    server.start();
    assert_eq!(check().await, Ok(()));
}

#[tokio::test]
async fn grpc_check_fails_with_the_cause() {
    let mut server = Server::service();
    let uri = format!("http://127.0.0.1:{}", server.port);
    let channel = Endpoint::from_shared(uri).unwrap();
    let channel = channel
        .connect_timeout(Duration::from_millis(500))
        .connect_lazy();
    let check = || probe(channel.clone(), recipes::orders);
    passes(check).await;

    server.freeze();
    let late = "code: 'The operation was cancelled', message: \"Timeout expired\", \
                source: tonic::transport::Error(Transport, TimeoutExpired(()))";
    assert_eq!(check().await, Err(late.to_owned()));
    cut_off(|| recipes::orders(channel.clone())).await;
    assert!(server.connections() <= 1, "{}", server.connections());
    server.thaw();
    // The server closes a connection on which this many requests were cancelled, so the next check
    // can fail.
    passes(check).await;

    server.stop();
    assert!(check().await.is_err());
    let refused = format!(
        "code: 'The service is currently unavailable', message: \"tcp connect error\", source: \
         tonic::transport::Error(Transport, ConnectError(ConnectError(\"tcp connect error\", \
         127.0.0.1:{}, Os {{ code: 111, kind: ConnectionRefused, message: \"Connection refused\" \
         }})))",
        server.port
    );
    assert_eq!(check().await, Err(refused));
    server.start();
    assert_eq!(check().await, Ok(()));
}

#[tokio::test]
async fn checks_of_an_unreachable_host_fail_in_time() {
    // While the backlog is full, the kernel drops new connections, as a broken network does.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut backlog = Vec::new();
    let connect = || {
        timeout(
            Duration::from_millis(200),
            tokio::net::TcpStream::connect(address),
        )
    };
    while let Ok(connected) = connect().await {
        backlog.push(connected.unwrap());
    }

    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(address.port());
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let error = probe(pool, recipes::postgres).await;
    assert_eq!(error, Err("PostgreSQL does not respond".to_owned()));

    let client = recipes::redis_client(&format!("redis://{address}")).unwrap();
    let error = probe(client, recipes::redis).await;
    assert_eq!(error, Err("timed out".to_owned()));

    let url = format!("http://{address}/");
    let error = probe((reqwest::Client::new(), url.clone()), recipes::upstream).await;
    let late = format!("error sending request for url ({url}): operation timed out");
    assert_eq!(error, Err(late));

    let channel = Endpoint::from_shared(url).unwrap();
    let channel = channel
        .connect_timeout(Duration::from_millis(500))
        .connect_lazy();
    let error = probe(channel, recipes::orders).await;
    let late = format!(
        "code: 'The service is currently unavailable', message: \"tcp connect error\", source: \
         tonic::transport::Error(Transport, ConnectError(ConnectError(\"tcp connect error\", \
         {address}, Custom {{ kind: TimedOut, error: Elapsed(()) }})))"
    );
    assert_eq!(error, Err(late));
}

#[tokio::test(start_paused = true)]
async fn slow_check_fails_when_its_result_is_old() {
    let calls = AtomicU32::new(0);
    let last = recipes::ask_repeatedly(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => {
                    sleep(Duration::from_secs(1)).await;
                    Ok(())
                }
                1 => Err(anyhow::anyhow!("401").context("quota")),
                2 => pending().await,
                _ => panic!("the client has a bug"),
            }
        }
    });
    let check = || probe(last.clone(), recipes::quota);
    assert_eq!(check().await, Err("no result yet".to_owned()));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(check().await, Ok(()));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(check().await, Err("quota: 401".to_owned()));
    // The third call starts after 61 s and never ends.
    sleep(Duration::from_secs(55)).await;
    let cut = "no result within 20 s".to_owned();
    assert_eq!(check().await, Err(cut));
    // The fourth call ends the task.
    sleep(Duration::from_secs(65)).await;
    assert_eq!(check().await, Err("no result for 71 s".to_owned()));
}

#[tokio::test]
async fn probes_make_no_spans() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_resource(recipes::resource(BUILD))
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("recipes"));
    let subscriber = Registry::default().with(layer.with_filter(LevelFilter::DEBUG));
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = || Router::new().route("/", get(async || "hello"));
    let health = Health::builder(BUILD).build().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = listener.local_addr().unwrap();
    let traced = app().layer(TraceLayer::new_for_http());
    let server = health.clone();
    tokio::spawn(async move { server.serve(listener, traced).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let merged = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, recipes::traced(app(), &health)).into_future());
    for address in [served, merged] {
        for path in ["/", "/health", "/health/ready", "/health/live"] {
            let response = reqwest::get(format!("http://{address}{path}"))
                .await
                .unwrap();
            assert_eq!(response.status(), 200, "{path}");
        }
    }

    let spans = exporter.get_finished_spans().unwrap();
    let paths = spans.iter().map(|span| {
        let mut attributes = span.attributes.iter();
        let path = attributes.find(|attribute| attribute.key.as_str() == "uri");
        path.unwrap().value.to_string()
    });
    assert_eq!(paths.collect::<Vec<_>>(), ["/", "/"]);
}

#[test]
fn resource_has_the_build_metadata() {
    let resource = recipes::resource(BUILD);
    let value = |key: &'static str| resource.get(&Key::new(key)).map(|value| value.to_string());
    assert_eq!(value("service.name").as_deref(), Some("recipes"));
    assert_eq!(value("service.version").as_deref(), Some(BUILD.version()));
    assert_eq!(value("vcs.ref.head.revision").as_deref(), BUILD.commit());
    assert_eq!(value("telemetry.sdk.language").as_deref(), Some("rust"));
}

#[test]
fn both_listeners_are_open_through_the_drain() {
    let mut service = Server::service();
    let mut lines = BufReader::new(service.child.stdout.take().unwrap()).lines();
    let mut address = || {
        let line = lines.next().unwrap().unwrap();
        line.strip_prefix("listening on ").unwrap().parse().unwrap()
    };
    let [public, internal] = [address(), address()];
    await_status(internal, "/health", "200");
    let slow = thread::spawn(move || request(public, "/slow"));

    service.signal("TERM");
    let signalled = Instant::now();
    await_status(internal, "/health", "503");
    while signalled.elapsed() < Duration::from_millis(4500) {
        for (address, path) in [(public, "/"), (internal, "/metrics")] {
            let response = request(address, path).unwrap();
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    for address in [public, internal] {
        while TcpStream::connect(address).is_ok() {
            assert!(
                signalled.elapsed() < Duration::from_secs(6),
                "{address} is open"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
    let response = slow.join().unwrap().unwrap();
    assert!(response.ends_with("\r\n\r\ndone"), "{response}");
    assert!(service.child.wait().unwrap().success());
}

/// Waits until a path has this status code.
fn await_status(address: SocketAddr, path: &str, code: &str) {
    let deadline = Instant::now() + START;
    let start = format!("HTTP/1.1 {code} ");
    while !request(address, path).is_ok_and(|response| response.starts_with(&start)) {
        assert!(Instant::now() < deadline, "{path} is not {code}");
    }
}

fn request(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )?;
    io::read_to_string(stream)
}

/// Runs a check as a prober does. Returns the error that is logged.
async fn probe<S, F, Fut, E>(state: S, check: F) -> Result<(), String>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display,
{
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer({
        let log = log.clone();
        move || log.clone()
    });
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // A new `Health` has no cached result.
    let health = Health::builder(BUILD).required_with("check", state, check);
    let health = health.build().unwrap();
    health.set_ready();
    let started = Instant::now();

    let report = health.report(Probe::Readiness).await;

    assert!(started.elapsed() < Duration::from_millis(900));
    if report.status() == Status::Pass {
        return Ok(());
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // The check must have ended by its own timeout, not by the deadline of all checks.
    assert!(!log.contains(" took=800ms "), "{log}");
    let (_, error) = log.split_once(" error=\"").expect(&log);
    let error = error.trim_end().trim_end_matches('"');
    Err(error.replace("\\\"", "\""))
}

/// Waits until a check passes.
async fn passes<Fut: Future<Output = Result<(), String>>>(check: impl Fn() -> Fut) {
    let deadline = Instant::now() + START;
    while let Err(error) = check().await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// Drops runs of a check at different moments, as the deadline of all checks does.
async fn cut_off<F: Future>(check: impl Fn() -> F) {
    for run in 0..25 {
        let _ = timeout(Duration::from_millis(run * 28), check()).await;
    }
}

/// The lines that `tracing` has written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server in a child process, killed when dropped.
struct Server {
    command: Command,
    child: Child,
    port: u16,
    /// The signal that ends the server at once.
    end: &'static str,
    directory: Option<PathBuf>,
}

impl Server {
    fn postgres() -> Self {
        let mut programs = PathBuf::from("/usr/bin");
        for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
            programs = version.unwrap().path().join("bin");
        }
        let directory = env::temp_dir().join(format!("lifesign-recipes-{}", process::id()));
        let data = directory.to_str().unwrap();
        // PostgreSQL does not run as root.
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let command = |program: &str| {
            let program = programs.join(program);
            if !is_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.current_dir("/").arg(program);
            command
        };
        let mut initdb = command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--pgdata",
            data,
        ]);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let port = free_port();
        let mut server = command("postgres");
        server.stderr(Stdio::null());
        server.args(["-c", "fsync=off", "-c", "unix_socket_directories="]);
        server.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-D",
            data,
            "-p",
            &port.to_string(),
        ]);
        Self::new(server, port, "INT", Some(directory))
    }

    fn redis() -> Self {
        let port = free_port();
        let mut server = Command::new("redis-server");
        server.stdout(Stdio::null());
        server.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--port",
            &port.to_string(),
        ]);
        Self::new(server, port, "KILL", None)
    }

    /// The service of this example, which serves HTTP and gRPC.
    fn service() -> Self {
        let port = free_port();
        let mut server = Command::new(env!("CARGO_BIN_EXE_recipes"));
        server.env("ADDRESS", format!("127.0.0.1:{port}"));
        server.env("INTERNAL_ADDRESS", "127.0.0.1:0");
        server.stdout(Stdio::piped());
        Self::new(server, port, "KILL", None)
    }

    fn new(mut command: Command, port: u16, end: &'static str, directory: Option<PathBuf>) -> Self {
        let child = command.spawn().unwrap();
        Self {
            command,
            child,
            port,
            end,
            directory,
        }
    }

    /// Starts the server, and waits until it accepts connections.
    fn start(&mut self) {
        self.child = self.command.spawn().unwrap();
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "it does not start");
        }
    }

    fn stop(&mut self) {
        self.signal(self.end);
        self.child.wait().unwrap();
    }

    fn freeze(&self) {
        let deadline = Instant::now() + START;
        self.signal("STOP");
        // SIGSTOP stops a thread on another CPU a moment later, and misses a child that was
        // forked after the list of children was read.
        while !self.processes().iter().all(|pid| is_stopped(pid)) {
            assert!(Instant::now() < deadline, "it is not frozen");
            self.signal("STOP");
        }
    }

    fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends a signal to the server and, unless it ends the server, to its child processes.
    fn signal(&self, signal: &str) {
        let mut processes = self.processes();
        if signal == self.end {
            processes.truncate(1);
        }
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).args(processes);
        // A child process may have ended in the meantime, so the exit code can be 1.
        kill.stderr(Stdio::null()).status().unwrap();
    }

    /// The server's process and its children.
    fn processes(&self) -> Vec<String> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(str::to_owned);
        [pid.to_string()].into_iter().chain(children).collect()
    }

    /// Number of open connections to the server's port.
    fn connections(&self) -> usize {
        let peer = format!(" 0100007F:{:04X} 01 ", self.port);
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().filter(|line| line.contains(&peer)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Frozen child processes would outlive the server, and PostgreSQL removes its shared
            // memory only if it is not killed.
            self.thaw();
            self.signal(self.end);
        }
        let deadline = Instant::now() + START;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Whether no thread of the process runs. A child that ended as its parent was stopped stays a
/// zombie until the parent continues.
fn is_stopped(pid: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status"));
        status.is_ok_and(|status| status.contains("\nState:\tT") || status.contains("\nState:\tZ"))
    })
}

fn free_port() -> u16 {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
