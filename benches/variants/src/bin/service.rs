//! The unchanged reference service.

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    service()
}
