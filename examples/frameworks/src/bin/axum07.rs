//! A service on axum 0.7. `Health::serve` takes the `Router` of axum 0.8, so this service serves itself.
//!
//! ```sh
//! cargo run --bin axum07
//! cargo run --bin axum07 -- healthcheck
//! ```

use std::{env, error::Error, process::ExitCode};

use axum::{
    Router,
    http::{HeaderValue, header::CONNECTION},
    middleware::map_response,
    response::Response,
    routing::get,
};
use lifesign::{BuildInfo, Cli, Health, Probe, build_info};
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
    let app = Router::new()
        .route("/", get(hello).post(hello))
        .layer(map_response({
            let shutdown = shutdown.clone();
            move |mut response: Response| {
                if shutdown.has_started() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                async { response }
            }
        }))
        .merge(routes(&health));
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.delay_over());
    health.advertise(address).set_ready();
    println!("listening on {address}");
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

fn routes(health: &Health) -> Router {
    let respond = |probe| {
        let health = health.clone();
        get(async move || -> Response { health.report(probe).await.into() })
    };
    Router::new()
        .route("/health", respond(Probe::Health))
        .route("/health/ready", respond(Probe::Readiness))
        .route("/health/live", respond(Probe::Liveness))
}

async fn hello(name: String) -> String {
    format!("hello {name}\n")
}
