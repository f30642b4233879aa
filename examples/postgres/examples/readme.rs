//! The program of the README, word for word.
//!
//! ```sh
//! DATABASE_URL=postgres://service:secret@127.0.0.1/service cargo run --example readme
//! cargo run --example readme -- healthcheck
//! ```

use std::{env, error::Error, process::ExitCode};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, build_info};
use sqlx::PgPool;
use tokio::net::TcpListener;

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // Run this first: a probe needs no runtime, logger or configuration.
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    // The errors of failing checks are in the log only.
    tracing_subscriber::fmt::init();
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let pool = PgPool::connect_lazy(&url)?;
    let health = Health::builder(BUILD)
        .required_with("postgres", pool, async |pool| {
            sqlx::query("SELECT 1").execute(&pool).await
        })
        .build()?;
    let app = Router::new().route("/", get(async || "hello"));
    let listener = TcpListener::bind("[::]:8080").await?;
    health.serve(listener, app).await?;
    Ok(ExitCode::SUCCESS)
}
