//! Step 5, exit: the subcommands `healthcheck` and `version`, from arguments to exit code.
//!
//! The only place that reads arguments and environment, and that prints.

pub(crate) mod output;

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Write},
    mem,
    net::{Ipv4Addr, SocketAddr},
    panic,
    process::{self, ExitCode},
    time::Duration,
};

use self::output::Output;
use crate::{
    BuildInfo, Probe,
    advertise::find,
    endpoint::{BadUrl, Endpoint, parse_port, valid_target},
    probe::{Inquiry, TIMEOUT, ask},
    report::DEFAULT_PATHS,
};

/// The service is well, or has printed what it was asked for.
const HEALTHY: u8 = 0;

/// Everything else. Docker reserves 2, and takes any other number for this one.
const UNHEALTHY: u8 = 1;

/// `app healthcheck` and `app version`: the service's own binary as its container's probe.
///
/// Runs first thing in `main`, before logger, configuration and runtime: the engine executes it
/// every few seconds, and each of those costs more than the probe. Every other argument is the
/// service's own business.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(code) = lifesign::Cli::new(lifesign::build_info!()).run() {
///         return code;
///     }
///     // … logger, configuration, runtime, service …
///     ExitCode::SUCCESS
/// }
/// ```
///
/// Exit code 0 is healthy; everything else, usage errors included, is 1. The probe prints one line
/// of at most 400 bytes: `healthy: …` to stdout, `unhealthy: …` to stderr. It asks
///
/// 1. the URL or path in its argument,
/// 2. `HEALTHCHECK_URL`,
/// 3. what the service [advertised](crate::Health::advertise),
/// 4. the [endpoint](Self::endpoint) in code,
/// 5. `PORT` on this machine,
/// 6. `http://127.0.0.1:8080`,
///
/// whichever comes first. Empty variables are unset ones.
#[derive(Debug)]
pub struct Cli {
    build: BuildInfo,
    endpoint: Option<Endpoint>,
}

impl Cli {
    /// For the service that `build` describes; see [`build_info!`](crate::build_info).
    #[must_use]
    pub const fn new(build: BuildInfo) -> Self {
        Self {
            build,
            endpoint: None,
        }
    }

    /// Sets where to ask when neither argument nor environment nor the service itself says so.
    ///
    /// Hardly ever needed: on Linux the service advertises where it listens.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<Endpoint>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Runs the subcommand if the first argument of this process names one.
    #[must_use = "the process is to exit with this code"]
    pub fn run(self) -> Option<ExitCode> {
        let mut args = env::args_os();
        let app = args.next().unwrap_or_default();
        let subcommand = args.next()?;
        let app = App {
            name: app,
            build: self.build,
            endpoint: self.endpoint,
        };
        let code = match subcommand.to_str()? {
            "healthcheck" => app.healthcheck(args.by_ref(), |name| env::var_os(name)),
            "version" => app.version(args.by_ref()),
            _ => return None,
        };
        // The process is about to end, and frees all at once.
        mem::forget((app, subcommand, args));
        Some(ExitCode::from(code))
    }
}

pub(crate) struct App {
    pub(crate) name: OsString,
    pub(crate) build: BuildInfo,
    pub(crate) endpoint: Option<Endpoint>,
}

