//! The HTTPS probe in a program whose `main` is asynchronous. This test is such a program.

use std::{
    env,
    net::TcpListener,
    process::{Command, ExitCode},
};

use lifesign::{Cli, build_info};

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(code) = Cli::new(build_info!()).run() {
        return code;
    }
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = closed.expect("a port is free");
    let output = Command::new(env::current_exe().expect("a running test has a path"))
        .args(["healthcheck", &format!("https://{closed}")])
        .output()
        .expect("it can be started again");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("unhealthy: connect to {closed}: connection refused\n")
    );
    assert_eq!(output.status.code(), Some(1));
    ExitCode::SUCCESS
}
