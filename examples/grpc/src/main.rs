//! A gRPC service: `grpc.health.v1` for gRPC probes, and a listener for the container's `HEALTHCHECK`.
//!
//! ```sh
//! cargo run
//! cargo run -- healthcheck
//! ```
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ADDRESS` | `[::]:50051` | where gRPC is served |
//! | `HEALTH_ADDRESS` | `[::]:8080` | where HTTP probes are served |

use std::{env, error::Error, net::SocketAddr, process::ExitCode, time::Duration};

use lifesign::{BuildInfo, Cli, Health, Probe, Shutdown, Status, build_info};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};

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
    let shutdown = health.handle_signals()?;
    let address = address("HEALTH_ADDRESS", "[::]:8080")?;
    tokio::spawn(health.listen(address)?.serve());

    let (reporter, health_service) = health_reporter();
    tokio::spawn(report_to(reporter, health.clone(), shutdown.clone()));

    let listener = TcpListener::bind(self::address("ADDRESS", "[::]:50051")?).await?;
    println!("listening on {}", listener.local_addr()?);
    health.set_ready();
    let server = Server::builder()
        .add_service(health_service)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Reports over gRPC what the readiness route reports over HTTP, until the drain begins.
async fn report_to(reporter: HealthReporter, health: Health, shutdown: Shutdown) {
    while !shutdown.has_started() {
        let serving = match health.report(Probe::Readiness).await.status() {
            Status::Fail => ServingStatus::NotServing,
            _ => ServingStatus::Serving,
        };
        reporter.set_service_status("", serving).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.started() => {}
        }
    }
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
}

fn address(variable: &str, default: &str) -> Result<SocketAddr, String> {
    let text = env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse()
        .map_err(|error| format!("{variable}={text:?}: {error}"))
}
