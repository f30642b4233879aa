//! Advertisements: a service writes its address for the probes of its own container.

#[cfg(target_os = "linux")]
mod shm;

use std::{io, path::PathBuf, time::Duration};

use tracing::warn;

#[cfg(target_os = "linux")]
pub(crate) use self::shm::find;
use crate::{
    Endpoint, Health,
    endpoint::parse_path,
    health::{Settings, lock},
    identity::is_number,
};

/// First line of an advertisement: the version of its format.
const FORMAT: &str = "lifesign 1";

impl Health {
    /// Advertises the service's address to the `healthcheck` command in the same container.
    ///
    /// Takes the address that the listener reports, or an [`Endpoint`] for HTTPS and Unix sockets.
    /// A second call replaces the first endpoint. On Linux, this method writes a file to
    /// `/dev/shm`, which is named after the container's mount namespace, the service and the
    /// process, and which is locked for as long as this process lives. The file contains the
    /// endpoint, the paths of the routes, the check timeout, and the number by which the probe
    /// recognizes the service's responses. If the file cannot be written, this method logs a
    /// warning. On other systems, it writes no file. Without a file, `healthcheck` needs
    /// `LIFESIGN_URL` or `PORT`.
    pub fn advertise(&self, endpoint: impl Into<Endpoint>) -> &Self {
        self.advertise_endpoint(&endpoint.into());
        self
    }

    /// The part of `advertise` that is not generic, so that it is compiled once.
    fn advertise_endpoint(&self, endpoint: &Endpoint) {
        let mut advertisement = lock(&self.inner.advertisement);
        // The old file is removed first, because a probe would take two files for two services.
        *advertisement = None;
        let file = publish(endpoint, &self.inner.settings).unwrap_or_else(|error| {
            warn!(
                %endpoint, %error,
                "the endpoint could not be advertised: set LIFESIGN_URL for healthcheck"
            );
            None
        });
        // This is set even if no file was written, so that `serve` does not advertise again.
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

/// Fails, because services advertise themselves only on Linux.
#[cfg(not(target_os = "linux"))]
pub(crate) fn find(_service: &str) -> Result<Advertised, NotFound> {
    Err(NotFound::Impossible("this system is not Linux"))
}

/// The parts of an advertisement that a probe needs.
#[derive(Debug)]
pub(crate) struct Advertised {
    pub(crate) endpoint: Endpoint,
    /// Paths of the routes, in the order of [`Probe`](crate::Probe).
    pub(crate) paths: [String; 3],
    /// Maximum time that the service waits for its checks.
    pub(crate) response_timeout: Duration,
    /// Value of `Lifesign-Instance` in the service's responses.
    pub(crate) instance: String,
}

/// The reason why there is no address to probe.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// No service of this name or with this executable advertises itself in this container.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no service can advertise itself")
    )]
    NotAdvertised {
        service: String,
        /// Name of another service that advertises itself in this container.
        other: Option<String>,
    },
    /// The reason why services cannot advertise themselves here.
    Impossible(&'static str),
    /// A service might be advertised, but this path could not be read.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no file is read")
    )]
    Unreadable(PathBuf, io::Error),
}

/// Content of the file that a service writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advertisement<'a> {
    pub(crate) endpoint: Endpoint,
    /// Paths of the routes, in the order of [`Probe`](crate::Probe).
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

    /// Returns the text of the file: one line each for the format, the fields and the paths.
    ///
    /// Fails if a probe could not parse the text, for example because the port is 0.
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
        let instance = lines.next().filter(|line| is_number(line))?;
        lines.next().is_none().then_some(Self {
            endpoint,
            paths,
            response_millis,
            instance,
        })
    }
}
