//! A service on actix-web.
//!
//! ```sh
//! cargo run --bin actix
//! cargo run --bin actix -- healthcheck
//! ```

use std::{env, error::Error, net::TcpListener, process::ExitCode};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::Service,
    http::{ConnectionType, StatusCode},
    web::{self, Data},
};
use lifesign::{BuildInfo, Cli, Health, Probe, build_info};

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[actix_web::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let health = Health::builder(BUILD).build()?;
    let shutdown = health.handle_signals()?;

    let address = env::var("ADDRESS").unwrap_or_else(|_| "[::]:8080".into());
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let app = {
        let (health, shutdown) = (Data::new(health.clone()), shutdown.clone());
        move || {
            let shutdown = shutdown.clone();
            App::new()
                .app_data(health.clone())
                .route("/health", web::to(|health| respond(health, Probe::Health)))
                .route(
                    "/health/ready",
                    web::to(|health| respond(health, Probe::Readiness)),
                )
                .route(
                    "/health/live",
                    web::to(|health| respond(health, Probe::Liveness)),
                )
                .route("/", web::to(hello))
                .wrap_fn(move |request, service| {
                    let shutdown = shutdown.clone();
                    let response = service.call(request);
                    async move {
                        let mut response = response.await?;
                        if shutdown.has_started() {
                            let head = response.response_mut().head_mut();
                            head.set_connection_type(ConnectionType::Close);
                        }
                        Ok(response)
                    }
                })
        }
    };
    // With this shutdown signal, actix-web installs no signal handlers of its own.
    let server = HttpServer::new(app)
        .shutdown_signal(shutdown.delay_over())
        .listen(listener)?
        .run();
    health.advertise(address).set_ready();
    println!("listening on {address}");
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}

async fn respond(health: Data<Health>, probe: Probe) -> HttpResponse {
    let report = health.report(probe).await;
    let status = StatusCode::from_u16(report.http_status()).expect("200 or 503");
    let mut response = HttpResponse::build(status);
    for header in report.headers() {
        response.insert_header(header);
    }
    response.body(report.body().to_vec())
}

async fn hello(name: String) -> String {
    format!("hello {name}\n")
}
