//! Images, containers and projects of one Docker Engine, each removed when it is dropped.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::REPOSITORY;
use serde_json::Value;

/// The values of the argument `BASE`, each with the argument that names its image.
pub(crate) const BASES: [(&str, &str); 5] = [
    ("scratch", ""),
    ("distroless-static", "DISTROLESS_STATIC_IMAGE"),
    ("alpine", "ALPINE_IMAGE"),
    ("distroless-cc", "DISTROLESS_CC_IMAGE"),
    ("debian-slim", "DEBIAN_SLIM_IMAGE"),
];

/// For what takes the engine a second when nothing else runs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The default image of this repository.
pub(crate) fn image() -> Arc<Image> {
    image_on(1)
}

pub(crate) fn images() -> [Arc<Image>; 5] {
    [0, 1, 2, 3, 4].map(image_on)
}

/// The image on one of [`BASES`] of this repository, as `make image` builds it: when the first test asks,
/// removed when no test has it any more.
pub(crate) fn image_on(index: usize) -> Arc<Image> {
    static SHARED: [Mutex<Weak<Image>>; 5] = [const { Mutex::new(Weak::new()) }; 5];
    let mut shared = SHARED[index].lock().expect("the image was built");
    shared.upgrade().unwrap_or_else(|| {
        let image = Image::make(&["EXAMPLE=service", &format!("BASE={}", BASES[index].0)]);
        let image = Arc::new(image.unwrap_or_else(|log| panic!("make image: {log}")));
        *shared = Arc::downgrade(&image);
        image
    })
}

/// The base images by tag alone, with the arguments that name them: without a registry, no digest
/// can be resolved.
pub(crate) fn bases() -> Vec<(String, String)> {
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
pub(crate) struct Image {
    pub(crate) tag: String,
    pub(crate) log: String,
}

impl Image {
    /// By the Dockerfile of this repository. Where no image comes of it, what the builder said.
    pub(crate) fn build(context: &Path, options: &[&str]) -> Result<Self, String> {
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
    pub(crate) fn make(variables: &[&str]) -> Result<Self, String> {
        let mut make = Command::new("make");
        make.args(["--directory", REPOSITORY, "image"])
            .args(variables);
        Self::run(unique_tag(), |tag, flags| {
            make.args([format!("TAG={tag}"), format!("FLAGS={}", flags.join(" "))])
        })
    }

    /// Without a file.
    pub(crate) fn empty() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("Dockerfile"), "FROM scratch\nLABEL empty=yes\n").unwrap();
        let mut build = Command::new("docker");
        let image = Self::run(unique_tag(), |tag, _| {
            build.args(["build", "--tag", tag]).arg(folder)
        });
        image.unwrap()
    }

    pub(crate) fn run<'a>(
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

    pub(crate) fn config(&self) -> Value {
        parse(&docker([
            "image",
            "inspect",
            "--format={{json .Config}}",
            &self.tag,
        ]))
    }

    pub(crate) fn label(&self, name: &str) -> String {
        let label = &self.config()["Labels"][format!("org.opencontainers.image.{name}")];
        label.as_str().unwrap_or_default().to_owned()
    }

    /// The crates that cargo had to compile, in alphabetical order.
    pub(crate) fn compiled(&self) -> Vec<&str> {
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
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) _image: Arc<Image>,
}

impl Container {
    pub(crate) fn run(image: &Arc<Image>, options: &[&str]) -> Self {
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

    pub(crate) fn state(&self) -> Value {
        parse(&docker(["inspect", "--format={{json .State}}", &self.name]))
    }

    pub(crate) fn log(&self) -> String {
        let mut logs = Command::new("docker");
        let output = logs.args(["logs", &self.name]).output().expect("docker");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Waits for this verdict of the engine; the last entry of its health log.
    pub(crate) fn turns(&self, health: &str) -> Value {
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
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
}

impl Project {
    pub(crate) fn new(name: &str, version: &str) -> Self {
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

    pub(crate) fn without_package(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let project = Self { folder };
        let ignored = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
        project.write(".dockerignore", &ignored);
        project
    }

    /// A copy of the fixture of that name, which holds a copy of this crate.
    pub(crate) fn workspace(name: &str) -> Self {
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
        project.lock(&["update", "--workspace", "--offline"]);
        project
    }

    /// Adds a dependency.
    pub(crate) fn depend(&self, line: &str) {
        let manifest = self.folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(manifest, format!("{text}[dependencies]\n{line}\n")).unwrap();
        self.lock(&["generate-lockfile"]);
    }

    pub(crate) fn lock(&self, arguments: &[&str]) {
        run(Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(&self.folder));
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
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
pub(crate) struct Files(pub(crate) BTreeSet<Entry>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// As `ls` shows it.
    pub(crate) mode: String,
    pub(crate) owner: String,
    pub(crate) size: String,
}

impl Files {
    pub(crate) fn of(image: &str) -> Self {
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

pub(crate) fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    run(Command::new("docker").args(arguments))
}

/// What the command prints.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.trim_end().to_owned()
}

/// Says nothing: it runs while a test panics as well.
pub(crate) fn remove<const N: usize>(arguments: [&str; N]) {
    let _ = Command::new("docker").args(arguments).output();
}

pub(crate) fn get(address: &str, path: &str) -> Value {
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

pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Since 1970, of a date in RFC 3339.
pub(crate) fn nanoseconds(date: &str) -> u64 {
    let nanoseconds = run(Command::new("date").args(["--date", date, "+%s%N"]));
    nanoseconds.parse().unwrap()
}

pub(crate) fn git(arguments: &[&str]) -> String {
    run(Command::new("git").args(["-C", REPOSITORY]).args(arguments))
}

pub(crate) fn unique_tag() -> String {
    format!("lifesign-test:{}", unique())
}

pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