impl App {
    fn healthcheck(
        &self,
        args: impl Iterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> u8 {
        // Rust's own code for a panic is 101, or 134 where panics abort.
        panic::set_hook(Box::new(|panic| {
            Output::Stderr.say(format_args!("unhealthy: the probe panicked: {panic}"));
            process::exit(UNHEALTHY.into());
        }));
        let options = match Options::parse(args) {
            Ok(Some(options)) => options,
            Ok(None) => return print(&self.healthcheck_help()),
            Err(refusal) => return unhealthy(&refusal),
        };
        let (inquiry, source) = match self.inquiry(&options, env) {
            Ok(found) => found,
            Err(refusal) => return unhealthy(&refusal),
        };
        match ask(&inquiry) {
            Ok(_) if options.quiet => HEALTHY,
            Err(_) if options.quiet => UNHEALTHY,
            Ok(healthy) => {
                Output::Stdout.say(format_args!("healthy: {healthy}"));
                HEALTHY
            }
            Err(error) if error.is_connect() => {
                unhealthy(&format_args!("{error}{}", source.hint()))
            }
            Err(error) => unhealthy(&error),
        }
    }

    /// What to ask, and who says that the service is there.
    pub(crate) fn inquiry(
        &self,
        options: &Options,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Inquiry, Source), Refusal> {
        let mut advertised = None;
        let mut own_path = None;
        let (source, endpoint) = if let Some(Place { endpoint, path }) = &options.place {
            own_path.clone_from(path);
            (Source::Argument, endpoint.clone())
        } else if let Some(url) = variable(&env, "HEALTHCHECK_URL")? {
            let (endpoint, path) =
                Endpoint::parse(&url).map_err(|e| Refusal::new("HEALTHCHECK_URL", &url, &e))?;
            own_path = path.map(str::to_owned);
            (Source::Url, endpoint)
        } else if let Some(found) = find(self.build.name()) {
            let endpoint = advertised.insert(found).endpoint.clone();
            (Source::Advertised, endpoint)
        } else if let Some(endpoint) = &self.endpoint {
            (Source::Code, endpoint.clone())
        } else if let Some(port) = variable(&env, "PORT")? {
            let number = parse_port(&port).ok_or_else(|| {
                let expected = "expected a port from 1 to 65535 (the service advertised none)";
                Refusal::new("PORT", &port, &expected)
            })?;
            (Source::Port, loopback(number).into())
        } else {
            (Source::Default, loopback(DEFAULT_PORT).into())
        };
        // What is asked for by argument comes before what the environment says.
        let target = match (&options.path, options.probe, own_path) {
            (Some(path), _, _) => path.clone(),
            (None, None, Some(path)) => path,
            (None, probe, _) => {
                let probe = probe.unwrap_or(Probe::Health);
                match &advertised {
                    Some(advertised) => advertised.path(probe).to_owned(),
                    None => DEFAULT_PATHS[probe as usize].to_owned(),
                }
            }
        };
        let inquiry = Inquiry {
            endpoint,
            target,
            headers: options.headers.clone(),
            timeout: options.timeout,
        };
        Ok((inquiry, source))
    }

    fn version(&self, mut args: impl Iterator<Item = OsString>) -> u8 {
        let arg = args.next();
        let arg = arg.as_ref().map(|arg| arg.to_string_lossy());
        match (arg.as_deref(), args.next()) {
            (None, _) => print(&self.version_text()),
            (Some("--json"), None) => print(&(json(&self.build) + "\n")),
            (Some("--help" | "-h"), None) => print(&self.version_help()),
            (Some("--json"), Some(more)) => refuse_version(&more.to_string_lossy()),
            (Some(unknown), _) => refuse_version(unknown),
        }
    }

    fn version_text(&self) -> String {
        let build = &self.build;
        let mut text = format!("{} {}\n", build.name(), build.version());
        let dirty = build.dirty().map(|dirty| if dirty { "yes" } else { "no" });
        for (label, value) in [
            ("commit", build.commit()),
            ("describe", build.describe()),
            ("commit date", build.commit_date()),
            ("build date", build.build_date()),
            ("dirty", dirty),
            ("rustc", build.rustc()),
            ("target", build.target()),
            ("profile", build.profile()),
        ] {
            let value = value.unwrap_or("unknown");
            text.push_str(&format!("{label:<12}{value}\n"));
        }
        text
    }

    fn healthcheck_help(&self) -> String {
        format!(
            "\
Asks the running service whether it is well. Exit code 0: healthy, 1: anything else.

Usage: {name} healthcheck [URL|PATH] [OPTIONS]

  URL    http://ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: HEALTHCHECK_URL, what the service advertised, PORT, 127.0.0.1:{DEFAULT_PORT})
  PATH   a path of the service (default: its health route)

  --ready            ask whether it may get traffic
  --live             ask whether it must be restarted
  --timeout TIME     give up after TIME, as in 500ms, 2s or 1m (default: {timeout}s)
  --header 'K: V'    send a header; may be repeated
  --quiet            print nothing, unless an argument or variable is wrong
  --help             print this
",
            name = self.name.display(),
            timeout = TIMEOUT.as_secs(),
        )
    }

    fn version_help(&self) -> String {
        format!(
            "Prints what this binary knows of its own build.\n\nUsage: {} version [--json]\n",
            self.name.display()
        )
    }
}

const DEFAULT_PORT: u16 = 8080;

/// Who says that the service is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Argument,
    Url,
    Advertised,
    Code,
    Port,
    Default,
}

impl Source {
    /// What may be wrong when nobody is.
    const fn hint(self) -> &'static str {
        match self {
            Self::Argument | Self::Url | Self::Code => "",
            Self::Advertised => " (advertised by the service)",
            Self::Port => " (from PORT: is the service up, and does it listen there?)",
            Self::Default => {
                " (the default: is the service up? if it listens elsewhere, set PORT or \
                 HEALTHCHECK_URL)"
            }
        }
    }
}

/// What the arguments after `healthcheck` say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    place: Option<Place>,
    path: Option<String>,
    probe: Option<Probe>,
    timeout: Duration,
    headers: Vec<(String, String)>,
    quiet: bool,
}

/// An URL by argument.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    endpoint: Endpoint,
    path: Option<String>,
}

