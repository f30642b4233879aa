//! Helpers for the end-to-end tests.

pub mod engine;
pub mod service;
#[path = "../../support/mod.rs"]
pub mod support;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// The root of the repository.
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns a field of the crate's Cargo.toml.
pub fn manifest_field(name: &str) -> String {
    let manifest = fs::read_to_string(format!("{REPOSITORY}/Cargo.toml")).expect("a manifest");
    let value = manifest.split(&format!("\n{name} = \"")).nth(1);
    let value = value.and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// Runs `docker` and returns its output.
pub fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    output(Command::new("docker").args(arguments))
}

/// Runs a program and returns its output. Panics if the program fails.
pub fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {stderr}{stdout}");
    stdout.trim_end().to_owned()
}

/// Runs a `docker` command that removes something. Errors are ignored, because this also runs while
/// a test panics.
pub fn remove<const N: usize>(arguments: [&str; N]) {
    let _ = Command::new("docker").args(arguments).output();
}

/// Calls `poll` until it returns a value. Panics with `what` after the limit.
pub fn eventually<T>(what: &str, limit: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a `GET` and returns the status code and the body, or 0 and the error.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    };
    match response() {
        Err(error) => (0, error.to_string()),
        Ok(response) => {
            let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            (status.unwrap_or(0), body.to_owned())
        }
    }
}

/// Parses JSON. Panics with the text if it is invalid.
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns a name that no other test on this machine uses.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", process::id())
}
