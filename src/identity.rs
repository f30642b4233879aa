//! The value of the header `Lifesign-Instance`, by which a probe recognizes its own service.
//!
//! Another service can respond at the same address: containers can share a network namespace, and
//! after a crash any process can bind the port. The value is a hash of the executable and the
//! container. The service sends it in every report, and the probe computes the same value, because
//! it runs the same executable in the same container. The service's name would not distinguish two
//! containers of one image.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::OnceLock,
};

/// Name of the request header by which a server recognizes a probe.
pub(crate) const PROBE_HEADER: &str = "Lifesign-Probe";

/// Name of the response header with the hash.
pub(crate) const HEADER: &str = "lifesign-instance";

static OWN: OnceLock<String> = OnceLock::new();

/// Returns the hash of this process's executable and container, as 16 hexadecimal digits. Fails on
/// Linux without `/proc`.
pub(crate) fn own() -> io::Result<&'static str> {
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let hash = compute()?;
    Ok(OWN.get_or_init(|| format!("{hash:016x}")))
}

/// Whether `text` has the form of a hash from [`own`].
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn compute() -> io::Result<u64> {
    // This hasher gives the same result in all processes, unlike `RandomState`.
    let mut hasher = DefaultHasher::new();
    let executable = if cfg!(target_os = "linux") {
        namespace()?.hash(&mut hasher);
        // Unlike a path, this link is valid even after the file was deleted.
        "/proc/self/exe".into()
    } else {
        env::current_exe()?
    };
    let metadata = fs::metadata(executable)?;
    // Under an emulator, `executable` is the emulator, for all programs that it runs. The distance
    // from this program's code to its data still distinguishes the programs.
    let code = own as fn() -> io::Result<&'static str> as usize;
    let data = &raw const OWN as usize;
    code.wrapping_sub(data).hash(&mut hasher);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino()).hash(&mut hasher);
    }
    #[cfg(not(unix))]
    (metadata.len(), metadata.modified()?).hash(&mut hasher);
    Ok(hasher.finish())
}

/// Returns the inode number of the mount namespace. Each container has its own mount namespace.
#[cfg(unix)]
pub(crate) fn namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    // A probe needs the number twice, and reading it takes a system call.
    static NUMBER: OnceLock<u64> = OnceLock::new();
    if let Some(number) = NUMBER.get() {
        return Ok(*number);
    }
    let number = fs::metadata("/proc/self/ns/mnt")?.ino();
    Ok(*NUMBER.get_or_init(|| number))
}

#[cfg(not(unix))]
fn namespace() -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}
