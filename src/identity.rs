//! The number by which a probe recognizes the responses of its own service.
//!
//! Other services can respond at the same address, because containers can share a network
//! namespace, and any process can bind the port after a crash. The service's name would not
//! distinguish two containers of one image, and `status_only` must not reveal the name. So every
//! report has the header `Lifesign-Instance` with a hash of the executable and the container. The
//! probe runs the same executable in the same container, so it computes the same number.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::OnceLock,
};

/// Name of the request header by which a server recognizes a probe.
pub(crate) const PROBE_HEADER: &str = "Lifesign-Probe";

/// Name of the response header that holds the number.
pub(crate) const HEADER: &str = "lifesign-instance";

static OWN: OnceLock<String> = OnceLock::new();

/// Returns the number of this process as 16 hexadecimal digits.
///
/// Fails if the process cannot find its executable: on Linux, without `/proc`.
pub(crate) fn own() -> io::Result<&'static str> {
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let number = compute()?;
    Ok(OWN.get_or_init(|| format!("{number:016x}")))
}

/// Whether `text` has the form of a number from [`own`].
pub(crate) fn is_number(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn compute() -> io::Result<u64> {
    // This hasher gives the same result in all processes, unlike `RandomState`.
    let mut hasher = DefaultHasher::new();
    let executable = if cfg!(target_os = "linux") {
        // The namespace distinguishes two containers that run one executable from a shared volume.
        namespace()?.hash(&mut hasher);
        // Unlike the executable's path, this link works even if the file was deleted.
        "/proc/self/exe".into()
    } else {
        env::current_exe()?
    };
    let metadata = fs::metadata(executable)?;
    // If an emulator or an explicitly started dynamic loader runs the program, this file is the
    // emulator or the loader. The distance between code and data still distinguishes the programs.
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

/// Returns the inode number of the mount namespace, which differs between containers.
/// `readlink /proc/self/ns/mnt` prints it as `mnt:[…]`.
#[cfg(unix)]
pub(crate) fn namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    // The number is cached, because a probe needs it twice, and reading it takes a system call.
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
