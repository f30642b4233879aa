//! The image for arm64, which is cross-compiled and then run with QEMU.
//!
//! Needs qemu-aarch64-static from Debian's package qemu-user-static.

use std::{
    env, fs,
    path::Path,
    process::{self, Command},
    time::{Duration, Instant},
};

use lifesign_e2e::{REPOSITORY, docker, eventually, get, output, parse, remove};
use serde_json::json;

const VERSION: &str = "9.8.7-test.1";
const GIT_COMMIT: &str = "6b1f0a53c8de947210fe3a85d4c6b79e02f18d3a";
const BUILD_DATE: &str = "2026-11-23T18:31:00Z";

/// Time limit for operations that take about a second on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn the_executable_is_for_arm64_and_needs_no_library() {
    let image = Image::build("elf");
    let container = Container::create(&image, &[]);
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.app", container.name));

    let from = format!("{}:/app", container.name);
    docker(["cp", "--quiet", &from, app.to_str().expect("UTF-8")]);
    let read = output(Command::new("readelf").arg("-hldW").arg(&app));
    fs::remove_file(app).unwrap();

    let machine = read.lines().find(|line| line.contains("Machine:"));
    assert!(machine.unwrap().ends_with(" AArch64"), "{read}");
    assert!(!read.contains("program interpreter"), "{read}");
    assert!(!read.contains("(NEEDED)"), "{read}");
    let format = "--format={{.Os}}/{{.Architecture}}";
    let platform = docker(["image", "inspect", format, &image.tag]);
    assert_eq!(platform, "linux/arm64");
}

#[test]
fn the_service_responds_is_found_and_drains() {
    let image = Image::build("run");
    let container = Container::create(&image, &["--publish=127.0.0.1::8080"]);
    container.start();
    let address = docker(["port", &container.name, "8080/tcp"]);
    let address = address.parse().expect("an address");

    let health = eventually("a response", TIMEOUT, || {
        let (status, body) = get(address, "/health");
        (status == 200).then(|| parse(&body))
    });
    let version = container.app(&["version", "--json"]);
    let healthcheck = container.app(&["healthcheck"]);
    let stopping = Instant::now();
    docker(["stop", &container.name]);
    let stopped = stopping.elapsed();

    let build = json!({
        "name": "service", "version": VERSION, "commit": GIT_COMMIT, "buildDate": BUILD_DATE,
    });
    assert_eq!(parse(&version), build);
    assert_eq!(health["status"], "pass");
    for key in ["version", "commit", "buildDate"] {
        assert_eq!(health[key], build[key], "{health}");
    }
    assert!(
        healthcheck.starts_with("healthy: pass in "),
        "{healthcheck}"
    );
    // After 10 s Docker would have killed the process, with exit code 137.
    assert!(stopped >= Duration::from_secs(1), "no drain: {stopped:?}");
    let code = docker(["inspect", "--format={{.State.ExitCode}}", &container.name]);
    assert_eq!(code, "0");
}

/// The image, removed when dropped.
struct Image {
    tag: String,
}

impl Image {
    fn build(test: &str) -> Self {
        let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
        // The builder's image is named by tag only, because Docker looks a digest up in the
        // registry, which tests must not need.
        let builder = dockerfile.lines().find_map(|line| {
            let (base, _digest) = line.strip_prefix("ARG ")?.split_once("@sha256:")?;
            base.starts_with("RUST_IMAGE=").then_some(base)
        });
        let tag = format!("lifesign-arm64:{test}-{}", process::id());
        let mut build = Command::new("docker");
        build
            .args([
                "build",
                "--platform=linux/arm64",
                "--build-arg=BASE=scratch",
            ])
            .args(["--build-arg", builder.expect("a pinned builder")])
            .arg("--build-arg=EXAMPLE=service")
            .arg(format!("--build-arg=VERSION={VERSION}"))
            .arg(format!("--build-arg=GIT_COMMIT={GIT_COMMIT}"))
            .arg(format!("--build-arg=BUILD_DATE={BUILD_DATE}"))
            .args(["--tag", &tag, "--label", &format!("test={tag}")])
            .arg(REPOSITORY);
        output(&mut build);
        Self { tag }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// A container of the image, with QEMU as PID 1. Removed when dropped.
struct Container {
    name: String,
}

impl Container {
    fn create(image: &Image, options: &[&str]) -> Self {
        let name = image.tag.replace(':', "-");
        let mut create = Command::new("docker");
        create
            .args(["create", "--platform=linux/arm64", "--name", &name])
            .args([
                "--env=DRAIN_SECONDS=1",
                "--entrypoint=/qemu",
                "--no-healthcheck",
            ])
            .args(options)
            .args([&image.tag, "/app"]);
        let container = Self { name };
        output(&mut create);
        container
    }

    fn start(&self) {
        let path = env::var_os("PATH").unwrap_or_default();
        let qemu = env::split_paths(&path)
            .map(|directory| directory.join("qemu-aarch64-static"))
            .find(|file| file.exists())
            .expect("qemu-aarch64-static, in Debian's package qemu-user-static");
        let qemu = qemu.to_str().expect("UTF-8");
        let to = format!("{}:/qemu", self.name);
        docker(["cp", "--quiet", "--follow-link", qemu, &to]);
        docker(["start", &self.name]);
    }

    /// Runs the executable in the container, and returns its output.
    fn app(&self, arguments: &[&str]) -> String {
        let mut exec = Command::new("docker");
        exec.args(["exec", &self.name, "/qemu", "/app"]);
        output(exec.args(arguments))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}
