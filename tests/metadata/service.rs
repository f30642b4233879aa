//! A generated package for the tests: its files, its git repository, and two ways to build it.
#![expect(unreachable_pub, reason = "a module of one test binary")]

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::SystemTime,
};

pub const BUILD_SCRIPT: &str = "fn main() {\n    lifesign::build::emit();\n}\n";

/// Source of the service, which prints its build metadata or executes its arguments as a command.
pub const MAIN: &str = r#"
const BUILD: lifesign::BuildInfo = lifesign::build_info!();

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(program) = arguments.next() {
        let status = std::process::Command::new(program).args(arguments).status();
        assert!(status.unwrap().success());
        return;
    }
    let dirty = BUILD.dirty().map(|dirty| dirty.to_string());
    for (fact, value) in [
        ("name", Some(BUILD.name())),
        ("version", Some(BUILD.version())),
        ("commit", BUILD.commit()),
        ("describe", BUILD.describe()),
        ("commit_date", BUILD.commit_date()),
        ("build_date", BUILD.build_date()),
        ("dirty", dirty.as_deref()),
        ("rustc", BUILD.rustc()),
        ("target", BUILD.target()),
        ("profile", BUILD.profile()),
    ] {
        if let Some(value) = value {
            println!("{fact} {value}");
        }
    }
}
"#;

/// Alias `git next`, which makes a commit and changes only the branch's file, neither the index nor
/// the reflog.
const NEXT: &str = "alias.next=!git update-ref HEAD $(git commit-tree -p HEAD -m n HEAD^{tree})";

/// Build metadata by name. Unknown values are absent.
pub type Facts = BTreeMap<String, String>;

