//! The line that a probe prints: escaped and bounded.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use super::{HEALTHY, UNHEALTHY};

/// Maximum length of a line in bytes. Podman keeps 500 bytes of a probe's output, Docker 4096.
const LINE_MAX: usize = 400;

/// Capacity in bytes for a line. The line of a healthy service needs a quarter of it.
const LINE_CAPACITY: usize = 96;

/// Text that marks the end of a line that was cut.
const ELLIPSIS: &str = "...";

/// Prints one line. A failure to write it does not change the verdict.
pub(super) fn print_line(mut output: impl Write, text: fmt::Arguments<'_>) {
    let _ = output.write_all(line(text).as_bytes());
}

/// Prints the text that the user asked for. If it cannot be written, the command fails.
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

/// Formats a line: escaped, cut to [`LINE_MAX`], with a line feed.
pub(crate) fn line(text: fmt::Arguments<'_>) -> String {
    let mut line = Line(String::with_capacity(LINE_CAPACITY));
    // An error means that the line was cut.
    let _ = line.write_fmt(text);
    line.0.push('\n');
    line.0
}

/// A line that is safe to print on a terminal. Parts of it come from a response, and could
/// otherwise move the cursor or start a new line.
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
                // Leaves letters as they are, and escapes combining and invisible characters.
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
