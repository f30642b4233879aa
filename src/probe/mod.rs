//! Sends one request to the service and judges the response.
//!
//! A container engine runs the probe every few seconds. To start fast, the probe uses a blocking
//! socket and no runtime, except for HTTPS. It resolves no names, uses no proxy, and follows no
//! redirect.

mod connect;
mod error;
mod http1;
mod summary;
#[cfg(feature = "https")]
mod tls;

use std::{fmt, net::SocketAddr, time::Duration};

pub(crate) use self::{
    connect::{Connection, Deadline},
    error::{Cause, ProbeError},
    summary::Summary,
};
use self::{
    error::{Kind, likely_cause},
    http1::Response,
};
use crate::{
    endpoint::{Address, Endpoint, Scheme},
    identity,
};

/// Default timeout of a probe. It is shorter than the 5 s after which ECS, and Docker with the
/// reference Dockerfile, kill the probe, so that the probe can print its reason first.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

const HTML: &str =
    "an HTML page, not a health report: a catch-all route or another server responded";

/// The request of a probe, its timeout, and the service that has to respond.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) endpoint: Endpoint,
    /// Path and query, which are sent unchanged.
    pub(crate) path: String,
    /// Whether the path was given by an argument or a variable, and is not one of the three health
    /// routes.
    pub(crate) is_path_given: bool,
    /// Headers from `--header`.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    /// The service that has to respond. `None` if any server may respond, because an argument or a
    /// variable gave the address.
    pub(crate) expected: Option<Expected>,
}

#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) service: &'static str,
    /// Required value of the response header `Lifesign-Instance`.
    pub(crate) instance: String,
}

impl Request {
    pub(crate) fn send(&self) -> Result<Healthy, ProbeError> {
        let deadline = Deadline::after(self.timeout);
        match &self.endpoint.0 {
            Address::Tcp {
                scheme: Scheme::Http,
                host,
                port,
            } => {
                let (connection, peer) = connect::tcp(host.addresses(*port), deadline)
                    .map_err(|kind| ProbeError::new(self, None, kind))?;
                self.send_on(connection, Some(peer))
            }
            #[cfg(feature = "https")]
            Address::Tcp { host, port, .. } => tls::send(self, host.addresses(*port), deadline),
            #[cfg(not(feature = "https"))]
            Address::Tcp { .. } => Err(ProbeError::new(self, None, Kind::HttpsUnsupported)),
            Address::Unix(path) => {
                let connection = connect::unix(path, deadline)
                    .map_err(|kind| ProbeError::new(self, None, kind))?;
                self.send_on(connection, None)
            }
        }
    }

    pub(crate) fn send_on(
        &self,
        mut connection: Connection,
        peer: Option<SocketAddr>,
    ) -> Result<Healthy, ProbeError> {
        http1::exchange(&mut connection, self.encode().as_bytes())
            .and_then(|response| self.judge(response, peer, connection.deadline))
            .map_err(|kind| ProbeError::new(self, peer, kind))
    }

    /// Returns the URL of this request, with the address of `peer` if it is known. Cuts it off
    /// after `?`, because a query can contain a secret.
    pub(crate) fn url(&self, peer: Option<SocketAddr>) -> String {
        let end = self
            .path
            .find('?')
            .map_or(self.path.len(), |query| query + 1);
        let path = &self.path[..end];
        match (&self.endpoint.0, peer) {
            (Address::Tcp { scheme, .. }, Some(peer)) => format!("{scheme}://{peer}{path}"),
            (Address::Tcp { .. }, None) => format!("{}{path}", self.endpoint),
            (Address::Unix(_), _) => format!("{}:{path}", self.endpoint),
        }
    }

    fn judge(
        &self,
        response: Response,
        peer: Option<SocketAddr>,
        deadline: Deadline,
    ) -> Result<Healthy, Kind> {
        let code = response.code;
        let is_success = (200..300).contains(&code);
        if let Some(expected) = &self.expected
            && let instance = response.header_value(identity::HEADER)
            && instance != Some(expected.instance.as_bytes())
            && let service = summary::service(response.text())
            && let is_named = service.as_ref().is_some_and(|name| *name != expected.service)
            // Another unhealthy response can be from a layer of the service itself. Its status
            // code, such as 401 or 404, is then reported as the reason.
            && (is_success || instance.is_some() || is_named)
        {
            return Err(Kind::Stranger {
                code,
                service,
                expected: expected.service,
                has_header: instance.is_some(),
                is_path_given: self.is_path_given,
            });
        }
        let mut summary = Summary::parse(response.text());
        if is_success {
            if summary == Summary::default() && response.is_html() {
                summary.output = Some(HTML.to_owned());
            }
            return Ok(Healthy {
                code,
                summary,
                took: deadline.elapsed(),
                peer,
            });
        }
        let mut cause = None;
        if summary.status.is_none() {
            summary.output = response.first_line();
            cause = likely_cause(code, self.is_path_given);
        }
        Err(match response.location() {
            Some(location) => Kind::Redirect {
                code,
                location,
                is_path_given: self.is_path_given,
            },
            None => Kind::Status {
                code,
                cause,
                summary,
            },
        })
    }
}

/// A response with a 2xx status code.
#[derive(Debug)]
pub(crate) struct Healthy {
    pub(crate) code: u16,
    pub(crate) summary: Summary,
    took: Duration,
    /// The address that responded. `None` for a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
}

impl fmt::Display for Healthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.summary.status.as_deref() {
            Some(status @ ("pass" | "warn")) => f.write_str(status)?,
            // Another framework can respond with 200 and the status "DOWN". The printed status code
            // explains why the verdict is healthy.
            Some(status) => write!(f, "{} {status}", self.code)?,
            None => self.code.fmt(f)?,
        }
        let tenths = self.took.as_secs() * 10_000 + u64::from(self.took.subsec_micros() + 50) / 100;
        write!(f, " in {}.{} ms", tenths / 10, tenths % 10)?;
        match &self.summary.output {
            Some(output) => write!(f, ": {output}"),
            None => Ok(()),
        }
    }
}
