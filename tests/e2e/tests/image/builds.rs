//! What tests of the Dockerfile's guarantees share: projects to build, and two engines to build them.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{REPOSITORY, support::scratch};

/// For what takes the engine seconds when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cargo project beside a copy of the repository's Dockerfile and .dockerignore, as a user has
/// them. Removed when dropped.
#[derive(Debug)]
pub struct Project {
    pub folder: PathBuf,
}

impl Project {
    pub fn new() -> Self {
        let project = Self::nowhere();
        project.copy_files();
        project
    }

    /// A clone of a repository's commit.
    pub fn checkout(repository: &Path, umask: &str) -> Self {
        let project = Self::nowhere();
        let clone = ["-c", "umask $0 && git clone --quiet \"$1\" \"$2\"", umask];
        let mut sh = Command::new("sh");
        output(sh.args(clone).arg(repository).arg(&project.folder));
        project.copy_files();
        project
    }

    fn nowhere() -> Self {
        Self {
            folder: scratch().join(unique()),
        }
    }

    fn copy_files(&self) {
        for file in ["Dockerfile", ".dockerignore"] {
            let text = fs::read_to_string(format!("{REPOSITORY}/{file}")).unwrap();
            self.write(file, &text);
        }
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().expect("the project's folder")).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.folder.to_str().expect("a path of UTF-8")
    }

    /// The names of the Dockerfile's stages.
    pub fn stages(&self) -> Vec<String> {
        let dockerfile = fs::read_to_string(self.folder.join("Dockerfile")).unwrap();
        let lines = dockerfile.lines().filter(|line| line.starts_with("FROM "));
        let names = lines.filter_map(|line| Some(line.split_once(" AS ")?.1.to_owned()));
        names.collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An image of this engine. Removed when dropped.
#[derive(Debug)]
pub struct Image {
    pub tag: String,
    pub log: String,
}

impl Image {
    /// Where no image comes of it, what the builder said.
    pub fn build(project: &Project, options: &[&str]) -> Result<Self, String> {
        let tag = format!("lifesign-builds:{}", unique());
        let output = Command::new("docker")
            .arg("build")
            .args(build_options())
            .args(["--tag", &tag])
            .args(options)
            .arg(&project.folder)
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

/// The base images by tag alone, since without a registry no digest can be resolved, and on the
/// network of this machine, where the tests' own servers are.
pub fn build_options() -> Vec<String> {
    let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let bases = dockerfile.lines().filter_map(|line| {
        let (base, _digest) = line.strip_prefix("ARG ")?.split_once("@sha256:")?;
        Some(format!("--build-arg={base}"))
    });
    let others = ["--progress=plain", "--network=host"].map(str::to_owned);
    // The last of two arguments counts.
    let rust = format!("--build-arg=RUST_IMAGE={}", tools());
    bases.chain(others).chain([rust]).collect()
}

/// The Dockerfile's first stage as a base for itself: it then finds its tools there, so that
/// neither another network nor another engine nor `--no-cache` compiles them again.
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

/// The machines that tests need and this one may not have: a Docker Engine with containerd's image
/// store, without which there is no export of caches, attestations or OCI layouts, and a server for
/// git over SSH. The image stays, because making it takes a minute.
fn machines() -> &'static str {
    static MACHINES: OnceLock<()> = OnceLock::new();
    let tag = "lifesign-builds-machines";
    MACHINES.get_or_init(|| {
        let folder = format!("{REPOSITORY}/tests/e2e/machines");
        docker(["build", "--quiet", "--network=host", "--tag", tag, &folder]);
    });
    tag
}

/// Removed when dropped, with all that is in it.
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

    /// With the tools of the Dockerfile, and on the network of this machine.
    pub fn engine() -> Self {
        // A bridge of its own: the one that answers has the name that it would take.
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

    /// Copies a file or folder.
    pub fn put(&self, from: &str, to: &str) {
        docker(["cp", "--quiet", from, &format!("{}:{to}", self.name)]);
    }

    /// The command that runs a program in the machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--env=LC_ALL=C", &self.name]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // First it may clean up, so that no bridge is left behind.
        remove(["stop", &self.name]);
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}

/// Asks until it is so.
pub fn eventually(what: &str, machine: &Machine, mut ask: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ask() {
        if start.elapsed() > PATIENCE {
            let logs = Command::new("docker")
                .args(["logs", "--tail=30", &machine.name])
                .output();
            let logs = logs.expect("docker");
            panic!(
                "{what}: not within {PATIENCE:?}: {}{}",
                text(&logs.stdout),
                text(&logs.stderr)
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the command prints.
pub fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    output(Command::new("docker").args(arguments))
}

/// What a program prints that must succeed.
pub fn output(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    text(&output.stdout).trim_end().to_owned()
}

/// Says nothing: it runs while a test panics as well.
pub fn remove<const N: usize>(arguments: [&str; N]) {
    let _ = Command::new("docker").args(arguments).output();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("builds-{}-{count}", process::id())
}
