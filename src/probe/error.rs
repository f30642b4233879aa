//! Why a service is unhealthy: the text that follows `unhealthy: `.

use std::{error::Error, fmt, io, time::Duration};

use super::{connect::is_timeout, http1::INTERIM_MAX, summary::Summary};

/// An unhealthy verdict. Its text is all that a person sees of the probe.
#[derive(Debug)]
pub(crate) struct ProbeError {
    kind: Kind,
    /// The address or socket that was probed: `127.0.0.1:8080`.
    peer: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    Connect(io::Error),
    ConnectTimeout(Duration),
    Send(io::Error),
    Receive(io::Error),
    Timeout {
        timeout: Duration,
        /// Number of bytes of the response that arrived in time.
        received: usize,
    },
    Closed {
        /// Number of bytes of the response that arrived before.
        received: usize,
    },
    TooLong,
    TooManyInterim,
    Malformed(String),
    Tls,
    Http2,
    Status {
        code: u16,
        location: Option<String>,
        summary: Summary,
    },
    /// The response of another service than the expected one.
    Stranger {
        code: u16,
        /// Name of the service that responded, if it tells.
        service: Option<String>,
        expected: String,
        /// Whether the response has a number, of another instance.
        has_header: bool,
    },
    #[cfg(not(feature = "https"))]
    HttpsUnsupported,
    #[cfg(feature = "https")]
    Https(String),
}

impl ProbeError {
    pub(super) fn new(peer: &impl fmt::Display, kind: Kind) -> Self {
        let peer = peer.to_string();
        Self { kind, peer }
    }

    /// Whether nothing listens at the address.
    #[cfg(feature = "https")]
    pub(super) const fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect(_))
    }

    pub(super) fn connect(peer: &impl fmt::Display, error: io::Error, timeout: Duration) -> Self {
        let kind = if is_timeout(&error) {
            Kind::ConnectTimeout(timeout)
        } else {
            Kind::Connect(error)
        };
        Self::new(peer, kind)
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.peer;
        match &self.kind {
            Kind::Connect(error) => write!(f, "connect to {peer}: {}", Cause(error)),
            Kind::ConnectTimeout(timeout) => {
                write!(f, "connect to {peer}: timed out after {timeout:?}")
            }
            Kind::Send(error) => write!(f, "send to {peer}: {}", Cause(error)),
            Kind::Receive(error) => write!(f, "receive from {peer}: {}", Cause(error)),
            Kind::Timeout {
                timeout,
                received: 0,
            } => write!(f, "{peer} sent no response within {timeout:?}"),
            Kind::Timeout { timeout, .. } => {
                write!(f, "{peer} sent an incomplete response within {timeout:?}")
            }
            Kind::Closed { received: 0 } => {
                write!(f, "{peer} closed the connection without a response")
            }
            Kind::Closed { .. } => {
                write!(
                    f,
                    "{peer} closed the connection in the middle of a response"
                )
            }
            Kind::TooLong => write!(f, "{peer} sent a response head of more than 16 KiB"),
            Kind::TooManyInterim => {
                write!(
                    f,
                    "{peer} sent more than {INTERIM_MAX} interim (1xx) responses"
                )
            }
            Kind::Malformed(start) => {
                write!(f, "{peer} does not speak HTTP/1: it sent \"{start}\"")
            }
            Kind::Tls => write!(f, "{peer} speaks TLS: use https"),
            Kind::Http2 => write!(f, "{peer} speaks HTTP/2 only: probe an HTTP/1 port"),
            Kind::Status {
                code,
                location: Some(location),
                ..
            } => write!(
                f,
                "{code} redirect to {location}: not followed, probe that URL instead"
            ),
            Kind::Status { code, summary, .. } => {
                write!(f, "{code}")?;
                if let Some(status) = &summary.status {
                    write!(f, " {status}")?;
                }
                match &summary.output {
                    Some(output) => write!(f, ": {output}"),
                    None => Ok(()),
                }
            }
            Kind::Stranger {
                code,
                service,
                expected,
                has_header,
            } => {
                write!(f, "{peer} is not {expected:?}: ")?;
                match service {
                    Some(service) if service == expected => {
                        write!(f, "another instance of it responded")?;
                    }
                    Some(service) => write!(f, "{service:?} responded")?,
                    None => write!(f, "another service responded")?,
                }
                write!(f, " ({code}")?;
                if !has_header {
                    f.write_str(" without Lifesign-Instance")?;
                }
                f.write_str(")")
            }
            #[cfg(not(feature = "https"))]
            Kind::HttpsUnsupported => {
                write!(
                    f,
                    "https to {peer}: this binary is built without lifesign's feature \"https\""
                )
            }
            #[cfg(feature = "https")]
            Kind::Https(text) => write!(f, "https to {peer}: {text}"),
        }
    }
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
