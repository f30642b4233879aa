//! The reasons for an unhealthy verdict: the text that follows `unhealthy: `.

use std::{error::Error, fmt, io, net::SocketAddr, time::Duration};

use super::{Request, connect::is_timeout, http1::INTERIM_MAX, summary::Summary};

/// An unhealthy verdict: the reason, and the request that led to it.
#[derive(Debug)]
pub(crate) struct ProbeError {
    kind: Kind,
    /// URL of the request, without its query.
    pub(crate) url: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// The address or addresses, and the error at the first of them.
    Connect(String, io::Error),
    ConnectTimeout(String, Duration),
    Send(io::Error),
    Receive(io::Error),
    Timeout {
        timeout: Duration,
        /// Number of bytes of the response that arrived.
        received: usize,
    },
    Closed {
        /// Number of bytes of the response that arrived.
        received: usize,
    },
    TooLong,
    TooManyInterim,
    Malformed(String),
    Tls,
    Http2,
    Redirect {
        code: u16,
        location: String,
        is_path_given: bool,
    },
    Status {
        code: u16,
        cause: Option<&'static str>,
        summary: Summary,
    },
    /// A response from a service other than the expected one.
    Stranger {
        code: u16,
        /// The `serviceId` in the response.
        service: Option<String>,
        /// Name of the probe's own service.
        expected: &'static str,
        /// Whether the response has a header `Lifesign-Instance`.
        has_header: bool,
        is_path_given: bool,
    },
    #[cfg(not(feature = "https"))]
    HttpsUnsupported,
    #[cfg(feature = "https")]
    Https(String),
}

impl Kind {
    pub(super) fn connect(to: &impl fmt::Display, error: io::Error, timeout: Duration) -> Self {
        let to = to.to_string();
        if is_timeout(&error) {
            Self::ConnectTimeout(to, timeout)
        } else {
            Self::Connect(to, error)
        }
    }
}

impl ProbeError {
    pub(super) fn new(request: &Request, peer: Option<SocketAddr>, kind: Kind) -> Self {
        let url = request.url(peer);
        Self { kind, url }
    }

    pub(crate) const fn code(&self) -> Option<u16> {
        match self.kind {
            Kind::Status { code, .. }
            | Kind::Redirect { code, .. }
            | Kind::Stranger { code, .. } => Some(code),
            _ => None,
        }
    }

    pub(crate) const fn summary(&self) -> Option<&Summary> {
        match &self.kind {
            Kind::Status { summary, .. } => Some(summary),
            _ => None,
        }
    }

    #[cfg(feature = "https")]
    pub(super) const fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect(..) | Kind::ConnectTimeout(..))
    }
}

/// Formats the reason, and then the URL unless the reason contains the address. The reason comes
/// first, because the end of a long line is cut off.
impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.kind {
            Kind::Connect(..) | Kind::ConnectTimeout(..) => Ok(()),
            _ => write!(f, " (GET {})", self.url),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(to, error) => write!(f, "connect to {to}: {}", Cause(error)),
            Self::ConnectTimeout(to, timeout) => {
                write!(f, "connect to {to}: timed out after {timeout:?}")
            }
            Self::Send(error) => write!(f, "send request: {}", Cause(error)),
            Self::Receive(error) => write!(f, "receive response: {}", Cause(error)),
            Self::Timeout {
                timeout,
                received: 0,
            } => write!(f, "no response within {timeout:?}"),
            Self::Timeout { timeout, .. } => {
                write!(f, "incomplete response within {timeout:?}")
            }
            Self::Closed { received: 0 } => f.write_str(
                "connection closed without a response: \
                 if the port expects the PROXY protocol, probe another one",
            ),
            Self::Closed { .. } => f.write_str("connection closed in the middle of a response"),
            Self::TooLong => f.write_str("response head of more than 16 KiB"),
            Self::TooManyInterim => {
                write!(f, "more than {INTERIM_MAX} interim (1xx) responses")
            }
            Self::Malformed(start) => write!(f, "not HTTP/1: the server sent \"{start}\""),
            Self::Tls => f.write_str("the server speaks TLS: use https"),
            Self::Http2 => f.write_str("the server speaks HTTP/2 only: probe an HTTP/1 port"),
            Self::Redirect {
                code,
                location,
                is_path_given,
            } => {
                write!(f, "{code} redirect to {location}: not followed, ")?;
                f.write_str(match is_path_given {
                    true => "probe that URL instead",
                    false => "merge the routes after the layer that redirects",
                })
            }
            Self::Status {
                code,
                cause,
                summary,
            } => {
                write!(f, "{code}")?;
                if let Some(status) = &summary.status {
                    write!(f, " {status}")?;
                }
                let reasons = [*cause, summary.output.as_deref()];
                reasons
                    .into_iter()
                    .flatten()
                    .try_for_each(|reason| write!(f, ": {reason}"))
            }
            Self::Stranger {
                code,
                service,
                expected,
                has_header,
                is_path_given,
            } => {
                write!(f, "not {expected:?}: ")?;
                match service {
                    Some(service) if service == expected => f.write_str("another instance of it"),
                    Some(service) => write!(f, "{service:?}"),
                    None if *has_header => f.write_str("another service"),
                    None => f.write_str("a server"),
                }?;
                write!(f, " responded with {code}")?;
                if *has_header {
                    return Ok(());
                }
                f.write_str(", without Lifesign-Instance")?;
                match (service, is_path_given) {
                    (Some(_), _) => Ok(()),
                    (None, true) => {
                        f.write_str(": pass the whole URL to probe this path without it")
                    }
                    (None, false) => f.write_str(": another service, or the routes are not merged"),
                }
            }
            #[cfg(not(feature = "https"))]
            Self::HttpsUnsupported => {
                f.write_str("this binary is built without lifesign's feature \"https\"")
            }
            #[cfg(feature = "https")]
            Self::Https(text) => f.write_str(text),
        }
    }
}

/// Returns the likely cause of an unhealthy response that is not a health report.
pub(super) const fn likely_cause(code: u16, is_path_given: bool) -> Option<&'static str> {
    Some(match (code, is_path_given) {
        (401 | 403, true) => "authentication is required",
        (404, true) => "no such path",
        (_, true) => return None,
        (401 | 403, _) => "authentication applies to the routes, merge them after its layer",
        (404, _) => "the routes are not merged, or nested without nested_under",
        (405, _) => "another handler has this path",
        (429, _) => "a rate limit applies to the routes, merge them after its layer",
        (408 | 500..=599, _) => "not a health report, but from a layer or another server",
        _ => return None,
    })
}

impl Error for ProbeError {}

/// An I/O error without its number: "connection refused", not "Connection refused (os error 111)".
pub(crate) struct Cause<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let (first, rest) = text.split_at_checked(1).unwrap_or_default();
        write!(f, "{}{rest}", first.to_ascii_lowercase())
    }
}
