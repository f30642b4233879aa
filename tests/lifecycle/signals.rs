//! Signals to real processes in each state of a service.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::process::{AT_ONCE, LONG_DELAY, Program, connect, drains, eventually, get};

#[test]
fn state_changes_though_nobody_polls() {
    for signal in ["TERM", "INT"] {
        let (program, address) = Program::listening("unpolled", &[LONG_DELAY]);

        program.signal(signal);
        drains(address);
    }
}

#[test]
fn main_that_does_not_return_is_ended() {
    const TIMES: [(&str, &str); 2] = [("DRAIN_DELAY", "200"), ("SHUTDOWN_TIMEOUT", "300")];
    for mode in ["unpolled", "serve_and_linger", "drain_and_linger"] {
        let program = Program::start(mode, &TIMES);
        let delay = if mode == "drain_and_linger" {
            program.line();
            0
        } else {
            let address = program.address();
            eventually("the service is ready", || {
                let response = get(address, "/health").ok()?;
                response.starts_with("HTTP/1.1 200").then_some(())
            });
            200
        };

        program.signal("TERM");
        let end = program.end();

        assert_eq!(end.code, Some(1), "{mode}: {}", end.log);
        let message = "ended, because `main` has not returned";
        assert!(end.log.contains(message), "{mode}: {}", end.log);
        let bound = Duration::from_millis(delay + 300 + 500);
        assert!(
            (bound..bound + AT_ONCE).contains(&end.took),
            "{mode}: {end:?}"
        );
    }
}

#[test]
fn startup_is_abandoned_at_once() {
    for (mode, signal, name) in [
        ("startup", "TERM", "SIGTERM"),
        ("startup", "INT", "SIGINT"),
        ("serve_after", "TERM", "SIGTERM"),
        ("serve_late", "TERM", "SIGTERM"),
    ] {
        let program = Program::start(mode, &[LONG_DELAY]);
        if mode == "serve_after" {
            // `serve_after` installs the signal handlers after it has printed its address.
            let address = program.address();
            eventually("the service responds", || get(address, "/").ok());
        } else {
            program.line();
        }

        program.signal(signal);
        let end = program.end();

        assert_eq!(end.code, Some(1), "{}", end.log);
        assert!(end.took < AT_ONCE, "{end:?}");
        let message = format!("start-up abandoned: {name}");
        assert!(end.log.contains(&message), "{}", end.log);
        let line = format!("start-up abandoned reason=\"{name}\"");
        assert!(end.log.contains(&line), "{}", end.log);
    }
}

