//! Advertisements as files: `/dev/shm/lifesign.NAMESPACE.SERVICE.PID`, one for each process.
//!
//! - Every engine mounts `/dev/shm`, a tmpfs that all users can write to even if the root
//!   filesystem is read-only. A port or an abstract socket would be visible outside of a container
//!   on the host's network.
//! - The directory can be shared by several containers (of a pod, or with `--ipc=host`). The number
//!   of the mount namespace separates them: a probe that is executed in a container is in the mount
//!   namespace of its service.
//! - The service holds a lock on its file. The kernel releases the lock when the process ends, so a
//!   file without a lock is stale. Comparing pids would fail in other pid namespaces.
//! - The pid separates the processes of one service: a forked child that outlives its parent can
//!   hold the old lock, and must not hide the service that was started again.
//! - A file of the probe's own user wins against files of other users, which can be forged. They
//!   are needed for a service that drops its privileges, and for `docker exec --user`.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

use super::parse;
use crate::{Endpoint, Probe};

const DIRECTORY: &str = "/dev/shm";

/// Capacity in bytes for a path, unless the name of the service is long.
const PATH_CAPACITY: usize = 64;

/// Maximum size of an advertisement in bytes.
const SIZE_MAX: usize = 4096;

/// Maximum number of directory entries to read. Whoever shares the directory can fill it: this many
/// entries delay a probe by some milliseconds.
const ENTRIES_MAX: usize = 10_000;

/// The locked file of a service, removed when it is dropped.
#[derive(Debug)]
pub(super) struct LockedFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl LockedFile {
    pub(super) fn create(service: &str, text: &str) -> io::Result<Self> {
        remove_stale_files();
        let path = format!("{}{}", prefix(service)?, process::id());
        // Another user may have taken the name to keep the service from being found.
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let other_path = format!("{path}{}", since.as_nanos());
        // Written under a hidden name, so that probes never see a part of it.
        let draft = other_path.replacen("/lifesign.", "/.lifesign.", 1);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Nobody else can open the file, and so lock it, before this process has locked it.
            .mode(0o600)
            .open(&draft)?;
        file.try_lock()?;
        // Independent of the umask, because a probe may run as another user.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        let rename = |path: String| fs::rename(&draft, &path).map(|()| path.into());
        let path = file
            .write_all(text.as_bytes())
            .and_then(|()| rename(path).or_else(|_| rename(other_path)))
            .inspect_err(|_| drop(fs::remove_file(&draft)))?;
        Ok(Self { path, file })
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // A later advertisement of this process may have taken the name.
        remove(&self.path, &self.file);
    }
}

/// Removes `file` if it is still the one at `path`.
fn remove(path: &Path, file: &File) {
    let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
    if inode(fs::symlink_metadata(path)) == inode(file.metadata()) {
        let _ = fs::remove_file(path);
    }
}

/// Removes the files of killed services. The directory of a pod outlives its containers, so these
/// can be files of earlier containers.
fn remove_stale_files() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        if entry.file_name().as_bytes().starts_with(b"lifesign.")
            && let path = entry.path()
            && let Ok(file) = open(&path)
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
            && !is_locked(&file)
        {
            // Fails for files of other users, because the directory is sticky.
            remove(&path, &file);
        }
    }
}

/// Returns the endpoint of the running service of this name in this container, and the path of its
/// route for `probe`.
///
/// If there are several, the order of preference is: PID 1 if it runs as the probe's user, the most
/// recent of that user, the most recent of any user. If there is none, a service of another name that
/// runs the probe's own executable: its library and its binary can have called `build_info!` both.
pub(crate) fn find(service: &str, probe: Probe) -> Option<(Endpoint, String)> {
    let mut path = prefix(service).ok()?;
    let uid = fs::metadata("/proc/self").ok()?.uid();
    let prefix_len = path.len();
    // In nearly every container the service is PID 1, and the directory need not be read.
    path.push('1');
    if let Some((rank, found)) = read(path.as_ref(), uid, probe)
        && rank.is_own
    {
        return Some(found);
    }
    let prefix = &path.as_bytes()[..prefix_len];
    let entries = fs::read_dir(DIRECTORY).ok()?.take(ENTRIES_MAX).flatten();
    let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    let best = |is_wanted: &dyn Fn(&Path) -> bool| {
        let wanted = paths.iter().filter(|path| is_wanted(path));
        wanted
            .filter_map(|path| read(path, uid, probe))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, found)| found)
    };
    let namespace = &prefix[..prefix.len() - service.len() - 1];
    best(&|path| is_of_service(path, prefix))
        .or_else(|| best(&|path| is_of_executable(path, namespace)))
}

/// Precedence of a file; the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_own: bool,
    /// Seconds and nanoseconds of the last change, which unlike `mtime` cannot be set.
    changed: (i64, i64),
}

fn read(path: &Path, uid: u32, probe: Probe) -> Option<(Rank, (Endpoint, String))> {
    let mut file = open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let is_writable_by_others = metadata.mode() & 0o022 != 0;
    let size = usize::try_from(metadata.len()).ok()?;
    if !metadata.is_file() || is_writable_by_others || size > SIZE_MAX || !is_locked(&file) {
        return None;
    }
    let mut bytes = vec![0; size];
    let size = file.read(&mut bytes).ok()?;
    let rank = Rank {
        is_own: metadata.uid() == uid,
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    let (endpoint, paths) = parse(str::from_utf8(&bytes[..size]).ok()?)?;
    Some((rank, (endpoint, paths[probe as usize].to_owned())))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        // Other users can create symbolic links and named pipes.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn is_locked(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Returns the path of a file up to its pid.
fn prefix(service: &str) -> io::Result<String> {
    // The inode is the number that `readlink` shows as `mnt:[…]`.
    let namespace = fs::metadata("/proc/self/ns/mnt")?.ino();
    let mut prefix = String::with_capacity(PATH_CAPACITY);
    let _ = write!(prefix, "{DIRECTORY}/lifesign.{namespace}.{service}.");
    Ok(prefix)
}

/// Whether `path` is `prefix` and a pid, because "api" must not find "api.admin".
fn is_of_service(path: &Path, prefix: &[u8]) -> bool {
    let pid = path.as_os_str().as_bytes().strip_prefix(prefix);
    pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
}

/// Whether the process that `path` names runs the same executable as this one.
fn is_of_executable(path: &Path, namespace: &[u8]) -> bool {
    let executable = |pid: &str| {
        let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    path.as_os_str().as_bytes().starts_with(namespace)
        && path.extension().is_some_and(|pid| {
            let own = executable("self");
            own.is_some() && own == pid.to_str().and_then(executable)
        })
}
