//! Forged advertisements, which the probe must ignore.
#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::PathBuf,
};

use crate::{container::Container, process::make_fifo};

/// Creates advertisements that each have one defect and are valid otherwise.
pub(crate) struct Forger {
    pub(crate) shm: PathBuf,
    pub(crate) prefix: String,
    pub(crate) text: String,
}

/// A forged file, removed and unlocked when dropped.
pub(crate) struct Forgery {
    pub(crate) path: PathBuf,
    pub(crate) _lock: Option<File>,
    pub(crate) _socket: Option<UnixListener>,
}

impl Drop for Forgery {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir(&self.path));
    }
}

impl Forger {
    pub(crate) fn new(container: &Container, address: SocketAddr) -> Self {
        Self {
            shm: container.shm(),
            prefix: format!("lifesign.{}", container.namespace()),
            text: format!(
                "lifesign 1\nhttp://{address}\n/health\n/health/ready\n/health/live\n900\n0123456789abcdef\n"
            ),
        }
    }

    /// Writes a file and locks it, as a real service would.
    pub(crate) fn forge(&self, id: &str, text: impl AsRef<[u8]>) -> Forgery {
        self.forge_as(&format!("{}.service.{id}", self.prefix), text.as_ref())
    }

    pub(crate) fn forge_as(&self, name: &str, text: &[u8]) -> Forgery {
        let path = self.shm.join(name);
        fs::write(&path, text).expect("/dev/shm is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
        let file = File::open(&path).expect("own file");
        file.lock().expect("nobody else's lock");
        Forgery {
            path,
            _lock: Some(file),
            _socket: None,
        }
    }

    pub(crate) fn forge_all(&self) -> Vec<Forgery> {
        let text = self.text.as_str();
        let mut forged = vec![
            self.forge("1", ""),
            self.forge("2", "lifesign 2\n"),
            self.forge("3", text.replacen("lifesign 1", "lifesign 2", 1)),
            self.forge("4", text.replacen("lifesign 1\n", "", 1)),
            self.forge("5", format!("{text}/more\n")),
            self.forge("6", text.trim_end()),
            self.forge("7", format!("{text}{}", "\n".repeat(8192))),
            self.forge("8", text.replacen("http://", "gopher://", 1)),
            self.forge("9", text.replacen("\n/health\n", "\nhealth\n", 1)),
            self.forge("10", [text.as_bytes(), b"\xff"].concat()),
            self.forge(
                "12",
                text.replacen("0123456789abcdef", "0123456789abcde", 1),
            ),
            self.forge(
                "19",
                text.replacen("0123456789abcdef", "0123456789abcdeg", 1),
            ),
            self.forge(
                "11",
                "lifesign 1\nhttp://127.0.0.1:0\n/health\n/r\n/l\n0123456789abcdef\n",
            ),
            self.forge(
                "17",
                text.replacen("/health\n", "/health HTTP/1.1\rX: y\n", 1),
            ),
            self.forge("18", text.replacen("/live\n", "/\0\n", 1)),
            // These names have a malformed PID or none, or belong to another service, to an
            // unfinished file, or to another namespace.
            self.forge("x.12", text),
            self.forge("13x", text),
            self.forge("", text),
            self.forge_as(&format!("{}.servic.14", self.prefix), text.as_bytes()),
            self.forge_as(&format!(".{}.service.15", self.prefix), text.as_bytes()),
            self.forge_as("lifesign.1.service.16", text.as_bytes()),
        ];
        // Other users may write to these files.
        for (id, mode) in [("20", 0o666), ("21", 0o664), ("22", 0o646)] {
            let forgery = self.forge(id, text);
            fs::set_permissions(&forgery.path, fs::Permissions::from_mode(mode)).expect("own file");
            forged.push(forgery);
        }
        // The file has no lock, like the file that a killed service leaves behind.
        let mut unlocked = self.forge("30", text);
        unlocked._lock = None;
        forged.push(unlocked);
        // These files have valid names, but are links, a pipe, a directory and a socket.
        let special = |id: &str| Forgery {
            path: self.shm.join(format!("{}.service.{id}", self.prefix)),
            _lock: None,
            _socket: None,
        };
        let target = self.forge_as(&format!("forged.{}", self.prefix), text.as_bytes());
        let link = special("40");
        symlink(target.path.file_name().expect("a name"), &link.path)
            .expect("/dev/shm is writable");
        let dangling = special("41");
        symlink("nowhere", &dangling.path).expect("/dev/shm is writable");
        let device = special("42");
        symlink("/dev/zero", &device.path).expect("/dev/shm is writable");
        let fifo = special("43");
        make_fifo(&fifo.path);
        let directory = special("44");
        fs::create_dir(&directory.path).expect("/dev/shm is writable");
        let mut socket = special("45");
        socket._socket = Some(UnixListener::bind(&socket.path).expect("/dev/shm is writable"));
        forged.extend([target, link, dangling, device, fifo, directory, socket]);
        forged
    }
}
