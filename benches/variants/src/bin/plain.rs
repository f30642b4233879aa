//! The reference service without the commands `healthcheck` and `version`.
#![allow(unused, reason = "`service`, which calls them, is not called")]

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
