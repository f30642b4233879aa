//! A service that breaks on purpose, to observe how an orchestrator reacts.
//!
//! ```sh
//! BREAK=deadlock cargo run --example broken
//! cargo run --example broken -- healthcheck
//! ```
//!
//! | `BREAK` | effect, two seconds after the start |
//! |---|---|
//! | `deadlock` | the worker waits for a lock that it holds |
//! | `panic` | the worker's task panics |
//! | `block` | a blocking call occupies the only thread of the runtime |
//! | `start` | none: the service never becomes ready |
//! | unset | none: the service works |

use std::{
    env,
    error::Error,
    future::pending,
    io,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, Heartbeat, build_info};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    time::{interval, sleep},
};

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let how = env::var("BREAK").unwrap_or_default();
    let health = Health::builder(BUILD).build()?;
    let app = Router::new().route("/", get(async || "Hello\n"));
    let listener = TcpListener::bind("[::]:8080").await?;
    // The loop beats once a second. An interval of 2 s tolerates a slow turn.
    let heartbeat = health.heartbeat("worker", Duration::from_secs(2))?;
    tokio::spawn(work(heartbeat, how.clone()));
    let start = async {
        match how.as_str() {
            "" | "deadlock" | "panic" => {}
            "block" => drop(tokio::spawn(block())),
            "start" => pending().await,
            _ => return Err(format!("BREAK={how:?}: expected a value from the table").into()),
        }
        Ok::<_, Box<dyn Error>>(app)
    };
    health.serve_after(listener, start).await?;
    Ok(ExitCode::SUCCESS)
}

async fn work(heartbeat: Heartbeat, how: String) {
    let started = Instant::now();
    let jobs = Mutex::new(());
    let mut turns = interval(Duration::from_secs(1));
    loop {
        turns.tick().await;
        heartbeat.beat();
        let _first = jobs.lock().await;
        if started.elapsed() >= Duration::from_secs(2) {
            match how.as_str() {
                "deadlock" => drop(jobs.lock().await),
                "panic" => panic!("as asked"),
                _ => {}
            }
        }
    }
}

/// Blocks its thread, which asynchronous code must not do.
async fn block() {
    sleep(Duration::from_secs(2)).await;
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv();
}
