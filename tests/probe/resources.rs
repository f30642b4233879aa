//! The probe with little stack, little memory, few descriptors, and a long environment.

use crate::{
    command::{URL, captured_request, healthcheck, limited, printed_line, run_probe, worker},
    support::{
        exclusive,
        hostile::{HEALTHY, OK, REPORT, WAITING, perform, responds, response},
        run, serve,
    },
};

#[test]
fn little_stack_memory_and_few_descriptors_are_enough() {
    // A debug build needs much memory. `tests/e2e/tests/limits.rs` limits a release build to 8 MiB.
    let memory = if cfg!(feature = "https") {
        65536
    } else {
        16384
    };
    // The limits are the stack in KiB, the address space in KiB, which includes shared libraries,
    // and the number of descriptors.
    let limits = ["-s 64", &format!("-v {memory}"), "-n 4"].map(|limit| format!("ulimit {limit}"));
    for limit in limits.iter().chain([&limits.join(" && ")]) {
        for (response, expected) in [(OK.into(), HEALTHY), (response("503 X", REPORT), WAITING)] {
            let address = serve(|stream| perform(&responds(response), stream));
            let mut probe = limited(limit, "service");
            let outcome = run(probe.arg(format!("http://{address}")));
            let line = printed_line(&outcome);
            let request = format!(" (GET http://{address}/health)");
            let line = line.strip_suffix(&request).unwrap_or(&line);
            assert_eq!(line, expected, "{limit}");
        }
    }
}

#[test]
fn a_probe_without_descriptors_is_unhealthy() {
    let _worker = exclusive("worker");
    // Closing stdin leaves one descriptor for the dynamic loader, which reads libraries. Then
    // Rust's runtime opens `/dev/null` as stdin, and no descriptor is left.
    let none = "exec <&- && ulimit -n 3";
    assert_eq!(
        printed_line(&run(limited(none, "worker").arg("http://127.0.0.1:1"))),
        "unhealthy: connect to 127.0.0.1:1: too many open files"
    );
    let line = printed_line(&run(&mut limited(none, "worker")));
    assert_eq!(line, "unhealthy: cannot read /dev/shm: too many open files");
}

#[test]
fn a_one_megabyte_environment_changes_nothing() {
    let _worker = exclusive("worker");
    let long = "x".repeat(120_000);
    let crowded = || {
        let mut probe = worker();
        probe.envs((0..9).map(|n| (format!("CROWD_{n}"), &long)));
        probe
    };
    let address = serve(|stream| perform(&responds(OK), stream));
    let line = printed_line(&run(crowded().arg(format!("http://{address}"))));
    assert_eq!(line, HEALTHY);
    let line = printed_line(&run(crowded().env("LIFESIGN_URL", &long)));
    assert_eq!(line, format!("unhealthy: LIFESIGN_URL: {URL}"));
}

#[test]
fn an_argument_of_any_length_is_sent_or_refused() {
    // The path is longer than 16 KiB, so the probe sends the request in two writes.
    let path = format!("/{}", "x".repeat(20_000));
    let request = captured_request(|address| healthcheck([format!("http://{address}{path}")]));
    assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: ")));
    let line = printed_line(&run_probe(&format!("ftp://{}", "x".repeat(100_000))));
    let start = "unhealthy: argument \"ftp://";
    assert_eq!(line, format!("{start}{}...", "x".repeat(396 - start.len())));
}
