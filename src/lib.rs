//! Health checks for containerized services.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)
)]

#[cfg(feature = "build")]
pub mod build;
mod build_info;

pub use crate::build_info::BuildInfo;
