//! One connection of the listener: it ends in time, says only what it may, and does no harm to the
//! next.
#![no_main]

mod shared;

use std::time::Duration;

use httparse::{EMPTY_HEADER, Request, Response, Status};
use libfuzzer_sys::fuzz_target;
use lifesign::{Health, build_info, fuzzing};
use shared::Choices;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    runtime::Builder,
    time::{sleep, timeout},
};

/// As in the listener, with a little for the timers' grain.
const HEADER_READ_TIMEOUT: Duration = Duration::from_millis(2600);
const END: Duration = Duration::from_secs(65);
const BUFFER: usize = 8 * 1024;

const PROBE: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime without IO needs nothing")
        .block_on(check(input));
});

async fn check(input: &[u8]) {
    let mut choices = Choices::of(input);
    let health = Health::builder(build_info!())
        .required("disk", async || Ok::<_, String>(()))
        .build()
        .expect("a name");
    let code = match choices.below(3) {
        0 => 503,
        1 => {
            health.set_ready();
            200
        }
        _ => {
            health.begin_drain();
            503
        }
    };
    let pause = match choices.below(4) {
        0 => Duration::from_millis(700),
        _ => Duration::ZERO,
    };
    let closes = choices.below(2) == 0;

    let codes = converse(&health, &choices.pieces(input), pause, closes).await;
    // Ours, and hyper's.
    let known = |code: &u16| matches!(code, 200 | 503 | 404 | 405 | 400 | 414 | 431);
    assert!(codes.iter().all(known), "{codes:?}");
    if let Some(expected) = expected(input, code)
        && pause.is_zero()
    {
        assert_eq!(codes.first(), Some(&expected));
    }
    let codes = converse(&health, &[PROBE], Duration::ZERO, false).await;
    assert_eq!(codes, [code], "the next probe");
}

/// The codes of all answers on one connection.
async fn converse(health: &Health, pieces: &[&[u8]], pause: Duration, closes: bool) -> Vec<u16> {
    let (client, server) = duplex(2048);
    let connection = tokio::spawn(fuzzing::converse(health.clone(), server));
    let (mut from, mut to) = split(client);
    let mut answers = Vec::new();
    let write = async {
        for piece in pieces {
            if to.write_all(piece).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
        if closes {
            let _ = to.shutdown().await;
        }
    };
    let read = from.read_to_end(&mut answers);
    let both = async { tokio::join!(write, read) };
    // hyper 1.12 loses its timer over some that send much and read nothing.
    let limit = END + HEADER_READ_TIMEOUT;
    let (_, read) = timeout(limit, both)
        .await
        .expect("the connection ends in time");
    read.expect("a duplex does not fail");
    connection.await.expect("no panic");
    codes(&answers, is_in_order(&pieces.concat()))
}

/// After what it refuses, hyper closes without waiting for a client to read what came before.
fn codes(mut answers: &[u8], whole: bool) -> Vec<u16> {
    let mut codes = Vec::new();
    while !answers.is_empty() {
        let mut headers = [EMPTY_HEADER; 16];
        let mut response = Response::new(&mut headers);
        let head = match response.parse(answers).expect("nothing but answers") {
            Status::Complete(head) => head,
            Status::Partial => {
                assert!(!whole && !codes.is_empty());
                break;
            }
        };
        codes.push(response.code.expect("it is complete"));
        let length = response
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case("content-length"));
        // To HEAD, hyper doesn't say 0.
        let length = length.map_or("0", |length| str::from_utf8(length.value).expect("digits"));
        let length: usize = length.parse().expect("a number");
        answers = &answers[head..];
        // To HEAD there is none, and only reports have one.
        if answers.starts_with(b"{") {
            answers = answers.get(length..).unwrap_or_else(|| {
                assert!(!whole, "a body that is cut off");
                &[]
            });
        }
    }
    codes
}

/// Heads of requests, each complete, and nothing that asks for more than an answer.
fn is_in_order(mut input: &[u8]) -> bool {
    while !input.is_empty() {
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = Request::new(&mut headers);
        match request.parse(input) {
            Ok(Status::Complete(length)) if length < BUFFER && is_plain(&request) => {
                input = &input[length..];
            }
            _ => return false,
        }
    }
    true
}

fn is_plain(request: &Request<'_, '_>) -> bool {
    let frames = [
        "content-length",
        "transfer-encoding",
        "expect",
        "upgrade",
        "connection",
    ];
    request
        .headers
        .iter()
        .all(|h| !frames.iter().any(|f| h.name.eq_ignore_ascii_case(f)))
}

/// The first answer's code, where there can be no doubt of the request.
fn expected(input: &[u8], code: u16) -> Option<u16> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    let Ok(Status::Complete(length)) = request.parse(input) else {
        return None;
    };
    if length > BUFFER {
        return Some(431);
    }
    let path = request.path?;
    let literal = path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/');
    if length >= BUFFER || !is_plain(&request) || !literal || !path.starts_with('/') {
        return None;
    }
    Some(match (request.method?, path) {
        ("GET" | "HEAD", "/health" | "/health/ready") => code,
        ("GET" | "HEAD", "/health/live") => 200,
        (_, "/health" | "/health/ready" | "/health/live") => 405,
        _ => 404,
    })
}
