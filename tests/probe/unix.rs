//! Probes of services on Unix sockets.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    iter,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    process::Command,
    thread,
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    command::{
        SHORT, TIMEOUT, TemporaryDirectory, ends_at_once, ends_at_the_deadline, ends_in_time,
        healthcheck, printed_line, run_probe, serve_unix, skipped, works,
    },
    support::{
        hostile::{HEALTHY, OK, REPORT, WAITING, foreign, response},
        run,
    },
};

#[test]
fn a_unix_socket_is_probed_like_a_port() {
    let directory = TemporaryDirectory::new("asked");
    for (name, path, target) in [("a", "", "/health"), ("b", ":/custom?x=1", "/custom?x=1")] {
        let socket = directory.0.join(name);
        let requests = serve_unix(&socket, |stream| {
            let _ = stream.write_all(OK.as_bytes());
        });
        let url = format!("unix:{}{path}", socket.display());
        assert_eq!(printed_line(&run_probe(&url)), HEALTHY, "{url}");
        let request = requests
            .recv_timeout(TIMEOUT)
            .expect("the probe sends a request");
        let start = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn a_unix_socket_that_misbehaves_is_unhealthy() {
    let directory = TemporaryDirectory::new("bad");
    for (name, response, expected) in [
        ("unwell", response("503 X", REPORT), WAITING),
        (
            "cut",
            "HTTP/1.1 2".into(),
            "unhealthy: connection closed in the middle of a response",
        ),
        (
            "closed",
            vec![],
            "unhealthy: connection closed without a response: \
             if the port expects the PROXY protocol, probe another one",
        ),
        (
            "tls",
            b"\x15\x03\x01\0\x02\x02\x46".into(),
            "unhealthy: the server speaks TLS: use https",
        ),
        ("ssh", b"SSH-2.0-x\r\n".into(), &foreign(r"SSH-2.0-x\r\n")),
    ] {
        let socket = directory.0.join(name);
        serve_unix(&socket, move |stream| {
            let _ = stream.write_all(&response);
        });
        let peer = socket.display().to_string();
        let line = printed_line(&run_probe(&format!("unix:{peer}")));
        assert_eq!(
            line,
            format!("{expected} (GET unix:{peer}:/health)"),
            "{name}"
        );
    }
}

#[test]
fn a_silent_unix_socket_ends_at_the_deadline() {
    let directory = TemporaryDirectory::new("silent");
    let socket = directory.0.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    thread::spawn(move || {
        let mut unread = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            unread.push(stream);
        }
    });
    let socket = socket.display();
    ends_at_the_deadline(
        &format!("unix:{socket}"),
        &format!("unhealthy: no response within 500ms (GET unix:{socket}:/health)"),
    );
}

#[test]
fn an_invalid_unix_socket_is_unhealthy_at_once() {
    let directory = TemporaryDirectory::new("none");
    let stale = directory.0.join("stale");
    drop(UnixListener::bind(&stale).expect("a socket can be made"));
    let file = directory.0.join("file");
    File::create(&file).expect("a file can be made");
    for (socket, cause) in [
        (directory.0.join("missing"), "no such file or directory"),
        (
            directory.0.join("long".repeat(30)),
            "path must be shorter than SUN_LEN",
        ),
        (file.join("inside"), "not a directory"),
        (file, "connection refused"),
        (directory.0.clone(), "connection refused"),
        (stale, "connection refused"),
    ] {
        let socket = socket.display();
        ends_at_once(
            &format!("unix:{socket}"),
            &format!("unhealthy: connect to {socket}: {cause}"),
        );
    }
}

#[test]
fn a_unix_socket_without_permission_is_unhealthy() {
    let directory = TemporaryDirectory::new("denied");
    let socket = directory.0.join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket can be made");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).expect("its owner may do that");
    let url = format!("unix:{}", socket.display());
    let mut probe = healthcheck([&*url]);
    if UnixStream::connect(&socket).is_ok() {
        // Root bypasses file permissions, unless it drops the capability to do so.
        let mut weak = Command::new("setpriv");
        weak.args(["--bounding-set=-dac_override", "--"]);
        if !works(Command::new("setpriv").args(weak.get_args()).arg("true")) {
            return skipped("root cannot drop the capability here");
        }
        weak.arg(probe.get_program()).args(probe.get_args());
        probe = weak;
    }
    let expected = format!(
        "unhealthy: connect to {}: permission denied",
        socket.display()
    );
    assert_eq!(printed_line(&run(&mut probe)), expected);
}

#[test]
fn a_full_backlog_of_a_unix_socket_ends_at_the_deadline() {
    let directory = TemporaryDirectory::new("full");
    let socket = directory.0.join("socket");
    let address = SockAddr::unix(&socket).expect("the path is short");
    let new = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("descriptors are left");
    let listener = new();
    let listens = listener.bind(&address).and_then(|()| listener.listen(0));
    listens.expect("a socket can be made");
    let fits = |queued: &Socket| {
        let polled = queued.set_nonblocking(true);
        polled.and_then(|()| queued.connect(&address)).is_ok()
    };
    let _queue: Vec<Socket> = iter::repeat_with(new).take_while(fits).collect();
    let socket = socket.display();
    ends_at_the_deadline(
        &format!("unix:{socket}"),
        &format!("unhealthy: connect to {socket}: timed out after 500ms"),
    );
}

#[test]
fn a_request_that_is_read_too_slowly_ends_at_the_deadline() {
    let directory = TemporaryDirectory::new("slow");
    let socket = directory.0.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("the probe connects");
            while matches!(stream.read(&mut [0; 32768]), Ok(1..)) {
                thread::sleep(Duration::from_millis(200));
            }
        }
    });
    // The eight headers together are longer than the buffers of a socket.
    let header = format!("--header=X: {}", "x".repeat(100_000));
    let socket = socket.display();
    ends_in_time(SHORT, || {
        let mut probe = healthcheck([format!("unix:{socket}")]);
        let outcome = run(probe.args(["--timeout", "500ms"]).args([&*header; 8]));
        let expected = format!("unhealthy: no response within 500ms (GET unix:{socket}:/health)");
        (outcome, expected)
    });
}
