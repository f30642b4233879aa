//! Advertisements as files: each process writes `/dev/shm/lifesign.NAMESPACE.SERVICE.PID`.
//!
//! - Every container engine mounts `/dev/shm`. All users can write to it, even if the root file
//!   system is read-only.
//! - Several containers can share one `/dev/shm`: those of a pod, and those with `--ipc=host`.
//!   NAMESPACE, the number of the mount namespace, separates them.
//! - The service locks its file. The kernel releases the lock when the process ends, so a file
//!   without a lock is stale.
//! - PID gives a restarted service a file of its own. The file of the old process stays locked if
//!   the old process has left a forked child behind.
//! - Any user can write a file for any service, so a file of the probe's own user is preferred.
//!   Files of other users are also read, for services that drop their privileges and for
//!   `docker exec --user`.

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
use crate::{Probe, identity};

const DIRECTORY: &str = "/dev/shm";

/// Initial capacity of a path in bytes, enough for most service names.
const PATH_CAPACITY: usize = 64;

/// Maximum size of a file in bytes.
const SIZE_MAX: usize = 4096;

/// Maximum number of directory entries to read, which takes some milliseconds. Any user can create
/// more.
const ENTRIES_MAX: usize = 10_000;

/// Age above which an unlocked draft is removed. A draft is an incomplete file, which a running
/// service locks at once.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(10);

/// The locked file of this process. Dropping this removes the file.
#[derive(Debug)]
pub(super) struct LockedFile {
    path: PathBuf,
    /// Holds the lock while it is open.
    file: File,
    /// PID of the process that wrote the file. A forked child, which has a copy of this struct,
    /// must not remove the file.
    pid: u32,
}

impl LockedFile {
    pub(super) fn create(service: &str, text: &str) -> io::Result<Self> {
        if text.len() > SIZE_MAX {
            return Err(io::Error::other("the socket or a path is too long"));
        }
        remove_stale_files();
        let path = format!("{}{}", prefix(service)?, process::id());
        // If another user has a file at `path`, this process cannot replace it, and uses another
        // path.
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let other_path = format!("{path}{}", since.as_nanos());
        // The file gets its name only when it is complete, so that probes never read half a file.
        let draft = other_path.replacen("/lifesign.", "/.lifesign.", 1);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Otherwise, another user could open and lock the draft first.
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
    // A probe of another user must be able to read the file, whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.pid == process::id() {
            remove(&self.path, &self.file);
        }
    }
}

/// Removes the file at `path`, unless another file has replaced `file` there.
fn remove(path: &Path, file: &File) {
    let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
    if inode(fs::symlink_metadata(path)) == inode(file.metadata()) {
        let _ = fs::remove_file(path);
    }
}

/// Removes the files of killed services, because the `/dev/shm` of a pod outlives its containers.
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
            // `/dev/shm` is sticky, so this fails for files of other users.
            remove(&path, &file);
        }
    }
}

fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().map(|modified| modified.elapsed());
    matches!(age, Ok(Ok(age)) if age > DRAFT_AGE_MAX)
}

/// Returns the address of a running service in this container, with `given_path` or the path of
/// `probe`.
///
/// The service must have the name `service` or run the probe's executable: `build_info!` returns
/// one name in a service's library and another in its binary. Of several services, PID 1 is
/// preferred if it has the name, the probe's user and the probe's executable, and otherwise the
/// service with the greatest [`Rank`].
pub(crate) fn find(
    service: &str,
    probe: Probe,
    given_path: Option<&str>,
) -> Result<Advertised, NotFound> {
    let read = |file: &Path, uid| read(file, uid, probe, given_path);
    let no_proc = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => NotFound::Impossible("/proc does not tell the mount namespace"),
        _ => NotFound::Unreadable("/proc/self".into(), error),
    };
    let mut path = prefix(service).map_err(no_proc)?;
    let uid = fs::metadata("/proc/self").map_err(no_proc)?.uid();
    let own = identity::own().map_err(no_proc)?;
    let prefix_len = path.len();
    // In most containers the service is PID 1. Reading its file first saves listing the directory.
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
            // Any user can create an unreadable file, which must not make every probe fail.
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

/// Lists the files whose paths start with `namespace`. Also returns an error if the list may be
/// incomplete.
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

/// Returns the reason if the probe's user cannot write to `/dev/shm`. Writes to a file without a
/// name (`O_TMPFILE`), which disappears when it is closed.
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

/// Precedence of a service. The first field that differs decides, and the greater value wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_own: bool,
    is_same_executable: bool,
    is_namesake: bool,
    changed: (i64, i64),
}

struct Running {
    advertised: Advertised,
    /// Whether the file belongs to the probe's user.
    is_own: bool,
    /// Time of the file's last change. This is `ctime`, because a user can set `mtime` to any time.
    changed: (i64, i64),
}

/// Reads a file. Returns `None` if it is not the file of a running service.
fn read(
    file: &Path,
    uid: u32,
    probe: Probe,
    given_path: Option<&str>,
) -> io::Result<Option<Running>> {
    let mut file = match open(file) {
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
    Ok(advertisement.map(|advertisement| {
        let path = given_path.unwrap_or(advertisement.paths[probe as usize]);
        Running {
            advertised: Advertised {
                endpoint: advertisement.endpoint,
                path: path.to_owned(),
                route: Probe::with_path(path, advertisement.paths),
                response_timeout: Duration::from_millis(advertisement.response_millis.into()),
                instance: advertisement.instance.to_owned(),
            },
            is_own: metadata.uid() == uid,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }))
}

/// Opens a file for reading. Another user may have put a symbolic link there, which it does not
/// follow, or a named pipe, on which it does not block.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Whether opening failed because there is nothing, a symbolic link, or a socket at the path.
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

/// Returns the path of a service's file without its PID.
fn prefix(service: &str) -> io::Result<String> {
    let namespace = identity::namespace()?;
    let mut prefix = String::with_capacity(PATH_CAPACITY);
    let _ = write!(prefix, "{DIRECTORY}/lifesign.{namespace}.{service}.");
    Ok(prefix)
}

/// Whether `path` consists of `prefix` and a PID. A probe of "api" must not find "api.admin".
fn is_of_service(path: &Path, prefix: &[u8]) -> bool {
    let pid = path.as_os_str().as_bytes().strip_prefix(prefix);
    pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
}

fn service_of(path: &Path, namespace: &str) -> Option<String> {
    let rest = path.to_str()?.strip_prefix(namespace)?;
    let (service, _pid) = rest.rsplit_once('.')?;
    Some(service.to_owned())
}
