//! How a service ends with the default times: with HTTP/2, under load, and as PID 1.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test lifecycle -- --nocapture`

mod containers;
mod drains;
mod http2;
mod load;
#[expect(
    dead_code,
    reason = "shared with tests/lifecycle, which uses all of it"
)]
#[path = "../../../lifecycle/process.rs"]
mod process;
mod rows;
mod support;
mod websocket;
