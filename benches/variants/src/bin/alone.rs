//! A program that is only the probe, without a service.

use std::process::ExitCode;

fn main() -> ExitCode {
    let probe = lifesign::Cli::new(lifesign::build_info!());
    probe.run().unwrap_or(ExitCode::FAILURE)
}
