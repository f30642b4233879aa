//! The image of the reference service, which `make image` builds from this repository.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test image reference`. The first build takes
//! minutes, and later builds find its layers in the cache. The tests need git, make and tar besides
//! Docker.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use lifesign_e2e::{REPOSITORY, docker, get, manifest_field, output, parse};
use serde_json::{Value, json};

use crate::engine::{BASES, Container, Files, Image, bases, git, image, images, nanoseconds};

#[test]
fn a_container_turns_healthy_within_two_seconds() {
    let container = Container::run(&image(), &[]);

    let probe = container.turns("healthy");

    let log = container.log();
    let ready = log
        .lines()
        .find(|line| line.ends_with(" ready"))
        .expect("its log");
    let ready = nanoseconds(ready.split(' ').next().unwrap());
    let healthy = nanoseconds(probe["End"].as_str().unwrap());
    let took = Duration::from_nanos(healthy.saturating_sub(ready));
    assert!(took < Duration::from_secs(2), "{took:?}");

    assert_eq!(probe["ExitCode"], 0);
    let output = probe["Output"].as_str().unwrap();
    assert!(output.starts_with("healthy: pass in "), "{output:?}");
    assert!(output.ends_with(" ms\n"), "{output:?}");
}

#[test]
fn route_subcommand_and_labels_name_the_same_build() {
    let image = image();
    let container = Container::run(&image, &["--publish=127.0.0.1::8080"]);
    container.turns("healthy");

    let address = docker(["port", &container.name, "8080/tcp"]);
    let (status, route) = get(address.parse().expect("an address"), "/health");
    assert_eq!(status, 200, "{route}");
    let route = parse(&route);
    let subcommand = parse(&docker(["run", "--rm", &image.tag, "version", "--json"]));

    // The Makefile takes the commit from git.
    let commit = git(&["rev-parse", "HEAD"]);
    let date = git(&["show", "--no-patch", "--format=%ct", "HEAD"]);
    for reported in [&route, &subcommand] {
        assert_eq!(reported["commit"], commit);
        assert_eq!(reported["version"], image.label("version"));
        assert_eq!(reported["buildDate"], image.label("created"));
    }
    assert_eq!(image.label("revision"), commit);
    let seconds = output(Command::new("date").args(["--date", &image.label("created"), "+%s"]));
    assert_eq!(seconds, date);
    assert_eq!(image.label("title"), "service");
    assert_eq!(image.label("description"), manifest_field("description"));
    assert_eq!(image.label("licenses"), manifest_field("license"));
    // The package has no repository URL yet, so the label says "unknown".
    assert_eq!(image.label("source"), "unknown");
}

#[test]
fn every_base_has_user_port_probe_and_labels() {
    let seconds = |seconds: u64| seconds * 1_000_000_000;
    let bases = bases();
    for (image, (name, base)) in images().iter().zip(BASES) {
        let config = image.config();

        assert_eq!(config["User"], "65532:65532", "{name}");
        assert_eq!(config["WorkingDir"], "/", "{name}");
        assert_eq!(config["ExposedPorts"], json!({ "8080/tcp": {} }), "{name}");
        assert_eq!(config["Entrypoint"], json!(["/app"]), "{name}");
        assert_eq!(config["Cmd"], Value::Null, "{name}");
        assert_eq!(
            config["Healthcheck"],
            json!({
                "Test": ["CMD", "/app", "healthcheck"],
                "Interval": seconds(30),
                "Timeout": seconds(5),
                "StartPeriod": seconds(30),
                "StartInterval": seconds(1),
                "Retries": 3,
            }),
            "{name}"
        );
        let base = bases.iter().find(|(argument, _)| argument == base);
        let base = base.map_or("scratch", |(_, image)| image);
        assert_eq!(image.label("base.name"), base, "{name}");
        assert_eq!(image.label("title"), "service", "{name}");
        assert_eq!(
            image.label("revision"),
            git(&["rev-parse", "HEAD"]),
            "{name}"
        );
    }
}

#[test]
fn the_default_image_is_under_four_megabytes_with_its_base() {
    let size = docker(["image", "inspect", "--format={{.Size}}", &image().tag]);

    let size: u64 = size.parse().unwrap();
    assert!(size < 4_000_000, "{size} bytes");
}

