//! A service on hyper alone.
//!
//! ```sh
//! cargo run --bin hyper
//! cargo run --bin hyper -- healthcheck
//! ```

use std::{env, error::Error, pin::pin, process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use lifesign::{BuildInfo, Cli, Health, Probe, Shutdown, build_info};
use tokio::{net::TcpListener, select, time::sleep};

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
    health.advertise(address).set_ready();
    println!("listening on {address}");

    let connections = GracefulShutdown::new();
    let mut delay_over = pin!(shutdown.delay_over());
    loop {
        let accepted = select! {
            accepted = listener.accept() => accepted,
            () = &mut delay_over => break,
        };
        let Ok((stream, _)) = accepted else {
            // For example, the process has too many open files.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (health, shutdown) = (health.clone(), shutdown.clone());
        let service = service_fn(move |request| respond(request, health.clone(), shutdown.clone()));
        // With a timer, hyper closes connections that send no whole request head within 30 s.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connections.watch(connection));
    }
    // Closes the port.
    drop(listener);
    if shutdown.bound(connections.shutdown()).await.is_none() {
        eprintln!("connections were cut");
    }
    Ok(shutdown.exit_code())
}

async fn respond(
    request: Request<Incoming>,
    health: Health,
    shutdown: Shutdown,
) -> hyper::Result<Response<Full<Bytes>>> {
    let mut response = match request.uri().path() {
        "/health" => health.report(Probe::Health).await.into(),
        "/health/ready" => health.report(Probe::Readiness).await.into(),
        "/health/live" => health.report(Probe::Liveness).await.into(),
        _ => {
            let name = request.into_body().collect().await?.to_bytes();
            Response::new([b"hello ", &*name, b"\n"].concat().into())
        }
    };
    if shutdown.has_started() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}
