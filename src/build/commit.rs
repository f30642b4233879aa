//! Finds the commit that a package is built from, and the paths that change with it.

use std::{
    env, fs,
    path::{MAIN_SEPARATOR, Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{Directives, rfc3339};

/// The facts about a commit. An unknown fact is `None`.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) hash: Option<String>,
    pub(super) describe: Option<String>,
    pub(super) date: Option<String>,
    pub(super) dirty: Option<bool>,
}

impl Commit {
    /// Finds the commit of a package, and watches the files that change with it.
    pub(super) fn of(package: &Path, directives: &mut Directives) -> Self {
        let record = package.join(".cargo_vcs_info.json");
        if let Ok(text) = fs::read_to_string(&record) {
            directives.watch(&record);
            return Self::recorded(&text);
        }
        let repository = Repository::around(package);
        let commit = repository.and_then(|repository| repository.commit(directives));
        let commit = commit.unwrap_or_default();
        if commit.date.is_none() {
            // A repository or a git program that is added later is found at the next edit of these
            // files.
            directives.watch(&package.join("Cargo.toml"));
            directives.watch(&package.join("src"));
        }
        commit
    }

    /// Reads the record that `cargo package` adds. A repository around such a package belongs to
    /// another project.
    fn recorded(record: &str) -> Self {
        let mut words = record.split('"').skip_while(|&word| word != "sha1");
        let hash = words.nth(2).and_then(parse_hash);
        Self {
            dirty: hash.is_some().then(|| record.contains("\"dirty\": true")),
            hash,
            ..Self::default()
        }
    }
}

/// The innermost repository around a package, which need not track the package.
struct Repository<'a> {
    package: &'a Path,
    root: PathBuf,
    /// Path of the package's `Cargo.toml` relative to the root, as it appears in the index.
    manifest: String,
    /// Directory of `HEAD`. Every work tree has its own.
    git_dir: PathBuf,
    /// The index, which lists the tracked files.
    index: PathBuf,
    /// Directory of branches and tags, which linked work trees share.
    common_dir: PathBuf,
}

impl<'a> Repository<'a> {
    fn around(package: &'a Path) -> Option<Self> {
        let directory = fs::canonicalize(package).ok()?;
        directory.ancestors().find_map(|root| {
            let mut git_dir = root.join(".git");
            // In linked work trees and submodules, `.git` is a file with the path of the directory.
            if let Ok(link) = fs::read_to_string(&git_dir) {
                git_dir = root.join(link.strip_prefix("gitdir:")?.trim());
            }
            let common_dir = match fs::read_to_string(git_dir.join("commondir")) {
                Ok(path) => git_dir.join(path.trim()),
                Err(_) => git_dir.clone(),
            };
            let manifest = directory.strip_prefix(root).ok()?.join("Cargo.toml");
            git_dir.join("HEAD").exists().then(|| Self {
                package,
                root: root.to_owned(),
                manifest: manifest.to_string_lossy().replace(MAIN_SEPARATOR, "/"),
                index: git_dir.join("index"),
                git_dir,
                common_dir,
            })
        })
    }

    fn commit(&self, directives: &mut Directives) -> Option<Commit> {
        self.watch(directives);
        let listing = if self.index.exists() {
            self.run_git(&["ls-files", "--", "Cargo.toml"])
        } else {
            // Some container builds copy only a part of .git and leave the index out.
            self.run_git(&["ls-tree", "HEAD", "Cargo.toml"])
        };
        match listing {
            Some(git) if git.status.success() && git.stdout.is_empty() => None,
            Some(git) if git.status.success() => self.read_with_git(directives),
            Some(git) => {
                let commit = self.read_without_git()?;
                // If git distrusts the owner, its message ends with the command that helps.
                let message = String::from_utf8_lossy(&git.stderr);
                let message: Vec<_> = message.split_whitespace().collect();
                let message = message.join(" ");
                directives.add(
                    "warning",
                    &format!(
                        "git cannot read the repository, so only its commit is known: {message}"
                    ),
                );
                Some(commit)
            }
            None => self.read_without_git(),
        }
    }

