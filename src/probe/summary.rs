//! Reads fields of a health report, even of an incomplete one. The JSON parser of `serde_json`
//! would add 26 KB to the service's binary.

use std::{borrow::Cow, iter};

use crate::Status;

/// The fields `status` and `output` of a report. A field that has not arrived is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) status: Option<Cow<'static, str>>,
    pub(crate) output: Option<String>,
}

impl Summary {
    /// Scans the top level of a JSON object. Keeps JSON's escapes, so that each text stays on one
    /// line.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut summary = Self::default();
        for (key, text) in fields(body) {
            match key {
                // A report that passes has no `output`, so nothing is left to find.
                b"status" if text == b"pass" => {
                    summary.status = Some(Status::Pass.as_str().into());
                    break;
                }
                b"status" => summary.status = non_empty(text).map(Cow::Owned),
                b"output" => summary.output = non_empty(text),
                _ => {}
            }
            if summary.status.is_some() && summary.output.is_some() {
                break;
            }
        }
        summary
    }
}

/// Returns the `serviceId` of a report, the name of the service that sent it.
pub(super) fn service(body: &[u8]) -> Option<String> {
    let (_, name) = fields(body).find(|(key, _)| *key == b"serviceId")?;
    non_empty(name)
}

/// Returns the key and the value of each string at the top level of a JSON object.
fn fields(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (mut key, mut depth): (Option<&[u8]>, _) = (None, 0);
    let mut rest = body;
    iter::from_fn(move || {
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' => key = None,
                b'"' => {
                    let text;
                    (text, rest) = split_string(after);
                    match key {
                        _ if depth != 1 => {}
                        Some(key) => return Some((key, text)),
                        None => key = Some(text),
                    }
                }
                _ => {}
            }
        }
        None
    })
}

/// Returns the bytes before and after the closing quote of a string, or nothing if the string has
/// no closing quote.
fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let closing = bytes.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    closing.map_or((b"", b""), |at| (&bytes[..at], &bytes[at + 1..]))
}

fn non_empty(text: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
}
