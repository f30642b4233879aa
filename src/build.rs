//! For build scripts: tells [`build_info!`](crate::build_info!) what no variable says.
//!
//! A library cannot read the git of the service that uses it, but the service's build script can:
//!
//! ```toml
//! [dependencies]
//! lifesign = "0.1"
//!
//! [build-dependencies]
//! lifesign = { version = "0.1", default-features = false, features = ["build"] }
//! ```
//!
//! ```no_run
//! // build.rs
//! fn main() {
//!     lifesign::build::emit();
//! }
//! ```
//!
//! | fact | source |
//! |---|---|
//! | commit, dirty | git, or else the `.cargo_vcs_info.json` of a packaged crate |
//! | describe, commit date | git |
//! | build date | `SOURCE_DATE_EPOCH` |
//! | compiler, target, profile | Cargo |
//!
//! Without a git program, or where git distrusts the owner, the commit is read from git's files.
#![expect(
    clippy::needless_doctest_main,
    reason = "a build script is not one without it"
)]

use std::{
    env, fs,
    io::{self, Write as _},
    path::{MAIN_SEPARATOR, Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Emits the facts about the package whose build script calls it.
///
/// It never fails a build: what cannot be found is unknown. A repository that is merely around
/// the package, and does not track it, is not asked for its commit. Cargo runs the script again
/// when a commit, branch or tag changes, when a clean tree is edited, and when a dirty one may
/// have become clean.
pub fn emit() {
    let Some(package) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else {
        return;
    };
    // Started first and awaited last: it takes longer than all that git is asked.
    let rustc = env::var_os("RUSTC").and_then(|rustc| {
        Command::new(rustc)
            .arg("--version")
            .stdout(Stdio::piped())
            .spawn()
            .ok()
    });

    let mut script = Script::default();
    for name in ARGUMENTS {
        script.check_argument(name);
    }
    let build_date = script.source_date();
    let commit = Repository::around(&package)
        .and_then(|repository| repository.commit(&mut script))
        .or_else(|| packaged_commit(&package, &mut script))
        .unwrap_or_default();
    let rustc = rustc
        .and_then(|rustc| String::from_utf8(rustc.wait_with_output().ok()?.stdout).ok())
        .and_then(|line| Some(line.split_whitespace().nth(1)?.to_owned()));

    // What is unknown is emitted too, as empty: it hides what an outer `cargo run` passes on.
    for (fact, value) in [
        ("FOR", package.to_str().map(str::to_owned)),
        ("GIT_COMMIT", commit.hash),
        ("GIT_DESCRIBE", commit.describe),
        ("GIT_COMMIT_DATE", commit.date),
        ("GIT_DIRTY", commit.dirty.map(|dirty| dirty.to_string())),
        ("BUILD_DATE", build_date),
        ("RUSTC", rustc),
        ("TARGET", env::var("TARGET").ok()),
        ("PROFILE", env::var("PROFILE").ok()),
    ] {
        let value = value.unwrap_or_default();
        script.say("rustc-env", &format!("LIFESIGN_EMITTED_{fact}={value}"));
    }
    // If Cargo has stopped listening, there is nobody to tell.
    let _ = io::stdout().write_all(script.0.as_bytes());
}

/// The variables that people set and the macro reads by itself.
const ARGUMENTS: [&str; 12] = [
    "LIFESIGN_VERSION",
    "LIFESIGN_GIT_COMMIT",
    "LIFESIGN_GIT_DESCRIBE",
    "LIFESIGN_GIT_COMMIT_DATE",
    "LIFESIGN_GIT_DIRTY",
    "LIFESIGN_BUILD_DATE",
    "LIFESIGN_RUSTC",
    "LIFESIGN_TARGET",
    "LIFESIGN_PROFILE",
    "VERSION",
    "GIT_COMMIT",
    "BUILD_DATE",
];

/// What Cargo is told.
///
/// With one colon: Cargo rejects `cargo::` where the service's `rust-version` is below 1.77.
#[derive(Default)]
struct Script(String);

impl Script {
    fn say(&mut self, directive: &str, value: &str) {
        // A line break would begin another directive.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.0.push_str(&format!("cargo:{directive}={value}\n"));
    }

    /// Only what exists: for a path that does not, Cargo would run the script each time.
    fn watch(&mut self, path: &Path) {
        if path.exists() {
            self.say("rerun-if-changed", &path.to_string_lossy());
        }
    }

    /// Hides an argument that is not UTF-8, because `option_env!` would end the compilation.
    fn check_argument(&mut self, name: &str) {
        self.say("rerun-if-env-changed", name);
        if env::var_os(name).is_some_and(|value| value.to_str().is_none()) {
            self.say("warning", &format!("{name} is not UTF-8 and is ignored"));
            self.say("rustc-env", &format!("{name}="));
        }
    }

    fn source_date(&mut self) -> Option<String> {
        self.say("rerun-if-env-changed", "SOURCE_DATE_EPOCH");
        let value = env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())?;
        let date = value.to_str().and_then(rfc3339);
        if date.is_none() {
            let warning = "SOURCE_DATE_EPOCH is not a number of seconds since 1970 and is ignored";
            self.say("warning", warning);
        }
        date
    }
}

#[derive(Default)]
struct Commit {
    hash: Option<String>,
    describe: Option<String>,
    date: Option<String>,
    dirty: Option<bool>,
}

/// The repository around the package, which need not be the package's own.
struct Repository<'a> {
    package: &'a Path,
    root: PathBuf,
    /// `Cargo.toml` as seen from the root, in the index's spelling.
    manifest: String,
    /// `HEAD` and the index: the work tree's own.
    git_dir: PathBuf,
    /// Branches and tags: shared by linked work trees.
    common_dir: PathBuf,
}

