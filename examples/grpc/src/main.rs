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

use std::{env, error::Error, mem, net::SocketAddr, pin::Pin, process::ExitCode, time::Duration};

use lifesign::{BuildInfo, Cli, Health, Probe, Shutdown, Status, build_info};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, StreamExt, once, wrappers::WatchStream};
use tonic::{
    Request, Response,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

/// The services whose status clients can ask for. The empty name is the whole server.
const NAMES: [&str; 2] = ["", "example.Orders"];

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

    let (sender, receiver) = watch::channel(ServingStatus::NotServing);
    tokio::spawn(report_to(sender, health.clone(), shutdown.clone()));

    let listener = TcpListener::bind(self::address("ADDRESS", "[::]:50051")?).await?;
    println!("listening on {}", listener.local_addr()?);
    health.set_ready();
    let server = Server::builder()
        .add_service(HealthServer::new(HealthService(receiver)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), shutdown.delay_over());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

/// Reports over gRPC what the readiness route reports over HTTP, until the drain begins.
async fn report_to(sender: watch::Sender<ServingStatus>, health: Health, shutdown: Shutdown) {
    let set = |new| sender.send_if_modified(|status| mem::replace(status, new) != new);
    let follow = async {
        loop {
            set(match health.report(Probe::Readiness).await.status() {
                Status::Fail => ServingStatus::NotServing,
                _ => ServingStatus::Serving,
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    // A report waits for the checks, so it is dropped when the drain begins.
    tokio::select! {
        biased;
        () = shutdown.started() => {}
        () = follow => {}
    }
    set(ServingStatus::NotServing);
    // Dropping the sender ends the watches, which would otherwise keep their connections open.
    shutdown.delay_over().await;
}

/// `grpc.health.v1`.
///
/// tonic-health has an implementation too. It ends a watch of an unknown service with `NOT_FOUND`,
/// where the protocol asks for `SERVICE_UNKNOWN` and an open stream.
struct HealthService(watch::Receiver<ServingStatus>);

type Outcome<T> = Result<T, tonic::Status>;

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Outcome<HealthCheckResponse>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Outcome<Response<HealthCheckResponse>> {
        match is_known(&request) {
            true => Ok(Response::new(response(*self.0.borrow()))),
            false => Err(tonic::Status::not_found("unknown service")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Outcome<Response<Self::WatchStream>> {
        let receiver = self.0.clone();
        let statuses: Self::WatchStream = match is_known(&request) {
            true => Box::pin(WatchStream::new(receiver).map(|status| Ok(response(status)))),
            false => {
                let unknown = once(ServingStatus::ServiceUnknown);
                let no_changes = WatchStream::from_changes(receiver).filter(|_| false);
                Box::pin(unknown.chain(no_changes).map(|status| Ok(response(status))))
            }
        };
        Ok(Response::new(statuses))
    }
}

fn is_known(request: &Request<HealthCheckRequest>) -> bool {
    NAMES.contains(&&*request.get_ref().service)
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn address(variable: &str, default: &str) -> Result<SocketAddr, String> {
    let text = env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse()
        .map_err(|error| format!("{variable}={text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_check_that_hangs_does_not_delay_the_end() {
        let passed = AtomicBool::new(false);
        let (hangs, mut hanging) = mpsc::unbounded_channel();
        let passes_once = move || {
            let first = !passed.swap(true, Ordering::Relaxed);
            let hangs = hangs.clone();
            async move {
                if !first {
                    let _ = hangs.send(());
                    pending::<()>().await;
                }
                Ok::<_, String>(())
            }
        };
        let health = Health::builder(BUILD)
            .optional("passes-once", passes_once)
            .build()
            .expect("a valid name");
        health.set_ready();
        let shutdown = health.handle_signals().expect("a runtime");
        let (sender, mut status) = watch::channel(ServingStatus::NotServing);
        tokio::spawn(report_to(sender, health.clone(), shutdown));
        let serving = status.wait_for(|status| *status == ServingStatus::Serving);
        drop(serving.await.expect("a status"));
        hanging.recv().await.expect("a second run");

        health.begin_drain();
        let end = status.wait_for(|status| *status == ServingStatus::NotServing);
        let end = timeout(Duration::from_millis(300), end).await;
        drop(end.expect("no delay").expect("a status"));
    }
}
