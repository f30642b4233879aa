//! Podman: images in Docker and OCI format, and the pod of `examples/deploy/kubernetes-exec.yaml`.
//!
//! Podman runs health checks with systemd timers. There is no systemd in the test's container, so
//! the tests run the timers' command, `podman healthcheck run`.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy podman`

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lifesign_e2e::REPOSITORY;
use serde_json::{Value, json};

use lifesign_e2e::engine::{
    BASE, Container, Program, TIMEOUT, docker, eventually, parse, podman, tools, unique,
    write_context,
};

/// The name that Podman gives to the container in the pod of kubernetes-exec.yaml.
const POD: &str = "my-service-pod-my-service";

#[test]
fn only_format_docker_keeps_the_healthcheck() {
    let podman = Podman::new();
    podman.build(Program::Broken, "", &["--format=docker", "--tag=docker"]);
    let (_, warning) = podman.build(Program::Broken, "", &["--tag=oci"]);

    podman.ok(&["run", "--detach", "--name=docker", "docker"]);
    podman.ok(&["run", "--detach", "--name=oci", "oci"]);

    podman.turns("docker", 0);
    let health = podman.health("docker");
    assert_eq!(health["Status"], "healthy");
    let output = health["Log"][0]["Output"].as_str().unwrap();
    assert!(output.starts_with("healthy: pass in "), "{output:?}");
    assert!(
        warning.contains("HEALTHCHECK is not supported for OCI image format"),
        "{warning}"
    );
    let (code, printed) = podman.run(&["healthcheck", "run", "oci"]);
    assert_eq!(code, 125);
    assert!(printed.contains("has no defined healthcheck"), "{printed}");
}

#[test]
fn pod_probes_report_each_state() {
    let podman = Podman::new();
    let codes = || ["--live", "--ready", "/health"].map(|probe| podman.asks(probe).0);
    let play = |how: &str| podman.play(Program::Broken, &format!("ENV BREAK={how}"));

    // A service that never finishes its start is not ready, but it is live, so that it is not
    // restarted.
    play("start");
    podman.turns(POD, 0);
    assert_eq!(podman.health(POD)["Status"], "healthy");
    assert_eq!(codes(), [0, 1, 1]);

    // A service that works is ready until it drains.
    play("");
    podman.turns(POD, 0);
    assert_eq!(codes(), [0, 0, 0]);
    podman.ok(&["kill", "--signal=TERM", POD]);
    eventually("draining", Duration::from_secs(3), || {
        (podman.asks("--ready").0 == 1).then_some(())
    });
    assert_eq!(podman.run(&["healthcheck", "run", POD]).0, 0);

    // A broken service fails three times, which is the `failureThreshold`, and is restarted.
    play("panic");
    podman.turns(POD, 0);
    let started = podman.inspect(POD, ".State.StartedAt");
    podman.turns(POD, 1);
    assert_eq!(codes(), [1, 1, 1]);
    let log = podman.health(POD)["Log"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        log["Output"],
        "unhealthy: 503 fail: heartbeat worker was dropped (GET http://[::1]:8080/health/live)\n"
    );
    for _ in 0..2 {
        podman.run(&["healthcheck", "run", POD]);
    }
    eventually("a restart", TIMEOUT, || {
        (podman.inspect(POD, ".State.StartedAt") != started).then_some(())
    });
}

#[test]
fn a_failing_check_restarts_no_container_of_a_pod() {
    let podman = Podman::new();
    let say = |live: &str, ready: &str, health: &str| {
        eventually(&format!("{live}, {ready}, {health}"), TIMEOUT, || {
            let probe = |probe| podman.asks(probe).1;
            ([probe("--live"), probe("--ready"), probe("/health")] == [live, ready, health])
                .then_some(())
        });
        assert_eq!(podman.run(&["healthcheck", "run", POD]).0, 0);
        assert_eq!(podman.health(POD)["Status"], "healthy");
    };
    let (pass, warn) = ("healthy: pass", "healthy: warn");

    // An optional check fails until its file exists. The file is on a tmpfs, because the root
    // filesystem is read-only.
    podman.play(Program::Service, "ENV GREETING_FILE=/dev/shm/greeting");
    say(pass, warn, warn);
    let root = format!("/proc/{}/root", podman.inspect(POD, ".State.Pid"));
    let write = format!("echo Hi >{root}/dev/shm/greeting");
    docker(["exec", &podman.container.name, "sh", "-c", &write]);
    say(pass, pass, pass);

    // A required check fails while its database is paused.
    let postgres = Container::run(
        tools(),
        &[
            "--env=POSTGRES_USER=service",
            "--env=POSTGRES_PASSWORD=secret",
        ],
        &[],
    );
    let url = format!(
        "postgres://service:secret@{}/service",
        postgres.address(5432)
    );
    podman.play(Program::Postgres, &format!("ENV DATABASE_URL={url}"));
    say(pass, pass, pass);
    docker(["pause", &postgres.name]);
    say(pass, "unhealthy: 503 fail: postgres timed out", warn);
    docker(["unpause", &postgres.name]);
    say(pass, pass, pass);
}

