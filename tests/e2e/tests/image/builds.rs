//! Projects, images and machines for the tests of secrets and of reproducibility.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{REPOSITORY, docker, output, remove, support::scratch, unique};

/// Time limit for operations that take some seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A cargo project with copies of the repository's Dockerfile and .dockerignore. Removed when
/// dropped.
#[derive(Debug)]
pub struct Project {
    pub directory: PathBuf,
}

impl Project {
    pub fn new() -> Self {
        let project = Self::nowhere();
        project.copy_files();
        project
    }

    /// Clones a repository. The files are created with this umask.
    pub fn checkout(repository: &Path, umask: &str) -> Self {
        let project = Self::nowhere();
        let clone = ["-c", "umask $0 && git clone --quiet \"$1\" \"$2\"", umask];
        let mut sh = Command::new("sh");
        output(sh.args(clone).arg(repository).arg(&project.directory));
        project.copy_files();
        project
    }

    fn nowhere() -> Self {
        Self {
            directory: scratch().join(unique()),
        }
    }

    fn copy_files(&self) {
        for file in ["Dockerfile", ".dockerignore"] {
            let text = fs::read_to_string(format!("{REPOSITORY}/{file}")).unwrap();
            self.write(file, &text);
        }
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().expect("the project's directory")).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.directory.to_str().expect("a UTF-8 path")
    }

    /// Returns the names of the Dockerfile's stages.
    pub fn stages(&self) -> Vec<String> {
        let dockerfile = fs::read_to_string(self.directory.join("Dockerfile")).unwrap();
        let lines = dockerfile.lines().filter(|line| line.starts_with("FROM "));
        let names = lines.filter_map(|line| Some(line.split_once(" AS ")?.1.to_owned()));
        names.collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// An image of the local engine, removed when dropped.
#[derive(Debug)]
pub struct Image {
    pub tag: String,
    pub log: String,
}

impl Image {
    /// Builds an image. The error is the builder's log.
    pub fn build(project: &Project, options: &[&str]) -> Result<Self, String> {
        let tag = format!("lifesign-builds:{}", unique());
        let output = Command::new("docker")
            .arg("build")
            .args(build_options())
            .args(["--tag", &tag])
            .args(options)
            .arg(&project.directory)
            .output()
            .expect("docker");
        let image = Self {
            tag,
            log: text(&output.stderr),
        };
        if output.status.success() {
            Ok(image)
        } else {
            Err(image.log.clone())
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// Returns options for all builds. They name the base images by tag only, because Docker looks a
/// digest up in the registry, which tests must not need. They also select the network of this
/// machine, where the tests' servers listen.
pub fn build_options() -> Vec<String> {
    let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let bases = dockerfile.lines().filter_map(|line| {
        let (base, _digest) = line.strip_prefix("ARG ")?.split_once("@sha256:")?;
        Some(format!("--build-arg={base}"))
    });
    let others = ["--progress=plain", "--network=host"].map(str::to_owned);
    // If an argument is passed twice, the last one takes precedence.
    let rust = format!("--build-arg=RUST_IMAGE={}", tools());
    bases.chain(others).chain([rust]).collect()
}

/// Returns the tag of an image of the Dockerfile's stage `tools`. It is passed as RUST_IMAGE, so
/// that the stage does not install its packages again on another network, in another engine, or
/// with `--no-cache`.
pub fn tools() -> &'static str {
    static TOOLS: OnceLock<()> = OnceLock::new();
    let tag = "lifesign-builds-tools";
    TOOLS.get_or_init(|| {
        let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
        let rust = dockerfile.lines().find_map(|line| {
            let (image, _digest) = line.strip_prefix("ARG RUST_IMAGE=")?.split_once('@')?;
            Some(format!("--build-arg=RUST_IMAGE={image}"))
        });
        let rust = rust.expect("a RUST_IMAGE");
        docker([
            "build",
            "--quiet",
            &rust,
            "--target=tools",
            "--tag",
            tag,
            REPOSITORY,
        ]);
    });
    tag
}

/// Returns the tag of the machines' image. A machine runs a Docker Engine with containerd's image
/// store, which can export caches, attestations and OCI layouts, or serves git over SSH. The image
/// is never removed, because building it takes a minute.
fn machines() -> &'static str {
    static MACHINES: OnceLock<()> = OnceLock::new();
    let tag = "lifesign-builds-machines";
    MACHINES.get_or_init(|| {
        let directory = format!("{REPOSITORY}/tests/e2e/machines");
        docker([
            "build",
            "--quiet",
            "--network=host",
            "--tag",
            tag,
            &directory,
        ]);
    });
    tag
}

/// A container of the image [`machines`]. It is removed with its volumes when dropped.
#[derive(Debug)]
pub struct Machine {
    pub name: String,
}

impl Machine {
    pub fn create(options: &[&str], command: &[&str]) -> Self {
        let machine = Self {
            name: format!("lifesign-builds-{}", unique()),
        };
        let create = ["create", "--name", &machine.name].into_iter();
        let options = options.iter().copied();
        let command = command.iter().copied();
        docker(create.chain(options).chain([machines()]).chain(command));
        machine
    }

    /// Starts a Docker Engine on the network of this machine, and loads the image of [`tools`] into
    /// it.
    pub fn engine() -> Self {
        // The engine needs its own bridge, because the local engine uses the default name.
        let bridge = format!("ls{}", process::id());
        let volumes = ["--volume=/var/lib/docker", "--volume=/var/lib/containerd"];
        let options = ["--privileged", "--network=host", volumes[0], volumes[1]];
        let machine = Self::create(&options, &["engine", &bridge]);
        machine.start();
        eventually("a second Docker Engine", &machine, || {
            machine
                .command()
                .args(["docker", "version"])
                .output()
                .is_ok_and(|output| output.status.success())
        });
        let save = Command::new("docker")
            .args(["save", tools()])
            .stdout(Stdio::piped())
            .spawn();
        let mut save = save.expect("docker");
        let load = Command::new("docker")
            .args(["exec", "--interactive", &machine.name, "docker", "load"])
            .stdin(save.stdout.take().expect("a pipe"))
            .output();
        assert!(save.wait().unwrap().success(), "docker save");
        let load = load.expect("docker");
        assert!(load.status.success(), "docker load: {}", text(&load.stderr));
        machine
    }

    pub fn start(&self) {
        docker(["start", &self.name]);
    }

    /// Copies a file or directory into the machine.
    pub fn put(&self, from: &str, to: &str) {
        docker(["cp", "--quiet", from, &format!("{}:{to}", self.name)]);
    }

    /// A command that runs a program in the machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--env=LC_ALL=C", &self.name]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `stop` lets the engine remove its bridge.
        remove(["stop", &self.name]);
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}

/// Polls until the condition is true. After the timeout, panics with the machine's log.
pub fn eventually(what: &str, machine: &Machine, mut poll: impl FnMut() -> bool) {
    let start = Instant::now();
    while !poll() {
        if start.elapsed() > TIMEOUT {
            let logs = Command::new("docker")
                .args(["logs", "--tail=30", &machine.name])
                .output();
            let logs = logs.expect("docker");
            panic!(
                "{what}: not within {TIMEOUT:?}: {}{}",
                text(&logs.stdout),
                text(&logs.stderr)
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
