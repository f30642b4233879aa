//! How a container ends: with the service as PID 1, under an init process, and behind a shell.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::engine::{Container, Image, Program, TIMEOUT, docker, eventually, get, tools};

use crate::process::connect;

const DELAY: Duration = Duration::from_secs(5);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum delay of a container's end, because a busy engine is slow. It is less than the
/// difference between the expected times.
const MARGIN: Duration = Duration::from_millis(2500);

const ADDRESS: &str = "--env=ADDRESS=0.0.0.0:8080";

#[test]
fn a_start_is_abandoned_within_a_second() {
    let image = Image::of(Program::Lifecycle);
    for mode in ["startup", "serve_after"] {
        let container = Container::run(&image.tag, &[ADDRESS], &[mode]);
        // The kernel discards a signal for which PID 1 has no handler, so this waits until the
        // program has installed one.
        eventually("it starts", TIMEOUT, || match mode {
            "startup" => container.logs().contains("migrating").then_some(()),
            _ => (get(container.address(8080), "/").0 == 503).then_some(()),
        });

        let (code, took) = stop(&container);

        println!("{mode} as PID 1: {took:.2?}, exit code {code}");
        assert_eq!(code, 1, "{mode}: {}", container.logs());
        assert!(took < MARGIN, "{mode}: {took:?}");
        assert!(
            container.logs().contains("start-up abandoned: SIGTERM"),
            "{}",
            container.logs()
        );
    }
}

#[test]
fn a_stop_ends_whatever_a_client_does_and_whoever_is_pid_1() {
    let image = Image::of(Program::Lifecycle);
    for (client, request, ends) in [
        ("half a head", "GET / HTTP/1.1\r\nHost", DELAY),
        (
            "event stream",
            "GET /events HTTP/1.1\r\nHost: test\r\n\r\n",
            DELAY + SHUTDOWN_TIMEOUT,
        ),
    ] {
        for init in [&[ADDRESS][..], &[ADDRESS, "--init"]] {
            let container = Container::run(&image.tag, init, &["serve"]);
            let _held = hold(container.address(8080), request);

            let (code, took) = stop(&container);

            println!("{client}, {init:?}: {took:.2?}, exit code {code}");
            assert_eq!(code, 0, "{init:?}: {}", container.logs());
            assert!(
                (ends..ends + MARGIN).contains(&took),
                "{client}, {init:?}: {took:?}"
            );
        }
    }
}

#[test]
fn a_third_signal_ends_pid_1_at_once() {
    let image = Image::of(Program::Lifecycle);
    let container = Container::run(&image.tag, &[ADDRESS], &["serve"]);
    let _held = hold(
        container.address(8080),
        "GET /events HTTP/1.1\r\nHost: test\r\n\r\n",
    );

    for _ in 0..3 {
        docker(["kill", "--signal=TERM", &container.name]);
        thread::sleep(Duration::from_millis(300));
    }

    eventually("it ends", Duration::from_secs(2), || {
        (container.state()["Running"] == false).then_some(())
    });
    assert_eq!(container.state()["ExitCode"], 143, "{}", container.logs());
}

#[test]
fn a_shell_under_dumb_init_may_be_between() {
    let program = Program::Lifecycle.compile();
    // dumb-init also sends the signal to the shell. The shell ends at once, and the container with
    // it, unless the shell has a trap or was replaced by the program.
    for script in ["exec /app serve", "trap : TERM; /app serve; exit $?"] {
        // The tools image has PostgreSQL's stop signal, which is not SIGTERM.
        let options = [ADDRESS, "--entrypoint=dumb-init", "--stop-signal=TERM"];
        let container = Container::create(tools(), &options, &["sh", "-c", script], &[]);
        let to = format!("{}:/app", container.name);
        docker(["cp", "--quiet", program.to_str().expect("UTF-8"), &to]);
        container.start();
        let address = container.address(8080);
        eventually("it serves", TIMEOUT, || {
            (get(address, "/").0 == 200).then_some(())
        });

        let (code, took) = stop(&container);

        println!("dumb-init sh -c {script:?}: {took:.2?}, exit code {code}");
        assert_eq!(code, 0, "{script}: {}", container.logs());
        assert!(
            (DELAY..DELAY + MARGIN).contains(&took),
            "{script}: {took:?}"
        );
    }
}

/// Waits until the service responds, and then sends a request on a connection that stays open.
fn hold(address: SocketAddr, request: &str) -> TcpStream {
    eventually("it serves", TIMEOUT, || {
        (get(address, "/").0 == 200).then_some(())
    });
    let mut stream = connect(address).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    if request.ends_with("\r\n\r\n") {
        stream.read_exact(&mut [0]).expect("a response");
    }
    stream
}

/// Runs `docker stop`. Returns the container's exit code, and how long the stop took.
fn stop(container: &Container) -> (i64, Duration) {
    let start = Instant::now();
    assert!(container.stopping().wait().expect("docker").success());
    let took = start.elapsed();
    (
        container.state()["ExitCode"].as_i64().expect("a number"),
        took,
    )
}
