//! The probe keeps its deadline if it is stopped, if it gets signals, and if the clock changes.

use std::{fs, io::Write, net::TcpListener, process::Command, sync::mpsc, thread, time::Duration};

use crate::{
    command::{
        AT_ONCE, DEADLINE, SHORT, TIMEOUT, TemporaryDirectory, ends_in_time, freeze, healthcheck,
        printed, printed_line, run_probe, serve_reporting, signal, works,
    },
    support::{
        hostile::{self, HEALTHY, Hold, OK, Receive, address_of, full_backlog, perform, send},
        run, serve, start,
    },
};

#[test]
fn the_timeout_is_3_s_by_default() {
    ends_in_time(DEADLINE, || {
        let address = serve(|stream| perform(&[Receive, Hold], stream));
        let outcome = run_probe(&format!("http://{address}"));
        let expected = format!("unhealthy: no response within 3s (GET http://{address}/health)");
        (outcome, expected)
    });
}

#[test]
fn a_freeze_within_the_deadline_does_no_harm() {
    let (thaw, thawed) = mpsc::channel();
    let (address, requests) = serve_reporting(move |mut stream| {
        let _ = thawed.recv();
        let _ = stream.write_all(OK.as_bytes());
    });
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "9s"]));
    requests
        .recv_timeout(TIMEOUT)
        .expect("the probe sends a request");
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    thaw.send(()).expect("the server waits");
    assert_eq!(printed_line(&probe.finish()), HEALTHY);
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
            perform(&[Receive, send(OK)], stream);
        }
    });
    assert_eq!(printed_line(&probe.finish()), HEALTHY);
}

#[test]
fn a_freeze_while_connecting_keeps_the_message() {
    let (listener, _queue) = full_backlog();
    let address = address_of(&listener);
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "1s"]));
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    assert_eq!(
        printed_line(&probe.finish()),
        format!("unhealthy: connect to {address}: timed out after 1s")
    );
}

#[test]
fn a_freeze_beyond_the_deadline_is_unhealthy() {
    let (address, requests) = serve_reporting(|stream| perform(&[Hold], stream));
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "1s"]));
    requests
        .recv_timeout(TIMEOUT)
        .expect("the probe sends a request");
    freeze(probe.child.id());
    thread::sleep(Duration::from_secs(1));
    signal(probe.child.id(), "CONT");
    assert_eq!(
        printed_line(&probe.finish()),
        format!("unhealthy: no response within 1s (GET http://{address}/health)")
    );
}

#[test]
fn a_response_completed_after_the_deadline_is_late() {
    // Linux rounds timeouts up by some milliseconds, so at least one of several probes receives the
    // whole response after its deadline. The probe must not accept the response.
    let late = || {
        let (address, _requests) = serve_reporting(|mut stream| {
            thread::sleep(Duration::from_secs(3));
            let _ = stream.write_all(OK.as_bytes());
        });
        let outcome = run(healthcheck([format!("http://{address}")]).args(["--timeout", "3s"]));
        let line = printed_line(&outcome);
        let sent =
            |what: &str| format!("unhealthy: {what} within 3s (GET http://{address}/health)");
        assert!(
            [sent("no response"), sent("incomplete response")].contains(&line),
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
    let (address, requests) = serve_reporting(move |mut stream| {
        let _ = gone.recv();
        let _ = stream.write_all(OK.as_bytes());
    });
    let probe = start(&mut healthcheck([format!("http://{address}")]));
    requests
        .recv_timeout(TIMEOUT)
        .expect("the probe sends a request");
    signal(probe.child.id(), "PIPE");
    go.send(()).expect("the server waits");
    assert_eq!(printed_line(&probe.finish()), HEALTHY);
}

#[test]
fn a_clock_that_is_set_back_again_and_again_changes_nothing() {
    // A test cannot set the machine's clock, so a preloaded library replaces the function that
    // reads it. The kernel's own timeouts use a monotonic clock anyway.
    let directory = TemporaryDirectory::new("clock");
    let [source, library] = ["back.c", "back.so"].map(|name| directory.0.join(name));
    fs::write(&source, CLOCK_THAT_IS_SET_BACK).expect("a file can be made");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]);
    assert!(works(compile.arg(&library).arg(&source)), "{compile:?}");
    let now = run(Command::new("date").arg("+%Y").env("LD_PRELOAD", &library));
    assert_eq!(now.stdout, "1970\n");

    ends_in_time(SHORT, || {
        let address = serve(|stream| perform(&[Receive, Hold], stream));
        let mut probe = healthcheck([&*format!("http://{address}"), "--timeout", "500ms"]);
        let outcome = run(probe.env("LD_PRELOAD", &library));
        let expected = format!("unhealthy: no response within 500ms (GET http://{address}/health)");
        (outcome, expected)
    });

    let address = serve(|stream| perform(&[Receive, hostile::pause(300), send(OK)], stream));
    let mut probe = healthcheck([format!("http://{address}")]);
    let outcome = run(probe.env("LD_PRELOAD", &library));
    assert_eq!(printed_line(&outcome), HEALTHY);
    let said = outcome.stdout.trim_start_matches("healthy: 200 in ");
    let took = said.trim_end_matches(" ms\n").parse::<f64>();
    assert!(took.is_ok_and(|took| took >= 300.0), "{said}");
}

/// Replaces `clock_gettime`: the wall clock goes back by an hour at each call.
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
    let (address, requests) = serve_reporting(|stream| perform(&[Hold], stream));
    let probe = start(&mut healthcheck([format!("http://{address}")]));
    requests
        .recv_timeout(TIMEOUT)
        .expect("the probe sends a request");
    signal(probe.child.id(), "TERM");
    let outcome = probe.finish();
    assert_eq!(printed(&outcome), (None, "", ""));
    assert!(AT_ONCE.contains(&outcome.took), "{outcome:?}");
}
