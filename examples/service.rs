//! The reference service, which the tests and benchmarks of this repository build and run.
//!
//! It counts visits, in memory or in Redis, and needs no configuration:
//!
//! ```sh
//! cargo run --example service
//! cargo run --example service -- healthcheck
//! ```
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `HOST` | `::`, or `0.0.0.0` if the kernel has no IPv6 | IP address to listen on |
//! | `PORT` | `8080` | port to listen on; with 0 the system chooses one |
//! | `REDIS` | none | `ADDRESS:PORT` of a Redis for the visits, which are otherwise counted in memory |
//! | `GREETING_FILE` | none | file with the greeting; without it the greeting is "Hello" |
//! | `DRAIN_SECONDS` | `5` | seconds for which the port stays open after SIGTERM |
//! | `READY_DURING_DRAIN` | `false` | whether readiness passes during the drain (for Kubernetes) |

use std::{
    env,
    error::Error,
    fmt::Display,
    io::{self, IsTerminal},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use lifesign::{BuildInfo, Cli, Health, Heartbeat, build_info};
use tokio::{
    fs,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::interval,
};

const BUILD: BuildInfo = build_info!();

fn main() -> ExitCode {
    if let Some(code) = Cli::new(BUILD).run() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let served = runtime.block_on(serve());
    // A thread can be blocked on a file of a network file system that does not respond, so the
    // runtime does not wait for its threads.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

async fn serve() -> Result<(), Box<dyn Error>> {
    // The log is on stderr, because scripts read the address from stdout.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let port = variable("PORT", "a port from 0 to 65535")?.unwrap_or(8080);
    // `TcpListener::bind` tries the addresses in this order.
    let addresses: &[SocketAddr] = match variable("HOST", "an IP address")? {
        Some(host) => &[SocketAddr::new(host, port)],
        // `::` accepts IPv4 too, but some kernels have no IPv6.
        None => &[
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ],
    };
    let drain_seconds = variable("DRAIN_SECONDS", "whole seconds")?.unwrap_or(5);
    let visits = Arc::new(Visits {
        redis: variable("REDIS", "an address and port like 127.0.0.1:6379")?,
        memory: AtomicU64::new(0),
        greeting_file: variable("GREETING_FILE", "a path")?,
    });

    let mut health = Health::builder(BUILD);
    if variable("READY_DURING_DRAIN", "true or false")?.unwrap_or(false) {
        health = health.ready_during_drain();
    }
    let health = health
        .drain_delay(Duration::from_secs(drain_seconds))
        // The store is required: without it the service cannot handle a request.
        .required_with("store", Arc::clone(&visits), async |visits| {
            visits.ping().await
        })
        // The greeting is optional: if it cannot be read, "Hello" replaces it.
        .optional_with("greeting", Arc::clone(&visits), async |visits| {
            visits.greeting().await
        })
        .build()?;
    // PID 1 ignores SIGTERM until it has a handler, so the handlers are installed early.
    health.handle_signals()?;

    let app = Router::new()
        .route("/", get(visit))
        .with_state(Arc::clone(&visits));
    let listener = TcpListener::bind(addresses)
        .await
        .map_err(|error| format!("listen on {}: {error}", addresses[0]))?;
    let address = listener.local_addr()?;
    tokio::spawn(log_visits(
        visits,
        health.heartbeat("logger", Duration::from_secs(10))?,
    ));
    // A script that has read the address may run `healthcheck` at once, so the address is
    // advertised before it is printed.
    health.advertise(address);
    println!("listening on {address}");
    println!("try: curl http://{}/health", reachable(address));
    println!(
        "     {} healthcheck",
        env::args().next().unwrap_or_default()
    );
    health.serve(listener, app).await?;
    Ok(())
}

async fn visit(State(visits): State<Arc<Visits>>) -> Result<String, StatusCode> {
    let greeting = visits.greeting().await.unwrap_or_else(|_| "Hello".into());
    let count = visits.count().await.map_err(|error| {
        tracing::warn!(%error, "visit was not counted");
        StatusCode::SERVICE_UNAVAILABLE
    })?;
    Ok(format!("{}, visitor {count}\n", greeting.trim_end()))
}

/// Logs the number of visits when it has changed. This worker loop demonstrates a heartbeat.
async fn log_visits(visits: Arc<Visits>, heartbeat: Heartbeat) {
    let mut ticks = interval(Duration::from_secs(1));
    let mut logged = 0;
    loop {
        ticks.tick().await;
        heartbeat.beat();
        let now = visits.memory.load(Ordering::Relaxed);
        if now != logged {
            tracing::info!(visits = now, "counted");
            logged = now;
        }
    }
}

/// The visit counter, in Redis or in memory, and the greeting.
struct Visits {
    redis: Option<SocketAddr>,
    memory: AtomicU64,
    greeting_file: Option<PathBuf>,
}

impl Visits {
    async fn count(&self) -> io::Result<u64> {
        let count = match self.redis {
            None => self.memory.fetch_add(1, Ordering::Relaxed) + 1,
            Some(redis) => {
                let reply = command(redis, "INCR visits").await?;
                let count = reply.strip_prefix(':').and_then(|n| n.parse().ok());
                let count = count.ok_or_else(|| unexpected(&reply))?;
                self.memory.store(count, Ordering::Relaxed);
                count
            }
        };
        Ok(count)
    }

    async fn ping(&self) -> io::Result<()> {
        match self.redis {
            None => Ok(()),
            Some(redis) => match command(redis, "PING").await?.as_str() {
                "+PONG" => Ok(()),
                reply => Err(unexpected(reply)),
            },
        }
    }

    async fn greeting(&self) -> io::Result<String> {
        match &self.greeting_file {
            Some(file) => fs::read_to_string(file).await,
            None => Ok("Hello".into()),
        }
    }
}

/// Sends a command to Redis and returns the first line of the reply.
async fn command(redis: SocketAddr, command: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(redis).await?;
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .await?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).await?;
    reply.truncate(reply.trim_end().len());
    Ok(reply)
}

fn unexpected(reply: &str) -> io::Error {
    io::Error::other(format!("unexpected reply from Redis: {reply:?}"))
}

/// Parses an environment variable. An empty value counts as unset.
fn variable<T: FromStr<Err: Display>>(name: &str, expected: &str) -> Result<Option<T>, String> {
    let text = match env::var(name) {
        Ok(text) if !text.is_empty() => text,
        Err(env::VarError::NotUnicode(raw)) => {
            return Err(format!("{name}={raw:?}: expected {expected}"));
        }
        _ => return Ok(None),
    };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(format!("{name}={text:?}: expected {expected}")),
    }
}

/// Returns the host and port at which this machine reaches the service.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("localhost:{}", address.port());
    }
    address.to_string()
}
