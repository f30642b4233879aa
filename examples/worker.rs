//! A service without HTTP of its own: a worker loop with a heartbeat, and lifesign's listener.
//!
//! ```sh
//! cargo run --example worker
//! cargo run --example worker -- healthcheck
//! ```

use std::{
    env,
    error::Error,
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use lifesign::{Cli, Health, Heartbeat, build_info};
use tokio::time::interval;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(build_info!()).run() {
        return Ok(code);
    }
    serve()
}

// One thread is enough for a worker, and lets a job that blocks it show on the health check.
#[tokio::main(flavor = "current_thread")]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let address = env::var("HEALTH_ADDRESS").unwrap_or_else(|_| "0.0.0.0:8081".into());
    let health = Health::builder(build_info!()).build()?;
    let shutdown = health.handle_signals()?;

    let listener = health.listen(address.parse()?)?;
    println!("health on {}", listener.local_addr()?);
    // Never awaited: it answers until the process ends, through the whole drain.
    tokio::spawn(listener.serve());

    let worker = tokio::spawn(work(health.heartbeat("jobs", Duration::from_secs(10))?));
    health.set_ready();

    shutdown.delay_over().await;
    // A real worker would finish the job at hand here.
    worker.abort();
    Ok(ExitCode::SUCCESS)
}

async fn work(heartbeat: Heartbeat) {
    let mut jobs = interval(Duration::from_secs(1));
    loop {
        jobs.tick().await;
        heartbeat.beat();
        tracing::debug!("did a job");
    }
}