#[test]
fn a_pod_gets_the_files_limits_and_rights() {
    let podman = Podman::new();
    podman.play(Program::Broken, "");

    let command = |probe: &str| parse(&podman.inspect(POD, &format!(".Config.{probe}.Test")));
    let live = json!(["CMD", "/app", "healthcheck", "--live"]);
    assert_eq!(
        [command("Healthcheck"), command("StartupHealthCheck")],
        [live.clone(), live]
    );
    assert_eq!(podman.inspect(POD, ".HostConfig.ReadonlyRootfs"), "true");
    assert_eq!(podman.inspect(POD, ".EffectiveCaps"), "null");
    assert_eq!(
        podman.inspect(POD, ".HostConfig.Memory"),
        (64 << 20).to_string()
    );
    assert_eq!(podman.inspect(POD, ".Config.User"), "\"65532:65532\"");

    // kubernetes-exec.yaml warns that Podman translates `httpGet` to a command that needs a shell
    // and curl.
    podman.ok(&["kube", "play", "--replace", "/deploy/kubernetes.yaml"]);
    let translated = command("Healthcheck");
    assert_eq!([&translated[0], &translated[1]], ["CMD-SHELL", "curl"]);
}

/// A container that runs Podman, removed when dropped.
struct Podman {
    container: Container,
}

impl Podman {
    fn new() -> Self {
        let podman = Self {
            container: Container::run(podman(), &["--privileged", "--init"], &[]),
        };
        let mut save = Command::new("docker");
        let mut save = save
            .args(["save", BASE])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let load = Command::new("docker")
            .args([
                "exec",
                "--interactive",
                &podman.container.name,
                "podman",
                "load",
                "--quiet",
            ])
            .stdin(save.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(save.wait().unwrap().success());
        assert!(
            load.status.success(),
            "{}",
            String::from_utf8_lossy(&load.stderr)
        );
        podman.copy(
            Path::new(REPOSITORY).join("examples/deploy").as_path(),
            "/deploy",
        );
        podman
    }

    fn copy(&self, directory: &Path, to: &str) {
        let to = format!("{}:{to}", self.container.name);
        docker(["cp", "--quiet", directory.to_str().unwrap(), &to]);
    }

    fn build(&self, program: Program, line: &str, options: &[&str]) -> (i32, String) {
        let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("podman-{}", unique()));
        write_context(&context, program, line);
        self.copy(&context, "/context");
        fs::remove_dir_all(context).unwrap();
        // `/context` is removed below, because the next copy would otherwise create a subdirectory
        // in it.
        let built = self.run(&[&["build"], options, &["/context"]].concat());
        docker(["exec", &self.container.name, "rm", "-r", "/context"]);
        assert_eq!(built.0, 0, "{}", built.1);
        built
    }

    /// Starts the pod of kubernetes-exec.yaml with this program. `line` is added to the image's
    /// Dockerfile.
    fn play(&self, program: Program, line: &str) {
        let tag = "--tag=registry.example/my-service:1.4.2";
        self.build(program, line, &["--format=docker", tag]);
        self.ok(&["kube", "play", "--replace", "/deploy/kubernetes-exec.yaml"]);
    }

    /// Runs a probe in the pod. Returns its exit code, and its line up to the elapsed time or the
    /// URL.
    fn asks(&self, probe: &str) -> (i32, String) {
        let (code, printed) = self.run(&["exec", POD, "/app", "healthcheck", probe]);
        let printed = printed
            .split(" in ")
            .flat_map(|part| part.split(" (GET "))
            .next()
            .unwrap_or_default();
        (code, printed.to_owned())
    }

    /// Repeats Podman's health check until its exit code is `code`.
    fn turns(&self, name: &str, code: i32) {
        eventually(&format!("exit code {code}"), TIMEOUT, || {
            (self.run(&["healthcheck", "run", name]).0 == code).then_some(())
        });
    }

    fn health(&self, name: &str) -> Value {
        parse(&self.inspect(name, ".State.Health"))
    }

    fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&[
            "inspect",
            "--format",
            &format!("{{{{json {field}}}}}"),
            name,
        ])
    }

    fn ok(&self, words: &[&str]) -> String {
        let (code, printed) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {printed}");
        printed
    }

    /// Runs `podman`, and returns its exit code and output.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new("docker")
            .args(["exec", &self.container.name, "podman"])
            .args(words)
            .output()
            .expect("docker");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
        (output.status.code().expect("an exit code"), printed)
    }
}
