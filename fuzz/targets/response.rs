//! Parses a response. The probe must agree with httparse, however the bytes are split into reads.
#![no_main]

mod shared;

use std::io::Write;

use httparse::{EMPTY_HEADER, ParserConfig, Response, Status};
use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing;
use shared::{Choices, assert_line};
use socket2::{Domain, Socket, Type};

/// The probe's maximum length of a response head in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// The probe's maximum number of interim responses.
const INTERIM_MAX: usize = 8;

fuzz_target!(|response: &[u8]| {
    let whole = probe(Type::STREAM, [response]);
    // A read from a socket of type SEQPACKET returns one packet, so each piece is read separately.
    let pieces = Choices::of(response).pieces(response);
    assert_eq!(whole, probe(Type::SEQPACKET, pieces), "in pieces");

    match parse(response, &ParserConfig::default()) {
        Parsed::Final(code) => assert_eq!(whole.code(), Some(code)),
        Parsed::Incomplete => assert_eq!(whole.code(), None),
        Parsed::Malformed => {}
    }
    if let Some(code) = whole.code() {
        let Parsed::Final(parsed) = parse(&normalized(response), &lenient()) else {
            panic!("httparse finds no response");
        };
        assert_eq!(code, parsed);
    }
});

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Healthy(u16),
    Unhealthy(u16),
    NoResponse,
}

impl Verdict {
    /// Returns the status code of the final response. Asserts that the verdict agrees with it.
    fn code(&self) -> Option<u16> {
        match *self {
            Self::Healthy(code) => {
                assert!((200..300).contains(&code));
                Some(code)
            }
            Self::Unhealthy(code) => {
                assert!(!(200..300).contains(&code));
                Some(code)
            }
            Self::NoResponse => None,
        }
    }
}

fn probe<'a>(kind: Type, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let (probe, mut peer) = Socket::pair(Domain::UNIX, kind, None).expect("a pair of sockets");
    for piece in pieces {
        peer.write_all(piece)
            .expect("the response fits into the socket's buffer");
    }
    peer.shutdown(std::net::Shutdown::Write)
        .expect("the socket is open");

    let (code, line) = fuzzing::probe(probe);
    assert_line(&line);
    if let Some(code) = code {
        assert!(line.starts_with("healthy: "), "{line}");
        return Verdict::Healthy(code);
    }
    let reason = line
        .strip_prefix("unhealthy: ")
        .expect("the line starts with `healthy` or `unhealthy`");
    // If there is a final response, the reason starts with its status code. All other reasons start
    // with a word.
    match reason.get(..3).map(str::parse) {
        Some(Ok(code)) => Verdict::Unhealthy(code),
        _ => Verdict::NoResponse,
    }
}

enum Parsed {
    Final(u16),
    /// The head is incomplete or too long, or there are too many interim responses.
    Incomplete,
    Malformed,
}

fn parse(mut bytes: &[u8], parser: &ParserConfig) -> Parsed {
    for _ in 0..=INTERIM_MAX {
        // httparse skips empty lines before a response, and the probe does not.
        if bytes.starts_with(b"\r") || bytes.starts_with(b"\n") {
            return Parsed::Malformed;
        }
        let mut few = [EMPTY_HEADER; 64];
        let (mut status, mut code) = parse_head(bytes, parser, &mut few);
        if status == Err(httparse::Error::TooManyHeaders) {
            // The shortest header line has three bytes, so this many headers are enough.
            (status, code) = parse_head(bytes, parser, &mut vec![EMPTY_HEADER; bytes.len() / 3]);
        }
        match (status, code) {
            (Ok(Status::Complete(length)), _) if length > HEAD_MAX => return Parsed::Incomplete,
            (Ok(Status::Complete(length)), Some(100..200)) => bytes = &bytes[length..],
            (Ok(Status::Complete(_)), Some(code @ 200..)) => return Parsed::Final(code),
            (Ok(Status::Partial), _) => return Parsed::Incomplete,
            // httparse accepts any three digits as a status code. The probe rejects 099.
            _ => return Parsed::Malformed,
        }
    }
    Parsed::Incomplete
}

fn parse_head<'a>(
    bytes: &'a [u8],
    parser: &ParserConfig,
    headers: &mut [httparse::Header<'a>],
) -> (httparse::Result<usize>, Option<u16>) {
    let mut response = Response::new(headers);
    let status = parser.parse_response(&mut response, bytes);
    (status, response.code)
}

/// A configuration in which httparse accepts every header line that the probe accepts: any line
/// with a colon, and folded lines.
fn lenient() -> ParserConfig {
    let mut parser = ParserConfig::default();
    parser
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    parser
}

/// Replaces what only the probe accepts: other minor versions, any bytes in the reason phrase, and
/// control characters in headers.
fn normalized(response: &[u8]) -> Vec<u8> {
    let mut normalized = Vec::new();
    for line in response.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match text.split_at_checked("HTTP/1.1 200".len()) {
            Some((status, [] | [b' ', ..]))
                if status.starts_with(b"HTTP/1.") && status[7].is_ascii_digit() =>
            {
                normalized.extend_from_slice(b"HTTP/1.1");
                normalized.extend_from_slice(&status["HTTP/1.1".len()..]);
            }
            _ => normalized.extend(
                text.iter()
                    .map(|b| if b.is_ascii_control() { b' ' } else { *b }),
            ),
        }
        normalized.extend_from_slice(&line[text.len()..]);
    }
    normalized
}
