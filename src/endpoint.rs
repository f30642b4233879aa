//! Addresses of services, as URLs and as socket addresses.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Initial capacity of a `Host` header in bytes, enough for an IPv6 address and a port.
const HOST_HEADER_CAPACITY: usize = 48;

/// Address of a service: HTTP or HTTPS on an IP address and port, or HTTP on a Unix socket.
///
/// A `SocketAddr` converts to plain HTTP, so [`Health::advertise`](crate::Health::advertise)
/// accepts the address that a listener reports:
///
/// ```
/// # use lifesign::{Endpoint, Health, build_info};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let health = Health::builder(build_info!()).build()?;
/// let listener = tokio::net::TcpListener::bind("[::]:0").await?;
/// health.advertise(listener.local_addr()?);
/// // … or, if the service itself terminates TLS:
/// health.advertise(Endpoint::https(listener.local_addr()?));
/// // … or, for a server on a Unix socket:
/// health.advertise(Endpoint::unix("/run/app/app.sock"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub(crate) Address);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        scheme: Scheme,
        host: Host,
        port: u16,
    },
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// 127.0.0.1, or else `::1`. The name is not resolved, because a resolver can fail, or return
    /// only one of the two addresses.
    Localhost,
    Ip(IpAddr),
}

impl Endpoint {
    /// Plain HTTP on `address`, like `address.into()`.
    ///
    /// ```
    /// # use lifesign::Endpoint;
    /// let endpoint = Endpoint::http("127.0.0.1:8080".parse()?);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn http(address: SocketAddr) -> Self {
        Self::tcp(Scheme::Http, address)
    }

    /// HTTPS on `address`. To probe it, `healthcheck` needs the feature `https`.
    #[must_use]
    pub fn https(address: SocketAddr) -> Self {
        Self::tcp(Scheme::Https, address)
    }

    /// Plain HTTP on the Unix socket at `path`. A relative path is relative to the current
    /// directory.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // The path becomes absolute, because the probe may have another working directory.
        Self(Address::Unix(std::path::absolute(&path).unwrap_or(path)))
    }

    pub(crate) fn host_header(&self) -> String {
        match &self.0 {
            Address::Tcp { scheme, host, port } => {
                // A wildcard address is replaced by the loopback address that is probed.
                let host = match host {
                    Host::Localhost => Host::Localhost,
                    _ => Host::Ip(host.addresses(*port).0.ip()),
                };
                let mut authority = String::with_capacity(HOST_HEADER_CAPACITY);
                let _ = match (scheme, port) {
                    (Scheme::Http, 80) | (Scheme::Https, 443) => write!(authority, "{host}"),
                    _ => write!(authority, "{host}:{port}"),
                };
                authority
            }
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    fn tcp(scheme: Scheme, address: SocketAddr) -> Self {
        Self(Address::Tcp {
            scheme,
            host: Host::Ip(address.ip().to_canonical()),
            port: address.port(),
        })
    }

    /// Parses a URL from an argument or a variable, in which `http://` is optional, as with curl.
    pub(crate) fn parse_given(url: &str) -> Result<(Self, Option<String>), InvalidUrl> {
        match Self::parse(url) {
            Err(InvalidUrl::Form) if starts_with_host(url) => Self::parse(&format!("http://{url}")),
            parsed => parsed,
        }
    }

    /// Parses `http://HOST[:PORT][/PATH]`, `https://HOST[:PORT][/PATH]` or `unix:/SOCKET[:/PATH]`.
    /// Returns the endpoint and the path.
    pub(crate) fn parse(url: &str) -> Result<(Self, Option<String>), InvalidUrl> {
        if let Some(rest) = url.strip_prefix("unix:") {
            return parse_unix(rest);
        }
        let (scheme, rest) = if let Some(rest) = strip_scheme(url, "http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = strip_scheme(url, "https://") {
            (Scheme::Https, rest)
        } else {
            return Err(InvalidUrl::Form);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = match path {
            "" => None,
            _ => Some(parse_path(path)?.to_owned()),
        };
        if authority.contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        let (host, port) = parse_authority(authority, scheme)?;
        Ok((Self(Address::Tcp { scheme, host, port }), path))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::http(address)
    }
}

/// Formats a URL that the probe accepts: `http://127.0.0.1:8080`, `unix:/run/app.sock`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Tcp { scheme, host, port } => write!(f, "{scheme}://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost => f.write_str("localhost"),
            Self::Ip(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl Host {
    /// Returns the address to connect to, and the address to try if that fails.
    ///
    /// A service that listens on a wildcard address is probed at a loopback address. A service on
    /// `[::]` is probed at `::1` first: with the kernel setting `bindv6only`, another service can
    /// have the same port of 127.0.0.1. A container without IPv6 has only 127.0.0.1.
    pub(crate) fn addresses(self, port: u16) -> (SocketAddr, Option<SocketAddr>) {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        match self {
            Self::Localhost => (v4, Some(v6)),
            Self::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => (v6, Some(v4)),
            Self::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => (v4, None),
            Self::Ip(ip) => ((ip, port).into(), None),
        }
    }
}

/// The error for an invalid URL. Its message says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidUrl {
    Form,
    Host,
    Port,
    UserInfo,
    Path,
    Socket,
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET",
            Self::Host => "expected an IP address or localhost as host: names are not resolved",
            Self::Port => "expected a port from 1 to 65535",
            Self::UserInfo => "expected no user or password: use --header 'Authorization: …'",
            Self::Path => "expected a path of printable ASCII without spaces or '#'",
            Self::Socket => "expected unix:/ABSOLUTE/SOCKET or unix:/ABSOLUTE/SOCKET:/PATH",
        })
    }
}

