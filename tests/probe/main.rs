//! The probe as a child process, against servers that misbehave in every way we know of.
#![cfg(all(target_os = "linux", feature = "axum", feature = "listener"))]

mod command;
#[path = "../support/mod.rs"]
mod support;
