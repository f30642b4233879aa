//! The image: built from this repository by its own Dockerfile, run and judged by a real Docker
//! Engine.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test image images`. The first build takes minutes, the next ones find its
//! layers. Needs git, make and tar beside Docker.

use std::{
    collections::BTreeSet,
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

use lifesign_e2e::{REPOSITORY, manifest_field};

/// Each with the argument that names its base.
const TARGETS: [(&str, &str); 5] = [
    ("from-scratch", ""),
    ("distroless-static", "DISTROLESS_STATIC_IMAGE"),
    ("alpine", "ALPINE_IMAGE"),
    ("distroless-cc", "DISTROLESS_CC_IMAGE"),
    ("debian-slim", "DEBIAN_SLIM_IMAGE"),
];

/// For what takes the engine a second when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_container_turns_healthy_within_two_seconds_and_the_engine_keeps_why() {
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

    let route = get(&docker(["port", &container.name, "8080/tcp"]), "/health");
    let subcommand = parse(&docker(["run", "--rm", &image.tag, "version", "--json"]));

    // What git says, by way of the Makefile.
    let commit = git(&["rev-parse", "HEAD"]);
    let date = git(&["show", "--no-patch", "--format=%ct", "HEAD"]);
    for told in [&route, &subcommand] {
        assert_eq!(told["commit"], commit);
        assert_eq!(told["version"], image.label("version"));
        assert_eq!(told["buildDate"], image.label("created"));
    }
    assert_eq!(image.label("revision"), commit);
    let seconds = run(Command::new("date").args(["--date", &image.label("created"), "+%s"]));
    assert_eq!(seconds, date);
    assert_eq!(image.label("title"), "lifesign");
    assert_eq!(image.label("description"), manifest_field("description"));
    assert_eq!(image.label("licenses"), manifest_field("license"));
    // There is no public repository yet.
    assert_eq!(image.label("source"), "unknown");
}

#[test]
fn without_arguments_the_image_says_what_it_does_not_know() {
    let project = Project::new("anonymous", "1.2.3");
    project.write("src/main.rs", "fn main() { println!(\"1.2.3\") }");

    let image = Image::build(&project.folder, &[]).unwrap();

    for label in [
        "title",
        "description",
        "source",
        "licenses",
        "version",
        "revision",
        "created",
    ] {
        assert_eq!(image.label(label), "unknown", "{label}");
    }
}

