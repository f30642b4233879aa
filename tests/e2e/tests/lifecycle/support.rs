//! What `process.rs` needs here.

use std::path::PathBuf;

/// The only program there is: the one with HTTP/2.
pub(crate) fn example(name: &str) -> PathBuf {
    assert_eq!(name, "lifecycle");
    env!("CARGO_BIN_EXE_lifecycle").into()
}
