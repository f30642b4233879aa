//! `reqwest URL`: a reqwest client on a multi-threaded runtime, as in most services.

use std::{env, process::ExitCode, time::Duration};

#[tokio::main]
async fn main() -> ExitCode {
    let url = env::args().nth(1).unwrap_or_default();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build();
    let response = match client {
        Ok(client) => client.get(url).send().await,
        Err(error) => Err(error),
    };
    match response {
        Ok(response) if response.status().is_success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
