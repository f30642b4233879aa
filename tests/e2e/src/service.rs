//! The services of `tests/identity`, which differ only in their names.
//!
//! | variable | meaning |
//! |---|---|
//! | `ADDRESS` | address to listen on; default `0.0.0.0:8080` |
//! | `START` | seconds before it listens |
//! | `STATE=unready` | it listens, but its start never ends |
//! | `DETAILS=hidden` | its responses contain the status only |
//! | `NAME=library` | its `BuildInfo` is that of a library, with another name than the binary |

use std::{env, error::Error, future::pending, io, process::ExitCode, time::Duration};

use axum::{Router, routing::get};
use lifesign::{BuildInfo, Cli, Health, build_info};
use tokio::{net::TcpListener, time::sleep};

const LIBRARY: BuildInfo = build_info!();

#[tokio::main(flavor = "current_thread")]
async fn serve(build: BuildInfo) -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let variable = |name| env::var(name).ok();
    if let Some(seconds) = variable("START") {
        sleep(Duration::from_secs(seconds.parse()?)).await;
    }
    let is_library = variable("NAME").as_deref() == Some("library");
    let mut health = Health::builder(if is_library { LIBRARY } else { build }).build()?;
    if variable("DETAILS").as_deref() == Some("hidden") {
        health = health.status_only();
    }
    let address = variable("ADDRESS").unwrap_or_else(|| "0.0.0.0:8080".into());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    health.advertise(address);
    // Tests probe as soon as they read this line, so `advertise` is called first.
    println!("listening on {address}");
    let app = Router::new().route("/", get(async || "hello\n"));
    let is_unready = variable("STATE").as_deref() == Some("unready");
    let start = async {
        if is_unready {
            pending::<()>().await;
        }
        Ok::<_, io::Error>(app)
    };
    health.serve_after(listener, start).await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the commands or the service of the binary that `build` describes.
///
/// # Errors
///
/// A variable is invalid, or the service cannot listen.
pub fn run(build: BuildInfo) -> Result<ExitCode, Box<dyn Error>> {
    match Cli::new(build).run() {
        Some(code) => Ok(code),
        None => serve(build),
    }
}