impl<'a> Repository<'a> {
    fn around(package: &'a Path) -> Option<Self> {
        let folder = fs::canonicalize(package).ok()?;
        folder.ancestors().find_map(|root| {
            let mut git_dir = root.join(".git");
            // A file in linked work trees and submodules.
            if let Ok(link) = fs::read_to_string(&git_dir) {
                git_dir = root.join(link.strip_prefix("gitdir:")?.trim());
            }
            let common_dir = match fs::read_to_string(git_dir.join("commondir")) {
                Ok(path) => git_dir.join(path.trim()),
                Err(_) => git_dir.clone(),
            };
            let manifest = folder.strip_prefix(root).ok()?.join("Cargo.toml");
            git_dir.join("HEAD").exists().then(|| Self {
                package,
                root: root.to_owned(),
                manifest: manifest.to_string_lossy().replace(MAIN_SEPARATOR, "/"),
                git_dir,
                common_dir,
            })
        })
    }

    fn commit(&self, script: &mut Script) -> Option<Commit> {
        // Only the index tells when an untracked package has been added.
        script.watch(nearest(&self.git_dir.join("index")));
        if !self.tracks_package() {
            return None;
        }
        self.watch_refs(script);
        let Some(head) = self.git(&["rev-list", "--max-count=1", "--format=%ct", "HEAD"]) else {
            return Some(Commit {
                hash: Some(self.read_hash()?),
                ..Commit::default()
            });
        };
        let mut words = head.split_whitespace().skip(1); // "commit", hash, seconds
        Some(Commit {
            hash: words.next().map(str::to_owned),
            date: words.next().and_then(rfc3339),
            describe: self.git(&["describe", "--tags", "--always"]),
            dirty: self.dirty(script),
        })
    }

    fn tracks_package(&self) -> bool {
        let listed = self.run_git(&["ls-files", "--error-unmatch", "--", "Cargo.toml"]);
        match listed.and_then(|output| output.status.code()) {
            Some(0) => true,
            Some(1) => false,
            _ => self.index_lists_package().unwrap_or(false),
        }
    }

    fn watch_refs(&self, script: &mut Script) {
        for file in ["HEAD", "logs/HEAD", "reftable/tables.list"] {
            script.watch(&self.git_dir.join(file));
        }
        for file in ["packed-refs", "reftable/tables.list", "shallow"] {
            script.watch(&self.common_dir.join(file));
        }
        script.watch(nearest(&self.common_dir.join("refs/tags")));
        // A packed branch has no file until its next commit.
        if let Some(branch) = self.read_head().strip_prefix("ref: ") {
            script.watch(nearest(&self.common_dir.join(branch)));
        }
    }

    /// Watches all of a clean tree. A dirty tree is dirty for as long as one changed file is, so
    /// that one is enough: the oldest, which is not the one that is being edited.
    fn dirty(&self, script: &mut Script) -> Option<bool> {
        let changed = self.git(&["status", "--porcelain", "-z", "--no-renames", "-uno"])?;
        let oldest = changed
            .split('\0')
            .filter_map(|entry| Some(self.root.join(entry.get(3..)?)))
            .filter(|path| path.is_file())
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .min();
        if let Some((_, path)) = oldest {
            script.watch(&path);
        } else {
            let files = self.git(&["ls-files", "-z", "--recurse-submodules", "--", ":/"])?;
            files
                .split('\0')
                .filter(|file| !file.contains(char::is_control))
                .map(|file| self.package.join(file))
                .filter(|path| path.is_file())
                .for_each(|path| script.watch(&path));
        }
        Some(!changed.is_empty())
    }

