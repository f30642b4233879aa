//! Probes over gRPC and with the `healthcheck` command, before and during the drain.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const APP: &str = env!("CARGO_BIN_EXE_grpc");

/// The example in a child process, killed when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn watchers_learn_of_the_drain_at_once() -> Result<(), Box<dyn Error>> {
    let mut service = Command::new(APP)
        .env("ADDRESS", "127.0.0.1:0")
        .env("HEALTH_ADDRESS", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .map(Service)?;
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().expect("a pipe")).read_line(&mut line)?;
    let address = line.trim().replace("listening on ", "http://");
    let channel = Endpoint::new(address)?.connect().await?;
    let request = HealthCheckRequest::default();
    let mut watch = HealthClient::new(channel)
        .watch(request)
        .await?
        .into_inner();
    let mut statuses = vec![watch.message().await?.expect("a status").status()];
    while statuses.last() != Some(&ServingStatus::Serving) {
        statuses.push(watch.message().await?.expect("a status").status());
    }
    let probe = Command::new(APP).arg("healthcheck").output()?;
    assert!(probe.status.success(), "{probe:?}");

    let signalled = Instant::now();
    let pid = service.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()?
            .success()
    );

    let status = watch.message().await?.expect("a status").status();
    assert_eq!(status, ServingStatus::NotServing);
    assert!(signalled.elapsed() < Duration::from_millis(500));
    let probe = Command::new(APP).arg("healthcheck").output()?;
    let line = String::from_utf8(probe.stderr)?;
    assert!(
        line.starts_with("unhealthy: 503 fail: draining (GET "),
        "{line}"
    );
    drop(watch);
    // The wait runs in another thread, so that the client can close its connection in the meantime.
    let end = tokio::task::spawn_blocking(move || service.0.wait());
    assert!(end.await??.success());
    let took = signalled.elapsed();
    assert!((5..9).contains(&took.as_secs()), "{took:?}");
    Ok(())
}
