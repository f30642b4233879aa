//! Scans a report. The result must agree with serde_json, also if the report is cut off.
#![no_main]

mod shared;

use std::fmt;

use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing::summary;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::Choices;

fuzz_target!(|body: &[u8]| {
    let found = summary(body);
    let cut = Choices::of(body).below(body.len() as u32 + 1) as usize;
    let (status, output) = summary(&body[..cut]);

    if let Ok(Top(entries)) = serde_json::from_slice(body) {
        assert_eq!(found, expected(&entries));
        for (key, text) in [("status", status), ("output", output)] {
            let is_in_whole = |text: &String| entries.contains(&(key.to_owned(), text.clone()));
            assert!(
                text.as_ref().is_none_or(is_in_whole),
                "{key} {text:?} of a part"
            );
        }
    }
});

/// Returns the values of `status` and `output`. Stops when both are known, or when the status is
/// `pass`.
fn expected(entries: &[(String, String)]) -> (Option<String>, Option<String>) {
    let (mut status, mut output) = (None, None);
    for (key, text) in entries {
        let value = Some(text.clone()).filter(|text| !text.is_empty());
        match key.as_str() {
            "status" => status = value,
            "output" => output = value,
            _ => {}
        }
        let passes = key == "status" && text == "pass";
        if passes || (status.is_some() && output.is_some()) {
            break;
        }
    }
    (status, output)
}

/// The entries of an object whose values are strings, in order and with escapes unresolved. Empty
/// if the document is not an object.
struct Top(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list or a string")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let string = |raw: &RawValue| {
            let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
            Some(text.to_owned())
        };
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let key = string(key).ok_or_else(|| A::Error::custom("expected a string"))?;
            entries.extend(string(value).map(|value| (key, value)));
        }
        Ok(Top(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Top, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Top(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Top, E> {
        Ok(Top(Vec::new()))
    }
}
