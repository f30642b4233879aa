//! Probes over gRPC and with the `healthcheck` command, before and during the drain.

mod service;

use std::{error::Error, process::Command, time::Duration};

use tokio::time::timeout;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use self::service::{APP, Service};

#[tokio::test]
async fn watchers_learn_of_the_drain_at_once() -> Result<(), Box<dyn Error>> {
    let (mut service, address) = Service::start()?;
    let channel = Endpoint::new(format!("http://{address}"))?;
    let channel = channel.connect().await?;
    let mut client = HealthClient::new(channel);
    let mut server = client.watch(request("")).await?.into_inner();
    let mut orders = client.watch(request("example.Orders")).await?.into_inner();
    for watch in [&mut server, &mut orders] {
        // The first message can precede readiness.
        let first = watch.message().await?.expect("a status").status();
        if first != ServingStatus::Serving {
            assert_eq!(first, ServingStatus::NotServing);
            let next = watch.message().await?.expect("a status").status();
            assert_eq!(next, ServingStatus::Serving);
        }
    }
    for name in ["", "example.Orders"] {
        let status = client.check(request(name)).await?.into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    let unknown = client.check(request("example.Unknown")).await;
    assert_eq!(unknown.expect_err("an error").code(), Code::NotFound);
    let mut unknown = client.watch(request("example.Unknown")).await?.into_inner();
    let status = unknown.message().await?.expect("a status").status();
    assert_eq!(status, ServingStatus::ServiceUnknown);
    // Readiness is read every second. A status that has not changed is not sent again.
    let repeated = timeout(Duration::from_millis(1100), server.message()).await;
    assert!(repeated.is_err(), "{repeated:?}");
    let probe = Command::new(APP).arg("healthcheck").output()?;
    assert!(probe.status.success(), "{probe:?}");

    let signalled = service.terminate()?;

    for watch in [&mut server, &mut orders] {
        let status = watch.message().await?.expect("a status").status();
        assert_eq!(status, ServingStatus::NotServing);
    }
    assert!(signalled.elapsed() < Duration::from_millis(500));
    let status = client.check(request("")).await?.into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    let probe = Command::new(APP).arg("healthcheck").output()?;
    let line = String::from_utf8(probe.stderr)?;
    assert!(
        line.starts_with("unhealthy: 503 fail: draining (GET "),
        "{line}"
    );
    // The watches end after the drain delay, and do not keep the server from ending.
    for watch in [&mut server, &mut orders, &mut unknown] {
        assert_eq!(watch.message().await?, None);
    }
    // The wait runs in another thread, so that the client can close its connection in the meantime.
    let end = tokio::task::spawn_blocking(move || service.0.wait());
    assert!(end.await??.success());
    let took = signalled.elapsed();
    assert!((5..6).contains(&took.as_secs()), "{took:?}");
    Ok(())
}

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}
