//! Replaces `tests/support` for `process.rs`, which this crate shares with `tests/lifecycle`.

use std::path::PathBuf;

/// Returns the path of the program `lifecycle`, which this crate builds with HTTP/2.
pub(crate) fn example(name: &str) -> PathBuf {
    assert_eq!(name, "lifecycle");
    env!("CARGO_BIN_EXE_lifecycle").into()
}
