//! Finds the commit that a package is built from.

use std::{
    env, fs,
    path::{MAIN_SEPARATOR, Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{Directives, rfc3339};

/// A commit. An unknown fact is `None`.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) hash: Option<String>,
    pub(super) describe: Option<String>,
    pub(super) date: Option<String>,
    pub(super) dirty: Option<bool>,
}

impl Commit {
    /// Finds the commit of a package. Watches the files that change when another commit is checked
    /// out.
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
            // Thus, a repository or git program that is added later is found at the next edit of
            // the package.
            directives.watch(&package.join("Cargo.toml"));
            directives.watch(&package.join("src"));
        }
        commit
    }

    /// Reads the record that `cargo package` adds to a package.
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
    /// Path of the package's `Cargo.toml`, relative to the root.
    manifest: String,
    /// The directory that contains `HEAD`. Every work tree has its own.
    git_dir: PathBuf,
    index: PathBuf,
    /// The directory that contains branches and tags. Linked work trees share it.
    common_dir: PathBuf,
}

impl<'a> Repository<'a> {
    fn around(package: &'a Path) -> Option<Self> {
        let directory = fs::canonicalize(package).ok()?;
        directory.ancestors().find_map(|root| {
            let mut git_dir = root.join(".git");
            // In linked work trees and submodules, `.git` is a file with the directory's path.
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
            // Some container builds copy only parts of `.git`, without the index.
            self.run_git(&["ls-tree", "HEAD", "Cargo.toml"])
        };
        match listing {
            Some(git) if git.status.success() && git.stdout.is_empty() => None,
            Some(git) if git.status.success() => self.read_with_git(directives),
            Some(git) => {
                let commit = self.read_without_git()?;
                // If git distrusts the repository's owner, its message contains the command that
                // declares the repository safe. Cargo prints a warning only up to a line break.
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

    /// Watches the files that change when something is committed, checked out, tagged or staged.
    fn watch(&self, directives: &mut Directives) {
        for file in ["HEAD", "logs/HEAD", "reftable/tables.list"] {
            directives.watch(&self.git_dir.join(file));
        }
        for file in ["packed-refs", "reftable/tables.list", "shallow"] {
            directives.watch(&self.common_dir.join(file));
        }
        directives.watch(nearest(&self.index));
        directives.watch(nearest(&self.common_dir.join("refs/tags")));
        // A branch may have no file of its own: it is then in `packed-refs` until its next commit.
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
    /// Watches all files of a clean tree. In a dirty tree, watching one changed file is enough,
    /// because the tree stays dirty at least until this file is restored.
    fn dirty(&self, directives: &mut Directives) -> Option<bool> {
        if !self.index.exists() {
            return None; // Without the index, git would report every file as deleted.
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

    /// Runs git, without letting it write to the repository or start its file system monitor.
    /// Returns `None` if there is no git program.
    ///
    /// Does not set `safe.directory`, because the settings of another owner's repository can name
    /// programs that git then runs. Has no deadline, because on a busy machine facts would become
    /// unknown.
    fn run_git(&self, arguments: &[&str]) -> Option<Output> {
        let mut git = Command::new("git");
        // If the build runs in a git hook, `GIT_DIR` and other variables name the hook's
        // repository.
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

    /// Reads the commit's hash without a git program. Returns `None` if the repository does not
    /// track the package.
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

    /// Returns the content of `HEAD`: `ref: ` and a branch, or a hash.
    fn read_head(&self) -> String {
        let head = fs::read_to_string(self.git_dir.join("HEAD")).unwrap_or_default();
        head.trim().to_owned()
    }

    /// Whether the index lists the package's `Cargo.toml`. In versions 2 and 3 of the index, the
    /// length of each path precedes it in two bytes, and a zero byte follows it.
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

/// Returns the path if it exists, and otherwise the nearest directory above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}
