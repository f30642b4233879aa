//! The line that a probe prints: escaped and bounded.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use super::{HEALTHY, UNHEALTHY};

/// Podman keeps 500 bytes of a probe's output, Docker 4096.
const LINE_MAX: usize = 400;

const ELLIPSIS: &str = "...";

/// Prints one line. A failure to write does not change the verdict.
pub(super) fn print_line(mut output: impl Write, text: fmt::Arguments<'_>) {
    let _ = output.write_all(line(text).as_bytes());
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
