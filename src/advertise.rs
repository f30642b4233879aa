//! Where the service really listens, told to the probes of its own container and to nobody else.
//!
//! One file for each running service, `/dev/shm/lifesign.NAMESPACE.SERVICE.PID`:
//!
//! - `/dev/shm` is a tmpfs that every engine mounts, writable for every user even when the root
//!   filesystem is read-only. Nothing listens, and no port or abstract socket (which a container
//!   on the host's network would share with the host) is taken.
//! - The mount namespace in the name keeps containers apart that share it (the containers of one
//!   pod, `--ipc=host`): an exec'd probe is in its service's mount namespace, and nobody else is.
//! - The service holds a lock on the file as long as it lives, and the kernel takes the lock away
//!   when it dies, however that happens: a file without a lock is stale. No pid is compared, so
//!   reused pids, other pid namespaces and `hidepid` do no harm.
//! - The file's owner is the one who wrote it (nobody can write for another in a sticky folder).
//!   The reader prefers its own user's, then root's, then another user's, for a service that
//!   dropped its privileges, or is asked by `docker exec --user`. What others can write to is
//!   ignored. Of its own user's the container's first process counts, of others the younger.

use std::{io, iter};

use tracing::warn;

use crate::{Endpoint, Health, Probe, endpoint::parse_path, health::lock};

impl Health {
    /// Advertises where the service listens to the `healthcheck` command of its container.
    ///
    /// Takes the address that the listener reports, or an [`Endpoint`] for HTTPS and Unix sockets.
    /// A second call replaces the first. On Linux the endpoint is written to a file in `/dev/shm`,
    /// which is named after the container's mount namespace and the service, and which is locked
    /// for as long as this process lives. The file contains nothing but addresses and paths.
    /// Without `/dev/shm` this logs a warning, and on other systems it does nothing: there
    /// `healthcheck` uses `HEALTHCHECK_URL` or `PORT`.
    pub fn advertise(&self, endpoint: impl Into<Endpoint>) -> &Self {
        self.advertise_endpoint(&endpoint.into());
        self
    }

    /// Not generic, so that it is compiled once.
    fn advertise_endpoint(&self, endpoint: &Endpoint) {
        let settings = &self.inner.settings;
        let paths = settings.routes.each_ref();
        let paths = paths.map(|route| route.outer_path.clone());
        let mut advertisement = lock(&self.inner.advertisement);
        // Removes the old file first, because two files would be two services.
        *advertisement = None;
        match Advertisement::write(settings.build.name(), endpoint, &paths) {
            Ok(Some(written)) => *advertisement = Some(Box::new(written)),
            Ok(None) => {}
            Err(error) => warn!(
                %endpoint, %error,
                "the endpoint could not be advertised: healthcheck will use HEALTHCHECK_URL or PORT"
            ),
        }
    }
}

/// What a service advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) endpoint: Endpoint,
    /// The format, the endpoint and the paths of the three routes, each on a line.
    text: String,
}

impl Advertised {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "Linux only"))]
    pub(crate) fn format(endpoint: &Endpoint, paths: &[String; 3]) -> io::Result<String> {
        let [health, ready, live] = paths;
        let text = format!("{FORMAT}\n{endpoint}\n{health}\n{ready}\n{live}\n");
        match Self::parse(text) {
            Some(read) if read.endpoint == *endpoint => Ok(read.text),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no probe could ask there: expected the address that a listener reports",
            )),
        }
    }

    pub(crate) fn parse(text: String) -> Option<Self> {
        let endpoint = Self::check(&text)?;
        Some(Self { endpoint, text })
    }

    fn check(text: &str) -> Option<Endpoint> {
        let mut lines = lines(text);
        if lines.next() != Some(FORMAT) {
            return None;
        }
        let (endpoint, None) = Endpoint::parse(lines.next()?).ok()? else {
            return None;
        };
        let mut path = || lines.next().filter(|path| parse_path(path).is_ok());
        let _three = (path()?, path()?, path()?);
        (lines.next().is_none() && text.ends_with('\n')).then_some(endpoint)
    }

    /// Where the route is that answers `probe`.
    pub(crate) fn path(&self, probe: Probe) -> &str {
        let first = 2;
        lines(&self.text)
            .nth(first + probe as usize)
            .unwrap_or_default()
    }
}

/// Whole lines. For so few and short ones, `str::lines` takes several times as long.
fn lines(mut rest: &str) -> impl Iterator<Item = &str> {
    iter::from_fn(move || {
        let end = rest.bytes().position(|b| b == b'\n')?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        Some(line)
    })
}

/// The first line, so that a later version can change the rest.
const FORMAT: &str = "lifesign 1";

#[cfg(target_os = "linux")]
pub(crate) use linux::{Advertisement, find};

#[cfg(target_os = "linux")]
mod linux {
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

    use super::Advertised;
    use crate::Endpoint;

    const FOLDER: &str = "/dev/shm";

    /// What a path comes to when the service's name is not long.
    const PATH: usize = 64;

    /// An advertisement is a few lines; more is not one.
    const MAX: usize = 4096;

    /// More files of one service than that are not looked at: whoever shares the folder could fill
    /// it, and make a probe late.
    const FILES: usize = 256;

    /// More names than that are not read: some milliseconds.
    const NAMES: usize = 10_000;

