//! An HTTP client that sends one request on each connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use crate::process::TIMEOUT;

pub(crate) const ROUTES: [&str; 3] = ["/health", "/health/ready", "/health/live"];

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.unwrap_or_else(|| panic!("{name} in {self:?}")).1
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Returns the status code, the status, and the reason if there is one, such as
    /// `503 fail: draining`.
    pub(crate) fn verdict(&self) -> String {
        let report = self.json();
        let status = report["status"].as_str().expect("a status");
        match report.get("output") {
            Some(output) => format!("{} {status}: {}", self.code, output.as_str().expect("text")),
            None => format!("{} {status}", self.code),
        }
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    request(address, "GET", path)
}

/// Sends one request on a new connection.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let incomplete = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(incomplete)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        code: code.ok_or_else(incomplete)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