pub fn facts(pairs: &[(&str, &str)]) -> Facts {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Returns only the facts that describe a commit.
pub fn git_facts(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.retain(|name, _| ["commit", "describe", "commit_date", "dirty"].contains(&&**name));
    facts
}

/// A package that calls `emit()` in its build script, and prints `build_info!()`.
///
/// Its directory is removed when the test passes, and kept when it fails.
pub struct Service {
    pub directory: PathBuf,
    pub package: PathBuf,
    environment: Vec<(String, OsString)>,
    last_run: RefCell<Option<Run>>,
    target: OnceCell<PathBuf>,
}

/// The last run of the build script, from which Cargo decides whether to run the script again.
struct Run {
    package: PathBuf,
    environment: Vec<(String, OsString)>,
    started: SystemTime,
    directives: String,
    facts: Facts,
}

impl Service {
    pub fn new(package: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("lifesign-{}-{count}", process::id()));
        fs::create_dir(&directory).unwrap();
        // The temporary directory can be a symbolic link. Cargo and git print paths with links
        // resolved.
        Self::at(directory.canonicalize().unwrap(), package)
    }

    pub fn at(directory: PathBuf, package: &str) -> Self {
        let service = Self {
            package: directory.join(package),
            directory,
            environment: Vec::new(),
            last_run: RefCell::default(),
            target: OnceCell::new(),
        };
        let lifesign = env!("CARGO_MANIFEST_DIR");
        let manifest = format!(
            r#"
[package]
name = "service"
version = "1.2.3"
edition = "2024"

[dependencies]
lifesign = {{ path = {lifesign:?}, default-features = false }}

[build-dependencies]
lifesign = {{ path = {lifesign:?}, default-features = false, features = ["build"] }}

[workspace]
"#
        );
        for (path, text) in [
            ("Cargo.toml", &*manifest),
            ("build.rs", BUILD_SCRIPT),
            ("src/main.rs", MAIN),
        ] {
            // Writing an unchanged file would give it a new modification time, and Cargo would
            // compile the package again.
            if fs::read_to_string(service.package.join(path))
                .ok()
                .as_deref()
                != Some(text)
            {
                service.write(path, text);
            }
        }
        service
    }

    /// Creates a package at the root of a repository that has one commit.
    pub fn committed() -> Self {
        let service = Self::new("service");
        service.git("init");
        service.commit_all();
        service
    }

    /// Creates a package in a subdirectory of a repository that has one commit.
    pub fn committed_in_subdirectory() -> Self {
        let service = Self::new("repository/services/api");
        service.git_in("repository", "init");
        service.commit_all();
        service
    }

    /// Creates a package in a repository that does not track it.
    pub fn in_foreign_repository() -> Self {
        let service = Self::new("parent/service");
        service.git_in("parent", "init");
        service.write("../README", "not a package\n");
        service.git_in("parent", "add README");
        service.git_in("parent", "commit -m parent");
        service
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.package.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.package.join(path)).unwrap()
    }

    /// Appends an empty line to a file, and returns the previous text.
    pub fn edit(&self, path: &str) -> String {
        let before = self.read(path);
        self.write(path, &format!("{before}\n"));
        before
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.package.join(path)).unwrap();
    }

    /// Makes another user the owner of the directory and its `.git`. Returns whether this test may
    /// do so, which requires root.
    pub fn give_away(&self, path: &str) -> bool {
        let root = self.package.join(path);
        let nobody = Some(65534);
        [".", ".git"]
            .iter()
            .all(|path| chown(root.join(path), nobody, nobody).is_ok())
    }

    pub fn commit_all(&self) {
        self.git("add :/");
        self.git("commit -m first");
    }

    pub fn git(&self, arguments: &str) -> String {
        let output = run_git(&self.package, arguments);
        let message = stderr(&output);
        assert!(output.status.success(), "git {arguments}: {message}");
        stdout(&output).trim_end().to_owned()
    }

    pub fn git_in(&self, directory: &str, arguments: &str) {
        let directory = self.directory.join(directory);
        fs::create_dir_all(&directory).unwrap();
        let output = run_git(&directory, arguments);
        let message = stderr(&output);
        assert!(output.status.success(), "git {arguments}: {message}");
    }

    pub fn try_git(&self, arguments: &str) -> bool {
        run_git(&self.package, arguments).status.success()
    }

    /// Returns the facts that git itself prints. Git must not refresh the index, which would change
    /// what the tests observe.
    fn facts_of_git(&self) -> Facts {
        const LOG: &str = "log -1 --no-show-signature --format=%H,%cd \
            --date=format-local:%Y-%m-%dT%H:%M:%SZ";

        let git = |arguments: &str| self.git(&format!("--no-optional-locks {arguments}"));
        let log = git(LOG);
        let (commit, date) = log.split_once(',').unwrap();
        let dirty = !git("status --porcelain --untracked-files=no").is_empty();
        facts(&[
            ("commit", commit),
            ("describe", &git("describe --tags --always")),
            ("commit_date", date),
            ("dirty", &dirty.to_string()),
        ])
    }

    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.unset(name);
        let value = value.as_ref().to_owned();
        self.environment.push((name.to_owned(), value));
    }

    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(other, _)| other != name);
    }

    /// Removes git from the build script's `PATH`.
    pub fn without_git(&mut self) {
        self.set("PATH", "/nonexistent");
        // Cargo does not watch `PATH`, so the test makes the script run again.
        self.last_run.take();
    }

    /// Runs the build script if Cargo would run it, and returns the facts that it has emitted.
    ///
    /// If the script does not watch something that has changed, the facts are out of date and the
    /// test fails.
    pub fn emit(&self) -> Facts {
        if !self.is_fresh() {
            *self.last_run.borrow_mut() = Some(self.run_script());
        }
        assert!(self.is_fresh(), "a second build would run the script again");
        self.last_run.borrow().as_ref().unwrap().facts.clone()
    }

    /// Returns the warnings of the build script's last run.
    pub fn warnings(&self) -> Vec<String> {
        let run = self.last_run.borrow();
        let lines = run.as_ref().unwrap().directives.lines();
        let warnings = lines.filter_map(|line| line.strip_prefix("cargo:warning="));
        warnings.map(str::to_owned).collect()
    }

    /// Whether Cargo would skip the build script: every watched variable has the same value, and
    /// every watched path exists and was not modified after the last run started.
    pub fn is_fresh(&self) -> bool {
        let last_run = self.last_run.borrow();
        let Some(run) = last_run.as_ref().filter(|run| run.package == self.package) else {
            return false;
        };
        run.directives.lines().all(|line| {
            if let Some(path) = line.strip_prefix("cargo:rerun-if-changed=") {
                modified(Path::new(path)).is_some_and(|time| time <= run.started)
            } else if let Some(name) = line.strip_prefix("cargo:rerun-if-env-changed=") {
                value(&run.environment, name) == value(&self.environment, name)
            } else {
                true
            }
        })
    }

    /// Runs the build script with the variables that Cargo would set.
    fn run_script(&self) -> Run {
        let started = SystemTime::now();
        let output = command(&Template::get().script)
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env("RUSTC", rustc())
            .env("TARGET", "a-target")
            .env("PROFILE", "debug")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let directives = stdout(&output);
        let emitted = directives
            .lines()
            .filter_map(|line| line.strip_prefix("cargo:rustc-env=LIFESIGN_EMITTED_"))
            .filter_map(|line| line.split_once('='))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.trim_start_matches("GIT_").to_lowercase(), value.into()));
        let mut facts: Facts = emitted.collect();
        assert_eq!(facts.remove("for").as_deref(), self.package.to_str());
        Run {
            package: self.package.clone(),
            environment: self.environment.clone(),
            started,
            directives,
            facts,
        }
    }

    pub fn assert_facts_of_git(&self) -> Facts {
        let facts = self.emit();
        assert_eq!(git_facts(&facts), self.facts_of_git());
        facts
    }

    /// Asserts that the facts are right, at first and after each git command.
    pub fn assert_follows(&self, commands: &[&str]) {
        self.assert_facts_of_git();
        for command in commands {
            self.git(command);
            self.assert_facts_of_git();
        }
    }

    pub fn assert_only_commit(&self) {
        let commit = self.git("rev-parse HEAD");
        assert_eq!(git_facts(&self.emit()), facts(&[("commit", &commit)]));
    }

    pub fn assert_no_git_facts(&self) {
        assert_eq!(git_facts(&self.emit()), Facts::new());
    }

    /// Builds the package with Cargo, asserts that a second build does nothing, and returns what
    /// the service prints.
    pub fn build(&self) -> Facts {
        self.cargo(&["build"]);
        self.assert_builds_nothing();
        self.run("debug", "service")
    }

    pub fn assert_builds_nothing(&self) {
        let output = stderr(&self.cargo(&["build", "--verbose"]));
        assert!(output.contains("Fresh service "), "{output}");
        assert!(!output.contains("Running"), "{output}");
    }

    pub fn assert_build_follows_git(&self) -> Facts {
        let facts = self.build();
        assert_eq!(git_facts(&facts), self.facts_of_git());
        facts
    }

    pub fn cargo(&self, arguments: &[&str]) -> Output {
        let output = command(env!("CARGO"))
            .arg(arguments[0])
            .arg("--manifest-path")
            .arg(self.package.join("Cargo.toml"))
            .args(&arguments[1..])
            .current_dir(&self.package)
            .env("CARGO_TARGET_DIR", self.target())
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let message = stderr(&output);
        assert!(output.status.success(), "cargo {arguments:?}: {message}");
        output
    }

    pub fn run(&self, profile: &str, binary: &str) -> Facts {
        let program = self.target().join(profile).join(binary);
        let lines = stdout(&command(program).output().unwrap());
        let pairs = lines.lines().filter_map(|line| line.split_once(' '));
        facts(&pairs.collect::<Vec<_>>())
    }

    /// Returns the package's target directory, a copy of the template's, where lifesign is already
    /// compiled.
    pub fn target(&self) -> &Path {
        self.target.get_or_init(|| {
            let target = self.directory.join("target");
            let mut copy = Command::new("cp");
            copy.arg("-a").args([&Template::get().target, &target]);
            assert!(copy.status().unwrap().success());
            target
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A package whose target directory is copied for each test, so that lifesign is compiled only
/// once.
struct Template {
    target: PathBuf,
    /// The executable of [`BUILD_SCRIPT`].
    script: PathBuf,
}

impl Template {
    fn get() -> &'static Self {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();

        TEMPLATE.get_or_init(|| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metadata");
            let target = directory.join("target");
            let service = Service::at(directory, "");
            service.target.set(target.clone()).unwrap();
            let messages = stdout(&service.cargo(&["build", "--message-format=json"]));
            // Keeps the directory, so that the next test run does not compile the template again.
            std::mem::forget(service);
            let mut scripts = messages.lines().filter(|line| {
                line.contains(r#""kind":["custom-build"]"#) && line.contains("metadata/build.rs")
            });
            let script = scripts
                .next()
                .and_then(|line| line.split_once(r#""filenames":[""#)?.1.split('"').next());
            Self {
                target,
                script: script.expect("Cargo names the build script").into(),
            }
        })
    }
}

fn value<'a>(environment: &'a [(String, OsString)], name: &str) -> Option<&'a OsStr> {
    let mut variables = environment.iter();
    let (_, value) = variables.find(|(other, _)| other == name)?;
    Some(value)
}

/// Returns the modification time of a file. For a directory, returns the latest time of all files
/// below it, as Cargo does.
fn modified(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok()?;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let below = entries.filter_map(|entry| modified(&entry.path()));
    below.chain(metadata.modified().ok()).max()
}

fn run_git(directory: &Path, arguments: &str) -> Output {
    static TIME: AtomicU32 = AtomicU32::new(1_795_473_060);

    let date = format!("{} +0130", TIME.fetch_add(1, Ordering::Relaxed));
    command("git")
        .args(["-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(["-c", "core.logAllRefUpdates=false"])
        .args(["-c", "core.fsync=none"])
        .args(["-c", NEXT])
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .env("GIT_AUTHOR_NAME", "author")
        .env("GIT_AUTHOR_EMAIL", "author@example.com")
        .env("GIT_COMMITTER_NAME", "committer")
        .env("GIT_COMMITTER_EMAIL", "committer@example.com")
        .env("GIT_COMMITTER_DATE", date)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

/// Creates a command without the environment variables and git settings that would change its
/// result.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let prefixes = ["GIT_", "LIFESIGN_", "VERGEN_"];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    for name in [
        "VERSION",
        "BUILD_DATE",
        "SOURCE_DATE_EPOCH",
        "CARGO_BUILD_TARGET",
        "SUDO_UID",
    ] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// Returns the path of the compiler itself, which works without `PATH` and starts faster than
/// rustup's proxy.
fn rustc() -> &'static Path {
    static RUSTC: OnceLock<PathBuf> = OnceLock::new();

    RUSTC.get_or_init(|| {
        let output = command("rustc").args(["--print", "sysroot"]).output();
        Path::new(stdout(&output.unwrap()).trim()).join("bin/rustc")
    })
}

/// Returns the rest of the line of `rustc -vV` that starts with `start`.
pub fn rustc_version(start: &str) -> String {
    let text = stdout(&command(rustc()).arg("-vV").output().unwrap());
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap().to_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn link(original: &Path, link: &Path) {
    symlink(original, link).unwrap();
}
