//! The reference service as it is.

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    service()
}
