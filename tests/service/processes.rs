//! The whole journey in real processes: the examples are started, probed, signalled and ended.
//!
//! Where it is permitted (root on Linux), every test has a mount namespace of its own, which is
//! what lifesign tells containers apart by; elsewhere the tests take turns, and those that need
//! namespaces or other users say that they were skipped.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    ops::{Deref, Range},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{Outcome, example, exclusive, run};

/// For what happens anyway, and soon: a machine under load is no failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// For what is promised to happen at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Longer than any test: a drain that ends before was ended by the test.
const LONG_DRAIN: (&str, &str) = ("DRAIN_SECONDS", "600");

const ROUTES: [&str; 3] = ["/health", "/health/ready", "/health/live"];

#[test]
fn start_prints_where_the_service_listens_and_what_to_try() {
    let container = Container::new();
    let service = container.service(&[]);
    let (address, program) = (service.address, example("service"));
    let port = address.port();

    assert_eq!(
        service.stdout.text(),
        format!(
            "listening on 0.0.0.0:{port}\n\
             try: curl http://127.0.0.1:{port}/health\n     \
             {} healthcheck\n",
            program.display(),
        )
    );
}

#[cfg(target_os = "linux")]
#[test]
fn what_start_says_to_try_works() {
    let container = Container::new();
    let service = container.service(&[]);
    let stdout = service.stdout.text();
    let mut lines = stdout.lines().skip(1);
    let url = lines.next().and_then(|line| line.split("http://").nth(1));
    let (address, path) = url.and_then(|url| url.split_once('/')).expect("an URL");

    let answer = get(address.parse().expect("an address"), &format!("/{path}"));
    let mut typed = container.command(&["sh", "-c"], lines.next().expect("a third line"));

    assert_eq!(answer.expect("an answer").code, 200);
    assert_healthy(&run(&mut typed), "pass");
}

