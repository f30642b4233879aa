//! What can become of a probe, one scenario a line: a name, what the server does, and what the
//! probe prints.
//!
//! The verdict is the first word of the line: `healthy` exits 0, `unhealthy` 1. Where the design is
//! silent, the lines decide.

use std::iter;

use super::hostile::{
    Act::{Finish, Flood, Hear, Hold, Reply, Reset},
    HEALTHY, OK, REPORT, Stage, Table, WAITING, at_once, at_the_deadline, case, cases, drip,
    foreign, pause, redirected, response, say, says, speaks,
};

/// Hands the names of all tables to a macro, so that whoever uses them uses all.
macro_rules! for_each_table {
    ($macro:ident) => {
        $macro! {
            every_2xx_is_healthy,
            a_wrong_length_of_the_body_changes_nothing,
            a_page_instead_of_a_report_is_healthy_and_named,
            a_pass_is_named_and_a_warning_keeps_its_reason,
            a_complete_head_is_enough_whatever_the_body,
            sloppy_but_unambiguous_heads_are_healthy,
            a_slow_response_within_the_deadline_is_healthy,
            a_response_sent_before_the_request_is_healthy,
            a_server_that_half_closes_is_healthy,
            up_to_eight_interim_responses_are_skipped,
            an_unhealthy_report_gives_its_reason,
            any_other_unhealthy_body_gives_its_first_line,
            no_other_code_is_healthy,
            redirects_are_named_and_not_followed,
            control_characters_of_a_response_are_escaped,
            a_long_reason_is_cut_to_a_line_of_400_bytes,
            another_protocol_is_named_at_once,
            another_version_of_http_is_unhealthy_at_once,
            a_malformed_status_line_is_unhealthy_at_once,
            an_invalid_header_line_is_unhealthy_at_once,
            head_of_more_than_16_kib_is_unhealthy,
            a_connection_closed_before_the_head_is_complete_is_unhealthy,
            a_connection_reset_before_the_head_is_complete_is_unhealthy,
            a_connection_closed_on_accept_is_unhealthy,
            garbage_is_unhealthy_at_once,
            the_first_loopback_address_that_connects_is_used,
            a_connection_not_accepted_ends_at_the_deadline,
            silence_ends_at_the_deadline,
            the_deadline_is_one_for_the_whole_probe,
        }
    };
}

pub(crate) use for_each_table;

/// All tables, each with the promise that it is named after.
pub fn tables() -> Vec<(&'static str, Table)> {
    macro_rules! named {
        ($($table:ident,)+) => { vec![$((stringify!($table), $table())),+] };
    }
    for_each_table!(named)
}

// What is healthy.

pub fn every_2xx_is_healthy() -> Table {
    at_once(cases! {
        "200": says(OK) => HEALTHY,
        "204": says("HTTP/1.1 204 No Content\r\n\r\n") => "healthy: 204 in # ms",
        "201": says(response("201 Created", "")) => "healthy: 201 in # ms",
        "202": says(response("202 Accepted", "")) => "healthy: 202 in # ms",
        "203": says(response("203 Non-Authoritative Information", "ok"))
            => "healthy: 203 in # ms",
        "206": says(response("206 Partial Content", "o")) => "healthy: 206 in # ms",
        "299": says(response("299 Whatever", "")) => "healthy: 299 in # ms",
        "HTTP/1.0": [Hear, say("HTTP/1.0 200 OK\r\n\r\nok")] => HEALTHY,
        "chunked":
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            => HEALTHY,
        "chunked and with a length":
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n\
                  2\r\nok\r\n0\r\n\r\n")
            => HEALTHY,
        "a length beyond all integers":
            says("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok")
            => HEALTHY,
    })
}

