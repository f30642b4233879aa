//! The examples as real processes: started, probed, signalled and ended.
#![cfg(all(unix, feature = "axum", feature = "listener"))]

mod processes;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