#[test]
fn routes_answer_with_code_media_type_and_no_store() {
    let container = Container::new();
    let service = container.service(&[]);

    for path in ROUTES {
        let answer = service.get(path);
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        assert_eq!(answer.json()["status"], "pass", "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/health+json");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[test]
fn head_has_the_head_and_no_body() {
    let container = Container::new();
    let service = container.service(&[]);

    for path in ROUTES {
        let answer = ask(service.address, "HEAD", path).expect("an answer");
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/health+json");
        assert_eq!(answer.body, "", "{path}");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let container = Container::new();
    let service = container.service(&[]);
    let worker = container.worker();

    for address in [service.address, worker.address] {
        for path in ROUTES {
            let answer = ask(address, "POST", path).expect("an answer");
            assert_eq!(answer.code, 405, "{path}: {answer:?}");
            assert_eq!(answer.header("allow"), "GET,HEAD", "{path}");
        }
    }
}

#[test]
fn body_is_names_statuses_and_what_version_says() {
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
            "teller": [{"status": "pass"}],
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
fn version_is_printed_for_people_and_for_programs() {
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
fn version_refuses_what_it_does_not_know() {
    let container = Container::new();

    let said = run(container.example("service").args(["version", "--bogus"]));

    assert_said(
        &said,
        1,
        "",
        "version: argument \"--bogus\": unknown, expected --json or nothing\n",
    );
}

#[test]
fn other_arguments_are_the_service_s_own_business() {
    for arguments in [&["serve"][..], &["--healthcheck"], &["--", "healthcheck"]] {
        let container = Container::new();
        let service = container.start("service", container.example("service").args(arguments));

        assert_eq!(service.get("/health").code, 200, "{arguments:?}");
    }
}

#[test]
fn port_in_use_is_told_with_the_address() {
    let container = Container::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("its address");

    let said = run(container
        .example("service")
        .env("HOST", "127.0.0.1")
        .env("PORT", address.port().to_string()));

    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    let start = format!("error: listen on {address}: Address already in use (os error ");
    assert!(said.stderr.starts_with(&start), "{}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

#[test]
fn bad_variables_are_told_with_name_value_and_what_was_expected() {
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
        let said = run(container.example("service").env(name, value));

        assert_said(&said, 1, "", &format!("error: {message}\n"));
    }
}

#[test]
fn required_store_holds_traffic_back_until_it_comes_up() {
    let container = Container::new();
    let mut redis = Redis::refusing();
    let service = container.service(&[redis.variable()]);

    for path in ["/health", "/health/ready"] {
        let answer = service.get(path);
        assert_eq!(
            answer.verdict(),
            "503 fail: starting, waiting for store",
            "{path}"
        );
    }
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    let waiting = "503 fail: starting, waiting for store";
    assert_unhealthy(&service.healthcheck(&[]), waiting);
    assert_unhealthy(&service.healthcheck(&["--ready"]), waiting);
    assert_healthy(&service.healthcheck(&["--live"]), "pass");

    redis.listen();
    eventually("the service is ready", Duration::from_secs(2), || {
        (service.get("/health/ready").verdict() == "200 pass").then_some(())
    });
    assert_eq!(service.get("/health").verdict(), "200 pass");
    assert_healthy(&service.healthcheck(&[]), "pass");
}

#[test]
fn store_that_hangs_takes_the_traffic_away_and_nothing_else() {
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");

    redis.answer("PING", None);
    let mut slowest = Duration::ZERO;
    eventually("traffic is turned away", Duration::from_secs(2), || {
        let asked = Instant::now();
        let answer = service.get("/health/ready");
        slowest = slowest.max(asked.elapsed());
        (answer.verdict() == "503 fail: store timed out").then_some(())
    });
    let asked = Instant::now();
    let health = service.get("/health");
    slowest = slowest.max(asked.elapsed());

    assert_eq!(health.verdict(), "200 warn: store timed out");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    assert_healthy(&service.healthcheck(&[]), "warn: store timed out");
    assert_unhealthy(
        &service.healthcheck(&["--ready"]),
        "503 fail: store timed out",
    );
    assert_healthy(&service.healthcheck(&["--live"]), "pass");

    redis.answer("PING", Some("+PONG"));
    eventually("traffic is taken again", Duration::from_secs(2), || {
        (service.get("/health/ready").verdict() == "200 pass").then_some(())
    });
    assert_eq!(service.get("/health").verdict(), "200 pass");
}

#[test]
fn error_of_a_check_goes_to_the_log_once_per_transition_and_nowhere_else() {
    const SECRET: &str = "hunter2";
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[redis.variable()]);
    assert_eq!(service.get("/health").verdict(), "200 pass");
    let logged = |word: &str| {
        let log = service.stderr.text();
        log.lines().filter(|line| line.contains(word)).count()
    };

    for outage in 1..=2 {
        redis.answer("PING", Some("-ERR cannot reach redis://svc:hunter2@db"));
        let runs = redis.asked("PING");
        let mut told = String::new();
        eventually("the check is run again and again", PATIENCE, || {
            for path in ROUTES {
                let answer = service.get(path);
                told.push_str(&answer.head);
                told.push_str(&answer.body);
            }
            for option in [&[][..], &["--ready"], &["--live"]] {
                let said = service.healthcheck(option);
                told.push_str(&said.stdout);
                told.push_str(&said.stderr);
            }
            (redis.asked("PING") >= runs + 3).then_some(())
        });
        assert!(told.contains("unhealthy: 503 fail: store fails"));
        assert!(!told.contains(SECRET), "{told}");
        assert_eq!(logged(SECRET), outage, "{}", service.stderr.text());

        redis.answer("PING", Some("+PONG"));
        eventually("the log says so", PATIENCE, || {
            let ready = service.get("/health/ready").verdict() == "200 pass";
            (ready && logged("check recovered") >= outage).then_some(())
        });
    }
    assert_eq!(logged("check recovered"), 2, "{}", service.stderr.text());
    assert_eq!(logged("check failed"), 2, "{}", service.stderr.text());
}

#[test]
fn log_is_plain_text_where_it_is_no_terminal() {
    let container = Container::new();
    let service = container.service(&[]);

    let log = eventually("the log says that it is ready", PATIENCE, || {
        service.get("/health");
        let log = service.stderr.text();
        log.contains("ready").then_some(log)
    });

    assert!(!log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn optional_check_that_fails_warns_and_changes_nothing_else() {
    let container = Container::new();
    let service = container.service(&[("GREETING_FILE", "/nowhere/greeting")]);

    for path in ["/health", "/health/ready"] {
        let answer = service.get(path);
        assert_eq!(answer.verdict(), "200 warn: greeting fails", "{path}");
        assert!(!answer.body.contains("nowhere"), "{answer:?}");
    }
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    assert_healthy(&service.healthcheck(&[]), "warn: greeting fails");
    assert_healthy(&service.healthcheck(&["--ready"]), "warn: greeting fails");
    assert_eq!(service.get("/").body, "Hello, visitor 1\n");
}

#[test]
fn draining_turns_traffic_away_at_once() {
    for signal in ["TERM", "INT"] {
        let container = Container::new();
        let service = container.service(&[LONG_DRAIN]);
        assert_eq!(service.get("/health/ready").verdict(), "200 pass");

        service.signal(signal);
        service.drains();

        assert_eq!(service.get("/health").verdict(), "503 fail: draining");
        assert_eq!(service.get("/health/live").verdict(), "200 pass");
        assert_unhealthy(&service.healthcheck(&[]), "503 fail: draining");
        assert_unhealthy(&service.healthcheck(&["--ready"]), "503 fail: draining");
        assert_healthy(&service.healthcheck(&["--live"]), "pass");
    }
}

#[test]
fn draining_finishes_requests_in_flight_and_takes_new_ones() {
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[LONG_DRAIN, redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");
    redis.answer("INCR", None);
    let visit = service.visit();
    redis.await_command("INCR");

    service.signal("TERM");
    service.drains();
    redis.answer("INCR", Some(":7"));
    let in_flight = visit.join().expect("no panic").expect("an answer");
    let new = service.get("/");

    assert_eq!(
        (in_flight.code, in_flight.body.as_str()),
        (200, "Hello, visitor 7\n")
    );
    assert_eq!((new.code, new.body.as_str()), (200, "Hello, visitor 7\n"));
}

#[test]
fn request_that_outlives_the_drain_is_answered_before_the_exit() {
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[("DRAIN_SECONDS", "0"), redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");
    redis.answer("INCR", None);
    let visit = service.visit();
    redis.await_command("INCR");

    service.signal("TERM");
    eventually("the port is closed", PATIENCE, || {
        get(service.address, "/health").err()
    });
    if cfg!(target_os = "linux") {
        assert_unhealthy(
            &service.healthcheck(&[]),
            &format!(
                "connect to 127.0.0.1:{}: connection refused (advertised by the service)",
                service.address.port()
            ),
        );
    }
    redis.answer("INCR", Some(":8"));
    let in_flight = visit.join().expect("no panic").expect("an answer");
    let said = service.finish(PATIENCE);

    assert_eq!(
        (in_flight.code, in_flight.body.as_str()),
        (200, "Hello, visitor 8\n")
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn second_signal_ends_the_drain_at_once() {
    for (first, second) in [
        ("TERM", "TERM"),
        ("INT", "INT"),
        ("TERM", "INT"),
        ("INT", "TERM"),
    ] {
        let container = Container::new();
        let service = container.service(&[LONG_DRAIN]);
        service.signal(first);
        service.drains();

        service.signal(second);
        let said = service.finish(AT_ONCE);

        assert_eq!(said.code, Some(0), "{first}, {second}: {}", said.stderr);
    }
}

#[test]
fn port_stays_open_for_the_drain_delay_and_then_the_process_exits() {
    let container = Container::new();
    let service = container.service(&[("DRAIN_SECONDS", "1")]);

    assert_drains_for(
        service,
        Duration::from_millis(900)..Duration::from_millis(4500),
    );
}

#[test]
fn drain_delay_is_five_seconds_by_default() {
    let container = Container::new();
    let service = container.service(&[]);

    assert_drains_for(
        service,
        Duration::from_millis(4500)..Duration::from_millis(7000),
    );
}

#[test]
fn listener_of_a_worker_says_draining_until_the_process_ends() {
    let container = Container::new();
    let worker = container.worker();
    assert_eq!(worker.get("/health/ready").verdict(), "200 pass");

    assert_drains_for(
        worker,
        Duration::from_millis(4500)..Duration::from_millis(7000),
    );
}

#[test]
fn store_that_comes_up_during_the_drain_brings_no_traffic() {
    let container = Container::new();
    let mut redis = Redis::refusing();
    let service = container.service(&[LONG_DRAIN, redis.variable()]);
    assert_eq!(
        service.get("/health").verdict(),
        "503 fail: starting, waiting for store"
    );

    service.signal("TERM");
    service.drains();
    redis.listen();
    // Longer than an evaluation is cached.
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(service.get("/health/ready").verdict(), "503 fail: draining");
    }

    assert_eq!(service.get("/health").verdict(), "503 fail: draining");
}

#[test]
fn idle_connections_do_not_hold_the_exit_back() {
    let container = Container::new();
    let service = container.service(&[LONG_DRAIN]);
    let silent = TcpStream::connect(service.address).expect("a connection");
    let mut kept = TcpStream::connect(service.address).expect("a connection");
    kept.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("a request");
    let mut answer = [0; 512];
    let length = kept.read(&mut answer).expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));

    service.signal("TERM");
    service.drains();
    service.signal("TERM");
    let said = service.finish(AT_ONCE);

    assert_eq!(said.code, Some(0), "{}", said.stderr);
    drop((silent, kept));
}

#[test]
fn check_that_blocks_forever_does_not_hold_the_exit_back() {
    let container = Container::new();
    let folder = Folder::new("fifo");
    let fifo = folder.path("greeting");
    make_fifo(&fifo);
    let greeting = fifo.to_str().expect("UTF-8");
    let service = container.service(&[LONG_DRAIN, ("GREETING_FILE", greeting)]);
    assert_eq!(
        service.get("/health").verdict(),
        "200 warn: greeting timed out"
    );

    service.signal("TERM");
    service.drains();
    service.signal("TERM");
    let said = service.finish(AT_ONCE);

    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn service_that_is_stopped_is_unhealthy_within_the_timeout() {
    let container = Container::new();
    let service = container.service(&[]);
    assert_healthy(&service.healthcheck(&[]), "pass");

    service.signal("STOP");
    let said = service.healthcheck(&["--timeout", "500ms"]);
    service.signal("CONT");

    assert_unhealthy(
        &said,
        &format!(
            "127.0.0.1:{} sent nothing within 500ms",
            service.address.port()
        ),
    );
    let expected = Duration::from_millis(500)..Duration::from_millis(1500);
    assert!(expected.contains(&said.took), "{said:?}");
    eventually("the service is well again", PATIENCE, || {
        (service.healthcheck(&[]).code == Some(0)).then_some(())
    });
}

/// What needs the advertisement, and with it `/dev/shm` and the mount namespace.
#[cfg(target_os = "linux")]
mod discovery {
    use std::os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    };

    use super::*;

    /// Runs a program as a user that is nobody's.
    const AS_STRANGER: [&str; 4] = [
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
    ];

    #[test]
    fn probe_without_arguments_finds_whatever_port_the_system_chose() {
        let container = Container::new();
        for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"] {
            if host.contains(':') && TcpListener::bind("[::1]:0").is_err() {
                skipped("there is no IPv6 here");
                continue;
            }
            let service = container.service(&[("HOST", host)]);

            for arguments in [&[][..], &["--ready"], &["--live"], &["/health/live"]] {
                let said = service.healthcheck(arguments);
                assert!(is_healthy(&said, "pass"), "{host} {arguments:?}: {said:?}");
            }
            let said = service.healthcheck(&["/nowhere"]);
            assert_unhealthy(&said, "404");
        }
    }

    #[test]
    fn probe_does_not_listen_to_port_while_there_is_a_advertisement() {
        let container = Container::new();
        let service = container.service(&[]);
        let closed = Redis::refusing();
        let (_, closed_port) = closed.address.rsplit_once(':').expect("a port");

        for port in ["0", closed_port] {
            let said = run(container
                .example("service")
                .arg("healthcheck")
                .env("PORT", port));
            assert_healthy(&said, "pass");
        }
        drop(service);
    }

    #[test]
    fn advertisement_is_readable_by_all_and_named_after_namespace_service_and_process() {
        let container = Container::new();
        let service = container.service(&[]);
        let worker = container.worker();

        let expected = [("0.0.0.0", &service), ("127.0.0.1", &worker)].map(|(host, running)| {
            let (namespace, name, id) = (container.namespace(), running.name, running.id());
            let port = running.address.port();
            (
                container
                    .shm()
                    .join(format!("lifesign.{namespace}.{name}.{id}")),
                0o100_644,
                format!("lifesign 1\nhttp://{host}:{port}\n/health\n/health/ready\n/health/live\n"),
            )
        });
        let found: Vec<_> = container
            .advertisements()
            .into_iter()
            .map(|path| {
                let mode = fs::metadata(&path).expect("a file").mode();
                let text = fs::read_to_string(&path).expect("text");
                (path, mode, text)
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn advertisement_is_readable_by_all_whatever_the_umask() {
        let container = Container::new();
        let mut command = container.command(
            &["sh", "-c", "umask 077; exec \"$0\""],
            example("service").as_os_str(),
        );
        let service = container.start("service", &mut command);

        let modes: Vec<u32> = container
            .advertisements()
            .iter()
            .map(|path| fs::metadata(path).expect("a file").mode() & 0o777)
            .collect();

        assert_eq!(modes, [0o644]);
        drop(service);
    }

    #[test]
    fn advertisement_is_taken_back_on_a_clean_exit() {
        let container = Container::new();
        for name in ["service", "worker"] {
            let running = container.start(name, &mut container.example(name));
            assert_eq!(container.advertisements().len(), 1, "{name}");

            running.signal("TERM");
            running.drains();
            running.signal("TERM");
            let said = running.finish(PATIENCE);

            assert_eq!(said.code, Some(0), "{name}: {}", said.stderr);
            assert_eq!(container.advertisements(), [] as [PathBuf; 0], "{name}");
        }
    }

    #[test]
    fn service_that_was_killed_and_started_again_elsewhere_is_found_again() {
        let container = Container::new();
        for _ in 0..3 {
            let service = container.service(&[]);

            assert_healthy(&service.healthcheck(&[]), "pass");
            let left = container.advertisements();
            assert_eq!(left.len(), 1, "the dead ones are swept away: {left:?}");
            service.signal("KILL");
            service.finish(PATIENCE);
        }
    }

    #[test]
    fn advertisement_of_a_killed_service_is_not_believed() {
        let container = Container::new();
        let worker = container.worker();
        let dead = container.service(&[("HOST", "127.0.0.1")]);
        let address = dead.address;
        dead.signal("KILL");
        dead.finish(PATIENCE);
        assert_eq!(
            container.advertisements().len(),
            2,
            "the file is still there"
        );
        // Somebody else takes over the dead one's port.
        let impostor = Impostor::at(address);

        let port = worker.address.port().to_string();
        let said = run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", port));

        assert_healthy(&said, "pass");
        assert!(impostor.was_left_alone());
    }

    #[test]
    fn without_a_advertisement_the_probe_says_what_it_tried() {
        let Some(container) = Container::with("", &["--net"]) else {
            return;
        };
        let probe = |port: &str| {
            run(container
                .example("service")
                .arg("healthcheck")
                .env("PORT", port))
        };

        // In a network namespace in which even the loopback is down.
        assert_unhealthy(
            &probe(""),
            "connect to 127.0.0.1:8080: network is unreachable (the default: is the service up? \
             if it listens elsewhere, set PORT or HEALTHCHECK_URL)",
        );
        assert_unhealthy(
            &probe("81"),
            "connect to 127.0.0.1:81: network is unreachable (from PORT: is the service up, and \
             does it listen there?)",
        );
        assert_unhealthy(
            &probe("0"),
            "PORT \"0\": expected a port from 1 to 65535 (the service advertised none)",
        );
    }

    #[test]
    fn forged_advertisements_are_ignored_and_nothing_hangs() {
        let container = Container::new();
        let impostor = Impostor::new();
        let worker = container.worker();
        let forger = Forger::new(&container, impostor.address);

        let forgeries = forger.forge_all();
        // Alone, then beside the real one, then again younger than it.
        let said = run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", worker.address.port().to_string()));
        assert_healthy(&said, "pass");
        assert!(said.took < AT_ONCE, "{said:?}");
        let service = container.service(&[]);
        assert_healthy(&service.healthcheck(&[]), "pass");
        drop(forgeries);
        let forgeries = forger.forge_all();
        let said = service.healthcheck(&[]);
        assert_healthy(&said, "pass");
        assert!(said.took < AT_ONCE, "{said:?}");

        assert!(impostor.was_left_alone());
        drop(forgeries);
    }

    #[test]
    fn forged_advertisements_would_be_believed_without_their_flaw() {
        let container = Container::new();
        let impostor = Impostor::new();
        let forger = Forger::new(&container, impostor.address);
        let forgery = forger.forge("1", &forger.text);

        let said = run(container
            .example("service")
            .args(["healthcheck", "--timeout", "100ms"]));

        assert_unhealthy(
            &said,
            &format!("{} sent nothing within 100ms", impostor.address),
        );
        assert!(!impostor.was_left_alone());
        drop(forgery);
    }

    #[test]
    fn advertisement_is_made_where_another_user_has_taken_its_name() {
        let Some(container) = Container::with("", &[]) else {
            return;
        };
        // The shell's process becomes the service's, so that its number is known.
        let script = "ns=$(readlink /proc/self/ns/mnt | tr -dc 0-9)
            for name in lifesign .lifesign; do
                echo taken >/dev/shm/$name.$ns.service.$$ && chown 6666 /dev/shm/$name.$ns.service.$$
            done && exec \"$@\"";
        let wrapper = [&["sh", "-c", script, "sh"][..], &AS_STRANGER].concat();
        let program = example("service");
        if run(container
            .command(&AS_STRANGER, "test")
            .arg("-x")
            .arg(&program))
        .code
            != Some(0)
        {
            return skipped("another user may not execute the examples here");
        }
        let service = container.start("service", &mut container.command(&wrapper, &program));

        let said = container.healthcheck_as(&AS_STRANGER);

        assert!(is_healthy(&said, "pass"), "{said:?}");
        drop(service);
    }

    #[test]
    fn a_folder_full_of_files_makes_no_probe_late() {
        // A tmpfs names the youngest first.
        for (count, suffix, found) in [
            (255, "", true),
            (257, "", false),
            (9_000, ".x", true),
            (10_001, ".x", false),
        ] {
            let container = Container::new();
            let service = container.service(&[]);
            let [path] = &container.advertisements()[..] else {
                panic!("one advertisement");
            };
            let path = path.to_str().expect("text");
            let files: Vec<_> = (100_000..100_000 + count)
                .map(|number| format!("{path}{number}{suffix}"))
                .collect();
            for file in &files {
                File::create(file).expect("a file");
            }

            let said = run(container
                .example("service")
                .arg("healthcheck")
                .env("PORT", "1"));

            // Whoever can fill the folder can hide what is in it, and no more than that.
            if found {
                assert!(is_healthy(&said, "pass"), "{said:?}");
            } else {
                assert_eq!(said.code, Some(1));
                assert!(said.stderr.contains("(from PORT"), "{said:?}");
            }
            drop(service);
        }
    }

    #[test]
    fn advertisement_of_the_own_user_comes_before_those_of_others() {
        let Some(container) = Container::with("", &[]) else {
            return;
        };
        let impostor = Impostor::new();
        let forger = Forger::new(&container, impostor.address);
        for (service_user, probe_user, forger_id) in [
            // The same user's before another's, root's before a third one's.
            (&[][..], &[][..], 6666),
            (&AS_STRANGER[..], &AS_STRANGER[..], 6666),
            (&AS_STRANGER[..], &AS_STRANGER[..], 0),
            (&[][..], &AS_STRANGER[..], 6666),
        ] {
            let Some(service) = container.service_as(service_user) else {
                return;
            };
            let forgery = forger.forge("1", &forger.text);
            chown(&forgery.path, Some(forger_id), Some(forger_id)).expect("root may");

            let said = container.healthcheck_as(probe_user);

            assert!(is_healthy(&said, "pass"), "{forger_id}: {said:?}");
            assert!(impostor.was_left_alone(), "{forger_id}");
            drop((service, forgery));
        }
    }

    #[test]
    fn probe_of_another_user_finds_the_service() {
        let Some(container) = Container::with("", &[]) else {
            return;
        };
        for (service_user, probe_user) in [
            (&[][..], &AS_STRANGER[..]),
            (&AS_STRANGER[..], &[][..]),
            (&AS_STRANGER[..], &AS_STRANGER[..]),
        ] {
            let Some(service) = container.service_as(service_user) else {
                return;
            };

            let said = container.healthcheck_as(probe_user);

            let users = format!("{service_user:?} {probe_user:?}");
            assert!(is_healthy(&said, "pass"), "{users}: {said:?}");
            drop(service);
        }
    }

    #[test]
    fn services_in_one_container_are_told_apart() {
        let container = Container::new();
        let service = container.service(&[]);
        let worker = container.worker();

        worker.signal("TERM");
        worker.drains();

        assert_unhealthy(&worker.healthcheck(&[]), "503 fail: draining");
        assert_healthy(&service.healthcheck(&[]), "pass");
    }

    #[test]
    fn of_two_processes_of_one_service_the_younger_is_asked() {
        let container = Container::new();
        let old = container.service(&[LONG_DRAIN]);
        old.signal("TERM");
        old.drains();
        assert_unhealthy(&old.healthcheck(&[]), "503 fail: draining");

        let young = container.service(&[]);
        assert_healthy(&young.healthcheck(&[]), "pass");
        drop(young);

        assert_unhealthy(&old.healthcheck(&[]), "503 fail: draining");
    }

    #[test]
    fn of_two_processes_of_one_service_the_first_of_the_container_is_asked() {
        let Some(host) = Container::with("", &[]) else {
            return;
        };
        let (first, inside) = host.process_one(&[LONG_DRAIN]);
        let second = inside.service(&[]);
        run(&mut inside.command(&["sh", "-c"], "kill -TERM 1"));
        first.drains();

        assert_unhealthy(&second.healthcheck(&[]), "503 fail: draining");
        assert_eq!(second.get("/health").verdict(), "200 pass");
    }

    #[test]
    fn containers_that_share_dev_shm_each_find_their_own() {
        let Some(pod) = Container::with("", &[]) else {
            return;
        };
        // Both are process 1 in their containers, and both see both files.
        let (one, inside_one) = pod.process_one(&[LONG_DRAIN]);
        let (two, inside_two) = pod.process_one(&[LONG_DRAIN]);
        assert_eq!(fs::read_dir(pod.shm()).expect("/dev/shm").count(), 2);
        run(&mut inside_one.command(&["sh", "-c"], "kill -TERM 1"));
        one.drains();

        assert_unhealthy(&inside_one.healthcheck_as(&[]), "503 fail: draining");
        assert_healthy(&inside_two.healthcheck_as(&[]), "pass");
        // A third one sees both files too, and neither is its own.
        let said = run(pod.example("service").arg("healthcheck").env("PORT", "0"));
        assert_unhealthy(
            &said,
            "PORT \"0\": expected a port from 1 to 65535 (the service advertised none)",
        );
        drop(two);
    }

    #[test]
    fn sigterm_ends_a_service_that_is_process_one() {
        let Some(host) = Container::with("", &[]) else {
            return;
        };
        let (service, inside) = host.process_one(&[("DRAIN_SECONDS", "0")]);

        // The shell may not live to say that it has: the kernel ends the container with its first.
        run(&mut inside.command(&["sh", "-c"], "kill -TERM 1"));
        let said = service.finish(PATIENCE);

        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }

    #[test]
    fn read_only_root_filesystem_is_enough() {
        let Some(container) = Container::with("mount -o remount,ro,bind /", &[]) else {
            return;
        };
        let writable = run(&mut container.command(&["test", "-w"], "/"));
        assert_eq!(writable.code, Some(1), "the root filesystem is read-only");
        let service = container.service(&[]);

        assert_healthy(&service.healthcheck(&[]), "pass");
    }

    #[test]
    fn without_a_writable_dev_shm_the_service_serves_and_port_is_asked() {
        let Some(container) = Container::with("mount -t tmpfs -o ro tmpfs /dev/shm", &[]) else {
            return;
        };
        let service = container.service(&[]);

        let said = run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", service.address.port().to_string()));

        assert_healthy(&said, "pass");
        let log = service.stderr.text();
        let warnings: Vec<_> = log.lines().filter(|l| l.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(
            warnings[0].contains("the endpoint could not be advertised"),
            "{log}"
        );
    }

    #[test]
    fn wildcard_that_takes_no_ipv4_is_found_too() {
        let only_v6 = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/bindv6only";
        let Some(container) = Container::with(only_v6, &["--net"]) else {
            return;
        };
        let mut command = container.example("service");
        let process = Process::spawn(command.env("HOST", "::").env("PORT", "0"));

        let probe = || run(container.example("service").arg("healthcheck"));
        let said = eventually("the service is healthy", PATIENCE, || {
            Some(probe()).filter(|said| said.code == Some(0))
        });

        assert_healthy(&said, "pass");
        drop(process);
    }

    #[test]
    fn readme_program_is_found_and_ends() {
        let Some(container) = Container::with("ip link set lo up", &["--net"]) else {
            return;
        };
        let process = Process::spawn(&mut container.example("hello"));
        let probe = || run(container.example("hello").arg("healthcheck"));

        let said = eventually("hello is healthy", PATIENCE, || {
            Some(probe()).filter(|said| said.code == Some(0))
        });
        assert_healthy(&said, "pass");
        // Its port is fixed: only the advertisement knows better than this.
        let said = run(container
            .example("hello")
            .arg("healthcheck")
            .env("PORT", "81"));
        assert_healthy(&said, "pass");
        process.signal("TERM");
        eventually("hello drains", AT_ONCE, || {
            (probe().stderr == "unhealthy: 503 fail: draining\n").then_some(())
        });
        process.signal("TERM");
        let said = process.finish(AT_ONCE);

        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }

    #[test]
    fn probe_runs_inside_tight_limits() {
        let container = Container::new();
        let service = container.service(&[]);
        // 64 KiB of stack, 64 MiB of addresses, 8 open files.
        let limits = "ulimit -s 64 && ulimit -v 65536 && ulimit -n 8 && exec \"$@\"";

        let said = run(container
            .command(&["sh", "-c", limits, "sh"], example("service"))
            .arg("healthcheck"));

        assert_healthy(&said, "pass");
        drop(service);
    }

    #[test]
    fn probe_is_one_process_and_one_thread() {
        let Some(container) = Container::with("", &[]) else {
            return;
        };
        let Some(service) = container.service_as(&[]) else {
            return;
        };
        let mut alone = AS_STRANGER.to_vec();
        alone.extend(["prlimit", "--nproc=1", "--"]);
        // The limit holds: one more process is one too many.
        let two = run(container
            .command(&alone, "sh")
            .args(["-c", "true & wait $!"]));
        assert_ne!(two.code, Some(0), "{two:?}");

        let said = container.healthcheck_as(&alone);

        assert_healthy(&said, "pass");
        drop(service);
    }

    fn skipped(reason: &str) {
        let test = thread::current();
        eprintln!("skipped: {}: {reason}", test.name().unwrap_or_default());
    }

    impl Container {
        /// A namespace of its own in which `setup` has run, or `None` and the reason on stderr.
        fn with(setup: &str, options: &[&str]) -> Option<Self> {
            let own = Namespace::unshare(setup, options);
            if let Err(reason) = &own {
                skipped(reason);
            }
            Some(Self(own.ok()?))
        }

        /// The number that advertisements of this namespace are named after.
        fn namespace(&self) -> String {
            let link = fs::read_link(self.0.process().join("ns/mnt")).expect("procfs");
            let link = link.to_str().expect("ASCII");
            link.replace(|c: char| !c.is_ascii_digit(), "")
        }

        /// The container's `/dev/shm` as this process reaches it.
        fn shm(&self) -> PathBuf {
            self.0.process().join("root/dev/shm")
        }

        /// The advertisements of this namespace, alive or dead, and drafts of such.
        fn advertisements(&self) -> Vec<PathBuf> {
            let prefix = format!("lifesign.{}.", self.namespace());
            let mut found: Vec<_> = fs::read_dir(self.shm())
                .expect("/dev/shm")
                .map(|entry| entry.expect("an entry").path())
                .filter(|path| {
                    let name = path.file_name().and_then(OsStr::to_str);
                    name.is_some_and(|name| name.trim_start_matches('.').starts_with(&prefix))
                })
                .collect();
            found.sort();
            found
        }

        /// The service as another user; `None` and the reason where that user cannot execute it.
        fn service_as(&self, user: &[&str]) -> Option<Running<'_>> {
            let program = example("service");
            let executable = run(self.command(&AS_STRANGER, "test").arg("-x").arg(&program));
            if executable.code != Some(0) {
                skipped("another user may not execute the examples here");
                return None;
            }
            Some(self.start("service", &mut self.command(user, &program)))
        }

        fn healthcheck_as(&self, user: &[&str]) -> Outcome {
            run(self.command(user, example("service")).arg("healthcheck"))
        }

        /// The service as process 1 of a container in this one, and that container.
        fn process_one(&self, variables: &[(&str, &str)]) -> (Running<'_>, Self) {
            let unshare = [
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ];
            let mut command = self.command(&unshare, example("service"));
            let running = self.start("service", command.envs(variables.iter().copied()));
            let process = running.id();
            (running, Self(Namespace::Inside { process }))
        }
    }

    /// Somebody who answers where no probe should ask.
    struct Impostor {
        listener: TcpListener,
        address: SocketAddr,
    }

    impl Impostor {
        fn new() -> Self {
            Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        }

        fn at(address: SocketAddr) -> Self {
            let listener = TcpListener::bind(address).expect("a port");
            listener.set_nonblocking(true).expect("a socket option");
            let address = listener.local_addr().expect("its address");
            Self { listener, address }
        }

        fn was_left_alone(&self) -> bool {
            let asked = self.listener.accept();
            asked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        }
    }

    /// Makes advertisements that look right but for one thing.
    struct Forger {
        shm: PathBuf,
        prefix: String,
        text: String,
    }

    /// Removed and unlocked when it is dropped.
    struct Forgery {
        path: PathBuf,
        _lock: Option<File>,
        _socket: Option<UnixListener>,
    }

    impl Drop for Forgery {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir(&self.path));
        }
    }

    impl Forger {
        fn new(container: &Container, address: SocketAddr) -> Self {
            Self {
                shm: container.shm(),
                prefix: format!("lifesign.{}", container.namespace()),
                text: format!(
                    "lifesign 1\nhttp://{address}\n/health\n/health/ready\n/health/live\n"
                ),
            }
        }

        /// A locked file of this user, which is what a service of this user writes.
        fn forge(&self, id: &str, text: impl AsRef<[u8]>) -> Forgery {
            self.forge_as(&format!("{}.service.{id}", self.prefix), text.as_ref())
        }

        fn forge_as(&self, name: &str, text: &[u8]) -> Forgery {
            let path = self.shm.join(name);
            fs::write(&path, text).expect("/dev/shm is writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
            let file = File::open(&path).expect("own file");
            file.lock().expect("nobody else's lock");
            Forgery {
                path,
                _lock: Some(file),
                _socket: None,
            }
        }

        fn forge_all(&self) -> Vec<Forgery> {
            let text = self.text.as_str();
            let mut forged = vec![
                self.forge("1", ""),
                self.forge("2", "lifesign 2\n"),
                self.forge("3", text.replacen("lifesign 1", "lifesign 2", 1)),
                self.forge("4", text.replacen("lifesign 1\n", "", 1)),
                self.forge("5", format!("{text}/more\n")),
                self.forge("6", text.trim_end()),
                self.forge("7", format!("{text}{}", "\n".repeat(8192))),
                self.forge("8", text.replacen("http://", "gopher://", 1)),
                self.forge("9", text.replacen("\n/health\n", "\nhealth\n", 1)),
                self.forge("10", [text.as_bytes(), b"\xff"].concat()),
                self.forge("11", "lifesign 1\nhttp://127.0.0.1:0\n/health\n/r\n/l\n"),
                self.forge(
                    "17",
                    text.replacen("/health\n", "/health HTTP/1.1\rX: y\n", 1),
                ),
                self.forge("18", text.replacen("/live\n", "/\0\n", 1)),
                // Other names: another service's, no pid, a draft.
                self.forge("x.12", text),
                self.forge("13x", text),
                self.forge("", text),
                self.forge_as(&format!("{}.servic.14", self.prefix), text.as_bytes()),
                self.forge_as(&format!(".{}.service.15", self.prefix), text.as_bytes()),
                self.forge_as("lifesign.1.service.16", text.as_bytes()),
            ];
            // Written by others.
            for (id, mode) in [("20", 0o666), ("21", 0o664), ("22", 0o646)] {
                let forgery = self.forge(id, text);
                fs::set_permissions(&forgery.path, fs::Permissions::from_mode(mode))
                    .expect("own file");
                forged.push(forgery);
            }
            // Of nobody alive.
            let mut unlocked = self.forge("30", text);
            unlocked._lock = None;
            forged.push(unlocked);
            // Of other kinds.
            let special = |id: &str| Forgery {
                path: self.shm.join(format!("{}.service.{id}", self.prefix)),
                _lock: None,
                _socket: None,
            };
            let target = self.forge_as(&format!("forged.{}", self.prefix), text.as_bytes());
            let link = special("40");
            symlink(target.path.file_name().expect("a name"), &link.path)
                .expect("/dev/shm is writable");
            let dangling = special("41");
            symlink("nowhere", &dangling.path).expect("/dev/shm is writable");
            let device = special("42");
            symlink("/dev/zero", &device.path).expect("/dev/shm is writable");
            let fifo = special("43");
            make_fifo(&fifo.path);
            let folder = special("44");
            fs::create_dir(&folder.path).expect("/dev/shm is writable");
            let mut socket = special("45");
            socket._socket = Some(UnixListener::bind(&socket.path).expect("/dev/shm is writable"));
            forged.extend([target, link, dangling, device, fifo, folder, socket]);
            forged
        }
    }
}

fn assert_healthy(said: &Outcome, report: &str) {
    assert!(
        is_healthy(said, report),
        "expected healthy: {report}, not {said:?}"
    );
}

/// Whether a probe said `healthy: pass in 0.4 ms` for the report `pass`, and
/// `healthy: warn in 0.4 ms: mail fails` for `warn: mail fails`, and nothing else.
fn is_healthy(said: &Outcome, report: &str) -> bool {
    let (status, reason) = report.split_at(report.find(':').unwrap_or(report.len()));
    let took = said
        .stdout
        .strip_prefix(&format!("healthy: {status} in "))
        .and_then(|rest| rest.strip_suffix(&format!(" ms{reason}\n")));
    (said.code, said.stderr.as_str()) == (Some(0), "")
        && took.is_some_and(|took| took.parse::<f64>().is_ok())
}

fn assert_unhealthy(said: &Outcome, reason: &str) {
    assert_said(said, 1, "", &format!("unhealthy: {reason}\n"));
}

fn assert_said(said: &Outcome, code: i32, stdout: &str, stderr: &str) {
    let all = (said.code, said.stdout.as_str(), said.stderr.as_str());
    assert_eq!(all, (Some(code), stdout, stderr));
}

/// Ends the service with one SIGTERM: every answer on its way is "draining", and port and process
/// end when the delay does.
fn assert_drains_for(service: Running<'_>, expected: Range<Duration>) {
    let signalled = Instant::now();
    service.signal("TERM");
    service.drains();
    let mut answered = signalled.elapsed();
    while let Ok(answer) = get(service.address, "/health/ready") {
        assert_eq!(answer.verdict(), "503 fail: draining");
        answered = signalled.elapsed();
        assert!(answered < expected.end, "the port is still open");
        thread::sleep(POLL);
    }
    let said = service.finish(AT_ONCE);
    let took = signalled.elapsed();

    assert_eq!(said.code, Some(0), "{}", said.stderr);
    // The last answer that was seen: half, because a busy machine asks seldom.
    assert!(answered >= expected.start / 2, "closed after {answered:?}");
    assert!(expected.contains(&took), "exited after {took:?}");
}

/// How often a state is asked for that nobody announces.
const POLL: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        thread::sleep(POLL);
    }
}

/// Where the processes of one test run.
struct Container(Namespace);

enum Namespace {
    /// A mount namespace with a `/dev/shm` of its own, as long as `holder` lives.
    Own { holder: Child },
    /// That of another process, and the process namespace of its children.
    #[cfg(target_os = "linux")]
    Inside { process: u32 },
    /// That of the test, for one test at a time.
    Everyones { _turns: [File; 3] },
}

impl Container {
    fn new() -> Self {
        Self(
            Namespace::unshare("", &[]).unwrap_or_else(|_| Namespace::Everyones {
                _turns: ["hello", "service", "worker"].map(exclusive),
            }),
        )
    }

    /// `program` behind the words of a `wrapper` such as `setpriv`, with nothing in its
    /// environment that would configure an example.
    fn command(&self, wrapper: &[&str], program: impl AsRef<OsStr>) -> Command {
        let mut words = self.0.entrance();
        words.extend(wrapper.iter().map(OsString::from));
        words.push(program.as_ref().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for name in [
            "DRAIN_SECONDS",
            "GREETING_FILE",
            "HEALTHCHECK_URL",
            "HEALTH_ADDRESS",
            "HOST",
            "NO_COLOR",
            "PORT",
            "REDIS",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn example(&self, name: &str) -> Command {
        self.command(&[], example(name))
    }

    fn service(&self, variables: &[(&str, &str)]) -> Running<'_> {
        let mut command = self.example("service");
        self.start("service", command.envs(variables.iter().copied()))
    }

    fn worker(&self) -> Running<'_> {
        self.start("worker", &mut self.example("worker"))
    }

    /// Starts an example on a port of the system's choice, and returns when it has answered.
    fn start(&self, name: &'static str, command: &mut Command) -> Running<'_> {
        command
            .env("PORT", "0")
            .env("HEALTH_ADDRESS", "127.0.0.1:0");
        let process = Process::spawn(command);
        let mut address: SocketAddr = eventually("the address is printed", PATIENCE, || {
            let text = process.stdout.text();
            let line = text.split_inclusive('\n').next()?.strip_suffix('\n')?;
            line.rsplit(' ').next()?.parse().ok()
        });
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        eventually("the service lives", PATIENCE, || {
            get(address, "/health/live").ok()
        });
        Running {
            container: self,
            name,
            address,
            process,
        }
    }
}

impl Namespace {
    /// The error says why that cannot be had here.
    fn unshare(setup: &str, options: &[&str]) -> Result<Self, String> {
        let script = format!(
            "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && {} && echo ready && exec cat",
            if setup.is_empty() { "true" } else { setup }
        );
        let holder = Command::new("unshare")
            .arg("--mount")
            .args(options)
            .args(["--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut own = Self::Own { holder };
        let Self::Own { holder } = &mut own else {
            unreachable!("it was made one line above");
        };
        let mut ready = String::new();
        let mut stdout = BufReader::new(holder.stdout.take().expect("it is piped"));
        match stdout.read_line(&mut ready) {
            Ok(1..) => Ok(own),
            _ => Err(format!(
                "not permitted here: unshare --mount {options:?}, {setup:?}"
            )),
        }
    }

    /// The words that bring a program into this namespace.
    fn entrance(&self) -> Vec<OsString> {
        match self {
            Self::Own { holder } => {
                let id = holder.id();
                vec![
                    "nsenter".into(),
                    format!("--mount=/proc/{id}/ns/mnt").into(),
                    format!("--net=/proc/{id}/ns/net").into(),
                    "--".into(),
                ]
            }
            #[cfg(target_os = "linux")]
            Self::Inside { process } => vec![
                "nsenter".into(),
                format!("--mount=/proc/{process}/ns/mnt").into(),
                format!("--pid=/proc/{process}/ns/pid_for_children").into(),
                "--".into(),
            ],
            Self::Everyones { .. } => Vec::new(),
        }
    }

    /// A process that is in this namespace.
    #[cfg(target_os = "linux")]
    fn process(&self) -> PathBuf {
        match self {
            Self::Own { holder } => Path::new("/proc").join(holder.id().to_string()),
            Self::Inside { process } => Path::new("/proc").join(process.to_string()),
            Self::Everyones { .. } => "/proc/self".into(),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Self::Own { holder } = self {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// An example that serves.
struct Running<'c> {
    container: &'c Container,
    name: &'static str,
    /// Where it can be reached.
    address: SocketAddr,
    process: Process,
}

impl Running<'_> {
    fn get(&self, path: &str) -> Answer {
        get(self.address, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A request for `/` on its way.
    fn visit(&self) -> thread::JoinHandle<io::Result<Answer>> {
        let address = self.address;
        thread::spawn(move || get(address, "/"))
    }

    /// What the engine executes.
    fn healthcheck(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.container.example(self.name);
        if !cfg!(target_os = "linux") {
            command.env("PORT", self.address.port().to_string());
        }
        run(command.arg("healthcheck").args(arguments))
    }

    /// Waits until the signal that was sent has arrived, which must be at once.
    fn drains(&self) {
        eventually("traffic is turned away", AT_ONCE, || {
            (self.get("/health/ready").verdict() == "503 fail: draining").then_some(())
        });
    }

    fn finish(self, within: Duration) -> Outcome {
        self.process.finish(within)
    }
}

impl Deref for Running<'_> {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// A child process, killed when it is dropped.
struct Process {
    child: Child,
    started: Instant,
    stdout: Stream,
    stderr: Stream,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Stream::follow(child.stdout.take().expect("it is piped"));
        let stderr = Stream::follow(child.stderr.take().expect("it is piped"));
        Self {
            child,
            started: Instant::now(),
            stdout,
            stderr,
        }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        // The shell's own: not every system has the program.
        let id = self.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$0" "$1""#, name, &id])
            .status();
        assert!(sent.expect("a shell").success(), "SIG{name} to {id}");
    }

    /// Waits for its end.
    fn finish(mut self, within: Duration) -> Outcome {
        let code = eventually("the process ends", within, || {
            self.child.try_wait().expect("it is our child")
        });
        let took = self.started.elapsed();
        eventually("its output ends", PATIENCE, || {
            (self.stdout.reader.is_finished() && self.stderr.reader.is_finished()).then_some(())
        });
        Outcome {
            code: code.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has written so far.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Stream {
    fn follow(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                lock(&ours).extend_from_slice(&chunk[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let id = std::process::id();
        let path = env::temp_dir().join(format!("lifesign-test-{id}-{name}"));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo").success(), "mkfifo {path:?}");
}

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.unwrap_or_else(|| panic!("{name} in {self:?}")).1
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Code, status and reason: `503 fail: draining`.
    fn verdict(&self) -> String {
        let report = self.json();
        let status = report["status"].as_str().expect("a status");
        match report.get("output") {
            Some(output) => format!("{} {status}: {}", self.code, output.as_str().expect("text")),
            None => format!("{} {status}", self.code),
        }
    }
}

fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(address, "GET", path)
}

/// One request on a connection of its own.
fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let incomplete = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(incomplete)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        code: code.ok_or_else(incomplete)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// A Redis that does what the test says.
struct Redis {
    address: String,
    /// Bound, so that the port is ours; connections are refused until it listens.
    socket: Option<Socket>,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    /// By command; `None` is a reply that is not given yet.
    replies: Mutex<BTreeMap<&'static str, Option<&'static str>>>,
    changed: Condvar,
    asked: Mutex<Vec<String>>,
}

impl Redis {
    fn refusing() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port");
        let address = socket.local_addr().expect("its address").as_socket();
        let address = address.expect("of the family that was bound");
        let redis = Self {
            address: address.to_string(),
            socket: Some(socket),
            script: Arc::default(),
        };
        redis.answer("PING", Some("+PONG"));
        redis.answer("INCR", Some(":1"));
        redis
    }

    fn running() -> Self {
        let mut redis = Self::refusing();
        redis.listen();
        redis
    }

    fn listen(&mut self) {
        let socket = self.socket.take().expect("it listens once");
        socket.listen(64).expect("a bound socket");
        let listener = TcpListener::from(socket);
        let script = Arc::clone(&self.script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                thread::spawn(move || script.play(stream));
            }
        });
    }

    /// Sets the reply to a command, for those that already wait for it too.
    fn answer(&self, command: &'static str, reply: Option<&'static str>) {
        lock(&self.script.replies).insert(command, reply);
        self.script.changed.notify_all();
    }

    /// How often it was sent the command.
    fn asked(&self, command: &str) -> usize {
        let asked = lock(&self.script.asked);
        asked
            .iter()
            .filter(|line| line.starts_with(command))
            .count()
    }

    fn await_command(&self, command: &str) {
        eventually(command, PATIENCE, || {
            (self.asked(command) > 0).then_some(())
        });
    }

    /// The service's variable that points here.
    fn variable(&self) -> (&str, &str) {
        ("REDIS", &self.address)
    }
}

impl Script {
    fn play(&self, mut stream: TcpStream) {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            return;
        }
        lock(&self.asked).push(line.clone());
        let command = line.split_whitespace().next().unwrap_or_default();
        let replies = self
            .changed
            .wait_while(lock(&self.replies), |replies| {
                replies.get(command).is_some_and(Option::is_none)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let reply = replies.get(command).copied().flatten();
        // The one who asked may have given up.
        let _ = write!(stream, "{}\r\n", reply.unwrap_or("-ERR unknown command"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
