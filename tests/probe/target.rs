//! The address that the probe connects to: from arguments, environment variables, or by default.

use std::{ffi::OsStr, net::Ipv4Addr, os::unix::ffi::OsStrExt, process::Command};

use crate::{
    command::{
        AT_ONCE, HOST, NOTHING, TemporaryDirectory, URL, assert_ends, captured_request,
        ends_at_once, healthcheck, printed_line, probe, run_probe, skipped, worker, works,
    },
    support::{
        example, exclusive,
        hostile::{HEALTHY, OK, address_of, bound, closed, closed_pair, perform, responds},
        run, serve, serve_on,
    },
};

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
fn localhost_and_ipv6_wildcard_try_both_loopback_addresses() {
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
            serve_on(open.into(), |stream| perform(&responds(OK), stream));
            let line = printed_line(&run_probe(&format!("http://{host}:{port}")));
            assert_eq!(line, HEALTHY, "{host} with a listener on IPv{family}");
        }
    }
}

#[test]
fn the_ipv4_wildcard_is_not_tried_on_ipv6() {
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
    // The probed port is also the only ephemeral port, so the kernel connects the socket to itself.
    let script = "ip link set lo up &&
        echo '40000 40000' >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let namespace = ["-r", "-n", "sh", "-c", script, "sh"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("there are no network namespaces to be had here");
    }
    let mut probe = Command::new("unshare");
    probe.args(namespace).arg(example("service"));
    let line = printed_line(&run(probe.args(["healthcheck", "http://127.0.0.1:40000"])));
    let expected =
        r"unhealthy: 127.0.0.1:40000 does not speak HTTP/1: it sent GET /health HTTP/1.1";
    assert!(line.replace('"', "").starts_with(expected), "{line}");
}

#[test]
fn a_machine_without_any_network_is_unhealthy_at_once() {
    // The loopback interface of a new network namespace is down.
    let namespace = ["-r", "-n"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("there are no network namespaces to be had here");
    }
    for (host, printed_line) in [
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
        let expected = format!("unhealthy: connect to {printed_line}");
        assert_ends(&outcome, &expected, &AT_ONCE);
    }
}

#[test]
fn a_link_local_address_needs_its_interface() {
    ends_at_once(
        "http://[fe80::1]:80",
        "unhealthy: connect to [fe80::1]:80: invalid argument",
    );
    // Adds a link-local address to the loopback interface. The script repeats the probe until it
    // succeeds, because the kernel only uses the address after some time. The last probe is process
    // 1 of its namespace, so the service ends with it.
    let set = "mount -t tmpfs tmpfs /dev/shm && ip link set lo up &&
        ip address add fe80::1/64 dev lo nodad";
    let run_probe = "mkfifo \"$1\" && { HOST=:: PORT=40000 \"$0\" >\"$1\" 2>/dev/null & } &&
        exec 3<\"$1\" && read _ <&3 && set -- healthcheck 'http://[fe80::1%1]:40000' &&
        until \"$0\" \"$@\" --quiet; do :; done && exec \"$0\" \"$@\"";
    let namespace = ["-r", "-m", "-n", "-p", "-f", "--kill-child", "sh", "-c"];
    if !works(Command::new("unshare").args(namespace).arg(set)) {
        return skipped("there are no link-local addresses to be had here");
    }
    let directory = TemporaryDirectory::new("link");
    let mut probe = Command::new("unshare");
    probe
        .args(namespace)
        .arg(format!("{set} && {run_probe}"))
        .arg(example("service"))
        .arg(directory.0.join("fifo"));
    assert_eq!(printed_line(&run(&mut probe)), "healthy: pass in # ms");
}

