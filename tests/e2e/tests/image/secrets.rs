//! Secrets that a build uses must not leak: the token of a private registry, the SSH agent with a
//! key for git, and files beside the sources.
//!
//! Needs OpenSSH's client programs.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use lifesign_e2e::{docker, output, unique};

use crate::builds::{Image, Machine, Project, build_options, eventually, text, tools};

/// The output of a private crate. It is not secret. A test also searches for this text, to prove
/// that its search for secrets works.
const GREETING: &str = "greetings from the private registry";
const FAREWELL: &str = "farewell from the private repository";

#[test]
fn without_the_secret_cargo_names_what_is_missing() {
    let registry = Registry::start();
    let project = private_project(&registry);

    let log = Image::build(&project, &[]).unwrap_err();

    assert!(log.contains("no token found for `corp`"), "{log}");
    assert!(
        log.contains(" error: a registry got no token: pass --secret "),
        "{log}"
    );
    assert_eq!(registry.answered(), 0);
    assert_ne!(registry.refused(), 0);
}

#[test]
fn no_stage_log_or_history_has_a_secret() {
    let registry = Registry::start();
    let project = private_project(&registry);
    let secrets = plant(&project, &registry);

    // The first build makes a whole image, so its log contains every step. The other builds take
    // steps from the cache.
    let mut stages = project.stages();
    // This stage has no files, and the engine does not export such an image.
    stages.retain(|stage| stage != "base-scratch");
    stages.insert(0, "image".to_owned());
    let images = stages.iter().map(|stage| {
        let options = [&*format!("--target={stage}"), &credentials(project.path())];
        Image::build(&project, &options).unwrap_or_else(|log| panic!("{stage}: {log}"))
    });
    let images = images.collect::<Vec<_>>();
    let found = Found::of(&images);

    let greeting = docker(["run", "--rm", &images[0].tag, "version"]);
    assert_eq!(greeting, GREETING);
    // Cargo has sent requests for the registry's configuration, the index and the crate.
    assert!(registry.answered() >= 3, "{}", registry.answered());
    assert_eq!(found.search(&secrets), Vec::<String>::new());
    let layers = found.search(&[GREETING.to_owned()]);
    assert!(
        layers.len() > 2,
        "not in the layers of the executable and of cargo: {layers:?}"
    );
}

