//! A service whose build script runs vergen. `/health` reports vergen's values.
//!
//! ```sh
//! cargo run --manifest-path examples/vergen/Cargo.toml
//! curl http://localhost:8080/health
//! ```

use std::{env, error::Error, process::ExitCode};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, build_info};
use tokio::net::TcpListener;

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let health = Health::builder(BUILD).build()?;
    let app = Router::new().route("/", get(async || "hello"));
    let address = env::var("ADDRESS").unwrap_or_else(|_| "[::]:8080".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    health.serve(listener, app).await?;
    Ok(ExitCode::SUCCESS)
}
