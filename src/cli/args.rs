//! The arguments after `healthcheck`.

use std::{ffi::OsString, fmt, time::Duration};

use crate::{
    Probe,
    endpoint::{Endpoint, InvalidUrl, parse_path},
};

const TIME_FORM: &str = "expected a time like 500ms, 2s or 1m, more than 0 and at most 1h";
const URL_FORM: &str = "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH";
const HEADER_FORM: &str = "expected 'Name: value'";
const FLAGS: &str = "--ready, --live, --timeout, --header, --json, --quiet, --help";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Endpoint and path of a URL argument.
    pub(super) url: Option<(Endpoint, Option<String>)>,
    pub(super) path: Option<String>,
    pub(super) probe: Option<Probe>,
    pub(super) timeout: Option<Duration>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Options {
    /// Parses the arguments. Returns `None` if they contain `--help`.
    pub(crate) fn parse(
        args: impl Iterator<Item = OsString>,
    ) -> Result<Option<Self>, InvalidInput> {
        let mut options = Self {
            url: None,
            path: None,
            probe: None,
            timeout: None,
            headers: Vec::new(),
            json: false,
            quiet: false,
        };
        let mut args = args.map(|arg| {
            arg.into_string()
                .map_err(|arg| InvalidInput::argument(&arg.to_string_lossy(), &"expected UTF-8"))
        });
        while let Some(arg) = args.next().transpose()? {
            let (flag, mut attached) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            let mut value = |expected| match attached.take() {
                Some(value) => Ok(value),
                None => args
                    .next()
                    .unwrap_or_else(|| Err(InvalidInput::new(flag, expected))),
            };
            match flag {
                "--timeout" => {
                    let time = parse_time(&value(TIME_FORM)?);
                    let time = time.ok_or_else(|| InvalidInput::new(flag, TIME_FORM))?;
                    options.timeout = Some(time);
                }
                "--header" => options.headers.push(parse_header(&value(HEADER_FORM)?)?),
                "--ready" | "--live" | "--json" | "--quiet" | "--help" if attached.is_some() => {
                    return Err(InvalidInput::new(flag, "expected no value"));
                }
                "--ready" => options.set_probe(flag, Probe::Readiness)?,
                "--live" => options.set_probe(flag, Probe::Liveness)?,
                "--json" => options.json = true,
                "--quiet" => options.quiet = true,
                "--help" | "-h" => return Ok(None),
                _ if flag.starts_with('-') => return Err(InvalidInput::unknown(flag, FLAGS)),
                _ => options.set_url_or_path(&arg)?,
            }
        }
        if options.json && options.quiet {
            return Err(InvalidInput::new("--quiet", "expected no --json beside it"));
        }
        let url_path = options.url.as_ref().and_then(|(_, path)| path.as_ref());
        match (options.path.as_ref().or(url_path), options.probe) {
            (Some(path), Some(_)) => Err(InvalidInput::argument(
                path,
                &"expected no path beside --ready or --live",
            )),
            _ => Ok(Some(options)),
        }
    }

    fn set_probe(&mut self, flag: &str, probe: Probe) -> Result<(), InvalidInput> {
        if self.probe.is_some_and(|earlier| earlier != probe) {
            return Err(InvalidInput::new(
                flag,
                "expected one of --ready and --live",
            ));
        }
        self.probe = Some(probe);
        Ok(())
    }

    fn set_url_or_path(&mut self, arg: &str) -> Result<(), InvalidInput> {
        if self.url.is_some() || self.path.is_some() {
            return Err(InvalidInput::argument(arg, &"expected one URL or path"));
        }
        if arg.starts_with('/') {
            let path = parse_path(arg).map_err(|e| InvalidInput::argument(arg, &e))?;
            self.path = Some(path.to_owned());
        } else {
            let url = Endpoint::parse_given(arg).map_err(|error| match error {
                InvalidUrl::Form => InvalidInput::argument(arg, &URL_FORM),
                _ => InvalidInput::argument(arg, &error),
            })?;
            self.url = Some(url);
        }
        Ok(())
    }
}

/// Parses a number with a unit. There is no default unit, because other tools differ in theirs.
fn parse_time(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut time = unit.checked_mul(parse_digits(whole)?)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        time = time.checked_add(place * digit.to_digit(10)?)?;
    }
    let range = Duration::from_millis(1)..=Duration::from_secs(3600);
    range.contains(&time).then_some(time)
}

/// Parses digits only. `str::parse` would also accept the sign in "+1".
fn parse_digits(text: &str) -> Option<u32> {
    text.chars().try_fold(0, |number: u32, digit| {
        number.checked_mul(10)?.checked_add(digit.to_digit(10)?)
    })
}

fn parse_header(text: &str) -> Result<(String, String), InvalidInput> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let (name, value) = text
        .split_once(':')
        .filter(|(name, _)| !name.is_empty() && name.bytes().all(is_token))
        .ok_or_else(|| InvalidInput::new("--header", HEADER_FORM))?;
    let invalid = |expected| Err(InvalidInput::new(&format!("--header {name:?}"), expected));
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return invalid("expected a value without control characters");
    }
    // These headers could announce a body, which the probe does not send, or keep the connection
    // open.
    let framing = ["connection", "content-length", "transfer-encoding"];
    if framing.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        return invalid("expected a header that does not frame the request");
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// The error for an invalid argument or environment variable.
///
/// Container engines log its message, so a value appears in it only if it cannot be a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidInput(String);

impl InvalidInput {
    pub(super) fn new(name: &str, expected: &str) -> Self {
        Self(format!("{name}: {expected}"))
    }

    pub(super) fn with_value(name: &str, value: &str, expected: &dyn fmt::Display) -> Self {
        if is_public(value) {
            Self(format!("{name} {value:?}: {expected}"))
        } else {
            Self(format!("{name}: {expected}"))
        }
    }

    pub(super) fn unknown(arg: &str, known: &str) -> Self {
        let is_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match arg.split(|c| !is_flag(c)).next() {
            Some(flag) if flag.starts_with('-') => {
                Self(format!("unknown flag {flag}: expected one of {known}"))
            }
            _ => Self(format!("unknown argument: expected one of {known}")),
        }
    }

    fn argument(argument: &str, expected: &dyn fmt::Display) -> Self {
        Self::with_value("argument", argument, expected)
    }
}

/// Whether a value is a URL or path without the parts that can hold a secret: userinfo and query.
fn is_public(value: &str) -> bool {
    let scheme = value.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_url = value.starts_with('/')
        || (scheme == "unix" || value[scheme.len()..].starts_with("://"))
            && scheme.bytes().all(|b| b.is_ascii_alphabetic());
    is_url && !value.contains(['@', '?'])
}

impl fmt::Display for InvalidInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
