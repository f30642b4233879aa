//! The probe in a binary of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let probe = lifesign::Cli::new(lifesign::build_info!());
    probe.run().unwrap_or(ExitCode::FAILURE)
}
