//! The commit that a package is built from, and what tells that it is another one.

use std::{
    env, fs,
    path::{MAIN_SEPARATOR, Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{Script, rfc3339};

/// What is known of a commit.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) hash: Option<String>,
    pub(super) describe: Option<String>,
    pub(super) date: Option<String>,
    pub(super) dirty: Option<bool>,
}

impl Commit {
    pub(super) fn of(package: &Path, script: &mut Script) -> Option<Self> {
        Repository::around(package)
            .and_then(|repository| repository.commit(script))
            .or_else(|| Self::packaged(package, script))
    }

    /// What `cargo package` has recorded.
    fn packaged(package: &Path, script: &mut Script) -> Option<Self> {
        const RECORD: &str = ".cargo_vcs_info.json";
        // With the next edit, a repository is found that was not there yet.
        for path in ["Cargo.toml", "src", RECORD] {
            script.watch(&package.join(path));
        }
        let record = fs::read_to_string(package.join(RECORD)).ok()?;
        let mut words = record.split('"').skip_while(|&word| word != "sha1");
        Some(Self {
            hash: Some(hash(words.nth(2)?)?),
            dirty: Some(record.contains("\"dirty\": true")),
            ..Self::default()
        })
    }
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
        let head = ["rev-list", "--max-count=1", "--format=%ct", "HEAD", "--"];
        let Some(head) = self.git(&head) else {
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

    /// Runs git so that it writes nothing and starts no monitor.
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
        git.args(["--no-optional-locks", "-c", "core.fsmonitor=false"])
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
        let hash_length = self.read_hash()?.len() / 2;
        let mut entry = 12;
        for _ in 0..number(8)? {
            let flags = entry + 40 + hash_length;
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

fn hash(text: &str) -> Option<String> {
    let whole = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.to_owned())
}

/// The path, or the folder in which it would appear.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}
