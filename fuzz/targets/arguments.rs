//! Parses arguments and environment variables. If all are valid, the result must be one request, or
//! the line for a service that is not running. An error must name the invalid argument or variable,
//! and must not print the password.
//!
//! The input consists of `LIFESIGN_URL`, `PORT` and the arguments, each followed by NUL.
#![no_main]

mod shared;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use libfuzzer_sys::fuzz_target;
use lifesign::{build_info, fuzzing};
use shared::{assert_line, assert_request};

/// Password in the seeds.
const PASSWORD: &str = "hunter2";

fuzz_target!(|input: &[u8]| {
    let mut strings = input
        .split(|b| *b == 0)
        .map(|text| OsString::from_vec(text.to_vec()));
    let (url, port) = (strings.next(), strings.next());
    let args: Vec<_> = strings.collect();
    let env = |name: &str| match name {
        "LIFESIGN_URL" => url.clone(),
        "PORT" => port.clone(),
        _ => None,
    };
    match fuzzing::arguments(build_info!(), args.iter().cloned(), env) {
        Ok(Some((endpoint, timeout, request))) => {
            let again = endpoint.to_string();
            assert_eq!(fuzzing::endpoint(&again), Some((endpoint, None)), "{again}");
            assert!((Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&timeout));
            assert_request(&request, None);
        }
        Ok(None) => assert!(args.iter().any(|arg| arg == "--help" || arg == "-h")),
        Err(line) => {
            assert_line(&line);
            let names = [
                "argument",
                "unknown flag -",
                "--timeout: ",
                "--header",
                "--ready: ",
                "--live: ",
                "--json: ",
                "--quiet: ",
                "--help: ",
                "LIFESIGN_URL",
                "PORT",
                "\"arguments\" advertises no address",
            ];
            let is_named = |name| line.starts_with(&format!("unhealthy: {name}"));
            assert!(names.into_iter().any(is_named), "{line}");
            assert!(!(line.contains(PASSWORD) && is_secret(input)), "{line}");
        }
    }
});

/// Whether the input contains the password exactly once, and in the userinfo or the query of a URL.
fn is_secret(input: &[u8]) -> bool {
    let input = String::from_utf8_lossy(input);
    let mut parts = input.split(PASSWORD);
    let (Some(before), Some(after), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let start = before.rsplit('\0').next().unwrap_or_default();
    let end = after.split('\0').next().unwrap_or_default();
    start.contains("://") && (end.contains('@') || start.contains('?'))
}
