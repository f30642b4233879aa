//! Status code, headers and body of a response from the routes.
//!
//! The body follows draft-inadarei-api-health-check-06, which other tools can read.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    BuildInfo, Health, Probe, ServiceState, Status,
    health::{CheckResult, Failure, Need, Pulse, Snapshot},
    identity,
};

/// The `output` in a report before [`Health::set_ready`] is called.
const NOT_READY: &str = "starting: set_ready() has not been called yet";

/// Result of a [`Probe`] at one moment, from [`Health::report`].
///
/// The routes serve a report. In a framework other than axum, convert it into an
/// [`http::Response`], or send its [status code](Self::http_status), its [headers](Self::headers)
/// and its [body](Self::body). A report never contains the text of a check's error.
///
/// ```
/// # use lifesign::{Health, Probe};
/// # async fn respond(health: Health) -> Result<http::Response<Vec<u8>>, http::Error> {
/// let report = health.report(Probe::Health).await;
/// let mut response = http::Response::builder().status(report.http_status());
/// for (name, value) in report.headers() {
///     response = response.header(name, value);
/// }
/// response.body(report.body().to_vec())
/// # }
/// ```
#[derive(Clone)]
pub struct Report {
    snapshot: Arc<Snapshot>,
    body: Bytes,
}

/// Result of a check, from [`Report::checks`].
///
/// ```
/// # use lifesign::{Health, Probe};
/// # async fn example(health: Health) {
/// let report = health.report(Probe::Readiness).await;
/// for check in report.checks() {
///     println!("{} {} in {:?}", check.name, check.status, check.duration);
/// }
/// for (name, status) in report.heartbeats() {
///     println!("{name} {}", status.as_str());
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport<'a> {
    /// Name under which the check was registered.
    pub name: &'a str,
    /// Whether the check is required, as opposed to optional.
    pub is_required: bool,
    /// [`Pass`](Status::Pass), or [`Fail`](Status::Fail) after an error, a panic or a timeout.
    pub status: Status,
    /// Duration of the check's last run.
    pub duration: Duration,
    /// Time at which the check's last run began.
    pub last_run: SystemTime,
}

impl Health {
    /// Returns the result of a probe, as the routes serve it.
    ///
    /// Use this for gRPC health services, metrics, tests and frameworks other than axum. Health and
    /// readiness run the checks, unless the last run began less than 1 s ago. Concurrent callers
    /// wait for the same run, for at most 100 ms more than the
    /// [check timeout](crate::HealthBuilder::check_timeout). Liveness runs no checks.
    ///
    /// # Panics
    ///
    /// If checks run outside a tokio runtime with time enabled.
    pub async fn report(&self, probe: Probe) -> Report {
        let snapshot = self.snapshot(probe).await;
        let body = match snapshot.status {
            Status::Pass if self.status_only => Bytes::from_static(br#"{"status":"pass"}"#),
            Status::Warn if self.status_only => Bytes::from_static(br#"{"status":"warn"}"#),
            Status::Fail if self.status_only => Bytes::from_static(br#"{"status":"fail"}"#),
            _ => {
                let body = snapshot.body.get_or_init(|| {
                    let body = serde_json::to_vec(&Body {
                        build: &self.inner.settings.build,
                        snapshot: &snapshot,
                    });
                    body.expect("strings, numbers and maps with string keys can be serialized")
                        .into()
                });
                body.clone()
            }
        };
        Report { snapshot, body }
    }
}

impl Report {
    /// Returns the overall status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.snapshot.status
    }

    /// Returns the state of the service.
    ///
    /// With [`ready_during_drain`](crate::HealthBuilder::ready_during_drain), the state in a
    /// readiness report is `Ready` during the drain.
    #[must_use]
    pub fn state(&self) -> ServiceState {
        self.snapshot.state
    }

    /// Returns the results of the checks in the order in which they were registered, for metrics.
    ///
    /// There are none in a liveness report, nor during the drain, except in a readiness report with
    /// [`ready_during_drain`](crate::HealthBuilder::ready_during_drain).
    pub fn checks(&self) -> impl Iterator<Item = CheckReport<'_>> {
        let evaluation = self.snapshot.evaluation.iter();
        evaluation.flat_map(|evaluation| {
            evaluation.results.iter().map(|result| CheckReport {
                name: &result.check.name,
                is_required: result.check.need == Need::Required,
                status: pass_or_fail(result.failure.is_some()),
                duration: result.took,
                last_run: result.began,
            })
        })
    }

    /// Returns the name and the status of each heartbeat. A late or dropped heartbeat has the
    /// status `Fail`.
    pub fn heartbeats(&self) -> impl Iterator<Item = (&str, Status)> {
        let heartbeats = self.snapshot.heartbeats.iter();
        heartbeats.map(|(name, pulse)| (&**name, pass_or_fail(pulse.is_failing())))
    }

    /// Returns the status code: 200 for pass and warn, 503 for fail.
    ///
    /// Warn has no other code than pass, because some load balancers accept only 200.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.status_code().as_u16()
    }

