//! The checks of `examples/service.rs` when they fail, hang and recover.

use std::time::{Duration, Instant};

use crate::{
    client::ROUTES,
    container::{Container, LONG_DRAIN, assert_healthy, assert_unhealthy},
    process::{AT_ONCE, TIMEOUT, TemporaryDirectory, eventually, make_fifo},
    redis::Redis,
};

#[test]
fn a_required_store_delays_readiness_until_it_is_up() {
    let container = Container::new();
    let mut redis = Redis::refusing();
    let service = container.service(&[redis.variable()]);

    for path in ["/health", "/health/ready"] {
        let response = service.get(path);
        assert_eq!(
            response.verdict(),
            "503 fail: starting: waiting for store",
            "{path}"
        );
    }
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    let waiting = "503 fail: starting: waiting for store";
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
fn a_hanging_store_only_fails_readiness() {
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");

    redis.set_reply("PING", None);
    let mut slowest = Duration::ZERO;
    eventually("readiness fails", Duration::from_secs(2), || {
        let started = Instant::now();
        let response = service.get("/health/ready");
        slowest = slowest.max(started.elapsed());
        (response.verdict() == "503 fail: store timed out").then_some(())
    });
    let started = Instant::now();
    let health = service.get("/health");
    slowest = slowest.max(started.elapsed());

    assert_eq!(health.verdict(), "200 warn: store timed out");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    assert_healthy(&service.healthcheck(&[]), "warn: store timed out");
    assert_unhealthy(
        &service.healthcheck(&["--ready"]),
        "503 fail: store timed out",
    );
    assert_healthy(&service.healthcheck(&["--live"]), "pass");

    redis.set_reply("PING", Some("+PONG"));
    eventually("traffic is taken again", Duration::from_secs(2), || {
        (service.get("/health/ready").verdict() == "200 pass").then_some(())
    });
    assert_eq!(service.get("/health").verdict(), "200 pass");
}

#[test]
fn check_errors_are_only_logged_once_per_transition() {
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
        redis.set_reply("PING", Some("-ERR cannot reach redis://svc:hunter2@db"));
        let runs = redis.count("PING");
        let mut sent = String::new();
        eventually("the check is run again and again", TIMEOUT, || {
            for path in ROUTES {
                let response = service.get(path);
                sent.push_str(&response.head);
                sent.push_str(&response.body);
            }
            for option in [&[][..], &["--ready"], &["--live"]] {
                let outcome = service.healthcheck(option);
                sent.push_str(&outcome.stdout);
                sent.push_str(&outcome.stderr);
            }
            (redis.count("PING") >= runs + 2).then_some(())
        });
        assert!(sent.contains("unhealthy: 503 fail: store failed"));
        assert!(!sent.contains(SECRET), "{sent}");
        assert_eq!(logged(SECRET), outage, "{}", service.stderr.text());

        redis.set_reply("PING", Some("+PONG"));
        eventually("the log says so", TIMEOUT, || {
            let ready = service.get("/health/ready").verdict() == "200 pass";
            (ready && logged("check recovered") >= outage).then_some(())
        });
    }
    assert_eq!(logged("check recovered"), 2, "{}", service.stderr.text());
    assert_eq!(logged("check failed"), 2, "{}", service.stderr.text());
}

#[test]
fn a_failing_optional_check_only_warns() {
    let container = Container::new();
    let service = container.service(&[("GREETING_FILE", "/nowhere/greeting")]);

    for path in ["/health", "/health/ready"] {
        let response = service.get(path);
        assert_eq!(response.verdict(), "200 warn: greeting failed", "{path}");
        assert!(!response.body.contains("nowhere"), "{response:?}");
    }
    assert_eq!(service.get("/health/live").verdict(), "200 pass");
    assert_healthy(&service.healthcheck(&[]), "warn: greeting failed");
    assert_healthy(&service.healthcheck(&["--ready"]), "warn: greeting failed");
    assert_eq!(service.get("/").body, "Hello, visitor 1\n");
}

#[test]
fn a_blocked_check_does_not_delay_the_exit() {
    let container = Container::new();
    let directory = TemporaryDirectory::new("fifo");
    let fifo = directory.path("greeting");
    make_fifo(&fifo);
    let greeting = fifo.to_str().expect("UTF-8");
    let service = container.service(&[LONG_DRAIN, ("GREETING_FILE", greeting)]);
    assert_eq!(
        service.get("/health").verdict(),
        "200 warn: greeting timed out"
    );

    service.signal("TERM");
    service.drains();
    service.signal_again("TERM");
    let outcome = service.finish(AT_ONCE);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_stopped_service_is_unhealthy_within_the_timeout() {
    let container = Container::new();
    let service = container.service(&[]);
    assert_healthy(&service.healthcheck(&[]), "pass");

    service.signal("STOP");
    let outcome = service.healthcheck(&["--timeout", "1s"]);
    service.signal("CONT");

    assert_unhealthy(&outcome, "no response within 1s");
    let expected = Duration::from_millis(1000)..Duration::from_millis(2000);
    assert!(expected.contains(&outcome.took), "{outcome:?}");
    eventually("the service is well again", TIMEOUT, || {
        (service.healthcheck(&[]).code == Some(0)).then_some(())
    });
}
