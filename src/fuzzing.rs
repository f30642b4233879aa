//! Access to private functions for the fuzz targets in `fuzz/`. Compiled only by `cargo fuzz`.
#![expect(clippy::must_use_candidate, reason = "not part of the API")]

use std::{ffi::OsString, fmt, io, sync::Arc, time::Duration};

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    BuildInfo, Endpoint, Health,
    advertise::Advertisement,
    cli::{Options, line, resolve},
    probe::{Connection, Deadline, Request, Summary},
};

/// Probes the server at the other end of `peer`. Returns the status code if the server is healthy,
/// and the printed line.
pub fn probe(peer: Socket) -> (Option<u16>, String) {
    let request = get(Endpoint::unix("/peer"), "/health");
    let connection = Connection::new(peer, Deadline::after(request.timeout));
    match request.send_on(connection, None) {
        Ok(healthy) => (Some(healthy.code), line(format_args!("healthy: {healthy}"))),
        Err(error) => (None, line(format_args!("unhealthy: {error}"))),
    }
}

/// Parses the arguments of `healthcheck`. Returns the endpoint, the timeout and the request, or
/// `None` if the arguments contain `--help`.
pub fn arguments(
    build: BuildInfo,
    args: impl Iterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(Endpoint, Duration, String)>, String> {
    let unhealthy = |error: &dyn fmt::Display| line(format_args!("unhealthy: {error}"));
    let Some(options) = Options::parse(args).map_err(|e| unhealthy(&e))? else {
        return Ok(None);
    };
    let (request, _) = resolve(build.name(), options, env).map_err(|e| unhealthy(&e))?;
    let encoded = request.encode();
    Ok(Some((request.endpoint, request.timeout, encoded)))
}

pub fn endpoint(url: &str) -> Option<(Endpoint, Option<String>)> {
    Endpoint::parse(url).ok()
}

pub fn request(endpoint: Endpoint, path: &str) -> String {
    get(endpoint, path).encode()
}

/// Returns the fields `status` and `output` of a report.
pub fn summary(body: &[u8]) -> (Option<String>, Option<String>) {
    let Summary { status, output } = Summary::parse(body);
    (status.map(Into::into), output)
}

/// Parses an advertisement. Returns its endpoint, its paths, its instance, and the text that
/// [`Advertisement::encode`] returns for it.
pub fn advertised(text: &str) -> Option<(Endpoint, [&str; 3], &str, io::Result<String>)> {
    let advertisement = Advertisement::parse(text)?;
    let encoded = advertisement.encode();
    let Advertisement {
        endpoint,
        paths,
        instance,
        ..
    } = advertisement;
    Some((endpoint, paths, instance, encoded))
}

/// Serves one connection of a [`Listener`](crate::Listener).
pub async fn converse(health: Health, client: impl AsyncRead + AsyncWrite + Unpin) {
    health.serve_connection(client, Arc::default()).await;
}

fn get(endpoint: Endpoint, path: &str) -> Request {
    Request {
        endpoint,
        path: path.to_owned(),
        is_path_given: false,
        headers: Vec::new(),
        // `fuzz/run` reports a run of more than 10 s, so a probe that hangs must take longer.
        timeout: Duration::from_secs(60),
        expected: None,
    }
}
