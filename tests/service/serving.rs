//! The output and the responses of a running service, and its other commands.

use std::{
    env,
    ffi::{OsStr, OsString},
    net::TcpListener,
    os::unix::ffi::OsStringExt,
};

use serde_json::{Value, json};

use crate::{
    client::{ROUTES, request},
    container::{Container, assert_outcome},
    process::{TIMEOUT, eventually},
    support::{example, run},
};

#[test]
fn start_prints_where_the_service_listens_and_what_to_try() {
    let container = Container::new();
    let service = container.service(&[]);
    let (address, program) = (service.address, example("service"));
    let port = address.port();
    // The service falls back to IPv4 if the kernel has no IPv6.
    let has_ipv6 = TcpListener::bind("[::]:0").is_ok();
    let host = if has_ipv6 { "[::]" } else { "0.0.0.0" };

    assert_eq!(
        service.stdout.text(),
        format!(
            "listening on {host}:{port}\n\
             try: curl http://localhost:{port}/health\n     \
             {} healthcheck\n",
            program.display(),
        )
    );
}

#[test]
fn routes_have_status_code_media_type_and_no_store() {
    let container = Container::new();
    let service = container.service(&[]);

    for path in ROUTES {
        let response = service.get(path);
        assert_eq!(response.code, 200, "{path}: {response:?}");
        assert_eq!(response.json()["status"], "pass", "{path}: {response:?}");
        assert_eq!(response.header("content-type"), "application/health+json");
        assert_eq!(response.header("cache-control"), "no-store");
    }
}

#[test]
fn head_responses_have_no_body() {
    let container = Container::new();
    let service = container.service(&[]);

    for path in ROUTES {
        let response = request(service.address, "HEAD", path).expect("a response");
        assert_eq!(response.code, 200, "{path}: {response:?}");
        assert_eq!(response.header("content-type"), "application/health+json");
        assert_eq!(response.body, "", "{path}");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let container = Container::new();
    let service = container.service(&[]);
    let worker = container.worker();

    for address in [service.address, worker.address] {
        for path in ROUTES {
            let response = request(address, "POST", path).expect("a response");
            assert_eq!(response.code, 405, "{path}: {response:?}");
            assert_eq!(response.header("allow"), "GET,HEAD", "{path}");
        }
    }
}

#[test]
fn the_body_has_statuses_and_build_metadata() {
    let container = Container::new();
    let service = container.service(&[]);
    let version = run(container.example("service").args(["version", "--json"]));
    let build: Value = serde_json::from_str(&version.stdout).expect("JSON");

    let mut body = service.get("/health").json();
    for check in ["store:responseTime", "greeting:responseTime"] {
        let took = body["checks"][check][0]["observedValue"].take();
        assert!(took.as_f64().is_some_and(|took| took < 800.0), "{took}");
    }

    let check = json!([{"status": "pass", "observedValue": null, "observedUnit": "ms"}]);
    let mut expected = json!({
        "status": "pass",
        "serviceId": "service",
        "version": env!("CARGO_PKG_VERSION"),
        "checks": {
            "store:responseTime": check,
            "greeting:responseTime": check,
            "logger": [{"status": "pass"}],
        },
    });
    for (key, fact) in [
        ("serviceId", "name"),
        ("version", "version"),
        ("releaseId", "commit"),
        ("commit", "commit"),
        ("commitDate", "commitDate"),
        ("buildDate", "buildDate"),
    ] {
        if let Some(value) = build.get(fact) {
            expected[key] = value.clone();
        }
    }
    assert_eq!(body, expected);
}

#[test]
fn version_is_printed_as_text_and_as_json() {
    let container = Container::new();
    let text = run(container.example("service").arg("version"));
    let json = run(container.example("service").args(["version", "--json"]));

    assert_eq!(
        (text.code, text.stderr.as_str()),
        (Some(0), ""),
        "{}",
        text.stdout
    );
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let fact = |key: &str| json[key].as_str().unwrap_or("unknown").to_owned();
    let dirty = match json.get("dirty") {
        None => "unknown",
        Some(dirty) if *dirty == json!(true) => "yes",
        Some(_) => "no",
    };
    assert_eq!(
        text.stdout,
        format!(
            "{} {}\n\
             commit      {}\n\
             describe    {}\n\
             commit date {}\n\
             build date  {}\n\
             dirty       {dirty}\n\
             rustc       {}\n\
             target      {}\n\
             profile     {}\n",
            fact("name"),
            fact("version"),
            fact("commit"),
            fact("describe"),
            fact("commitDate"),
            fact("buildDate"),
            fact("rustc"),
            fact("target"),
            fact("profile"),
        )
    );
}

#[test]
fn version_refuses_unknown_arguments() {
    let container = Container::new();

    let outcome = run(container.example("service").args(["version", "--bogus"]));

    assert_outcome(
        &outcome,
        1,
        "",
        "version: unknown flag --bogus: expected one of --json, --help\n",
    );
}

#[test]
fn other_arguments_are_left_to_the_service() {
    for arguments in [&["serve"][..], &["--healthcheck"], &["--", "healthcheck"]] {
        let container = Container::new();
        let service = container.start("service", container.example("service").args(arguments));

        assert_eq!(service.get("/health").code, 200, "{arguments:?}");
    }
}

#[test]
fn a_port_in_use_is_reported_with_its_address() {
    let container = Container::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("its address");

    let outcome = run(container
        .example("service")
        .env("HOST", "127.0.0.1")
        .env("PORT", address.port().to_string()));

    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    let start = format!("error: listen on {address}: Address already in use (os error ");
    assert!(outcome.stderr.starts_with(&start), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[test]
fn invalid_variables_are_reported_with_name_and_value() {
    let container = Container::new();
    let raw = OsString::from_vec(vec![b'8', 0xff]);
    for (name, value, message) in [
        (
            "PORT",
            OsStr::new("abc"),
            r#"PORT="abc": expected a port from 0 to 65535"#,
        ),
        (
            "PORT",
            OsStr::new("99999"),
            r#"PORT="99999": expected a port from 0 to 65535"#,
        ),
        (
            "PORT",
            &raw,
            r#"PORT="8\xFF": expected a port from 0 to 65535"#,
        ),
        (
            "HOST",
            OsStr::new("nonsense"),
            r#"HOST="nonsense": expected an IP address"#,
        ),
        (
            "REDIS",
            OsStr::new("redis"),
            r#"REDIS="redis": expected an address and port like 127.0.0.1:6379"#,
        ),
        (
            "DRAIN_SECONDS",
            OsStr::new("-1"),
            r#"DRAIN_SECONDS="-1": expected whole seconds"#,
        ),
    ] {
        let outcome = run(container.example("service").env(name, value));

        assert_outcome(&outcome, 1, "", &format!("error: {message}\n"));
    }
}

#[test]
fn the_log_is_plain_text_without_a_terminal() {
    let container = Container::new();
    let service = container.service(&[]);

    let log = eventually("the log says that it is ready", TIMEOUT, || {
        service.get("/health");
        let log = service.stderr.text();
        log.contains("ready").then_some(log)
    });

    assert!(!log.contains('\u{1b}'), "{log:?}");
}