pub fn a_wrong_length_of_the_body_changes_nothing() -> Table {
    let length = |fields: &str| [Hear, say(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"))];
    let chunks = |chunks: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [Hear, say([head, chunks].concat())]
    };
    at_once(cases! {
        "two lengths": length("Content-Length: 2\r\nContent-Length: 5") => HEALTHY,
        "one length twice": length("Content-Length: 2\r\nContent-Length: 2") => HEALTHY,
        "two lengths in one": length("Content-Length: 2, 5") => HEALTHY,
        "a negative length": length("Content-Length: -1") => HEALTHY,
        "a length with a sign": length("Content-Length: +2") => HEALTHY,
        "a hexadecimal length": length("Content-Length: 0x2") => HEALTHY,
        "a length in words": length("Content-Length: two") => HEALTHY,
        "an empty length": length("Content-Length:") => HEALTHY,
        "a length of 2^64": length("Content-Length: 18446744073709551616") => HEALTHY,
        "a length of 2^63 - 1": length("Content-Length: 9223372036854775807") => HEALTHY,
        "a length that is too small": length("Content-Length: 1") => HEALTHY,
        "204 with a body": [Hear, say(response("204 No Content", "ok"))]
            => "healthy: 204 in # ms",
        "no coding that is known": length("Transfer-Encoding: rot13") => HEALTHY,
        "chunked twice": length("Transfer-Encoding: chunked, chunked") => HEALTHY,
        "gzip that is none": length("Content-Encoding: gzip\r\nContent-Length: 2") => HEALTHY,
        "chunks without a size": chunks("\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks of no number": chunks("zz\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks of a negative size": chunks("-2\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks beyond all integers": chunks("fffffffffffffffff\r\nok\r\n") => HEALTHY,
        "a chunk that is too long": chunks("1\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "a chunk that is too short": chunks("9\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "no last chunk": chunks("2\r\nok\r\n") => HEALTHY,
        "no chunk at all": chunks("") => HEALTHY,
        "endless trailers": [
            Hear,
            say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"),
            Flood("A: b\r\n".repeat(1000)),
        ]
            => HEALTHY,
        "broken chunks of a 503": says(
            "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno database\r\n"
        )
            => "unhealthy: 503: no database",
    })
}

/// The code decides, and a body of any kind may come with it. But where a page is found in the
/// place of a report, another service may have taken the port: the line says so.
pub fn a_page_instead_of_a_report_is_healthy_and_named() -> Table {
    let typed = |code: &str, media_type: &str, body: &str| {
        let head = format!("HTTP/1.1 {code}\r\nContent-Type: {media_type}\r\n");
        says(format!(
            "{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let page = "<!DOCTYPE html><title>Welcome to nginx!</title>";
    let named = "healthy: 200 in # ms: an HTML page, not a health report";
    at_once(cases! {
        "HTML": typed("200 OK", "text/html", page) => named,
        "HTML in UTF-8": typed("200 OK", "Text/HTML; charset=utf-8", page) => named,
        "HTML without a body": typed("200 OK", "text/html", "") => named,
        "HTML with another code": typed("203 X", "text/html", page)
            => "healthy: 203 in # ms: an HTML page, not a health report",
        "HTML that does not say so": says(response("200 OK", page)) => HEALTHY,
        "a report that is said to be HTML": typed("200 OK", "text/html", r#"{"status":"pass"}"#)
            => "healthy: pass in # ms",
        "a report": typed("200 OK", "application/health+json", r#"{"status":"pass"}"#)
            => "healthy: pass in # ms",
        "text": typed("200 OK", "text/plain", "ok") => HEALTHY,
        "JSON of another kind": typed("200 OK", "application/json", r#"{"ok":true}"#) => HEALTHY,
        "a picture": typed("200 OK", "image/gif", "GIF89a") => HEALTHY,
        "HTML that is unwell": typed("503 X", "text/html", page)
            => "unhealthy: 503: <!DOCTYPE html><title>Welcome to nginx!</title>",
    })
}

pub fn a_pass_is_named_and_a_warning_keeps_its_reason() -> Table {
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
    })
}

pub fn a_complete_head_is_enough_whatever_the_body() -> Table {
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
    })
}

pub fn sloppy_but_unambiguous_heads_are_healthy() -> Table {
    let headers: String = (0..101)
        .map(|n| format!("X-{n}: {}\r\n", "v".repeat(70)))
        .collect();
    assert!((7 * 1024..8 * 1024).contains(&headers.len()));
    let with = |fields: &[u8]| {
        let head = [b"HTTP/1.1 200 OK\r\n", fields, b"Content-Length: 0\r\n\r\n"];
        says(head.concat())
    };
    at_once(cases! {
        "no reason": says("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "no reason, but its space": says("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "a reason in Latin-1": says(b"HTTP/1.1 200 \xe7a va\r\nContent-Length: 0\r\n\r\n")
            => HEALTHY,
        "no header": says("HTTP/1.1 200 OK\r\n\r\n") => HEALTHY,
        "no header, and the end": [Hear, say("HTTP/1.1 200 OK\r\n\r\n")] => HEALTHY,
        "101 headers": with(headers.as_bytes()) => HEALTHY,
        "a header without value": with(b"A:\r\n") => HEALTHY,
        "a header of any bytes": with(b"A: \xff\0\x1b\r\n") => HEALTHY,
        "a header with a space before its colon": with(b"A : b\r\n") => HEALTHY,
        "a folded header": with(b"A: b\r\n c\r\n\td\r\n") => HEALTHY,
        "a folded line without a header": with(b" a\r\n") => HEALTHY,
        "bare line feeds": says("HTTP/1.1 200 OK\nContent-Length: 2\n\nok") => HEALTHY,
        "HTTP/1.9": says("HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "a byte a segment": [Hear, drip(OK, 2), Hold] => HEALTHY,
        "a code again in a header": with(b"Status: 503 X\r\n") => HEALTHY,
    })
}

pub fn a_slow_response_within_the_deadline_is_healthy() -> Table {
    at_once(cases! {
        "late": [Hear, pause(300), say(OK), Hold] => HEALTHY,
        "in two parts": [Hear, say(&OK[..11]), pause(300), say(&OK[11..]), Hold] => HEALTHY,
    })
}

pub fn a_response_sent_before_the_request_is_healthy() -> Table {
    at_once(cases! {
        "and the request is read then": [say(OK), Hear, Hold] => HEALTHY,
        "and the connection is closed over it": [say(OK)] => HEALTHY,
        "and it is an unhealthy one": [say(response("503 X", REPORT))] => WAITING,
    })
}

pub fn a_server_that_half_closes_is_healthy() -> Table {
    let no_answer = "unhealthy: {peer} closed the connection without a response";
    let middle = "unhealthy: {peer} closed the connection in the middle of a response";
    at_once(cases! {
        "after its answer": [Hear, say(OK), Finish, Hold] => HEALTHY,
        "after its answer, unheard": [say(OK), Finish, Hold] => HEALTHY,
        "after a report": [Hear, say(response("503 X", REPORT)), Finish, Hold] => WAITING,
        "in its answer": [Hear, say("HTTP/1.1 20"), Finish, Hold] => middle,
        "before its answer": [Hear, Finish, Hold] => no_answer,
        "before the request": [Finish, Hold] => no_answer,
    })
}

pub fn up_to_eight_interim_responses_are_skipped() -> Table {
    let interim = |count| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let one_by_one = iter::repeat_n(say(interim(1)), 8);
    let one_by_one = iter::once(Hear).chain(one_by_one).chain([say(OK), Hold]);
    let long = format!("HTTP/1.1 103 X\r\nX: {}\r\n\r\n", "x".repeat(15_000)).repeat(8);
    let too_many = "unhealthy: {peer} sent more than 8 interim (1xx) responses";
    at_once(cases! {
        "one": says(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")) => HEALTHY,
        "eight": says(interim(8) + OK) => HEALTHY,
        "eight, each by itself": one_by_one.collect::<Vec<_>>() => HEALTHY,
        "eight, each nearly as long as can be": says(long + OK) => HEALTHY,
        "nine": says(interim(9) + OK) => too_many,
        "any number": [Hear, Flood(interim(100))] => too_many,
        "one before a 503": says(interim(1) + "HTTP/1.1 503 X\r\n\r\n" + REPORT) => WAITING,
    })
}

// What is not.

pub fn an_unhealthy_report_gives_its_reason() -> Table {
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
    })
}

pub fn any_other_unhealthy_body_gives_its_first_line() -> Table {
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
    })
}

pub fn no_other_code_is_healthy() -> Table {
    let codes = [
        300, 304, 400, 401, 403, 404, 405, 408, 418, 429, 500, 501, 502, 503, 504, 599, 600, 999,
    ];
    at_once(codes.map(|code| {
        let answer = response(&format!("{code} Whatever"), "");
        case(code.to_string(), says(answer), format!("unhealthy: {code}"))
    }))
}

pub fn redirects_are_named_and_not_followed() -> Table {
    let to = |code, place| {
        let head = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n");
        says(format!("{head}location: {place}\r\n\r\n"))
    };
    // What most services do with strangers: the page that asks them in is a 200.
    let login = |request: &str| {
        if request.contains("/login") {
            response("200 OK", "<h1>Please log in</h1>")
        } else {
            let head = "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n";
            format!("{head}Connection: close\r\n\r\n").into()
        }
    };
    at_once(cases! {
        "to https": to(301, "https://127.0.0.1:1/health")
            => redirected("301 redirect to https://127.0.0.1:1/health"),
        "to another host": to(302, "http://127.0.0.2:1/health")
            => redirected("302 redirect to http://127.0.0.2:1/health"),
        "to a login that is a 200": [Reply(login)] => redirected("302 redirect to /login"),
        "to a file": to(302, "file:///etc/hostname")
            => redirected("302 redirect to file:///etc/hostname"),
        "without a length": says("HTTP/1.1 301 X\r\nLocation: /health/\r\n\r\n")
            => redirected("301 redirect to /health/"),
        "to itself": to(302, "/health") => redirected("302 redirect to /health"),
        "to a login": to(307, " /login?next=/ ") => redirected("307 redirect to /login?"),
        "to nowhere": to(308, "") => "unhealthy: 308",
        "a place to be without a redirect":
            says("HTTP/1.1 503 X\r\nLocation: /elsewhere\r\n\r\nsorry")
            => "unhealthy: 503: sorry",
    })
}

pub fn control_characters_of_a_response_are_escaped() -> Table {
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
            => r"healthy: 200 pa\u001b in # ms: a\nb",
        "a location": says(b"HTTP/1.1 302 X\r\nLocation: /\x1b[2J\xff\r\n\r\n")
            => redirected("302 redirect to /\\u{1b}[2J\u{fffd}"),
        "a banner": says(b"\x1b[31mlogin:\xff") => foreign("\\u{1b}[31mlogin:\u{fffd}"),
        "a reason phrase": says(b"HTTP/1.1 503 \x1b[2J\xff\0\r\n\r\n") => "unhealthy: 503",
    })
}

pub fn a_long_reason_is_cut_to_a_line_of_400_bytes() -> Table {
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
    })
}

pub fn another_protocol_is_named_at_once() -> Table {
    let tls = "unhealthy: {peer} speaks TLS: use https";
    let http2 = "unhealthy: {peer} speaks HTTP/2 only: probe an HTTP/1 port";
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
        "an echo, and the end": [Hear, say("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")]
            => foreign(r"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        "the preface of HTTP/2": speaks("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            => foreign(r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "HTTP/2 settings, and the end": [say(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80"), Hear]
            => http2,
        "SSH, and the end": [say("SSH-2.0-OpenSSH_9.2p1\r\n"), Hear]
            => foreign(r"SSH-2.0-OpenSSH_9.2p1\r\n"),
        "FTP": speaks("220 (vsFTPd 3.0.3)\r\n") => foreign(r"220 (vsFTPd 3.0.3)\r\n"),
        "Redis, and the end": [Hear, say("-ERR unknown command\r\n")]
            => foreign(r"-ERR unknown command\r\n"),
        "memcached": says("ERROR\r\n") => foreign(r"ERROR\r\n"),
        "PostgreSQL": [Hear, say(b"E\0\0\0\x0bSFATAL\0\0")]
            => foreign(r"E\u{0}\u{0}\u{0}\u{b}SFATAL\u{0}\u{0}"),
        "a web page alone": [Hear, say("<!DOCTYPE html><h1>It works!</h1>\n")]
            => foreign(r"<!DOCTYPE html><h1>It works!</h1>\n"),
        "a word": [Hear, say("OK\n")] => foreign(r"OK\n"),
        "JSON alone": [Hear, say("{\"status\":\"pass\"}")] => foreign(r#"{"status":"pass"}"#),
        "empty lines first": says(format!("\r\n\r\n{OK}"))
            => foreign(r"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        "a mark of byte order first": says(format!("\u{feff}{OK}"))
            => foreign(r"\u{feff}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    })
}

pub fn another_version_of_http_is_unhealthy_at_once() -> Table {
    let starts = [
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/3.7 200 OK",
        "HTTP/11 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP 200 OK",
        "HTTP/1,1 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
    ];
    at_once(starts.map(|start| {
        let answer = says(format!("{start}\r\nContent-Length: 0\r\n\r\n"));
        let told = format!(r"{start}\r\nContent-Length: 0\r\n\r\n");
        case(start, answer, foreign(&told))
    }))
}

pub fn a_malformed_status_line_is_unhealthy_at_once() -> Table {
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
        "HTTP/1.1 200.5 OK",
        "HTTP/1.1 20\u{665} OK",
        "HTTP/1.1 OK 200",
        "HTTP/1.1 200,OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/1.x 200 OK",
        "HTTP/1. 200 OK",
    ];
    at_once(lines.map(|line| {
        let answer = says(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        case(line, answer, foreign(&line.replace('\t', r"\t")))
    }))
}

pub fn an_invalid_header_line_is_unhealthy_at_once() -> Table {
    let after = |start| says(format!("{start}no colon here\r\n"));
    let within = |line| {
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok");
        case(
            format!("{line:?} in an answer"),
            says(answer),
            foreign(line),
        )
    };
    let cases = cases! {
        "first": after("HTTP/1.1 200 OK\r\n") => foreign("no colon here"),
        "later": after("HTTP/1.1 200 OK\r\nA: b\r\n") => foreign("no colon here"),
        "without a name": says("HTTP/1.1 200 OK\r\n: value\r\n") => foreign(": value"),
        "a body": says("HTTP/1.1 200 OK\r\n[\"a body\"]\r\n") => foreign(r#"["a body"]"#),
    };
    at_once(
        cases
            .into_iter()
            .chain(["no colon here", ": value"].map(within)),
    )
}

pub fn head_of_more_than_16_kib_is_unhealthy() -> Table {
    let too_long = "unhealthy: {peer} sent a response head of more than 16 KiB";
    let head = |length| {
        let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let filler = length - start.len() - 4;
        format!("{start}{}\r\n\r\n", "x".repeat(filler))
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
        "10,000 headers": says(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
            "A: b\r\n".repeat(10_000)
        ))
            => too_long,
        "1 MB of folded lines": says(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n{}\r\n",
            " c\r\n".repeat(250_000)
        ))
            => too_long,
        "a reason of 16 KiB": says(format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(16384)))
            => too_long,
        "a status line of 1 MB": says(format!("HTTP/1.1 200 {}", "x".repeat(1 << 20))) => too_long,
        "endless headers": [Hear, say("HTTP/1.1 200 OK\r\n"), Flood("A: b\r\n".repeat(1000))]
            => too_long,
        "an endless header": [Hear, say("HTTP/1.1 200 OK\r\nA: "), Flood("x".repeat(65536))]
            => too_long,
    })
}

pub fn a_connection_closed_before_the_head_is_complete_is_unhealthy() -> Table {
    let no_answer = "unhealthy: {peer} closed the connection without a response";
    let middle = "unhealthy: {peer} closed the connection in the middle of a response";
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
    })
}

pub fn a_connection_reset_before_the_head_is_complete_is_unhealthy() -> Table {
    let reset = "unhealthy: receive from {peer}: connection reset by peer";
    at_once(cases! {
        "after the request": [Hear, Reset] => reset,
        "in the version": [Hear, say("HTT"), Reset] => reset,
        "after the status line": [Hear, say("HTTP/1.1 200 OK\r\n"), Reset] => reset,
        "after a header": [Hear, say("HTTP/1.1 200 OK\r\nA: b\r\n"), Reset] => reset,
        "after the head": [Hear, say("HTTP/1.1 200 OK\r\n\r\n"), Reset] => HEALTHY,
    })
}

pub fn a_connection_closed_on_accept_is_unhealthy() -> Table {
    // Whether the request has arrived by then is up to the scheduler.
    let either = "unhealthy: {peer} closed the connection without a response\n\
                  unhealthy: receive from {peer}: connection reset by peer";
    at_once(cases! {
        "closed": [] => either,
        "reset": [Reset] => either,
    })
}

pub fn garbage_is_unhealthy_at_once() -> Table {
    // As random as it needs to be, and the same each time.
    let next = |n: &u32| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let noise = iter::successors(Some(0x2545_f491), next).map(|n| n.to_be_bytes()[0]);
    let noise: Vec<u8> = noise.take(1 << 16).collect();
    let garbage = "unhealthy: {peer} does not speak HTTP/1: it sent \"…";
    at_once(cases! {
        "64 KB of noise": speaks(noise) => garbage,
        "4 KB of NUL": speaks(vec![0; 4096]) => garbage,
    })
}

pub fn the_first_loopback_address_that_connects_is_used() -> Table {
    let server = |answer: &str| Some(says(answer));
    let unwell = "HTTP/1.1 503 X\r\n\r\n";
    let only = Stage::Localhost;
    at_once(cases! {
        "nobody listens": Stage::Closed => "unhealthy: connect to {peer}: connection refused",
        "nobody listens on localhost": only(None, None)
            => "unhealthy: connect to {peer}: connection refused",
        "localhost on IPv4 only": only(server(OK), None) => HEALTHY,
        "localhost on IPv6 only": only(None, server(OK)) => HEALTHY,
        "localhost on IPv6 only, and unwell": only(None, server(unwell)) => "unhealthy: 503",
        "unwell on IPv4, well on IPv6": only(server(unwell), server(OK)) => "unhealthy: 503",
        "well on IPv4, unwell on IPv6": only(server(OK), server(unwell)) => HEALTHY,
    })
}

// What does not come.

pub fn a_connection_not_accepted_ends_at_the_deadline() -> Table {
    at_the_deadline(cases! {
        "a listener that never accepts": Stage::Deaf
            => "unhealthy: {peer} sent no response within {timeout}",
        "a full backlog": Stage::Full
            => "unhealthy: connect to {peer}: timed out after {timeout}",
    })
}

pub fn silence_ends_at_the_deadline() -> Table {
    let nothing = "unhealthy: {peer} sent no response within {timeout}";
    let incomplete = "unhealthy: {peer} sent an incomplete response within {timeout}";
    at_the_deadline(cases! {
        "accepts and does not read": [Hold] => nothing,
        "reads and does not answer": [Hear, Hold] => nothing,
        "answers too late": [Hear, pause(5000), say(OK)] => nothing,
        "a byte": says("H") => incomplete,
        "half a status": says("HTTP/1.1 20") => incomplete,
        "a status line without its end": says("HTTP/1.1 200 OK") => incomplete,
        "a status line": says("HTTP/1.1 200 OK\r\n") => incomplete,
        "a header": says("HTTP/1.1 200 OK\r\nServer: x\r\n") => incomplete,
        "all but the last byte": says("HTTP/1.1 200 OK\r\n\r") => incomplete,
        "an interim answer": says("HTTP/1.1 100 Continue\r\n\r\n") => incomplete,
        "another protocol from here": says("HTTP/1.1 101 Switching Protocols\r\n\r\n")
            => incomplete,
    })
}

pub fn the_deadline_is_one_for_the_whole_probe() -> Table {
    let incomplete = "unhealthy: {peer} sent an incomplete response within {timeout}";
    let interim = [say("HTTP/1.1 102 Processing\r\n\r\n"), pause(900)];
    let interim = iter::repeat_n(interim, 8).flatten();
    let headers = iter::repeat_n([say("A: b\r\n"), pause(400)], 50).flatten();
    let headers = iter::once(say("HTTP/1.1 200 OK\r\n")).chain(headers);
    at_the_deadline(cases! {
        "a byte at a time": [Hear, drip("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 300)] => incomplete,
        "a byte a second": [Hear, drip(OK, 1000)] => incomplete,
        "a header at a time": iter::once(Hear).chain(headers).collect::<Vec<_>>() => incomplete,
        "an interim answer at a time": iter::once(Hear).chain(interim).collect::<Vec<_>>()
            => incomplete,
    })
}
