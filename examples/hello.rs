//! The smallest service: an axum router that is served through its whole life cycle.
//!
//! ```sh
//! cargo run --example hello
//! cargo run --example hello -- healthcheck
//! ```

use std::{error::Error, process::ExitCode};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, build_info};
use tokio::net::TcpListener;

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The probe runs here, before the service's runtime, logger and configuration: HEALTHCHECK
    // executes this binary.
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let health = Health::builder(BUILD).build()?;
    let app = Router::new().route("/", get(async || "hello"));
    let listener = TcpListener::bind("[::]:8080").await?;
    health.serve(listener, app).await?;
    Ok(ExitCode::SUCCESS)
}
