//! The one line that a probe prints: escaped, bounded, in one write, and not waited for where that can
//! be avoided.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use super::{HEALTHY, UNHEALTHY};

/// Podman keeps 500 bytes of a probe's output, Docker 4096.
const LINE_MAX: usize = 400;

const ELLIPSIS: &str = "...";

/// Where a line goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    /// Prints one line. That it cannot be written changes nothing.
    pub(super) fn print_line(self, text: fmt::Arguments<'_>) {
        let _ = self.write(line(text).as_bytes());
    }

    fn write(self, line: &[u8]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(written) = linux::write(self, line) {
            return written;
        }
        match self {
            Self::Stdout => io::stdout().write_all(line),
            Self::Stderr => io::stderr().write_all(line),
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::{self, File, OpenOptions},
        io::{self, Write},
        mem::ManuallyDrop,
        os::{
            fd::AsFd,
            unix::fs::{FileTypeExt, OpenOptionsExt},
        },
        thread,
        time::Duration,
    };

    use socket2::SockRef;

    use super::Output;

    /// Until then, a reader that is only busy has read something.
    const ATTEMPTS: u32 = 5;
    const PAUSE: Duration = Duration::from_millis(10);

    /// Writes to a pipe or a socket that may be full, and that perhaps nobody will ever read.
    /// `None` if it is neither, or a pipe that cannot be opened again.
    pub(super) fn write(output: Output, line: &[u8]) -> Option<io::Result<()>> {
        let path = match output {
            Output::Stdout => "/proc/self/fd/1",
            Output::Stderr => "/proc/self/fd/2",
        };
        let file_type = fs::metadata(path).ok()?.file_type();
        if file_type.is_fifo() {
            // Not closed, because the process is about to end.
            let mut pipe = ManuallyDrop::new(reopen(path).ok()?);
            // So short a line is written whole or not at all.
            Some(patiently(|| pipe.write(line)))
        } else if file_type.is_socket() {
            Some(patiently(|| match output {
                Output::Stdout => send(&io::stdout(), line),
                Output::Stderr => send(&io::stderr(), line),
            }))
        } else {
            None
        }
    }

    /// Not to wait is a property of what is open, and others have it open too: for that it is
    /// opened once more.
    fn reopen(path: &str) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
    }

    fn send(socket: &impl AsFd, line: &[u8]) -> io::Result<usize> {
        SockRef::from(socket).send_with_flags(line, libc::MSG_DONTWAIT)
    }

    fn patiently(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
        for _ in 1..ATTEMPTS {
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                result => return result.map(drop),
            }
        }
        write().map(drop)
    }
}

/// Prints a text that was asked for. A failure to write is a failure.
pub(super) fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => HEALTHY,
        Err(_) => UNHEALTHY,
    }
}

pub(crate) fn line(text: fmt::Arguments<'_>) -> String {
    let mut line = Line(String::with_capacity(LINE_MAX));
    // The error says that there was more than fits.
    let _ = line.write_fmt(text);
    line.0.push('\n');
    line.0
}

/// What strangers sent ends up on terminals: nothing that could move a cursor or start a line.
struct Line(String);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let line = &mut self.0;
        for c in text.chars() {
            let mark = line.len();
            match c {
                ' ' => line.push(c),
                _ if c.is_ascii_graphic() => line.push(c),
                _ if c.is_ascii() => line.extend(c.escape_default()),
                // Leaves letters alone and escapes what has no shape of its own.
                _ => line.extend(c.escape_debug()),
            }
            if line.len() > LINE_MAX - ELLIPSIS.len() - 1 {
                line.truncate(mark);
                line.push_str(ELLIPSIS);
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
