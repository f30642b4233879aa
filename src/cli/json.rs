//! The result of a probe as a JSON object, for scripts.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{output::line, target::Source};
use crate::probe::{Healthy, ProbeError, Request, Summary};

/// Maximum length of `status` and of `output`, in characters.
const TEXT_MAX: usize = 400;

/// The object that `healthcheck --json` prints. A value that is not known is null.
#[derive(Default)]
pub(super) struct Outcome<'a> {
    is_healthy: bool,
    url: Option<String>,
    source: Option<Source>,
    code: Option<u16>,
    summary: Option<&'a Summary>,
    error: Option<String>,
    took: Option<Duration>,
}

impl<'a> Outcome<'a> {
    /// Describes the outcome of a request that was sent, or of a connection that failed.
    pub(super) fn new(
        request: &Request,
        source: Source,
        result: &'a Result<Healthy, ProbeError>,
        took: Duration,
    ) -> Self {
        let (url, code, summary) = match result {
            Ok(healthy) => {
                let url = request.url(healthy.peer);
                (url, Some(healthy.code), Some(&healthy.summary))
            }
            Err(error) => (error.url.clone(), error.code(), error.summary()),
        };
        let error = result.as_ref().err();
        Self {
            is_healthy: result.is_ok(),
            url: Some(url),
            source: Some(source),
            code,
            summary,
            error: error.map(|error| text_of(format_args!("{error}{source}"))),
            took: Some(took),
        }
    }

    /// Describes the outcome of a probe that had no request to send.
    pub(super) fn failed(why: &dyn fmt::Display) -> Self {
        Self {
            error: Some(text_of(format_args!("{why}"))),
            ..Self::default()
        }
    }

    /// Prints the object on one line. A failure to write it does not change the verdict.
    pub(super) fn print(&self) {
        let json = serde_json::to_string(self)
            .expect("strings, numbers and string keys always become JSON");
        let _ = io::stdout().write_all((escape(&json) + "\n").as_bytes());
    }
}

impl Serialize for Outcome<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let report = self.summary;
        let status = report.and_then(|report| report.status.as_deref());
        let output = report.and_then(|report| report.output.as_deref());
        // `status` and `output` of a report still have JSON's escapes. The first line of another
        // body has none.
        let is_field = self.is_healthy || status.is_some();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("healthy", &self.is_healthy)?;
        map.serialize_entry("url", &self.url)?;
        map.serialize_entry("source", &self.source.map(Source::name))?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("status", &status.map(|status| decode(status, is_field)))?;
        map.serialize_entry("output", &output.map(|output| decode(output, is_field)))?;
        map.serialize_entry("error", &self.error)?;
        let milliseconds = |took: Duration| took.as_micros() as f64 / 1000.0;
        map.serialize_entry("duration_ms", &self.took.map(milliseconds))?;
        map.end()
    }
}

/// Formats a text like the printed line, but without its line feed.
fn text_of(text: fmt::Arguments<'_>) -> String {
    let mut line = line(text);
    line.pop();
    line
}

/// Decodes JSON's escapes if the text is a report's field, and cuts it to [`TEXT_MAX`].
fn decode(text: &str, is_field: bool) -> String {
    let unescaped = match is_field {
        true => unescape(text),
        false => None,
    };
    let text = unescaped.unwrap_or_else(|| text.to_owned());
    text.chars().take(TEXT_MAX).collect()
}

/// Decodes the inside of a JSON string. Returns `None` if it is invalid.
///
/// The parser of `serde_json` would add 26 KB to the service's binary.
fn unescape(text: &str) -> Option<String> {
    let mut units = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let unit = match c {
            '\\' => match chars.next()? {
                'b' => 8,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                'u' => {
                    let (digits, rest) = chars.as_str().split_at_checked(4)?;
                    chars = rest.chars();
                    u16::from_str_radix(digits, 16).ok()?
                }
                c @ ('"' | '\\' | '/') => c as u16,
                _ => return None,
            },
            _ => {
                units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
                continue;
            }
        };
        units.push(unit);
    }
    String::from_utf16(&units).ok()
}

/// Escapes characters that are valid in JSON but can disturb a terminal or a log. All are in
/// strings, where `\u` is valid.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        let is_plain = c == '"' || c == '\\' || c == '\'' || c.escape_debug().len() == 1;
        if is_plain {
            escaped.push(c);
        } else {
            let units = &mut [0; 2];
            let units = c.encode_utf16(units).iter();
            escaped.extend(units.map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}
