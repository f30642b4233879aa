//! The HTTPS probe of the example, which terminates TLS itself.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tls"))
            .env("ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        Self { child, address }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tls"))
        .arg("healthcheck")
        .args(args)
        .env_remove("LIFESIGN_URL")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        // The probe must work without the system's certificates.
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap()
}

#[track_caller]
fn assert_healthy(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("healthy: pass in "), "{text}{error}");
    assert_eq!(output.status.code(), Some(0));
}

#[track_caller]
fn assert_unhealthy(output: &Output, line: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{line}\n"));
    assert_eq!(output.status.code(), Some(1));
}

// These cases are one test, because services of the same name share one advertisement.
#[test]
fn https_is_found_asked_and_told_apart_from_http() {
    let service = Service::start();
    let address = &service.address;

    assert_healthy(&probe(&[]));
    assert_healthy(&probe(&["--ready"]));
    let port = address.rsplit(':').next().unwrap();
    assert_healthy(&probe(&[&format!("https://{address}/health")]));
    assert_healthy(&probe(&[&format!("https://localhost:{port}")]));
    assert_unhealthy(
        &probe(&[&format!("https://{address}/nowhere")]),
        &format!("unhealthy: 404: no such path (GET https://{address}/nowhere)"),
    );
    assert_unhealthy(
        &probe(&[&format!("https://{address}/status")]),
        &format!(
            "unhealthy: 308 redirect to /health: not followed, probe that URL instead \
             (GET https://{address}/status)"
        ),
    );
    // Plain HTTP to a TLS port has an error message of its own.
    assert_unhealthy(
        &probe(&[&format!("http://{address}/health")]),
        &format!("unhealthy: the server speaks TLS: use https (GET http://{address}/health)"),
    );

    // The connection to a closed port is refused, and a silent server lets the probe time out.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_unhealthy(
        &probe(&[&format!("https://{closed}")]),
        &format!("unhealthy: connect to {closed}: connection refused"),
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let start = Instant::now();
    assert_unhealthy(
        &probe(&[&format!("https://{address}"), "--timeout", "500ms"]),
        &format!("unhealthy: no response within 500ms (GET https://{address}/health)"),
    );
    assert!(start.elapsed() < Duration::from_secs(1));

    // The probe does not verify certificates, so it connects only to addresses of this machine. A
    // check with `bind` would accept the second and third address here, which are multicast and
    // broadcast.
    for other in ["192.0.2.1", "224.0.0.1", "255.255.255.255", "[2001:db8::1]"] {
        assert_unhealthy(
            &probe(&[&format!("https://{other}:8443")]),
            &format!(
                "unhealthy: not an address of this machine, and certificates are not verified \
                 (GET https://{other}:8443/health)"
            ),
        );
    }
    // All of 127.0.0.0/8 belongs to this machine, although the kernel chooses 127.0.0.1 as the
    // source address of a connection.
    let elsewhere = TcpListener::bind("127.0.0.2:0");
    if let Ok(closed) = elsewhere.and_then(|listener| listener.local_addr()) {
        assert_unhealthy(
            &probe(&[&format!("https://{closed}")]),
            &format!("unhealthy: connect to {closed}: connection refused"),
        );
    }
}
