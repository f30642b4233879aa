//! The probe's reading of answers: as httparse reads them, however they arrive, on one line.
#![no_main]

mod shared;

use std::io::Write;

use httparse::{EMPTY_HEADER, ParserConfig, Response, Status};
use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing;
use shared::{Choices, assert_line};
use socket2::{Domain, Socket, Type};

/// As in the probe.
const HEAD_MAX: usize = 16 * 1024;
const INTERIM_MAX: usize = 8;

fuzz_target!(|answer: &[u8]| {
    let whole = ask(Type::STREAM, [answer]);
    // Each packet is a read of its own.
    let pieces = Choices::of(answer).pieces(answer);
    assert_eq!(whole, ask(Type::SEQPACKET, pieces), "in pieces");

    match read(answer, &ParserConfig::default()) {
        Reading::Final(code) => assert_eq!(whole.code(), Some(code)),
        Reading::None => assert_eq!(whole.code(), None),
        Reading::Malformed => {}
    }
    if let Some(code) = whole.code() {
        let Reading::Final(read) = read(&canonical(answer), &lenient()) else {
            panic!("httparse sees no answer at all");
        };
        assert_eq!(code, read);
    }
});

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Healthy(u16),
    Unhealthy(u16),
    NoAnswer,
}

impl Verdict {
    /// The code, if there was a final answer that the verdict agrees with.
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
            Self::NoAnswer => None,
        }
    }
}

fn ask<'a>(kind: Type, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let (probe, mut peer) = Socket::pair(Domain::UNIX, kind, None).expect("a pair of sockets");
    for piece in pieces {
        peer.write_all(piece).expect("the buffer takes all of it");
    }
    peer.shutdown(std::net::Shutdown::Write)
        .expect("an open socket");

    let (code, line) = fuzzing::probe(probe);
    assert_line(&line);
    if let Some(code) = code {
        assert!(line.starts_with("healthy: "), "{line}");
        return Verdict::Healthy(code);
    }
    let reason = line.strip_prefix("unhealthy: ").expect("one of two words");
    // All other reasons start with a word.
    match reason.get(..3).map(str::parse) {
        Some(Ok(code)) => Verdict::Unhealthy(code),
        _ => Verdict::NoAnswer,
    }
}

enum Reading {
    Final(u16),
    /// Incomplete, too long, or too many interim answers.
    None,
    Malformed,
}

fn read(mut bytes: &[u8], parser: &ParserConfig) -> Reading {
    for _ in 0..=INTERIM_MAX {
        // httparse skips empty lines before an answer. Servers don't send any.
        if bytes.starts_with(b"\r") || bytes.starts_with(b"\n") {
            return Reading::Malformed;
        }
        let mut few = [EMPTY_HEADER; 64];
        let (mut status, mut code) = parse(bytes, parser, &mut few);
        if status == Err(httparse::Error::TooManyHeaders) {
            // The shortest are three bytes.
            (status, code) = parse(bytes, parser, &mut vec![EMPTY_HEADER; bytes.len() / 3]);
        }
        match (status, code) {
            (Ok(Status::Complete(length)), _) if length > HEAD_MAX => return Reading::None,
            (Ok(Status::Complete(length)), Some(100..200)) => bytes = &bytes[length..],
            (Ok(Status::Complete(_)), Some(code @ 200..)) => return Reading::Final(code),
            (Ok(Status::Partial), _) => return Reading::None,
            // httparse takes any three digits, 099 too.
            _ => return Reading::Malformed,
        }
    }
    Reading::None
}

fn parse<'a>(
    bytes: &'a [u8],
    parser: &ParserConfig,
    headers: &mut [httparse::Header<'a>],
) -> (httparse::Result<usize>, Option<u16>) {
    let mut response = Response::new(headers);
    let status = parser.parse_response(&mut response, bytes);
    (status, response.code)
}

/// Header lines are for others: the probe wants no more of them than a colon or a fold.
fn lenient() -> ParserConfig {
    let mut parser = ParserConfig::default();
    parser
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    parser
}

/// Sets aside what the probe takes and httparse doesn't, though nothing is at stake: another minor
/// version, any bytes in the reason phrase, and any but a line feed in a header.
fn canonical(answer: &[u8]) -> Vec<u8> {
    let mut canonical = Vec::new();
    for line in answer.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match text.split_at_checked("HTTP/1.1 200".len()) {
            Some((status, [] | [b' ', ..]))
                if status.starts_with(b"HTTP/1.") && status[7].is_ascii_digit() =>
            {
                canonical.extend_from_slice(b"HTTP/1.1");
                canonical.extend_from_slice(&status["HTTP/1.1".len()..]);
            }
            _ => canonical.extend(
                text.iter()
                    .map(|b| if b.is_ascii_control() { b' ' } else { *b }),
            ),
        }
        canonical.extend_from_slice(&line[text.len()..]);
    }
    canonical
}