    fn git(&self, arguments: &[&str]) -> Option<String> {
        let output = self.run_git(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.trim_end().to_owned())
    }

    /// Runs git so that it writes nothing, and neither starts a monitor nor asks a remote.
    ///
    /// It is not told to trust a repository of another owner (`safe.directory`), whose settings
    /// may name programs to run. And it has no deadline, by which the facts would depend on how
    /// busy the machine is.
    fn run_git(&self, arguments: &[&str]) -> Option<Output> {
        let mut git = Command::new("git");
        // In a git hook, GIT_DIR, GIT_INDEX_FILE and others name the hook's repository.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GIT_") && !text.starts_with("GIT_CONFIG") {
                git.env_remove(&name);
            }
        }
        git.env("GIT_NO_LAZY_FETCH", "1")
            .args(["--no-optional-locks", "-c", "core.fsmonitor=false"])
            .args(arguments)
            .current_dir(self.package)
            .stdin(Stdio::null())
            .output()
            .ok()
    }

    /// `ref: ` and a branch, or a hash.
    fn read_head(&self) -> String {
        let head = fs::read_to_string(self.git_dir.join("HEAD")).unwrap_or_default();
        head.trim().to_owned()
    }

    /// The commit, read without git: nothing of a repository in the reftable format.
    fn read_hash(&self) -> Option<String> {
        let head = self.read_head();
        let Some(branch) = head.strip_prefix("ref: ") else {
            return hash(&head);
        };
        if let Ok(loose) = fs::read_to_string(self.common_dir.join(branch)) {
            return hash(loose.trim());
        }
        let packed = fs::read_to_string(self.common_dir.join("packed-refs")).ok()?;
        let mut lines = packed.lines();
        lines.find_map(|line| hash(line.strip_suffix(branch)?.strip_suffix(' ')?))
    }

    /// What `git ls-files` says, read without git from an index of version 2 or 3.
    fn index_lists_package(&self) -> Option<bool> {
        let index = fs::read(self.git_dir.join("index")).ok()?;
        let number = |at| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?));
        let version = number(4)?;
        if !(2..=3).contains(&version) {
            return None;
        }
        let hash = self.read_hash()?.len() / 2;
        let mut entry = 12;
        for _ in 0..number(8)? {
            let flags = entry + 40 + hash;
            let extended = version == 3 && index.get(flags)? & 0x40 != 0;
            let name = flags + if extended { 4 } else { 2 };
            let length = index.get(name..)?.iter().position(|&byte| byte == 0)?;
            if index[name..name + length] == *self.manifest.as_bytes() {
                return Some(true);
            }
            entry += (name + length - entry + 8) & !7;
        }
        Some(false)
    }
}

/// The commit of a package as `cargo package` records it.
fn packaged_commit(package: &Path, script: &mut Script) -> Option<Commit> {
    const RECORD: &str = ".cargo_vcs_info.json";
    // With the next edit, a repository is found that was not there yet.
    for path in ["Cargo.toml", "src", RECORD] {
        script.watch(&package.join(path));
    }
    let record = fs::read_to_string(package.join(RECORD)).ok()?;
    let mut words = record.split('"').skip_while(|&word| word != "sha1");
    Some(Commit {
        hash: Some(hash(words.nth(2)?)?),
        dirty: Some(record.contains("\"dirty\": true")),
        ..Commit::default()
    })
}

fn hash(text: &str) -> Option<String> {
    let hash = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hash.then(|| text.to_owned())
}

/// The path, or the folder in which it would appear.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

/// Seconds since 1970 as a date in UTC, up to the year 9999.
fn rfc3339(seconds: &str) -> Option<String> {
    let seconds: u64 = seconds.parse().ok()?;
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let mut months = (1970..10_000).flat_map(|year| (1..=12).map(move |month| (year, month)));
    let (year, month) = months.find(|&(year, month): &(u64, u64)| {
        let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let days = match month {
            2 => 28 + u64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let found = day < days;
        day -= if found { 0 } else { days };
        found
    })?;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!(
        "{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        day + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn seconds_become_a_date() {
        for (seconds, date) in [
            ("0", Some("1970-01-01T00:00:00Z")),
            ("951782399", Some("2000-02-28T23:59:59Z")),
            ("951782400", Some("2000-02-29T00:00:00Z")),
            ("1709251199", Some("2024-02-29T23:59:59Z")),
            ("1795473060", Some("2026-11-23T22:31:00Z")),
            ("4107542400", Some("2100-03-01T00:00:00Z")),
            ("253402300799", Some("9999-12-31T23:59:59Z")),
            ("253402300800", None),
            ("-1", None),
            ("now", None),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), date, "{seconds}");
        }
    }
}
