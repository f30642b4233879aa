//! The scenarios for the probe. Each entry of a table is one scenario: a name, the server's
//! behaviour, and the line that the probe prints.
//!
//! The first word of the line determines the exit code: 0 for `healthy`, 1 for `unhealthy`.

use std::iter;

use super::hostile::{
    Act::{Flood, HalfClose, Hold, Receive, Reply, Reset},
    HEALTHY, OK, REPORT, Stage, Table, WAITING, at_once, at_the_deadline, case, cases, drip,
    foreign, greets, pause, redirected, responds, response, send,
};

/// The line for a connection that is lost before the response begins.
const NO_RESPONSE: &str = "unhealthy: connection closed without a response: \
                           if the port expects the PROXY protocol, probe another one";

/// Passes the names of all tables to a macro. A new table is added only here, because all tests
/// that use the tables get the names from this list.
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

/// Returns all tables. The name of a table is the promise that the probe keeps.
pub fn tables() -> Vec<(&'static str, Table)> {
    macro_rules! named {
        ($($table:ident,)+) => { vec![$((stringify!($table), $table())),+] };
    }
    for_each_table!(named)
}

pub fn every_2xx_is_healthy() -> Table {
    at_once(cases! {
        "200": responds(OK) => HEALTHY,
        "204": responds("HTTP/1.1 204 No Content\r\n\r\n") => "healthy: 204 in # ms",
        "201": responds(response("201 Created", "")) => "healthy: 201 in # ms",
        "202": responds(response("202 Accepted", "")) => "healthy: 202 in # ms",
        "203": responds(response("203 Non-Authoritative Information", "ok"))
            => "healthy: 203 in # ms",
        "206": responds(response("206 Partial Content", "o")) => "healthy: 206 in # ms",
        "299": responds(response("299 Whatever", "")) => "healthy: 299 in # ms",
        "HTTP/1.0": [Receive, send("HTTP/1.0 200 OK\r\n\r\nok")] => HEALTHY,
        "chunked":
            responds("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            => HEALTHY,
        "chunked and with a length":
            responds("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n\
                  2\r\nok\r\n0\r\n\r\n")
            => HEALTHY,
        "a length beyond all integers":
            responds("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok")
            => HEALTHY,
    })
}

pub fn a_wrong_length_of_the_body_changes_nothing() -> Table {
    let length = |fields: &str| {
        [
            Receive,
            send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok")),
        ]
    };
    let chunks = |chunks: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [Receive, send([head, chunks].concat())]
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
        "204 with a body": [Receive, send(response("204 No Content", "ok"))]
            => "healthy: 204 in # ms",
        "an unknown coding": length("Transfer-Encoding: rot13") => HEALTHY,
        "chunked twice": length("Transfer-Encoding: chunked, chunked") => HEALTHY,
        "gzip that is not gzip": length("Content-Encoding: gzip\r\nContent-Length: 2") => HEALTHY,
        "chunks without a size": chunks("\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks with a size that is no number": chunks("zz\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks of a negative size": chunks("-2\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "chunks beyond all integers": chunks("fffffffffffffffff\r\nok\r\n") => HEALTHY,
        "a chunk that is too long": chunks("1\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "a chunk that is too short": chunks("9\r\nok\r\n0\r\n\r\n") => HEALTHY,
        "no last chunk": chunks("2\r\nok\r\n") => HEALTHY,
        "no chunk at all": chunks("") => HEALTHY,
        "endless trailers": [
            Receive,
            send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"),
            Flood("A: b\r\n".repeat(1000)),
        ]
            => HEALTHY,
        "broken chunks of a 503": responds(
            "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno database\r\n"
        )
            => "unhealthy: 503: {cause}: no database",
    })
}

/// The status code alone decides whether a service is healthy. But an HTML page instead of a report
/// suggests that another server has responded, so the line mentions the page.
pub fn a_page_instead_of_a_report_is_healthy_and_named() -> Table {
    let typed = |code: &str, media_type: &str, body: &str| {
        let head = format!("HTTP/1.1 {code}\r\nContent-Type: {media_type}\r\n");
        responds(format!(
            "{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let page = "<!DOCTYPE html><title>Welcome to nginx!</title>";
    let named = "healthy: 200 in # ms: an HTML page, not a health report: a catch-all route or another server responded";
    at_once(cases! {
        "HTML": typed("200 OK", "text/html", page) => named,
        "HTML in UTF-8": typed("200 OK", "Text/HTML; charset=utf-8", page) => named,
        "HTML without a body": typed("200 OK", "text/html", "") => named,
        "HTML with another code": typed("203 X", "text/html", page)
            => "healthy: 203 in # ms: an HTML page, not a health report: a catch-all route or another server responded",
        "HTML without a media type": responds(response("200 OK", page)) => HEALTHY,
        "a report labelled as HTML": typed("200 OK", "text/html", r#"{"status":"pass"}"#)
            => "healthy: pass in # ms",
        "a report": typed("200 OK", "application/health+json", r#"{"status":"pass"}"#)
            => "healthy: pass in # ms",
        "text": typed("200 OK", "text/plain", "ok") => HEALTHY,
        "other JSON": typed("200 OK", "application/json", r#"{"ok":true}"#) => HEALTHY,
        "a picture": typed("200 OK", "image/gif", "GIF89a") => HEALTHY,
        "HTML with a 503": typed("503 X", "text/html", page)
            => "unhealthy: 503: {cause}: <!DOCTYPE html><title>Welcome to nginx!</title>",
    })
}

pub fn a_pass_is_named_and_a_warning_keeps_its_reason() -> Table {
    let ok = |body| responds(response("200 OK", body));
    at_once(cases! {
        "pass": ok(r#"{"status":"pass"}"#) => "healthy: pass in # ms",
        "warn": ok(r#"{"status":"warn","output":"failing: greeting"}"#)
            => "healthy: warn in # ms: failing: greeting",
        "chunked":
            responds("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  11\r\n{\"status\":\"pass\"}\r\n0\r\n\r\n")
            => "healthy: pass in # ms",
        "in another order, with spaces, and with the same words elsewhere": ok(
            r#" { "name" : "status", "checks" : [ { "status" : "fail", "output" : "no" } ],
                "output" : "b \"c\" \\", "status" : "warn" } "#
        )
            => r#"healthy: warn in # ms: b \"c\" \\"#,
        "cut off in the reason": ok(r#"{"status":"warn","output":"failing: gre"#)
            => "healthy: warn in # ms",
        "a status that is a number": ok(r#"{"status":200,"output":"x"}"#)
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
        "no body": responds(head) => HEALTHY,
        "a body that stalls": responds(format!("{head}0123456789")) => HEALTHY,
        "a body that is cut off": [Receive, send(format!("{head}0123456789"))] => HEALTHY,
        "a body that is aborted": [Receive, send(format!("{head}0123456789")), Reset] => HEALTHY,
        "10 MB": [Receive, send(head), send("x".repeat(10_000_000)), Hold] => HEALTHY,
        "an endless body": [Receive, send(endless), Flood("x".repeat(65536))] => HEALTHY,
        "a byte a second": [Receive, send(endless), drip("data: hello", 1000)] => HEALTHY,
        "a report that is cut off": [Receive, send(format!("{head}{{\"status\":\"pass\",\"out"))]
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
        responds(head.concat())
    };
    at_once(cases! {
        "no reason": responds("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "no reason, but its space": responds("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "a reason in Latin-1": responds(b"HTTP/1.1 200 \xe7a va\r\nContent-Length: 0\r\n\r\n")
            => HEALTHY,
        "no header": responds("HTTP/1.1 200 OK\r\n\r\n") => HEALTHY,
        "no header, and the end": [Receive, send("HTTP/1.1 200 OK\r\n\r\n")] => HEALTHY,
        "101 headers": with(headers.as_bytes()) => HEALTHY,
        "a header without value": with(b"A:\r\n") => HEALTHY,
        "a header of any bytes": with(b"A: \xff\0\x1b\r\n") => HEALTHY,
        "a header with a space before its colon": with(b"A : b\r\n") => HEALTHY,
        "a folded header": with(b"A: b\r\n c\r\n\td\r\n") => HEALTHY,
        "a folded line without a header": with(b" a\r\n") => HEALTHY,
        "bare line feeds": responds("HTTP/1.1 200 OK\nContent-Length: 2\n\nok") => HEALTHY,
        "HTTP/1.9": responds("HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n") => HEALTHY,
        "a byte a segment": [Receive, drip(OK, 2), Hold] => HEALTHY,
        "a code again in a header": with(b"Status: 503 X\r\n") => HEALTHY,
    })
}

pub fn a_slow_response_within_the_deadline_is_healthy() -> Table {
    at_once(cases! {
        "late": [Receive, pause(300), send(OK), Hold] => HEALTHY,
        "in two parts": [Receive, send(&OK[..11]), pause(300), send(&OK[11..]), Hold] => HEALTHY,
    })
}

pub fn a_response_sent_before_the_request_is_healthy() -> Table {
    at_once(cases! {
        "before reading the request": [send(OK), Receive, Hold] => HEALTHY,
        "and the connection is closed": [send(OK)] => HEALTHY,
        "and it is unhealthy": [send(response("503 X", REPORT))] => WAITING,
    })
}

pub fn a_server_that_half_closes_is_healthy() -> Table {
    let middle = "unhealthy: connection closed in the middle of a response";
    at_once(cases! {
        "after the response": [Receive, send(OK), HalfClose, Hold] => HEALTHY,
        "after the response, without reading": [send(OK), HalfClose, Hold] => HEALTHY,
        "after a report": [Receive, send(response("503 X", REPORT)), HalfClose, Hold] => WAITING,
        "in the response": [Receive, send("HTTP/1.1 20"), HalfClose, Hold] => middle,
        "before the response": [Receive, HalfClose, Hold] => NO_RESPONSE,
        "before the request": [HalfClose, Hold] => NO_RESPONSE,
    })
}

pub fn up_to_eight_interim_responses_are_skipped() -> Table {
    let interim = |count| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let one_by_one = iter::repeat_n(send(interim(1)), 8);
    let one_by_one = iter::once(Receive)
        .chain(one_by_one)
        .chain([send(OK), Hold]);
    let long = format!("HTTP/1.1 103 X\r\nX: {}\r\n\r\n", "x".repeat(15_000)).repeat(8);
    let too_many = "unhealthy: more than 8 interim (1xx) responses";
    at_once(cases! {
        "one": responds(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")) => HEALTHY,
        "eight": responds(interim(8) + OK) => HEALTHY,
        "eight, one at a time": one_by_one.collect::<Vec<_>>() => HEALTHY,
        "eight, each near the size limit": responds(long + OK) => HEALTHY,
        "nine": responds(interim(9) + OK) => too_many,
        "an endless number": [Receive, Flood(interim(100))] => too_many,
        "one before a 503": responds(interim(1) + "HTTP/1.1 503 X\r\n\r\n" + REPORT) => WAITING,
    })
}

pub fn an_unhealthy_report_gives_its_reason() -> Table {
    let unavailable = |body: &str| responds(response("503 Service Unavailable", body));
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
            responds(format!(
                "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {length:x}\r\n{REPORT}\r\n0\r\n\r\n"
            ))
            => WAITING,
        "after 4 KB of headers": responds(format!("HTTP/1.1 503 X\r\n{headers}\r\n{REPORT}"))
            => WAITING,
        "after 3 KB of checks": unavailable(&checks) => WAITING,
        "cut off after the reason": [Receive, send(response("503 X", most))] => WAITING,
        "cut off before the reason": [Receive, send(response("503 X", half))] => "unhealthy: 503 fail",
        "without a reason": unavailable(r#"{"status":"fail"}"#) => "unhealthy: 503 fail",
        "with another code": responds(response("500 Oops", REPORT))
            => "unhealthy: 500 fail: starting: waiting for postgres",
        "with a status that passes": unavailable(r#"{"status":"pass"}"#) => "unhealthy: 503 pass",
    })
}

pub fn any_other_unhealthy_body_gives_its_first_line() -> Table {
    let unavailable = |body| responds(response("503 Service Unavailable", body));
    let later = "HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\n";
    at_once(cases! {
        "no body": responds("HTTP/1.1 503 Service Unavailable\r\n\r\n") => "unhealthy: 503: {cause}",
        "text": unavailable("boom\n") => "unhealthy: 503: {cause}: boom",
        "lines": unavailable("\r\n \r\n  no database\r\nno cache\r\n")
            => "unhealthy: 503: {cause}: no database",
        "HTML": unavailable("<h1>Bad Gateway</h1>\n<hr>nginx")
            => "unhealthy: 503: {cause}: <h1>Bad Gateway</h1>",
        "JSON that is not a report": unavailable(r#"{"error":"no database"}"#)
            => r#"unhealthy: 503: {cause}: {"error":"no database"}"#,
        "text beyond ASCII": unavailable("Größe unbekannt: 世界")
            => "unhealthy: 503: {cause}: Größe unbekannt: 世界",
        "a body that comes later": [Receive, send(later), pause(5000), send("late")]
            => "unhealthy: 503: {cause}",
    })
}

pub fn no_other_code_is_healthy() -> Table {
    let cause = |code| {
        Some(match code {
            401 | 403 => "authentication applies to the routes, merge them after its layer",
            404 => "the routes are not merged, or nested without nested_under",
            405 => "another handler has this path",
            408 | 500..=599 => "{cause}",
            429 => "a rate limit applies to the routes, merge them after its layer",
            _ => return None,
        })
    };
    let codes = [
        300, 304, 400, 401, 403, 404, 405, 408, 418, 429, 500, 501, 502, 503, 504, 599, 600, 999,
    ];
    at_once(codes.map(|code| {
        let response = response(&format!("{code} Whatever"), "");
        case(
            code.to_string(),
            responds(response),
            match cause(code) {
                Some(cause) => format!("unhealthy: {code}: {cause}"),
                None => format!("unhealthy: {code}"),
            },
        )
    }))
}

pub fn redirects_are_named_and_not_followed() -> Table {
    let to = |code, place| {
        let head = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n");
        responds(format!("{head}location: {place}\r\n\r\n"))
    };
    // Many services redirect unauthenticated clients to a login page, whose status code is 200.
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
        "to a login page that is a 200": [Reply(login)] => redirected("302 redirect to /login"),
        "to a file": to(302, "file:///etc/hostname")
            => redirected("302 redirect to file:///etc/hostname"),
        "without a length": responds("HTTP/1.1 301 X\r\nLocation: /health/\r\n\r\n")
            => redirected("301 redirect to /health/"),
        "to itself": to(302, "/health") => redirected("302 redirect to /health"),
        "to a login": to(307, " /login?next=/ ") => redirected("307 redirect to /login?"),
        "to nowhere": to(308, "") => "unhealthy: 308",
        "a location without a redirect":
            responds("HTTP/1.1 503 X\r\nLocation: /elsewhere\r\n\r\nsorry")
            => "unhealthy: 503: {cause}: sorry",
    })
}

pub fn control_characters_of_a_response_are_escaped() -> Table {
    let unavailable = |body: &[u8]| responds(response("503 X", body));
    at_once(cases! {
        "terminal sequences": unavailable(b"\x1b[2J\x1b]0;title\x07red\x7f")
            => r"unhealthy: 503: {cause}: \u{1b}[2J\u{1b}]0;title\u{7}red\u{7f}",
        "NUL, tab and return": unavailable(b"a\0b\tc\rd") => r"unhealthy: 503: {cause}: a\u{0}b\tc\rd",
        "invalid UTF-8": unavailable(b"caf\xe9 \xff\xfe")
            => "unhealthy: 503: {cause}: caf\u{fffd} \u{fffd}\u{fffd}",
        "bidirectional overrides": unavailable("\u{202e}yhtlaeh\u{202c}\u{2066}".as_bytes())
            => r"unhealthy: 503: {cause}: \u{202e}yhtlaeh\u{202c}\u{2066}",
        "controls beyond ASCII": unavailable("\u{9b}2J\u{85}x".as_bytes())
            => r"unhealthy: 503: {cause}: \u{9b}2J\u{85}x",
        "line separators": unavailable("a\u{2028}healthy: pass\u{2029}".as_bytes())
            => r"unhealthy: 503: {cause}: a\u{2028}healthy: pass\u{2029}",
        "invisible characters": unavailable("\u{feff}a\u{200b}b\u{ad}c\u{a0}d\u{301}".as_bytes())
            => r"unhealthy: 503: {cause}: \u{feff}a\u{200b}b\u{ad}c\u{a0}d\u{301}",
        "a reason": unavailable(br#"{"status":"fail","output":"a\nhealthy: pass\u001b[2J\u0000"}"#)
            => r"unhealthy: 503 fail: a\nhealthy: pass\u001b[2J\u0000",
        "a reason with bytes that JSON forbids":
            unavailable(b"{\"status\":\"fail\",\"output\":\"a\nb\x1b[2J\\\"c\"}")
            => r#"unhealthy: 503 fail: a\nb\u{1b}[2J\"c"#,
        "a status": unavailable(br#"{"status":"fa\r\nil"}"#) => r"unhealthy: 503 fa\r\nil",
        "a healthy report": responds(response("200 OK", r#"{"status":"pa\u001b","output":"a\nb"}"#))
            => r"healthy: 200 pa\u001b in # ms: a\nb",
        "a location": responds(b"HTTP/1.1 302 X\r\nLocation: /\x1b[2J\xff\r\n\r\n")
            => redirected("302 redirect to /\\u{1b}[2J\u{fffd}"),
        "a banner": responds(b"\x1b[31mlogin:\xff") => foreign("\\u{1b}[31mlogin:\u{fffd}"),
        "a reason phrase": responds(b"HTTP/1.1 503 \x1b[2J\xff\0\r\n\r\n") => "unhealthy: 503: {cause}",
    })
}

pub fn a_long_reason_is_cut_to_a_line_of_400_bytes() -> Table {
    let report = |reason: String| {
        let report = format!(r#"{{"status":"fail","output":"{reason}"}}"#);
        responds(response("503 X", report))
    };
    let cut = |text: &str, count| format!("unhealthy: 503 fail: {}...", text.repeat(count));
    at_once(cases! {
        "5 KB of ASCII": report("x".repeat(5000)) => cut("x", 375),
        "5 KB of umlauts": report("ü".repeat(2500)) => cut("ü", 187),
        "5 KB of escapes": report(r"\u0000".repeat(800))
            => format!("unhealthy: 503 fail: {}\\u0...", r"\u0000".repeat(62)),
        "1 KB of controls": report("\0".repeat(1024)) => cut(r"\u{0}", 75),
        "1 MB of text": responds(response("503 X", "x".repeat(1 << 20)))
            => format!("unhealthy: 503: {{cause}}: {}", "x".repeat(200)),
        "a location of 8 KB": responds(format!("HTTP/1.1 302 X\r\nLocation: /{:a<8000}\r\n\r\n", ""))
            => redirected(&format!("302 redirect to /{:a<199}", "")),
    })
}

pub fn another_protocol_is_named_at_once() -> Table {
    let tls = "unhealthy: the server speaks TLS: use https";
    let http2 = "unhealthy: the server speaks HTTP/2 only: probe an HTTP/1 port";
    at_once(cases! {
        "a TLS alert": responds(b"\x15\x03\x01\0\x02\x02\x46") => tls,
        "a TLS alert and the end": [Receive, send(b"\x15\x03\x03\0\x02\x02\x0a")] => tls,
        "a TLS handshake": greets(b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03") => tls,
        "HTTP/2 settings": greets(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80") => http2,
        "no HTTP/2 settings": greets(b"\0\0\0\x04\0\0\0\0\0") => http2,
        "SSH": greets("SSH-2.0-OpenSSH_9.2p1\r\n") => foreign(r"SSH-2.0-OpenSSH_9.2p1\r\n"),
        "SMTP": greets("220 mail ESMTP\r\n") => foreign(r"220 mail ESMTP\r\n"),
        "Redis": responds("-ERR unknown command\r\n") => foreign(r"-ERR unknown command\r\n"),
        "MySQL": greets(b"\x4a\0\0\0\x0a8.4.2\0") => foreign(r"J\u{0}\u{0}\u{0}\n8.4.2\u{0}"),
        "RTSP": responds("RTSP/1.0 200 OK\r\n\r\n") => foreign(r"RTSP/1.0 200 OK\r\n\r\n"),
        "HTTP/0.9": [Receive, send("<html>ok</html>")] => foreign("<html>ok</html>"),
        "an echo": responds("GET / HTTP/1.1\r\n") => foreign(r"GET / HTTP/1.1\r\n"),
        "an echo, and the end": [Receive, send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")]
            => foreign(r"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        "the preface of HTTP/2": greets("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            => foreign(r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "HTTP/2 settings, and the end": [send(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80"), Receive]
            => http2,
        "SSH, and the end": [send("SSH-2.0-OpenSSH_9.2p1\r\n"), Receive]
            => foreign(r"SSH-2.0-OpenSSH_9.2p1\r\n"),
        "FTP": greets("220 (vsFTPd 3.0.3)\r\n") => foreign(r"220 (vsFTPd 3.0.3)\r\n"),
        "Redis, and the end": [Receive, send("-ERR unknown command\r\n")]
            => foreign(r"-ERR unknown command\r\n"),
        "memcached": responds("ERROR\r\n") => foreign(r"ERROR\r\n"),
        "PostgreSQL": [Receive, send(b"E\0\0\0\x0bSFATAL\0\0")]
            => foreign(r"E\u{0}\u{0}\u{0}\u{b}SFATAL\u{0}\u{0}"),
        "a web page alone": [Receive, send("<!DOCTYPE html><h1>It works!</h1>\n")]
            => foreign(r"<!DOCTYPE html><h1>It works!</h1>\n"),
        "a word": [Receive, send("OK\n")] => foreign(r"OK\n"),
        "JSON alone": [Receive, send("{\"status\":\"pass\"}")] => foreign(r#"{"status":"pass"}"#),
        "empty lines first": responds(format!("\r\n\r\n{OK}"))
            => foreign(r"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        "a byte order mark first": responds(format!("\u{feff}{OK}"))
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
        let response = responds(format!("{start}\r\nContent-Length: 0\r\n\r\n"));
        let printed = format!(r"{start}\r\nContent-Length: 0\r\n\r\n");
        case(start, response, foreign(&printed))
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
        let response = responds(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        case(line, response, foreign(&line.replace('\t', r"\t")))
    }))
}

pub fn an_invalid_header_line_is_unhealthy_at_once() -> Table {
    let after = |start| responds(format!("{start}no colon here\r\n"));
    let within = |line| {
        let response = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok");
        case(
            format!("{line:?} in a response"),
            responds(response),
            foreign(line),
        )
    };
    let cases = cases! {
        "first": after("HTTP/1.1 200 OK\r\n") => foreign("no colon here"),
        "later": after("HTTP/1.1 200 OK\r\nA: b\r\n") => foreign("no colon here"),
        "without a name": responds("HTTP/1.1 200 OK\r\n: value\r\n") => foreign(": value"),
        "a body": responds("HTTP/1.1 200 OK\r\n[\"a body\"]\r\n") => foreign(r#"["a body"]"#),
    };
    at_once(
        cases
            .into_iter()
            .chain(["no colon here", ": value"].map(within)),
    )
}

pub fn head_of_more_than_16_kib_is_unhealthy() -> Table {
    let too_long = "unhealthy: response head of more than 16 KiB";
    let head = |length| {
        let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let filler = length - start.len() - 4;
        format!("{start}{}\r\n\r\n", "x".repeat(filler))
    };
    // The probe limits the length of a head, however the head is split into segments.
    let parts = |head: String| {
        let (first, second) = head.split_at(2047);
        [Receive, send(first), pause(300), send(second), Hold]
    };
    at_once(cases! {
        "16 KiB": responds(head(16384)) => HEALTHY,
        "16 KiB in parts": parts(head(16384)) => HEALTHY,
        "a byte more": responds(head(16385)) => too_long,
        "a byte more in parts": parts(head(16385)) => too_long,
        "a header of 1 MB": responds(head(1 << 20)) => too_long,
        "10,000 headers": responds(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
            "A: b\r\n".repeat(10_000)
        ))
            => too_long,
        "1 MB of folded lines": responds(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n{}\r\n",
            " c\r\n".repeat(250_000)
        ))
            => too_long,
        "a reason of 16 KiB": responds(format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(16384)))
            => too_long,
        "a status line of 1 MB": responds(format!("HTTP/1.1 200 {}", "x".repeat(1 << 20))) => too_long,
        "endless headers": [Receive, send("HTTP/1.1 200 OK\r\n"), Flood("A: b\r\n".repeat(1000))]
            => too_long,
        "an endless header": [Receive, send("HTTP/1.1 200 OK\r\nA: "), Flood("x".repeat(65536))]
            => too_long,
    })
}

pub fn a_connection_closed_before_the_head_is_complete_is_unhealthy() -> Table {
    let middle = "unhealthy: connection closed in the middle of a response";
    at_once(cases! {
        "after the request": [Receive] => NO_RESPONSE,
        "after an interim response": [Receive, send("HTTP/1.1 103 X\r\n\r\n")] => middle,
        "in the version": [Receive, send("HTT")] => middle,
        "in the status": [Receive, send("HTTP/1.1 20")] => middle,
        "after the status": [Receive, send("HTTP/1.1 200 OK")] => middle,
        "after the status line": [Receive, send("HTTP/1.1 200 OK\r\n")] => middle,
        "in a header": [Receive, send("HTTP/1.1 200 OK\r\nContent-Le")] => middle,
        "after a header": [Receive, send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")] => middle,
        "before the last line feed": [Receive, send("HTTP/1.1 200 OK\r\n\r")] => middle,
        "after the head": [Receive, send("HTTP/1.1 200 OK\r\n\r\n")] => HEALTHY,
    })
}

pub fn a_connection_reset_before_the_head_is_complete_is_unhealthy() -> Table {
    let reset = "unhealthy: receive response: connection reset by peer";
    at_once(cases! {
        "after the request": [Receive, Reset] => NO_RESPONSE,
        "in the version": [Receive, send("HTT"), Reset] => reset,
        "after the status line": [Receive, send("HTTP/1.1 200 OK\r\n"), Reset] => reset,
        "after a header": [Receive, send("HTTP/1.1 200 OK\r\nA: b\r\n"), Reset] => reset,
        "after the head": [Receive, send("HTTP/1.1 200 OK\r\n\r\n"), Reset] => HEALTHY,
    })
}

pub fn a_connection_closed_on_accept_is_unhealthy() -> Table {
    at_once(cases! {
        "closed": [] => NO_RESPONSE,
        "reset": [Reset] => NO_RESPONSE,
    })
}

pub fn garbage_is_unhealthy_at_once() -> Table {
    // A pseudo-random generator with a fixed seed, so that all runs use the same numbers.
    let next = |n: &u32| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let noise = iter::successors(Some(0x2545_f491), next).map(|n| n.to_be_bytes()[0]);
    let noise: Vec<u8> = noise.take(1 << 16).collect();
    let garbage = "unhealthy: not HTTP/1: the server sent \"…";
    at_once(cases! {
        "64 KB of noise": greets(noise) => garbage,
        "4 KB of NUL": greets(vec![0; 4096]) => garbage,
    })
}

pub fn the_first_loopback_address_that_connects_is_used() -> Table {
    let server = |response: &str| Some(responds(response));
    let failing = "HTTP/1.1 503 X\r\n\r\n";
    let only = Stage::Localhost;
    at_once(cases! {
        "nobody listens": Stage::Closed => "unhealthy: connect to {peer}: connection refused",
        "nobody listens on localhost": only(None, None)
            => "unhealthy: connect to {peer}: connection refused",
        "localhost on IPv4 only": only(server(OK), None) => HEALTHY,
        "localhost on IPv6 only": only(None, server(OK)) => HEALTHY,
        "localhost on IPv6 only, unhealthy": only(None, server(failing)) => "unhealthy: 503: {cause}",
        "unhealthy on IPv4, healthy on IPv6": only(server(failing), server(OK)) => "unhealthy: 503: {cause}",
        "healthy on IPv4, unhealthy on IPv6": only(server(OK), server(failing)) => HEALTHY,
    })
}

pub fn a_connection_not_accepted_ends_at_the_deadline() -> Table {
    at_the_deadline(cases! {
        "a listener that never accepts": Stage::Deaf
            => "unhealthy: no response within {timeout}",
        "a full backlog": Stage::Full
            => "unhealthy: connect to {peer}: timed out after {timeout}",
    })
}

pub fn silence_ends_at_the_deadline() -> Table {
    let nothing = "unhealthy: no response within {timeout}";
    let incomplete = "unhealthy: incomplete response within {timeout}";
    at_the_deadline(cases! {
        "accepts and does not read": [Hold] => nothing,
        "reads and does not respond": [Receive, Hold] => nothing,
        "responds too late": [Receive, pause(5000), send(OK)] => nothing,
        "a byte": responds("H") => incomplete,
        "half a status": responds("HTTP/1.1 20") => incomplete,
        "a status line without its end": responds("HTTP/1.1 200 OK") => incomplete,
        "a status line": responds("HTTP/1.1 200 OK\r\n") => incomplete,
        "a header": responds("HTTP/1.1 200 OK\r\nServer: x\r\n") => incomplete,
        "all but the last byte": responds("HTTP/1.1 200 OK\r\n\r") => incomplete,
        "an interim response": responds("HTTP/1.1 100 Continue\r\n\r\n") => incomplete,
        "a switch of protocols": responds("HTTP/1.1 101 Switching Protocols\r\n\r\n")
            => incomplete,
    })
}

pub fn the_deadline_is_one_for_the_whole_probe() -> Table {
    let incomplete = "unhealthy: incomplete response within {timeout}";
    let interim = [send("HTTP/1.1 102 Processing\r\n\r\n"), pause(900)];
    let interim = iter::repeat_n(interim, 8).flatten();
    let headers = iter::repeat_n([send("A: b\r\n"), pause(400)], 50).flatten();
    let headers = iter::once(send("HTTP/1.1 200 OK\r\n")).chain(headers);
    at_the_deadline(cases! {
        "a byte at a time": [Receive, drip("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 300)] => incomplete,
        "a byte a second": [Receive, drip(OK, 1000)] => incomplete,
        "a header at a time": iter::once(Receive).chain(headers).collect::<Vec<_>>() => incomplete,
        "an interim response at a time": iter::once(Receive).chain(interim).collect::<Vec<_>>()
            => incomplete,
    })
}
