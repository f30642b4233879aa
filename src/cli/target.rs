//! Chooses the address to probe: an argument, the environment, the advertisement, or a guess.

use std::{
    ffi::OsString,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::args::{InvalidInput, Options};
use crate::{
    Endpoint, Probe,
    advertise::{NotFound, find},
    endpoint::parse_port,
    identity,
    probe::{Cause, Expected, Request, TIMEOUT},
};

/// How much longer a probe waits by default than the service waits for its checks.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

pub(super) const DEFAULT_PORT: u16 = 8080;

/// Where the address of a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Argument,
    Url,
    Advertised,
    /// A guess: 127.0.0.1 and the variable `PORT`. Contains the reason for guessing.
    Port(&'static str),
    /// A guess: 127.0.0.1 and [`DEFAULT_PORT`]. Contains the reason for guessing.
    Default(&'static str),
}

impl Source {
    /// Value of `source` in the JSON object.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Argument => "argument",
            Self::Url => "LIFESIGN_URL",
            Self::Advertised => "advertised",
            Self::Port(_) | Self::Default(_) => "guessed",
        }
    }
}

/// Formats the end of the printed line: a note if the address is a guess, and otherwise nothing.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument | Self::Url | Self::Advertised => Ok(()),
            Self::Port(why) => write!(f, " (guessed from PORT: {why})"),
            Self::Default(why) => write!(f, " (guessed, set PORT or LIFESIGN_URL: {why})"),
        }
    }
}

/// The reason why there is nothing to probe.
#[derive(Debug)]
pub(crate) enum NoTarget {
    Invalid(InvalidInput),
    NotFound(NotFound),
    /// The address would be a guess, and the probe could not recognize its service there, because
    /// it cannot compute its own `Lifesign-Instance`. Contains the reason for guessing.
    NoIdentity(&'static str),
}

impl From<InvalidInput> for NoTarget {
    fn from(invalid: InvalidInput) -> Self {
        Self::Invalid(invalid)
    }
}

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::NotFound(NotFound::NotAdvertised { service, other }) => {
                write!(f, "{service:?} advertises no address in this container")?;
                if let Some(other) = other {
                    write!(f, " (only {other:?} does)")?;
                }
                f.write_str(
                    ": the service has not started or has ended, cannot write to /dev/shm, \
                     or does not call serve, listen or advertise",
                )
            }
            Self::NotFound(NotFound::Unreadable(path, error)) => {
                write!(f, "cannot read {}: {}", path.display(), Cause(error))
            }
            Self::NotFound(NotFound::Impossible(why)) => f.write_str(why),
            Self::NoIdentity(why) => {
                write!(
                    f,
                    "{why}, so no service can be recognized: set LIFESIGN_URL"
                )
            }
        }
    }
}

/// Returns the request to send, and where its address is from.
///
/// Any server may respond at an address from an argument or a variable. At an advertised or guessed
/// address, the response must have the `Lifesign-Instance` of the probe's own service.
pub(crate) fn resolve(
    service: &'static str,
    options: Options,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<(Request, Source), NoTarget> {
    let probe = options.probe.unwrap_or(Probe::Health);
    let mut instance = None;
    let mut route = None;
    let mut response_timeout = Duration::ZERO;
    let (source, endpoint, path) = if let Some((endpoint, path)) = options.url {
        (Source::Argument, endpoint, path)
    } else if let Some(text) = variable(&env, "LIFESIGN_URL")? {
        let (endpoint, path) = Endpoint::parse_given(&text)
            .map_err(|e| InvalidInput::with_value("LIFESIGN_URL", &text, &e))?;
        // `--ready` and `--live` override the path in `LIFESIGN_URL`.
        let path = path.filter(|_| options.probe.is_none());
        (Source::Url, endpoint, path)
    } else {
        match find(service, probe, options.path.as_deref()) {
            Ok(found) => {
                instance = Some(found.instance);
                route = Some(found.route);
                response_timeout = found.response_timeout;
                (Source::Advertised, found.endpoint, Some(found.path))
            }
            Err(NotFound::Impossible(why)) => {
                let own = identity::own().map_err(|_| NoTarget::NoIdentity(why))?;
                instance = Some(own.to_owned());
                let (source, port) = guess(&env, why)?;
                (source, loopback(port).into(), None)
            }
            Err(not_found) => return Err(NoTarget::NotFound(not_found)),
        }
    };
    let path = options.path.or(path);
    let path = path.unwrap_or_else(|| probe.default_path().to_owned());
    let route =
        route.unwrap_or_else(|| Probe::with_path(&path, Probe::ALL.map(Probe::default_path)));
    let request = Request {
        endpoint,
        path,
        is_path_given: route.is_none(),
        headers: options.headers,
        timeout: timeout(options.timeout, response_timeout, route)?,
        expected: instance.map(|instance| Expected { service, instance }),
    };
    Ok((request, source))
}

/// Returns the timeout of the request. For the health and readiness routes, refuses a given timeout
/// that is not longer than the service waits for its checks.
fn timeout(
    given: Option<Duration>,
    response_timeout: Duration,
    route: Option<Probe>,
) -> Result<Duration, InvalidInput> {
    match (given, route) {
        (None, Some(Probe::Liveness)) => Ok(TIMEOUT),
        (None, _) => Ok(TIMEOUT.max(response_timeout + TIMEOUT_MARGIN)),
        (Some(given), Some(Probe::Health | Probe::Readiness)) if given <= response_timeout => {
            let flag = format!("--timeout {given:?}");
            let expected = format!(
                "expected more than {response_timeout:?}, which the service's checks may take"
            );
            Err(InvalidInput::new(&flag, &expected))
        }
        (Some(given), _) => Ok(given),
    }
}

fn guess(
    env: impl Fn(&str) -> Option<OsString>,
    why: &'static str,
) -> Result<(Source, u16), InvalidInput> {
    let Some(port) = variable(&env, "PORT")? else {
        return Ok((Source::Default(why), DEFAULT_PORT));
    };
    let number = parse_port(&port).ok_or_else(|| {
        InvalidInput::with_value("PORT", &port, &"expected a port from 1 to 65535")
    })?;
    Ok((Source::Port(why), number))
}

/// Returns the value of an environment variable, or `None` if it is unset or empty.
fn variable(
    env: impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, InvalidInput> {
    match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Err(raw)) => Err(InvalidInput::with_value(
            name,
            &raw.to_string_lossy(),
            &"expected UTF-8",
        )),
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
