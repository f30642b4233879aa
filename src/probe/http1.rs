//! A small HTTP/1 client: sends one request and reads the head of the response.

use std::{io, time::Duration};

use super::{
    Request,
    connect::{Connection, READ_SIZE, is_timeout},
    error::Kind,
};
use crate::identity;

/// Maximum length of a response head in bytes: twice the 8 KiB that proxies accept.
const HEAD_MAX: usize = 16 * 1024;

/// Maximum number of interim (1xx) responses to skip.
pub(super) const INTERIM_MAX: u32 = 8;

/// Initial capacity of a request in bytes, enough for one without additional headers.
const REQUEST_CAPACITY: usize = 192;

const USER_AGENT: &str = concat!("lifesign/", env!("CARGO_PKG_VERSION"));

/// Maximum length in bytes of a text that is copied from a response into the printed line.
const EXCERPT_MAX: usize = 200;

impl Request {
    pub(crate) fn encode(&self) -> String {
        let authority = self.endpoint.host_header();
        let mut encoded = String::with_capacity(REQUEST_CAPACITY);
        for part in ["GET ", &self.path, " HTTP/1.1\r\n"] {
            encoded.push_str(part);
        }
        for (name, value) in self.all_headers(&authority) {
            for part in [name, ": ", value, "\r\n"] {
                encoded.push_str(part);
            }
        }
        encoded.push_str("\r\n");
        encoded
    }

    /// Returns the default headers, then those from `--header`. A default header of the same name
    /// is left out.
    pub(super) fn all_headers<'a>(
        &'a self,
        authority: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let default = [
            ("Host", authority),
            ("User-Agent", USER_AGENT),
            ("Accept", "*/*"),
            ("Connection", "close"),
            (identity::PROBE_HEADER, "1"),
        ];
        let user = &self.headers;
        let is_replaced = |name: &str| user.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        default
            .into_iter()
            .filter(move |(name, _)| !is_replaced(name))
            .chain(user.iter().map(|(name, value)| (&**name, &**value)))
    }
}

/// A response: its head, and the start of its body.
pub(super) struct Response {
    pub(super) code: u16,
    pub(super) bytes: Vec<u8>,
    /// Number of `bytes` that belong to the head.
    pub(super) head_len: usize,
}

/// Sends the request and reads until the head of the response is complete.
///
/// The write side stays open, because a server that uses hyper drops the connection of a client
/// that shuts its write side down.
pub(super) fn exchange(connection: &mut Connection, request: &[u8]) -> Result<Response, Kind> {
    let timeout = connection.deadline.timeout;
    // A server may respond without reading the request, and close the connection. So a failure to
    // send is reported only if no response arrives.
    let sent = connection.write_all(request);
    let mut bytes = Vec::new();
    let mut interim = 0;
    let mut received = 0;
    loop {
        let count = match connection.read(&mut bytes) {
            Ok(0) => return Err(Kind::Closed { received }),
            Ok(count) => count,
            Err(error) => return Err(failure(sent, error, timeout, received)),
        };
        received += count;
        while let Some((code, end)) = parse_head(&bytes)? {
            if end > HEAD_MAX {
                return Err(Kind::TooLong);
            }
            if code >= 200 {
                // The read may have ended after the deadline: Linux can end it up to an eighth of
                // its timeout late, and the process may have been paused.
                if connection.deadline.remaining().is_err() {
                    return Err(Kind::Timeout { timeout, received });
                }
                if count == READ_SIZE {
                    connection.read_available(&mut bytes);
                }
                return Ok(Response {
                    code,
                    bytes,
                    head_len: end,
                });
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(Kind::TooManyInterim);
            }
            bytes.drain(..end);
        }
        if bytes.len() >= HEAD_MAX {
            return Err(Kind::TooLong);
        }
    }
}

