//! The arguments after `healthcheck`.

use std::{ffi::OsString, fmt, time::Duration};

use crate::{
    Probe,
    endpoint::{BadUrl, Endpoint, parse_path},
    probe::TIMEOUT,
};

/// The parsed arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(super) url: Option<Url>,
    pub(super) path: Option<String>,
    pub(super) probe: Option<Probe>,
    pub(super) timeout: Duration,
    pub(super) headers: Vec<(String, String)>,
    pub(super) quiet: bool,
}

/// An endpoint, and the path in its URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) endpoint: Endpoint,
    pub(super) path: Option<String>,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, BadUrl> {
        let (endpoint, path) = Endpoint::parse(text)?;
        let path = path.map(str::to_owned);
        Ok(Self { endpoint, path })
    }
}

impl Options {
    /// Parses the arguments. `None` is a request for help.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, Invalid> {
        let mut options = Self {
            url: None,
            path: None,
            probe: None,
            timeout: TIMEOUT,
            headers: Vec::new(),
            quiet: false,
        };
        let mut args = args.map(|arg| {
            arg.into_string()
                .map_err(|arg| Invalid::argument(&arg.to_string_lossy(), &"expected UTF-8"))
        });
        while let Some(arg) = args.next().transpose()? {
            let (flag, attached) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            let mut value = |expected: &str| match attached.clone() {
                Some(value) => Ok(value),
                None => args
                    .next()
                    .transpose()?
                    .ok_or_else(|| Invalid::argument(flag, &expected)),
            };
            match flag {
                "--timeout" => {
                    let text = value(TIME)?;
                    options.timeout =
                        parse_time(&text).ok_or_else(|| Invalid::new(flag, &text, &TIME))?;
                }
                "--header" => {
                    let text = value(HEADER)?;
                    let header = parse_header(&text)?;
                    options.headers.push(header);
                }
                // A value attached to an unknown flag may be a secret.
                _ if attached.is_some() => {
                    return Err(Invalid::argument(&arg[..=flag.len()], &UNKNOWN));
                }
                "--ready" => options.set_probe(flag, Probe::Readiness)?,
                "--live" => options.set_probe(flag, Probe::Liveness)?,
                "--quiet" => options.quiet = true,
                "--help" | "-h" => return Ok(None),
                _ if flag.starts_with('-') => return Err(Invalid::argument(flag, &UNKNOWN)),
                _ => options.set_url_or_path(&arg)?,
            }
        }
        let path = options.path.as_deref();
        let path = path.or(options.url.as_ref().and_then(|url| url.path.as_deref()));
        match (path, options.probe) {
            (Some(path), Some(_)) => Err(Invalid::argument(
                path,
                &"expected no path beside --ready or --live",
            )),
            _ => Ok(Some(options)),
        }
    }

    fn set_probe(&mut self, flag: &str, probe: Probe) -> Result<(), Invalid> {
        if self.probe.is_some_and(|earlier| earlier != probe) {
            return Err(Invalid::argument(
                flag,
                &"expected one of --ready and --live",
            ));
        }
        self.probe = Some(probe);
        Ok(())
    }

    fn set_url_or_path(&mut self, arg: &str) -> Result<(), Invalid> {
        if self.url.is_some() || self.path.is_some() {
            return Err(Invalid::argument(arg, &"expected one URL or path"));
        }
        if arg.starts_with('/') {
            let path = parse_path(arg).map_err(|e| Invalid::argument(arg, &e))?;
            self.path = Some(path.to_owned());
        } else {
            let url = Url::parse(arg).map_err(|error| match error {
                BadUrl::Form => Invalid::argument(arg, &URL_OR_PATH),
                _ => Invalid::argument(arg, &error),
            })?;
            self.url = Some(url);
        }
        Ok(())
    }
}

const TIME: &str = "expected a time like 500ms, 2s or 1m, more than 0 and at most 1h";
const URL_OR_PATH: &str = "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH";
const HEADER: &str = "expected 'Name: value'";
const UNKNOWN: &str =
    "unknown, expected one of --ready, --live, --timeout, --header, --quiet, --help";

/// Parses digits, perhaps a fraction, and a unit. A number alone could be seconds or milliseconds.
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

/// Like `str::parse`, which would take "+1", and not take "".
fn parse_digits(text: &str) -> Option<u32> {
    text.chars().try_fold(0, |number: u32, digit| {
        number.checked_mul(10)?.checked_add(digit.to_digit(10)?)
    })
}

fn parse_header(text: &str) -> Result<(String, String), Invalid> {
    // Only the first word is repeated: what follows may be a secret.
    let word = text.split([':', ' ', '\t']).next().unwrap_or_default();
    let invalid = |expected: &str| Err(Invalid::new("--header", word, &expected));
    let Some((name, value)) = text.split_once(':') else {
        return invalid(HEADER);
    };
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return invalid(HEADER);
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return invalid("expected a value without control characters");
    }
    // The probe relies on one request without a body on one connection.
    let framing = ["connection", "content-length", "transfer-encoding"];
    if framing.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        return invalid("expected a header that does not frame the request");
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// An input as it may be repeated: what stands before an '@', in a query or after a header's name is
/// for nobody's log.
fn without_secrets(input: &str) -> &str {
    let at = match input.rfind('@') {
        Some(at) if !input.starts_with("unix:") => at,
        _ => 0,
    };
    let rest = &input[at..];
    let ends = [rest.find('?'), header_value(rest)];
    let end = ends.into_iter().flatten().min();
    end.map_or(rest, |end| &rest[..=end])
}

/// Where a header's value begins, if that is one: what stands behind a name, and is no port, nor the
/// rest of an URL or of an address.
fn header_value(input: &str) -> Option<usize> {
    let colon = input.find(':')?;
    let (name, value) = (&input[..colon], &input[colon + 1..]);
    let port = value.split(['/', '?']).next().unwrap_or_default();
    let is_port = matches!(port.len(), 1..=5) && port.bytes().all(|b| b.is_ascii_digit());
    let is_scheme = value.starts_with("//") || matches!(name, "http" | "https" | "unix");
    let is_name = name.contains(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b));
    if is_name && !is_port && !is_scheme && !value.starts_with(':') {
        Some(colon)
    } else {
        input.find(": ")
    }
}

/// An argument or environment variable that is invalid: its name, and what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid(String);

impl Invalid {
    pub(super) fn new(name: &str, value: &str, expected: &dyn fmt::Display) -> Self {
        let value = without_secrets(value);
        Self(format!("{name} {value:?}: {expected}"))
    }

    pub(super) fn argument(argument: &str, expected: &dyn fmt::Display) -> Self {
        Self::new("argument", argument, expected)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
