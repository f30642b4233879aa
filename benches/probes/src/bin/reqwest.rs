//! `reqwest URL`: reqwest as most services use it, on a runtime of many threads.

use std::{env, process::ExitCode, time::Duration};

#[tokio::main]
async fn main() -> ExitCode {
    let url = env::args().nth(1).unwrap_or_default();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build();
    let answer = match client {
        Ok(client) => client.get(url).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