    /// The service's side: dropping it takes the advertisement back.
    #[derive(Debug)]
    pub(crate) struct Advertisement {
        path: PathBuf,
        /// Holds the lock.
        file: File,
    }

    impl Advertisement {
        pub(crate) fn write(
            service: &str,
            endpoint: &Endpoint,
            paths: &[String; 3],
        ) -> io::Result<Option<Self>> {
            let text = Advertised::format(endpoint, paths)?;
            sweep(Path::new(FOLDER));
            let path = format!("{}{}", prefix(service)?, process::id());
            // In a folder that others share, a name that can be guessed can be taken before us.
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let unforeseen = format!("{path}{}", since.as_nanos());
            // Under another name until it is whole and locked: what readers see is never less.
            let draft = unforeseen.replacen("/lifesign.", "/.lifesign.", 1);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                // Nobody else can open it, and so lock it, before it is ours.
                .mode(0o600)
                .open(&draft)?;
            file.try_lock()?;
            // Whatever the umask is: a probe may run as another user.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            let name = |path: String| fs::rename(&draft, &path).map(|()| path.into());
            let path = file
                .write_all(text.as_bytes())
                .and_then(|()| name(path).or_else(|_| name(unforeseen)))
                .inspect_err(|_| drop(fs::remove_file(&draft)))?;
            Ok(Some(Self { path, file }))
        }
    }

    impl Drop for Advertisement {
        fn drop(&mut self) {
            // A later advertisement of this process may have taken the name.
            remove(&self.path, &self.file);
        }
    }

    /// Removes the file, if that is still what the path leads to.
    fn remove(path: &Path, file: &File) {
        let inode = |about: io::Result<fs::Metadata>| about.map(|about| about.ino()).ok();
        if inode(fs::symlink_metadata(path)) == inode(file.metadata()) {
            let _ = fs::remove_file(path);
        }
    }

    /// The probe's side: what the service of this name in this container advertised, if it lives.
    pub(crate) fn find(service: &str) -> Option<Advertised> {
        let mut prefix = prefix(service).ok()?;
        let me = fs::metadata("/proc/self").ok()?.uid();
        // In nearly every container the service is process 1: no need to list the folder.
        prefix.push('1');
        if let Some(((OWN, ..), advertised)) = read(prefix.as_ref(), me) {
            return Some(advertised);
        }
        prefix.pop();
        let files = fs::read_dir(FOLDER).ok()?.take(NAMES).flatten();
        let paths = files.map(|file| file.path());
        let mut best = None;
        for path in paths.filter(|path| is_ours(path, &prefix)).take(FILES) {
            if let Some((rank, advertised)) = read(&path, me)
                && best.as_ref().is_none_or(|(best, _)| *best < rank)
            {
                best = Some((rank, advertised));
            }
        }
        best.map(|(_, advertised)| advertised)
    }

    /// Greater is better: whose it is, then how young it is.
    type Rank = (u8, i64, i64);

    const OWN: u8 = 2;
    const ROOT: u8 = 1;
    const FOREIGN: u8 = 0;

    fn read(path: &Path, me: u32) -> Option<(Rank, Advertised)> {
        let mut file = OpenOptions::new()
            .read(true)
            // Whoever can write here could put a link or a pipe in our way.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file()
            || about.mode() & 0o022 != 0
            || about.len() > MAX as u64
            || !locked(&file)
        {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(about.len()).ok()?];
        let length = file.read(&mut bytes).ok()?;
        bytes.truncate(length);
        let owner = match about.uid() {
            uid if uid == me => OWN,
            0 => ROOT,
            _ => FOREIGN,
        };
        let rank = (owner, about.ctime(), about.ctime_nsec());
        Some((rank, Advertised::parse(String::from_utf8(bytes).ok()?)?))
    }

    fn locked(file: &File) -> bool {
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Removes what services of this user that were killed have left, whichever container they
    /// were in: the containers of a pod share the folder, and it outlives them.
    fn sweep(folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let ours = |entry: &fs::DirEntry| entry.file_name().as_bytes().starts_with(b"lifesign.");
        for entry in entries.take(NAMES).flatten().filter(ours).take(FILES) {
            let path = entry.path();
            if let Ok(file) = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                && file.metadata().is_ok_and(|about| about.is_file())
                && !locked(&file)
            {
                // Of another user's, the folder's sticky bit refuses this.
                remove(&path, &file);
            }
        }
    }

    /// The file's path but for the pid.
    fn prefix(service: &str) -> io::Result<String> {
        // The number that `readlink` shows as `mnt:[…]`.
        let namespace = fs::metadata("/proc/self/ns/mnt")?.ino();
        let mut prefix = String::with_capacity(PATH);
        let _ = write!(prefix, "{FOLDER}/lifesign.{namespace}.{service}.");
        Ok(prefix)
    }

    /// The rest is a pid: "api" must not find "api.admin".
    fn is_ours(path: &Path, prefix: &str) -> bool {
        let path = path.as_os_str().as_bytes();
        let pid = path.strip_prefix(prefix.as_bytes());
        pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use super::Advertised;
    use crate::Endpoint;

    #[derive(Debug)]
    pub(crate) struct Advertisement;

    impl Advertisement {
        pub(crate) fn write(_: &str, _: &Endpoint, _: &[String; 3]) -> io::Result<Option<Self>> {
            Ok(None)
        }
    }

    pub(crate) fn find(_: &str) -> Option<Advertised> {
        None
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Advertisement, find};
