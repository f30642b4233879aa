//! The image for arm64, which is cross-compiled and then run with QEMU.
//!
//! Needs qemu-aarch64-static from Debian's package qemu-user-static, and
//! `rustup target add aarch64-unknown-linux-gnu`.

use std::{
    env, fs,
    path::Path,
    process::{self, Command},
    time::{Duration, Instant},
};

use lifesign_e2e::{REPOSITORY, docker, eventually, get, output, parse, remove};
use serde_json::json;

use crate::{builds::tools, engine::Project};

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

/// ring, aws-lc, SQLite and zstd contain C and assembly. The host compiles them for either libc.
#[test]
fn a_service_with_c_dependencies_responds_on_either_libc() {
    let project = Project::workspace("native");
    let musl = ["--build-arg=BASE=scratch"];
    let builder = builder_with_std();
    // The engine has no arm64 image of this base.
    let gnu = [
        "--build-arg=BASE=distroless-cc",
        "--build-arg=DISTROLESS_CC_IMAGE=scratch",
        &format!("--build-arg=RUST_IMAGE={}", builder.tag),
    ];

    for (test, options) in [("musl", musl.as_slice()), ("gnu", &gnu)] {
        let image = Image::build_in(&project.directory, test, options);
        let publish = ["--publish=127.0.0.1::8080"];
        // The builder has glibc for arm64.
        let container = if test == "gnu" {
            let container = Container::create_from(tools(), &image.tag, &publish);
            container.copy_app(&image);
            container
        } else {
            Container::create(&image, &publish)
        };
        container.start();
        let address = docker(["port", &container.name, "8080/tcp"]);
        let address = address.parse().expect("an address");

        let body = eventually("a response", TIMEOUT, || {
            let (status, body) = get(address, "/");
            (status == 200).then_some(body)
        });
        let healthcheck = container.app(&["healthcheck"]);

        // The version of SQLite, and whether zstd and the random numbers of ring and aws-lc work.
        assert!(
            body.starts_with("3.") && body.ends_with(" true true"),
            "{test}: {body}"
        );
        assert!(
            healthcheck.starts_with("healthy: pass in "),
            "{test}: {healthcheck}"
        );
    }
}

/// Returns an image of the builder with the standard library for arm64 and glibc. Where the builder
/// has rustup, the Dockerfile installs it.
fn builder_with_std() -> Image {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]));
    let library = format!("{sysroot}/lib/rustlib/aarch64-unknown-linux-gnu");
    let dockerfile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("arm64-builder");
    let to = "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu";
    let text = format!(
        "FROM {}\nCOPY . /library\nRUN rm -rf {to} && mv /library {to}\n",
        tools()
    );
    fs::write(&dockerfile, text).unwrap();
    let tag = format!("lifesign-arm64:builder-{}", process::id());
    let file = format!("--file={}", dockerfile.display());
    docker(["build", "--quiet", &file, "--tag", &tag, &library]);
    Image { tag }
}

/// The image, removed when dropped.
struct Image {
    tag: String,
}

impl Image {
    /// Builds the reference service.
    fn build(test: &str) -> Self {
        let options = [
            "--build-arg=BASE=scratch",
            "--build-arg=EXAMPLE=service",
            &format!("--build-arg=VERSION={VERSION}"),
            &format!("--build-arg=GIT_COMMIT={GIT_COMMIT}"),
            &format!("--build-arg=BUILD_DATE={BUILD_DATE}"),
        ];
        Self::build_in(Path::new(REPOSITORY), test, &options)
    }

    fn build_in(directory: &Path, test: &str, options: &[&str]) -> Self {
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
            .args(["build", "--platform=linux/arm64"])
            .arg(format!("--file={REPOSITORY}/Dockerfile"))
            .args(["--build-arg", builder.expect("a pinned builder")])
            .args(options)
            .args(["--tag", &tag, "--label", &format!("test={tag}")])
            .arg(directory);
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
        let options = [&["--platform=linux/arm64"], options].concat();
        Self::create_from(&image.tag, &image.tag, &options)
    }

    /// Creates a container for the service `tag` from the image `from`.
    fn create_from(from: &str, tag: &str, options: &[&str]) -> Self {
        let name = tag.replace(':', "-");
        let mut create = Command::new("docker");
        create
            .args(["create", "--name", &name])
            .args([
                "--env=DRAIN_SECONDS=1",
                "--entrypoint=/qemu",
                "--no-healthcheck",
            ])
            .args(options)
            .args([from, "/app"]);
        let container = Self { name };
        output(&mut create);
        container
    }

    /// Copies the executable from an image.
    fn copy_app(&self, image: &Image) {
        let source = docker(["create", "--platform=linux/arm64", &image.tag]);
        let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.name);
        let path = app.to_str().expect("UTF-8");
        docker(["cp", "--quiet", &format!("{source}:/app"), path]);
        docker(["cp", "--quiet", path, &format!("{}:/app", self.name)]);
        fs::remove_file(app).unwrap();
        remove(["rm", &source]);
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
