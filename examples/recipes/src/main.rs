//! A service with two listeners: HTTP and gRPC for clients, health and metrics for the operators.
//!
//! Its gRPC health service is a server for the check `orders` in `lib.rs`, and always reports
//! `SERVING`. The status in `examples/grpc` follows readiness.
//!
//! ```sh
//! cargo run
//! cargo run -- healthcheck
//! ```
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ADDRESS` | `[::]:8080` | address for clients |
//! | `INTERNAL_ADDRESS` | `[::]:9090` | address for probes and metrics |

use std::{env, error::Error, future::IntoFuture, process::ExitCode, time::Duration};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, build_info};
use tokio::{net::TcpListener, time::sleep};
use tonic::service::Routes;
use tonic_health::server::health_reporter;

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let (_reporter, grpc) = health_reporter();
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(slow))
        .merge(Routes::new(grpc).into_axum_router().reset_fallback());
    let admin = Router::new().route("/metrics", get(async || "up 1\n"));

    let health = Health::builder(BUILD).build()?;
    let shutdown = health.handle_signals()?;
    let public = bind("ADDRESS", "[::]:8080").await?;
    let internal = bind("INTERNAL_ADDRESS", "[::]:9090").await?;
    println!("listening on {}", public.local_addr()?);
    println!("listening on {}", internal.local_addr()?);
    health.advertise(internal.local_addr()?).set_ready();

    let public = axum::serve(public, app).with_graceful_shutdown(shutdown.delay_over());
    let internal = axum::serve(internal, admin.merge(health.routes()))
        .with_graceful_shutdown(shutdown.delay_over());
    shutdown
        .bound(async { tokio::try_join!(public.into_future(), internal.into_future()) })
        .await
        .transpose()?;
    Ok(shutdown.exit_code())
}

async fn bind(variable: &str, default: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind(env::var(variable).unwrap_or_else(|_| default.to_owned())).await
}

/// Responds after 7 s, which is longer than the drain delay.
async fn slow() -> &'static str {
    sleep(Duration::from_secs(7)).await;
    "done"
}
