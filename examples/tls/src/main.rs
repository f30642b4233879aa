//! A service that terminates TLS itself and is probed over HTTPS.
//!
//! ```sh
//! cargo run --package tls
//! cargo run --package tls -- healthcheck
//! ```

use std::{env, error::Error, net::TcpListener, process::ExitCode};

use axum::{Router, response::Redirect, routing::get};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use lifesign::{BuildInfo, Cli, Endpoint, Health, build_info};

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
    let app = Router::new()
        .route("/", get(async || "hello"))
        // An old path that redirects: the probe reports the redirect and does not follow it.
        .route("/status", get(async || Redirect::permanent("/health")))
        .merge(health.routes());

    // A real service reads its certificate and key from files. The probe does not verify
    // certificates.
    let certified = rcgen::generate_simple_self_signed(["service.example".to_owned()])?;
    let certificate = certified.cert.pem().into_bytes();
    let key = certified.signing_key.serialize_pem().into_bytes();
    let tls = RustlsConfig::from_pem(certificate, key).await?;

    let address = env::var("ADDRESS").unwrap_or_else(|_| "[::]:8443".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    health.advertise(Endpoint::https(address)).set_ready();
    println!("listening on {address}");

    let handle = Handle::new();
    tokio::spawn({
        let (handle, delay_over) = (handle.clone(), shutdown.delay_over());
        async move {
            delay_over.await;
            handle.graceful_shutdown(None);
        }
    });
    let server = axum_server::from_tcp_rustls(listener, tls)?
        .handle(handle)
        .serve(app.into_make_service());
    shutdown.bound(server).await.transpose()?;
    Ok(shutdown.exit_code())
}