#[test]
fn proxies_are_not_used() {
    let closed = closed();
    let proxy = format!("http://{}", address_of(&closed));
    let address = serve(|stream| perform(&responds(OK), stream));
    let mut probe = healthcheck([format!("http://{address}")]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        probe.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    probe.env_remove("NO_PROXY").env_remove("no_proxy");
    assert_eq!(printed_line(&run(&mut probe)), HEALTHY);
}

#[test]
fn an_argument_takes_precedence_over_variables() {
    let closed = closed();
    for url in [&*format!("http://{}", address_of(&closed)), "nonsense"] {
        let address = serve(|stream| perform(&responds(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        probe.env("LIFESIGN_URL", url).env("PORT", "nonsense");
        assert_eq!(printed_line(&run(&mut probe)), HEALTHY, "{url}");
    }
}

#[test]
fn lifesign_url_is_the_address_and_arguments_the_path() {
    for (path, args, target) in [
        ("", &[][..], "/health"),
        ("/custom?x=1", &[], "/custom?x=1"),
        ("/custom", &["/other"], "/other"),
        ("/custom", &["--ready"], "/health/ready"),
        ("", &["--live"], "/health/live"),
    ] {
        let request = captured_request(|address| {
            let mut probe = healthcheck(args);
            probe.env("LIFESIGN_URL", format!("http://{address}{path}"));
            probe.env("PORT", "nonsense");
            probe
        });
        let start = format!("GET {target} HTTP/1.1\r\n");
        assert!(request.starts_with(&start), "{path} {args:?}: {request}");
    }
}

/// Monitoring services' clients use that variable for the URL to ping.
#[test]
fn healthcheck_url_changes_nothing() {
    let ping = "https://hc-ping.example/x";
    let address = serve(|stream| perform(&responds(OK), stream));
    let mut probe = healthcheck(NOTHING);
    probe.env("LIFESIGN_URL", format!("http://{address}"));
    let line = printed_line(&run(probe.env("HEALTHCHECK_URL", ping)));
    assert_eq!(line, HEALTHY);

    let _worker = exclusive("worker");
    let mut alone = worker();
    alone.env("PORT", "nonsense");
    let without = printed_line(&run(&mut alone));
    let line = printed_line(&run(alone.env("HEALTHCHECK_URL", ping)));
    assert_eq!(line, without);
}

/// As curl and wget take it.
#[test]
fn http_is_the_default_scheme() {
    for url in ["127.0.0.1:#/x?y", "localhost:#", "0.0.0.0:#/"] {
        let ask = |by: fn(&str) -> Command| {
            captured_request(|address| by(&url.replace('#', &address.port().to_string())))
        };
        let expected = ask(|url| healthcheck([format!("http://{url}")]));
        let by_argument = ask(|url| healthcheck([url]));
        assert_eq!(by_argument, expected, "{url}");
        let by_variable = ask(|url| {
            let mut probe = healthcheck(NOTHING);
            probe.env("LIFESIGN_URL", url);
            probe
        });
        assert_eq!(by_variable, expected, "{url}");
    }
    let line = printed_line(&run(&mut healthcheck(["[::1]:1/x"])));
    assert!(
        line.starts_with("unhealthy: connect to [::1]:1: "),
        "{line}"
    );
    let line = printed_line(&run(&mut healthcheck(["127.0.0.1/x"])));
    assert!(!line.contains("expected"), "{line}");
}

#[test]
fn an_invalid_lifesign_url_is_reported() {
    for (value, shown, expected) in [
        (&b"nonsense"[..], "", URL),
        (b" http://127.0.0.1:1", "", URL),
        // An argument can be a path. `HEALTHCHECK_URL` needs a server, so a path is an error there.
        (b"/health", " \"/health\"", URL),
        (b"http://service:8080", " \"http://service:8080\"", HOST),
        (b"http://\xff", " \"http://\u{fffd}\"", "expected UTF-8"),
    ] {
        let mut probe = healthcheck(NOTHING);
        probe
            .env("LIFESIGN_URL", OsStr::from_bytes(value))
            .env("PORT", "1");
        let line = printed_line(&run(&mut probe));
        assert_eq!(line, format!("unhealthy: LIFESIGN_URL{shown}: {expected}"));
    }
}

#[test]
fn port_is_used_without_an_advertisement() {
    let _worker = exclusive("worker");
    for (args, target) in [
        (&[][..], "/health"),
        (&["--ready"], "/health/ready"),
        (&["/custom"], "/custom"),
    ] {
        let request = captured_request(|address| {
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
        printed_line(&run(worker().env("PORT", port.to_string()))),
        format!(
            "unhealthy: connect to 127.0.0.1:{port}: connection refused (from PORT: is the \
             service running, and does it listen there?)"
        )
    );
}

#[test]
fn an_invalid_port_variable_is_reported_not_ignored() {
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
        let line = printed_line(&run(worker().env("PORT", port)));
        let expected = "expected a port from 1 to 65535 (the service advertised none)";
        assert_eq!(line, format!("unhealthy: PORT{shown}: {expected}"));
    }
}

#[test]
fn port_8080_is_the_default() {
    // Another test that runs this example would listen on the same port and advertise it.
    let _hello = exclusive("hello");
    let hello = || probe("hello", NOTHING);
    let socket = match bound((Ipv4Addr::LOCALHOST, 8080).into()) {
        Ok(socket) => socket,
        Err(error) => return skipped(&format!("port 8080 cannot be had: {error}")),
    };
    let refused = "unhealthy: connect to 127.0.0.1:8080: connection refused (the default: is the \
                   service running? if it listens elsewhere, set PORT or LIFESIGN_URL)";
    assert_eq!(printed_line(&run(&mut hello())), refused);
    let mut empty = hello();
    empty.env("PORT", "").env("LIFESIGN_URL", "");
    assert_eq!(printed_line(&run(&mut empty)), refused);
    socket.listen(8).expect("a bound socket can listen");
    serve_on(socket.into(), |stream| perform(&responds(OK), stream));
    assert_eq!(printed_line(&run(&mut hello())), HEALTHY);
}