#[test]
fn no_cache_export_or_provenance_has_a_secret() {
    let registry = Registry::start();
    let project = private_project(&registry);
    let secrets = plant(&project, &registry);
    let engine = Machine::engine();
    engine.put(project.path(), "/project");

    // The layers are not compressed, so that they can be searched.
    let plain = "compression=uncompressed,force-compression=true";
    let output = engine
        .command()
        .args(["docker", "build", "--build-arg=BASE=scratch"])
        .args(build_options())
        .args([
            &*credentials("/project"),
            "--provenance=mode=max",
            &format!("--cache-to=type=local,dest=/found/cache,mode=max,{plain}"),
            &format!("--output=type=oci,dest=/found/image,tar=false,{plain}"),
            "/project",
        ])
        .output()
        .expect("docker");
    let log = text(&output.stderr);
    assert!(output.status.success(), "{log}");
    let search =
        |directory: &str, texts: &[String]| search(&mut engine.command(), directory, texts);

    assert_eq!(search("/found", &secrets), Vec::<String>::new());
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    for directory in ["/found/cache", "/found/image"] {
        assert_ne!(
            search(directory, &[GREETING.to_owned()]).len(),
            0,
            "{directory}"
        );
    }
    // The search has covered the provenance, because it finds the secret's name and the repository
    // without its password.
    for name in [
        r#""id":"cargo-credentials""#,
        "https://git.invalid/service.git",
    ] {
        let found = search("/found/image", &[name.to_owned()]);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
}

#[test]
fn the_agent_fetches_from_git_and_keeps_its_key() {
    let project = Project::new();
    let agent = Agent::start();
    let server = GitServer::start(&agent);
    let commit = &server.commit;
    let repository = &server.repository;
    project.service(
        &format!("private-farewell = {{ git = {repository:?} }}"),
        &format!("source = \"git+{repository}#{commit}\""),
        "private_farewell::farewell()",
    );
    let hosts = &server.known_hosts;
    project.write(
        ".cargo/config.toml",
        &format!("[net.ssh]\nknown-hosts = {hosts:?}\n"),
    );

    let log = Image::build(&project, &[]).unwrap_err();
    let ssh = format!("--ssh=default={}", agent.socket.display());
    let images = ["image", "build"].map(|stage| {
        let options = [&*format!("--target={stage}"), &ssh];
        Image::build(&project, &options).unwrap_or_else(|log| panic!("{stage}: {log}"))
    });
    let found = Found::of(&images);

    assert!(log.contains("failed to authenticate"), "{log}");
    assert!(
        log.contains(" error: git got no key: write the URL as ssh://, and pass --ssh default"),
        "{log}"
    );
    let farewell = docker(["run", "--rm", &images[0].tag, "version"]);
    assert_eq!(farewell, FAREWELL);
    assert_eq!(found.search(&agent.key), Vec::<String>::new());
    assert_ne!(found.search(&[FAREWELL.to_owned()]).len(), 0);
}

impl Project {
    /// Writes a program with one dependency. The program prints the result of a function of the
    /// dependency.
    fn service(&self, dependency: &str, source: &str, function: &str) {
        let (name, _) = dependency.split_once(' ').expect("a name");
        self.write(
            "Cargo.toml",
            &format!(
                "[package]\nname = \"service\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
                 [dependencies]\n{dependency}\n"
            ),
        );
        self.write(
            "Cargo.lock",
            &format!(
                "version = 4\n\n\
                 [[package]]\nname = {name:?}\nversion = \"1.0.0\"\n{source}\n\n\
                 [[package]]\nname = \"service\"\nversion = \"1.0.0\"\ndependencies = [{name:?}]\n"
            ),
        );
        self.write(
            "src/main.rs",
            &format!("fn main() {{\n    println!(\"{{}}\", {function});\n}}\n"),
        );
    }
}

fn private_project(registry: &Registry) -> Project {
    let project = Project::new();
    let index = format!("sparse+http://{}/", registry.address);
    project.service(
        r#"private-greeting = { version = "1", registry = "corp" }"#,
        &format!("source = {index:?}\nchecksum = {:?}", registry.checksum),
        "private_greeting::greeting()",
    );
    project.write(
        ".cargo/config.toml",
        &format!("[registries.corp]\nindex = {index:?}\n"),
    );
    project
}

/// Puts secrets into files of the project, and returns the secrets.
fn plant(project: &Project, registry: &Registry) -> Vec<String> {
    let git = |words: &[&str]| {
        output(
            Command::new("git")
                .current_dir(&project.directory)
                .args(words),
        )
    };
    git(&["init", "--quiet"]);
    let password = format!("password-{}", random());
    let origin = format!("https://user:{password}@git.invalid/service.git");
    git(&["remote", "add", "origin", &origin]);

    let mut secrets = vec![registry.token.clone(), password];
    for file in [
        ".env",
        ".env.production",
        ".netrc",
        "compose.yaml",
        "credentials.json",
        "id_ed25519",
        "src/.env",
        "src/server.key",
        "src/tls/server.pem",
        "target/notes",
        "tests/client.p12",
    ] {
        let secret = format!("{file}-{}", random());
        project.write(file, &secret);
        secrets.push(secret);
    }
    project.write(
        ".cargo/credentials.toml",
        &format!("[registries.corp]\ntoken = {:?}\n", registry.token),
    );
    secrets
}

fn credentials(directory: &str) -> String {
    format!("--secret=id=cargo-credentials,src={directory}/.cargo/credentials.toml")
}

/// Returns a random text.
fn random() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("later than 1970");
    format!("{:x}-{}", now.as_nanos(), unique())
}

/// The configurations, histories and layers of images, in a directory that is removed when dropped.
struct Found {
    directory: PathBuf,
}

