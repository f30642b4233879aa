//! The probe through its front door: `service healthcheck …` as a child process, against servers
//! that misbehave in every way we know of.
//!
//! | what is looked at | how |
//! |---|---|
//! | answers, and none | the tables of `support/scenarios.rs`: servers, and the line about each |
//! | signals, pipes, limits | what is done to a probe, and what it says all the same |
//! | arguments and variables | [`refuses`] and its like: the line, and nobody is asked |
//!
//! All of them go through [`told`], which holds what every probe promises: exit code 0 or 1, one
//! line of at most 400 bytes, on stdout when healthy and on stderr when not.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{ErrorKind, Read, Write},
    iter,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        LazyLock,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::hostile::{
    Case, HEALTHY, Hear, Hold, OK, Pace, REPORT, Reset, Say, Scene, Table, WAITING, address_of,
    bound, closed, closed_pair, foreign, full_backlog, listener, perform, read_request, response,
    say, says,
};
use crate::support::{Outcome, example, exclusive, run, serve, serve_on, start};

use crate::support::{hostile, scenarios};

/// The promise of each table is a test of that name.
macro_rules! tests {
    ($($table:ident,)+) => {
        $(
            #[test]
            fn $table() {
                check(scenarios::$table());
            }
        )+

        #[test]
        fn as_many_scenarios_as_the_pages_say() {
            let count = 0 $(+ scenarios::$table().cases.len())+;
            for (page, phrase) in [
                ("README.md", format!("{count} servers, most of them misbehaving")),
                ("docs/hostile.md", format!("the {count} scenarios by which")),
            ] {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
                let text = fs::read_to_string(path).expect("a page");
                assert!(text.contains(&phrase), "{page}: {phrase}?");
            }
        }
    };
}

scenarios::for_each_table!(tests);

#[test]
fn a_report_in_other_words_is_told_with_the_code() {
    for word in ["UP", "DOWN", "fail"] {
        let body = format!(r#"{{"status":"{word}"}}"#);
        let address = serve(|stream| perform(&says(response("200 OK", body)), stream));
        let line = told(&ask(&format!("http://{address}")));
        assert_eq!(line, format!("healthy: 200 {word} in # ms"));
    }
}

// The deadline.

#[test]
fn the_timeout_is_3_s_by_default() {
    ends_in_time(DEADLINE, || {
        let address = serve(|stream| perform(&[Hear, Hold], stream));
        let outcome = ask(&format!("http://{address}"));
        let expected = format!("unhealthy: {address} sent no response within 3s");
        (outcome, expected)
    });
}

#[test]
fn a_freeze_within_the_deadline_does_no_harm() {
    let (thaw, thawed) = mpsc::channel();
    let (address, asked) = serve_asked(move |mut stream| {
        let _ = thawed.recv();
        let _ = stream.write_all(OK.as_bytes());
    });
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "9s"]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    thaw.send(()).expect("the server waits");
    assert_eq!(told(&probe.finish()), HEALTHY);
}

#[test]
fn a_freeze_while_connecting_does_no_harm() {
    let (listener, queue) = full_backlog();
    let url = format!("http://{}", address_of(&listener));
    let probe = start(healthcheck([&*url]).args(["--timeout", "9s"]));
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    drop(queue);
    thread::spawn(move || {
        let listener = TcpListener::from(listener);
        while let Ok((stream, _)) = listener.accept() {
            perform(&[Hear, say(OK)], stream);
        }
    });
    assert_eq!(told(&probe.finish()), HEALTHY);
}

#[test]
fn a_freeze_while_connecting_does_not_change_what_is_said() {
    let (listener, _queue) = full_backlog();
    let address = address_of(&listener);
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "1s"]));
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    assert_eq!(
        told(&probe.finish()),
        format!("unhealthy: connect to {address}: timed out after 1s")
    );
}

#[test]
fn a_freeze_beyond_the_deadline_ends_as_unhealthy() {
    let (address, asked) = serve_asked(|stream| perform(&[Hold], stream));
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "1s"]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    freeze(probe.child.id());
    thread::sleep(Duration::from_secs(1));
    signal(probe.child.id(), "CONT");
    assert_eq!(
        told(&probe.finish()),
        format!("unhealthy: {address} sent no response within 1s")
    );
}

#[test]
fn an_answer_that_is_complete_after_the_deadline_is_late() {
    // Linux rounds waits up by some milliseconds, and several are started so that one at least is
    // rounded: it has the whole answer, and must not believe it.
    let late = || {
        let (address, _asked) = serve_asked(|mut stream| {
            thread::sleep(Duration::from_secs(3));
            let _ = stream.write_all(OK.as_bytes());
        });
        let outcome = run(healthcheck([format!("http://{address}")]).args(["--timeout", "3s"]));
        let line = told(&outcome);
        let sent = |what: &str| format!("unhealthy: {address} sent {what} within 3s");
        assert!(
            [sent("no response"), sent("an incomplete response")].contains(&line),
            "{line}"
        );
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(late);
        }
    });
}

#[test]
fn sigpipe_does_no_harm() {
    let (go, gone) = mpsc::channel();
    let (address, asked) = serve_asked(move |mut stream| {
        let _ = gone.recv();
        let _ = stream.write_all(OK.as_bytes());
    });
    let probe = start(&mut healthcheck([format!("http://{address}")]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    signal(probe.child.id(), "PIPE");
    go.send(()).expect("the server waits");
    assert_eq!(told(&probe.finish()), HEALTHY);
}

#[test]
fn a_clock_that_is_set_back_again_and_again_changes_nothing() {
    // The machine's own clock is not a test's to set. The kernel's timeouts don't follow it either.
    let folder = Folder::new("clock");
    let [source, library] = ["back.c", "back.so"].map(|name| folder.0.join(name));
    fs::write(&source, CLOCK_THAT_IS_SET_BACK).expect("a file can be made");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]);
    assert!(works(compile.arg(&library).arg(&source)), "{compile:?}");
    let now = run(Command::new("date").arg("+%Y").env("LD_PRELOAD", &library));
    assert_eq!(now.stdout, "1970\n");

    ends_in_time(SHORT, || {
        let address = serve(|stream| perform(&[Hear, Hold], stream));
        let mut probe = healthcheck([&*format!("http://{address}"), "--timeout", "500ms"]);
        let outcome = run(probe.env("LD_PRELOAD", &library));
        let expected = format!("unhealthy: {address} sent no response within 500ms");
        (outcome, expected)
    });

    let address = serve(|stream| perform(&[Hear, hostile::pause(300), say(OK)], stream));
    let mut probe = healthcheck([format!("http://{address}")]);
    let outcome = run(probe.env("LD_PRELOAD", &library));
    assert_eq!(told(&outcome), HEALTHY);
    let said = outcome.stdout.trim_start_matches("healthy: 200 in ");
    let took = said.trim_end_matches(" ms\n").parse::<f64>();
    assert!(took.is_ok_and(|took| took >= 300.0), "{said}");
}

