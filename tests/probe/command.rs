//! The probe as a child process, and what judges its line.

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
    hostile::{Case, HEALTHY, Hold, OK, Pace, Scene, Table, listener, perform, read_request, say},
    run, serve, serve_on,
};

/// Well before the default deadline, though the machine be busy.
pub(crate) const AT_ONCE: Range<Duration> = Duration::ZERO..Duration::from_secs(2);

/// By `--timeout 500ms`.
pub(crate) const SHORT: Duration = Duration::from_millis(500);

/// Unless it is said otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// Maximum delay of the deadline beside the eighth by which Linux may fire a socket's timeout late.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(100);

/// How long to wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const URL: &str = "expected http://ADDRESS:PORT/PATH, https://… or unix:/SOCKET";
pub(crate) const HOST: &str = "expected an IP address or localhost as host: names are not resolved";

/// Runs all scenarios of a table at the same time, and tells which of them fail.
pub(crate) fn check(Table { pace, cases }: Table) {
    let failure = |Case { name, stage, line }: Case| {
        if Scene::set(&stage).is_none() {
            skipped(&format!("{name}: there is no ::1 here"));
            return None;
        }
        let attempt = |args: &[&str], timeout: &str| {
            let scene = Scene::set(&stage).expect("there was one just now");
            let outcome = run(healthcheck([&scene.url]).args(args));
            assert!(scene.connections() <= 1, "{name}: it asked twice");
            let expected = line.replace("{peer}", &scene.peer);
            (outcome, expected.replace("{timeout}", timeout))
        };
        let complaint = match pace {
            Pace::AtOnce => {
                let (outcome, expected) = attempt(&[], "3s");
                complaint(&outcome, &expected, &AT_ONCE)
            }
            Pace::AtTheDeadline => late(SHORT, || attempt(&["--timeout", "500ms"], "500ms"))
                .or_else(|| late(DEADLINE, || attempt(&[], "3s"))),
        };
        complaint.map(|complaint| format!("{name}:\n{complaint}"))
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
    complain(&ask(url), expected, &AT_ONCE);
}

pub(crate) fn ends_at_the_deadline(url: &str, expected: &str) {
    ends_in_time(SHORT, || {
        let outcome = run(&mut healthcheck([url, "--timeout", "500ms"]));
        (outcome, expected.to_owned())
    });
}

/// What a probe did with this timeout, and the line that is expected of it.
pub(crate) fn ends_in_time(deadline: Duration, attempt: impl FnMut() -> (Outcome, String)) {
    if let Some(complaint) = late(deadline, attempt) {
        panic!("\n{complaint}");
    }
}

/// Reports what is wrong with a probe that only its deadline ends: its line, or a delay beyond an
/// eighth and [`TOLERANCE`] in each of three attempts. A program that sleeps beside it shows how busy
/// the machine is.
pub(crate) fn late(
    deadline: Duration,
    mut attempt: impl FnMut() -> (Outcome, String),
) -> Option<String> {
    let mut attempt = || {
        let sleep = move || run(Command::new("sleep").arg(deadline.as_secs_f32().to_string())).took;
        let sleep = thread::spawn(sleep);
        let (outcome, expected) = attempt();
        let slept = sleep.join().expect("it ends");
        let wrong = complaint(&outcome, &expected, &(deadline..PATIENCE));
        let late = complaint(
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

pub(crate) fn complain(outcome: &Outcome, expected: &str, pace: &Range<Duration>) {
    if let Some(complaint) = complaint(outcome, expected, pace) {
        panic!("\n{complaint}");
    }
}

/// What is wrong with what a probe told, or with when it did.
pub(crate) fn complaint(
    outcome: &Outcome,
    expected: &str,
    pace: &Range<Duration>,
) -> Option<String> {
    let (got, took) = (told(outcome), outcome.took);
    let right = |line: &str| match line.strip_suffix('…') {
        Some(start) => got.starts_with(start),
        None => got == line,
    };
    let wrong = !expected.lines().any(right) || !pace.contains(&took);
    wrong.then(|| format!("  expected {expected}\n       got {got}\n     after {took:?}"))
}

/// Each argument, alone, is refused and shown.
pub(crate) fn refuses(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let expected = format!("unhealthy: argument {argument:?}: {expected}");
        assert_eq!(told(&ask(argument)), expected);
    }
}

/// Each argument, alone, is refused and not shown: it may be a secret.
pub(crate) fn refuses_unshown(arguments: &[&str], expected: &str) {
    for argument in arguments {
        let line = told(&ask(argument));
        assert_eq!(line, format!("unhealthy: argument: {expected}"));
    }
}

/// The line of a probe that did what all of them promise, without the time in it; of any other,
/// all there is, which is what no test expects.
pub(crate) fn told(outcome: &Outcome) -> String {
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

/// Puts a `#` in the place of the number in `healthy: pass in 0.4 ms`.
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

/// `service healthcheck …`, without the variables that this process may have been given.
pub(crate) fn healthcheck<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    probe("service", args)
}

pub(crate) fn ask(argument: &str) -> Outcome {
    run(&mut healthcheck([argument]))
}

/// `worker healthcheck`, for tests in which nobody may have advertised anything: what another worker
/// of this machine has advertised is not for a mount namespace of one's own, where that can be had.
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
    apart.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    apart
}

pub(crate) fn probe<I: IntoIterator<Item: AsRef<OsStr>>>(name: &str, args: I) -> Command {
    let mut probe = Command::new(example(name));
    probe.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    probe.arg("healthcheck").args(args);
    probe
}

/// `service healthcheck`, its streams as a shell says it.
pub(crate) fn shell(redirection: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    probe.arg(example("service")).arg("healthcheck");
    probe
}

/// `NAME healthcheck` after a shell has set limits.
pub(crate) fn limited(limits: &str, name: &str) -> Command {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("{limits} && exec \"$@\""), "sh"]);
    probe.env_remove("HEALTHCHECK_URL").env_remove("PORT");
    probe.arg(example(name)).arg("healthcheck");
    probe
}

pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Stops a process as soon as it waits for something, as `docker pause` might.
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
    let deadline = Instant::now() + PATIENCE;
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

/// What a probe asks for, with `PORT` in the place of the port. It is told that all is well.
pub(crate) fn overhear(probe: impl FnOnce(SocketAddr) -> Command) -> String {
    overhear_on(listener(), probe)
}

pub(crate) fn overhear_on(listener: Socket, probe: impl FnOnce(SocketAddr) -> Command) -> String {
    let (hears, heard) = mpsc::channel();
    let address = serve_on(listener.into(), move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        perform(&[say(OK), Hold], stream);
    });
    let mut probe = probe(address);
    assert_eq!(told(&run(&mut probe)), HEALTHY, "{probe:?}");
    let request = heard.recv_timeout(PATIENCE).expect("it was answered");
    request.replace(&format!(":{}", address.port()), ":PORT")
}

/// A server that tells when it has read the request, before it does anything else.
pub(crate) fn serve_asked(
    behaviour: impl FnOnce(TcpStream) + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let (hears, heard) = mpsc::channel();
    let address = serve(move |mut stream| {
        let _ = hears.send(read_request(&mut stream));
        behaviour(stream);
    });
    (address, heard)
}

/// A server on a Unix socket, for one connection; it tells the request.
pub(crate) fn serve_unix(
    socket: &Path,
    behaviour: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    let (hears, heard) = mpsc::channel();
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = hears.send(read_request(&mut stream));
            behaviour(&mut stream);
        }
    });
    heard
}

/// A folder for sockets, whose paths must be short.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("probe-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
