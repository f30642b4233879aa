//! The README is true: its program is the example, and a newcomer who follows it gets a healthy
//! service, from the crate as it is packaged.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const README: &str = include_str!("../README.md");

/// The block that starts with this fence line, the nth of its kind.
fn block(fence: &str, nth: usize) -> &'static str {
    let start = format!("```{fence}\n");
    let rest = README.split(&start).nth(nth + 1).expect("a block");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_program_is_the_example_word_for_word() {
    let example = include_str!("../examples/hello.rs");
    let (_, program) = example.split_once("\n\n").expect("a header");
    assert_eq!(block("rust,no_run", 0), program);
}

#[test]
fn adding_it_to_a_service_takes_at_most_five_lines() {
    let added = block("diff", 0)
        .lines()
        .filter(|line| line.starts_with('+'));
    assert_eq!(added.count(), 5);
}

#[test]
fn every_defence_is_tested_by_what_security_names() {
    let security = include_str!("../SECURITY.md");
    let mut tests = String::new();
    for folder in ["tests", "tests/support", "examples/tls/tests"] {
        for entry in fs::read_dir(folder).unwrap() {
            tests += &fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        }
    }
    let rows = security.lines().filter(|line| line.starts_with("| "));
    // Below its head and the line under that.
    for row in rows.skip(1) {
        let named = row.split('|').nth(4).expect("four columns");
        let mut names = named.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some(), "tested by nothing: {row}");
        for name in names {
            let is_test = tests.contains(&format!("fn {name}("));
            assert!(is_test || Path::new(name).is_file(), "{name}");
        }
    }
}

#[test]
fn a_newcomer_gets_a_healthy_service_that_knows_its_commit() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("newcomer");
    let lifesign = packaged(&folder);
    let service = folder.join("my-service");
    let _ = fs::remove_dir_all(&service);
    fs::create_dir_all(service.join("src")).unwrap();

    // As the README says, but for the port, which is the tests' own.
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
    fs::copy("Cargo.lock", service.join("Cargo.lock")).unwrap();
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
    run(cargo(&folder)
        .current_dir(&service)
        .args(["build", "--offline"]));

    let app = folder.join("target/debug/my-service");
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

/// The crate as `cargo package` packs it, unpacked.
fn packaged(folder: &Path) -> PathBuf {
    run(cargo(folder).args([
        "package",
        "--package=lifesign",
        "--no-verify",
        "--allow-dirty",
        "--offline",
        "--quiet",
    ]));
    let name = concat!("lifesign-", env!("CARGO_PKG_VERSION"));
    let unpacked = folder.join(name);
    let _ = fs::remove_dir_all(&unpacked);
    run(Command::new("tar")
        .arg("-xzf")
        .arg(folder.join(format!("target/package/{name}.crate")))
        .arg("-C")
        .arg(folder));
    unpacked
}

/// Cargo, without what the tests' own cargo and its caller's environment say.
fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.env("CARGO_TARGET_DIR", folder.join("target"));
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
        // Whatever it said is for people who read a failed test.
        if let Some(stdout) = self.0.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("{line}");
            }
        }
    }
}
