//! HTTPS through reqwest.
//!
//! The probe cannot verify the certificate: the certificate is valid for the service's name, but
//! the probe connects to an IP address. So the probe connects only to addresses of this machine,
//! because an impostor could respond on another machine.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    panic, thread,
    time::Duration,
};

use reqwest::{Client, redirect};
use tokio::runtime::{self, Handle};

use super::{
    Healthy, ProbeError, Request,
    connect::{Addresses, Deadline, RESPONSE_MAX},
    error::Kind,
    http1::Response,
};
use crate::identity;

/// Maximum time from the arrival of the head to the arrival of the body's first chunk.
const BODY_TIMEOUT: Duration = Duration::from_millis(1);

pub(super) fn send(
    request: &Request,
    (first, second): Addresses,
    deadline: Deadline,
) -> Result<Healthy, ProbeError> {
    let send = || {
        let Some(second) = second else {
            return send_to(request, first, None, deadline);
        };
        match send_to(request, first, Some(deadline.half().timeout), deadline) {
            Err(error) if error.is_connect() => {
                send_to(request, second, None, deadline).map_err(|_| error)
            }
            result => result,
        }
    };
    if Handle::try_current().is_err() {
        return send();
    }
    // `block_on` panics in a thread that already runs a tokio runtime.
    thread::scope(
        |scope| match thread::Builder::new().spawn_scoped(scope, send) {
            Ok(thread) => thread.join().unwrap_or_else(|p| panic::resume_unwind(p)),
            Err(error) => {
                let kind = Kind::Https(error.to_string());
                Err(ProbeError::new(request, Some(first), kind))
            }
        },
    )
}

fn send_to(
    request: &Request,
    address: SocketAddr,
    to_connect: Option<Duration>,
    deadline: Deadline,
) -> Result<Healthy, ProbeError> {
    let send = || {
        if !is_local(address) {
            let text = "not an address of this machine, and certificates are not verified";
            return Err(Kind::Https(text.to_owned()));
        }
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Kind::Https(error.to_string()))?;
        let response = runtime.block_on(async {
            let timeout = deadline.timeout;
            let remaining = deadline.remaining().map_err(Kind::Receive)?;
            tokio::time::timeout(remaining, exchange(request, address, to_connect))
                .await
                .map_err(|_| Kind::Timeout {
                    timeout,
                    received: 0,
                })?
                .map_err(|error| classify(&error, address, to_connect))
        });
        request.judge(response?, Some(address), deadline)
    };
    send().map_err(|kind| ProbeError::new(request, Some(address), kind))
}

/// Whether `address` belongs to this machine.
///
/// For a packet to one of the machine's own addresses, the kernel chooses the same address as the
/// source. Connecting a UDP socket makes the kernel choose the source, and sends nothing.
fn is_local(address: SocketAddr) -> bool {
    if address.ip().is_loopback() {
        return true;
    }
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| {
            socket.connect(address)?;
            socket.local_addr()
        })
        .is_ok_and(|source| source.ip() == address.ip())
}

async fn exchange(
    request: &Request,
    address: SocketAddr,
    to_connect: Option<Duration>,
) -> reqwest::Result<Response> {
    let mut client = Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .http1_only();
    // reqwest's connect timeout includes the TLS handshake. Without a second address to try, the
    // handshake may take until the deadline, so no connect timeout is set.
    if let Some(timeout) = to_connect {
        client = client.connect_timeout(timeout);
    }
    let mut builder = client
        .build()?
        .get(format!("https://{address}{}", request.path));
    for (name, value) in request.all_headers(&request.endpoint.host_header()) {
        builder = builder.header(name, value);
    }
    let mut response = builder.send().await?;
    // `judge` expects headers as lines. `Transfer-Encoding` is left out, because reqwest has
    // already decoded the chunks.
    let mut bytes = Vec::new();
    for name in ["location", "content-type", identity::HEADER] {
        if let Some(value) = response.headers().get(name) {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\n"] {
                bytes.extend_from_slice(part);
            }
        }
    }
    let head_len = bytes.len();
    if let Ok(Ok(Some(chunk))) = tokio::time::timeout(BODY_TIMEOUT, response.chunk()).await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(RESPONSE_MAX)]);
    }
    Ok(Response {
        code: response.status().as_u16(),
        bytes,
        head_len,
    })
}

/// Converts an error of reqwest. Takes the text of its innermost cause, because reqwest's own text
/// says only which URL failed.
fn classify(error: &reqwest::Error, address: SocketAddr, to_connect: Option<Duration>) -> Kind {
    if let Some(timeout) = to_connect
        && error.is_connect()
        && error.is_timeout()
    {
        return Kind::ConnectTimeout(address.to_string(), timeout);
    }
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(io) if error.is_connect() && is_absent(io) => {
            Kind::Connect(address.to_string(), io.kind().into())
        }
        // rustls reports a TLS alert as a text that ends with the name of the alert.
        _ => match cause.to_string() {
            text if text.ends_with("NoApplicationProtocol") => Kind::Http2,
            text if text.ends_with("CertificateRequired") => {
                let text = "the server requires a client certificate: probe a port without TLS";
                Kind::Https(text.to_owned())
            }
            text => Kind::Https(text),
        },
    }
}

/// Whether nothing listens at the address, or the address is unreachable.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}
