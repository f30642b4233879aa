//! A service without tokio: `tiny_http` accepts connections, and a thread responds to each request.
//!
//! ```sh
//! cargo run --example blocking
//! cargo run --example blocking -- healthcheck
//! ```

use std::{env, error::Error, io, process::ExitCode, sync::Arc, thread};

use lifesign::{BuildInfo, Cli, Health, Probe, build_info};
use tiny_http::{Header, Request, Response, Server};
use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BUILD: BuildInfo = build_info!();

fn main() -> Outcome<ExitCode> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

fn serve() -> Outcome<ExitCode> {
    // Checks and signal handlers need a runtime. One worker thread is enough.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let health = Health::builder(BUILD).build()?;
    let shutdown = health.handle_signals()?;

    let address = env::var("ADDRESS").unwrap_or_else(|_| "[::]:8080".into());
    let server = Arc::new(Server::http(address)?);
    let address = server.server_addr().to_ip().ok_or("no IP address")?;
    println!("listening on {address}");
    health.advertise(address).set_ready();
    runtime.spawn({
        let (server, delay_over) = (Arc::clone(&server), shutdown.delay_over());
        async move {
            delay_over.await;
            server.unblock();
        }
    });

    // Each request's thread has a clone, so the channel is closed when the last request has ended.
    let (in_flight, mut all_ended) = mpsc::channel::<()>(1);
    loop {
        let request = match server.recv() {
            Ok(request) => request,
            Err(_unblocked) if shutdown.has_started() => break,
            Err(error) => return Err(error.into()),
        };
        let (health, runtime) = (health.clone(), runtime.handle().clone());
        let in_flight = in_flight.clone();
        thread::spawn(move || {
            let _in_flight = in_flight;
            if let Err(error) = respond(request, &health, &runtime) {
                eprintln!("no response: {error}");
            }
        });
    }
    // Closes the port.
    drop(server);
    drop(in_flight);
    if runtime.block_on(shutdown.bound(all_ended.recv())).is_none() {
        eprintln!("requests were cut");
    }
    Ok(shutdown.exit_code())
}

fn respond(mut request: Request, health: &Health, runtime: &Handle) -> io::Result<()> {
    let probe = match request.url() {
        "/health" => Probe::Health,
        "/health/ready" => Probe::Readiness,
        "/health/live" => Probe::Liveness,
        _ => {
            let mut name = String::new();
            request.as_reader().read_to_string(&mut name)?;
            return request.respond(Response::from_string(format!("hello {name}\n")));
        }
    };
    let report = runtime.block_on(health.report(probe));
    let headers = report.headers();
    let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok());
    let body = Response::from_data(report.body()).with_status_code(report.http_status());
    request.respond(headers.fold(body, Response::with_header))
}
