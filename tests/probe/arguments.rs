//! Command-line arguments that the probe accepts, and those that it refuses.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::{
    command::{
        HOST, NOTHING, SHORT, ends_in_time, healthcheck, printed, printed_line, refuses,
        refuses_unshown, run_probe,
    },
    support::{
        example,
        hostile::{HEALTHY, Hold, OK, REPORT, Receive, Reset, perform, responds, response},
        run, serve,
    },
};

#[test]
fn a_timeout_without_a_unit_or_out_of_range_is_refused() {
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
        assert_eq!(
            printed_line(&run(&mut healthcheck(["--timeout", time]))),
            refused
        );
        assert_eq!(
            printed_line(&run_probe(&format!("--timeout={time}"))),
            refused
        );
    }
    assert_eq!(
        printed_line(&run_probe("--timeout")),
        format!("unhealthy: --timeout: {expected}")
    );
}

#[test]
fn a_timeout_is_accepted_in_every_unit() {
    for time in ["2500ms", "2.5s", "2s", "1m", "1h"] {
        let address = serve(|stream| perform(&responds(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        assert_eq!(
            printed_line(&run(probe.args(["--timeout", time]))),
            HEALTHY,
            "{time}"
        );
    }
    ends_in_time(SHORT, || {
        let address = serve(|stream| perform(&[Receive, Hold], stream));
        let outcome = run(&mut healthcheck([
            &*format!("http://{address}"),
            "--timeout=0.5s",
        ]));
        let expected = format!("unhealthy: no response within 500ms (GET http://{address}/health)");
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
        let line = printed_line(&run(&mut healthcheck(["--header", header])));
        assert_eq!(line, format!("unhealthy: --header{named}: {expected}"));
    }
    assert_eq!(
        printed_line(&run_probe("--header")),
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
            printed_line(&run_probe(argument)),
            format!(
                "unhealthy: unknown flag {flag}: expected one of --ready, --live, --timeout, \
                 --header, --json, --quiet, --help"
            )
        );
    }
    for flag in ["--ready", "--live", "--quiet", "--help"] {
        for value in ["", "yes"] {
            let line = printed_line(&run_probe(&format!("{flag}={value}")));
            assert_eq!(line, format!("unhealthy: {flag}: expected no value"));
        }
    }
}

#[test]
fn an_invalid_url_is_refused() {
    let form = "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH";
    refuses(&["ftp://127.0.0.1/"], form);
    refuses_unshown(
        &["8080", ":8080", "8080/health", "health", "http:/x", ""],
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
fn a_host_name_is_refused() {
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
            "http://[fe80::1%1]:80",
        ],
        HOST,
    );
    refuses_unshown(
        &["example.com:80/x", "db:8080", "::1:8080", "127.1:80"],
        HOST,
    );
}

#[test]
fn an_invalid_port_is_refused() {
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
    refuses_unshown(
        &["localhost:0", "127.0.0.1:70000", "127.0.0.1:", "[::1]80"],
        "expected a port from 1 to 65535",
    );
}

#[test]
fn a_path_that_needs_encoding_is_refused() {
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
fn contradictory_arguments_are_refused() {
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
        let line = printed_line(&run(&mut healthcheck(args)));
        assert_eq!(
            line,
            format!("unhealthy: argument {wrong:?}: expected {expected}")
        );
    }
    assert_eq!(
        printed_line(&run(&mut healthcheck(["--ready", "--live"]))),
        "unhealthy: --live: expected one of --ready and --live"
    );
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused() {
    let mut probe = healthcheck([OsStr::from_bytes(b"http://127.0.0.1/\xff")]);
    assert_eq!(
        printed_line(&run(&mut probe)),
        "unhealthy: argument \"http://127.0.0.1/\u{fffd}\": expected UTF-8"
    );
}

#[test]
fn a_password_is_refused_and_redacted() {
    let url = "http://me:hunter2@127.0.0.1:1/";
    let by_argument = printed_line(&run_probe(url));
    let by =
        |variable, value: &OsStr| printed_line(&run(healthcheck(NOTHING).env(variable, value)));
    let by_variable = by("LIFESIGN_URL", url.as_ref());
    for line in [by_argument, by_variable] {
        let expected = ": expected no user or password: use --header 'Authorization: …'";
        assert!(line.ends_with(expected), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    // Other errors do not print the password either.
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
        // The flag `--timeout` has no value here, so the probe takes the URL as the value.
        &["--timeout", url],
    ] {
        let line = printed_line(&run(&mut healthcheck(args)));
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let not_utf_8 = OsStr::from_bytes(b"http://me:hunter2@127.0.0.1:1/\xff");
    for line in [by("LIFESIGN_URL", not_utf_8), by("PORT", url.as_ref())] {
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[cfg(not(feature = "https"))]
#[test]
fn https_without_the_feature_names_the_feature() {
    assert_eq!(
        printed_line(&run_probe("https://127.0.0.1:8443/health")),
        "unhealthy: this binary is built without lifesign's feature \"https\" \
         (GET https://127.0.0.1:8443/health)"
    );
}

#[test]
fn help_goes_to_stdout_with_exit_code_0() {
    let help = format!(
        "\
Probes the running service. Exit code 0: healthy, 1: everything else.

Usage: {} healthcheck [URL|PATH] [OPTIONS]

  URL    [http://]ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: LIFESIGN_URL or the advertised address; PORT or 8080 on 127.0.0.1
          where services cannot advertise theirs)
  PATH   path of the service (default: its health route)

  --ready            probe readiness: may it get traffic?
  --live             probe liveness: must it be restarted?
  --timeout TIME     maximum duration, like 500ms, 2s or 1m (default: 3s, or 1s more
                     than the service's checks may take)
  --header 'K: V'    add a header to the request; can be repeated
  --json             print one JSON object to stdout: healthy, url, source, code, status, output,
                     error, duration_ms; unknown values are null
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
        (responds(OK), 0),
        (responds(response("503 X", REPORT)), 1),
        (vec![Reset], 1),
    ] {
        let address = serve(move |stream| perform(&acts, stream));
        let outcome = run(&mut healthcheck([&*format!("http://{address}"), "--quiet"]));
        assert_eq!(printed(&outcome), (Some(code), "", ""));
    }
}