    /// Returns the body, a JSON object.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the headers of the response, for a framework that does not use the crate `http`:
    /// `Content-Type`, `Cache-Control`, and `Lifesign-Instance`, by which `healthcheck` recognizes
    /// its own service.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let fixed = [
            ("content-type", "application/health+json"),
            ("cache-control", "no-store"),
        ];
        let instance = identity::own()
            .ok()
            .map(|instance| (identity::HEADER, instance));
        fixed.into_iter().chain(instance)
    }

    fn status_code(&self) -> StatusCode {
        match self.status() {
            Status::Pass | Status::Warn => StatusCode::OK,
            Status::Fail => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("status", &self.status())
            .field("state", &self.state())
            .field("body", &self.body)
            .finish()
    }
}

const fn pass_or_fail(fails: bool) -> Status {
    match fails {
        true => Status::Fail,
        false => Status::Pass,
    }
}

impl<B: From<Bytes>> From<Report> for Response<B> {
    fn from(report: Report) -> Self {
        let status_code = report.status_code();
        let headers = report.headers().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut response = Self::new(report.body.into());
        *response.status_mut() = status_code;
        response.headers_mut().extend(headers);
        response
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Report {
    fn into_response(self) -> axum::response::Response {
        self.into()
    }
}

/// The body of a response. `status` and `output` come first, because the probe may read only the
/// start of the body.
struct Body<'a> {
    build: &'a BuildInfo,
    snapshot: &'a Snapshot,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { build, snapshot } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", snapshot.status.as_str())?;
        let output = (snapshot.status != Status::Pass).then(|| output(snapshot));
        let fields = [
            ("output", output.as_deref()),
            ("serviceId", Some(build.name())),
            ("version", Some(build.version())),
            ("releaseId", build.commit()),
            ("commit", build.commit()),
            ("commitDate", build.commit_date()),
            ("buildDate", build.build_date()),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("checks", &Entries(snapshot))?;
        map.end()
    }
}

/// Returns the reason for a status other than pass.
fn output(snapshot: &Snapshot) -> String {
    let broken: Vec<_> = snapshot.heartbeats.iter().filter_map(describe).collect();
    let evaluation = snapshot.evaluation.iter();
    let failing = |need| evaluation.clone().flat_map(move |e| e.failing(need));
    let required: Vec<_> = failing(Need::Required).map(|r| &*r.check.name).collect();
    let required = required.join(", ");
    match snapshot.state {
        ServiceState::Draining => "draining".to_owned(),
        _ if !broken.is_empty() => broken.join(", "),
        ServiceState::Starting if required.is_empty() => NOT_READY.to_owned(),
        ServiceState::Starting => format!("{NOT_READY}, waiting for {required}"),
        // Every required check passed, but before `set_ready` was called or before a check was
        // added. The next evaluation decides.
        ServiceState::Waiting if required.is_empty() => {
            "starting: waiting for required checks".to_owned()
        }
        ServiceState::Waiting => format!("starting: waiting for {required}"),
        ServiceState::Ready => {
            let failing = failing(Need::Required).chain(failing(Need::Optional));
            failing.filter_map(failed).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(crate) fn describe((name, pulse): &(Arc<str>, Pulse)) -> Option<String> {
    match pulse {
        Pulse::Late => Some(format!("heartbeat {name} is late")),
        Pulse::Dropped => Some(format!("heartbeat {name} was dropped")),
        Pulse::Beating | Pulse::Finished => None,
    }
}

fn failed(result: &CheckResult) -> Option<String> {
    let failure = match result.failure.as_ref()? {
        Failure::Failed(_) => "failed",
        Failure::TimedOut => "timed out",
        Failure::Panicked(_) => "panicked",
    };
    Some(format!("{} {failure}", result.check.name))
}

/// The value of `checks` in the body.
struct Entries<'a>(&'a Snapshot);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for result in self.0.evaluation.iter().flat_map(|e| &e.results) {
            let entry = Entry {
                status: pass_or_fail(result.failure.is_some()),
                took: Some(result.took),
            };
            let name = format_args!("{}:responseTime", result.check.name);
            map.serialize_entry(&name, &[entry])?;
        }
        for (name, pulse) in &self.0.heartbeats {
            let entry = Entry {
                status: pass_or_fail(pulse.is_failing()),
                took: None,
            };
            map.serialize_entry(&**name, &[entry])?;
        }
        map.end()
    }
}

struct Entry {
    status: Status,
    /// `None` for a heartbeat.
    took: Option<Duration>,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", self.status.as_str())?;
        if let Some(took) = self.took {
            map.serialize_entry("observedValue", &(took.as_micros() as f64 / 1000.0))?;
            map.serialize_entry("observedUnit", "ms")?;
        }
        map.end()
    }
}
