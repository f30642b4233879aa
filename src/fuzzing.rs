//! What the fuzz targets in `fuzz/` reach of the private parts: `cargo fuzz` sets `cfg(fuzzing)`,
//! and nothing else does.
#![expect(clippy::must_use_candidate, reason = "nobody's API")]

use std::{ffi::OsString, io, sync::Arc, time::Duration};

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    BuildInfo, Endpoint, Health, Probe,
    advertise::Advertised,
    cli::{App, Options, output::line},
    probe::{self, Clock, Inquiry, Summary},
};

/// What the probe makes of a peer that is called "peer": the code if it is healthy, and the line.
pub fn ask(peer: Socket) -> (Option<u16>, String) {
    let inquiry = inquiry(Endpoint::unix("/peer"), "/health");
    let clock = Clock::start(inquiry.timeout);
    match probe::exchange(peer, &inquiry, &"peer", &clock) {
        Ok(healthy) => (Some(healthy.code), line(format_args!("healthy: {healthy}"))),
        Err(error) => (None, line(format_args!("unhealthy: {error}"))),
    }
}

/// Whom `healthcheck` with these arguments asks, how long, and what it sends; `None` for help.
pub fn arguments(
    build: BuildInfo,
    args: impl Iterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(Endpoint, Duration, String)>, String> {
    let app = App {
        name: "app".into(),
        build,
        endpoint: None,
    };
    let refused = |refusal| line(format_args!("unhealthy: {refusal}"));
    let Some(options) = Options::parse(args).map_err(refused)? else {
        return Ok(None);
    };
    let (inquiry, _) = app.inquiry(&options, env).map_err(refused)?;
    let request = probe::request(&inquiry);
    Ok(Some((inquiry.endpoint, inquiry.timeout, request)))
}

pub fn endpoint(url: &str) -> Option<(Endpoint, Option<&str>)> {
    Endpoint::parse(url).ok()
}

pub fn request(endpoint: Endpoint, target: &str) -> String {
    probe::request(&inquiry(endpoint, target))
}

/// The strings `status` and `output` of a report.
pub fn summary(body: &[u8]) -> (Option<String>, Option<String>) {
    let Summary { status, output } = Summary::read(body);
    (status.map(Into::into), output)
}

pub fn advertised(text: String) -> Option<(Endpoint, [String; 3])> {
    let advertised = Advertised::read(text)?;
    let probes = [Probe::Health, Probe::Readiness, Probe::Liveness];
    let paths = probes.map(|probe| advertised.path(probe).to_owned());
    Some((advertised.endpoint, paths))
}

pub fn advertise(endpoint: &Endpoint, paths: &[String; 3]) -> io::Result<String> {
    Advertised::write(endpoint, paths)
}

/// One connection of a [`Listener`](crate::Listener).
pub async fn converse(health: Health, client: impl AsyncRead + AsyncWrite + Unpin) {
    health.converse(client, Arc::default()).await;
}

fn inquiry(endpoint: Endpoint, target: &str) -> Inquiry {
    Inquiry {
        endpoint,
        target: target.to_owned(),
        headers: Vec::new(),
        // Never reached: a run that hangs is ended by libFuzzer.
        timeout: Duration::from_secs(60),
    }
}
