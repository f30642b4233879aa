//! The exact bytes of the request.

use std::{
    env,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::mpsc,
    time::Duration,
};

use crate::{
    command::{
        TIMEOUT, captured_request, captured_request_on, healthcheck, printed_line, run_probe,
        skipped,
    },
    support::{
        hostile::{HEALTHY, Hold, OK, Transmit, closed_pair, perform, read_request, response},
        serve,
    },
};

#[test]
fn the_request_is_exactly_this() {
    assert_eq!(
        captured_request(|address| healthcheck([format!("http://{address}")])),
        format!(
            "GET /health HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: lifesign/{}\r\n\
             Accept: */*\r\nConnection: close\r\nLifesign-Probe: 1\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn given_headers_replace_the_default_ones() {
    let headers = [
        "--header",
        "host: example.org",
        "--header",
        "X-A:  b c\t",
        "--header=X-A:",
        "--header=USER-AGENT: me",
        "--header=accept: text/plain",
    ];
    let probe = |address| {
        let mut probe = healthcheck([format!("http://{address}")]);
        probe.args(headers);
        probe
    };
    assert_eq!(
        captured_request(probe),
        "GET /health HTTP/1.1\r\nConnection: close\r\nLifesign-Probe: 1\r\nhost: example.org\r\n\
         X-A: b c\r\nX-A: \r\nUSER-AGENT: me\r\naccept: text/plain\r\n\r\n"
    );
}

#[test]
fn the_host_header_names_the_target() {
    for (host, named) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
    ] {
        let probe = |a: SocketAddr| healthcheck([format!("HTTP://{host}:{}", a.port())]);
        let request = captured_request(probe);
        let start = format!("GET /health HTTP/1.1\r\nHost: {named}:PORT\r\n");
        assert!(request.starts_with(&start), "{host}: {request}");
    }
    let Some((_closed, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    v6.listen(8).expect("a bound socket can listen");
    let request = captured_request_on(v6, |address| healthcheck([format!("http://{address}")]));
    let start = "GET /health HTTP/1.1\r\nHost: [::1]:PORT\r\n";
    assert!(request.starts_with(start), "{request}");
    // For the wildcard address `[::]`, the Host header is `[::1]`, even if only 127.0.0.1 responds.
    let wildcard = captured_request(|a| healthcheck([format!("http://[::]:{}", a.port())]));
    assert!(wildcard.starts_with(start), "{wildcard}");
}

#[test]
fn path_and_query_are_sent_unchanged() {
    for target in [
        "/",
        "/healthz?full=1&x=%20",
        "//a",
        "/a/../b",
        "/~'()*;@:!$,\"<>",
    ] {
        let request =
            captured_request(|address| healthcheck([format!("http://{address}{target}")]));
        let start = format!("GET {target} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn each_probe_has_its_path() {
    for (probe, path) in [("--ready", "/health/ready"), ("--live", "/health/live")] {
        let request = captured_request(|a| healthcheck([&*format!("http://{a}"), probe]));
        let start = format!("GET {path} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn the_request_is_one_write() {
    // The reader polls, so it sees most writes separately. If the probe wrote twice, one of 20
    // rounds would show it.
    for _ in 0..20 {
        let (sender, first) = mpsc::channel();
        let address = serve(move |mut stream| {
            stream.set_nonblocking(true).expect("sockets can be polled");
            let mut chunk = [0; 4096];
            let count = loop {
                match stream.read(&mut chunk) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => break result.unwrap_or(0),
                }
            };
            let _ = sender.send(String::from_utf8_lossy(&chunk[..count]).into_owned());
        });
        run_probe(&format!("http://{address}"));
        let first = first
            .recv_timeout(TIMEOUT)
            .expect("the probe sends a request");
        assert!(
            first.starts_with("GET ") && first.ends_with("\r\n\r\n"),
            "{first:?}"
        );
    }
}

#[test]
fn the_probe_does_not_half_close_before_the_response() {
    let address = serve(|mut stream| {
        read_request(&mut stream);
        let waits = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let response = match waits.and_then(|()| stream.read(&mut [0])) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => OK.into(),
            other => response("503 X", format!("{other:?}")),
        };
        perform(&[Transmit(response), Hold], stream);
    });
    assert_eq!(
        printed_line(&run_probe(&format!("http://{address}"))),
        HEALTHY
    );
}

#[test]
fn a_received_body_is_read_to_avoid_a_reset() {
    for size in [0, 2, 2048, 16384] {
        let (sender, closed) = mpsc::channel();
        let address = serve(move |mut stream| {
            read_request(&mut stream);
            let sent = stream.write_all(&response("200 OK", "x".repeat(size)));
            let end = sent.and_then(|()| stream.read(&mut [0]));
            let _ = sender.send(end.map_err(|error| error.kind()));
        });
        run_probe(&format!("http://{address}"));
        let end = closed.recv_timeout(TIMEOUT).expect("the probe closes");
        assert_eq!(end, Ok(0), "after {size} bytes");
    }
}