    /// Watches the files that change with a commit, a checkout, a new tag or `git add`.
    fn watch(&self, directives: &mut Directives) {
        for file in ["HEAD", "logs/HEAD", "reftable/tables.list"] {
            directives.watch(&self.git_dir.join(file));
        }
        for file in ["packed-refs", "reftable/tables.list", "shallow"] {
            directives.watch(&self.common_dir.join(file));
        }
        directives.watch(nearest(&self.index));
        directives.watch(nearest(&self.common_dir.join("refs/tags")));
        // A packed branch has no file of its own until its next commit.
        if let Some(branch) = self.read_head().strip_prefix("ref: ") {
            directives.watch(nearest(&self.common_dir.join(branch)));
        }
    }

    fn read_with_git(&self, directives: &mut Directives) -> Option<Commit> {
        let head = self.git(&["rev-list", "--max-count=1", "--format=%ct", "HEAD", "--"])?;
        let mut words = head.split_whitespace().skip(1); // "commit", hash, seconds
        Some(Commit {
            hash: words.next().map(str::to_owned),
            date: words.next().and_then(rfc3339),
            describe: self.git(&["describe", "--tags", "--always"]),
            dirty: self.dirty(directives),
        })
    }

    /// Whether a tracked file differs from the commit.
    ///
    /// Watches all files of a clean tree. A dirty tree stays dirty until its last changed file is
    /// restored, so one changed file is enough.
    fn dirty(&self, directives: &mut Directives) -> Option<bool> {
        if !self.index.exists() {
            return None; // Without an index, git would report every file as deleted.
        }
        let changed = self.git(&["status", "--porcelain", "-z", "--no-renames", "-uno"])?;
        let mut changed_files = changed
            .split('\0')
            .filter_map(|entry| Some(self.root.join(entry.get(3..)?)));
        if let Some(path) = changed_files.find(|path| path.is_file()) {
            directives.watch(&path);
        } else {
            let files = self.git(&["ls-files", "-z", "--recurse-submodules", "--", ":/"])?;
            files
                .split('\0')
                .filter(|file| !file.contains(char::is_control))
                .map(|file| self.package.join(file))
                .filter(|path| path.is_file())
                .for_each(|path| directives.watch(&path));
        }
        Some(!changed.is_empty())
    }

    fn git(&self, arguments: &[&str]) -> Option<String> {
        let output = self.run_git(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.trim_end().to_owned())
    }

    /// Runs git. It must not write anything, and must not start git's file system monitor. Returns
    /// `None` if there is no git program.
    ///
    /// `safe.directory` is not set, because the settings of another owner's repository can name
    /// programs to run. There is no deadline, because it would make facts unknown on a busy
    /// machine.
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

    /// Reads the commit's hash without git. Returns `None` if the package is neither the
    /// repository's root nor tracked.
    fn read_without_git(&self) -> Option<Commit> {
        if self.manifest != "Cargo.toml" && !self.index_lists_manifest() {
            return None;
        }
        Some(Commit {
            hash: Some(self.read_hash()?),
            ..Commit::default()
        })
    }

    fn read_hash(&self) -> Option<String> {
        let head = self.read_head();
        let Some(branch) = head.strip_prefix("ref: ") else {
            return parse_hash(&head);
        };
        if let Ok(hash) = fs::read_to_string(self.common_dir.join(branch)) {
            return parse_hash(hash.trim());
        }
        let packed = fs::read_to_string(self.common_dir.join("packed-refs")).ok()?;
        let mut lines = packed.lines();
        lines.find_map(|line| parse_hash(line.strip_suffix(branch)?.strip_suffix(' ')?))
    }

    /// Returns `ref: ` and a branch, or a hash.
    fn read_head(&self) -> String {
        let head = fs::read_to_string(self.git_dir.join("HEAD")).unwrap_or_default();
        head.trim().to_owned()
    }

    /// Whether the index lists the package's `Cargo.toml`. An index of version 2 or 3 contains
    /// whole paths, each after two bytes with its length and before a zero byte.
    fn index_lists_manifest(&self) -> bool {
        let index = fs::read(&self.index).unwrap_or_default();
        let path = self.manifest.as_bytes();
        let length = (path.len() as u16).to_be_bytes();
        let entry = [&length, path, &[0]].concat();
        index.windows(entry.len()).any(|window| window == entry)
    }
}

fn parse_hash(text: &str) -> Option<String> {
    let whole = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.to_owned())
}

/// Returns the path, or the innermost directory above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}
