//! The image for arm64: built here by cross-compilation, and run here by QEMU.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test image arm64`. Needs qemu-aarch64-static (Debian: qemu-user-static)
//! where the machine is no arm64.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{self, Command, Output},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::REPOSITORY;
use serde_json::{Value, json};

const VERSION: &str = "9.8.7-test.1";
const GIT_COMMIT: &str = "6b1f0a53c8de947210fe3a85d4c6b79e02f18d3a";
const BUILD_DATE: &str = "2026-11-23T18:31:00Z";

/// For what takes an emulator a second when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_executable_is_for_arm64_and_needs_no_library() {
    let image = Image::build("elf");
    let container = Container::create(&image, &[]);
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.app", container.name));

    docker(["cp", "--quiet", &format!("{}:/app", container.name)], &app);
    let read = Command::new("readelf").arg("-hldW").arg(&app).output();
    fs::remove_file(app).unwrap();

    let read = text(read.expect("readelf").stdout);
    let machine = read.lines().find(|line| line.contains("Machine:"));
    assert!(machine.unwrap().ends_with(" AArch64"), "{read}");
    assert!(!read.contains("program interpreter"), "{read}");
    assert!(!read.contains("(NEEDED)"), "{read}");
    let platform = ["image", "inspect", "--format={{.Os}}/{{.Architecture}}"];
    assert_eq!(docker(platform, &image.tag), "linux/arm64");
}

#[test]
fn the_service_responds_is_found_and_drains() {
    let image = Image::build("run");
    let container = Container::create(&image, &["--publish=127.0.0.1::8080"]);
    container.start();
    let address = docker(["port", &container.name], "8080/tcp");

    let health = eventually(|| get(&address, "/health"));
    let version = container.app(&["version", "--json"]);
    let healthcheck = container.app(&["healthcheck"]);
    let stopping = Instant::now();
    docker(["stop"], &container.name);
    let stopped = stopping.elapsed();

    let build = json!({
        "name": "service", "version": VERSION, "commit": GIT_COMMIT, "buildDate": BUILD_DATE,
    });
    assert_eq!(serde_json::from_str::<Value>(&version).unwrap(), build);
    assert_eq!(health["status"], "pass");
    for key in ["version", "commit", "buildDate"] {
        assert_eq!(health[key], build[key], "{health}");
    }
    assert!(
        healthcheck.starts_with("healthy: pass in "),
        "{healthcheck}"
    );
    // After 10 s Docker would have killed it, and the code would be 137.
    assert!(stopped >= Duration::from_secs(1), "no drain: {stopped:?}");
    assert_eq!(
        docker(["inspect", "--format={{.State.ExitCode}}"], &container.name),
        "0"
    );
}

/// Removed when dropped.
struct Image {
    tag: String,
}

impl Image {
    fn build(test: &str) -> Self {
        let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
        // The builder by tag alone: without a registry, no digest can be resolved.
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
        let output = build.output().expect("docker");
        assert!(output.status.success(), "{}", text(output.stderr));
        Self { tag }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// A container of the image in which QEMU is process 1. Removed when dropped.
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
        succeeded(&mut create);
        container
    }

    fn start(&self) {
        let path = env::var_os("PATH").unwrap_or_default();
        let qemu = env::split_paths(&path)
            .map(|folder| folder.join("qemu-aarch64-static"))
            .find(|file| file.exists())
            .expect("qemu-aarch64-static, in Debian's package qemu-user-static");
        let qemu = qemu.to_str().expect("UTF-8");
        docker(
            ["cp", "--quiet", "--follow-link", qemu],
            format!("{}:/qemu", self.name),
        );
        docker(["start"], &self.name);
    }

    /// What the executable prints that is started beside the service.
    fn app(&self, arguments: &[&str]) -> String {
        let mut exec = Command::new("docker");
        exec.args(["exec", &self.name, "/qemu", "/app"]);
        text(succeeded(exec.args(arguments)).stdout)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}

/// What the command prints.
fn docker<const N: usize>(arguments: [&str; N], last: impl AsRef<OsStr>) -> String {
    let output = succeeded(Command::new("docker").args(arguments).arg(last));
    text(output.stdout).trim_end().to_owned()
}

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().expect("docker");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// Says nothing: it runs while a test panics as well.
fn remove<const N: usize>(arguments: [&str; N]) {
    let _ = Command::new("docker").args(arguments).output();
}

/// The body of a complete answer with code 200.
fn get(address: &str, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = serde_json::from_str(body).ok()?;
    head.starts_with("HTTP/1.1 200 ").then_some(body)
}

/// Asks again until there is an answer.
fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "no answer");
        thread::sleep(Duration::from_millis(50));
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}
