//! Advertisements: a service writes its address to a file, and the probe in its container reads it.

#[cfg(target_os = "linux")]
mod shm;

use std::{io, path::PathBuf, time::Duration};

use tracing::warn;

#[cfg(target_os = "linux")]
pub(crate) use self::shm::find;
use crate::{
    Endpoint, Health, Probe,
    endpoint::parse_path,
    health::{Settings, lock},
    identity::is_hash,
};

/// First line of an advertisement: the version of its format.
const FORMAT: &str = "lifesign 1";

impl Health {
    /// Advertises the service's address to the `healthcheck` command in the same container.
    ///
    /// Takes the address that the listener reports, or an [`Endpoint`] for HTTPS and Unix sockets.
    /// A second call replaces the first endpoint.
    ///
    /// On Linux, this method writes the endpoint to a file in `/dev/shm`, and logs a warning if
    /// this fails. The file is removed when the last clone of this `Health` is dropped, and is
    /// ignored once the process has ended. On other systems, `healthcheck` cannot find the service:
    /// set `LIFESIGN_URL` or `PORT`.
    pub fn advertise(&self, endpoint: impl Into<Endpoint>) -> &Self {
        self.advertise_endpoint(&endpoint.into());
        self
    }

    // Separate from the generic `advertise`, so that it is compiled only once.
    fn advertise_endpoint(&self, endpoint: &Endpoint) {
        let mut advertisement = lock(&self.inner.advertisement);
        // This removes the file with the old endpoint, which a probe could otherwise still find.
        *advertisement = None;
        let file = publish(endpoint, &self.inner.settings).unwrap_or_else(|error| {
            warn!(
                %endpoint, %error,
                "the endpoint could not be advertised: set LIFESIGN_URL for healthcheck"
            );
            None
        });
        // Even without a file, this is `Some`, so that `serve` does not advertise another endpoint.
        *advertisement = Some(Box::new(file));
    }
}

#[cfg(target_os = "linux")]
fn publish(endpoint: &Endpoint, settings: &Settings) -> io::Result<Option<shm::LockedFile>> {
    let text = Advertisement::new(endpoint, settings, crate::identity::own()?).encode()?;
    let file = shm::LockedFile::create(settings.build.name(), &text);
    file.map(Some)
        .map_err(|error| io::Error::new(error.kind(), format!("write to /dev/shm: {error}")))
}

#[cfg(not(target_os = "linux"))]
fn publish(endpoint: &Endpoint, settings: &Settings) -> io::Result<Option<()>> {
    let advertisement = Advertisement::new(endpoint, settings, "0000000000000000");
    advertisement.encode().map(|_| None)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn find(
    _service: &str,
    _probe: Probe,
    _given_path: Option<&str>,
) -> Result<Advertised, NotFound> {
    Err(NotFound::Impossible("this system is not Linux"))
}

/// The content of an advertisement, as the probe uses it.
#[derive(Debug)]
pub(crate) struct Advertised {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: String,
    /// The probe whose route has this path. `None` for a path that is not a health route.
    pub(crate) route: Option<Probe>,
    /// Maximum time that the service waits for its checks.
    pub(crate) response_timeout: Duration,
    /// Value of `Lifesign-Instance` in the service's responses.
    pub(crate) instance: String,
}

/// The reason why there is no address to probe.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// No service with the probe's name or executable is advertised in this container.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no service can advertise itself")
    )]
    NotAdvertised {
        service: String,
        /// Name of a service that is advertised in this container.
        other: Option<String>,
    },
    /// Services cannot be advertised here. Contains the reason.
    Impossible(&'static str),
    /// A service may be advertised, but this path could not be read.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no file is read")
    )]
    Unreadable(PathBuf, io::Error),
}

/// The content of the file, as the service writes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advertisement<'a> {
    pub(crate) endpoint: Endpoint,
    /// Paths of the routes, in the order of [`Probe::ALL`](crate::Probe::ALL).
    pub(crate) paths: [&'a str; 3],
    /// Maximum time in milliseconds that the service waits for its checks.
    pub(crate) response_millis: u32,
    /// Value of `Lifesign-Instance` in the service's responses.
    pub(crate) instance: &'a str,
}

impl<'a> Advertisement<'a> {
    fn new(endpoint: &Endpoint, settings: &'a Settings, instance: &'a str) -> Self {
        let millis = settings.response_timeout().as_millis();
        Self {
            endpoint: endpoint.clone(),
            paths: settings.routes.each_ref().map(|route| &*route.outer_path),
            response_millis: millis.try_into().unwrap_or(u32::MAX),
            instance,
        }
    }

    /// Returns the text of the file. Fails if the probe could not parse it, for example because the
    /// endpoint's port is 0.
    pub(crate) fn encode(&self) -> io::Result<String> {
        let Self {
            endpoint,
            paths: [health, ready, live],
            response_millis,
            instance,
        } = self;
        let text = format!(
            "{FORMAT}\n{endpoint}\n{health}\n{ready}\n{live}\n{response_millis}\n{instance}\n"
        );
        match Advertisement::parse(&text) {
            Some(parsed) if parsed == *self => Ok(text),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected the address that a listener reports",
            )),
        }
    }

    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FORMAT {
            return None;
        }
        let (endpoint, None) = Endpoint::parse(lines.next()?).ok()? else {
            return None;
        };
        let mut path = || parse_path(lines.next()?).ok();
        let paths = [path()?, path()?, path()?];
        let response_millis = lines.next()?.parse().ok()?;
        let instance = lines.next().filter(|line| is_hash(line))?;
        lines.next().is_none().then_some(Self {
            endpoint,
            paths,
            response_millis,
            instance,
        })
    }
}
