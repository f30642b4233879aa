//! The reference service without the commands `healthcheck` and `version`.
#![allow(
    unused,
    reason = "only `service`, which is not called, uses these items"
)]

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
