//! The life cycle of `examples/blocking.rs`, a service without tokio.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use crate::{
    process::{AT_ONCE, Program, connect, drains, eventually, get},
    signals::apart,
    support::example,
};

/// The default shutdown timeout.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Length in bytes of the name in a request's body. `tiny_http` reads a body of up to 1024 bytes
/// before it passes the request to the program.
const NAME: usize = 2000;

#[test]
fn service_without_tokio_has_the_same_life_cycle() {
    let (program, address) = blocking();
    let url = format!("http://{address}/health");
    let mut probe = Command::new(example("blocking"));
    let probe = probe.args(["healthcheck", &url]).output();
    let probe = probe.expect("a probe");
    assert!(probe.status.success(), "{probe:?}");
    let mut slow = half_a_name(address);

    program.signal("TERM");
    drains(address);
    let during = get(address, "/").expect("a response");
    apart();
    program.signal("TERM");
    // The test only connects, because a request sent while the port closes gets no response.
    eventually("the port closes", || connect(address).err());
    slow.write_all(&[b'x'; NAME / 2]).expect("the rest");
    let mut response = String::new();
    slow.read_to_string(&mut response).expect("a response");
    let end = program.end();

    assert!(during.ends_with("hello \n"), "{during}");
    let greeting = format!("hello {}\n", "x".repeat(NAME));
    assert!(response.ends_with(&greeting), "{response}");
    assert_eq!((end.code, &*end.log), (Some(0), ""));
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn service_without_tokio_ends_at_the_timeout() {
    let (program, address) = blocking();
    let _endless = half_a_name(address);
    let mut half_a_head = connect(address).expect("a connection");
    half_a_head.write_all(b"GET / HT").expect("half a head");

    program.signal("TERM");
    drains(address);
    apart();
    program.signal("TERM");
    let end = program.end();

    assert_eq!((end.code, &*end.log), (Some(0), "requests were cut\n"));
    assert!((TIMEOUT..TIMEOUT + AT_ONCE).contains(&end.took), "{end:?}");
}

fn blocking() -> (Program, SocketAddr) {
    let service = &mut Command::new(example("blocking"));
    let program = Program::spawn(service, &[("ADDRESS", "127.0.0.1:0")]);
    let address = program.address();
    eventually("the service is ready", || {
        let response = get(address, "/health").ok()?;
        response.starts_with("HTTP/1.1 200").then_some(())
    });
    (program, address)
}

/// Sends the head of a request and the first half of its body.
fn half_a_name(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    let body = "x".repeat(NAME / 2);
    write!(stream, "{head}Content-Length: {NAME}\r\n\r\n{body}").expect("a request");
    stream
}
