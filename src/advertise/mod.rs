//! The address of a running service, advertised to the probes of its own container.

#[cfg(target_os = "linux")]
mod shm;

use std::{fmt, io};

use tracing::warn;

#[cfg(target_os = "linux")]
pub(crate) use self::shm::find;
use crate::{Endpoint, Health, Probe, endpoint::parse_path, health::lock};

/// First line of an advertisement: the version of its format.
const FORMAT: &str = "lifesign 1";

impl Health {
    /// Advertises where the service listens to the `healthcheck` command of its container.
    ///
    /// Takes the address that the listener reports, or an [`Endpoint`] for HTTPS and Unix sockets.
    /// A second call replaces the first. On Linux the endpoint is written to a file in `/dev/shm`,
    /// which is named after the container's mount namespace and the service, and which is locked
    /// for as long as this process lives. The file contains nothing but addresses and paths.
    /// Without `/dev/shm` this logs a warning, and on other systems it does nothing: there
    /// `healthcheck` uses `HEALTHCHECK_URL` or `PORT`.
    pub fn advertise(&self, endpoint: impl Into<Endpoint>) -> &Self {
        self.advertise_endpoint(endpoint.into());
        self
    }

    /// Not generic, so that it is compiled once.
    fn advertise_endpoint(&self, endpoint: Endpoint) {
        let settings = &self.inner.settings;
        let paths = settings.routes.each_ref();
        let paths = paths.map(|route| route.outer_path.clone());
        let advertisement = Advertisement { endpoint, paths };
        let mut guard = lock(&self.inner.advertisement);
        // Removes the old file first, because two files would be two services.
        *guard = None;
        let file = advertisement.publish(settings.build.name());
        // Also without a file, so that `serve` does not advertise again.
        *guard = Some(Box::new(file.unwrap_or_else(|error| {
            warn!(
                endpoint = %advertisement.endpoint, %error,
                "the endpoint could not be advertised: healthcheck will use HEALTHCHECK_URL or PORT"
            );
            None
        })));
    }
}

/// What a probe needs to know of a running service.
///
/// Displayed as it is written: the format, the endpoint and the three paths, each on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertisement {
    pub(crate) endpoint: Endpoint,
    pub(crate) paths: [String; 3],
}

impl Advertisement {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FORMAT {
            return None;
        }
        let (endpoint, None) = Endpoint::parse(lines.next()?).ok()? else {
            return None;
        };
        let mut path = || parse_path(lines.next()?).ok();
        let paths = [path()?, path()?, path()?];
        lines.next().is_none().then_some(Self { endpoint, paths })
    }

    /// Returns the path of the route for `probe`.
    pub(crate) fn path(&self, probe: Probe) -> &str {
        &self.paths[probe as usize]
    }

    /// Returns the text of the file, if a probe will parse it back.
    pub(crate) fn encode(&self) -> io::Result<String> {
        let text = self.to_string();
        match Self::parse(&text) {
            Some(parsed) if parsed == *self => Ok(text),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected the address that a listener reports",
            )),
        }
    }
}

impl fmt::Display for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [health, ready, live] = &self.paths;
        let endpoint = &self.endpoint;
        write!(f, "{FORMAT}\n{endpoint}\n{health}\n{ready}\n{live}\n")
    }
}

#[cfg(target_os = "linux")]
impl Advertisement {
    fn publish(&self, service: &str) -> io::Result<Option<shm::LockedFile>> {
        shm::LockedFile::create(service, &self.encode()?).map(Some)
    }
}

#[cfg(not(target_os = "linux"))]
impl Advertisement {
    fn publish(&self, _service: &str) -> io::Result<Option<()>> {
        self.encode().map(|_| None)
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn find(_service: &str) -> Option<Advertisement> {
    None
}
