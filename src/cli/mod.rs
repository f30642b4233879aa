//! The `healthcheck` and `version` commands, from arguments to exit code.
//!
//! No other module reads arguments or environment variables, except `build` in build scripts.

mod args;
mod json;
mod output;
mod target;
mod version;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io, panic,
    process::{self, ExitCode},
    time::Instant,
};

#[cfg(fuzzing)]
pub(crate) use self::{args::Options, output::line, target::resolve};
#[cfg(not(fuzzing))]
use self::{args::Options, target::resolve};
use self::{
    json::Outcome,
    output::{print, print_line},
    target::{DEFAULT_PORT, NoTarget},
};
use crate::{BuildInfo, probe::TIMEOUT};

const HEALTHY: u8 = 0;

/// Exit code for an unhealthy service, and for any error. Docker reserves the exit code 2.
const UNHEALTHY: u8 = 1;

/// The commands `app healthcheck` and `app version` of a service's own binary.
///
/// Run them first in `main`, before logger, configuration and runtime: a container engine executes
/// `healthcheck` every few seconds, and setting up any of these takes longer than the probe itself.
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
/// `healthcheck` sends one request and prints one line of at most 400 bytes: `healthy: …` to
/// stdout, or `unhealthy: …` to stderr. With `--json`, it prints a JSON object to stdout instead.
/// The exit code is 0 if the service is healthy, and 1 if it is not or if an argument is invalid.
/// The address is the first of
///
/// 1. the URL in the arguments,
/// 2. the environment variable `LIFESIGN_URL`,
/// 3. the address that the service [advertises](crate::Health::advertise),
/// 4. 127.0.0.1 and the port in the environment variable `PORT`, or else 8080. This guess is made
///    only where services cannot advertise their address: without a writable `/dev/shm`, and on
///    systems other than Linux.
///
/// At an advertised or guessed address, the response must have the header `Lifesign-Instance` of
/// the probe's own service, because another service may listen there. An empty variable is treated
/// as unset. `app healthcheck --help` lists the flags.
#[derive(Debug)]
pub struct Cli {
    build: BuildInfo,
    has_version: bool,
}

impl Cli {
    /// Creates the commands of the service that `build` describes; see
    /// [`build_info!`](crate::build_info).
    #[must_use]
    pub const fn new(build: BuildInfo) -> Self {
        Self {
            build,
            has_version: true,
        }
    }

    /// Switches the `version` command off, for a service that has its own.
    ///
    /// ```
    /// let cli = lifesign::Cli::new(lifesign::build_info!()).without_version();
    /// ```
    #[must_use]
    pub const fn without_version(mut self) -> Self {
        self.has_version = false;
        self
    }

    /// Runs the command that the first argument of this process names.
    ///
    /// Returns the exit code, or `None` if the first argument names neither command. All other
    /// arguments are for the service.
    #[must_use = "the process should exit with this code"]
    pub fn run(self) -> Option<ExitCode> {
        let mut args = env::args_os();
        let program = args.next().unwrap_or_default();
        let command = args.next()?;
        let code = match command.to_str()? {
            "healthcheck" => self.healthcheck(&program, args),
            "version" if self.has_version => version::run(&program, &self.build, args),
            _ => return None,
        };
        Some(ExitCode::from(code))
    }

    fn healthcheck(&self, program: &OsStr, args: impl Iterator<Item = OsString>) -> u8 {
        let args: Vec<_> = args.collect();
        // This is read before the arguments are parsed, so that `--json` also applies to the error
        // for an invalid argument.
        let json = args.iter().any(|arg| arg == "--json");
        let fail = move |why: &dyn fmt::Display| {
            match json {
                true => Outcome::failed(why).print(),
                false => print_line(io::stderr(), format_args!("unhealthy: {why}")),
            }
            UNHEALTHY
        };
        // Without this hook, a probe that panics would end with exit code 101, or with 134 under
        // `panic = "abort"`.
        panic::set_hook(Box::new(move |panic| {
            let code = fail(&format_args!("the probe panicked: {panic}"));
            process::exit(code.into());
        }));
        let options = match Options::parse(args.into_iter()) {
            Ok(Some(options)) => options,
            Ok(None) => return print(&healthcheck_help(program)),
            Err(invalid) => return fail(&invalid),
        };
        let quiet = options.quiet;
        let resolved = resolve(self.build.name(), options, |name| env::var_os(name));
        let (request, source) = match resolved {
            Ok(resolved) => resolved,
            Err(NoTarget::NotFound(_) | NoTarget::NoIdentity(_)) if quiet => return UNHEALTHY,
            Err(error) => return fail(&error),
        };
        let start = json.then(Instant::now);
        let result = request.send();
        match (&result, start) {
            _ if quiet => {}
            (_, Some(start)) => {
                Outcome::new(&request, source, &result, start.elapsed()).print();
            }
            (Ok(healthy), _) => {
                print_line(io::stdout(), format_args!("healthy: {healthy}{source}"));
            }
            (Err(error), _) => {
                print_line(io::stderr(), format_args!("unhealthy: {error}{source}"));
            }
        }
        match result {
            Ok(_) => HEALTHY,
            Err(_) => UNHEALTHY,
        }
    }
}

fn healthcheck_help(program: &OsStr) -> String {
    format!(
        "\
Probes the running service. Exit code 0: healthy, 1: everything else.

Usage: {program} healthcheck [URL|PATH] [OPTIONS]

  URL    [http://]ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: LIFESIGN_URL or the advertised address; PORT or {DEFAULT_PORT} on 127.0.0.1
          where services cannot advertise theirs)
  PATH   path of the service (default: its health route)

  --ready            probe readiness: may it get traffic?
  --live             probe liveness: must it be restarted?
  --timeout TIME     maximum duration, like 500ms, 2s or 1m (default: {timeout}s, or 1s more
                     than the service's checks may take)
  --header 'K: V'    add a header to the request; can be repeated
  --json             print one JSON object to stdout: healthy, url, source, code, status, output,
                     error, duration_ms; unknown values are null
  --quiet            print nothing, unless an argument or variable is invalid
  --help             print this help
",
        program = program.display(),
        timeout = TIMEOUT.as_secs(),
    )
}
