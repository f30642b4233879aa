//! The object that `healthcheck --json` prints.

use serde_json::{Value, json};

use crate::{
    command::{TemporaryDirectory, guessing, healthcheck, serve_unix, worker},
    support::{
        Outcome, exclusive,
        hostile::{OK, REPORT, address_of, closed, perform, responds, response},
        run, serve,
    },
};

/// Returns the object that a probe printed, with a duration of 0 if there is one.
fn printed_object(outcome: &Outcome) -> Value {
    let text = outcome.stdout.strip_suffix('\n').expect("a whole line");
    assert_eq!(outcome.stderr, "");
    assert!(!text.contains(char::is_control), "{text:?}");
    let mut object: Value = serde_json::from_str(text).expect("JSON");
    let code = if object["healthy"] == true { 0 } else { 1 };
    assert_eq!(outcome.code, Some(code), "{text}");
    if let Some(took) = object["duration_ms"].as_f64() {
        assert!(took > 0.0 && took < 10_000.0, "{took}");
        object["duration_ms"] = json!(0);
    }
    object
}

/// Serves a response once, and returns the URL of the server and what the probe prints.
fn ask(served: impl Into<Vec<u8>>) -> (String, Outcome) {
    let acts = responds(served);
    let address = serve(move |stream| perform(&acts, stream));
    let url = format!("http://{address}/health");
    let outcome = run(&mut healthcheck([&*url, "--json"]));
    (url, outcome)
}

#[test]
fn every_response_is_one_object() {
    let body = r#"{"status":"warn","output":"cache \"failed\""}"#;
    for (served, healthy, code, status, output, error) in [
        (OK.into(), true, 200, json!(null), json!(null), None),
        (
            response("200 OK", body),
            true,
            200,
            json!("warn"),
            json!(r#"cache \"failed\""#),
            None,
        ),
        (
            response("503 X", REPORT),
            false,
            503,
            json!("fail"),
            json!("starting: waiting for postgres"),
            Some("503 fail: starting: waiting for postgres"),
        ),
        (
            response("404 X", r"a\nb"),
            false,
            404,
            json!(null),
            json!(r"a\nb"),
            Some(r"404: the routes are not merged, or nested without nested_under: a\nb"),
        ),
        (
            response("302 X\r\nLocation: /y", ""),
            false,
            302,
            json!(null),
            json!(null),
            Some(
                "302 redirect to /y: not followed, merge the routes after the layer that redirects",
            ),
        ),
    ] {
        let (url, outcome) = ask(served);
        let expected = json!({
            "healthy": healthy,
            "url": url,
            "source": "argument",
            "code": code,
            "status": status,
            "output": output,
            "error": error.map(|error| format!("{error} (GET {url})")),
            "duration_ms": 0,
        });
        assert_eq!(printed_object(&outcome), expected);
    }
}

#[test]
fn no_response_is_an_object_too() {
    let closed = closed();
    let address = address_of(&closed);
    let mut probe = healthcheck(["--json"]);
    let probe = probe.env("LIFESIGN_URL", format!("{address}/x?token=hunter2"));
    let expected = json!({
        "healthy": false,
        "url": format!("http://{address}/x?"),
        "source": "LIFESIGN_URL",
        "code": null,
        "status": null,
        "output": null,
        "error": format!("connect to {address}: connection refused"),
        "duration_ms": 0,
    });
    assert_eq!(printed_object(&run(probe)), expected);
}

#[test]
fn what_cannot_be_asked_is_an_object_too() {
    let _worker = exclusive("worker");
    let unknown = "expected one of --ready, --live, --timeout, --header, --json, --quiet, --help";
    let nothing = "\"worker\" advertises no address in this container: the service has not \
                   started or has ended, cannot write to /dev/shm, or does not call serve, listen \
                   or advertise";
    let mut variable = healthcheck(["--json"]);
    variable.env("LIFESIGN_URL", "8080");
    let form = "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET";
    for (probe, error) in [
        (
            &mut healthcheck(["--bogus", "--json"]),
            format!("unknown flag --bogus: {unknown}"),
        ),
        (
            &mut healthcheck(["--json", "--timeout", "1"]),
            "--timeout: expected a time like 500ms, 2s or 1m, more than 0 and at most 1h".into(),
        ),
        (
            &mut healthcheck(["--quiet", "--json"]),
            "--quiet: expected no --json beside it".into(),
        ),
        (&mut variable, format!("LIFESIGN_URL: {form}")),
        (worker().arg("--json"), nothing.into()),
    ] {
        let expected = json!({
            "healthy": false,
            "url": null,
            "source": null,
            "code": null,
            "status": null,
            "output": null,
            "error": error,
            "duration_ms": null,
        });
        assert_eq!(printed_object(&run(probe)), expected);
    }
}

#[test]
fn an_object_names_the_address_that_responded() {
    let address = serve(|stream| perform(&responds(OK), stream));
    let url = format!("0.0.0.0:{}", address.port());
    let object = printed_object(&run(&mut healthcheck([&*url, "--json"])));
    assert_eq!(object["url"], format!("http://{address}/health"));

    let directory = TemporaryDirectory::new("json");
    let socket = directory.0.join("socket");
    serve_unix(&socket, |stream| {
        let _ = std::io::Write::write_all(stream, OK.as_bytes());
    });
    let url = format!("unix:{}:/x", socket.display());
    let object = printed_object(&run(&mut healthcheck([&*url, "--json"])));
    assert_eq!(object["url"], url);
    assert_eq!(object["healthy"], true);
}

#[test]
fn a_guess_is_named_in_an_object() {
    let another = serve(|stream| perform(&responds(OK), stream));
    let Some(mut probe) = guessing("worker") else {
        return;
    };
    let outcome = run(probe.arg("--json").env("PORT", another.port().to_string()));
    let object = printed_object(&outcome);
    assert_eq!(object["source"], "guessed");
    assert_eq!(
        (&object["healthy"], &object["code"]),
        (&json!(false), &json!(200))
    );
}

#[test]
fn texts_in_an_object_are_escaped_and_cut_as_in_the_line() {
    for (text, expected) in [
        ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
        ("a\u{202e}b\u{feff}\u{2028}", r"a\u{202e}b\u{feff}\u{2028}"),
        ("\"\\ ü世\u{e0001}", r#"\"\\ ü世\u{e0001}"#),
        ("'\0\u{1b}\n", r"'\u0000\u001b\n"),
    ] {
        let report = json!({"status": "fail", "output": text}).to_string();
        let (url, outcome) = ask(response("503 X", report));
        let object = printed_object(&outcome);
        assert_eq!(object["output"], expected);
        assert_eq!(object["error"], format!("503 fail: {expected} (GET {url})"));
    }
    // Docker keeps 4096 bytes of a probe's output.
    let report = json!({"status": "fail", "output": "x".repeat(5000)}).to_string();
    let (_, outcome) = ask(response("503 X", report));
    assert_eq!(printed_object(&outcome)["output"], "x".repeat(396) + "...");
    assert!(outcome.stdout.len() < 1200, "{}", outcome.stdout);
}

#[test]
fn json_has_no_value_and_leaves_help_alone() {
    let attached = run(&mut healthcheck(["--json=x"]));
    assert_eq!(attached.stderr, "unhealthy: --json: expected no value\n");
    let help = run(&mut healthcheck(["--json", "--help"]));
    assert_eq!(help.stdout, run(&mut healthcheck(["--help"])).stdout);
    let unwritable = run(crate::command::shell(">&-").args(["--json", "--bogus"]));
    assert_eq!((unwritable.code, &*unwritable.stderr), (Some(1), ""));
}
