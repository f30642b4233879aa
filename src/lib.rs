//! Health checks for containerized services: a `healthcheck` command, `/health` routes and build
//! metadata.
//!
//! - The image's `HEALTHCHECK` executes the service's own binary as `app healthcheck`, which
//!   probes the running service over localhost. The image needs no shell and no curl.
//! - Orchestrators and load balancers request `/health`, `/health/ready` or `/health/live`. A
//!   database outage takes an instance out of traffic, but does not restart it.
//! - `/health`, `app version` and the image's labels report the same version, commit and date.
//!
//! ```no_run
//! use std::{error::Error, process::ExitCode};
//!
//! use axum::{Router, routing::get};
//! use lifesign::{BuildInfo, Cli, Health, build_info};
//! use tokio::net::TcpListener;
//!
//! const BUILD: BuildInfo = build_info!();
//!
//! fn main() -> Result<ExitCode, Box<dyn Error>> {
//!     // Run this first: a probe needs no runtime, logger or configuration.
//!     if let Some(code) = Cli::new(BUILD).run() {
//!         return Ok(code);
//!     }
//!     serve()
//! }
//!
//! #[tokio::main]
//! async fn serve() -> Result<ExitCode, Box<dyn Error>> {
//!     let health = Health::builder(BUILD)
//!         .required("disk", async || tokio::fs::metadata("/data").await)
//!         .build()?;
//!     let app = Router::new().route("/", get(async || "hello"));
//!     let listener = TcpListener::bind("[::]:8080").await?;
//!     health.serve(listener, app).await?;
//!     Ok(ExitCode::SUCCESS)
//! }
//! ```
//!
//! # Where to start
//!
//! | to | use |
//! |---|---|
//! | add the `healthcheck` and `version` commands | [`Cli`] |
//! | register checks and configure the routes | [`Health::builder`] |
//! | watch a worker loop | [`Health::heartbeat`] |
//! | serve an axum router until the service ends | [`Health::serve`] |
//! | serve the routes with a server of your own | [`Health::routes`] |
//! | serve the routes on a port of their own, in a service without an HTTP server | [`Health::listen`] |
//! | report health through another framework or gRPC | [`Health::report`] |
//! | let `healthcheck` find the service | [`Health::advertise`] |
//! | shut down workers and other servers | [`Health::handle_signals`] |
//! | embed version, commit and date | [`build_info!`], [`build::emit`] |
//!
//! # Features
//!
//! | feature | default | what it adds | crates |
//! |---|---|---|--:|
//! | `core` | yes | the commands, checks, reports and signal handling | 23 |
//! | `axum` | yes | [`Health::serve`], [`Health::routes`] | 44 |
//! | `listener` | yes | [`Health::listen`] | 32 |
//! | `https` | no | `healthcheck https://…` | 96 |
//! | `build` | no | [`build::emit`], for build scripts | 0 |
//!
//! The last column counts the crates that are compiled with this feature alone. Every feature
//! except `build` includes `core`, which is enough for actix-web, tonic or no framework.
#![cfg_attr(
    not(all(feature = "axum", feature = "listener", feature = "build")),
    expect(
        rustdoc::broken_intra_doc_links,
        reason = "links to items behind disabled features"
    )
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)
)]

// The service.
#[cfg(feature = "core")]
mod health;
#[cfg(feature = "core")]
mod report;
#[cfg(any(feature = "axum", feature = "listener"))]
mod serve;
#[cfg(feature = "core")]
mod shutdown;

// What the service and the probe share.
#[cfg(feature = "core")]
mod advertise;
#[cfg(feature = "core")]
mod endpoint;
#[cfg(feature = "core")]
mod identity;

// The probe.
#[cfg(feature = "core")]
mod cli;
#[cfg(feature = "core")]
mod probe;

// Build metadata.
#[cfg(feature = "build")]
pub mod build;
mod build_info;

#[cfg(all(fuzzing, feature = "listener"))]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::build_info::BuildInfo;
#[cfg(feature = "listener")]
pub use crate::serve::Listener;
#[cfg(feature = "core")]
pub use crate::{
    cli::Cli,
    endpoint::Endpoint,
    health::{Health, HealthBuilder, Heartbeat, Probe, RegisterError, ServiceState, Status},
    report::{CheckReport, Report},
    shutdown::Shutdown,
};

/// Compiles the examples of these pages.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/https-grpc.md")]
#[doc = include_str!("../docs/life-cycle.md")]
#[doc = include_str!("../docs/probes.md")]
struct Documentation;
