//! The line that a probe prints: escaped and bounded.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use super::{HEALTHY, UNHEALTHY};

/// Maximum length of a line in bytes. Podman keeps 500 bytes of a probe's output, Docker 4096.
const LINE_MAX: usize = 400;

/// Initial capacity of a line in bytes, enough for a healthy service.
const LINE_CAPACITY: usize = 96;

/// End of a line that was cut.
const ELLIPSIS: &str = "...";

/// Prints one line. A failure to write it does not change the verdict.
pub(super) fn print_line(mut output: impl Write, text: fmt::Arguments<'_>) {
    let _ = output.write_all(line(text).as_bytes());
}

/// Prints help or metadata. Returns the exit code, which is a failure if the text cannot be
/// written.
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

/// Escapes a text, cuts it to [`LINE_MAX`] and adds a line feed.
pub(crate) fn line(text: fmt::Arguments<'_>) -> String {
    let mut line = Line(String::with_capacity(LINE_CAPACITY));
    // Formatting fails only when the line is cut.
    let _ = line.write_fmt(text);
    line.0.push('\n');
    line.0
}

/// Escapes what is written to it. Text from a response could otherwise move a terminal's cursor or
/// start a new line.
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
                // This escapes combining and invisible characters, but not letters.
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
