//! A service on poem.
//!
//! ```sh
//! cargo run --bin poem
//! cargo run --bin poem -- healthcheck
//! ```

use std::{env, error::Error, process::ExitCode};

use lifesign::{BuildInfo, Cli, Health, Probe, build_info};
use poem::{
    Body, EndpointExt, Response, Route, Server, handler,
    http::{self, HeaderValue, header::CONNECTION},
    listener::TcpAcceptor,
    web::Data,
};
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
    let shutdown = health.handle_signals()?;

    let address = env::var("ADDRESS").unwrap_or_else(|_| "[::]:8080".into());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let app = Route::new()
        .at("/health", respond.data(Probe::Health))
        .at("/health/ready", respond.data(Probe::Readiness))
        .at("/health/live", respond.data(Probe::Liveness))
        .at("/", hello)
        .data(health.clone())
        .map_to_response()
        .map({
            let shutdown = shutdown.clone();
            move |mut response: Response| {
                if shutdown.has_started() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                async { response }
            }
        });
    let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .run_with_graceful_shutdown(app, shutdown.delay_over(), None);
    health.advertise(address).set_ready();
    println!("listening on {address}");
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

#[handler]
async fn respond(health: Data<&Health>, probe: Data<&Probe>) -> Response {
    let response: http::Response<Body> = health.report(*probe.0).await.into();
    let (head, body) = response.into_parts();
    let mut response = Response::from((head.status, body));
    *response.headers_mut() = head.headers;
    response
}

#[handler]
fn hello(name: String) -> String {
    format!("hello {name}\n")
}
