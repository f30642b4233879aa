//! The two fields of a report that the probe prints.

use std::borrow::Cow;

use crate::Status;

/// What the probe takes from a report to say why, or as much of it as has arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) status: Option<Cow<'static, str>>,
    pub(crate) output: Option<String>,
}

impl Summary {
    /// Takes the two strings from wherever they are in the object. Escapes are left as they are:
    /// this is for people, and they keep it on one line.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut summary = Self::default();
        let (mut key, mut depth): (&[u8], _) = (b"", 0);
        let mut rest = body;
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' => key = b"",
                b'"' => {
                    let text;
                    (text, rest) = string(after);
                    match key {
                        _ if depth != 1 => {}
                        // What passes has no reason to look for.
                        b"status" if text == b"pass" => {
                            summary.status = Some(Status::Pass.as_str().into());
                            break;
                        }
                        b"status" => summary.status = said(text).map(Cow::Owned),
                        b"output" => summary.output = said(text),
                        _ => key = text,
                    }
                    if summary.status.is_some() && summary.output.is_some() {
                        break;
                    }
                }
                _ => {}
            }
        }
        summary
    }
}

/// What stands before the closing quote, and what after it; of half a string, nothing.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let closing = bytes.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    closing.map_or((b"", b""), |at| (&bytes[..at], &bytes[at + 1..]))
}

fn said(text: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
}
