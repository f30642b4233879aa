//! A service named api.

use std::{error::Error, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    lifesign_e2e::service::run(lifesign::build_info!())
}
