//! Step 3, report: a snapshot of the service's health, and its form on the wire.
//!
//! Where both sides meet: the routes write this, the probe reads it. The body follows
//! draft-inadarei-api-health-check-06, so that existing readers understand it.

use bytes::Bytes;
use http::StatusCode;
#[cfg(any(feature = "axum", feature = "listener"))]
use http::{HeaderValue, header};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{fmt, time::Duration};

use crate::BuildInfo;

#[cfg(any(feature = "axum", feature = "listener"))]
/// The media type of a report.
pub(crate) const MEDIA_TYPE: &str = "application/health+json";

/// Where the three routes are unless the service says otherwise, in the order of [`Probe`].
pub(crate) const DEFAULT_PATHS: [&str; 3] = ["/health", "/health/ready", "/health/live"];

/// What a prober wants to know. The answer of one must never be given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// Is it up? For Docker's `HEALTHCHECK`, which replaces a container or holds back a start.
    Health,
    /// May it get traffic? For load balancers and Kubernetes' readiness probe.
    Readiness,
    /// Must it be restarted? For Kubernetes' liveness and startup probes.
    Liveness,
}

/// The verdict of a [`Report`], in the words of the health+json draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// All is well: HTTP 200.
    Pass,
    /// The answer is yes, but something fails: HTTP 200.
    Warn,
    /// The answer is no: HTTP 503.
    Fail,
}

impl Status {
    /// The word on the wire: `pass`, `warn` or `fail`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The answer to one [`Probe`] at one moment, from [`Health::report`](crate::Health::report).
///
/// The routes serve it; a service without them serves it itself, with
/// `Content-Type: application/health+json` and `Cache-Control: no-store`. It never holds the text
/// of a check's error: that goes to the log.
#[derive(Debug, Clone)]
pub struct Report {
    status: Status,
    body: Bytes,
}

impl Report {
    /// The verdict.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// 200 for pass and warn, 503 for fail. Never anything else: some load balancers take exactly
    /// 200, and none takes a 4xx for an answer.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        self.code().as_u16()
    }

    /// The body, `application/health+json`.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn render(facts: &Facts<'_>) -> Self {
        let body = serde_json::to_vec(facts)
            .expect("strings, numbers and maps with string keys always become JSON");
        Self {
            status: facts.status,
            body: body.into(),
        }
    }

    const fn code(&self) -> StatusCode {
        match self.status {
            Status::Pass | Status::Warn => StatusCode::OK,
            Status::Fail => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    #[cfg(any(feature = "axum", feature = "listener"))]
    pub(crate) fn into_http<B: From<Bytes>>(self) -> http::Response<B> {
        let code = self.code();
        let mut response = http::Response::new(B::from(self.body));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Report {
    fn into_response(self) -> axum::response::Response {
        self.into_http()
    }
}

/// What a report is made of. Field order is wire order: `status` and `output` come first, so that
/// the probe finds them in whatever part of the body has arrived.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) status: Status,
    /// Why it is not pass, in our words and the names of checks; empty for pass.
    pub(crate) output: String,
    /// What is told beside the status; `None` for status only.
    pub(crate) detail: Option<Detail<'a>>,
}

#[derive(Debug)]
pub(crate) struct Detail<'a> {
    pub(crate) build: &'a BuildInfo,
    pub(crate) entries: Vec<Entry<'a>>,
}

#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) status: Status,
    /// How long a check took; heartbeats have no duration.
    pub(crate) took: Option<Duration>,
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &self.status)?;
        if let Some(detail) = &self.detail {
            if !self.output.is_empty() {
                map.serialize_entry("output", &self.output)?;
            }
            let build = detail.build;
            map.serialize_entry("serviceId", build.name())?;
            map.serialize_entry("version", build.version())?;
            let release = [
                ("releaseId", build.commit()),
                ("commit", build.commit()),
                ("commitDate", build.commit_date()),
                ("buildDate", build.build_date()),
            ];
            for (key, known) in release {
                if let Some(value) = known {
                    map.serialize_entry(key, value)?;
                }
            }
            map.serialize_entry("checks", &Entries(&detail.entries))?;
        }
        map.end()
    }
}

struct Entries<'a>(&'a [Entry<'a>]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for entry in self.0 {
            if entry.took.is_some() {
                map.serialize_entry(&format_args!("{}:responseTime", entry.name), &[entry])?;
            } else {
                map.serialize_entry(entry.name, &[entry])?;
            }
        }
        map.end()
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &self.status)?;
        if let Some(took) = self.took {
            // Whole microseconds: more digits would be noise.
            map.serialize_entry("observedValue", &(took.as_micros() as f64 / 1000.0))?;
            map.serialize_entry("observedUnit", "ms")?;
        }
        map.end()
    }
}
