//! The gRPC service of `examples/grpc` in a container, with Python's grpcio as its client.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy grpc`

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{
    REPOSITORY,
    engine::{Container, Image, Program, TIMEOUT, python},
};

#[test]
fn another_client_watches_a_grpc_service_through_a_drain() {
    let packages = ["grpcio==1.85.3", "grpcio-health-checking==1.85.1"];
    let python = python("grpc", &packages);
    let image = Image::of(Program::Grpc);
    let service = Container::run(&image.tag, &[], &[]);

    let entry = service.turns("healthy");
    let line = entry["Output"].as_str().expect("a line");
    assert!(line.starts_with("healthy: pass in "), "{line}");
    let mut client = Client(
        Command::new(python)
            .arg(format!("{REPOSITORY}/tests/e2e/grpc_client.py"))
            .arg(service.address(50051).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python"),
    );
    let stdout = BufReader::new(client.0.stdout.take().expect("a pipe"));
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    // The lines of the three watches arrive in any order.
    let next = |count: usize| {
        let mut next: Vec<String> = (0..count)
            .map(|_| lines.recv_timeout(TIMEOUT).expect("a line"))
            .collect();
        next.sort();
        next
    };
    assert_eq!(
        next(3),
        [
            "check '' SERVING",
            "check 'example.Orders' SERVING",
            "check 'example.Unknown' NOT_FOUND",
        ]
    );
    assert_eq!(
        next(3),
        [
            "watch '' SERVING",
            "watch 'example.Orders' SERVING",
            "watch 'example.Unknown' SERVICE_UNKNOWN",
        ]
    );

    let start = Instant::now();
    let mut stop = service.stopping();
    assert_eq!(
        next(2),
        ["watch '' NOT_SERVING", "watch 'example.Orders' NOT_SERVING"]
    );
    println!("NOT_SERVING {:.2?} after docker stop", start.elapsed());
    // The clients know of the drain before the port closes, which is after 5 s.
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(
        next(3),
        [
            "watch '' ended",
            "watch 'example.Orders' ended",
            "watch 'example.Unknown' ended",
        ]
    );
    assert!(stop.wait().expect("docker").success());
    println!("stopped after {:.2?}", start.elapsed());
    assert!(client.0.wait().expect("a child").success());
    let state = service.state();
    assert_eq!(state["ExitCode"], 0, "{state:#}");
}

/// The client in a child process, killed when dropped.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
