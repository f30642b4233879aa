//! The examples after a signal: their responses during the drain, and their exit.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    client::get,
    container::{Container, LONG_DRAIN, assert_drains_for, assert_healthy, assert_unhealthy},
    process::{AT_ONCE, TIMEOUT, eventually},
    redis::Redis,
};

#[test]
fn draining_fails_readiness_at_once() {
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
fn draining_finishes_requests_and_accepts_new_ones() {
    let container = Container::new();
    let redis = Redis::running();
    let service = container.service(&[LONG_DRAIN, redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");
    redis.set_reply("INCR", None);
    let visit = service.visit();
    redis.await_command("INCR");

    service.signal("TERM");
    service.drains();
    redis.set_reply("INCR", Some(":7"));
    let in_flight = visit.join().expect("no panic").expect("a response");
    let new = service.get("/");

    assert_eq!(
        (in_flight.code, in_flight.body.as_str()),
        (200, "Hello, visitor 7\n")
    );
    assert_eq!((new.code, new.body.as_str()), (200, "Hello, visitor 7\n"));
}

#[test]
fn a_request_longer_than_the_drain_gets_its_response() {
    let container = Container::new();
    let redis = Redis::running();
    let host = ("HOST", "127.0.0.1");
    let service = container.service(&[host, ("DRAIN_SECONDS", "0"), redis.variable()]);
    assert_eq!(service.get("/health/ready").verdict(), "200 pass");
    redis.set_reply("INCR", None);
    let visit = service.visit();
    redis.await_command("INCR");

    service.signal("TERM");
    eventually("the port is closed", TIMEOUT, || {
        get(service.address, "/health").err()
    });
    if cfg!(target_os = "linux") {
        assert_unhealthy(
            &service.healthcheck(&[]),
            &format!(
                "connect to 127.0.0.1:{}: connection refused",
                service.address.port()
            ),
        );
    }
    redis.set_reply("INCR", Some(":8"));
    let in_flight = visit.join().expect("no panic").expect("a response");
    let outcome = service.finish(TIMEOUT);

    assert_eq!(
        (in_flight.code, in_flight.body.as_str()),
        (200, "Hello, visitor 8\n")
    );
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
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

        service.signal_again(second);
        let outcome = service.finish(AT_ONCE);

        assert_eq!(
            outcome.code,
            Some(0),
            "{first}, {second}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn the_port_closes_after_the_drain_delay() {
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
fn a_worker_without_a_job_exits_at_once() {
    let container = Container::new();
    let worker = container.worker();
    assert_eq!(worker.get("/health/ready").verdict(), "200 pass");

    worker.signal("TERM");
    let outcome = worker.finish(AT_ONCE);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_recovered_store_does_not_end_the_drain() {
    let container = Container::new();
    let mut redis = Redis::refusing();
    let service = container.service(&[LONG_DRAIN, redis.variable()]);
    assert_eq!(
        service.get("/health").verdict(),
        "503 fail: starting: waiting for store"
    );

    service.signal("TERM");
    service.drains();
    redis.listen();
    // The client repeats its requests for 1.5 s, because results are cached for one second.
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(service.get("/health/ready").verdict(), "503 fail: draining");
    }

    assert_eq!(service.get("/health").verdict(), "503 fail: draining");
}

#[test]
fn idle_connections_do_not_delay_the_exit() {
    let container = Container::new();
    let service = container.service(&[LONG_DRAIN]);
    let silent = TcpStream::connect(service.address).expect("a connection");
    let mut kept = TcpStream::connect(service.address).expect("a connection");
    kept.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("a request");
    let mut response = [0; 512];
    let length = kept.read(&mut response).expect("a response");
    assert!(response[..length].starts_with(b"HTTP/1.1 200"));

    service.signal("TERM");
    service.drains();
    service.signal_again("TERM");
    let outcome = service.finish(AT_ONCE);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    drop((silent, kept));
}
