//! The life cycle of a service: from its first instruction to a bounded end.
#![cfg(all(unix, feature = "axum", feature = "listener"))]

mod process;
mod signals;
mod steps;
#[path = "../support/mod.rs"]
mod support;
