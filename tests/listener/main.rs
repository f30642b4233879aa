//! The listener for services without axum, tested on real sockets.

mod clients;
mod flood;
#[path = "../support/mod.rs"]
mod support;
