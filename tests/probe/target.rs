//! The address that the probe connects to: from arguments, environment variables, or by default.

use std::{ffi::OsStr, net::Ipv4Addr, os::unix::ffi::OsStrExt, process::Command, sync::mpsc};

use crate::{
    command::{
        AT_ONCE, HOST, NOTHING, TIMEOUT, URL, assert_ends, captured_request, ends_at_once,
        guessing, healthcheck, printed_line, run_probe, serve_reporting, skipped, worker, works,
    },
    support::{
        example, exclusive,
        hostile::{
            HEALTHY, OK, address_of, bound, closed, closed_pair, fill_backlog, perform, responds,
        },
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
        let both = match host {
            "[::]" => format!("[::1]:{port} or 127.0.0.1:{port}"),
            _ => format!("127.0.0.1:{port} or [::1]:{port}"),
        };
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

/// A firewall can drop the packets of one address family.
#[test]
fn the_second_address_is_tried_if_the_first_is_silent() {
    let Some((v4, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    let port = address_of(&v4).port();
    let _queue = fill_backlog(&v6);
    v4.listen(8).expect("a bound socket can listen");
    serve_on(v4.into(), |stream| perform(&responds(OK), stream));

    let url = format!("http://[::]:{port}");
    let outcome = run(healthcheck([&*url]).args(["--timeout", "2s"]));

    assert_eq!(printed_line(&outcome), HEALTHY);
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
        return skipped("network namespaces are not permitted here");
    }
    let mut probe = Command::new("unshare");
    probe.args(namespace).arg(example("service"));
    let line = printed_line(&run(probe.args(["healthcheck", "http://127.0.0.1:40000"])));
    let expected = r"unhealthy: not HTTP/1: the server sent GET /health HTTP/1.1";
    assert!(line.replace('"', "").starts_with(expected), "{line}");
}

#[test]
fn a_machine_without_any_network_is_unhealthy_at_once() {
    // The loopback interface of a new network namespace is down.
    let namespace = ["-r", "-n"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("network namespaces are not permitted here");
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

/// Clients of monitoring services use `HEALTHCHECK_URL` for the URL that they ping.
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

/// curl and wget accept a URL without a scheme too.
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
        // An argument can be a path. The variable must name a server, so a path is an error.
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

/// Where services can advertise, the probe does not guess an address from `PORT`.
#[test]
fn nothing_is_asked_of_a_service_that_advertises_nothing() {
    let _worker = exclusive("worker");
    let line = "unhealthy: \"worker\" advertises no address in this container: the service has \
                not started or has ended, cannot write to /dev/shm, or does not call serve, listen or \
                advertise";
    let (sender, connections) = mpsc::channel();
    let address = serve(move |stream| drop((sender.send(()), stream)));
    for port in ["", "nonsense", &address.port().to_string()] {
        let mut probe = worker();
        let outcome = run(probe.env("PORT", port));
        assert_eq!(printed_line(&outcome), line, "{port}");
        let quiet = run(probe.arg("--quiet"));
        assert_eq!((quiet.code, &*quiet.stderr), (Some(1), ""), "{port}");
    }
    assert!(connections.try_recv().is_err());
}

const GUESS: &str = "(guessed from PORT: /dev/shm is read-only)";

#[test]
fn port_is_a_guess_that_needs_proof() {
    let another = "HTTP/1.1 200 OK\r\n\r\n";
    let web = "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"pass\",\"serviceId\":\"web\"}";
    let copy = "HTTP/1.1 200 OK\r\nLifesign-Instance: 0123456789abcdef\r\n\r\n\
                {\"serviceId\":\"worker\"}";
    let foreign = "HTTP/1.1 503 No\r\n\r\n{\"status\":\"fail\",\"serviceId\":\"web\"}";
    let failing = "HTTP/1.1 503 No\r\nlifesign-instance: 0\r\n\r\n{\"status\":\"fail\"}";
    for (response, line) in [
        (
            another,
            "a server responded with 200, without Lifesign-Instance: another service, or the \
             routes are not merged",
        ),
        (web, "\"web\" responded with 200, without Lifesign-Instance"),
        (copy, "another instance of it responded with 200"),
        (failing, "another service responded with 503"),
        (
            foreign,
            "\"web\" responded with 503, without Lifesign-Instance",
        ),
    ] {
        let address = serve(|stream| perform(&responds(response.as_bytes()), stream));
        let Some(mut probe) = guessing("worker") else {
            return;
        };
        let outcome = run(probe.env("PORT", address.port().to_string()));
        let expected =
            format!("unhealthy: not \"worker\": {line} (GET http://{address}/health) {GUESS}");
        assert_eq!(printed_line(&outcome), expected);
    }
    // Responses of the service's own handlers have `Lifesign-Instance` only if `Health::serve`
    // serves them.
    let address = serve(move |stream| perform(&responds(another), stream));
    let Some(mut probe) = guessing("worker") else {
        return;
    };
    probe.env("PORT", address.port().to_string()).arg("/own");
    let reason = "a server responded with 200, without Lifesign-Instance: pass the whole \
                  URL to probe this path without it";
    let expected =
        format!("unhealthy: not \"worker\": {reason} (GET http://{address}/own) {GUESS}");
    assert_eq!(printed_line(&run(&mut probe)), expected);
    // For a 404, the probe prints the likely cause, because the service itself may have sent it.
    let address = serve(|stream| perform(&responds(b"HTTP/1.1 404 No\r\n\r\n"), stream));
    let Some(mut probe) = guessing("worker") else {
        return;
    };
    let line = printed_line(&run(probe.env("PORT", address.port().to_string())));
    let cause = "the routes are not merged, or nested without nested_under";
    let expected = format!("unhealthy: 404: {cause} (GET http://{address}/health) {GUESS}");
    assert_eq!(line, expected);
}

#[test]
fn a_guessed_address_has_the_path_of_the_arguments() {
    for (args, target) in [
        (&[][..], "/health"),
        (&["--ready"], "/health/ready"),
        (&["/custom"], "/custom"),
    ] {
        let (address, requests) = serve_reporting(|stream| perform(&responds(OK), stream));
        let Some(mut probe) = guessing("worker") else {
            return;
        };
        run(probe.env("PORT", address.port().to_string()).args(args));
        let request = requests.recv_timeout(TIMEOUT).expect("a request");
        let start = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n");
        assert!(request.starts_with(&start), "{args:?}: {request}");
    }
    let closed = closed();
    let address = address_of(&closed);
    let Some(mut probe) = guessing("worker") else {
        return;
    };
    assert_eq!(
        printed_line(&run(probe.env("PORT", address.port().to_string()))),
        format!("unhealthy: connect to {address}: connection refused {GUESS}")
    );
}

#[test]
fn an_invalid_port_variable_is_reported_not_ignored() {
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
        let Some(mut probe) = guessing("worker") else {
            return;
        };
        let line = printed_line(&run(probe.env("PORT", port)));
        let expected = "expected a port from 1 to 65535";
        assert_eq!(line, format!("unhealthy: PORT{shown}: {expected}"));
    }
}

#[test]
fn port_8080_is_guessed_without_a_variable() {
    let socket = match bound((Ipv4Addr::LOCALHOST, 8080).into()) {
        Ok(socket) => socket,
        Err(error) => return skipped(&format!("port 8080 cannot be bound: {error}")),
    };
    let guess = "(guessed, set PORT or LIFESIGN_URL: /dev/shm is read-only)";
    let Some(mut probe) = guessing("worker") else {
        return;
    };
    let refused = format!("unhealthy: connect to 127.0.0.1:8080: connection refused {guess}");
    assert_eq!(printed_line(&run(&mut probe)), refused);
    probe.env("PORT", "").env("LIFESIGN_URL", "");
    assert_eq!(printed_line(&run(&mut probe)), refused);
    drop(socket);
}