#[test]
fn every_target_has_user_port_probe_and_labels() {
    let seconds = |seconds: u64| seconds * 1_000_000_000;
    let bases = bases();
    for (image, (target, base)) in targets().iter().zip(TARGETS) {
        let config = image.config();

        assert_eq!(config["User"], "65532:65532", "{target}");
        assert_eq!(config["WorkingDir"], "/", "{target}");
        assert_eq!(
            config["ExposedPorts"],
            json!({ "8080/tcp": {} }),
            "{target}"
        );
        assert_eq!(config["Entrypoint"], json!(["/app"]), "{target}");
        assert_eq!(config["Cmd"], Value::Null, "{target}");
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
            "{target}"
        );
        let base = bases.iter().find(|(argument, _)| argument == base);
        let base = base.map_or("scratch", |(_, image)| image);
        assert_eq!(image.label("base.name"), base, "{target}");
        assert_eq!(image.label("title"), "lifesign", "{target}");
        assert_eq!(
            image.label("revision"),
            git(&["rev-parse", "HEAD"]),
            "{target}"
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
fn no_target_needs_a_user_a_right_a_network_a_writable_file_or_more_memory_than_16_mib() {
    let containers = targets().map(|image| {
        let locked_down = [
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--network=none",
            "--user=12345:12345",
            "--memory=16m",
            "--pids-limit=16",
            // Until the end of the test, not only at the start.
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
    for (image, (target, base)) in targets().iter().zip(TARGETS) {
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
        assert_eq!(added.len(), 1, "{target}: {added:?}");
        assert_eq!(added[0].name, "app", "{target}");
        assert_eq!(added[0].mode, "-r-xr-xr-x", "{target}");
        let lost: Vec<_> = base
            .0
            .iter()
            .filter(|file| !files.0.contains(file))
            .collect();
        assert!(lost.is_empty(), "{target}: {lost:?}");

        if !target.contains("scratch") && !target.contains("distroless") {
            continue;
        }
        let tools = [
            "apk", "apt", "apt-get", "ash", "bash", "busybox", "dash", "dpkg", "perl", "python3",
            "sh",
        ];
        for file in &files.0 {
            let name = file.name.rsplit('/').next().unwrap_or_default();
            let runs = file.mode.starts_with(['-', 'l']) && file.mode.contains('x');
            assert!(!(runs && tools.contains(&name)), "{target}: {file:?}");
            assert!(!file.mode[..7].contains(['s', 'S']), "{target}: {file:?}");
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
fn a_service_that_hangs_is_unhealthy_and_the_engine_keeps_why() {
    let container = Container::run(&image(), &["--health-interval=1s"]);
    container.turns("healthy");

    // Not `docker pause`: that stops the engine's probes as well.
    docker(["kill", "--signal=STOP", &container.name]);
    let probe = container.turns("unhealthy");

    assert_eq!(probe["ExitCode"], 1);
    assert_eq!(
        probe["Output"],
        "unhealthy: 127.0.0.1:8080 sent nothing within 3s\n"
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

    // 5 s is the drain delay. After 10 s Docker would have killed it, and the code would be 137.
    assert!(took >= Duration::from_secs(5), "no drain: {took:?}");
    assert_eq!(container.state()["ExitCode"], 0, "after {took:?}");
}

#[test]
fn a_new_commit_or_version_compiles_the_last_crate_alone() {
    let _layers = image();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();

    for argument in ["GIT_COMMIT", "VERSION"] {
        let argument = format!("--build-arg={argument}={now:040}");
        let image = Image::build(Path::new(REPOSITORY), &[&argument]).unwrap();

        assert_eq!(image.compiled(), ["lifesign"]);
    }
}

#[test]
fn of_a_workspace_with_path_dependencies_a_change_compiles_its_own_crates_alone() {
    let project = Project::workspace("workspace");
    let member = "--build-arg=PACKAGE=api";
    let first = Image::build(&project.folder, &[member]).unwrap();
    let container = Container::run(&Arc::new(first), &[]);
    container.turns("healthy");

    // What an engine has built before, it takes from its cache.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    project.write(
        "crates/store/src/lib.rs",
        &format!("pub fn greeting() -> &'static str {{ \"{now}\" }}"),
    );
    let changed = Image::build(&project.folder, &[member]).unwrap();
    project.write("README.md", &format!("# {now}"));
    let documented = Image::build(&project.folder, &[member]).unwrap();

    assert_eq!(changed.compiled(), ["api", "lifesign", "store"]);
    let said = docker(["run", "--rm", &changed.tag, "greeting"]);
    assert_eq!(said, now.to_string());
    assert!(
        documented.compiled().is_empty(),
        "{:?}",
        documented.compiled()
    );
    assert_eq!(documented.layers(), changed.layers());
}

#[test]
fn a_readme_that_is_compiled_in_is_a_source() {
    let project = Project::new("documented", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{}{}\", include_str!(\"../README.md\"), env!(\"TOLD\")) }",
    );
    project.write(
        "build.rs",
        "fn main() { println!(\"cargo:rustc-env=TOLD=by its script\") }",
    );

    for page in ["first, ", "second, "] {
        project.write("README.md", page);
        let image = Image::build(&project.folder, &[]).unwrap();

        assert_eq!(
            docker(["run", "--rm", &image.tag]),
            format!("{page}by its script")
        );
    }
}

#[test]
fn a_dependency_in_c_is_linked_on_either_libc() {
    let project = Project::new("compressed", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() {
             let version = unsafe { std::ffi::CStr::from_ptr(libz_sys::zlibVersion()) };
             println!(\"zlib {}\", version.to_str().unwrap());
         }",
    );
    project.depend(
        "libz-sys = { version = \"1.1\", default-features = false, features = [\"static\"] }",
    );

    for target in ["from-scratch", "distroless-cc"] {
        let image = Image::build(&project.folder, &["--target", target]).unwrap();

        let said = docker(["run", "--rm", &image.tag]);
        assert!(said.starts_with("zlib 1."), "{said}");
    }
}

#[test]
fn a_build_script_gets_the_packages_that_it_needs() {
    let project = Project::new("packaged", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{}\", env!(\"BC\")) }",
    );
    project.write(
        "build.rs",
        "fn main() {
             let bc = std::process::Command::new(\"bc\").arg(\"--version\").output();
             let version = String::from_utf8(bc.expect(\"bc is installed\").stdout).unwrap();
             println!(\"cargo:rustc-env=BC={}\", version.lines().next().unwrap());
         }",
    );

    let image = Image::build(&project.folder, &["--build-arg=BUILD_PACKAGES=bc"]).unwrap();

    let said = docker(["run", "--rm", &image.tag]);
    assert!(said.starts_with("bc "), "{said}");
}

#[test]
fn what_a_base_cannot_start_becomes_no_image() {
    let project = Project::new("linked", "1.0.0");
    project.write("src/main.rs", "fn main() { println!(\"started\") }");
    let bases = bases();
    let static_base = &bases
        .iter()
        .find(|(name, _)| name == "DISTROLESS_STATIC_IMAGE")
        .unwrap()
        .1;
    let mistaken = format!("--build-arg=DISTROLESS_CC_IMAGE={static_base}");

    // glibc on a base without it.
    let log = Image::build(&project.folder, &["--target=distroless-cc", &mistaken]).unwrap_err();
    assert!(
        log.contains(", which this base does not have: choose another --target"),
        "{log}"
    );

    // A library that one base has and the other has not.
    project.write(
        "build.rs",
        "fn main() { println!(\"cargo:rustc-link-arg=-Wl,--no-as-needed,-lgomp\") }",
    );
    let image = Image::build(&project.folder, &["--target=distroless-cc"]).unwrap();
    assert_eq!(docker(["run", "--rm", &image.tag]), "started");
    let log = Image::build(&project.folder, &["--target=debian-slim"]).unwrap_err();
    assert!(
        log.contains("error: the executable needs libgomp.so.1, which this base"),
        "{log}"
    );
}

#[test]
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
fn a_binary_that_says_nothing_becomes_no_image() {
    let project = Project::new("silent", "1.0.0");
    project.write("src/main.rs", "fn main() {}");

    let log = Image::build(&project.folder, &[]).unwrap_err();

    assert!(log.contains("version: printed nothing"), "{log}");
}

#[test]
fn the_builder_gets_sources_and_no_secrets() {
    let sources = [
        ".cargo/config.toml",
        ".sqlx/query-1.json",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "benches/speed.rs",
        "build.rs",
        "crates/store/migrations/1.sql",
        "crates/store/page.html",
        "examples/tls/Cargo.toml",
        "examples/tls/src/main.rs",
        "migrations/1.sql",
        "proto/service.proto",
        "rust-toolchain.toml",
        "services/api/Cargo.toml",
        "services/api/README.md",
        "services/api/build.rs",
        "services/api/src/main.rs",
        "src/main.rs",
        "src/target/mod.rs",
        "templates/page.html",
        "tests/api.rs",
        "vendor/ring/.cargo-checksum.json",
        "vendor/ring/tests/server.pem",
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

/// The default image of this repository.
fn image() -> Arc<Image> {
    target(1)
}

fn targets() -> [Arc<Image>; 5] {
    [0, 1, 2, 3, 4].map(target)
}

/// One of [`TARGETS`] of this repository, as `make image` builds it: when the first test asks,
/// removed when no test has it any more.
fn target(index: usize) -> Arc<Image> {
    static SHARED: [Mutex<Weak<Image>>; 5] = [const { Mutex::new(Weak::new()) }; 5];
    let mut shared = SHARED[index].lock().expect("the image was built");
    shared.upgrade().unwrap_or_else(|| {
        let image = Image::make(TARGETS[index].0);
        let image = Arc::new(image.unwrap_or_else(|log| panic!("make image: {log}")));
        *shared = Arc::downgrade(&image);
        image
    })
}

/// The base images by tag alone, with the arguments that name them: without a registry, no digest
/// can be resolved.
fn bases() -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let bases = text.lines().filter_map(|line| {
        let (argument, image) = line.strip_prefix("ARG ")?.split_once('=')?;
        let (image, _digest) = image.split_once("@sha256:")?;
        Some((argument.to_owned(), image.to_owned()))
    });
    bases.collect()
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
        let mut build = Command::new("docker");
        build.args(["build", "--file", &format!("{REPOSITORY}/Dockerfile")]);
        Self::run(unique_tag(), |tag, flags| {
            build
                .args(["--tag", tag])
                .args(flags)
                .args(options)
                .arg(context)
        })
    }

    /// By the Makefile, from this repository.
    fn make(target: &str) -> Result<Self, String> {
        let mut make = Command::new("make");
        make.args(["--directory", REPOSITORY, "image"]);
        Self::run(unique_tag(), |tag, flags| {
            make.args([
                format!("TARGET={target}"),
                format!("TAG={tag}"),
                format!("FLAGS={}", flags.join(" ")),
            ])
        })
    }

    /// Without a file.
    fn empty() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("Dockerfile"), "FROM scratch\nLABEL empty=yes\n").unwrap();
        let mut build = Command::new("docker");
        let image = Self::run(unique_tag(), |tag, _| {
            build.args(["build", "--tag", tag]).arg(folder)
        });
        image.unwrap()
    }

    fn run<'a>(
        tag: String,
        command: impl FnOnce(&str, &[String]) -> &'a mut Command,
    ) -> Result<Self, String> {
        let bases = bases().into_iter();
        let mut flags: Vec<_> = bases
            .map(|(argument, image)| format!("--build-arg={argument}={image}"))
            .collect();
        flags.push("--progress=plain".into());
        // Makes it another image than the last one: that may just be on its way out.
        flags.push(format!("--label=test={tag}"));
        let output = command(&tag, &flags).output().expect("docker and make");
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

    fn label(&self, name: &str) -> String {
        let label = &self.config()["Labels"][format!("org.opencontainers.image.{name}")];
        label.as_str().unwrap_or_default().to_owned()
    }

    /// What it consists of.
    fn layers(&self) -> String {
        docker([
            "image",
            "inspect",
            "--format={{json .RootFS.Layers}}",
            &self.tag,
        ])
    }

    /// The crates that cargo had to compile, in alphabetical order.
    fn compiled(&self) -> Vec<&str> {
        let crates = self.log.lines().filter_map(|line| {
            let (_, compiled) = line.split_once(" Compiling ")?;
            compiled.split(' ').next()
        });
        let mut crates: Vec<_> = crates.collect();
        crates.sort_unstable();
        crates
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

    fn log(&self) -> String {
        let mut logs = Command::new("docker");
        let output = logs.args(["logs", &self.name]).output().expect("docker");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
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

/// A package beside a copy of the repository's .dockerignore. Removed when dropped.
struct Project {
    folder: PathBuf,
}

impl Project {
    fn new(name: &str, version: &str) -> Self {
        let project = Self::without_package(name);
        let package = format!("name = {name:?}\nversion = {version:?}\n");
        project.write(
            "Cargo.toml",
            &format!("[package]\n{package}edition = \"2024\"\n"),
        );
        project.write(
            "Cargo.lock",
            &format!("version = 4\n[[package]]\n{package}"),
        );
        project
    }

    fn without_package(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let project = Self { folder };
        let ignored = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
        project.write(".dockerignore", &ignored);
        project
    }

    /// A copy of the fixture of that name, which holds a copy of this crate.
    fn workspace(name: &str) -> Self {
        let project = Self::without_package(name);
        let copy = |files: &[&str], to: &Path| {
            let files = files.iter().map(|file| format!("{REPOSITORY}/{file}"));
            fs::create_dir_all(to).unwrap();
            run(Command::new("cp").arg("--recursive").args(files).arg(to));
        };
        copy(&[&format!("tests/e2e/fixtures/{name}/.")], &project.folder);
        copy(
            &["Cargo.toml", "README.md", "src"],
            &project.folder.join("crates/lifesign"),
        );
        // So that the dependencies are those that are tested elsewhere.
        copy(&["Cargo.lock"], &project.folder);
        project.lock(&["metadata", "--offline", "--format-version=1"]);
        project
    }

    /// Adds a dependency.
    fn depend(&self, line: &str) {
        let manifest = self.folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(manifest, format!("{text}[dependencies]\n{line}\n")).unwrap();
        self.lock(&["generate-lockfile"]);
    }

    fn lock(&self, arguments: &[&str]) {
        run(Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(&self.folder));
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

/// What is in an image's root filesystem.
struct Files(BTreeSet<Entry>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: String,
    /// As `ls` shows it.
    mode: String,
    owner: String,
    size: String,
}

impl Files {
    fn of(image: &str) -> Self {
        // It is created and never started: the command need not exist.
        let container = docker(["create", image, "/command"]);
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.tar", unique()));
        let path = archive.to_str().unwrap();
        docker(["export", "--output", path, &container]);
        remove(["rm", "--force", &container]);
        let list = run(Command::new("tar").args(["--numeric-owner", "-tvf", path]));
        fs::remove_file(archive).unwrap();
        let entries = list.lines().map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let [mode, owner, size, _day, _time, name] = [(); 6].map(|()| words.next().unwrap());
            Entry {
                name,
                mode,
                owner,
                size,
            }
        });
        Self(entries.collect())
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

fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    run(Command::new("docker").args(arguments))
}

/// What the command prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command");
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

/// Since 1970, of a date in RFC 3339.
fn nanoseconds(date: &str) -> u64 {
    let nanoseconds = run(Command::new("date").args(["--date", date, "+%s%N"]));
    nanoseconds.parse().unwrap()
}

fn git(arguments: &[&str]) -> String {
    run(Command::new("git").args(["-C", REPOSITORY]).args(arguments))
}

fn unique_tag() -> String {
    format!("lifesign-test:{}", unique())
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
