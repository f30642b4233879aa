//! The README's instructions, followed with the packaged crate, and the tests of the examples that are
//! workspaces of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lifesign_e2e::{
    REPOSITORY, manifest_field,
    support::{self, scratch},
};

const README: &str = include_str!("../../../README.md");

/// The nth code block of the README with this info string.
fn block(fence: &str, nth: usize) -> &'static str {
    let start = format!("```{fence}\n");
    let rest = README.split(&start).nth(nth + 1).expect("a block");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_service_with_tls_passes_its_tests() {
    passes_its_tests("tls");
}

#[test]
fn the_service_with_vergen_passes_its_tests() {
    passes_its_tests("vergen");
}

fn passes_its_tests(example: &str) {
    let manifest = format!("{REPOSITORY}/examples/{example}/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["test", "--locked", "--manifest-path", &manifest])
        .arg("--target-dir")
        .arg(support::target());
    for name in ["VERSION", "GIT_COMMIT", "BUILD_DATE", "SOURCE_DATE_EPOCH"] {
        cargo.env_remove(name);
    }

    let output = cargo.output().expect("cargo runs");

    let [stderr, stdout] =
        [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{stderr}{stdout}");
    assert!(stdout.contains("test result: ok. "), "{stdout}");
}

#[test]
fn a_newcomer_gets_a_healthy_service_that_knows_its_commit() {
    let directory = scratch().join("newcomer");
    let lifesign = packaged(&directory);
    let service = directory.join("my-service");
    let _ = fs::remove_dir_all(&service);
    fs::create_dir_all(service.join("src")).unwrap();

    // As in the README, except for the port.
    let manifest = [
        "[package]\nname = \"my-service\"\nversion = \"1.4.2\"\nedition = \"2024\"\n",
        block("toml", 0),
        block("toml", 1),
    ];
    fs::write(service.join("Cargo.toml"), manifest.concat()).unwrap();
    fs::create_dir(service.join("crates")).unwrap();
    fs::rename(lifesign, service.join("crates/lifesign")).unwrap();
    fs::write(service.join("build.rs"), block("rust,ignore", 0)).unwrap();
    let program = block("rust,no_run", 0).replace("0.0.0.0:8080", "127.0.0.1:0");
    fs::write(service.join("src/main.rs"), program).unwrap();
    fs::copy(
        format!("{REPOSITORY}/Cargo.lock"),
        service.join("Cargo.lock"),
    )
    .unwrap();
    let git = |args: &[&str]| run(Command::new("git").current_dir(&service).args(args));
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    let name = [
        "-c",
        "user.name=newcomer",
        "-c",
        "user.email=newcomer@example.com",
    ];
    git(&[&name[..], &["commit", "--quiet", "--message", "Start"]].concat());
    let commit = git(&["rev-parse", "HEAD"]);
    run(cargo(&directory)
        .current_dir(&service)
        .args(["build", "--offline"]));

    let app = directory.join("target/debug/my-service");
    let version = run(Command::new(&app).arg("version"));
    assert!(version.starts_with("my-service 1.4.2\n"), "{version}");
    assert!(version.contains(commit.trim()), "{version}");

    let mut service = Service::start(&app);
    let deadline = Instant::now() + Duration::from_secs(20);
    let healthy = loop {
        let probe = Command::new(&app)
            .arg("healthcheck")
            .env_remove("HEALTHCHECK_URL")
            .output()
            .unwrap();
        if probe.status.success() || Instant::now() > deadline {
            break String::from_utf8(probe.stdout).unwrap();
        }
        assert!(service.0.try_wait().unwrap().is_none(), "the service ended");
    };
    assert!(healthy.starts_with("healthy: pass in "), "{healthy:?}");
}

/// Packages the crate with `cargo package`, and unpacks it.
fn packaged(directory: &Path) -> PathBuf {
    run(cargo(directory).current_dir(REPOSITORY).args([
        "package",
        "--package=lifesign",
        "--no-verify",
        "--allow-dirty",
        "--offline",
        "--quiet",
    ]));
    let name = format!("lifesign-{}", manifest_field("version"));
    let unpacked = directory.join(&name);
    let _ = fs::remove_dir_all(&unpacked);
    run(Command::new("tar")
        .arg("-xzf")
        .arg(directory.join(format!("target/package/{name}.crate")))
        .arg("-C")
        .arg(directory));
    unpacked
}

/// Cargo with its own target directory and without the variables of build metadata.
fn cargo(directory: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.env("CARGO_TARGET_DIR", directory.join("target"));
    for name in ["VERSION", "GIT_COMMIT", "BUILD_DATE", "SOURCE_DATE_EPOCH"] {
        cargo.env_remove(name);
    }
    cargo
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

struct Service(Child);

impl Service {
    fn start(app: &Path) -> Self {
        let child = Command::new(app).stdout(Stdio::piped()).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // The output of the service, for a failing test.
        if let Some(stdout) = self.0.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("{line}");
            }
        }
    }
}
