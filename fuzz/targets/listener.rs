//! Sends the input on one connection of the listener. The connection must end in time, get at most
//! one response, and not affect the next connection.
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

/// Time limit of a connection. Longer than the listener's limit of 4 s plus a pause of the client.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of a request head in bytes.
const HEAD_MAX: usize = 8 * 1024;

const PROBE: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime without IO can be built")
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

    let response = converse(&health, &choices.pieces(input), pause, closes).await;
    // Status codes of the listener, and of hyper if it refuses a request.
    let known = [200, 503, 404, 405, 400, 414, 431];
    assert!(
        response.is_none_or(|code| known.contains(&code)),
        "{response:?}"
    );
    if let Some(expected) = expected(input, code)
        && pause.is_zero()
    {
        assert_eq!(response, Some(expected));
    }
    let response = converse(&health, &[PROBE], Duration::ZERO, false).await;
    assert_eq!(response, Some(code), "the next connection");
}

/// Sends the pieces on a new connection. Returns the status code of the response, if there is one.
async fn converse(health: &Health, pieces: &[&[u8]], pause: Duration, closes: bool) -> Option<u16> {
    let (client, server) = duplex(2048);
    let connection = tokio::spawn(fuzzing::converse(health.clone(), server));
    let (mut from, mut to) = split(client);
    let mut response = Vec::new();
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
    let read = from.read_to_end(&mut response);
    let both = async { tokio::join!(write, read) };
    let (_, read) = timeout(CONNECTION_TIMEOUT, both)
        .await
        .expect("the connection ends in time");
    read.expect("a duplex does not fail");
    connection.await.expect("no panic");
    (!response.is_empty()).then(|| status_code(&response))
}

/// Returns the status code of a response. Asserts that the response is complete and that nothing
/// follows it.
fn status_code(bytes: &[u8]) -> u16 {
    let mut headers = [EMPTY_HEADER; 16];
    let mut response = Response::new(&mut headers);
    let Ok(Status::Complete(head)) = response.parse(bytes) else {
        panic!("not a response: {}", bytes.escape_ascii());
    };
    let name = "content-length";
    let mut lengths = response.headers.iter();
    let length = lengths.find(|header| header.name.eq_ignore_ascii_case(name));
    // hyper omits a length of 0 in response to HEAD.
    let length = length.map_or("0", |length| str::from_utf8(length.value).expect("digits"));
    let body = bytes.len() - head;
    // A response to HEAD has no body.
    assert!(body == 0 || body == length.parse::<usize>().expect("a number"));
    response.code.expect("a complete head has a code")
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

/// Returns the expected status code of a request, or `None` if more than one is right.
fn expected(input: &[u8], code: u16) -> Option<u16> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    let Ok(Status::Complete(length)) = request.parse(input) else {
        return None;
    };
    if length > HEAD_MAX {
        return Some(431);
    }
    let path = request.path?;
    let literal = path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/');
    if length >= HEAD_MAX || !is_plain(&request) || !literal || !path.starts_with('/') {
        return None;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    Some(match (request.method?, path) {
        ("GET" | "HEAD", "/health" | "/health/ready") => code,
        ("GET" | "HEAD", "/health/live") => 200,
        (_, "/health" | "/health/ready" | "/health/live") => 405,
        _ => 404,
    })
}
