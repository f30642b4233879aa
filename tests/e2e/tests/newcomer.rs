//! Follows the README's instructions in a copy of this repository, and runs the tests of the
//! examples that are workspaces of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lifesign_e2e::{
    REPOSITORY,
    support::{self, scratch},
};

const README: &str = include_str!("../../../README.md");
const ADOPTING: &str = include_str!("../../../docs/adopting.md");
const PRIVATE: &str = include_str!("../../../docs/private-dependencies.md");
const METADATA: &str = include_str!("../../../docs/metadata.md");

/// The first code block of a page that has this text after its opening fence.
fn block<'a>(page: &'a str, fence: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("```{fence}\n")).expect("a block");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_services_on_other_frameworks_pass_their_tests() {
    passes_its_tests("frameworks");
}

#[test]
fn the_service_with_grpc_passes_its_tests() {
    passes_its_tests("grpc");
}

#[test]
fn recipes_pass_their_tests() {
    passes_its_tests("recipes");
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

    let [said, printed] =
        [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{said}{printed}");
    assert!(printed.contains("test result: ok. "), "{printed}");
}

#[test]
fn a_newcomer_gets_a_service_that_names_its_failing_check() {
    let directory = scratch().join("newcomer");
    let _ = fs::remove_dir_all(&directory);
    let service = directory.join("my-service");
    fs::create_dir_all(service.join("src")).unwrap();

    // The files are copied from the pages, except for the addresses of the repository and of the
    // service.
    let manifest = [
        "[package]\nname = \"my-service\"\nversion = \"1.4.2\"\nedition = \"2024\"\n",
        block(README, "toml"),
        block(METADATA, "toml"),
    ];
    let address = format!("file://{}", repository(&directory).display());
    let manifest = manifest
        .concat()
        .replace("https://git.example.com/lifesign.git", &address);
    fs::write(service.join("Cargo.toml"), manifest).unwrap();
    fs::write(service.join("build.rs"), block(METADATA, "rust,ignore")).unwrap();
    let program = block(README, "rust,ignore").replace("[::]:8080", "[::]:0");
    fs::write(service.join("src/main.rs"), program).unwrap();
    let lock = format!("{REPOSITORY}/examples/postgres/Cargo.lock");
    fs::copy(lock, service.join("Cargo.lock")).unwrap();
    let commit = commit_all(&service);
    run(cargo(&directory).current_dir(&service).arg("build"));

    let app = directory.join("target/debug/my-service");
    let version = run(Command::new(&app).arg("version"));
    assert!(version.starts_with("my-service 1.4.2\n"), "{version}");
    assert!(version.contains(commit.trim()), "{version}");

    let mut service = Service::start(&app);
    let probe = |arguments: &[&str]| {
        let mut probe = Command::new(&app);
        probe.arg("healthcheck").args(arguments);
        probe.env_remove("LIFESIGN_URL").output().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !probe(&["--live"]).status.success() {
        assert!(service.0.try_wait().unwrap().is_none(), "the service ended");
        assert!(Instant::now() < deadline, "the service does not respond");
    }
    let unhealthy = String::from_utf8(probe(&[]).stderr).unwrap();
    // The README shows port 8080. Here the system chooses the port, so digits are not compared.
    let line = unhealthy.replace(|c: char| c.is_ascii_digit(), "");
    let expected =
        "unhealthy: 503 fail: starting: waiting for postgres (GET http://[::1]:8080/health)\n";
    assert_eq!(line, expected.replace(|c: char| c.is_ascii_digit(), ""));
    assert!(README.contains(expected.trim_end()), "{expected}");
}

/// The pages describe a git dependency and a copy in `vendor`, and what happens if a workspace
/// includes the copy.
#[test]
fn each_documented_way_adds_three_crates_to_a_lockfile() {
    let directory = scratch().join("lockfile");
    let _ = fs::remove_dir_all(&directory);
    let address = format!("file://{}", repository(&directory).display());
    let git = block(ADOPTING, "toml").replace("https://git.example.com/lifesign.git", &address);
    let (_, copy) = PRIVATE
        .split_once("## lifesign without its repository")
        .expect("a section");
    let (commands, copy) = (block(copy, "sh"), block(copy, "toml"));

    let (before, _) = lockfile(&directory, "[dependencies]\n", "");
    for (manifest, commands) in [(&*git, ""), (copy, commands)] {
        let (after, printed) = lockfile(&directory, manifest, commands);
        let added: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(added, ["errno", "lifesign", "signal-hook-registry"]);
        assert_eq!(after.len(), before.len() + 3);
        assert!(!printed.contains("warning"), "{printed}");
        assert!(!printed.contains("Rust 1.89"), "{printed}");
    }

    let member = copy.replace("exclude = [\"vendor\"]", "");
    let (after, printed) = lockfile(&directory, &member, commands);
    assert!(after.len() > before.len() + 100, "{after:?}");
    let warning = "profiles for the non root package will be ignored";
    assert!(printed.contains(warning), "{printed}");
    assert!(printed.contains("Rust 1.89"), "{printed}");
}

/// Adds lifesign to an axum service, as the page says. Returns the names of the packages in the
/// lockfile, and what Cargo has printed.
fn lockfile(directory: &Path, manifest: &str, commands: &str) -> (Vec<String>, String) {
    let service = directory.join("service");
    let _ = fs::remove_dir_all(&service);
    fs::create_dir_all(service.join("src")).unwrap();
    fs::write(service.join("src/main.rs"), "fn main() {}\n").unwrap();
    let package = "[package]\nname = \"service\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n";
    let dependencies = "[dependencies]\naxum = \"0.8\"\n\
                        tokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }\n";
    let manifest = manifest.replace("[dependencies]\n", dependencies);
    fs::write(service.join("Cargo.toml"), format!("{package}{manifest}")).unwrap();
    // Cargo removes what the service does not need. The service gets the versions of this lockfile.
    fs::copy(
        format!("{REPOSITORY}/Cargo.lock"),
        service.join("Cargo.lock"),
    )
    .unwrap();
    let mut sh = Command::new("sh");
    sh.args(["-euc", commands]).current_dir(&service);
    run(sh.env_remove("CARGO_TARGET_DIR"));
    let mut update = cargo(directory);
    update.args(["update", "--workspace"]).current_dir(&service);
    let output = update.output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    let lock = fs::read_to_string(service.join("Cargo.lock")).unwrap();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = "));
    let names = names.map(|name| name.trim_matches('"').to_owned());
    (names.collect(), printed)
}

/// Copies the files of this repository, including uncommitted changes, to a new repository. Returns
/// the path of the new one.
fn repository(directory: &Path) -> PathBuf {
    let repository = directory.join("lifesign");
    let list = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let files = run(Command::new("git").current_dir(REPOSITORY).args(list));
    for file in files.split_terminator('\0') {
        let (from, to) = (Path::new(REPOSITORY).join(file), repository.join(file));
        // The list contains files that were deleted without `git rm`.
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }
    commit_all(&repository);
    repository
}

/// Commits everything in a directory to a new repository, and returns the commit.
fn commit_all(directory: &Path) -> String {
    let git = |args: &[&str]| run(Command::new("git").current_dir(directory).args(args));
    let author = [
        "-c",
        "user.name=newcomer",
        "-c",
        "user.email=newcomer@example.com",
    ];
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&[&author[..], &["commit", "--quiet", "--message", "Start"]].concat());
    git(&["rev-parse", "HEAD"])
}

/// Cargo with its own target directory, and without the environment variables that set build
/// metadata.
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
        let child = Command::new(app)
            // Nothing listens on this port, so the service stays without a database.
            .env("DATABASE_URL", "postgres://service@127.0.0.1:1/service")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // A failing test shows what the service has printed.
        if let Some(stdout) = self.0.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("{line}");
            }
        }
    }
}
