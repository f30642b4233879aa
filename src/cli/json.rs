//! The result of a probe as a JSON object, for scripts.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{output::line, target::Source};
use crate::probe::{Healthy, ProbeError, Request};

/// The object that `healthcheck --json` prints. A value that is not known is null.
#[derive(Default)]
pub(super) struct Outcome {
    is_healthy: bool,
    url: Option<String>,
    source: Option<Source>,
    code: Option<u16>,
    status: Option<String>,
    output: Option<String>,
    error: Option<String>,
    took: Option<Duration>,
}

impl Outcome {
    /// Describes the response to a request, or the error.
    pub(super) fn new(
        request: &Request,
        source: Source,
        result: &Result<Healthy, ProbeError>,
        took: Duration,
    ) -> Self {
        let (url, code, summary) = match result {
            Ok(healthy) => {
                let url = request.url(healthy.peer);
                (url, Some(healthy.code), Some(&healthy.summary))
            }
            Err(error) => (error.url.clone(), error.code(), error.summary()),
        };
        let status = summary.and_then(|summary| summary.status.as_ref());
        let output = summary.and_then(|summary| summary.output.as_ref());
        let error = result.as_ref().err();
        Self {
            is_healthy: result.is_ok(),
            url: Some(printable(&url)),
            source: Some(source),
            code,
            status: status.map(printable),
            output: output.map(printable),
            error: error.map(|error| printable(format_args!("{error}{source}"))),
            took: Some(took),
        }
    }

    /// Describes an error that occurred before a request was sent.
    pub(super) fn failed(why: &dyn fmt::Display) -> Self {
        Self {
            error: Some(printable(why)),
            ..Self::default()
        }
    }

    /// Prints the object on one line. A failure to write it does not change the verdict.
    pub(super) fn print(&self) {
        let json = serde_json::to_string(self)
            .expect("strings, numbers and string keys always become JSON");
        let _ = io::stdout().write_all((json + "\n").as_bytes());
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("healthy", &self.is_healthy)?;
        map.serialize_entry("url", &self.url)?;
        map.serialize_entry("source", &self.source.map(Source::name))?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("output", &self.output)?;
        map.serialize_entry("error", &self.error)?;
        let milliseconds = |took: Duration| took.as_micros() as f64 / 1000.0;
        map.serialize_entry("duration_ms", &self.took.map(milliseconds))?;
        map.end()
    }
}

/// Escapes and cuts a text as in the line that `healthcheck` prints without `--json`.
fn printable(text: impl fmt::Display) -> String {
    let mut line = line(format_args!("{text}"));
    line.pop();
    line
}
