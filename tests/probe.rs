//! The probe through its front door: `service healthcheck …` as a child process, against servers
//! that misbehave in every way we know of.
//!
//! | what is looked at | how |
//! |---|---|
//! | an answer, and no answer at all | [`at_once`]: a table of servers, and the line about each |
//! | an answer that does not come | [`at_the_deadline`]: the same, with a short deadline |
//! | arguments and variables | [`refuses`] and its like: the line, and nobody is asked |
//!
//! All of them go through [`told`], which holds what every probe promises: exit code 0 or 1, one
//! line of at most 400 bytes, on stdout when healthy and on stderr when not.
#![cfg(all(target_os = "linux", feature = "axum", feature = "listener"))]

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Read, Write},
    iter,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::{
        ffi::OsStrExt,
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{self, Command},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use Act::{Drip, Flood, Hear, Hold, Pause, Reset, Say};
use support::{Outcome, example, exclusive, run, serve, serve_on, start};

mod support;

/// A table of servers: a name, what the server does, and what the probe prints, in which `{peer}`
/// stands for the server's address and `#` for the time that it took.
macro_rules! cases {
    ($($name:literal: $acts:expr => $line:expr),+ $(,)?) => { [$(case($name, $acts, $line)),+] };
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HEALTHY: &str = "healthy: 200 in # ms";

const REPORT: &str = r#"{"status":"fail","output":"starting, waiting for postgres","checks":{}}"#;
const WAITING: &str = "unhealthy: 503 fail: starting, waiting for postgres";

// What is healthy.

#[test]
fn every_2xx_is_healthy() {
    at_once(cases! {
        "200": says(OK) => HEALTHY,
        "204": says("HTTP/1.1 204 No Content\r\n\r\n") => "healthy: 204 in # ms",
        "206": says(response("206 Partial Content", "o")) => "healthy: 206 in # ms",
        "299": says(response("299 Whatever", "")) => "healthy: 299 in # ms",
        "HTTP/1.0": [Hear, say("HTTP/1.0 200 OK\r\n\r\nok")] => HEALTHY,
        "chunked":
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            => HEALTHY,
        "chunked and with a length":
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n")
            => HEALTHY,
        "a length beyond all integers":
            says("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok")
            => HEALTHY,
    });
}

#[test]
fn a_report_that_passes_is_named_and_a_warning_keeps_its_reason() {
    let ok = |body| says(response("200 OK", body));
    at_once(cases! {
        "pass": ok(r#"{"status":"pass"}"#) => "healthy: pass in # ms",
        "warn": ok(r#"{"status":"warn","output":"failing: greeting"}"#)
            => "healthy: warn in # ms: failing: greeting",
        "chunked":
            says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  11\r\n{\"status\":\"pass\"}\r\n0\r\n\r\n")
            => "healthy: pass in # ms",
        "in another order, with spaces, and with the same words elsewhere": ok(
            r#" { "name" : "status", "checks" : [ { "status" : "fail", "output" : "no" } ],
                "output" : "b \"c\" \\", "status" : "warn" } "#
        )
            => r#"healthy: warn in # ms: b \"c\" \\"#,
        "cut off in the reason": ok(r#"{"status":"warn","output":"failing: gre"#)
            => "healthy: warn in # ms",
        "a status that is no word": ok(r#"{"status":200,"output":"x"}"#)
            => "healthy: 200 in # ms: x",
        "a status that is an object": ok(r#"{"status":{"output":"x"}}"#) => HEALTHY,
        "a list": ok(r#"["status","pass","output","x"]"#) => HEALTHY,
        "words beside an object": ok(r#"{} "status":"pass""#) => HEALTHY,
        "an empty status": ok(r#"{"status":""}"#) => HEALTHY,
        "no report": ok("<html>all is well</html>") => HEALTHY,
    });
}

#[test]
fn a_complete_head_is_enough_whatever_becomes_of_the_body() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n";
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    at_once(cases! {
        "no body": says(head) => HEALTHY,
        "a body that stalls": says(format!("{head}0123456789")) => HEALTHY,
        "a body that is cut off": [Hear, say(format!("{head}0123456789"))] => HEALTHY,
        "a body that is aborted": [Hear, say(format!("{head}0123456789")), Reset] => HEALTHY,
        "10 MB": [Hear, say(head), say("x".repeat(10_000_000)), Hold] => HEALTHY,
        "an endless body": [Hear, say(endless), Flood("x".repeat(65536))] => HEALTHY,
        "a byte a second": [Hear, say(endless), drip("data: hello", 1000)] => HEALTHY,
        "a report that is cut off": [Hear, say(format!("{head}{{\"status\":\"pass\",\"out"))]
            => "healthy: pass in # ms",
    });
}

#[test]
fn sloppy_but_unambiguous_heads_are_healthy() {
    let headers: String = (0..101)
        .map(|n| format!("X-{n}: {}\r\n", "v".repeat(70)))
        .collect();
    assert!((7 * 1024..8 * 1024).contains(&headers.len()));
    at_once(cases! {
        "no reason": says("HTTP/1.1 200\r\n\r\n") => HEALTHY,
        "no reason, but its space": says("HTTP/1.1 200 \r\n\r\n") => HEALTHY,
        "a reason in Latin-1": says(b"HTTP/1.1 200 \xe7a va\r\n\r\n") => HEALTHY,
        "no header": says("HTTP/1.1 200 OK\r\n\r\n") => HEALTHY,
        "101 headers": says(format!("HTTP/1.1 200 OK\r\n{headers}\r\n")) => HEALTHY,
        "a header without value": says("HTTP/1.1 200 OK\r\nA:\r\n\r\n") => HEALTHY,
        "a header of any bytes": says(b"HTTP/1.1 200 OK\r\nA: \xff\0\x1b\r\n\r\n") => HEALTHY,
        "a folded header": says("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\n\r\n") => HEALTHY,
        "bare line feeds": says("HTTP/1.1 200 OK\nServer: x\n\nok") => HEALTHY,
        "HTTP/1.9": says("HTTP/1.9 200 OK\r\n\r\n") => HEALTHY,
        "a byte a segment": [Hear, drip(OK, 2), Hold] => HEALTHY,
    });
}

#[test]
fn an_answer_may_take_its_time_within_the_deadline() {
    at_once(cases! {
        "late": [Hear, pause(300), say(OK), Hold] => HEALTHY,
        "in two parts": [Hear, say("HTTP/1.1 20"), pause(300), say("0 OK\r\n\r\n"), Hold]
            => HEALTHY,
    });
}

#[test]
fn an_answer_sent_before_the_request_is_read_counts() {
    at_once(cases! {
        "and the request is read then": [say(OK), Hear, Hold] => HEALTHY,
        "and the connection is closed over it": [say(OK)] => HEALTHY,
        "and it is an unhealthy one": [say(response("503 X", REPORT))] => WAITING,
    });
}

#[test]
fn up_to_eight_interim_answers_are_skipped() {
    let interim = |count| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let one_by_one = iter::repeat_n(say(interim(1)), 8);
    let one_by_one = iter::once(Hear).chain(one_by_one).chain([say(OK), Hold]);
    let long = format!("HTTP/1.1 103 X\r\nX: {}\r\n\r\n", "x".repeat(15_000)).repeat(8);
    let too_many = "unhealthy: {peer} sent more than 8 interim (1xx) answers";
    at_once(cases! {
        "one": says(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")) => HEALTHY,
        "eight": says(interim(8) + OK) => HEALTHY,
        "eight, each by itself": one_by_one.collect::<Vec<_>>() => HEALTHY,
        "eight, each nearly as long as can be": says(long + OK) => HEALTHY,
        "nine": says(interim(9) + OK) => too_many,
        "any number": [Hear, Flood(interim(100))] => too_many,
        "one before a 503": says(interim(1) + "HTTP/1.1 503 X\r\n\r\n" + REPORT) => WAITING,
    });
}

// What is not.

#[test]
fn an_unhealthy_report_gives_its_reason() {
    let unavailable = |body: &str| says(response("503 Service Unavailable", body));
    let (half, most) = (&REPORT[..30], &REPORT[..60]);
    let pretty = REPORT.replace(",\"", ",\n  \"").replace("\":", "\": ");
    let length = REPORT.len();
    let headers = "X: 0123456789\r\n".repeat(300);
    let checks: Vec<_> = (0..200).map(|n| format!(r#""c{n}":[{{}}]"#)).collect();
    let checks = format!(r#"{{"checks":{{{}}},{}"#, checks.join(","), &REPORT[1..]);
    at_once(cases! {
        "at once": unavailable(REPORT) => WAITING,
        "on lines": unavailable(&pretty) => WAITING,
        "in chunks":
            says(format!(
                "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {length:x}\r\n{REPORT}\r\n0\r\n\r\n"
            ))
            => WAITING,
        "after 4 KB of headers": says(format!("HTTP/1.1 503 X\r\n{headers}\r\n{REPORT}"))
            => WAITING,
        "after 3 KB of checks": unavailable(&checks) => WAITING,
        "cut off after the reason": [Hear, say(response("503 X", most))] => WAITING,
        "cut off before the reason": [Hear, say(response("503 X", half))] => "unhealthy: 503 fail",
        "without a reason": unavailable(r#"{"status":"fail"}"#) => "unhealthy: 503 fail",
        "with another code": says(response("500 Oops", REPORT))
            => "unhealthy: 500 fail: starting, waiting for postgres",
        "that passes": unavailable(r#"{"status":"pass"}"#) => "unhealthy: 503 pass",
    });
}

#[test]
fn any_other_unhealthy_body_gives_its_first_line() {
    let unavailable = |body| says(response("503 Service Unavailable", body));
    let later = "HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\n";
    at_once(cases! {
        "none": says("HTTP/1.1 503 Service Unavailable\r\n\r\n") => "unhealthy: 503",
        "text": unavailable("boom\n") => "unhealthy: 503: boom",
        "lines": unavailable("\r\n \r\n  no database\r\nno cache\r\n")
            => "unhealthy: 503: no database",
        "HTML": unavailable("<h1>Bad Gateway</h1>\n<hr>nginx")
            => "unhealthy: 503: <h1>Bad Gateway</h1>",
        "JSON that is no report": unavailable(r#"{"error":"no database"}"#)
            => r#"unhealthy: 503: {"error":"no database"}"#,
        "letters of the world": unavailable("Größe unbekannt: 世界")
            => "unhealthy: 503: Größe unbekannt: 世界",
        "a body that comes later": [Hear, say(later), pause(5000), say("late")]
            => "unhealthy: 503",
    });
}

#[test]
fn no_other_code_is_healthy() {
    let codes = [
        300, 304, 400, 401, 403, 404, 405, 408, 418, 429, 500, 501, 502, 503, 504, 599, 600, 999,
    ];
    at_once(codes.map(|code| {
        let answer = response(&format!("{code} Whatever"), "");
        case(code.to_string(), says(answer), format!("unhealthy: {code}"))
    }));
}

#[test]
fn redirects_are_named_and_not_followed() {
    let to = |code, place| says(format!("HTTP/1.1 {code} X\r\nlocation: {place}\r\n\r\n"));
    at_once(cases! {
        "to https": to(301, "https://example.org/health")
            => redirected("301 redirect to https://example.org/health"),
        "to itself": to(302, "/health") => redirected("302 redirect to /health"),
        "to a login": to(307, " /login?next=/ ") => redirected("307 redirect to /login?next=/"),
        "to nowhere": to(308, "") => "unhealthy: 308",
        "a place to be without a redirect":
            says("HTTP/1.1 503 X\r\nLocation: /elsewhere\r\n\r\nsorry")
            => "unhealthy: 503: sorry",
    });
}

#[test]
fn what_strangers_send_cannot_move_a_cursor_or_start_a_line() {
    let unavailable = |body: &[u8]| says(response("503 X", body));
    at_once(cases! {
        "terminal sequences": unavailable(b"\x1b[2J\x1b]0;title\x07red\x7f")
            => r"unhealthy: 503: \u{1b}[2J\u{1b}]0;title\u{7}red\u{7f}",
        "NUL, tab and return": unavailable(b"a\0b\tc\rd") => r"unhealthy: 503: a\u{0}b\tc\rd",
        "invalid UTF-8": unavailable(b"caf\xe9 \xff\xfe")
            => "unhealthy: 503: caf\u{fffd} \u{fffd}\u{fffd}",
        "text that runs backwards": unavailable("\u{202e}yhtlaeh\u{202c}\u{2066}".as_bytes())
            => r"unhealthy: 503: \u{202e}yhtlaeh\u{202c}\u{2066}",
        "controls beyond ASCII": unavailable("\u{9b}2J\u{85}x".as_bytes())
            => r"unhealthy: 503: \u{9b}2J\u{85}x",
        "separators of lines": unavailable("a\u{2028}healthy: pass\u{2029}".as_bytes())
            => r"unhealthy: 503: a\u{2028}healthy: pass\u{2029}",
        "what has no shape": unavailable("\u{feff}a\u{200b}b\u{ad}c\u{a0}d\u{301}".as_bytes())
            => r"unhealthy: 503: \u{feff}a\u{200b}b\u{ad}c\u{a0}d\u{301}",
        "a reason": unavailable(br#"{"status":"fail","output":"a\nhealthy: pass\u001b[2J\u0000"}"#)
            => r"unhealthy: 503 fail: a\nhealthy: pass\u001b[2J\u0000",
        "a reason with bytes that no JSON holds":
            unavailable(b"{\"status\":\"fail\",\"output\":\"a\nb\x1b[2J\\\"c\"}")
            => r#"unhealthy: 503 fail: a\nb\u{1b}[2J\"c"#,
        "a status": unavailable(br#"{"status":"fa\r\nil"}"#) => r"unhealthy: 503 fa\r\nil",
        "a healthy report": says(response("200 OK", r#"{"status":"pa\u001b","output":"a\nb"}"#))
            => r"healthy: pa\u001b in # ms: a\nb",
        "a location": says(b"HTTP/1.1 302 X\r\nLocation: /\x1b[2J\xff\r\n\r\n")
            => redirected("302 redirect to /\\u{1b}[2J\u{fffd}"),
        "a banner": says(b"\x1b[31mlogin:\xff") => foreign("\\u{1b}[31mlogin:\u{fffd}"),
        "a reason phrase": says(b"HTTP/1.1 503 \x1b[2J\xff\0\r\n\r\n") => "unhealthy: 503",
    });
}

#[test]
fn a_long_reason_is_cut_to_a_line_of_400_bytes() {
    let report = |reason: String| {
        let report = format!(r#"{{"status":"fail","output":"{reason}"}}"#);
        says(response("503 X", report))
    };
    let cut = |text: &str, count| format!("unhealthy: 503 fail: {}...", text.repeat(count));
    at_once(cases! {
        "5 KB of ASCII": report("x".repeat(5000)) => cut("x", 375),
        "5 KB of umlauts": report("ü".repeat(2500)) => cut("ü", 187),
        "5 KB of escapes": report(r"\u0000".repeat(800))
            => format!("unhealthy: 503 fail: {}\\u0...", r"\u0000".repeat(62)),
        "1 KB of controls": report("\0".repeat(1024)) => cut(r"\u{0}", 75),
        "1 MB of text": says(response("503 X", "x".repeat(1 << 20)))
            => format!("unhealthy: 503: {}", "x".repeat(200)),
        "a location of 8 KB": says(format!("HTTP/1.1 302 X\r\nLocation: /{:a<8000}\r\n\r\n", ""))
            => redirected(&format!("302 redirect to /{:a<199}", "")),
    });
}

#[test]
fn another_protocol_is_named_at_once_though_its_server_waits() {
    let tls = "unhealthy: {peer} speaks TLS: use https";
    let http2 = "unhealthy: {peer} speaks HTTP/2 only: point the probe at HTTP/1";
    at_once(cases! {
        "a TLS alert": says(b"\x15\x03\x01\0\x02\x02\x46") => tls,
        "a TLS alert and the end": [Hear, say(b"\x15\x03\x03\0\x02\x02\x0a")] => tls,
        "a TLS handshake": speaks(b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03") => tls,
        "HTTP/2 settings": speaks(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80") => http2,
        "no HTTP/2 settings": speaks(b"\0\0\0\x04\0\0\0\0\0") => http2,
        "SSH": speaks("SSH-2.0-OpenSSH_9.2p1\r\n") => foreign(r"SSH-2.0-OpenSSH_9.2p1\r\n"),
        "SMTP": speaks("220 mail ESMTP\r\n") => foreign(r"220 mail ESMTP\r\n"),
        "Redis": says("-ERR unknown command\r\n") => foreign(r"-ERR unknown command\r\n"),
        "MySQL": speaks(b"\x4a\0\0\0\x0a8.4.2\0") => foreign(r"J\u{0}\u{0}\u{0}\n8.4.2\u{0}"),
        "RTSP": says("RTSP/1.0 200 OK\r\n\r\n") => foreign(r"RTSP/1.0 200 OK\r\n\r\n"),
        "HTTP/0.9": [Hear, say("<html>ok</html>")] => foreign("<html>ok</html>"),
        "an echo": says("GET / HTTP/1.1\r\n") => foreign(r"GET / HTTP/1.1\r\n"),
    });
}

#[test]
fn another_version_of_http_is_unhealthy_at_once() {
    let starts = [
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/3.7 200 OK",
        "HTTP/11 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
    ];
    at_once(starts.map(|start| {
        let answer = says(format!("{start}\r\n\r\n"));
        case(start, answer, foreign(&format!(r"{start}\r\n\r\n")))
    }));
}

#[test]
fn a_status_line_that_is_not_quite_one_is_unhealthy_at_once() {
    let lines = [
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 Zero",
        "HTTP/1.1 1000 High",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 20 Short",
        "HTTP/1.1 2",
        "HTTP/1.1 ",
        "HTTP/1.1",
        "HTTP/1.1 2e2 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1 0x200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200,OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/1.x 200 OK",
        "HTTP/1. 200 OK",
    ];
    at_once(lines.map(|line| {
        let answer = says(format!("{line}\r\nServer: x\r\n\r\n"));
        case(line, answer, foreign(&line.replace('\t', r"\t")))
    }));
}

#[test]
fn a_header_that_is_none_is_unhealthy_at_once() {
    let after = |start| says(format!("{start}no colon here\r\n"));
    at_once(cases! {
        "first": after("HTTP/1.1 200 OK\r\n") => foreign("no colon here"),
        "later": after("HTTP/1.1 200 OK\r\nA: b\r\n") => foreign("no colon here"),
        "without a name": says("HTTP/1.1 200 OK\r\n: value\r\n") => foreign(": value"),
        "a body": says("HTTP/1.1 200 OK\r\n[\"a body\"]\r\n") => foreign(r#"["a body"]"#),
    });
}

#[test]
fn garbage_is_unhealthy_at_once() {
    // As random as it needs to be, and the same each time.
    let next = |n: &u32| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let noise = iter::successors(Some(0x2545_f491), next).map(|n| n.to_be_bytes()[0]);
    let noise: Vec<u8> = noise.take(1 << 16).collect();
    for (name, garbage) in [("64 KB of noise", noise), ("4 KB of NUL", vec![0; 4096])] {
        let address = serve(|stream| perform(&[Say(garbage), Hold], stream));
        let outcome = ask(&format!("http://{address}"));
        let line = told(&outcome);
        let start = format!("unhealthy: {address} does not speak HTTP/1: it sent \"");
        assert!(line.starts_with(&start), "{name}: {line}");
        assert!(AT_ONCE.contains(&outcome.took), "{name}: {outcome:?}");
    }
}

#[test]
fn head_of_more_than_16_kib_is_unhealthy() {
    let too_long = "unhealthy: {peer} sent a head of more than 16 KiB";
    let head = |length| {
        let filler = length - "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(filler))
    };
    // What fits must not depend on how it is cut into segments.
    let parts = |head: String| {
        let (first, second) = head.split_at(2047);
        [Hear, say(first), pause(300), say(second), Hold]
    };
    at_once(cases! {
        "16 KiB": says(head(16384)) => HEALTHY,
        "16 KiB in parts": parts(head(16384)) => HEALTHY,
        "a byte more": says(head(16385)) => too_long,
        "a byte more in parts": parts(head(16385)) => too_long,
        "a header of 1 MB": says(head(1 << 20)) => too_long,
        "a status line of 1 MB": says(format!("HTTP/1.1 200 {}", "x".repeat(1 << 20))) => too_long,
        "endless headers": [Hear, say("HTTP/1.1 200 OK\r\n"), Flood("A: b\r\n".repeat(1000))]
            => too_long,
        "an endless header": [Hear, say("HTTP/1.1 200 OK\r\nA: "), Flood("x".repeat(65536))]
            => too_long,
    });
}

#[test]
fn a_connection_closed_before_the_head_is_complete_is_unhealthy() {
    let no_answer = "unhealthy: {peer} closed the connection without an answer";
    let middle = "unhealthy: {peer} closed the connection in the middle of its answer";
    at_once(cases! {
        "after the request": [Hear] => no_answer,
        "after an interim answer": [Hear, say("HTTP/1.1 103 X\r\n\r\n")] => middle,
        "in the version": [Hear, say("HTT")] => middle,
        "in the status": [Hear, say("HTTP/1.1 20")] => middle,
        "after the status": [Hear, say("HTTP/1.1 200 OK")] => middle,
        "after the status line": [Hear, say("HTTP/1.1 200 OK\r\n")] => middle,
        "in a header": [Hear, say("HTTP/1.1 200 OK\r\nContent-Le")] => middle,
        "after a header": [Hear, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")] => middle,
        "before the last line feed": [Hear, say("HTTP/1.1 200 OK\r\n\r")] => middle,
        "after the head": [Hear, say("HTTP/1.1 200 OK\r\n\r\n")] => HEALTHY,
    });
}

#[test]
fn a_connection_reset_before_the_head_is_complete_is_unhealthy() {
    let reset = "unhealthy: receive from {peer}: connection reset by peer";
    at_once(cases! {
        "after the request": [Hear, Reset] => reset,
        "in the version": [Hear, say("HTT"), Reset] => reset,
        "after the status line": [Hear, say("HTTP/1.1 200 OK\r\n"), Reset] => reset,
        "after a header": [Hear, say("HTTP/1.1 200 OK\r\nA: b\r\n"), Reset] => reset,
        "after the head": [Hear, say("HTTP/1.1 200 OK\r\n\r\n"), Reset] => HEALTHY,
    });
}

#[test]
fn a_connection_that_ends_on_accept_is_unhealthy() {
    for acts in [vec![], vec![Reset]] {
        let address = serve(move |stream| perform(&acts, stream));
        let line = told(&ask(&format!("http://{address}")));
        // Whether the request has arrived by then is up to the scheduler.
        let either = [
            format!("unhealthy: {address} closed the connection without an answer"),
            format!("unhealthy: receive from {address}: connection reset by peer"),
        ];
        assert!(either.contains(&line), "{line}");
    }
}

// The deadline.

#[test]
fn silence_ends_at_the_deadline() {
    let nothing = "unhealthy: {peer} sent nothing within 500ms";
    let incomplete = "unhealthy: {peer} sent an incomplete answer within 500ms";
    at_the_deadline(cases! {
        "accepts and does not read": [Hold] => nothing,
        "reads and does not answer": [Hear, Hold] => nothing,
        "answers too late": [Hear, pause(1000), say(OK)] => nothing,
        "a byte": says("H") => incomplete,
        "half a status": says("HTTP/1.1 20") => incomplete,
        "a status line without its end": says("HTTP/1.1 200 OK") => incomplete,
        "a status line": says("HTTP/1.1 200 OK\r\n") => incomplete,
        "a header": says("HTTP/1.1 200 OK\r\nServer: x\r\n") => incomplete,
        "all but the last byte": says("HTTP/1.1 200 OK\r\n\r") => incomplete,
        "an interim answer": says("HTTP/1.1 100 Continue\r\n\r\n") => incomplete,
        "another protocol from here": says("HTTP/1.1 101 Switching Protocols\r\n\r\n")
            => incomplete,
    });
}

#[test]
fn the_deadline_is_one_for_the_whole_probe() {
    let incomplete = "unhealthy: {peer} sent an incomplete answer within 500ms";
    let interim = [say("HTTP/1.1 102 Processing\r\n\r\n"), pause(400)];
    let interim = iter::repeat_n(interim, 8).flatten();
    at_the_deadline(cases! {
        "a byte at a time": [Hear, drip("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200)] => incomplete,
        "an interim answer at a time": iter::once(Hear).chain(interim).collect::<Vec<_>>()
            => incomplete,
    });
}

#[test]
fn a_listener_that_never_accepts_ends_at_the_deadline() {
    let listener = listener();
    let address = address_of(&listener);
    ends_at_the_deadline(
        &format!("http://{address}"),
        &format!("unhealthy: {address} sent nothing within 500ms"),
    );
}

#[test]
fn a_full_backlog_ends_at_the_deadline() {
    let (listener, _queue) = full_backlog();
    let address = address_of(&listener);
    ends_at_the_deadline(
        &format!("http://{address}"),
        &format!("unhealthy: connect to {address}: no answer within 500ms"),
    );
}

#[test]
fn the_deadline_is_3_s_unless_said_otherwise() {
    let address = serve(|stream| perform(&[Hear, Hold], stream));
    complain(
        &ask(&format!("http://{address}")),
        &format!("unhealthy: {address} sent nothing within 3s"),
        &(Duration::from_secs(3)..Duration::from_millis(4500)),
    );
}

#[test]
fn a_freeze_within_the_deadline_does_no_harm() {
    let (thaw, thawed) = mpsc::channel();
    let (address, asked) = serve_asked(move |mut stream| {
        let _ = thawed.recv();
        let _ = stream.write_all(OK.as_bytes());
    });
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "9s"]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    freeze(probe.child.id());
    signal(probe.child.id(), "CONT");
    thaw.send(()).expect("the server waits");
    assert_eq!(told(&probe.finish()), HEALTHY);
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
            perform(&[Hear, say(OK)], stream);
        }
    });
    assert_eq!(told(&probe.finish()), HEALTHY);
}

#[test]
fn a_freeze_beyond_the_deadline_ends_as_unhealthy() {
    let (address, asked) = serve_asked(|stream| perform(&[Hold], stream));
    let probe = start(healthcheck([format!("http://{address}")]).args(["--timeout", "1s"]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    freeze(probe.child.id());
    thread::sleep(Duration::from_secs(1));
    signal(probe.child.id(), "CONT");
    assert_eq!(
        told(&probe.finish()),
        format!("unhealthy: {address} sent nothing within 1s")
    );
}

#[test]
fn an_answer_that_is_complete_after_the_deadline_is_late() {
    // Linux rounds a wait of 3 s up by as much as a quarter of a second, and several are started so
    // that one at least is: it has the whole answer, and must not believe it.
    let late = || {
        let (address, _asked) = serve_asked(|mut stream| {
            thread::sleep(Duration::from_secs(3));
            let _ = stream.write_all(OK.as_bytes());
        });
        let outcome = run(healthcheck([format!("http://{address}")]).args(["--timeout", "3s"]));
        let line = told(&outcome);
        let sent = |what: &str| format!("unhealthy: {address} sent {what} within 3s");
        assert!(
            [sent("nothing"), sent("an incomplete answer")].contains(&line),
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
fn sigterm_ends_a_probe_at_once() {
    let (address, asked) = serve_asked(|stream| perform(&[Hold], stream));
    let probe = start(&mut healthcheck([format!("http://{address}")]));
    asked.recv_timeout(PATIENCE).expect("the probe asks");
    signal(probe.child.id(), "TERM");
    let outcome = probe.finish();
    assert_eq!(printed(&outcome), (None, "", ""));
    assert!(AT_ONCE.contains(&outcome.took), "{outcome:?}");
}

// Whom it asks.

#[test]
fn a_closed_port_is_unhealthy_at_once() {
    let closed = closed();
    let address = address_of(&closed);
    for host in ["127.0.0.1", "0.0.0.0"] {
        ends_at_once(
            &format!("http://{host}:{}", address.port()),
            &format!("unhealthy: connect to {address}: connection refused"),
        );
    }
}

#[test]
fn localhost_and_the_wildcard_of_ipv6_are_asked_on_both_loopback_addresses() {
    if closed_pair().is_none() {
        return skipped("there is no ::1 here");
    }
    for host in ["localhost", "[::]"] {
        let (v4, v6) = closed_pair().expect("there was one");
        let port = address_of(&v4).port();
        let both = format!("127.0.0.1:{port} or [::1]:{port}");
        let refused = format!("unhealthy: connect to {both}: connection refused");
        ends_at_once(&format!("http://{host}:{port}"), &refused);
        drop((v4, v6));

        for family in [4, 6] {
            let (v4, v6) = closed_pair().expect("there was one");
            let (open, _closed) = if family == 4 { (v4, v6) } else { (v6, v4) };
            let port = address_of(&open).port();
            open.listen(8).expect("a bound socket can listen");
            serve_on(open.into(), |stream| perform(&says(OK), stream));
            let line = told(&ask(&format!("http://{host}:{port}")));
            assert_eq!(line, HEALTHY, "{host} with a listener on IPv{family}");
        }
    }
}

#[test]
fn the_wildcard_of_ipv4_is_not_asked_on_ipv6() {
    let Some((_closed, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    v6.listen(8).expect("a bound socket can listen");
    let port = address_of(&v6).port();
    ends_at_once(
        &format!("http://0.0.0.0:{port}"),
        &format!("unhealthy: connect to 127.0.0.1:{port}: connection refused"),
    );
}

#[test]
fn an_unhealthy_answer_on_ipv4_is_not_made_good_on_ipv6() {
    let Some((v4, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    let port = address_of(&v4).port();
    for (socket, answer) in [(v4, response("503 X", "")), (v6, OK.into())] {
        socket.listen(8).expect("a bound socket can listen");
        serve_on(socket.into(), |stream| perform(&says(answer), stream));
    }
    let line = told(&ask(&format!("http://localhost:{port}")));
    assert_eq!(line, "unhealthy: 503");
}

#[test]
fn a_port_that_is_connected_to_itself_counts_as_closed() {
    // The port that is asked is the only one that the kernel can ask from.
    let script = "ip link set lo up &&
        echo '40000 40000' >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let namespace = ["-r", "-n", "sh", "-c", script, "sh"];
    if !works(Command::new("unshare").args(namespace).arg("true")) {
        return skipped("there are no network namespaces to be had here");
    }
    let mut probe = Command::new("unshare");
    probe.args(namespace).arg(example("service"));
    assert_eq!(
        told(&run(probe.args(["healthcheck", "http://127.0.0.1:40000"]))),
        "unhealthy: connect to 127.0.0.1:40000: connection refused"
    );
}

#[test]
fn proxies_are_not_used() {
    let closed = closed();
    let proxy = format!("http://{}", address_of(&closed));
    let address = serve(|stream| perform(&says(OK), stream));
    let mut probe = healthcheck([format!("http://{address}")]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        probe.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    probe.env_remove("NO_PROXY").env_remove("no_proxy");
    assert_eq!(told(&run(&mut probe)), HEALTHY);
}

// What goes on the wire.

#[test]
fn the_request_is_exactly_this() {
    assert_eq!(
        overhear(|address| healthcheck([format!("http://{address}")])),
        format!(
            "GET /health HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: lifesign/{}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn headers_that_are_given_come_last_and_instead_of_ours() {
    let headers = [
        "--header",
        "host: example.org",
        "--header",
        "X-A:  b c\t",
        "--header=X-A:",
        "--header=USER-AGENT: me",
        "--header=accept: text/plain",
    ];
    let probe = |address| {
        let mut probe = healthcheck([format!("http://{address}")]);
        probe.args(headers);
        probe
    };
    assert_eq!(
        overhear(probe),
        "GET /health HTTP/1.1\r\nConnection: close\r\nhost: example.org\r\nX-A: b c\r\n\
         X-A: \r\nUSER-AGENT: me\r\naccept: text/plain\r\n\r\n"
    );
}

#[test]
fn the_request_names_the_host_that_is_asked() {
    for (host, named) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::]", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
    ] {
        let probe = |a: SocketAddr| healthcheck([format!("HTTP://{host}:{}", a.port())]);
        let request = overhear(probe);
        let start = format!("GET /health HTTP/1.1\r\nHost: {named}:PORT\r\n");
        assert!(request.starts_with(&start), "{host}: {request}");
    }
    let Some((_closed, v6)) = closed_pair() else {
        return skipped("there is no ::1 here");
    };
    v6.listen(8).expect("a bound socket can listen");
    let request = overhear_on(v6, |address| healthcheck([format!("http://{address}")]));
    let start = "GET /health HTTP/1.1\r\nHost: [::1]:PORT\r\n";
    assert!(request.starts_with(start), "{request}");
}

#[test]
fn path_and_query_go_out_as_they_are() {
    for target in [
        "/",
        "/healthz?full=1&x=%20",
        "//a",
        "/a/../b",
        "/~'()*;@:!$,\"<>",
    ] {
        let request = overhear(|address| healthcheck([format!("http://{address}{target}")]));
        let start = format!("GET {target} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn each_question_has_its_path() {
    for (question, path) in [("--ready", "/health/ready"), ("--live", "/health/live")] {
        let request = overhear(|a| healthcheck([&*format!("http://{a}"), question]));
        let start = format!("GET {path} HTTP/1.1\r\nHost: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn the_request_is_one_write() {
    // A reader that never sleeps sees each write by itself, if not every time.
    for _ in 0..20 {
        let (heard, first) = mpsc::channel();
        let address = serve(move |mut stream| {
            stream.set_nonblocking(true).expect("sockets can be polled");
            let mut chunk = [0; 4096];
            let count = loop {
                match stream.read(&mut chunk) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => break result.unwrap_or(0),
                }
            };
            let _ = heard.send(String::from_utf8_lossy(&chunk[..count]).into_owned());
        });
        ask(&format!("http://{address}"));
        let first = first.recv_timeout(PATIENCE).expect("the probe asks");
        assert!(
            first.starts_with("GET ") && first.ends_with("\r\n\r\n"),
            "{first:?}"
        );
    }
}

#[test]
fn the_probe_keeps_its_side_open_until_the_answer_is_there() {
    let address = serve(|mut stream| {
        read_request(&mut stream);
        let waits = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let answer = match waits.and_then(|()| stream.read(&mut [0])) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => OK.into(),
            other => response("503 X", format!("{other:?}")),
        };
        perform(&[Say(answer), Hold], stream);
    });
    assert_eq!(told(&ask(&format!("http://{address}"))), HEALTHY);
}

#[test]
fn a_body_that_has_arrived_is_read_so_that_nothing_is_reset() {
    for size in [0, 2, 2048, 16384] {
        let (leaves, left) = mpsc::channel();
        let address = serve(move |mut stream| {
            read_request(&mut stream);
            let sent = stream.write_all(&response("200 OK", "x".repeat(size)));
            let end = sent.and_then(|()| stream.read(&mut [0]));
            let _ = leaves.send(end.map_err(|error| error.kind()));
        });
        ask(&format!("http://{address}"));
        let end = left.recv_timeout(PATIENCE).expect("the probe leaves");
        assert_eq!(end, Ok(0), "after {size} bytes");
    }
}

// Unix sockets.

#[test]
fn a_unix_socket_is_asked_like_a_port() {
    let folder = Folder::new("asked");
    for (name, path, target) in [("a", "", "/health"), ("b", ":/custom?x=1", "/custom?x=1")] {
        let socket = folder.0.join(name);
        let requests = serve_unix(&socket, |stream| {
            let _ = stream.write_all(OK.as_bytes());
        });
        let url = format!("unix:{}{path}", socket.display());
        assert_eq!(told(&ask(&url)), HEALTHY, "{url}");
        let request = requests.recv_timeout(PATIENCE).expect("the probe asks");
        let start = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ");
        assert!(request.starts_with(&start), "{request}");
    }
}

#[test]
fn a_unix_socket_that_misbehaves_is_unhealthy() {
    let folder = Folder::new("bad");
    for (name, answer, expected) in [
        ("unwell", response("503 X", REPORT), WAITING),
        (
            "cut",
            "HTTP/1.1 2".into(),
            "unhealthy: {peer} closed the connection in the middle of its answer",
        ),
        (
            "closed",
            vec![],
            "unhealthy: {peer} closed the connection without an answer",
        ),
        (
            "tls",
            b"\x15\x03\x01\0\x02\x02\x46".into(),
            "unhealthy: {peer} speaks TLS: use https",
        ),
        ("ssh", b"SSH-2.0-x\r\n".into(), &foreign(r"SSH-2.0-x\r\n")),
    ] {
        let socket = folder.0.join(name);
        serve_unix(&socket, move |stream| {
            let _ = stream.write_all(&answer);
        });
        let peer = socket.display().to_string();
        let line = told(&ask(&format!("unix:{peer}")));
        assert_eq!(line, expected.replace("{peer}", &peer), "{name}");
    }
}

#[test]
fn a_unix_socket_that_says_nothing_ends_at_the_deadline() {
    let folder = Folder::new("silent");
    let socket = folder.0.join("socket");
    serve_unix(&socket, |stream| drop(stream.read(&mut [0])));
    let socket = socket.display();
    ends_at_the_deadline(
        &format!("unix:{socket}"),
        &format!("unhealthy: {socket} sent nothing within 500ms"),
    );
}

#[test]
fn a_unix_socket_that_is_none_is_unhealthy_at_once() {
    let folder = Folder::new("none");
    let stale = folder.0.join("stale");
    drop(UnixListener::bind(&stale).expect("a socket can be made"));
    let file = folder.0.join("file");
    File::create(&file).expect("a file can be made");
    for (socket, cause) in [
        (folder.0.join("missing"), "no such file or directory"),
        (
            folder.0.join("long".repeat(30)),
            "path must be shorter than SUN_LEN",
        ),
        (file.join("inside"), "not a directory"),
        (file, "connection refused"),
        (folder.0.clone(), "connection refused"),
        (stale, "connection refused"),
    ] {
        let socket = socket.display();
        ends_at_once(
            &format!("unix:{socket}"),
            &format!("unhealthy: connect to {socket}: {cause}"),
        );
    }
}

#[test]
fn a_unix_socket_without_permission_is_unhealthy() {
    let folder = Folder::new("denied");
    let socket = folder.0.join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket can be made");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).expect("its owner may do that");
    let url = format!("unix:{}", socket.display());
    let mut probe = healthcheck([&*url]);
    if UnixStream::connect(&socket).is_ok() {
        // The superuser may do everything, until it gives that up.
        let mut weak = Command::new("setpriv");
        weak.args(["--bounding-set=-dac_override", "--"]);
        if !works(Command::new("setpriv").args(weak.get_args()).arg("true")) {
            return skipped("the superuser cannot give up its power here");
        }
        weak.arg(probe.get_program()).args(probe.get_args());
        probe = weak;
    }
    let expected = format!(
        "unhealthy: connect to {}: permission denied",
        socket.display()
    );
    assert_eq!(told(&run(&mut probe)), expected);
}

#[test]
fn a_full_backlog_of_a_unix_socket_ends_at_the_deadline() {
    let folder = Folder::new("full");
    let socket = folder.0.join("socket");
    let address = SockAddr::unix(&socket).expect("the path is short");
    let new = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("sockets are left");
    let listener = new();
    let listens = listener.bind(&address).and_then(|()| listener.listen(0));
    listens.expect("a socket can be made");
    let fits = |queued: &Socket| {
        let polled = queued.set_nonblocking(true);
        polled.and_then(|()| queued.connect(&address)).is_ok()
    };
    let _queue: Vec<Socket> = iter::repeat_with(new).take_while(fits).collect();
    let socket = socket.display();
    ends_at_the_deadline(
        &format!("unix:{socket}"),
        &format!("unhealthy: connect to {socket}: no answer within 500ms"),
    );
}

#[test]
fn a_request_that_is_read_too_slowly_ends_at_the_deadline() {
    let folder = Folder::new("slow");
    let socket = folder.0.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the probe connects");
        while matches!(stream.read(&mut [0; 32768]), Ok(1..)) {
            thread::sleep(Duration::from_millis(200));
        }
    });
    // More than a socket buffers.
    let header = format!("--header=X: {}", "x".repeat(100_000));
    let mut probe = healthcheck([format!("unix:{}", socket.display())]);
    let outcome = run(probe.args(["--timeout", "500ms"]).args([&*header; 8]));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(AT_THE_DEADLINE.contains(&outcome.took), "{outcome:?}");
}

// Arguments.

#[test]
fn a_time_without_a_unit_or_a_sense_is_refused() {
    let expected = "expected a time like 500ms, 2s or 1m, more than 0 and at most 1h";
    for time in [
        "0",
        "3",
        "0s",
        "0ms",
        "-3s",
        "+3s",
        "3 s",
        "3S",
        "1e3s",
        "1.2.3s",
        "s",
        "infs",
        "0.1ms",
        "61m",
        "99999999999999999999h",
        "",
    ] {
        let refused = format!("unhealthy: --timeout {time:?}: {expected}");
        assert_eq!(told(&run(&mut healthcheck(["--timeout", time]))), refused);
        assert_eq!(told(&ask(&format!("--timeout={time}"))), refused);
    }
    assert_eq!(
        told(&ask("--timeout")),
        format!("unhealthy: argument \"--timeout\": {expected}")
    );
}

#[test]
fn a_time_is_taken_in_every_unit() {
    for time in ["2500ms", "2.5s", "2s", "1m", "1h"] {
        let address = serve(|stream| perform(&says(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        assert_eq!(
            told(&run(probe.args(["--timeout", time]))),
            HEALTHY,
            "{time}"
        );
    }
    let address = serve(|stream| perform(&[Hear, Hold], stream));
    complain(
        &run(&mut healthcheck([
            &format!("http://{address}"),
            "--timeout=0.5s",
        ])),
        &format!("unhealthy: {address} sent nothing within 500ms"),
        &AT_THE_DEADLINE,
    );
}

#[test]
fn a_header_that_could_change_the_request_is_refused() {
    let form = "expected 'Name: value'";
    let control = "expected a value without control characters";
    let frame = "expected a header that does not frame the request";
    for (header, name, expected) in [
        ("", "", form),
        ("X", "X", form),
        (": x", "", form),
        ("X : y", "X", form),
        ("Ä: ö", "Ä", form),
        ("X\r\nY: z", "X\r\nY", form),
        ("X: y\r\nZ: z", "X", control),
        ("X: y\u{7f}", "X", control),
        ("Content-Length: 5", "Content-Length", frame),
        ("transfer-encoding: chunked", "transfer-encoding", frame),
        ("connection: keep-alive", "connection", frame),
    ] {
        // The value may be a secret: the first word says which one it was.
        let line = told(&run(&mut healthcheck(["--header", header])));
        assert_eq!(line, format!("unhealthy: --header {name:?}: {expected}"));
    }
    assert_eq!(
        told(&ask("--header")),
        format!("unhealthy: argument \"--header\": {form}")
    );
}

#[test]
fn an_unknown_argument_is_refused() {
    let unknown = "unknown, expected one of --ready, --live, --timeout, --header, --quiet, --help";
    refuses(
        &[
            "--verbose",
            "-v",
            "-",
            "--",
            "--ready=yes",
            "--quiet=",
            "--READY",
        ],
        unknown,
    );
}

#[test]
fn an_url_that_is_none_is_refused() {
    refuses(
        &[
            "localhost:8080",
            "127.0.0.1",
            "health",
            "ftp://127.0.0.1/",
            "http:/x",
            "",
        ],
        "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH",
    );
    let socket = "expected unix:/ABSOLUTE/SOCKET or unix:/ABSOLUTE/SOCKET:/PATH";
    refuses(
        &[
            "unix:socket",
            "unix:@abstract",
            "unix:/a\nb",
            "unix:",
            "unix::/path",
        ],
        socket,
    );
}

#[test]
fn a_host_name_is_refused_since_names_are_not_resolved() {
    refuses(
        &[
            "http://example.org/",
            "http://db:8080",
            "http://localhost.:80",
            "http://:80",
            "http://",
            "http://127.1:80",
            "http://0x7f000001",
            "http://[127.0.0.1]",
            "http://[::1",
            "http://::1",
            "http://[fe80::1%eth0]:80",
        ],
        HOST,
    );
}

#[test]
fn a_port_that_is_none_is_refused() {
    refuses(
        &[
            "http://127.0.0.1:0",
            "http://127.0.0.1:70000",
            "http://127.0.0.1:+80",
            "http://127.0.0.1:",
            "http://127.0.0.1:80:80",
            "http://[::1]80",
            "https://[::1]:x/",
        ],
        "expected a port from 1 to 65535",
    );
}

#[test]
fn a_path_that_http_does_not_take_as_it_is_is_refused() {
    refuses(
        &[
            "/a b",
            "/a\r\nX: y",
            "/a\nb",
            "/a\tb",
            "/a#b",
            "/für-alle",
            "http://127.0.0.1:80/a b",
            "http://127.0.0.1:80/ HTTP/1.1\r\nX: y",
            "http://127.0.0.1:80?a=b",
            "unix:/a:/b c",
        ],
        "expected a path of printable ASCII without spaces or '#'",
    );
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    for (args, wrong, expected) in [
        (
            ["http://127.0.0.1:1", "http://127.0.0.1:1"],
            "http://127.0.0.1:1",
            "one URL or path",
        ),
        (["http://127.0.0.1:1", "/path"], "/path", "one URL or path"),
        (["/path", "unix:/socket"], "unix:/socket", "one URL or path"),
        (["/path", "/path"], "/path", "one URL or path"),
        (
            ["/path", "--ready"],
            "/path",
            "no path beside --ready or --live",
        ),
        (
            ["--live", "http://127.0.0.1:1/path"],
            "/path",
            "no path beside --ready or --live",
        ),
        (["--ready", "--live"], "--live", "one of --ready and --live"),
    ] {
        let line = told(&run(&mut healthcheck(args)));
        assert_eq!(
            line,
            format!("unhealthy: argument {wrong:?}: expected {expected}")
        );
    }
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused() {
    let mut probe = healthcheck([OsStr::from_bytes(b"http://127.0.0.1/\xff")]);
    assert_eq!(
        told(&run(&mut probe)),
        "unhealthy: argument \"http://127.0.0.1/\u{fffd}\": expected UTF-8"
    );
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    let url = "http://me:hunter2@127.0.0.1:1/";
    let by_argument = told(&ask(url));
    let by = |variable, value: &OsStr| told(&run(healthcheck(NOTHING).env(variable, value)));
    let by_variable = by("HEALTHCHECK_URL", url.as_ref());
    for line in [by_argument, by_variable] {
        let expected = ": expected no user or password: use --header 'Authorization: …'";
        assert!(line.ends_with(expected), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    // Nor is it repeated where something else is wrong.
    for args in [
        &["postgres://me:hunter2@127.0.0.1/"][..],
        &["me:hunter2@127.0.0.1:1"],
        &["http://me:hunter2@127.0.0.1:1/a b"],
        &["http://127.0.0.1:1", url],
        &["--url=http://me:hunter2@127.0.0.1:1/"],
        &["--header=Authorization: Bearer hunter2\n"],
        &["--header=Authorization : Bearer hunter2"],
        // Where a value was forgotten, the URL is taken for it.
        &["--timeout", url],
    ] {
        let line = told(&run(&mut healthcheck(args)));
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let not_utf_8 = OsStr::from_bytes(b"http://me:hunter2@127.0.0.1:1/\xff");
    for line in [by("HEALTHCHECK_URL", not_utf_8), by("PORT", url.as_ref())] {
        assert!(line.starts_with("unhealthy: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[cfg(not(feature = "https"))]
#[test]
fn https_without_the_feature_says_so() {
    assert_eq!(
        told(&ask("https://127.0.0.1:8443/health")),
        "unhealthy: https to 127.0.0.1:8443: this binary is built without lifesign's feature \
         \"https\""
    );
}

#[test]
fn help_goes_to_stdout_and_is_no_failure() {
    let help = format!(
        "\
Asks the running service whether it is well. Exit code 0: healthy, 1: anything else.

Usage: {} healthcheck [URL|PATH] [OPTIONS]

  URL    http://ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: HEALTHCHECK_URL, what the service published, PORT, 127.0.0.1:8080)
  PATH   a path of the service (default: its health route)

  --ready            ask whether it may get traffic
  --live             ask whether it must be restarted
  --timeout TIME     give up after TIME, as in 500ms, 2s or 1m (default: 3s)
  --header 'K: V'    send a header; may be repeated
  --quiet            print nothing, unless an argument or variable is wrong
  --help             print this
",
        example("service").display()
    );
    for args in [&["--help"][..], &["-h"], &["--ready", "--help"]] {
        let outcome = run(&mut healthcheck(args));
        assert_eq!(printed(&outcome), (Some(0), &*help, ""), "{args:?}");
    }
}

#[test]
fn quiet_prints_nothing() {
    for (acts, code) in [
        (says(OK), 0),
        (says(response("503 X", REPORT)), 1),
        (vec![Reset], 1),
    ] {
        let address = serve(move |stream| perform(&acts, stream));
        let outcome = run(&mut healthcheck([&*format!("http://{address}"), "--quiet"]));
        assert_eq!(printed(&outcome), (Some(code), "", ""));
    }
}

// Variables.

#[test]
fn an_argument_comes_before_the_variables() {
    let closed = closed();
    for url in [&*format!("http://{}", address_of(&closed)), "nonsense"] {
        let address = serve(|stream| perform(&says(OK), stream));
        let mut probe = healthcheck([format!("http://{address}")]);
        probe.env("HEALTHCHECK_URL", url).env("PORT", "nonsense");
        assert_eq!(told(&run(&mut probe)), HEALTHY, "{url}");
    }
}

#[test]
fn healthcheck_url_says_whom_to_ask_and_arguments_what() {
    for (path, args, target) in [
        ("", &[][..], "/health"),
        ("/custom?x=1", &[], "/custom?x=1"),
        ("/custom", &["/other"], "/other"),
        ("/custom", &["--ready"], "/health/ready"),
        ("", &["--live"], "/health/live"),
    ] {
        let request = overhear(|address| {
            let mut probe = healthcheck(args);
            probe.env("HEALTHCHECK_URL", format!("http://{address}{path}"));
            probe.env("PORT", "nonsense");
            probe
        });
        let start = format!("GET {target} HTTP/1.1\r\n");
        assert!(request.starts_with(&start), "{path} {args:?}: {request}");
    }
}

#[test]
fn a_wrong_healthcheck_url_is_named() {
    for (value, name, expected) in [
        (&b"nonsense"[..], "nonsense", URL),
        (b" http://127.0.0.1:1", " http://127.0.0.1:1", URL),
        // Here, unlike in an argument, a path would not say whom to ask.
        (b"/health", "/health", URL),
        (b"http://service:8080", "http://service:8080", HOST),
        (b"http://\xff", "http://\u{fffd}", "expected UTF-8"),
    ] {
        let mut probe = healthcheck(NOTHING);
        probe
            .env("HEALTHCHECK_URL", OsStr::from_bytes(value))
            .env("PORT", "1");
        let line = told(&run(&mut probe));
        assert_eq!(
            line,
            format!("unhealthy: HEALTHCHECK_URL {name:?}: {expected}")
        );
    }
}

#[test]
fn port_says_whom_to_ask_when_nobody_published() {
    let _worker = exclusive("worker");
    for (args, target) in [
        (&[][..], "/health"),
        (&["--ready"], "/health/ready"),
        (&["/custom"], "/custom"),
    ] {
        let request = overhear(|address| {
            let mut probe = worker();
            probe.env("PORT", address.port().to_string()).args(args);
            probe
        });
        let start = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n");
        assert!(request.starts_with(&start), "{args:?}: {request}");
    }
    let closed = closed();
    let port = address_of(&closed).port();
    assert_eq!(
        told(&run(worker().env("PORT", port.to_string()))),
        format!(
            "unhealthy: connect to 127.0.0.1:{port}: connection refused (from PORT: is the \
             service up, and does it listen there?)"
        )
    );
}

#[test]
fn a_wrong_port_is_named_and_never_taken_for_the_default() {
    let _worker = exclusive("worker");
    for port in [
        "abc",
        "0",
        "99999",
        "-1",
        "+80",
        " 80",
        "80.0",
        "tcp://10.0.0.1:80",
    ] {
        let line = told(&run(worker().env("PORT", port)));
        let expected = "expected a port from 1 to 65535 (the service published none)";
        assert_eq!(line, format!("unhealthy: PORT {port:?}: {expected}"));
    }
}

#[test]
fn port_8080_is_asked_when_nobody_says_anything() {
    // Whoever runs it takes the port, and publishes it.
    let _hello = exclusive("hello");
    let hello = || probe("hello", NOTHING);
    let socket = match bound((Ipv4Addr::LOCALHOST, 8080).into()) {
        Ok(socket) => socket,
        Err(error) => return skipped(&format!("port 8080 cannot be had: {error}")),
    };
    let refused = "unhealthy: connect to 127.0.0.1:8080: connection refused (the default: is the \
                   service up? if it listens elsewhere, set PORT or HEALTHCHECK_URL)";
    assert_eq!(told(&run(&mut hello())), refused);
    let mut empty = hello();
    empty.env("PORT", "").env("HEALTHCHECK_URL", "");
    assert_eq!(told(&run(&mut empty)), refused);
    socket.listen(8).expect("a bound socket can listen");
    serve_on(socket.into(), |stream| perform(&says(OK), stream));
    assert_eq!(told(&run(&mut hello())), HEALTHY);
}

// Where it prints.

#[test]
fn an_output_that_cannot_be_written_changes_nothing() {
    for redirection in [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        ">/dev/full 2>/dev/full",
    ] {
        for (answer, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
            let address = serve(|stream| perform(&says(answer), stream));
            let mut probe = shell(redirection);
            let outcome = run(probe.arg(format!("http://{address}")));
            assert_eq!(outcome.code, Some(code), "{redirection}: {outcome:?}");
        }
    }
}

#[test]
fn a_reader_that_has_gone_changes_nothing() {
    for (answer, code) in [(OK.into(), 0), (response("503 X", REPORT), 1)] {
        let (go, gone) = mpsc::channel();
        let address = serve(move |stream| {
            let _ = gone.recv();
            perform(&says(answer), stream);
        });
        let mut probe = start(&mut healthcheck([format!("http://{address}")]));
        drop((probe.child.stdout.take(), probe.child.stderr.take()));
        go.send(()).expect("the server waits");
        assert_eq!(probe.finish().code, Some(code));
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    assert_eq!(run(shell(">/dev/full").arg("--help")).code, Some(1));
}

// What the tables are made of.

struct Case {
    name: String,
    acts: Vec<Act>,
    line: String,
}

fn case(name: impl Into<String>, acts: impl Into<Vec<Act>>, line: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        acts: acts.into(),
        line: line.into(),
    }
}

/// What a server does with a connection. After the last act it closes.
#[derive(Clone)]
enum Act {
    /// Reads the request.
    Hear,
    Say(Vec<u8>),
    /// Sends each byte in a segment of its own, and pauses after it.
    Drip(Vec<u8>, Duration),
    /// Sends it again and again until the peer has gone.
    Flood(String),
    /// Waits until the peer has gone.
    Hold,
    Pause(Duration),
    /// Makes the end an abort.
    Reset,
}

/// Answers and, though it was asked not to, keeps the connection open.
fn says(answer: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Hear, say(answer), Hold]
}

/// Speaks before it was spoken to.
fn speaks(greeting: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![say(greeting), Hold]
}

fn say(bytes: impl Into<Vec<u8>>) -> Act {
    Say(bytes.into())
}

fn drip(text: &str, milliseconds: u64) -> Act {
    Drip(text.into(), Duration::from_millis(milliseconds))
}

fn pause(milliseconds: u64) -> Act {
    Pause(Duration::from_millis(milliseconds))
}

fn response(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The line about a peer that sent this.
fn foreign(start: &str) -> String {
    format!("unhealthy: {{peer}} does not speak HTTP/1: it sent \"{start}\"")
}

/// The line about a redirect.
fn redirected(redirect: &str) -> String {
    format!("unhealthy: {redirect}: not followed, point the probe there")
}

fn perform(acts: &[Act], mut stream: TcpStream) {
    // That the peer has gone is the end, not a failure.
    let _ = acts.iter().try_for_each(|act| act.perform(&mut stream));
}

impl Act {
    fn perform(&self, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Hear => drop(read_request(stream)),
            Say(bytes) => stream.write_all(bytes)?,
            Drip(bytes, pause) => {
                stream.set_nodelay(true)?;
                for byte in bytes {
                    stream.write_all(&[*byte])?;
                    thread::sleep(*pause);
                }
            }
            Flood(text) => loop {
                stream.write_all(text.as_bytes())?;
            },
            Hold => drop(io::copy(stream, &mut io::sink())),
            Pause(time) => thread::sleep(*time),
            Reset => SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?,
        }
        Ok(())
    }
}

/// Reads to the empty line, or to the end.
fn read_request(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("requests are ASCII")
}

// What judges them.

/// Well before the default deadline, though the machine be busy.
const AT_ONCE: Range<Duration> = Duration::ZERO..Duration::from_secs(2);

/// After `--timeout 500ms`.
const AT_THE_DEADLINE: Range<Duration> = Duration::from_millis(500)..Duration::from_secs(2);

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

const URL: &str = "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET";
const HOST: &str = "expected an IP address or localhost as host: names are not resolved";

fn at_once(cases: impl IntoIterator<Item = Case>) {
    check(cases, &[], &AT_ONCE);
}

fn at_the_deadline(cases: impl IntoIterator<Item = Case>) {
    check(cases, &["--timeout", "500ms"], &AT_THE_DEADLINE);
}

/// Runs all cases at the same time, and tells which of them fail.
fn check(cases: impl IntoIterator<Item = Case>, args: &[&str], pace: &Range<Duration>) {
    let failure = |Case { name, acts, line }: Case| {
        let address = serve(move |stream| perform(&acts, stream));
        let outcome = run(healthcheck([format!("http://{address}")]).args(args));
        let expected = line.replace("{peer}", &address.to_string());
        complaint(&outcome, &expected, pace).map(|complaint| format!("{name}:\n{complaint}"))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let start = |case| scope.spawn(move || failure(case));
        let running: Vec<_> = cases.into_iter().map(start).collect();
        let ended = running.into_iter().map(|case| case.join());
        ended
            .filter_map(|failure| failure.expect("a case does not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn ends_at_once(url: &str, expected: &str) {
    complain(&ask(url), expected, &AT_ONCE);
}

fn ends_at_the_deadline(url: &str, expected: &str) {
    let outcome = run(&mut healthcheck([url, "--timeout", "500ms"]));
    complain(&outcome, expected, &AT_THE_DEADLINE);
}

fn complain(outcome: &Outcome, expected: &str, pace: &Range<Duration>) {
    if let Some(complaint) = complaint(outcome, expected, pace) {
        panic!("\n{complaint}");
    }
}

/// What is wrong with what a probe told, or with when it did.
fn complaint(outcome: &Outcome, expected: &str, pace: &Range<Duration>) -> Option<String> {
    let (got, took) = (told(outcome), outcome.took);
    let wrong = got != expected || !pace.contains(&took);
    wrong.then(|| format!("  expected {expected}\n       got {got}\n     after {took:?}"))
}

/// Each argument, alone, is refused.
fn refuses(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let line = told(&run(&mut healthcheck([argument])));
        assert_eq!(
            line,
            format!("unhealthy: argument {argument:?}: {expected}")
        );
    }
}

/// The line of a probe that did what all of them promise, without the time in it; of any other,
/// all there is, which is what no test expects.
fn told(outcome: &Outcome) -> String {
    let line = match printed(outcome) {
        (Some(0), line, "") if line.starts_with("healthy: ") => line,
        (Some(1), "", line) if line.starts_with("unhealthy: ") => line,
        _ => return format!("{outcome:?}"),
    };
    match line.strip_suffix('\n') {
        Some(text) if line.len() <= 400 && !text.contains(char::is_control) => timeless(text),
        _ => format!("{outcome:?}"),
    }
}

fn printed(outcome: &Outcome) -> (Option<i32>, &str, &str) {
    (outcome.code, &outcome.stdout, &outcome.stderr)
}

/// Puts a `#` in the place of the number in `healthy: pass in 0.4 ms`.
fn timeless(line: &str) -> String {
    if line.starts_with("healthy: ")
        && let Some((before, after)) = line.split_once(" in ")
        && let Some((time, after)) = after.split_once(" ms")
        && let Some((whole, tenth)) = time.split_once('.')
        && tenth.len() == 1
        && [whole, tenth].concat().bytes().all(|b| b.is_ascii_digit())
    {
        return format!("{before} in # ms{after}");
    }
    line.to_owned()
}

// Programs.

const NOTHING: [&str; 0] = [];

/// `service healthcheck …`, without the variables that this process may have been given.
fn healthcheck<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    probe("service", args)
}

fn ask(argument: &str) -> Outcome {
    run(&mut healthcheck([argument]))
}

/// `worker healthcheck`, for tests in which nobody may have published anything.
fn worker() -> Command {
    probe("worker", NOTHING)
}

fn probe<I: IntoIterator<Item: AsRef<OsStr>>>(name: &str, args: I) -> Command {
    let mut probe = Command::new(example(name));
    probe.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    probe.arg("healthcheck").args(args);
    probe
}

/// `service healthcheck`, its streams as a shell says it.
fn shell(redirection: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    probe.arg(example("service")).arg("healthcheck");
    probe
}

fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Stops a process as soon as it waits for something, as `docker pause` might.
fn freeze(pid: u32) {
    await_state(pid, 'S');
    signal(pid, "STOP");
    await_state(pid, 'T');
}

fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]);
    assert!(works(&mut kill), "{kill:?}");
}

fn await_state(pid: u32, state: char) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        if after_name.starts_with(state) {
            return;
        }
        assert!(Instant::now() < deadline, "never in state {state}: {stat}");
        thread::yield_now();
    }
}

// Sockets.

/// What a probe asks for, with `PORT` in the place of the port. It is told that all is well.
fn overhear(probe: impl FnOnce(SocketAddr) -> Command) -> String {
    overhear_on(listener(), probe)
}

fn overhear_on(listener: Socket, probe: impl FnOnce(SocketAddr) -> Command) -> String {
    let (hears, heard) = mpsc::channel();
    let address = serve_on(listener.into(), move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        perform(&[say(OK), Hold], stream);
    });
    let mut probe = probe(address);
    assert_eq!(told(&run(&mut probe)), HEALTHY, "{probe:?}");
    let request = heard.recv_timeout(PATIENCE).expect("it was answered");
    request.replace(&format!(":{}", address.port()), ":PORT")
}

/// A server that tells when it has read the request, before it does anything else.
fn serve_asked(
    behaviour: impl FnOnce(TcpStream) + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let (hears, heard) = mpsc::channel();
    let address = serve(move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        behaviour(stream);
    });
    (address, heard)
}

/// A server on a Unix socket, for one connection; it tells the request.
fn serve_unix(
    socket: &Path,
    behaviour: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    let (hears, heard) = mpsc::channel();
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = hears.send(read_request(&mut stream));
            behaviour(&mut stream);
        }
    });
    heard
}

fn listener() -> Socket {
    let socket = closed();
    socket.listen(8).expect("a bound socket can listen");
    socket
}

/// A port where nobody listens, and nobody else can: it is taken.
fn closed() -> Socket {
    bound((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free")
}

/// The same port on both loopback addresses, closed; `None` without IPv6.
fn closed_pair() -> Option<(Socket, Socket)> {
    for _ in 0..100 {
        let v6 = bound((Ipv6Addr::LOCALHOST, 0).into()).ok()?;
        if let Ok(v4) = bound((Ipv4Addr::LOCALHOST, address_of(&v6).port()).into()) {
            return Some((v4, v6));
        }
    }
    panic!("no port is free on both loopback addresses");
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().expect("a bound socket has an address");
    address
        .as_socket()
        .expect("it is an address of the internet")
}

/// A listener whose queue of connections is full, and who stands in it.
fn full_backlog() -> (Socket, Vec<TcpStream>) {
    let listener = closed();
    listener.listen(0).expect("a bound socket can listen");
    let address = address_of(&listener);
    let enter = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let queue = iter::from_fn(enter).collect();
    (listener, queue)
}

/// A folder for sockets, whose paths must be short.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("probe-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
