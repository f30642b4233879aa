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

#[cfg(feature = "_core")]
mod advertise;
#[cfg(feature = "build")]
pub mod build;
mod build_info;
#[cfg(feature = "_core")]
mod cli;
#[cfg(feature = "_core")]
mod endpoint;
#[cfg(all(fuzzing, feature = "listener"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "_core")]
mod health;
#[cfg(feature = "_core")]
mod probe;
#[cfg(feature = "_core")]
mod report;
#[cfg(any(feature = "axum", feature = "listener"))]
mod serve;
#[cfg(feature = "_core")]
mod shutdown;

pub use crate::build_info::BuildInfo;
#[cfg(feature = "listener")]
pub use crate::serve::Listener;
#[cfg(feature = "_core")]
pub use crate::{
    cli::Subcommand,
    endpoint::Endpoint,
    health::{Health, HealthBuilder, Heartbeat, RegisterError},
    report::{Question, Report, Status},
};
