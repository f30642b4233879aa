//! The life cycle of a service, from its start to its exit.
#![cfg(all(unix, feature = "axum", feature = "listener"))]

mod blocking;
mod connections;
mod process;
mod serving;
mod signals;
mod steps;
#[path = "../support/mod.rs"]
mod support;
