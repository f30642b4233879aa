//! Arguments and variables: what is taken is one request to a place that can be written down, what
//! is refused is named, and no password is repeated.
//!
//! The first line is `HEALTHCHECK_URL`, the second `PORT`, each further one an argument.
#![no_main]

mod shared;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use libfuzzer_sys::fuzz_target;
use lifesign::{build_info, fuzzing};
use shared::{assert_line, assert_request};

/// In the seeds and the dictionary.
const PASSWORD: &str = "hunter2";

fuzz_target!(|input: &[u8]| {
    let mut lines = input
        .split(|b| *b == b'\n')
        .map(|line| OsString::from_vec(line.to_vec()));
    let (url, port) = (lines.next(), lines.next());
    let args: Vec<_> = lines.collect();
    let env = |name: &str| match name {
        "HEALTHCHECK_URL" => url.clone(),
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
            let culprits = [
                "argument",
                "--timeout",
                "--header",
                "HEALTHCHECK_URL",
                "PORT",
            ];
            let named = |culprit| line.starts_with(&format!("unhealthy: {culprit} \""));
            assert!(culprits.into_iter().any(named), "{line}");
            assert!(!(line.contains(PASSWORD) && is_secret(input)), "{line}");
        }
    }
});

/// Whether the password is nowhere but before the '@' of an URL.
fn is_secret(input: &[u8]) -> bool {
    let input = String::from_utf8_lossy(input);
    let once = input.matches(PASSWORD).count() == 1;
    once && input.split('\n').any(|line| {
        !line.starts_with("unix:")
            && line.split_once("://").is_some_and(|(_, rest)| {
                rest.split_once(PASSWORD)
                    .is_some_and(|(_, rest)| rest.contains('@'))
            })
    })
}
