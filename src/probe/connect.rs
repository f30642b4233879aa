//! A blocking socket whose operations all end at one deadline.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::Kind;

/// Size of one read in bytes. A report with a dozen checks fits.
pub(super) const READ_SIZE: usize = 2048;

/// Maximum size of one write in bytes. Every request without very long headers fits.
const WRITE_MAX: usize = 16 * 1024;

/// Size in bytes of a response at which the probe stops reading.
pub(super) const RESPONSE_MAX: usize = 64 * 1024;

/// A monotonic deadline for the whole probe.
///
/// The clock decides, because Linux can fire a socket's timeout up to an eighth late: after 3.4 s
/// instead of 3 s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    start: Instant,
    pub(super) timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        let start = Instant::now();
        Self { start, timeout }
    }

    /// Returns the deadline for the first of two addresses. It leaves time for the second if a
    /// firewall drops the packets to the first.
    pub(super) fn half(self) -> Self {
        let timeout = self.timeout / 2;
        Self { timeout, ..self }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the remaining time. It is never zero, which would mean "no timeout" to a socket.
    pub(super) fn remaining(self) -> io::Result<Duration> {
        match self.timeout.checked_sub(self.elapsed()) {
            Some(left) if left >= Duration::from_micros(1) => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The addresses to try, in order. The second is tried if connecting to the first fails.
pub(super) type Addresses = (SocketAddr, Option<SocketAddr>);

pub(super) fn tcp(
    (first, second): Addresses,
    deadline: Deadline,
) -> Result<(Connection, SocketAddr), Kind> {
    let open = |address: SocketAddr, deadline| {
        Connection::open(Domain::for_address(address), &address.into(), deadline)
    };
    let first_deadline = match second {
        Some(_) => deadline.half(),
        None => deadline,
    };
    let opened = open(first, first_deadline).map(|connection| Connection {
        deadline,
        ..connection
    });
    match (opened, second) {
        (Ok(connection), _) => Ok((connection, first)),
        (Err(error), Some(second)) => match open(second, deadline) {
            Ok(connection) => Ok((connection, second)),
            // Report the first error: on a machine without IPv6 the second is "unreachable".
            Err(_) => {
                let both = format!("{first} or {second}");
                Err(Kind::connect(&both, error, deadline.timeout))
            }
        },
        (Err(error), _) => Err(Kind::connect(&first, error, deadline.timeout)),
    }
}

pub(super) fn unix(path: &Path, deadline: Deadline) -> Result<Connection, Kind> {
    SockAddr::unix(path)
        .and_then(|address| Connection::open(Domain::UNIX, &address, deadline))
        .map_err(|error| Kind::connect(&path.display(), error, deadline.timeout))
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    pub(super) deadline: Deadline,
}

impl Connection {
    #[cfg(fuzzing)]
    pub(crate) const fn new(socket: Socket, deadline: Deadline) -> Self {
        Self { socket, deadline }
    }

    fn open(domain: Domain, address: &SockAddr, deadline: Deadline) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        // This timeout also applies to the first write.
        socket.set_write_timeout(Some(deadline.remaining()?))?;
        if cfg!(target_os = "linux") {
            // Linux applies the write timeout to `connect`, for Unix sockets too. After an
            // interruption, another call of `connect` continues the same attempt.
            loop {
                match socket.connect(address) {
                    Err(error) if is_interrupted(&error) => {
                        socket.set_write_timeout(Some(deadline.remaining()?))?;
                    }
                    result => return result.map(|()| Self { socket, deadline }),
                }
            }
        }
        if domain == Domain::UNIX {
            socket.connect(address)?;
        } else {
            socket.connect_timeout(address, deadline.remaining()?)?;
        }
        Ok(Self { socket, deadline })
    }

    /// Writes all bytes, in one system call unless they exceed [`WRITE_MAX`] or the peer reads
    /// slowly.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            // A large write is split, because Linux restarts the timeout of a Unix socket with each
            // buffer.
            match self.socket.write(&bytes[..bytes.len().min(WRITE_MAX)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_interrupted(&error) => {}
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.socket
                .set_write_timeout(Some(self.deadline.remaining()?))?;
        }
    }

    /// Waits for bytes and appends them. Returns their number, which is 0 at the end of the stream.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut chunk = [0; READ_SIZE];
        loop {
            self.socket
                .set_read_timeout(Some(self.deadline.remaining()?))?;
            match self.socket.read(&mut chunk) {
                Err(error) if is_interrupted(&error) => {}
                result => {
                    bytes.extend_from_slice(&chunk[..result.as_ref().copied().unwrap_or(0)]);
                    return result;
                }
            }
        }
    }

    /// Appends what has arrived, without waiting.
    ///
    /// Closing a socket with unread bytes resets the connection, and services log the reset as an
    /// error.
    pub(super) fn read_available(&mut self, bytes: &mut Vec<u8>) {
        if self.socket.set_nonblocking(true).is_err() {
            return;
        }
        let mut chunk = [0; READ_SIZE];
        while bytes.len() < RESPONSE_MAX
            && let Ok(count @ 1..) = self.socket.read(&mut chunk)
        {
            bytes.extend_from_slice(&chunk[..count]);
        }
    }
}

/// Whether a signal interrupted the call, such as the SIGCONT after a SIGSTOP.
fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// Whether a timeout expired. The error depends on the operation, the address family and the
/// operating system.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    let in_progress = matches!(
        error.raw_os_error(),
        Some(libc::EINPROGRESS | libc::EALREADY)
    );
    #[cfg(not(target_os = "linux"))]
    let in_progress = false;
    in_progress
        || matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        )
}