fn failure(sent: io::Result<()>, error: io::Error, timeout: Duration, received: usize) -> Kind {
    match sent {
        Err(sent) if received == 0 && !is_timeout(&sent) => Kind::Send(sent),
        _ if is_timeout(&error) => Kind::Timeout { timeout, received },
        // The server closed the connection before it had read the whole request.
        _ if received == 0 && error.kind() == io::ErrorKind::ConnectionReset => {
            Kind::Closed { received }
        }
        _ => Kind::Receive(error),
    }
}

/// Returns the status code and the length of the head at the start of `bytes`, or `None` if the
/// head is incomplete.
///
/// Accepts lines that end with LF alone, a status line without a reason phrase, and folded headers.
/// Any other deviation is an error as soon as it arrives, because a server of another protocol may
/// wait for more bytes from the client.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, usize)>, Kind> {
    const VERSION: &[u8] = b"HTTP/1.";
    if !bytes.iter().zip(VERSION).all(|(a, b)| a == b) {
        return Err(not_http1(bytes));
    }
    let mut end = 0;
    let mut code = None;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(None);
        };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        end += line.len();
        match code {
            None => code = Some(parse_status_line(text).ok_or_else(|| not_http1(text))?),
            Some(code) if text.is_empty() => return Ok(Some((code, end))),
            Some(_) if is_field_line(text) => {}
            Some(_) => return Err(Kind::Malformed(excerpt(text))),
        }
    }
    Ok(None)
}

/// Returns the status code of `HTTP/1.x NNN`, with or without a reason phrase.
fn parse_status_line(line: &[u8]) -> Option<u16> {
    let (minor, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    if !minor.is_ascii_digit() || !matches!(reason, [] | [b' ', ..]) {
        return None;
    }
    let code = str::from_utf8(code).ok()?.parse().ok()?;
    (100..1000).contains(&code).then_some(code)
}

/// Whether a line is a header, or continues the header of the line before.
fn is_field_line(line: &[u8]) -> bool {
    matches!(line.iter().position(|b| *b == b':'), Some(1..))
        || line.starts_with(b" ")
        || line.starts_with(b"\t")
}

fn not_http1(bytes: &[u8]) -> Kind {
    match bytes {
        // A TLS alert or handshake record, version 3.x.
        [0x15 | 0x16, 0x03, ..] => Kind::Tls,
        // An HTTP/2 SETTINGS frame on stream 0: three bytes of length, type, flags, stream.
        [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Kind::Http2,
        _ => Kind::Malformed(excerpt(bytes)),
    }
}

impl Response {
    /// Returns the body, as far as it has arrived. In a chunked body, leaves out the line with the
    /// size of the first chunk.
    pub(super) fn text(&self) -> &[u8] {
        let body = &self.bytes[self.head_len..];
        if body.starts_with(b"{") || self.header("transfer-encoding").is_none() {
            return body;
        }
        match body.iter().position(|b| *b == b'\n') {
            Some(size_line) => &body[size_line + 1..],
            None => body,
        }
    }

    /// Returns the body's first line that is not blank, cut to [`EXCERPT_MAX`].
    pub(super) fn first_line(&self) -> Option<String> {
        let mut lines = self.text().split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        lines.find(|line| !line.is_empty()).map(excerpt)
    }

    pub(super) fn is_html(&self) -> bool {
        self.header("content-type")
            .is_some_and(|media_type| media_type.to_ascii_lowercase().starts_with("text/html"))
    }

    /// Returns the target of a redirect. Cuts it off after `?`, because a query can contain a
    /// session ID.
    pub(super) fn location(&self) -> Option<String> {
        if !(300..400).contains(&self.code) {
            return None;
        }
        let mut location = self.header("location").filter(|to| !to.is_empty())?;
        if let Some(query) = location.find('?') {
            location.truncate(query + 1);
        }
        Some(location)
    }

    fn header(&self, name: &str) -> Option<String> {
        self.header_value(name).map(excerpt)
    }

    pub(super) fn header_value(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.bytes[..self.head_len].split(|b| *b == b'\n');
        lines.find_map(|line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?.trim_ascii();
            field.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_MAX)]).into_owned()
}
