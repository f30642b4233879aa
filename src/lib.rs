//! Health checks for containerized services: a probe, three routes, and build metadata.
//!
//! This is the README; [`Health`] and [`Subcommand`] are where the reference begins.
#![cfg_attr(
    not(all(feature = "axum", feature = "listener")),
    expect(rustdoc::broken_intra_doc_links, reason = "features leave names out")
)]
// Only for rustdoc: to the compiler, a change of the README is none of the crate.
#![cfg_attr(any(doc, doctest), doc = "", doc = include_str!("../README.md"))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)
)]

// In the order of the data's journey: a check is registered, evaluated, reported, served or asked
// for, and becomes an exit code.
#[cfg(feature = "build")]
pub mod build;
mod build_info;
#[cfg(feature = "_core")]
mod check;
#[cfg(feature = "_core")]
mod cli;
#[cfg(feature = "_core")]
mod drain;
#[cfg(feature = "_core")]
mod endpoint;
#[cfg(all(fuzzing, feature = "listener"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "_core")]
mod heartbeat;
#[cfg(feature = "listener")]
mod listener;
#[cfg(feature = "_core")]
mod probe;
#[cfg(feature = "_core")]
mod publication;
#[cfg(feature = "_core")]
mod registry;
#[cfg(feature = "_core")]
mod report;
#[cfg(feature = "axum")]
mod route;

pub use crate::build_info::BuildInfo;
#[cfg(feature = "listener")]
pub use crate::listener::Listener;
#[cfg(feature = "_core")]
pub use crate::{
    check::RegisterError,
    cli::Subcommand,
    endpoint::Endpoint,
    heartbeat::Heartbeat,
    registry::{Health, HealthBuilder},
    report::{Question, Report, Status},
};