#[test]
fn every_base_runs_locked_down_in_16_mib() {
    let containers = images().map(|image| {
        let locked_down = [
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--network=none",
            "--user=12345:12345",
            "--memory=16m",
            "--pids-limit=16",
            // With the image's own interval, a container that is not healthy after the start period
            // would wait for 30 s.
            "--health-interval=1s",
        ];
        Container::run(&image, &locked_down)
    });

    for container in &containers {
        container.turns("healthy");
    }
    for container in &containers {
        let state = container.state();
        assert_eq!(state["Health"]["Status"], "healthy", "{state:#}");
        assert_eq!(state["OOMKilled"], false);
    }
}

#[test]
fn an_image_is_its_base_and_the_executable() {
    let bases = bases();
    for (image, (name, base)) in images().iter().zip(BASES) {
        let base = bases.iter().find(|(argument, _)| argument == base);
        let base = match base {
            Some((_, base)) => Files::of(base),
            None => Files::of(&Image::empty().tag),
        };
        let files = Files::of(&image.tag);

        let added: Vec<_> = files
            .0
            .iter()
            .filter(|file| !base.0.contains(file))
            .collect();
        assert_eq!(added.len(), 1, "{name}: {added:?}");
        assert_eq!(added[0].name, "app", "{name}");
        assert_eq!(added[0].mode, "-r-xr-xr-x", "{name}");
        let lost: Vec<_> = base
            .0
            .iter()
            .filter(|file| !files.0.contains(file))
            .collect();
        assert!(lost.is_empty(), "{name}: {lost:?}");

        if !name.contains("scratch") && !name.contains("distroless") {
            continue;
        }
        let tools = [
            "apk", "apt", "apt-get", "ash", "bash", "busybox", "dash", "dpkg", "perl", "python3",
            "sh",
        ];
        for file in &files.0 {
            let name = file.name.rsplit('/').next().unwrap_or_default();
            let runs = file.mode.starts_with(['-', 'l']) && file.mode.contains('x');
            assert!(!(runs && tools.contains(&name)), "{name}: {file:?}");
            assert!(!file.mode[..7].contains(['s', 'S']), "{name}: {file:?}");
        }
    }
}

#[test]
fn the_probe_finds_the_service_wherever_it_listens() {
    for elsewhere in [["PORT=9090", "HOST=0.0.0.0"], ["PORT=0", "HOST=127.0.0.2"]] {
        let options = elsewhere.map(|variable| format!("--env={variable}"));
        let container = Container::run(&image(), &options.each_ref().map(String::as_str));

        container.turns("healthy");
    }
}

#[test]
fn a_hanging_service_is_unhealthy_with_a_reason() {
    let container = Container::run(&image(), &["--health-interval=1s"]);
    container.turns("healthy");

    // The signal stops only the service. `docker pause` would stop the engine's probes, too.
    docker(["kill", "--signal=STOP", &container.name]);
    let probe = container.turns("unhealthy");

    assert_eq!(probe["ExitCode"], 1);
    assert_eq!(
        probe["Output"],
        "unhealthy: no response within 3s (GET http://[::1]:8080/health)\n"
    );
    assert_eq!(container.state()["Health"]["FailingStreak"], 3);
    docker(["kill", "--signal=CONT", &container.name]);
    container.turns("healthy");
}

#[test]
fn a_stopped_container_drains_and_exits_by_itself() {
    let container = Container::run(&image(), &[]);
    container.turns("healthy");

    let start = Instant::now();
    docker(["stop", &container.name]);
    let took = start.elapsed();

    // The drain delay is 5 s. After 10 s Docker would have killed the process, with exit code 137.
    assert!(took >= Duration::from_secs(5), "no drain: {took:?}");
    assert_eq!(container.state()["ExitCode"], 0, "after {took:?}");
}

#[test]
fn a_new_commit_or_version_compiles_only_the_last_crate() {
    let _layers = image();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();

    for argument in ["GIT_COMMIT", "VERSION"] {
        let argument = format!("--build-arg={argument}={now:040}");
        let image = Image::build(
            Path::new(REPOSITORY),
            &["--build-arg=EXAMPLE=service", &argument],
        )
        .unwrap();

        assert_eq!(image.compiled(), ["lifesign"]);
    }
}
