//! The programs that the tests run: services that differ in how they are served and how they end.
//!
//! The first argument selects one of the functions below. `DRAIN_DELAY` and `SHUTDOWN_TIMEOUT` are
//! in milliseconds, and `ADDRESS` is the address to listen on.

use std::{
    env,
    error::Error,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    process::ExitCode,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Path, Request},
    http::{StatusCode, header},
    middleware::map_response,
    response::Response,
    routing::{get, post},
};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use lifesign::{BuildInfo, Cli, Health, Shutdown, build_info};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    time::{Interval, interval, sleep},
};

type Outcome = Result<ExitCode, Box<dyn Error>>;

const BUILD: BuildInfo = build_info!();

fn main() -> Outcome {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let mode = env::args().nth(1).unwrap_or_default();
    if mode == "outside_a_runtime" {
        return outside_a_runtime();
    }
    if mode == "dropped_runtime" {
        return dropped_runtime();
    }
    Runtime::new()?.block_on(async {
        match mode.as_str() {
            "serve" => serve().await,
            #[cfg(unix)]
            "serve_unix" => serve_unix().await,
            "serve_after" => serve_after().await,
            "serve_late" => serve_late().await,
            "serve_broken" => serve_broken().await,
            "pieces" => pieces().await,
            "drains_itself" => drains_itself().await,
            "serve_and_linger" => serve_and_linger().await,
            "drain_and_linger" => drain_and_linger().await,
            "unpolled" => unpolled().await,
            "before_ready" => before_ready().await,
            "startup" => startup().await,
            "blocked" => blocked().await,
            "panicking_worker" => panicking_worker().await,
            "worker" => worker().await,
            "serve_with_worker" => serve_with_worker().await,
            "broken" => broken().await,
            "panics" => panics().await,
            _ => Err(format!("{mode:?}: no such program").into()),
        }
    })
}

