//! Advertisements as files: `/dev/shm/lifesign.NAMESPACE.SERVICE.PID`, one for each process.
//!
//! - Every engine mounts `/dev/shm`, a tmpfs that all users can write to even if the root
//!   filesystem is read-only. A port or an abstract socket would be visible outside of a container
//!   on the host's network.
//! - The directory can be shared by several containers (of a pod, or with `--ipc=host`). The number
//!   of the mount namespace separates them: a probe that is executed in a container is in the mount
//!   namespace of its service.
//! - The service holds a lock on its file. The kernel releases the lock when the process ends, so a
//!   file without a lock is stale. A pid would mean nothing in another pid namespace.
//! - The pid separates the processes of one service: a forked child that outlives its parent can
//!   hold the lock of the old file, which must not hide the restarted service.
//! - A file of the probe's own user wins against files of other users, which can be forged. Files
//!   of other users are needed if a service drops its privileges, and for `docker exec --user`.

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
    time::{Duration, SystemTime},
};

use super::{Advertised, Advertisement, NotFound};
use crate::identity;

const DIRECTORY: &str = "/dev/shm";

/// Initial capacity of a path in bytes. The string grows for a long service name.
const PATH_CAPACITY: usize = 64;

/// Maximum size of an advertisement in bytes.
const SIZE_MAX: usize = 4096;

/// Maximum number of directory entries to read. Any user of the directory can fill it: reading so
/// many entries delays a probe by some milliseconds.
const ENTRIES_MAX: usize = 10_000;

/// Age above which a draft, an unfinished file, is from a killed service.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(10);

/// The locked file of a service, removed when it is dropped.
#[derive(Debug)]
pub(super) struct LockedFile {
    path: PathBuf,
    /// The open file, which holds the lock.
    file: File,
    /// PID of the process that wrote the file. A forked child of it must not remove the file.
    pid: u32,
}

impl LockedFile {
    pub(super) fn create(service: &str, text: &str) -> io::Result<Self> {
        if text.len() > SIZE_MAX {
            return Err(io::Error::other("the socket or a path is too long"));
        }
        remove_stale_files();
        let path = format!("{}{}", prefix(service)?, process::id());
        // The name in case another user's file at `path` cannot be replaced.
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let other_path = format!("{path}{}", since.as_nanos());
        // The file is written under a hidden name, so that probes never see an incomplete file.
        let draft = other_path.replacen("/lifesign.", "/.lifesign.", 1);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Only this user can open the draft, so no other user can lock it first.
            .mode(0o600)
            .open(&draft)?;
        let rename = |path: &String| fs::rename(&draft, path).map(|()| path.into());
        write_locked(&file, text)
            .and_then(|()| rename(&path).or_else(|_| rename(&other_path)))
            .inspect_err(|_| drop(fs::remove_file(&draft)))
            .map(|path| Self {
                path,
                file,
                pid: process::id(),
            })
    }
}

fn write_locked(mut file: &File, text: &str) -> io::Result<()> {
    file.try_lock()?;
    // The umask must not apply, because a probe may run as another user.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.pid == process::id() {
            // A later advertisement of this process may have replaced the file.
            remove(&self.path, &self.file);
        }
    }
}

/// Removes the file at `path` if it is still `file`.
fn remove(path: &Path, file: &File) {
    let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
    if inode(fs::symlink_metadata(path)) == inode(file.metadata()) {
        let _ = fs::remove_file(path);
    }
}

/// Removes the files of killed services. The `/dev/shm` of a pod outlives its containers.
fn remove_stale_files() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        let name = entry.file_name();
        let is_draft = name.as_bytes().starts_with(b".lifesign.");
        if (is_draft || name.as_bytes().starts_with(b"lifesign."))
            && let path = entry.path()
            && let Ok(file) = open(&path)
            && let Ok(metadata) = file.metadata()
            && metadata.is_file()
            && (!is_draft || is_old(&metadata))
            && matches!(is_locked(&file), Ok(false))
        {
            // This fails for files of other users, because the directory is sticky.
            remove(&path, &file);
        }
    }
}

/// Whether an unlocked draft is too old for a running service, which locks its draft at once.
fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().map(|modified| modified.elapsed());
    matches!(age, Ok(Ok(age)) if age > DRAFT_AGE_MAX)
}

