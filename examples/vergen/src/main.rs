//! A service whose build script runs vergen. `/health` reports vergen's values.
//!
//! ```sh
//! cargo run --manifest-path examples/vergen/Cargo.toml
//! curl http://127.0.0.1:8080/health
//! ```

use std::{env, error::Error, process::ExitCode};

use axum::{Router, routing::get};
use lifesign::{Cli, Health, build_info};
use tokio::net::TcpListener;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(build_info!()).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let health = Health::builder(build_info!()).build()?;
    let app = Router::new()
        .route("/", get(async || "hello"))
        .merge(health.routes());
    let shutdown = health.handle_signals()?;
    let address = env::var("ADDRESS").unwrap_or_else(|_| "0.0.0.0:8080".into());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    health.advertise(address).set_ready();
    println!("listening on {address}");
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.delay_over())
        .await?;
    Ok(ExitCode::SUCCESS)
}