/// Each time that somebody asks, it is earlier.
const CLOCK_THAT_IS_SET_BACK: &str = "
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static long now = 10000000;
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME)
        time->tv_sec = now -= 3600;
    return failed;
}
";

#[test]
fn sigterm_ends_a_probe_at_once() {
    let (address, asked) = serve_asked(|stream| perform(&[Hold], stream));
    let probe = start(&mut healthcheck([format!("http://{address}")]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    signal(probe.child.id(), "TERM");
    let outcome = probe.finish();
    assert_eq!(printed(&outcome), (None, "", ""));
    assert!(AT_ONCE.contains(&outcome.took), "{outcome:?}");
}

// Whom it asks.

#[test]
fn a_closed_port_is_unhealthy_at_once() {
    let closed = closed();
    let address = address_of(&closed);
    for host in ["127.0.0.1", "0.0.0.0"] {
        ends_at_once(
            &format!("http://{host}:{}", address.port()),
            &format!("unhealthy: connect to {address}: connection refused"),
        );
    }
}

#[test]
fn localhost_and_the_wildcard_of_ipv6_are_asked_on_both_loopback_addresses() {
    if closed_pair().is_none() {
        return skipped("there is no ::1 here");
    }
    for host in ["localhost", "[::]"] {
        let (v4, v6) = closed_pair().expect("there was one");
        let port = address_of(&v4).port();
        let both = format!("127.0.0.1:{port} or [::1]:{port}");
        let refused = format!("unhealthy: connect to {both}: connection refused");
        ends_at_once(&format!("http://{host}:{port}"), &refused);
        drop((v4, v6));

        for family in [4, 6] {
            let (v4, v6) = closed_pair().expect("there was one");
            let (open, _closed) = if family == 4 { (v4, v6) } else { (v6, v4) };
            let port = address_of(&open).port();
            open.listen(8).expect("a bound socket can listen");
            serve_on(open.into(), |stream| perform(&says(OK), stream));
            let line = told(&ask(&format!("http://{host}:{port}")));
            assert_eq!(line, HEALTHY, "{host} with a listener on IPv{family}");
        }
    }
}

#[test]
fn the_wildcard_of_ipv4_is_not_asked_on_ipv6() {
    let Some((_closed, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    v6.listen(8).expect("a bound socket can listen");
    let port = address_of(&v6).port();
    ends_at_once(
        &format!("http://0.0.0.0:{port}"),
        &format!("unhealthy: connect to 127.0.0.1:{port}: connection refused"),
    );
}

#[test]
fn a_port_that_is_connected_to_itself_is_unhealthy() {
    // The port that is asked is the only one that the kernel can ask from.
    let script = "ip link set lo up &&
        echo '40000 40000' >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let namespace = ["-r", "-n", "sh", "-c", script, "sh"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("there are no network namespaces to be had here");
    }
    let mut probe = Command::new("unshare");
    probe.args(namespace).arg(example("service"));
    let line = told(&run(probe.args(["healthcheck", "http://127.0.0.1:40000"])));
    let expected =
        r"unhealthy: 127.0.0.1:40000 does not speak HTTP/1: it sent GET /health HTTP/1.1";
    assert!(line.replace('"', "").starts_with(expected), "{line}");
}

#[test]
fn a_machine_without_any_network_is_unhealthy_at_once() {
    // Nobody has set up the loopback.
    let namespace = ["-r", "-n"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("there are no network namespaces to be had here");
    }
    for (host, told) in [
        ("127.0.0.1", "127.0.0.1:1: network is unreachable"),
        ("[::1]", "[::1]:1: cannot assign requested address"),
        (
            "localhost",
            "127.0.0.1:1 or [::1]:1: network is unreachable",
        ),
    ] {
        let mut probe = Command::new("unshare");
        probe.args(namespace).arg(example("service"));
        let outcome = run(probe.args(["healthcheck", &format!("http://{host}:1")]));
        let expected = format!("unhealthy: connect to {told}");
        complain(&outcome, &expected, &AT_ONCE);
    }
}

#[test]
fn a_link_local_address_needs_its_interface() {
    ends_at_once(
        "http://[fe80::1]:80",
        "unhealthy: connect to [fe80::1]:80: invalid argument",
    );
    // The loopback gets one; when it can be reached is up to the kernel. The service dies with the
    // probe, which is process 1.
    let set = "mount -t tmpfs tmpfs /dev/shm && ip link set lo up &&
        ip address add fe80::1/64 dev lo nodad";
    let ask = "mkfifo \"$1\" && { HOST=:: PORT=40000 \"$0\" >\"$1\" 2>/dev/null & } &&
        exec 3<\"$1\" && read _ <&3 && set -- healthcheck 'http://[fe80::1%1]:40000' &&
        until \"$0\" \"$@\" --quiet; do :; done && exec \"$0\" \"$@\"";
    let namespace = ["-r", "-m", "-n", "-p", "-f", "--kill-child", "sh", "-c"];
    if !works(Command::new("unshare").args(namespace).arg(set)) {
        return skipped("there are no link-local addresses to be had here");
    }
    let folder = Folder::new("link");
    let mut probe = Command::new("unshare");
    probe
        .args(namespace)
        .arg(format!("{set} && {ask}"))
        .arg(example("service"))
        .arg(folder.0.join("fifo"));
    assert_eq!(told(&run(&mut probe)), "healthy: pass in # ms");
}

#[test]
fn proxies_are_not_used() {
    let closed = closed();
    let proxy = format!("http://{}", address_of(&closed));
    let address = serve(|stream| perform(&says(OK), stream));
    let mut probe = healthcheck([format!("http://{address}")]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        probe.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    probe.env_remove("NO_PROXY").env_remove("no_proxy");
    assert_eq!(told(&run(&mut probe)), HEALTHY);
}

// What goes on the wire.

#[test]
fn the_request_is_exactly_this() {
    assert_eq!(
        overhear(|address| healthcheck([format!("http://{address}")])),
        format!(
            "GET /health HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: lifesign/{}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn headers_that_are_given_come_last_and_instead_of_ours() {
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
        overhear(probe),
        "GET /health HTTP/1.1\r\nConnection: close\r\nhost: example.org\r\nX-A: b c\r\n\
         X-A: \r\nUSER-AGENT: me\r\naccept: text/plain\r\n\r\n"
    );
}

#[test]
fn the_request_names_the_host_that_is_asked() {
    for (host, named) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::]", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
    ] {
        let probe = |a: SocketAddr| healthcheck([format!("HTTP://{host}:{}", a.port())]);
        let request = overhear(probe);
        let start = format!("GET /health HTTP/1.1\r\nHost: {named}:PORT\r\n");
        assert!(request.starts_with(&start), "{host}: {request}");
    }
    let Some((_closed, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    v6.listen(8).expect("a bound socket can listen");
    let request = overhear_on(v6, |address| healthcheck([format!("http://{address}")]));
    let start = "GET /health HTTP/1.1\r\nHost: [::1]:PORT\r\n";
    assert!(request.starts_with(start), "{request}");
}

#[test]
fn path_and_query_go_out_as_they_are() {
    for target in [
        "/",
        "/healthz?full=1&x=%20",
        "//a",
        "/a/../b",
        "/~'()*;@:!$,\"<>",
    ] {
        let request = overhear(|address| healthcheck([format!("http://{address}{target}")]));
        let start = format!("GET {target} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn each_probe_has_its_path() {
    for (probe, path) in [("--ready", "/health/ready"), ("--live", "/health/live")] {
        let request = overhear(|a| healthcheck([&*format!("http://{a}"), probe]));
        let start = format!("GET {path} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn the_request_is_one_write() {
    // A reader that never sleeps sees each write by itself, if not every time.
    for _ in 0..20 {
        let (heard, first) = mpsc::channel();
        let address = serve(move |mut stream| {
            stream.set_nonblocking(true).expect("sockets can be polled");
            let mut chunk = [0; 4096];
            let count = loop {
                match stream.read(&mut chunk) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => break result.unwrap_or(0),
                }
            };
            let _ = heard.send(String::from_utf8_lossy(&chunk[..count]).into_owned());
        });
        ask(&format!("http://{address}"));
        let first = first.recv_timeout(PATIENCE).expect("the probe asks");
        assert!(
            first.starts_with("GET ") && first.ends_with("\r\n\r\n"),
            "{first:?}"
        );
    }
}

#[test]
fn the_probe_keeps_its_side_open_until_the_answer_is_there() {
    let address = serve(|mut stream| {
        read_request(&mut stream);
        let waits = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let answer = match waits.and_then(|()| stream.read(&mut [0])) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => OK.into(),
            other => response("503 X", format!("{other:?}")),
        };
        perform(&[Say(answer), Hold], stream);
    });
    assert_eq!(told(&ask(&format!("http://{address}"))), HEALTHY);
}

#[test]
fn a_body_that_has_arrived_is_read_so_that_nothing_is_reset() {
    for size in [0, 2, 2048, 16384] {
        let (leaves, left) = mpsc::channel();
        let address = serve(move |mut stream| {
            read_request(&mut stream);
            let sent = stream.write_all(&response("200 OK", "x".repeat(size)));
            let end = sent.and_then(|()| stream.read(&mut [0]));
            let _ = leaves.send(end.map_err(|error| error.kind()));
        });
        ask(&format!("http://{address}"));
        let end = left.recv_timeout(PATIENCE).expect("the probe leaves");
        assert_eq!(end, Ok(0), "after {size} bytes");
    }
}

// Unix sockets.

#[test]
fn a_unix_socket_is_asked_like_a_port() {
    let folder = Folder::new("asked");
    for (name, path, target) in [("a", "", "/health"), ("b", ":/custom?x=1", "/custom?x=1")] {
        let socket = folder.0.join(name);
        let requests = serve_unix(&socket, |stream| {
            let _ = stream.write_all(OK.as_bytes());
        });
        let url = format!("unix:{}{path}", socket.display());
        assert_eq!(told(&ask(&url)), HEALTHY, "{url}");
        let request = requests.recv_timeout(PATIENCE).expect("the probe asks");
        let start = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn a_unix_socket_that_misbehaves_is_unhealthy() {
    let folder = Folder::new("bad");
    for (name, answer, expected) in [
        ("unwell", response("503 X", REPORT), WAITING),
        (
            "cut",
            "HTTP/1.1 2".into(),
            "unhealthy: {peer} closed the connection in the middle of a response",
        ),
        (
            "closed",
            vec![],
            "unhealthy: {peer} closed the connection without a response",
        ),
        (
            "tls",
            b"\x15\x03\x01\0\x02\x02\x46".into(),
            "unhealthy: {peer} speaks TLS: use https",
        ),
        ("ssh", b"SSH-2.0-x\r\n".into(), &foreign(r"SSH-2.0-x\r\n")),
    ] {
        let socket = folder.0.join(name);
        serve_unix(&socket, move |stream| {
            let _ = stream.write_all(&answer);
        });
        let peer = socket.display().to_string();
        let line = told(&ask(&format!("unix:{peer}")));
        assert_eq!(line, expected.replace("{peer}", &peer), "{name}");
    }
}

#[test]
fn a_unix_socket_that_says_nothing_ends_at_the_deadline() {
    let folder = Folder::new("silent");
    let socket = folder.0.join("socket");
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
        &format!("unhealthy: {socket} sent no response within 500ms"),
    );
}

#[test]
fn a_unix_socket_that_is_none_is_unhealthy_at_once() {
    let folder = Folder::new("none");
    let stale = folder.0.join("stale");
    drop(UnixListener::bind(&stale).expect("a socket can be made"));
    let file = folder.0.join("file");
    File::create(&file).expect("a file can be made");
    for (socket, cause) in [
        (folder.0.join("missing"), "no such file or directory"),
        (
            folder.0.join("long".repeat(30)),
            "path must be shorter than SUN_LEN",
        ),
        (file.join("inside"), "not a directory"),
        (file, "connection refused"),
        (folder.0.clone(), "connection refused"),
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
    let folder = Folder::new("denied");
    let socket = folder.0.join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket can be made");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).expect("its owner may do that");
    let url = format!("unix:{}", socket.display());
    let mut probe = healthcheck([&*url]);
    if UnixStream::connect(&socket).is_ok() {
        // The superuser may do everything, until it gives that up.
        let mut weak = Command::new("setpriv");
        weak.args(["--bounding-set=-dac_override", "--"]);
        if !works(Command::new("setpriv").args(weak.get_args()).arg("true")) {
            return skipped("the superuser cannot give up its power here");
        }
        weak.arg(probe.get_program()).args(probe.get_args());
        probe = weak;
    }
    let expected = format!(
        "unhealthy: connect to {}: permission denied",
        socket.display()
    );
    assert_eq!(told(&run(&mut probe)), expected);
}

#[test]
fn a_full_backlog_of_a_unix_socket_ends_at_the_deadline() {
    let folder = Folder::new("full");
    let socket = folder.0.join("socket");
    let address = SockAddr::unix(&socket).expect("the path is short");
    let new = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("sockets are left");
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
    let folder = Folder::new("slow");
    let socket = folder.0.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("the probe connects");
            while matches!(stream.read(&mut [0; 32768]), Ok(1..)) {
                thread::sleep(Duration::from_millis(200));
            }
        }
    });
    // More than a socket buffers.
    let header = format!("--header=X: {}", "x".repeat(100_000));
    let socket = socket.display();
    ends_in_time(SHORT, || {
        let mut probe = healthcheck([format!("unix:{socket}")]);
        let outcome = run(probe.args(["--timeout", "500ms"]).args([&*header; 8]));
        let expected = format!("unhealthy: {socket} sent no response within 500ms");
        (outcome, expected)
    });
}

// Arguments.

#[test]
fn a_time_without_a_unit_or_a_sense_is_refused() {
    let expected = "expected a time like 500ms, 2s or 1m, more than 0 and at most 1h";
    for time in [
        "0",
        "3",
        "0s",
        "0ms",
        "-3s",
        "+3s",
        "3 s",
        "3S",
        "1e3s",
        "1.2.3s",
        "s",
        "infs",
        "0.1ms",
        "61m",
        "99999999999999999999h",
        "",
    ] {
        let refused = format!("unhealthy: --timeout: {expected}");
        assert_eq!(told(&run(&mut healthcheck(["--timeout", time]))), refused);
        assert_eq!(told(&ask(&format!("--timeout={time}"))), refused);
    }
    assert_eq!(
        told(&ask("--timeout")),
        format!("unhealthy: --timeout: {expected}")
    );
}

#[test]
fn a_time_is_taken_in_every_unit() {
    for time in ["2500ms", "2.5s", "2s", "1m", "1h"] {
        let address = serve(|stream| perform(&says(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        assert_eq!(
            told(&run(probe.args(["--timeout", time]))),
            HEALTHY,
            "{time}"
        );
    }
    ends_in_time(SHORT, || {
        let address = serve(|stream| perform(&[Hear, Hold], stream));
        let outcome = run(&mut healthcheck([
            &*format!("http://{address}"),
            "--timeout=0.5s",
        ]));
        let expected = format!("unhealthy: {address} sent no response within 500ms");
        (outcome, expected)
    });
}

#[test]
fn a_header_that_could_change_the_request_is_refused() {
    let form = "expected 'Name: value'";
    let control = "expected a value without control characters";
    let frame = "expected a header that does not frame the request";
    for (header, name, expected) in [
        ("", "", form),
        ("X", "", form),
        (": x", "", form),
        ("X : y", "", form),
        ("Ä: ö", "", form),
        ("X\r\nY: z", "", form),
        ("X: y\r\nZ: z", "X", control),
        ("X: y\u{7f}", "X", control),
        ("Content-Length: 5", "Content-Length", frame),
        ("transfer-encoding: chunked", "transfer-encoding", frame),
        ("connection: keep-alive", "connection", frame),
    ] {
        let named = match name {
            "" => String::new(),
            _ => format!(" {name:?}"),
        };
        let line = told(&run(&mut healthcheck(["--header", header])));
        assert_eq!(line, format!("unhealthy: --header{named}: {expected}"));
    }
    assert_eq!(
        told(&ask("--header")),
        format!("unhealthy: --header: {form}")
    );
}

#[test]
fn an_unknown_flag_is_refused() {
    for (argument, flag) in [
        ("--verbose", "--verbose"),
        ("-v", "-v"),
        ("-", "-"),
        ("--", "--"),
        ("--READY", "--READY"),
        ("--verbose=yes", "--verbose"),
        ("--X-Key: y", "--X-Key"),
    ] {
        assert_eq!(
            told(&ask(argument)),
            format!(
                "unhealthy: unknown flag {flag}: expected one of --ready, --live, --timeout, \
                 --header, --quiet, --help"
            )
        );
    }
    for flag in ["--ready", "--live", "--quiet", "--help"] {
        for value in ["", "yes"] {
            let line = told(&ask(&format!("{flag}={value}")));
            assert_eq!(line, format!("unhealthy: {flag}: expected no value"));
        }
    }
}

#[test]
fn an_url_that_is_none_is_refused() {
    let form = "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH";
    refuses(&["ftp://127.0.0.1/"], form);
    refuses_unshown(
        &["localhost:8080", "127.0.0.1", "health", "http:/x", ""],
        form,
    );
    let socket = "expected unix:/ABSOLUTE/SOCKET or unix:/ABSOLUTE/SOCKET:/PATH";
    refuses(
        &["unix:socket", "unix:/a\nb", "unix:", "unix::/path"],
        socket,
    );
    refuses_unshown(&["unix:@abstract"], socket);
}

#[test]
fn a_host_name_is_refused_since_names_are_not_resolved() {
    refuses(
        &[
            "http://example.org/",
            "http://db:8080",
            "http://localhost.:80",
            "http://:80",
            "http://",
            "http://127.1:80",
            "http://0x7f000001",
            "http://[127.0.0.1]",
            "http://[::1",
            "http://::1",
            "http://[fe80::1%eth0]:80",
        ],
        HOST,
    );
}

#[test]
fn a_port_that_is_none_is_refused() {
    refuses(
        &[
            "http://127.0.0.1:0",
            "http://127.0.0.1:70000",
            "http://127.0.0.1:+80",
            "http://127.0.0.1:",
            "http://127.0.0.1:80:80",
            "http://[::1]80",
            "https://[::1]:x/",
        ],
        "expected a port from 1 to 65535",
    );
}

#[test]
fn a_path_that_http_does_not_take_as_it_is_is_refused() {
    refuses(
        &[
            "/a b",
            "/a\r\nX:y",
            "/a\nb",
            "/a\tb",
            "/a#b",
            "/für-alle",
            "http://127.0.0.1:80/a b",
            "http://127.0.0.1:80/ HTTP/1.1\r\nX:y",
            "unix:/a:/b c",
        ],
        "expected a path of printable ASCII without spaces or '#'",
    );
    refuses_unshown(
        &["http://127.0.0.1:80?"],
        "expected a path of printable ASCII without spaces or '#'",
    );
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    for (args, wrong, expected) in [
        (
            ["http://127.0.0.1:1", "http://127.0.0.1:1"],
            "http://127.0.0.1:1",
            "one URL or path",
        ),
        (["http://127.0.0.1:1", "/path"], "/path", "one URL or path"),
        (["/path", "unix:/socket"], "unix:/socket", "one URL or path"),
        (["/path", "/path"], "/path", "one URL or path"),
        (
            ["/path", "--ready"],
            "/path",
            "no path beside --ready or --live",
        ),
        (
            ["--live", "http://127.0.0.1:1/path"],
            "/path",
            "no path beside --ready or --live",
        ),
    ] {
        let line = told(&run(&mut healthcheck(args)));
        assert_eq!(
            line,
            format!("unhealthy: argument {wrong:?}: expected {expected}")
        );
    }
    assert_eq!(
        told(&run(&mut healthcheck(["--ready", "--live"]))),
        "unhealthy: --live: expected one of --ready and --live"
    );
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused() {
    let mut probe = healthcheck([OsStr::from_bytes(b"http://127.0.0.1/\xff")]);
    assert_eq!(
        told(&run(&mut probe)),
        "unhealthy: argument \"http://127.0.0.1/\u{fffd}\": expected UTF-8"
    );
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    let url = "http://me:hunter2@127.0.0.1:1/";
    let by_argument = told(&ask(url));
    let by = |variable, value: &OsStr| told(&run(healthcheck(NOTHING).env(variable, value)));
    let by_variable = by("HEALTHCHECK_URL", url.as_ref());
    for line in [by_argument, by_variable] {
        let expected = ": expected no user or password: use --header 'Authorization: …'";
        assert!(line.ends_with(expected), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    // Nor is it repeated where something else is wrong.
    for args in [
        &["postgres://me:hunter2@127.0.0.1/"][..],
        &["me:hunter2@127.0.0.1:1"],
        &["http://me:hunter2@127.0.0.1:1/a b"],
        &["http://127.0.0.1:1", url],
        &["--url=http://me:hunter2@127.0.0.1:1/"],
        &["--header=Authorization: Bearer hunter2\n"],
        &["--header=Authorization : Bearer hunter2"],
        &["--headers=Authorization: Bearer hunter2"],
        &["Authorization: Bearer hunter2"],
        &["Authorization:Bearer hunter2"],
        &["--timeout", "Authorization:Bearer hunter2"],
        &["--headers=X-Key:hunter2"],
        &["X-Key:/hunter2"],
        &["http://svc/health?token=hunter2"],
        &["/health?token=hunter2", "/health?token=hunter2"],
        &["hunter2"],
        &["--hunter=hunter2"],
        &["--key: hunter2"],
        &["-H=hunter2"],
        &["--timeout", "hunter2"],
        &["--header", "hunter2"],
        &["--header", "hunter2 X: y"],
        // Where a value was forgotten, the URL is taken for it.
        &["--timeout", url],
    ] {
        let line = told(&run(&mut healthcheck(args)));
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let not_utf_8 = OsStr::from_bytes(b"http://me:hunter2@127.0.0.1:1/\xff");
    for line in [by("HEALTHCHECK_URL", not_utf_8), by("PORT", url.as_ref())] {
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[cfg(not(feature = "https"))]
#[test]
fn https_without_the_feature_says_so() {
    assert_eq!(
        told(&ask("https://127.0.0.1:8443/health")),
        "unhealthy: https to 127.0.0.1:8443: this binary is built without lifesign's feature \
         \"https\""
    );
}

#[test]
fn help_goes_to_stdout_and_is_no_failure() {
    let help = format!(
        "\
Probes the running service. Exit code 0: healthy, 1: everything else.

Usage: {} healthcheck [URL|PATH] [OPTIONS]

  URL    http://ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: HEALTHCHECK_URL, the advertised address, PORT, 127.0.0.1:8080)
  PATH   path of the service (default: its health route)

  --ready            probe readiness: may it get traffic?
  --live             probe liveness: must it be restarted?
  --timeout TIME     maximum duration, like 500ms, 2s or 1m (default: 3s)
  --header 'K: V'    add a header to the request; can be repeated
  --quiet            print nothing, unless an argument or variable is invalid
  --help             print this help
",
        example("service").display()
    );
    for args in [&["--help"][..], &["-h"], &["--ready", "--help"]] {
        let outcome = run(&mut healthcheck(args));
        assert_eq!(printed(&outcome), (Some(0), &*help, ""), "{args:?}");
    }
}

#[test]
fn quiet_prints_nothing() {
    for (acts, code) in [
        (says(OK), 0),
        (says(response("503 X", REPORT)), 1),
        (vec![Reset], 1),
    ] {
        let address = serve(move |stream| perform(&acts, stream));
        let outcome = run(&mut healthcheck([&*format!("http://{address}"), "--quiet"]));
        assert_eq!(printed(&outcome), (Some(code), "", ""));
    }
}

// Variables.

#[test]
fn an_argument_comes_before_the_variables() {
    let closed = closed();
    for url in [&*format!("http://{}", address_of(&closed)), "nonsense"] {
        let address = serve(|stream| perform(&says(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        probe.env("HEALTHCHECK_URL", url).env("PORT", "nonsense");
        assert_eq!(told(&run(&mut probe)), HEALTHY, "{url}");
    }
}

#[test]
fn healthcheck_url_says_whom_to_ask_and_arguments_what() {
    for (path, args, target) in [
        ("", &[][..], "/health"),
        ("/custom?x=1", &[], "/custom?x=1"),
        ("/custom", &["/other"], "/other"),
        ("/custom", &["--ready"], "/health/ready"),
        ("", &["--live"], "/health/live"),
    ] {
        let request = overhear(|address| {
            let mut probe = healthcheck(args);
            probe.env("HEALTHCHECK_URL", format!("http://{address}{path}"));
            probe.env("PORT", "nonsense");
            probe
        });
        let start = format!("GET {target} HTTP/1.1\r\n");
        assert!(request.starts_with(&start), "{path} {args:?}: {request}");
    }
}

#[test]
fn a_wrong_healthcheck_url_is_named() {
    for (value, shown, expected) in [
        (&b"nonsense"[..], "", URL),
        (b" http://127.0.0.1:1", "", URL),
        // Unlike in an argument, a path does not name a server.
        (b"/health", " \"/health\"", URL),
        (b"http://service:8080", " \"http://service:8080\"", HOST),
        (b"http://\xff", " \"http://\u{fffd}\"", "expected UTF-8"),
    ] {
        let mut probe = healthcheck(NOTHING);
        probe
            .env("HEALTHCHECK_URL", OsStr::from_bytes(value))
            .env("PORT", "1");
        let line = told(&run(&mut probe));
        assert_eq!(
            line,
            format!("unhealthy: HEALTHCHECK_URL{shown}: {expected}")
        );
    }
}

#[test]
fn port_says_whom_to_ask_when_nobody_advertised() {
    let _worker = exclusive("worker");
    for (args, target) in [
        (&[][..], "/health"),
        (&["--ready"], "/health/ready"),
        (&["/custom"], "/custom"),
    ] {
        let request = overhear(|address| {
            let mut probe = worker();
            probe.env("PORT", address.port().to_string()).args(args);
            probe
        });
        let start = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n");
        assert!(request.starts_with(&start), "{args:?}: {request}");
    }
    let closed = closed();
    let port = address_of(&closed).port();
    assert_eq!(
        told(&run(worker().env("PORT", port.to_string()))),
        format!(
            "unhealthy: connect to 127.0.0.1:{port}: connection refused (from PORT: is the \
             service running, and does it listen there?)"
        )
    );
}

#[test]
fn a_wrong_port_is_named_and_never_taken_for_the_default() {
    let _worker = exclusive("worker");
    for (port, shown) in [
        ("abc", ""),
        ("0", ""),
        ("99999", ""),
        ("-1", ""),
        ("+80", ""),
        (" 80", ""),
        ("80.0", ""),
        ("tcp://10.0.0.1:80", " \"tcp://10.0.0.1:80\""),
    ] {
        let line = told(&run(worker().env("PORT", port)));
        let expected = "expected a port from 1 to 65535 (the service advertised none)";
        assert_eq!(line, format!("unhealthy: PORT{shown}: {expected}"));
    }
}

#[test]
fn port_8080_is_asked_when_nobody_says_anything() {
    // Whoever runs it takes the port, and publishes it.
    let _hello = exclusive("hello");
    let hello = || probe("hello", NOTHING);
    let socket = match bound((Ipv4Addr::LOCALHOST, 8080).into()) {
        Ok(socket) => socket,
        Err(error) => return skipped(&format!("port 8080 cannot be had: {error}")),
    };
    let refused = "unhealthy: connect to 127.0.0.1:8080: connection refused (the default: is the \
                   service running? if it listens elsewhere, set PORT or HEALTHCHECK_URL)";
    assert_eq!(told(&run(&mut hello())), refused);
    let mut empty = hello();
    empty.env("PORT", "").env("HEALTHCHECK_URL", "");
    assert_eq!(told(&run(&mut empty)), refused);
    socket.listen(8).expect("a bound socket can listen");
    serve_on(socket.into(), |stream| perform(&says(OK), stream));
    assert_eq!(told(&run(&mut hello())), HEALTHY);
}

// Where it prints.

#[test]
fn an_output_that_cannot_be_written_changes_nothing() {
    for redirection in [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        ">/dev/full 2>/dev/full",
    ] {
        for (answer, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
            let address = serve(|stream| perform(&says(answer), stream));
            let mut probe = shell(redirection);
            let outcome = run(probe.arg(format!("http://{address}")));
            assert_eq!(outcome.code, Some(code), "{redirection}: {outcome:?}");
        }
    }
}

#[test]
fn a_reader_that_has_gone_changes_nothing() {
    for (answer, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
        let (go, gone) = mpsc::channel();
        let address = serve(move |stream| {
            let _ = gone.recv();
            perform(&says(answer), stream);
        });
        let mut probe = start(&mut healthcheck([format!("http://{address}")]));
        drop((probe.child.stdout.take(), probe.child.stderr.take()));
        go.send(()).expect("the server waits");
        assert_eq!(probe.finish().code, Some(code));
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_left_with_the_line_in_it() {
    for (answer, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
        let address = serve(|stream| perform(&says(answer), stream));
        let mut probe = start(&mut healthcheck([format!("http://{address}")]));
        let ended = probe.child.wait().expect("a child can be waited for");
        assert_eq!(ended.code(), Some(code));
        // Only now does anybody look.
        assert!(told(&probe.finish()).contains("healthy: "));
    }
}

#[test]
fn a_socket_gets_the_line() {
    let (output, mut reader) = UnixStream::pair().expect("descriptors are left");
    let address = serve(|stream| perform(&says(OK), stream));
    let mut command = healthcheck([format!("http://{address}")]);
    let probe = command.stdout(OwnedFd::from(output)).spawn();
    drop(command);
    let mut line = String::new();
    reader.read_to_string(&mut line).expect("it ends");
    assert_eq!(timeless(line.trim_end()), HEALTHY);
    let mut probe = probe.expect("a program starts");
    assert_eq!(probe.wait().expect("it ended").code(), Some(0));
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    assert_eq!(run(shell(">/dev/full").arg("--help")).code, Some(1));
}

// What it has to live on.

#[test]
fn little_is_enough() {
    // These programs are not optimized, and large: tests/limits.rs holds one as it is shipped to
    // 8 MiB.
    let memory = if cfg!(feature = "https") {
        65536
    } else {
        16384
    };
    // KiB of stack; of addresses, shared libraries and all; descriptors.
    let limits = ["-s 64", &format!("-v {memory}"), "-n 4"].map(|limit| format!("ulimit {limit}"));
    for limit in limits.iter().chain([&limits.join(" && ")]) {
        for (answer, expected) in [(OK.into(), HEALTHY), (response("503 X", REPORT), WAITING)] {
            let address = serve(|stream| perform(&says(answer), stream));
            let mut probe = limited(limit, "service");
            let outcome = run(probe.arg(format!("http://{address}")));
            assert_eq!(told(&outcome), expected, "{limit}");
        }
    }
}

#[test]
fn no_descriptor_at_all_is_unhealthy() {
    let _worker = exclusive("worker");
    // The first of three is what the loader reads libraries with.
    let none = "exec <&- && ulimit -n 3";
    assert_eq!(
        told(&run(limited(none, "worker").arg("http://127.0.0.1:1"))),
        "unhealthy: connect to 127.0.0.1:1: too many open files"
    );
    let line = told(&run(&mut limited(none, "worker")));
    let start = "unhealthy: connect to 127.0.0.1:8080: too many open files (";
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn an_environment_of_a_megabyte_is_only_read_where_it_has_to_be() {
    let _worker = exclusive("worker");
    let long = "x".repeat(120_000);
    let crowded = || {
        let mut probe = worker();
        probe.envs((0..9).map(|n| (format!("CROWD_{n}"), &long)));
        probe
    };
    let address = serve(|stream| perform(&says(OK), stream));
    let line = told(&run(crowded().arg(format!("http://{address}"))));
    assert_eq!(line, HEALTHY);
    for (name, expected) in [
        (
            "PORT",
            "expected a port from 1 to 65535 (the service advertised none)",
        ),
        ("HEALTHCHECK_URL", URL),
    ] {
        let line = told(&run(crowded().env(name, &long)));
        assert_eq!(line, format!("unhealthy: {name}: {expected}"));
    }
}

#[test]
fn an_argument_of_any_length_is_sent_or_refused() {
    // More than one write.
    let path = format!("/{}", "x".repeat(20_000));
    let request = overhear(|address| healthcheck([format!("http://{address}{path}")]));
    assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: ")));
    let line = told(&ask(&format!("ftp://{}", "x".repeat(100_000))));
    let start = "unhealthy: argument \"ftp://";
    assert_eq!(line, format!("{start}{}...", "x".repeat(396 - start.len())));
}

// What judges them.

/// Well before the default deadline, though the machine be busy.
const AT_ONCE: Range<Duration> = Duration::ZERO..Duration::from_secs(2);

/// By `--timeout 500ms`.
const SHORT: Duration = Duration::from_millis(500);

/// Unless it is said otherwise.
const DEADLINE: Duration = Duration::from_secs(3);

/// Maximum delay of the deadline beside the eighth by which Linux may fire a socket's timeout late.
const TOLERANCE: Duration = Duration::from_millis(100);

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

const URL: &str = "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET";
const HOST: &str = "expected an IP address or localhost as host: names are not resolved";

/// Runs all scenarios of a table at the same time, and tells which of them fail.
fn check(Table { pace, cases }: Table) {
    let failure = |Case { name, stage, line }: Case| {
        if Scene::set(&stage).is_none() {
            skipped(&format!("{name}: there is no ::1 here"));
            return None;
        }
        let attempt = |args: &[&str], timeout: &str| {
            let scene = Scene::set(&stage).expect("there was one just now");
            let outcome = run(healthcheck([&scene.url]).args(args));
            assert!(scene.connections() <= 1, "{name}: it asked twice");
            let expected = line.replace("{peer}", &scene.peer);
            (outcome, expected.replace("{timeout}", timeout))
        };
        let complaint = match pace {
            Pace::AtOnce => {
                let (outcome, expected) = attempt(&[], "3s");
                complaint(&outcome, &expected, &AT_ONCE)
            }
            Pace::AtTheDeadline => late(SHORT, || attempt(&["--timeout", "500ms"], "500ms"))
                .or_else(|| late(DEADLINE, || attempt(&[], "3s"))),
        };
        complaint.map(|complaint| format!("{name}:\n{complaint}"))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let start = |case| scope.spawn(move || failure(case));
        let running: Vec<_> = cases.into_iter().map(start).collect();
        let ended = running.into_iter().map(|case| case.join());
        ended
            .filter_map(|failure| failure.expect("a case does not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn ends_at_once(url: &str, expected: &str) {
    complain(&ask(url), expected, &AT_ONCE);
}

fn ends_at_the_deadline(url: &str, expected: &str) {
    ends_in_time(SHORT, || {
        let outcome = run(&mut healthcheck([url, "--timeout", "500ms"]));
        (outcome, expected.to_owned())
    });
}

/// What a probe did with this timeout, and the line that is expected of it.
fn ends_in_time(deadline: Duration, attempt: impl FnMut() -> (Outcome, String)) {
    if let Some(complaint) = late(deadline, attempt) {
        panic!("\n{complaint}");
    }
}

/// Reports what is wrong with a probe that only its deadline ends: its line, or a delay beyond an
/// eighth and [`TOLERANCE`] in each of three attempts. A program that sleeps beside it shows how busy
/// the machine is.
fn late(deadline: Duration, mut attempt: impl FnMut() -> (Outcome, String)) -> Option<String> {
    let mut attempt = || {
        let sleep = move || run(Command::new("sleep").arg(deadline.as_secs_f32().to_string())).took;
        let sleep = thread::spawn(sleep);
        let (outcome, expected) = attempt();
        let slept = sleep.join().expect("it ends");
        let wrong = complaint(&outcome, &expected, &(deadline..PATIENCE));
        let late = complaint(
            &outcome,
            &expected,
            &(deadline..slept + deadline / 8 + TOLERANCE),
        );
        (wrong, late)
    };
    for _ in 1..3 {
        match attempt() {
            (None, Some(_)) => {}
            (wrong, _) => return wrong,
        }
    }
    let (_, late) = attempt();
    late
}

fn complain(outcome: &Outcome, expected: &str, pace: &Range<Duration>) {
    if let Some(complaint) = complaint(outcome, expected, pace) {
        panic!("\n{complaint}");
    }
}

/// What is wrong with what a probe told, or with when it did.
fn complaint(outcome: &Outcome, expected: &str, pace: &Range<Duration>) -> Option<String> {
    let (got, took) = (told(outcome), outcome.took);
    let right = |line: &str| match line.strip_suffix('…') {
        Some(start) => got.starts_with(start),
        None => got == line,
    };
    let wrong = !expected.lines().any(right) || !pace.contains(&took);
    wrong.then(|| format!("  expected {expected}\n       got {got}\n     after {took:?}"))
}

/// Each argument, alone, is refused and shown.
fn refuses(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let expected = format!("unhealthy: argument {argument:?}: {expected}");
        assert_eq!(told(&ask(argument)), expected);
    }
}

/// Each argument, alone, is refused and not shown: it may be a secret.
fn refuses_unshown(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let line = told(&ask(argument));
        assert_eq!(line, format!("unhealthy: argument: {expected}"));
    }
}

/// The line of a probe that did what all of them promise, without the time in it; of any other,
/// all there is, which is what no test expects.
fn told(outcome: &Outcome) -> String {
    let line = match printed(outcome) {
        (Some(0), line, "") if line.starts_with("healthy: ") => line,
        (Some(1), "", line) if line.starts_with("unhealthy: ") => line,
        _ => return format!("{outcome:?}"),
    };
    match line.strip_suffix('\n') {
        Some(text) if line.len() <= 400 && !text.contains(char::is_control) => timeless(text),
        _ => format!("{outcome:?}"),
    }
}

fn printed(outcome: &Outcome) -> (Option<i32>, &str, &str) {
    (outcome.code, &outcome.stdout, &outcome.stderr)
}

/// Puts a `#` in the place of the number in `healthy: pass in 0.4 ms`.
fn timeless(line: &str) -> String {
    if line.starts_with("healthy: ")
        && let Some((before, after)) = line.split_once(" in ")
        && let Some((time, after)) = after.split_once(" ms")
        && let Some((whole, tenth)) = time.split_once('.')
        && tenth.len() == 1
        && [whole, tenth].concat().bytes().all(|b| b.is_ascii_digit())
    {
        return format!("{before} in # ms{after}");
    }
    line.to_owned()
}

// Programs.

const NOTHING: [&str; 0] = [];

/// `service healthcheck …`, without the variables that this process may have been given.
fn healthcheck<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    probe("service", args)
}

fn ask(argument: &str) -> Outcome {
    run(&mut healthcheck([argument]))
}

/// `worker healthcheck`, for tests in which nobody may have advertised anything: what another worker
/// of this machine has advertised is not for a mount namespace of one's own, where that can be had.
fn worker() -> Command {
    static NAMESPACES: LazyLock<bool> =
        LazyLock::new(|| works(Command::new("unshare").args(["-r", "-m", "true"])));
    let worker = probe("worker", NOTHING);
    if !*NAMESPACES {
        return worker;
    }
    let mut apart = Command::new("unshare");
    apart
        .args(["-r", "-m"])
        .arg(worker.get_program())
        .args(worker.get_args());
    apart.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    apart
}

fn probe<I: IntoIterator<Item: AsRef<OsStr>>>(name: &str, args: I) -> Command {
    let mut probe = Command::new(example(name));
    probe.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    probe.arg("healthcheck").args(args);
    probe
}

/// `service healthcheck`, its streams as a shell says it.
fn shell(redirection: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    probe.arg(example("service")).arg("healthcheck");
    probe
}

/// `NAME healthcheck` after a shell has set limits.
fn limited(limits: &str, name: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("{limits} && exec \"$@\""), "sh"]);
    probe.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    probe.arg(example(name)).arg("healthcheck");
    probe
}

fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Stops a process as soon as it waits for something, as `docker pause` might.
fn freeze(pid: u32) {
    await_state(pid, 'S');
    signal(pid, "STOP");
    await_state(pid, 'T');
}

fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]);
    assert!(works(&mut kill), "{kill:?}");
}

fn await_state(pid: u32, state: char) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        if after_name.starts_with(state) {
            return;
        }
        assert!(Instant::now() < deadline, "never in state {state}: {stat}");
        thread::yield_now();
    }
}

// Sockets.

/// What a probe asks for, with `PORT` in the place of the port. It is told that all is well.
fn overhear(probe: impl FnOnce(SocketAddr) -> Command) -> String {
    overhear_on(listener(), probe)
}

fn overhear_on(listener: Socket, probe: impl FnOnce(SocketAddr) -> Command) -> String {
    let (hears, heard) = mpsc::channel();
    let address = serve_on(listener.into(), move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        perform(&[say(OK), Hold], stream);
    });
    let mut probe = probe(address);
    assert_eq!(told(&run(&mut probe)), HEALTHY, "{probe:?}");
    let request = heard.recv_timeout(PATIENCE).expect("it was answered");
    request.replace(&format!(":{}", address.port()), ":PORT")
}

/// A server that tells when it has read the request, before it does anything else.
fn serve_asked(
    behaviour: impl FnOnce(TcpStream) + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let (hears, heard) = mpsc::channel();
    let address = serve(move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        behaviour(stream);
    });
    (address, heard)
}

/// A server on a Unix socket, for one connection; it tells the request.
fn serve_unix(
    socket: &Path,
    behaviour: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    let (hears, heard) = mpsc::channel();
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = hears.send(read_request(&mut stream));
            behaviour(&mut stream);
        }
    });
    heard
}

/// A folder for sockets, whose paths must be short.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("probe-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