/// Returns the advertisement of the running service of this name in this container.
///
/// A service with another name is found if it runs the probe's executable, because `build_info!`
/// returns another name in the service's library than in its binary. Of several services, PID 1 is
/// preferred if it has this name, the probe's user and the probe's executable, otherwise the
/// service with the greatest [`Rank`].
pub(crate) fn find(service: &str) -> Result<Advertised, NotFound> {
    let no_proc = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => NotFound::Impossible("/proc does not tell the mount namespace"),
        _ => NotFound::Unreadable("/proc/self".into(), error),
    };
    let mut path = prefix(service).map_err(no_proc)?;
    let uid = fs::metadata("/proc/self").map_err(no_proc)?.uid();
    let own = identity::own().map_err(no_proc)?;
    let prefix_len = path.len();
    // In nearly every container the service is PID 1. Then the directory need not be read.
    path.push('1');
    if let Ok(Some(file)) = read(path.as_ref(), uid)
        && file.is_own
        && file.advertised.instance == own
    {
        return Ok(file.advertised);
    }
    let prefix = &path[..prefix_len];
    let namespace = &prefix[..prefix_len - service.len() - 1];
    let (paths, mut error) = list(namespace)?;
    let (mut best, mut other) = (None, None);
    for path in paths {
        let is_namesake = is_of_service(&path, prefix.as_bytes());
        match read(&path, uid) {
            Ok(Some(file)) => {
                let is_same_executable = file.advertised.instance == own;
                if is_namesake || is_same_executable {
                    let rank = Rank {
                        is_own: file.is_own,
                        is_same_executable,
                        is_namesake,
                        changed: file.changed,
                    };
                    if best.as_ref().is_none_or(|(greatest, _)| *greatest < rank) {
                        best = Some((rank, file.advertised));
                    }
                } else {
                    other = service_of(&path, namespace);
                }
            }
            Ok(None) => {}
            // Other users can create files that only they can read.
            Err(why) if !is_namesake && why.kind() == io::ErrorKind::PermissionDenied => {}
            Err(why) => error = Some((path, why)),
        }
    }
    match (best, error) {
        (Some((_, advertised)), _) => Ok(advertised),
        (None, Some((path, error))) => Err(NotFound::Unreadable(path, error)),
        (None, None) => Err(match why_unwritable() {
            Some(why) => NotFound::Impossible(why),
            None => NotFound::NotAdvertised {
                service: service.to_owned(),
                other,
            },
        }),
    }
}

/// A path that could not be read, and the error.
type Unreadable = (PathBuf, io::Error);

/// Lists the files of a namespace. If the list may be incomplete, also returns the error that cut
/// it short.
fn list(namespace: &str) -> Result<(Vec<PathBuf>, Option<Unreadable>), NotFound> {
    let entries = fs::read_dir(DIRECTORY).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NotFound::Impossible("there is no /dev/shm"),
        _ => NotFound::Unreadable(DIRECTORY.into(), error),
    })?;
    let (mut paths, mut error) = (Vec::new(), None);
    for (count, entry) in entries.enumerate() {
        if count == ENTRIES_MAX {
            let text = format!("more than {ENTRIES_MAX} entries");
            error = Some((DIRECTORY.into(), io::Error::other(text)));
            break;
        }
        match entry.map(|entry| entry.path()) {
            Ok(path)
                if path
                    .as_os_str()
                    .as_bytes()
                    .starts_with(namespace.as_bytes()) =>
            {
                paths.push(path);
            }
            Ok(_) => {}
            Err(why) => error = Some((DIRECTORY.into(), why)),
        }
    }
    Ok((paths, error))
}

/// Returns the reason if the probe's user cannot write to the directory. Tries a nameless file
/// (`O_TMPFILE`), which disappears when it is closed.
fn why_unwritable() -> Option<&'static str> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(DIRECTORY);
    let error = file.and_then(|mut file| file.write_all(b"x")).err()?;
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Some("/dev/shm is read-only"),
        io::ErrorKind::PermissionDenied => Some("/dev/shm is not writable"),
        io::ErrorKind::StorageFull => Some("/dev/shm is full"),
        _ => None,
    }
}

/// Precedence of a file: the greatest is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_own: bool,
    is_same_executable: bool,
    is_namesake: bool,
    changed: (i64, i64),
}

/// The file of a running service.
struct Running {
    advertised: Advertised,
    /// Whether the file belongs to the probe's user.
    is_own: bool,
    /// Seconds and nanoseconds of `ctime`, which no user can set, unlike `mtime`.
    changed: (i64, i64),
}

/// Reads a file. Returns `None` if it is not the file of a running service.
fn read(path: &Path, uid: u32) -> io::Result<Option<Running>> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if is_no_file(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let is_writable_by_others = metadata.mode() & 0o022 != 0;
    let size = metadata.len().try_into().unwrap_or(usize::MAX);
    if !metadata.is_file() || is_writable_by_others || size > SIZE_MAX || !is_locked(&file)? {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    let size = file.read(&mut bytes)?;
    let text = str::from_utf8(&bytes[..size]).ok();
    let advertisement = text.and_then(Advertisement::parse);
    Ok(advertisement.map(|advertisement| Running {
        advertised: Advertised {
            endpoint: advertisement.endpoint,
            paths: advertisement.paths.map(str::to_owned),
            response_timeout: Duration::from_millis(advertisement.response_millis.into()),
            instance: advertisement.instance.to_owned(),
        },
        is_own: metadata.uid() == uid,
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }))
}

/// Opens a file for reading. Follows no symbolic link, which another user could create, and does
/// not block on a named pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Whether opening failed because there is no regular file: it was removed, or is a link or a
/// socket.
fn is_no_file(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ELOOP | libc::ENXIO)
    )
}

fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns the path of a service's file without the pid at its end.
fn prefix(service: &str) -> io::Result<String> {
    let namespace = identity::namespace()?;
    let mut prefix = String::with_capacity(PATH_CAPACITY);
    let _ = write!(prefix, "{DIRECTORY}/lifesign.{namespace}.{service}.");
    Ok(prefix)
}

/// Whether `path` consists of `prefix` and a pid. A probe of "api" must not find "api.admin".
fn is_of_service(path: &Path, prefix: &[u8]) -> bool {
    let pid = path.as_os_str().as_bytes().strip_prefix(prefix);
    pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
}

/// Returns the name of the service in the path of a file.
fn service_of(path: &Path, namespace: &str) -> Option<String> {
    let rest = path.to_str()?.strip_prefix(namespace)?;
    let (service, _pid) = rest.rsplit_once('.')?;
    Some(service.to_owned())
}
