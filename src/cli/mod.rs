//! The subcommands `healthcheck` and `version`, from arguments to exit code.
//!
//! No other module reads arguments and environment variables, or prints.

mod args;
mod output;
mod target;
mod version;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io, panic,
    process::{self, ExitCode},
};

#[cfg(fuzzing)]
pub(crate) use self::{args::Options, output::line, target::resolve};
#[cfg(not(fuzzing))]
use self::{args::Options, target::resolve};
use self::{
    output::{print, print_line},
    target::DEFAULT_PORT,
};
use crate::{BuildInfo, probe::TIMEOUT};

/// Exit code of a probe of a healthy service, and of a printed text.
const HEALTHY: u8 = 0;

/// Exit code of everything else. Docker reserves 2, and treats other numbers like 1.
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
/// 4. `PORT` on this machine,
/// 5. `http://127.0.0.1:8080`,
///
/// whichever comes first. Empty variables are unset ones.
#[derive(Debug)]
pub struct Cli {
    build: BuildInfo,
    has_version: bool,
}

impl Cli {
    /// Takes the identity of the service; see [`build_info!`](crate::build_info).
    #[must_use]
    pub const fn new(build: BuildInfo) -> Self {
        Self {
            build,
            has_version: true,
        }
    }

    /// Leaves the `version` argument to the service.
    #[must_use]
    pub const fn without_version(mut self) -> Self {
        self.has_version = false;
        self
    }

    /// Runs the subcommand that the first argument of this process names, if it names one.
    ///
    /// The process should exit with the returned code. `None` leaves the arguments to the service.
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
        // The exit code of a panic is 101, or 134 where panics abort.
        panic::set_hook(Box::new(|panic| {
            print_line(
                io::stderr(),
                format_args!("unhealthy: the probe panicked: {panic}"),
            );
            process::exit(UNHEALTHY.into());
        }));
        let options = match Options::parse(args) {
            Ok(Some(options)) => options,
            Ok(None) => return print(&healthcheck_help(program)),
            Err(invalid) => return unhealthy(&invalid),
        };
        let quiet = options.quiet;
        let resolved = resolve(self.build.name(), options, |name| env::var_os(name));
        let (request, source) = match resolved {
            Ok(resolved) => resolved,
            Err(invalid) => return unhealthy(&invalid),
        };
        match request.send() {
            Ok(_) if quiet => HEALTHY,
            Err(_) if quiet => UNHEALTHY,
            Ok(healthy) => {
                print_line(io::stdout(), format_args!("healthy: {healthy}"));
                HEALTHY
            }
            Err(error) if error.is_connect() => {
                unhealthy(&format_args!("{error}{}", source.hint()))
            }
            Err(error) => unhealthy(&error),
        }
    }
}

fn unhealthy(why: &dyn fmt::Display) -> u8 {
    print_line(io::stderr(), format_args!("unhealthy: {why}"));
    UNHEALTHY
}

fn healthcheck_help(program: &OsStr) -> String {
    format!(
        "\
Probes the running service. Exit code 0: healthy, 1: everything else.

Usage: {program} healthcheck [URL|PATH] [OPTIONS]

  URL    http://ADDRESS:PORT[/PATH], https://… or unix:/SOCKET[:/PATH]
         (default: HEALTHCHECK_URL, the advertised address, PORT, 127.0.0.1:{DEFAULT_PORT})
  PATH   path of the service (default: its health route)

  --ready            probe readiness: may it get traffic?
  --live             probe liveness: must it be restarted?
  --timeout TIME     maximum duration, like 500ms, 2s or 1m (default: {timeout}s)
  --header 'K: V'    add a header to the request; can be repeated
  --quiet            print nothing, unless an argument or variable is invalid
  --help             print this help
",
        program = program.display(),
        timeout = TIMEOUT.as_secs(),
    )
}
