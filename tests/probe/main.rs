//! Runs `service healthcheck …` as a child process, against servers that misbehave.
//!
//! All tests use [`printed_line`](command::printed_line), which checks what every probe must do:
//! exit with 0 or 1, and print one line of at most 400 bytes, on stdout if the service is healthy
//! and otherwise on stderr.
#![cfg(all(target_os = "linux", feature = "axum", feature = "listener"))]

mod arguments;
mod command;
mod deadline;
mod json;
mod output;
mod request;
mod resources;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod target;
mod troubleshooting;
mod unix;
