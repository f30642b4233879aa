//! Images, containers and projects of the local Docker Engine, each removed when it is dropped.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{REPOSITORY, docker, output, parse, remove, unique};
use serde_json::Value;

/// The bases: the value of the argument `BASE`, and the name of the argument that contains the
/// base's image.
pub(crate) const BASES: [(&str, &str); 5] = [
    ("scratch", ""),
    ("distroless-static", "DISTROLESS_STATIC_IMAGE"),
    ("alpine", "ALPINE_IMAGE"),
    ("distroless-cc", "DISTROLESS_CC_IMAGE"),
    ("debian-slim", "DEBIAN_SLIM_IMAGE"),
];

/// Time limit for operations that take about a second on an idle machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the repository's image on the default base.
pub(crate) fn image() -> Arc<Image> {
    image_on(1)
}

pub(crate) fn images() -> [Arc<Image>; 5] {
    [0, 1, 2, 3, 4].map(image_on)
}

/// Returns the repository's image on one of [`BASES`], built by `make image`. Tests share an image:
/// the first test builds it, and the last one removes it.
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

/// Returns the build arguments that name the base images. The tags have no digests, because Docker
/// looks a digest up in the registry, which tests must not need.
pub(crate) fn bases() -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let bases = text.lines().filter_map(|line| {
        let (argument, image) = line.strip_prefix("ARG ")?.split_once('=')?;
        let (image, _digest) = image.split_once("@sha256:")?;
        Some((argument.to_owned(), image.to_owned()))
    });
    bases.collect()
}

/// An image, removed when dropped.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) tag: String,
    pub(crate) log: String,
}

impl Image {
    /// Builds an image with the repository's Dockerfile. The error contains the builder's log.
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

    /// Builds an image of the repository with `make`.
    pub(crate) fn make(variables: &[&str]) -> Result<Self, String> {
        let mut make = Command::new("make");
        make.args(["--directory", REPOSITORY, "image"])
            .args(variables);
        Self::run(unique_tag(), |tag, flags| {
            make.args([format!("TAG={tag}"), format!("FLAGS={}", flags.join(" "))])
        })
    }

    /// An image without files.
    pub(crate) fn empty() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.join("Dockerfile"),
            "FROM scratch\nLABEL empty=yes\n",
        )
        .unwrap();
        let mut build = Command::new("docker");
        let image = Self::run(unique_tag(), |tag, _| {
            build.args(["build", "--tag", tag]).arg(directory)
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
        // A label makes the image unique. Otherwise it could be identical to an image that another
        // test is removing.
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

    /// Returns the crates that cargo compiled, in alphabetical order.
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

/// A container, removed when dropped.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) _image: Arc<Image>,
}

impl Container {
    pub(crate) fn run(image: &Arc<Image>, options: &[&str]) -> Self {
        // This value exists before the container, so that its `Drop` removes the container even if
        // it fails to start.
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

    /// Waits until the engine reports this health status, and returns the last entry of its health
    /// log.
    pub(crate) fn turns(&self, health: &str) -> Value {
        let start = Instant::now();
        loop {
            let state = self.state();
            if state["Health"]["Status"] == health {
                let log = state["Health"]["Log"].as_array().expect("a log");
                return log.last().expect("a probe").clone();
            }
            assert!(
                state["Running"] == true && start.elapsed() < TIMEOUT,
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

/// A package with a copy of the repository's .dockerignore, removed when dropped.
pub(crate) struct Project {
    pub(crate) directory: PathBuf,
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
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        let project = Self { directory };
        let ignored = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
        project.write(".dockerignore", &ignored);
        project
    }

    /// Appends a line to .dockerignore.
    pub(crate) fn ignore(&self, line: &str) {
        let path = self.directory.join(".dockerignore");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
    }

    /// A copy of the fixture with this name, with a copy of lifesign in `crates`.
    pub(crate) fn workspace(name: &str) -> Self {
        let project = Self::without_package(name);
        let copy = |files: &[&str], to: &Path| {
            let files = files.iter().map(|file| format!("{REPOSITORY}/{file}"));
            fs::create_dir_all(to).unwrap();
            output(Command::new("cp").arg("--recursive").args(files).arg(to));
        };
        copy(
            &[&format!("tests/e2e/fixtures/{name}/.")],
            &project.directory,
        );
        copy(
            &["Cargo.toml", "README.md", "src"],
            &project.directory.join("crates/lifesign"),
        );
        if !project.directory.join("Cargo.lock").exists() {
            // The lockfile gives the dependencies the same versions as in other tests.
            copy(&["Cargo.lock"], &project.directory);
            project.lock(&["update", "--workspace", "--offline"]);
        }
        project
    }

    /// Adds a dependency to the manifest.
    pub(crate) fn depend(&self, line: &str) {
        let manifest = self.directory.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(manifest, format!("{text}[dependencies]\n{line}\n")).unwrap();
        self.lock(&["generate-lockfile"]);
    }

    pub(crate) fn lock(&self, arguments: &[&str]) {
        output(
            Command::new(env!("CARGO"))
                .args(arguments)
                .current_dir(&self.directory),
        );
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().expect("the project's directory")).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The files of an image.
pub(crate) struct Files(pub(crate) BTreeSet<Entry>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The mode as `ls` prints it.
    pub(crate) mode: String,
    pub(crate) owner: String,
    pub(crate) size: String,
}

impl Files {
    pub(crate) fn of(image: &str) -> Self {
        // The container is never started, so the command need not exist.
        let container = docker(["create", image, "/command"]);
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.tar", unique()));
        let path = archive.to_str().unwrap();
        docker(["export", "--output", path, &container]);
        remove(["rm", "--force", &container]);
        let list = output(Command::new("tar").args(["--numeric-owner", "-tvf", path]));
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

/// Returns the nanoseconds from 1970 to a time in RFC 3339 format.
pub(crate) fn nanoseconds(date: &str) -> u64 {
    let nanoseconds = output(Command::new("date").args(["--date", date, "+%s%N"]));
    nanoseconds.parse().unwrap()
}

pub(crate) fn git(arguments: &[&str]) -> String {
    output(Command::new("git").args(["-C", REPOSITORY]).args(arguments))
}

fn unique_tag() -> String {
    format!("lifesign-test:{}", unique())
}
