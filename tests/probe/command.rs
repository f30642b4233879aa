//! Runs the probe as a child process, and checks its exit code, the line that it prints, and its
//! duration.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        LazyLock,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::Socket;

use crate::support::{
    Outcome, example,
    hostile::{Case, HEALTHY, Hold, OK, Pace, Scene, Table, listener, perform, read_request, send},
    run, serve, serve_on,
};

/// Expected duration of a probe that does not wait for its deadline, even on a busy machine.
pub(crate) const AT_ONCE: Range<Duration> = Duration::ZERO..Duration::from_secs(2);

/// The deadline of probes with `--timeout 500ms`.
pub(crate) const SHORT: Duration = Duration::from_millis(500);

/// The default deadline of a probe.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// How late a probe may end, in addition to an eighth of its timeout, by which Linux may fire a
/// socket timeout late.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(100);

/// Time limit for events that are certain to happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const URL: &str = "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET";
pub(crate) const HOST: &str = "expected an IP address or localhost as host: names are not resolved";

/// Runs all scenarios of a table at the same time, and panics with a list of those that fail.
pub(crate) fn check(Table { pace, cases }: Table) {
    let failure = |Case { name, stage, line }: Case| {
        if Scene::set(&stage).is_none() {
            skipped(&format!("{name}: there is no ::1 here"));
            return None;
        }
        let attempt = |args: &[&str], timeout: &str| {
            let scene = Scene::set(&stage).expect("the scene was set just now");
            let outcome = run(healthcheck([&scene.url]).args(args));
            assert!(
                scene.connections() <= 1,
                "{name}: the probe connected twice"
            );
            let expected: Vec<_> = line.lines().map(|line| scene.complete(line)).collect();
            (outcome, expected.join("\n").replace("{timeout}", timeout))
        };
        let mismatch = match pace {
            Pace::AtOnce => {
                let (outcome, expected) = attempt(&[], "3s");
                mismatch(&outcome, &expected, &AT_ONCE)
            }
            Pace::AtTheDeadline => late(SHORT, || attempt(&["--timeout", "500ms"], "500ms"))
                .or_else(|| late(DEADLINE, || attempt(&[], "3s"))),
        };
        mismatch.map(|mismatch| format!("{name}:\n{mismatch}"))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let start = |case| scope.spawn(move || failure(case));
        let running: Vec<_> = cases.into_iter().map(start).collect();
        let ended = running.into_iter().map(|case| case.join());
        ended
            .filter_map(|failure| failure.expect("a case does not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

pub(crate) fn ends_at_once(url: &str, expected: &str) {
    assert_ends(&run_probe(url), expected, &AT_ONCE);
}

pub(crate) fn ends_at_the_deadline(url: &str, expected: &str) {
    ends_in_time(SHORT, || {
        let outcome = run(&mut healthcheck([url, "--timeout", "500ms"]));
        (outcome, expected.to_owned())
    });
}

/// Asserts that a probe with this deadline prints the expected line and ends in time. `attempt`
/// runs the probe, and returns its outcome and the expected line.
pub(crate) fn ends_in_time(deadline: Duration, attempt: impl FnMut() -> (Outcome, String)) {
    if let Some(mismatch) = late(deadline, attempt) {
        panic!("\n{mismatch}");
    }
}

/// Returns a description if the probe prints the wrong line, or if it ends too late in each of
/// three attempts.
///
/// Too late means more than an eighth plus [`TOLERANCE`] after the deadline. A `sleep` of the same
/// length runs beside the probe. If a busy machine wakes the `sleep` late, its duration replaces
/// the deadline.
pub(crate) fn late(
    deadline: Duration,
    mut attempt: impl FnMut() -> (Outcome, String),
) -> Option<String> {
    let mut attempt = || {
        let sleep = move || run(Command::new("sleep").arg(deadline.as_secs_f32().to_string())).took;
        let sleep = thread::spawn(sleep);
        let (outcome, expected) = attempt();
        let slept = sleep.join().expect("no panic");
        let wrong = mismatch(&outcome, &expected, &(deadline..TIMEOUT));
        let late = mismatch(
            &outcome,
            &expected,
            &(deadline..slept + deadline / 8 + TOLERANCE),
        );
        (wrong, late)
    };
    for _ in 1..3 {
        match attempt() {
            (None, Some(_)) => {}
            (wrong, _) => return wrong,
        }
    }
    let (_, late) = attempt();
    late
}

pub(crate) fn assert_ends(outcome: &Outcome, expected: &str, pace: &Range<Duration>) {
    if let Some(mismatch) = mismatch(outcome, expected, pace) {
        panic!("\n{mismatch}");
    }
}

/// Returns a description if a probe's line or duration is wrong.
pub(crate) fn mismatch(
    outcome: &Outcome,
    expected: &str,
    pace: &Range<Duration>,
) -> Option<String> {
    let (got, took) = (printed_line(outcome), outcome.took);
    let right = |line: &str| match line.strip_suffix('…') {
        Some(start) => got.starts_with(start),
        None => got == line,
    };
    let wrong = !expected.lines().any(right) || !pace.contains(&took);
    wrong.then(|| format!("  expected {expected}\n       got {got}\n     after {took:?}"))
}

/// Asserts that the probe refuses each of the arguments, and prints the argument.
pub(crate) fn refuses(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let expected = format!("unhealthy: argument {argument:?}: {expected}");
        assert_eq!(printed_line(&run_probe(argument)), expected);
    }
}

/// Asserts that the probe refuses each of the arguments, and does not print the argument, which may
/// be a secret.
pub(crate) fn refuses_unshown(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let line = printed_line(&run_probe(argument));
        assert_eq!(line, format!("unhealthy: argument: {expected}"));
    }
}

/// Returns the line that a probe has printed, without the elapsed time.
///
/// Every probe exits with 0 or 1 and prints one line. If this probe does not, the function returns
/// the whole outcome, which no test expects.
pub(crate) fn printed_line(outcome: &Outcome) -> String {
    let line = match printed(outcome) {
        (Some(0), line, "") if line.starts_with("healthy: ") => line,
        (Some(1), "", line) if line.starts_with("unhealthy: ") => line,
        _ => return format!("{outcome:?}"),
    };
    match line.strip_suffix('\n') {
        Some(text) if line.len() <= 400 && !text.contains(char::is_control) => timeless(text),
        _ => format!("{outcome:?}"),
    }
}

pub(crate) fn printed(outcome: &Outcome) -> (Option<i32>, &str, &str) {
    (outcome.code, &outcome.stdout, &outcome.stderr)
}

/// Replaces the elapsed time in `healthy: pass in 0.4 ms` by `#`.
pub(crate) fn timeless(line: &str) -> String {
    if line.starts_with("healthy: ")
        && let Some((before, after)) = line.split_once(" in ")
        && let Some((time, after)) = after.split_once(" ms")
        && let Some((whole, tenth)) = time.split_once('.')
        && tenth.len() == 1
        && [whole, tenth].concat().bytes().all(|b| b.is_ascii_digit())
    {
        return format!("{before} in # ms{after}");
    }
    line.to_owned()
}

pub(crate) const NOTHING: [&str; 0] = [];

/// Returns the command `service healthcheck …`, without the environment variables that configure a
/// probe.
pub(crate) fn healthcheck<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    probe("service", args)
}

pub(crate) fn run_probe(argument: &str) -> Outcome {
    run(&mut healthcheck([argument]))
}

/// Returns the command `worker healthcheck`, for tests without an advertisement. If possible, the
/// probe runs in a mount namespace of its own, where it finds no workers of other tests.
pub(crate) fn worker() -> Command {
    static NAMESPACES: LazyLock<bool> =
        LazyLock::new(|| works(Command::new("unshare").args(["-r", "-m", "true"])));
    let worker = probe("worker", NOTHING);
    if !*NAMESPACES {
        return worker;
    }
    let mut apart = Command::new("unshare");
    apart
        .args(["-r", "-m"])
        .arg(worker.get_program())
        .args(worker.get_args());
    apart.env_remove("LIFESIGN_URL").env_remove("PORT");
    apart
}

/// Returns the command `NAME healthcheck` with a read-only `/dev/shm`, so that the probe has to
/// guess an address. Returns `None` if this machine permits no mount namespaces.
pub(crate) fn guessing(name: &str) -> Option<Command> {
    let script = "mount -t tmpfs -o ro tmpfs /dev/shm && exec \"$@\"";
    let apart = ["-r", "-m", "sh", "-c", script, "sh"];
    if !works(Command::new("unshare").args(apart).arg("true")) {
        skipped("mount namespaces are not permitted here");
        return None;
    }
    let mut guessing = Command::new("unshare");
    guessing.args(apart).arg(example(name)).arg("healthcheck");
    guessing.env_remove("LIFESIGN_URL").env_remove("PORT");
    Some(guessing)
}

pub(crate) fn probe<I: IntoIterator<Item: AsRef<OsStr>>>(name: &str, args: I) -> Command {
    let mut probe = Command::new(example(name));
    probe.env_remove("LIFESIGN_URL").env_remove("PORT");
    probe.arg("healthcheck").args(args);
    probe
}

/// Returns the command `service healthcheck`, whose streams a shell redirects.
pub(crate) fn shell(redirection: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    probe.arg(example("service")).arg("healthcheck");
    probe
}

/// Returns the command `NAME healthcheck`, with resource limits that a shell sets.
pub(crate) fn limited(limits: &str, name: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("{limits} && exec \"$@\""), "sh"]);
    probe.env_remove("LIFESIGN_URL").env_remove("PORT");
    probe.arg(example(name)).arg("healthcheck");
    probe
}

pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Waits until a process sleeps in a system call, and then stops it. `docker pause` can freeze a
/// process at such a point.
pub(crate) fn freeze(pid: u32) {
    await_state(pid, 'S');
    signal(pid, "STOP");
    await_state(pid, 'T');
}

pub(crate) fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]);
    assert!(works(&mut kill), "{kill:?}");
}

pub(crate) fn await_state(pid: u32, state: char) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        if after_name.starts_with(state) {
            return;
        }
        assert!(Instant::now() < deadline, "never in state {state}: {stat}");
        thread::yield_now();
    }
}

/// Returns the request that a probe sends, with `PORT` in place of the port. The server responds
/// with 200.
pub(crate) fn captured_request(probe: impl FnOnce(SocketAddr) -> Command) -> String {
    captured_request_on(listener(), probe)
}

pub(crate) fn captured_request_on(
    listener: Socket,
    probe: impl FnOnce(SocketAddr) -> Command,
) -> String {
    let (sender, requests) = mpsc::channel();
    let address = serve_on(listener.into(), move |mut stream| {
        let _ = sender.send(read_request(&mut stream));
        perform(&[send(OK), Hold], stream);
    });
    let mut probe = probe(address);
    assert_eq!(printed_line(&run(&mut probe)), HEALTHY, "{probe:?}");
    let request = requests
        .recv_timeout(TIMEOUT)
        .expect("the server sends the request");
    request.replace(&format!(":{}", address.port()), ":PORT")
}

/// Starts a server that reads the request, sends it to the channel, and then calls `behaviour`.
pub(crate) fn serve_reporting(
    behaviour: impl FnOnce(TcpStream) + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let (sender, requests) = mpsc::channel();
    let address = serve(move |mut stream| {
        let _ = sender.send(read_request(&mut stream));
        behaviour(stream);
    });
    (address, requests)
}

/// Starts a server on a Unix socket that accepts one connection, sends the request to the channel,
/// and then calls `behaviour`.
pub(crate) fn serve_unix(
    socket: &Path,
    behaviour: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = sender.send(read_request(&mut stream));
            behaviour(&mut stream);
        }
    });
    requests
}

/// A temporary directory, which is removed when dropped. Its path is short, because the path of a
/// socket has at most 107 bytes.
pub(crate) struct TemporaryDirectory(pub(crate) PathBuf);

impl TemporaryDirectory {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("probe-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a temporary directory can be made");
        Self(path)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
