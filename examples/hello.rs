//! The README's program: an axum service that can tell whether it is well.
//!
//! ```sh
//! cargo run --example hello
//! cargo run --example hello -- healthcheck
//! ```

use std::{error::Error, process::ExitCode};

use axum::{Router, routing::get};
use lifesign::{Cli, Health, build_info};
use tokio::net::TcpListener;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First thing, before runtime, logger and configuration: this is what HEALTHCHECK executes.
    if let Some(code) = Cli::new(build_info!()).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let health = Health::builder(build_info!()).build()?;
    let shutdown = health.handle_signals()?;
    let app = Router::new()
        .route("/", get(async || "hello"))
        .merge(health.routes());
    let listener = TcpListener::bind("0.0.0.0:8080").await?;
    health.advertise(listener.local_addr()?).set_ready();
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.delay_over())
        .await?;
    Ok(ExitCode::SUCCESS)
}