#[test]
fn no_delay_between_bind_and_ready() {
    let (program, _) = Program::listening("before_ready", &[LONG_DELAY]);

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn second_signal_ends_the_delay_and_third_the_process() {
    for (signals, code) in [
        (["TERM", "TERM", "TERM"], 143),
        (["INT", "INT", "INT"], 130),
        (["TERM", "INT", "TERM"], 143),
        (["TERM", "TERM", "INT"], 130),
    ] {
        let (program, address) =
            Program::listening("pieces", &[LONG_DELAY, ("SHUTDOWN_TIMEOUT", "600000")]);
        let mut held = connect(address).expect("a connection");
        held.write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("a request");
        held.read_exact(&mut [0]).expect("a response");

        program.signal(signals[0]);
        drains(address);
        apart();
        program.signal(signals[1]);
        eventually("the port closes", || get(address, "/health").err());
        apart();
        program.signal(signals[2]);
        let end = program.end();

        assert_eq!(end.code, Some(code), "{}", end.log);
        assert!(end.took < AT_ONCE, "{end:?}");
    }
}

#[test]
fn second_signal_without_requests_is_a_clean_end() {
    for (first, second) in [
        ("TERM", "TERM"),
        ("INT", "INT"),
        ("TERM", "INT"),
        ("INT", "TERM"),
    ] {
        let (program, address) = Program::listening("pieces", &[LONG_DELAY]);

        program.signal(first);
        drains(address);
        apart();
        program.signal(second);
        let end = program.end();

        assert_eq!(end.code, Some(0), "{first}, {second}: {}", end.log);
        assert!(end.took < AT_ONCE, "{end:?}");
    }
}

#[test]
fn signals_of_one_instant_are_one() {
    for signals in [
        &["TERM", "TERM", "TERM"][..],
        &["TERM", "INT", "TERM", "INT"],
    ] {
        let (program, _) = Program::listening("pieces", &[("DRAIN_DELAY", "500")]);

        program.signals(signals);
        let end = program.end();

        assert_eq!(end.code, Some(0), "{signals:?}: {}", end.log);
        assert!(
            end.took > Duration::from_millis(500),
            "{signals:?}: {end:?}"
        );
    }
}

/// While Ctrl-C is held down, the terminal sends a signal about every 30 ms.
#[cfg(target_os = "linux")]
#[test]
fn signals_of_a_held_key_are_one() {
    const DELAY: Duration = Duration::from_millis(1000);
    let held = "for i in 1 2 3 4 5 6 7 8; do kill -INT $0 || exit 0; sleep 0.03; done";
    let is_one = || {
        let (program, _) = Program::listening("pieces", &[("DRAIN_DELAY", "1000")]);
        let first = Instant::now();
        let mut sh = std::process::Command::new("sh");
        let sent = sh.args(["-c", held, &program.id().to_string()]).status();
        assert!(sent.expect("sh runs").success());
        program.end().code == Some(0) && first.elapsed() >= DELAY
    };

    // A busy machine can deliver the signals more than 100 ms apart, but hardly in all five
    // attempts.
    assert!((0..5).any(|_| is_one()));
}

#[test]
fn first_signal_does_not_end_the_delay_of_another_drain() {
    let (program, address) = Program::listening("drains_itself", &[("DRAIN_DELAY", "1500")]);
    let started = Instant::now();
    drains(address);

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(started.elapsed() > Duration::from_secs(1), "{end:?}");
}

#[test]
fn worker_takes_no_job_after_the_signal() {
    let (program, address) = Program::listening("worker", &[LONG_DELAY, ("JOB", "500")]);
    assert_eq!(program.line(), "job");

    program.signal("TERM");
    drains(address);
    let end = program.line();

    assert_eq!(end, "done: 1");
    let end = program.end();
    assert_eq!(end.code, Some(0), "{}", end.log);
}

#[test]
fn worker_whose_job_is_cut_fails() {
    let timeout = [
        ("DRAIN_DELAY", "100"),
        ("SHUTDOWN_TIMEOUT", "100"),
        ("JOB", "600000"),
    ];
    let (program, _) = Program::listening("worker", &timeout);
    assert_eq!(program.line(), "job");

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(1), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
    assert!(
        end.log.contains("cut at the shutdown timeout"),
        "{}",
        end.log
    );
}

#[test]
fn worker_beside_serve_has_until_the_timeout() {
    for (job, code) in [(1500, 0), (600_000, 1)] {
        let job = job.to_string();
        let environment = [
            ("DRAIN_DELAY", "100"),
            ("SHUTDOWN_TIMEOUT", "2000"),
            ("JOB", &*job),
        ];
        let (program, _) = Program::listening("serve_with_worker", &environment);

        program.signal("TERM");
        let end = program.end();

        assert_eq!(end.code, Some(code), "{job}: {}", end.log);
        assert_eq!(end.log.contains("cut at the shutdown timeout"), code == 1);
    }
}

#[test]
fn broken_service_drains_and_fails() {
    for mode in ["broken", "serve_broken"] {
        let (program, address) = Program::listening(mode, &[("DRAIN_DELAY", "300")]);
        eventually("the service is broken", || {
            let response = get(address, "/health/live").ok()?;
            response
                .contains("heartbeat mailer was dropped")
                .then_some(())
        });

        program.signal("TERM");
        drains(address);
        let end = program.end();

        assert_eq!(end.code, Some(1), "{mode}: {}", end.log);
    }
}

#[test]
fn panic_in_main_ends_the_process() {
    let (program, _) = Program::listening("panics", &[LONG_DELAY]);

    let end = program.end();

    assert_eq!(end.code, Some(101), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn runtime_that_ends_takes_the_service_along() {
    let (program, _) = Program::listening("dropped_runtime", &[LONG_DELAY]);

    let end = program.end();

    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn without_a_runtime_is_an_error_and_no_panic() {
    let program = Program::start("outside_a_runtime", &[]);

    let lines = [program.line(), program.line()];
    let end = program.end();

    assert!(
        lines.iter().all(|line| line.contains("no reactor running")),
        "{lines:?}"
    );
    assert_eq!(end.code, Some(0), "{}", end.log);
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_in_a_terminal_has_no_delay() {
    let (mut program, _) = Program::in_terminal("serve", &[LONG_DELAY]);

    program.interrupt();
    let end = program.end();

    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_says_what_it_waits_for_and_a_second_one_ends_it() {
    let (mut program, address) = Program::in_terminal("serve", &[LONG_DELAY]);
    let mut held = connect(address).expect("a connection");
    held.write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("a request");
    held.read_exact(&mut [0]).expect("a response");

    program.interrupt();
    let hint = program.line_with("waiting");
    program.interrupt();
    let end = program.end();

    assert_eq!(
        hint.trim_end(),
        "waiting up to 4s for work in flight; press Ctrl-C again to end at once"
    );
    assert_eq!(end.code, Some(130), "{end:?}");
    assert!(end.took < AT_ONCE, "{end:?}");
}

/// Waits until the next signal counts as a second signal, not as a repetition of the last one.
pub(crate) fn apart() {
    thread::sleep(Duration::from_millis(120));
}

#[test]
fn blocked_start_ends_within_a_second() {
    let program = Program::start("blocked", &[]);
    program.line();

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(1), "{}", end.log);
    assert!(end.log.contains("`main` has not returned"), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn worker_that_panics_during_the_drain_fails() {
    let program = Program::start("panicking_worker", &[]);
    program.line();

    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(1), "{}", end.log);
}
