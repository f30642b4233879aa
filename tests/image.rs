//! The image: built from this repository by its own Dockerfile, run and judged by a real Docker
//! Engine.
//!
//! `cargo test --test image -- --ignored`. The first build takes minutes, the next ones find its
//! layers.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

const VERSION: &str = "9.8.7-test.1";
const GIT_COMMIT: &str = "6b1f0a53c8de947210fe3a85d4c6b79e02f18d3a";
const BUILD_DATE: &str = "2026-11-23T18:31:00Z";

/// For what takes the engine a second when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs a Docker Engine"]
fn a_container_turns_healthy_and_the_engine_keeps_why() {
    let container = Container::run(&image(), &[]);

    let probe = container.turns("healthy");

    assert_eq!(probe["ExitCode"], 0);
    let output = probe["Output"].as_str().unwrap();
    assert!(output.starts_with("healthy: pass in "), "{output:?}");
    assert!(output.ends_with(" ms\n"), "{output:?}");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn route_subcommand_and_labels_name_the_same_build() {
    let image = image();
    let container = Container::run(&image, &["--publish=127.0.0.1::8080"]);
    container.turns("healthy");

    let route = get(&docker(["port", &container.name, "8080/tcp"]), "/health");
    let subcommand = parse(&docker(["run", "--rm", &image.tag, "version", "--json"]));
    let labels = &image.config()["Labels"];

    let given = [VERSION, GIT_COMMIT, BUILD_DATE];
    for told in [&route, &subcommand] {
        assert_eq!(
            ["version", "commit", "buildDate"].map(|key| &told[key]),
            given
        );
    }
    let keys =
        ["version", "revision", "created"].map(|key| format!("org.opencontainers.image.{key}"));
    assert_eq!(keys.map(|key| &labels[key]), given);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_engine_is_told_user_port_and_probe() {
    let config = image().config();

    let seconds = |seconds: u64| seconds * 1_000_000_000;
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert_eq!(config["Entrypoint"], json!(["/app"]));
    assert_eq!(
        config["Healthcheck"],
        json!({
            "Test": ["CMD", "/app", "healthcheck"],
            "Interval": seconds(30),
            "Timeout": seconds(5),
            "StartPeriod": seconds(30),
            "StartInterval": seconds(1),
            "Retries": 3,
        })
    );
}

#[test]
#[ignore = "needs a Docker Engine"]
fn no_user_right_network_or_writable_file_is_needed() {
    let container = Container::run(
        &image(),
        &[
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--network=none",
            "--user=12345:12345",
        ],
    );

    container.turns("healthy");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_probe_finds_the_service_wherever_it_listens() {
    for elsewhere in [["PORT=9090", "HOST=0.0.0.0"], ["PORT=0", "HOST=127.0.0.2"]] {
        let options = elsewhere.map(|variable| format!("--env={variable}"));
        let container = Container::run(&image(), &options.each_ref().map(String::as_str));

        container.turns("healthy");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_service_that_hangs_is_unhealthy_and_the_engine_keeps_why() {
    let container = Container::run(&image(), &["--health-interval=1s", "--health-retries=1"]);
    container.turns("healthy");

    // Not `docker pause`: that stops the engine's probes as well.
    docker(["kill", "--signal=STOP", &container.name]);
    let probe = container.turns("unhealthy");

    assert_eq!(probe["ExitCode"], 1);
    assert_eq!(
        probe["Output"],
        "unhealthy: 127.0.0.1:8080 sent nothing within 3s\n"
    );
    docker(["kill", "--signal=CONT", &container.name]);
    container.turns("healthy");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_stopped_container_drains_and_exits_by_itself() {
    let container = Container::run(&image(), &[]);
    container.turns("healthy");

    let start = Instant::now();
    docker(["stop", &container.name]);
    let took = start.elapsed();

    // 5 s is the drain delay. After 10 s Docker would have killed it, and the code would be 137.
    assert!(took >= Duration::from_secs(5), "no drain: {took:?}");
    assert_eq!(container.state()["ExitCode"], 0, "after {took:?}");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_new_commit_compiles_no_dependency() {
    let _layers = image();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();

    let commit = format!("--build-arg=GIT_COMMIT={now:040}");
    let image = Image::build(Path::new(REPOSITORY), &[&commit]).unwrap();

    assert_eq!(image.compiled(), ["lifesign"]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_source_older_than_its_stub_is_compiled_all_the_same() {
    // cargo-chef gives its stubs this version: no other difference than the time gives them away.
    let project = Project::new("old", "0.0.1");

    for code in ["first", "second"] {
        let main = project.write(
            "src/main.rs",
            &format!("fn main() {{ println!({code:?}) }}"),
        );
        let main = File::options().write(true).open(main).unwrap();
        main.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let image = Image::build(&project.folder, &["--build-arg=BIN=old"]).unwrap();

        assert_eq!(docker(["run", "--rm", &image.tag]), code);
        let title = &image.config()["Labels"]["org.opencontainers.image.title"];
        assert_eq!(title, "old");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn where_there_is_a_choice_the_build_asks() {
    let project = Project::new("choice", "1.0.0");
    let refusal = |options: &[&str]| Image::build(&project.folder, options).unwrap_err();

    project.write("src/lib.rs", "");
    let none = refusal(&[]);
    project.write("src/bin/one.rs", "fn main() {}");
    project.write("src/bin/two.rs", "fn main() {}");
    let two = refusal(&[]);
    let both = refusal(&["--build-arg=BIN=one", "--build-arg=EXAMPLE=three"]);

    for (log, error) in [
        (none, "nothing to build: pass --build-arg PACKAGE=… of"),
        (
            two,
            "several binaries: pass --build-arg BIN=…, one of: one two",
        ),
        (both, "both --build-arg BIN and EXAMPLE: pass one of them"),
    ] {
        assert!(log.contains(&format!(" error: {error}")), "{log}");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_binary_that_says_nothing_becomes_no_image() {
    let project = Project::new("silent", "1.0.0");
    project.write("src/main.rs", "fn main() {}");

    let log = Image::build(&project.folder, &[]).unwrap_err();

    assert!(log.contains("version: printed nothing"), "{log}");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_builder_gets_sources_and_no_secrets() {
    let sources = [
        ".cargo/config.toml",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "benches/speed.rs",
        "build.rs",
        "crates/store/migrations/1.sql",
        "examples/tls/Cargo.toml",
        "examples/tls/src/main.rs",
        "rust-toolchain.toml",
        "services/api/Cargo.toml",
        "services/api/README.md",
        "services/api/build.rs",
        "services/api/src/main.rs",
        "src/main.rs",
        "src/target/mod.rs",
        "tests/api.rs",
    ];
    let others = [
        ".cargo/credentials.toml",
        ".env",
        ".git/config",
        "compose.yaml",
        "crates/store/.env.local",
        "crates/store/.git",
        "crates/store/credentials.json",
        "crates/store/id_ed25519",
        "examples/tls/server.key",
        "examples/tls/target/debug/tls",
        "node_modules/left-pad/src/index.js",
        "notes.txt",
        "src/server.pem",
        "target/package/service-1.0.0/src/main.rs",
        "target/release/service",
        "tests/client.p12",
    ];
    let project = Project::new("context", "1.0.0");
    for file in sources.iter().chain(&others) {
        project.write(file, "");
    }
    project.write("Dockerfile", "FROM scratch\nCOPY . /\n");

    let sent = project.folder.with_extension("sent");
    let folders = [&sent, &project.folder].map(|folder| folder.to_str().unwrap());
    docker(["build", "--quiet", "--output"].into_iter().chain(folders));

    assert_eq!(files(&sent), sources);
    fs::remove_dir_all(sent).unwrap();
}

/// The image under test: built when the first test asks, removed when no test has it any more.
fn image() -> Arc<Image> {
    static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("the image was built");
    shared.upgrade().unwrap_or_else(|| {
        let metadata = [
            &*format!("--build-arg=VERSION={VERSION}"),
            &*format!("--build-arg=GIT_COMMIT={GIT_COMMIT}"),
            &*format!("--build-arg=BUILD_DATE={BUILD_DATE}"),
        ];
        let image = Image::build(Path::new(REPOSITORY), &metadata);
        let image = Arc::new(image.unwrap_or_else(|log| panic!("docker build: {log}")));
        *shared = Arc::downgrade(&image);
        image
    })
}

/// Removed when dropped.
#[derive(Debug)]
struct Image {
    tag: String,
    log: String,
}

impl Image {
    /// By the Dockerfile of this repository. Where no image comes of it, what the builder said.
    fn build(context: &Path, options: &[&str]) -> Result<Self, String> {
        let dockerfile = format!("{REPOSITORY}/Dockerfile");
        let text = fs::read_to_string(&dockerfile).unwrap();
        // The base images by tag alone: without a registry, no digest can be resolved.
        let bases = text.lines().filter_map(|line| {
            let (base, _digest) = line.strip_prefix("ARG ")?.split_once("@sha256:")?;
            Some(format!("--build-arg={base}"))
        });
        let tag = format!("lifesign-test:{}", unique());
        let output = Command::new("docker")
            .args(["build", "--progress=plain", "--file", &dockerfile])
            // The label makes it another image than the last one: that may just be on its way out.
            .args(["--tag", &tag, "--label", &format!("test={tag}")])
            .args(bases)
            .args(options)
            .arg(context)
            .output()
            .expect("docker");
        let log = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            Ok(Self { tag, log })
        } else {
            Err(log)
        }
    }

    fn config(&self) -> Value {
        parse(&docker([
            "image",
            "inspect",
            "--format={{json .Config}}",
            &self.tag,
        ]))
    }

    /// The crates that cargo had to compile.
    fn compiled(&self) -> Vec<&str> {
        let crates = self.log.lines().filter_map(|line| {
            let (_, compiled) = line.split_once(" Compiling ")?;
            compiled.split(' ').next()
        });
        crates.collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// Removed when dropped.
struct Container {
    name: String,
    _image: Arc<Image>,
}

impl Container {
    fn run(image: &Arc<Image>, options: &[&str]) -> Self {
        // Before it runs, because what fails to run was created all the same.
        let container = Self {
            name: format!("lifesign-test-{}", unique()),
            _image: Arc::clone(image),
        };
        let name = format!("--name={}", container.name);
        let run = ["run", "--detach", &name].into_iter();
        docker(run.chain(options.iter().copied()).chain([&*image.tag]));
        container
    }

    fn state(&self) -> Value {
        parse(&docker(["inspect", "--format={{json .State}}", &self.name]))
    }

    /// Waits for this verdict of the engine; the last entry of its health log.
    fn turns(&self, health: &str) -> Value {
        let start = Instant::now();
        loop {
            let state = self.state();
            if state["Health"]["Status"] == health {
                let log = state["Health"]["Log"].as_array().expect("a log");
                return log.last().expect("a probe").clone();
            }
            assert!(
                state["Running"] == true && start.elapsed() < PATIENCE,
                "not {health}: {state:#}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}

/// A package without dependencies beside a copy of the repository's .dockerignore. Removed when
/// dropped.
struct Project {
    folder: PathBuf,
}

impl Project {
    fn new(name: &str, version: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let project = Self { folder };
        let package = format!("name = {name:?}\nversion = {version:?}\n");
        project.write(
            "Cargo.toml",
            &format!("[package]\n{package}edition = \"2024\"\n"),
        );
        project.write(
            "Cargo.lock",
            &format!("version = 4\n[[package]]\n{package}"),
        );
        let ignored = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
        project.write(".dockerignore", &ignored);
        project
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().expect("the project's folder")).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Every file below the folder, by its path from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).unwrap();
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// What the command prints.
fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let mut command = Command::new("docker");
    let output = command.args(arguments).output().expect("docker");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.trim_end().to_owned()
}

/// Says nothing: it runs while a test panics as well.
fn remove<const N: usize>(arguments: [&str; N]) {
    let _ = Command::new("docker").args(arguments).output();
}

fn get(address: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    parse(body)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