/// Serves with `Health::serve`.
async fn serve() -> Outcome {
    let health = health()?;
    let listener = listener(&health).await?;
    health.serve(listener, app()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves on a Unix socket. `ADDRESS` is its path.
#[cfg(unix)]
async fn serve_unix() -> Outcome {
    let listener = tokio::net::UnixListener::bind(env::var("ADDRESS")?)?;
    println!("listening");
    health()?.serve(listener, app()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts, and never becomes ready.
async fn serve_after() -> Outcome {
    let health = health()?;
    let listener = listener(&health).await?;
    health
        .serve_after(listener, pending::<io::Result<_>>())
        .await?;
    Ok(ExitCode::SUCCESS)
}

/// Begins to serve only after a signal has begun the drain.
async fn serve_late() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    println!("starting");
    shutdown.started().await;
    health.serve(listener(&health).await?, app()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves with `Health::serve`, after a heartbeat was dropped.
async fn serve_broken() -> Outcome {
    let health = health()?;
    let listener = listener(&health).await?;
    drop(health.heartbeat("mailer", Duration::from_secs(60))?);
    health.serve(listener, app()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Uses `axum::serve` instead of `Health::serve`, and awaits each step of the shutdown itself.
async fn pieces() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let app = leaving(app().merge(health.routes()), shutdown.clone());
    let listener = listener(&health).await?;
    health.set_ready();
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Begins the drain itself as soon as it is ready, without a signal.
async fn drains_itself() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let listener = listener(&health).await?;
    health.set_ready();
    health.begin_drain();
    let server = axum::serve(listener, app().merge(health.routes()))
        .with_graceful_shutdown(shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Does not return after `Health::serve` has ended.
async fn serve_and_linger() -> Outcome {
    serve().await?;
    pending().await
}

/// Begins the drain itself. Prints a line when the drain delay is over, and does not return.
async fn drain_and_linger() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    health.set_ready();
    health.begin_drain();
    shutdown.delay_over().await;
    println!("the delay is over");
    pending().await
}

/// Calls `handle_signals`, and drops the `Shutdown` that it returns.
async fn unpolled() -> Outcome {
    let health = health()?;
    let _ = health.handle_signals()?;
    let listener = listener(&health).await?;
    health.set_ready();
    axum::serve(listener, app().merge(health.routes())).await?;
    Ok(ExitCode::SUCCESS)
}

/// Listens, but never calls `set_ready`.
async fn before_ready() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let listener = listener(&health).await?;
    let server = axum::serve(listener, app().merge(health.routes()))
        .with_graceful_shutdown(shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Starts with a migration that never ends, so that a signal arrives before the service is ready.
async fn startup() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    println!("migrating");
    shutdown.startup(pending::<()>()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a job 10 ms after the previous one, until the drain begins. A job takes `JOB` milliseconds.
async fn worker() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let listener = health.listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("listening on {}", listener.local_addr()?);
    tokio::spawn(listener.serve());
    health.set_ready();
    let mut started = Box::pin(shutdown.started());
    let work = async {
        let mut done = 0;
        while tokio::select! {
            () = started.as_mut() => false,
            () = sleep(Duration::from_millis(10)) => true,
        } {
            println!("job");
            sleep(milliseconds("JOB", 10)).await;
            done += 1;
        }
        done
    };
    match shutdown.bound(work).await {
        Some(done) => {
            println!("done: {done}");
            Ok(shutdown.exit_code())
        }
        None => Ok(ExitCode::FAILURE),
    }
}

/// Takes one job of `JOB` milliseconds beside `Health::serve`.
async fn serve_with_worker() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let listener = listener(&health).await?;
    let jobs = sleep(milliseconds("JOB", 10));
    let (served, jobs) = tokio::join!(health.serve(listener, app()), shutdown.bound(jobs));
    served?;
    Ok(match jobs {
        Some(()) => shutdown.exit_code(),
        None => ExitCode::FAILURE,
    })
}

/// Starts with a blocking task. The runtime cannot shut down before the task ends.
async fn blocked() -> Outcome {
    let shutdown = health()?.handle_signals()?;
    println!("starting");
    let work = tokio::task::spawn_blocking(|| thread::sleep(Duration::from_secs(600)));
    shutdown.startup(work).await??;
    Ok(ExitCode::SUCCESS)
}

/// Runs a worker that panics when the drain begins.
async fn panicking_worker() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let heartbeat = health.heartbeat("jobs", Duration::from_secs(60))?;
    let started = shutdown.started();
    let worker = tokio::spawn(async move {
        let _heartbeat = heartbeat;
        started.await;
        panic!("a job");
    });
    health.set_ready();
    println!("starting");
    let _ = worker.await;
    Ok(shutdown.exit_code())
}

/// Serves with `axum::serve`, after a heartbeat was dropped.
async fn broken() -> Outcome {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let listener = listener(&health).await?;
    drop(health.heartbeat("mailer", Duration::from_secs(60))?);
    health.set_ready();
    let server = axum::serve(listener, app().merge(health.routes()))
        .with_graceful_shutdown(shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Panics when it is ready, while a task continues to serve.
async fn panics() -> Outcome {
    let health = health()?;
    let _shutdown = health.handle_signals()?;
    let listener = listener(&health).await?;
    let app = app().merge(health.routes());
    tokio::spawn(async { axum::serve(listener, app).await });
    health.set_ready();
    panic!("as asked");
}

/// Installs the signal handlers on one runtime and serves on another. The first runtime is dropped.
fn dropped_runtime() -> Outcome {
    let health = health()?;
    let signals = Runtime::new()?;
    let shutdown = signals.block_on(async { health.handle_signals() })?;
    let serving = Runtime::new()?;
    let listener = serving.block_on(listener(&health))?;
    health.set_ready();
    let app = app().merge(health.routes());
    drop(signals);
    serving.block_on(async {
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.delay_over());
        shutdown.bound(server).await.transpose()
    })?;
    Ok(shutdown.exit_code())
}

fn outside_a_runtime() -> Outcome {
    let health = health()?;
    if let Err(error) = health.handle_signals() {
        println!("{error}");
    }
    if let Err(error) = health.listen(SocketAddr::from(([127, 0, 0, 1], 0))) {
        println!("{error}");
    }
    Ok(ExitCode::SUCCESS)
}

fn health() -> Result<Health, Box<dyn Error>> {
    let builder = Health::builder(BUILD)
        .drain_delay(milliseconds("DRAIN_DELAY", 5000))
        .shutdown_timeout(milliseconds("SHUTDOWN_TIMEOUT", 4000));
    Ok(builder.build()?)
}

fn milliseconds(variable: &str, default: u64) -> Duration {
    let text = env::var(variable).ok();
    let milliseconds = text.map_or(default, |text| text.parse().expect("a number"));
    Duration::from_millis(milliseconds)
}

async fn listener(health: &Health) -> io::Result<TcpListener> {
    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    health.advertise(listener.local_addr()?);
    println!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "hello\n"))
        .route("/sleep/{milliseconds}", get(slow))
        .route("/upload", post(async |body: Bytes| body.len().to_string()))
        .route("/large", get(async || vec![b'x'; 64 << 20]))
        .route("/medium", get(async || vec![b'x'; 6 * 65_535]))
        .route("/events", get(events))
        .route("/upgrade", get(upgrade))
}

/// Switches protocols, and then echoes four bytes.
async fn upgrade(request: Request) -> Response {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.expect("four bytes");
        stream.write_all(&bytes).await.expect("an open connection");
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("upgrade"),
    );
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response
}

async fn slow(Path(milliseconds): Path<u64>) -> String {
    sleep(Duration::from_millis(milliseconds)).await;
    format!("slept {milliseconds}\n")
}

/// Returns a stream of events that never ends.
async fn events() -> Response {
    let mut response = Response::new(Body::new(Events(interval(Duration::from_millis(50)))));
    let media_type = header::HeaderValue::from_static("text/event-stream");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}

struct Events(Interval);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        ready!(self.0.poll_tick(context));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: tick\n\n")))))
    }
}

/// Adds `Connection: close` to responses during the drain, like the example of
/// [`Shutdown::has_started`].
fn leaving(app: Router, shutdown: Shutdown) -> Router {
    app.layer(map_response(move |mut response: Response| {
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if shutdown.has_started() && !is_upgrade {
            let close = header::HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        async { response }
    }))
}
