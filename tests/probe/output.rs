//! The streams that the probe prints to, and streams that it cannot write to.

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::mpsc,
};

use crate::{
    command::{healthcheck, printed_line, shell, timeless},
    support::{
        hostile::{HEALTHY, OK, REPORT, perform, responds, response},
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
    let (output, mut reader) = UnixStream::pair().expect("descriptors are left");
    let address = serve(|stream| perform(&responds(OK), stream));
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