fn strip_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = url.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Whether a text can be a URL without its scheme: it starts with an IP address, with `localhost`,
/// or with a name and a port.
fn starts_with_host(url: &str) -> bool {
    let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
    match parse_authority(authority, Scheme::Http) {
        Err(InvalidUrl::Host) => authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && parse_port(port).is_some()),
        _ => true,
    }
}

fn parse_unix(rest: &str) -> Result<(Endpoint, Option<String>), InvalidUrl> {
    let (socket, path) = match rest.split_once(":/") {
        Some((socket, _)) => (socket, Some(&rest[socket.len() + 1..])),
        None => (rest, None),
    };
    if !Path::new(socket).is_absolute() || socket.chars().any(char::is_control) {
        return Err(InvalidUrl::Socket);
    }
    let path = path.map(parse_path).transpose()?.map(str::to_owned);
    Ok((Endpoint::unix(socket), path))
}

fn parse_authority(authority: &str, scheme: Scheme) -> Result<(Host, u16), InvalidUrl> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(InvalidUrl::Host)?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or(InvalidUrl::Port)?),
        };
        let ip: Ipv6Addr = host.parse().map_err(|_| InvalidUrl::Host)?;
        (Host::Ip(IpAddr::V6(ip).to_canonical()), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let host = if host.eq_ignore_ascii_case("localhost") {
            Host::Localhost
        } else {
            Host::Ip(IpAddr::V4(host.parse().map_err(|_| InvalidUrl::Host)?))
        };
        (host, port)
    };
    let port = match (port, scheme) {
        (Some(port), _) => parse_port(port).ok_or(InvalidUrl::Port)?,
        (None, Scheme::Http) => 80,
        (None, Scheme::Https) => 443,
    };
    Ok((host, port))
}

/// Parses a port from 1 to 65535. `str::parse` would also accept the sign in "+80".
pub(crate) fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits)?;
    (port != 0).then_some(port)
}

/// Validates a path and query, which the probe sends unchanged: a space or a control character
/// would end the path within the request line.
pub(crate) fn parse_path(path: &str) -> Result<&str, InvalidUrl> {
    let is_literal = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.starts_with('/') && is_literal {
        Ok(path)
    } else {
        Err(InvalidUrl::Path)
    }
}