impl Options {
    /// `None` asks for help.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, Refusal> {
        let mut options = Self {
            place: None,
            path: None,
            probe: None,
            timeout: TIMEOUT,
            headers: Vec::new(),
            quiet: false,
        };
        let mut args = args.map(|arg| {
            arg.into_string()
                .map_err(|arg| Refusal::argument(&arg.to_string_lossy(), &"expected UTF-8"))
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
                    .ok_or_else(|| Refusal::argument(flag, &expected)),
            };
            match flag {
                "--timeout" => {
                    let text = value(TIME)?;
                    options.timeout =
                        parse_time(&text).ok_or_else(|| Refusal::new(flag, &text, &TIME))?;
                }
                "--header" => {
                    let text = value(HEADER)?;
                    let header = parse_header(&text)?;
                    options.headers.push(header);
                }
                // Of what is attached, nobody knows what it is.
                _ if attached.is_some() => {
                    return Err(Refusal::argument(&arg[..=flag.len()], &UNKNOWN));
                }
                "--ready" => options.ask(flag, Probe::Readiness)?,
                "--live" => options.ask(flag, Probe::Liveness)?,
                "--quiet" => options.quiet = true,
                "--help" | "-h" => return Ok(None),
                _ if flag.starts_with('-') => return Err(Refusal::argument(flag, &UNKNOWN)),
                _ => options.locate(&arg)?,
            }
        }
        let path = options.path.as_deref();
        let path = path.or(options
            .place
            .as_ref()
            .and_then(|place| place.path.as_deref()));
        match (path, options.probe) {
            (Some(path), Some(_)) => Err(Refusal::argument(
                path,
                &"expected no path beside --ready or --live",
            )),
            _ => Ok(Some(options)),
        }
    }

    fn ask(&mut self, flag: &str, probe: Probe) -> Result<(), Refusal> {
        if self.probe.is_some_and(|q| q != probe) {
            return Err(Refusal::argument(
                flag,
                &"expected one of --ready and --live",
            ));
        }
        self.probe = Some(probe);
        Ok(())
    }

    fn locate(&mut self, arg: &str) -> Result<(), Refusal> {
        if self.place.is_some() || self.path.is_some() {
            return Err(Refusal::argument(arg, &"expected one URL or path"));
        }
        if arg.starts_with('/') {
            let path = valid_target(arg).map_err(|e| Refusal::argument(arg, &e))?;
            self.path = Some(path.to_owned());
        } else {
            let (endpoint, path) = Endpoint::parse(arg).map_err(|error| match error {
                BadUrl::Form => Refusal::argument(arg, &URL_OR_PATH),
                _ => Refusal::argument(arg, &error),
            })?;
            let path = path.map(str::to_owned);
            self.place = Some(Place { endpoint, path });
        }
        Ok(())
    }
}

const TIME: &str = "expected a time like 500ms, 2s or 1m, more than 0 and at most 1h";
const URL_OR_PATH: &str = "expected http://ADDRESS:PORT/PATH, https://…, unix:/SOCKET or /PATH";
const HEADER: &str = "expected 'Name: value'";
const UNKNOWN: &str =
    "unknown, expected one of --ready, --live, --timeout, --header, --quiet, --help";

/// Digits, perhaps a fraction, and a unit: a number alone could be seconds or milliseconds.
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
    let sensible = Duration::from_millis(1)..=Duration::from_secs(3600);
    sensible.contains(&time).then_some(time)
}

/// Like `str::parse`, which would take "+1", and not take "".
fn parse_digits(text: &str) -> Option<u32> {
    text.chars().try_fold(0, |number: u32, digit| {
        number.checked_mul(10)?.checked_add(digit.to_digit(10)?)
    })
}

fn parse_header(text: &str) -> Result<(String, String), Refusal> {
    // Only the first word is repeated: what follows may be a secret.
    let word = text.split([':', ' ', '\t']).next().unwrap_or_default();
    let refuse = |expected: &str| Err(Refusal::new("--header", word, &expected));
    let Some((name, value)) = text.split_once(':') else {
        return refuse(HEADER);
    };
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return refuse(HEADER);
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return refuse("expected a value without control characters");
    }
    // One request, no body, one connection: that is what the probe relies on.
    let framing = ["connection", "content-length", "transfer-encoding"];
    if framing.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        return refuse("expected a header that does not frame the request");
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

/// An input that is not taken: which one, what it was, what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(String);

impl Refusal {
    fn new(name: &str, value: &str, expected: &dyn fmt::Display) -> Self {
        // Whatever it was meant for, it can be an URL or a header.
        let value = without_secrets(value);
        Self(format!("{name} {value:?}: {expected}"))
    }

    fn argument(argument: &str, expected: &dyn fmt::Display) -> Self {
        Self::new("argument", argument, expected)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An environment variable's text; empty is unset.
fn variable(env: impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, Refusal> {
    match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Err(raw)) => Err(Refusal::new(
            name,
            &raw.to_string_lossy(),
            &"expected UTF-8",
        )),
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn json(build: &BuildInfo) -> String {
    serde_json::to_string(build).expect("strings and booleans always become JSON")
}

fn refuse_version(arg: &str) -> u8 {
    let refusal = Refusal::argument(arg, &"unknown, expected --json or nothing");
    Output::Stderr.say(format_args!("version: {refusal}"));
    UNHEALTHY
}

fn unhealthy(why: &dyn fmt::Display) -> u8 {
    Output::Stderr.say(format_args!("unhealthy: {why}"));
    UNHEALTHY
}

/// What was asked for and cannot be printed was not delivered.
fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => HEALTHY,
        Err(_) => UNHEALTHY,
    }
}