impl Found {
    fn of(images: &[Image]) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique());
        let found = Self { directory };
        fs::create_dir_all(&found.directory).unwrap();
        for image in images {
            let write = |name: &str, text: &str| {
                let name = format!("{}-{name}", image.tag.replace(':', "-"));
                fs::write(found.directory.join(name), text).unwrap();
            };
            write("log", &image.log);
            write("history", &docker(["history", "--no-trunc", &image.tag]));
            write("inspect", &docker(["image", "inspect", &image.tag]));
        }

        // The layers of the base are skipped, because they are a gigabyte large and older than the
        // secrets.
        let format = "--format={{join .RootFS.Layers \" \"}}";
        let known = docker(["image", "inspect", format, tools()]);
        let excluded = known.split(' ').map(|digest| {
            let (_, digest) = digest.split_once(':').expect("a digest");
            format!("--exclude=blobs/sha256/{digest}")
        });
        let mut save = Command::new("docker")
            .arg("save")
            .args(images.iter().map(|image| &image.tag))
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker");
        output(
            Command::new("tar")
                .args(["--extract", "--directory"])
                .arg(&found.directory)
                .args(excluded)
                .stdin(save.stdout.take().expect("a pipe")),
        );
        assert!(save.wait().unwrap().success(), "docker save");
        found
    }

    fn search(&self, texts: &[String]) -> Vec<String> {
        let directory = self.directory.to_str().expect("a UTF-8 path");
        search(Command::new("env").arg("LC_ALL=C"), directory, texts)
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Appends a grep for the texts to a command and runs it. Returns each file in the directory that
/// contains one of the texts, with that text.
fn search(command: &mut Command, directory: &str, texts: &[String]) -> Vec<String> {
    command.args([
        "grep",
        "--recursive",
        "--text",
        "--only-matching",
        "--fixed-strings",
    ]);
    command.args(texts.iter().flat_map(|text| ["-e", text]));
    let output = command.arg(directory).output().expect("grep");
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{}", text(&output.stderr));
    let mut lines = text(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    lines.sort();
    lines.dedup();
    lines
}

/// A cargo registry with one crate. Clients need a token.
struct Registry {
    address: SocketAddr,
    token: String,
    checksum: String,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    answered: AtomicUsize,
    refused: AtomicUsize,
    ended: AtomicBool,
}

impl Registry {
    fn start() -> Self {
        let project = Project::new();
        project.library(
            "private-greeting",
            &format!("pub fn greeting() -> &'static str {{ {GREETING:?} }}\n"),
        );
        output(
            Command::new(env!("CARGO"))
                .current_dir(&project.directory)
                .args([
                    "package",
                    "--quiet",
                    "--no-verify",
                    "--allow-dirty",
                    "--target-dir=target",
                ]),
        );
        let file = project
            .directory
            .join("target/package/private-greeting-1.0.0.crate");
        let checksum = output(Command::new("sha256sum").arg(&file));
        let checksum = checksum.split(' ').next().expect("a checksum").to_owned();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let token = format!("token-{}", random());
        let files = [
            (
                "/config.json",
                format!(r#"{{"dl": "http://{address}/crates", "auth-required": true}}"#).into_bytes(),
            ),
            (
                "/pr/iv/private-greeting",
                format!(
                    r#"{{"name": "private-greeting", "vers": "1.0.0", "deps": [], "features": {{}}, "yanked": false, "cksum": {checksum:?}}}"#
                )
                .into_bytes(),
            ),
            (
                "/crates/private-greeting/1.0.0/download",
                fs::read(file).unwrap(),
            ),
        ];
        let state = Arc::<State>::default();
        let thread = thread::spawn({
            let (state, token) = (Arc::clone(&state), token.clone());
            move || {
                for stream in listener.incoming() {
                    if state.ended.load(Ordering::Relaxed) {
                        break;
                    }
                    // An error is ignored, because the client may have closed the connection.
                    let _ = stream.and_then(|stream| state.answer(stream, &token, &files));
                }
            }
        });
        Self {
            address,
            token,
            checksum,
            state,
            thread: Some(thread),
        }
    }

    fn answered(&self) -> usize {
        self.state.answered.load(Ordering::Relaxed)
    }

    fn refused(&self) -> usize {
        self.state.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn answer(
        &self,
        mut stream: TcpStream,
        token: &str,
        files: &[(&str, Vec<u8>)],
    ) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut head = Vec::new();
        for line in BufReader::new(&stream).lines() {
            match line? {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let authorized = head.iter().any(|line| {
            line.split_once(": ").is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("authorization") && value == token
            })
        });
        let path = head.first().and_then(|line| line.split(' ').nth(1));
        let file = files.iter().find(|(name, _)| Some(*name) == path);
        let (status, body): (_, &[u8]) = match file {
            _ if !authorized => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                ("401 Unauthorized", b"")
            }
            None => ("404 Not Found", b""),
            Some((_, body)) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                ("200 OK", body)
            }
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(body)
    }
}

impl Project {
    fn library(&self, name: &str, code: &str) {
        // The manifest declares a workspace, because the crate is in the directory of another
        // workspace.
        self.write(
            "Cargo.toml",
            &format!(
                "[package]\nname = {name:?}\nversion = \"1.0.0\"\nedition = \"2024\"\n\
                 description = \"private\"\nlicense = \"MIT\"\nrepository = \"https://git.invalid\"\n\n\
                 [workspace]\n"
            ),
        );
        self.write("src/lib.rs", code);
    }
}

/// An SSH agent with one key, killed when dropped.
struct Agent {
    directory: PathBuf,
    socket: PathBuf,
    /// The lines of the private key's file that differ between keys.
    key: Vec<String>,
    public_key: String,
    process: Child,
}

impl Agent {
    fn start() -> Self {
        // The socket is not in cargo's directory, whose path can be too long for a socket.
        let directory = env::temp_dir().join(unique());
        fs::create_dir(&directory).unwrap();
        let file = directory.join("key");
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"];
        output(Command::new("ssh-keygen").args(keygen).arg(&file));
        let key = fs::read_to_string(&file).unwrap();
        // The first encoded line contains only the name of the format, which is the same for all
        // keys.
        let key = key.lines().skip(2).filter(|line| !line.starts_with('-'));
        let key = key.map(str::to_owned).collect::<Vec<_>>();

        let socket = directory.join("agent");
        // The agent runs in the foreground, and prints its socket as soon as it listens.
        let mut process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh-agent");
        let mut byte = [0];
        process
            .stdout
            .as_mut()
            .expect("a pipe")
            .read_exact(&mut byte)
            .expect("an agent");
        let public_key = fs::read_to_string(file.with_extension("pub")).unwrap();
        let agent = Self {
            directory,
            socket,
            key,
            public_key,
            process,
        };
        output(
            Command::new("ssh-add")
                .arg("-q")
                .arg(&file)
                .env("SSH_AUTH_SOCK", &agent.socket),
        );
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A git server over SSH with a crate's repository. It accepts only the agent's key.
struct GitServer {
    repository: String,
    commit: String,
    known_hosts: Vec<String>,
    _machine: Machine,
}

impl GitServer {
    fn start(agent: &Agent) -> Self {
        let project = Project::new();
        project.library(
            "private-farewell",
            &format!("pub fn farewell() -> &'static str {{ {FAREWELL:?} }}\n"),
        );
        let git = |words: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(&project.directory);
            for (key, value) in [("name", "test"), ("email", "test@git.invalid")] {
                git.args(["-c", &format!("user.{key}={value}")]);
            }
            output(git.args(words))
        };
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "Say farewell"]);
        let commit = git(&["rev-parse", "HEAD"]);

        let machine = Machine::create(&["--publish=127.0.0.1::22"], &["git-server"]);
        machine.put(
            &format!("{}/.git", project.path()),
            "/home/git/farewell.git",
        );
        project.write("authorized_keys", &agent.public_key);
        machine.put(
            &format!("{}/authorized_keys", project.path()),
            "/home/git/.ssh/authorized_keys",
        );
        machine.start();
        let address = docker(["port", &machine.name, "22/tcp"]);
        eventually("an SSH server", &machine, || speaks_ssh(&address));
        // The client needs all host keys, because cargo looks for the type that the server prefers.
        let keys = "cat /etc/ssh/ssh_host_*_key.pub";
        let keys = output(machine.command().args(["sh", "-c", keys]));
        let (host, port) = address.split_once(':').expect("an address");
        Self {
            repository: format!("ssh://git@{address}/home/git/farewell.git"),
            commit,
            known_hosts: keys
                .lines()
                .map(|key| format!("[{host}]:{port} {key}"))
                .collect(),
            _machine: machine,
        }
    }
}

/// Whether the SSH server itself responds. Docker's proxy accepts connections earlier.
fn speaks_ssh(address: &str) -> bool {
    let mut start = [0; 4];
    TcpStream::connect(address)
        .and_then(|mut stream| stream.read_exact(&mut start))
        .is_ok_and(|()| start == *b"SSH-")
}
