//! What to probe: an argument, the environment, the advertisement, or the default address.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
};

use super::args::{InvalidInput, Options};
use crate::{Endpoint, Probe, advertise::find, endpoint::parse_port, probe::Request};

/// Port to probe if nothing else is known.
pub(super) const DEFAULT_PORT: u16 = 8080;

/// Where the endpoint of a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Argument,
    Url,
    Advertised,
    Port,
    Default,
}

impl Source {
    /// Hint for the user if the connection fails.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Argument | Self::Url => "",
            Self::Advertised => " (advertised by the service)",
            Self::Port => " (from PORT: is the service running, and does it listen there?)",
            Self::Default => {
                " (the default: is the service running? if it listens elsewhere, set PORT or \
                 LIFESIGN_URL)"
            }
        }
    }
}

/// Returns the request to send, and where its endpoint comes from.
pub(crate) fn resolve(
    service: &str,
    options: Options,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<(Request, Source), InvalidInput> {
    let probe = options.probe.unwrap_or(Probe::Health);
    let (source, endpoint, path) = if let Some((endpoint, path)) = options.url {
        (Source::Argument, endpoint, path)
    } else if let Some(text) = variable(&env, "LIFESIGN_URL")? {
        let (endpoint, path) = Endpoint::parse_given(&text)
            .map_err(|e| InvalidInput::with_value("LIFESIGN_URL", &text, &e))?;
        // Flags override the path in the variable.
        let path = path.filter(|_| options.probe.is_none());
        (Source::Url, endpoint, path)
    } else if let Some((endpoint, path)) = find(service, probe) {
        (Source::Advertised, endpoint, Some(path))
    } else if let Some(port) = variable(&env, "PORT")? {
        let number = parse_port(&port).ok_or_else(|| {
            let expected = "expected a port from 1 to 65535 (the service advertised none)";
            InvalidInput::with_value("PORT", &port, &expected)
        })?;
        (Source::Port, loopback(number).into(), None)
    } else {
        (Source::Default, loopback(DEFAULT_PORT).into(), None)
    };
    let path = options
        .path
        .or(path)
        .unwrap_or_else(|| probe.default_path().to_owned());
    let request = Request {
        endpoint,
        path,
        headers: options.headers,
        timeout: options.timeout,
    };
    Ok((request, source))
}

/// Returns the value of an environment variable. An empty variable is unset.
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
