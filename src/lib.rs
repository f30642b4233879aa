//! Health checks for containerized services: a probe, three routes, and build metadata.
//!
//! This is the README; [`Health`] and [`Cli`] are where the reference begins.
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

#[cfg(feature = "core")]
mod advertise;
#[cfg(feature = "build")]
pub mod build;
mod build_info;
#[cfg(feature = "core")]
mod cli;
#[cfg(feature = "core")]
mod endpoint;
#[cfg(all(fuzzing, feature = "listener"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "core")]
mod health;
#[cfg(feature = "core")]
mod probe;
#[cfg(feature = "core")]
mod report;
#[cfg(any(feature = "axum", feature = "listener"))]
mod serve;
#[cfg(feature = "core")]
mod shutdown;

pub use crate::build_info::BuildInfo;
#[cfg(feature = "listener")]
pub use crate::serve::Listener;
#[cfg(feature = "core")]
pub use crate::{
    cli::Cli,
    endpoint::Endpoint,
    health::{Health, HealthBuilder, Heartbeat, Probe, RegisterError, Status},
    report::Report,
};
