//! The streams that the probe prints to, and streams that it cannot write to.

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::mpsc,
};

use crate::{
    command::{healthcheck, printed_line, run_probe, shell, timeless},
    support::{
        hostile::{HEALTHY, OK, REPORT, WAITING, perform, responds, response},
        run, serve, start,
    },
};

#[test]
fn an_unwritable_output_does_not_change_the_exit_code() {
    for redirection in [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        ">/dev/full 2>/dev/full",
    ] {
        for (response, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
            let address = serve(|stream| perform(&responds(response), stream));
            let mut probe = shell(redirection);
            let outcome = run(probe.arg(format!("http://{address}")));
            assert_eq!(outcome.code, Some(code), "{redirection}: {outcome:?}");
        }
    }
}

#[test]
fn a_closed_reader_does_not_change_the_exit_code() {
    for (response, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
        let (go, gone) = mpsc::channel();
        let address = serve(move |stream| {
            let _ = gone.recv();
            perform(&responds(response), stream);
        });
        let mut probe = start(&mut healthcheck([format!("http://{address}")]));
        drop((probe.child.stdout.take(), probe.child.stderr.take()));
        go.send(()).expect("the server waits");
        assert_eq!(probe.finish().code, Some(code));
    }
}

#[test]
fn an_unread_pipe_holds_the_line() {
    for (response, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
        let address = serve(|stream| perform(&responds(response), stream));
        let mut probe = start(&mut healthcheck([format!("http://{address}")]));
        let ended = probe.child.wait().expect("a child can be waited for");
        assert_eq!(ended.code(), Some(code));
        // Nobody reads the line before the probe has ended.
        assert!(printed_line(&probe.finish()).contains("healthy: "));
    }
}

#[test]
fn a_socket_gets_the_line() {
    let (output, mut reader) = UnixStream::pair().expect("a pair of sockets");
    let address = serve(|stream| perform(&responds(OK), stream));
    let mut command = healthcheck([format!("http://{address}")]);
    let probe = command.stdout(OwnedFd::from(output)).spawn();
    drop(command);
    let mut line = String::new();
    reader.read_to_string(&mut line).expect("the output ends");
    assert_eq!(timeless(line.trim_end()), HEALTHY);
    let mut probe = probe.expect("a program starts");
    assert_eq!(probe.wait().expect("the probe has ended").code(), Some(0));
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    assert_eq!(run(shell(">/dev/full").arg("--help")).code, Some(1));
}

/// A path that a person chose may belong to any handler, not only to one of lifesign's routes.
#[test]
fn a_chosen_path_has_causes_of_its_own() {
    let merge = "merge the routes after the layer that redirects";
    for (path, status, expected) in [
        ("/x", "404 X", "404: no such path: body"),
        ("/x", "401 X", "401: authentication is required: body"),
        ("/x", "403 X", "403: authentication is required: body"),
        ("/x", "405 X", "405: body"),
        ("/x", "429 X", "429: body"),
        ("/x", "503 X", "503: body"),
        (
            "/x",
            "302 X\r\nLocation: /y",
            "302 redirect to /y: not followed, probe that URL instead",
        ),
        // These are default paths of lifesign's routes, so the hint is about the routes.
        (
            "/health/ready",
            "404 X",
            "404: the routes are not merged, or nested without nested_under: body",
        ),
        (
            "/health",
            "302 X\r\nLocation: /y",
            &format!("302 redirect to /y: not followed, {merge}"),
        ),
    ] {
        let response = responds(response(status, "body"));
        let address = serve(move |stream| perform(&response, stream));
        let url = format!("http://{address}{path}");
        let line = printed_line(&run_probe(&url));
        assert_eq!(line, format!("unhealthy: {expected} (GET {url})"));
    }
}

#[test]
fn a_line_names_the_request_without_its_query() {
    let unwell = || serve(|stream| perform(&responds(response("503 X", REPORT)), stream));
    let address = unwell();
    let line = printed_line(&run_probe(&format!("http://{address}/x?token=hunter2")));
    assert_eq!(line, format!("{WAITING} (GET http://{address}/x?)"));

    // The reason comes before the path, so that a long path does not cut off the reason.
    let address = unwell();
    let long = "x".repeat(1000);
    let line = printed_line(&run_probe(&format!("http://{address}/{long}")));
    let start = format!("{WAITING} (GET http://{address}/xxx");
    assert!(line.starts_with(&start) && line.ends_with("..."), "{line}");

    let address = unwell();
    let port = address.port();
    let line = printed_line(&run_probe(&format!("0.0.0.0:{port}/health/ready")));
    assert_eq!(
        line,
        format!("{WAITING} (GET http://{address}/health/ready)")
    );
}
