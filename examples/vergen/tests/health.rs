//! `/health` reports the values that vergen found at build time.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lifesign::build_info;

struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vergen-service"))
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

    fn health(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).unwrap();
        let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn health_reports_the_values_of_vergen() {
    // The test and the service are one package, so the macro gives both the same values.
    let build = build_info!();
    assert_eq!(build.describe(), option_env!("VERGEN_GIT_DESCRIBE"));
    assert_eq!(
        build.commit_date(),
        option_env!("VERGEN_GIT_COMMIT_TIMESTAMP")
    );

    let health = Service::start().health();

    for (key, value) in [
        ("commit", build.commit()),
        ("commitDate", build.commit_date()),
    ] {
        // Outside a repository vergen finds no values.
        let entry = value.map_or(String::new(), |value| format!("\"{key}\":\"{value}\""));
        assert!(health.contains(&entry), "{entry} in {health}");
    }
}
