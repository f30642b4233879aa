//! A blocking socket whose operations all end at one deadline.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::Kind;

/// Maximum size of one read in bytes. A report with a dozen checks fits.
pub(super) const READ_SIZE: usize = 2048;

/// Maximum size of one write in bytes. `write_all` splits a longer request.
const WRITE_MAX: usize = 16 * 1024;

/// Size of a response in bytes at which the probe stops reading.
pub(super) const RESPONSE_MAX: usize = 64 * 1024;

/// The time at which a probe ends, on the monotonic clock.
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

    /// Returns the deadline for connecting to the first of two addresses. It leaves half of the
    /// time for the second address, in case a firewall drops the packets to the first.
    pub(super) fn half(self) -> Self {
        let timeout = self.timeout / 2;
        Self { timeout, ..self }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the remaining time. It is never zero: a timeout of zero would let a socket wait for
    /// ever.
    pub(super) fn remaining(self) -> io::Result<Duration> {
        match self.timeout.checked_sub(self.elapsed()) {
            Some(left) if left >= Duration::from_micros(1) => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The address to connect to, and the address to try if that fails.
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
            // The first error is reported, because on a machine without IPv6 the second is always
            // "unreachable".
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
        // This timeout applies to the first write and, on Linux, to `connect`.
        socket.set_write_timeout(Some(deadline.remaining()?))?;
        if cfg!(target_os = "linux") {
            // If a signal interrupts `connect`, another call continues the same attempt.
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

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            // Linux divides a large write to a Unix socket into several buffers, and starts the
            // timeout anew for each of them.
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

    /// Waits for bytes and appends them to `bytes`. Returns their number: 0 at the end of the
    /// stream.
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

    /// Appends the bytes that have arrived to `bytes`, without waiting.
    ///
    /// If a socket is closed with unread bytes, the kernel resets the connection, and the service
    /// logs an error.
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

/// Whether a signal interrupted a system call. On Linux, SIGCONT does so even without a handler.
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
