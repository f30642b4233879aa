//! The examples as real processes: started, probed, signalled and stopped.
#![cfg(all(unix, feature = "axum", feature = "listener"))]

mod checks;
mod client;
mod container;
mod discovery;
mod drain;
mod forgery;
mod linux;
mod process;
mod redis;
mod secrets;
mod serving;
#[path = "../support/mod.rs"]
mod support;
