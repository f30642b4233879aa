//! A worker without an HTTP server of its own: a loop with a heartbeat, and lifesign's listener.
//!
//! ```sh
//! cargo run --example worker
//! cargo run --example worker -- healthcheck
//! ```

use std::{
    env,
    error::Error,
    io::{self, IsTerminal},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use lifesign::{BuildInfo, Cli, Health, Heartbeat, build_info};
use tokio::{select, time::interval};

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

// The runtime has one thread. A job that blocks it also blocks the health routes, so the probe
// notices.
#[tokio::main(flavor = "current_thread")]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let address = env::var("HEALTH_ADDRESS").unwrap_or_else(|_| "[::]:8081".into());
    let health = Health::builder(BUILD).build()?;
    let shutdown = health.handle_signals()?;

    let listener = health.listen(address.parse()?)?;
    println!("health on {}", listener.local_addr()?);
    // The task is not awaited, so the listener responds until the process ends.
    tokio::spawn(listener.serve());

    let heartbeat = health.heartbeat("jobs", Duration::from_secs(10))?;
    health.set_ready();
    let jobs = work(shutdown.started(), heartbeat);
    if shutdown.bound(jobs).await.is_none() {
        // A job was interrupted, so the orchestrator must not count it as done.
        return Ok(ExitCode::FAILURE);
    }
    Ok(shutdown.exit_code())
}

/// Takes jobs until the drain begins, and finishes the current one.
async fn work(drain: impl Future<Output = ()>, heartbeat: Heartbeat) {
    let mut drain = pin!(drain);
    let mut jobs = interval(Duration::from_secs(1));
    loop {
        heartbeat.beat();
        select! {
            biased;
            () = drain.as_mut() => break,
            _ = jobs.tick() => {}
        }
        tracing::debug!("did a job");
    }
    heartbeat.finish();
}
