//! A container under plain Docker: the service as PID 1, small limits, and processes that break.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy container`

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{
    engine::{Container, Image, Network, Program, TIMEOUT, docker, eventually, get, unique},
    support::scratch,
};
use serde_json::json;

/// The default of `drain_delay`.
const DRAIN: Duration = Duration::from_secs(5);

#[test]
fn a_stop_during_a_probe_drains_and_leaves_no_zombie() {
    let image = Image::of(Program::Service);
    // A paused container accepts connections but never responds, so a probe of this one takes its
    // whole timeout.
    let silent = Container::run(&image.tag, &[], &[]);
    silent.turns("healthy");
    let url = format!("http://{}/health", silent.address(8080));
    docker(["pause", &silent.name]);
    let service = Container::run(&image.tag, &["--health-interval=100ms"], &[]);
    service.turns("healthy");
    let first = &service.state()["Pid"].to_string();
    let shim = &parent(first);
    let probe = [
        "exec",
        "--detach",
        &service.name,
        "/app",
        "healthcheck",
        "--timeout=60s",
        &url,
    ];
    docker(probe);
    let probes = processes();
    assert!(
        probes
            .iter()
            .any(|process| process.parent == *shim && process.pid != *first),
        "no probe runs: {probes:?}"
    );

    let events = Events::of(&service, "kill", "{{.Actor.Attributes.signal}}");
    let start = Instant::now();
    let mut stop = service.stopping();
    // A thread waits for the stop and measures it, while `zombies` runs.
    let stopped = thread::spawn(move || (stop.wait().unwrap().success(), start.elapsed()));
    let during: Vec<_> = (0..2).map(|_| zombies(&[first, shim])).collect();
    let (success, took) = stopped.join().unwrap();
    assert!(success);

    println!("stopped after {took:.2?}");
    assert!(took >= DRAIN, "no drain: {took:?}");
    assert!(
        took <= DRAIN + Duration::from_secs(1),
        "stopped after {took:?}"
    );
    let state = service.state();
    assert_eq!(state["ExitCode"], 0, "{state:#}");
    assert_eq!(events.so_far(), ["15"], "signals");
    // A process that is about to be reaped can appear in one list, but not in both lists.
    let stayed: Vec<_> = during[0]
        .iter()
        .filter(|pid| during[1].contains(pid))
        .collect();
    assert!(stayed.is_empty(), "{during:?}");
    eventually("no zombie", Duration::from_secs(2), || {
        zombies(&[first, shim]).is_empty().then_some(())
    });
    docker(["unpause", &silent.name]);
}

#[test]
fn a_broken_process_is_unhealthy_within_the_retries() {
    let (interval, retries) = (Duration::from_secs(1), 3);
    // `breaks` is the time in seconds until probes fail: the service breaks after two seconds, and a
    // late heartbeat takes two more. `probe` is the duration of a probe in seconds. If the runtime is
    // blocked, a probe takes its whole timeout.
    for (how, breaks, probe, reason) in [
        ("panic", 2, 0, "503 fail: heartbeat worker was dropped"),
        ("deadlock", 4, 0, "503 fail: heartbeat worker is late"),
        ("block", 2, 3, "no response within 3s"),
    ] {
        let image = Image::with(Program::Broken, &format!("ENV BREAK={how}"));
        let options = [
            // Probes are frequent during the start, so that the container turns healthy before it
            // breaks.
            "--health-start-interval=100ms".to_owned(),
            format!("--health-interval={interval:?}"),
            format!("--health-retries={retries}"),
        ];
        let container = Container::run(&image.tag, &options.each_ref().map(String::as_str), &[]);
        let started = Instant::now();
        container.turns("healthy");

        let last = container.turns("unhealthy");

        let took = started
            .elapsed()
            .saturating_sub(Duration::from_secs(breaks));
        println!("{how}: unhealthy after {took:.2?}");
        let line = format!("unhealthy: {reason} (GET http://[::1]:8080/health)\n");
        assert_eq!(last["Output"], line, "{how}");
        // The first failing probe starts within one interval. The additional second is for a busy
        // engine.
        let bound = retries * (interval + Duration::from_secs(probe)) + Duration::from_secs(1);
        assert!(took <= bound, "{how}: after {took:?}");
    }
}

#[test]
fn little_memory_little_cpu_and_few_processes_are_enough() {
    let image = Image::of(Program::Service);
    let limits = [
        "--memory=16m",
        "--memory-swap=16m",
        "--cpus=0.1",
        "--pids-limit=16",
        // The interval runs from the end of one probe to the start of the next. The number of
        // retries is not lowered, because the engine once counted a failure in about 1,600 probes
        // although every probe had exited with 0.
        "--health-interval=500ms",
    ];
    let container = Container::run(&image.tag, &limits, &[]);
    container.turns("healthy");
    let probes = Events::of(&container, "exec_die", "{{.Actor.Attributes.exitCode}}");
    let verdicts = Events::of(&container, "health_status", "{{.Action}}");

    let start = Instant::now();
    let patience = Duration::from_secs(240);
    eventually("200 probes", patience, || {
        let verdicts = verdicts.so_far();
        assert!(verdicts.is_empty(), "{verdicts:?}: {:#}", container.state());
        (probes.so_far().len() >= 200).then_some(())
    });
    let pace = start.elapsed() / 200;

    println!("200 probes, one in {pace:.2?}");
    assert!(
        probes.so_far().iter().all(|code| code == "0"),
        "{:?}",
        probes.so_far()
    );
    assert!(pace <= Duration::from_secs(1), "{pace:?}");
    let state = container.state();
    assert_eq!(state["Health"]["Status"], "healthy", "{state:#}");
    assert_eq!(state["OOMKilled"], false);
}

#[test]
fn the_service_accepts_all_address_families_of_its_kernel() {
    let image = Image::of(Program::Service);
    let network = Network::dual_stack();
    let network = format!("--network={}", network.name);
    let (profile, seccomp) = without_ipv6();
    let disabled = "--sysctl=net.ipv6.conf.all.disable_ipv6=1";

    for (options, listens, ipv6) in [
        (&[&*network][..], "[::]", true),
        (&[&network, disabled], "[::]", false),
        (&[&seccomp], "0.0.0.0", false),
    ] {
        let container = Container::run(&image.tag, options, &[]);

        container.turns("healthy");
        let (log, line) = (container.logs(), format!("listening on {listens}:8080\n"));
        assert!(log.contains(&line), "{options:?}: {log}");
        let (code, body) = get(container.address(8080), "/health");
        assert_eq!(code, 200, "{options:?}: {body}");
        if ipv6 {
            let (code, body) = get(ipv6_address(&container), "/health");
            assert_eq!(code, 200, "{options:?}: {body}");
        }
    }
    fs::remove_file(profile).unwrap();
}

/// Writes a seccomp profile that makes a container's kernel look like one without IPv6. Returns its
/// path and Docker's option for it.
fn without_ipv6() -> (PathBuf, String) {
    // On a kernel without IPv6, `socket` fails with EAFNOSUPPORT, 97, for the family AF_INET6, 10.
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 97,
            "args": [{ "index": 0, "value": 10, "op": "SCMP_CMP_EQ" }],
        }],
    });
    let path = scratch().join(format!("{}.json", unique()));
    fs::write(&path, profile.to_string()).unwrap();
    let option = format!("--security-opt=seccomp={}", path.display());
    (path, option)
}

/// The program of the README, which has no fallback, prints what the page of troubleshooting
/// explains.
#[test]
fn the_troubleshooting_page_has_the_lines_of_docker() {
    let page = include_str!("../../../../docs/troubleshooting.md");
    let explains = |text: &str, heading: &str| {
        assert!(text.contains(heading), "{heading}: {text}");
        assert!(page.contains(&format!("\n### `{heading}`\n")), "{heading}");
    };
    let image = Image::of(Program::Readme);
    let database = "--env=DATABASE_URL=postgres://127.0.0.1:1/";

    let shell = ["--health-cmd=app healthcheck", "--health-interval=1s"];
    let container = Container::run(&image.tag, &[database, shell[0], shell[1]], &[]);
    let probe = eventually("a probe has failed", TIMEOUT, || {
        let output = &container.state()["Health"]["Log"][0]["Output"];
        output.as_str().map(str::to_owned)
    });
    explains(
        &probe,
        "exec: \"/bin/sh\": stat /bin/sh: no such file or directory",
    );

    let log = eventually("the service has started", TIMEOUT, || {
        let log = container.logs();
        log.contains("waiting for the required checks")
            .then_some(log)
    });
    assert!(!log.contains("draining"), "{log}");
    docker(["stop", "--time=1", &container.name]);
    assert_eq!(container.state()["ExitCode"], 137);
    assert!(container.logs().contains("draining"));
    assert!(page.contains("\n### Exit code 137\n"));

    let (profile, seccomp) = without_ipv6();
    let container = Container::run(&image.tag, &[database, &seccomp], &[]);
    let log = eventually("the service has failed", TIMEOUT, || {
        (container.state()["Status"] == "exited").then(|| container.logs())
    });
    explains(&log, "Address family not supported by protocol");
    fs::remove_file(profile).unwrap();
}

fn ipv6_address(container: &Container) -> SocketAddr {
    let format = "--format={{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    let ip = docker(["inspect", format, &container.name]);
    SocketAddr::new(ip.trim().parse().expect("an IPv6 address"), 8080)
}

#[test]
fn a_probe_adds_little_to_the_peak_of_memory() {
    // A container's start needs more memory than probes, and only cgroup v1 can reset the peak.
    if docker(["info", "--format={{.CgroupVersion}}"]) != "1" {
        println!(
            "SKIPPED, NOTHING MEASURED: only cgroup 1 can reset the peak, and this engine has cgroup 2"
        );
        return;
    }
    let image = Image::of(Program::Service);
    let peak = |words: &[&str]| {
        let container = Container::run(&image.tag, &["--no-healthcheck"], &[]);
        let address = container.address(8080);
        let responses = || (get(address, "/health").0 == 200).then_some(());
        eventually("a response", TIMEOUT, responses);
        reset_peak(&container);
        for _ in 0..50 {
            assert_eq!(get(address, "/health").0, 200);
            if !words.is_empty() {
                docker([&["exec", &container.name], words].concat());
            }
        }
        peak(&container)
    };
    // The engine's own memory for starting a process in the container counts too, and varies by
    // half a MiB. The lowest of five peaks contains the least of it.
    let least = |words: &[&str]| (0..5).map(|_| peak(words)).min().expect("five peaks");

    let service = least(&[]);
    // `version` shows the engine's own overhead for a process in a container.
    let exec = least(&["/app", "version"]);
    let probe = least(&["/app", "healthcheck"]);

    let kib = |bytes: u64| bytes / 1024;
    println!(
        "peak of the service: {} KiB, with `version` executed {} KiB, with probes {} KiB",
        kib(service),
        kib(exec),
        kib(probe)
    );
    let added = probe.saturating_sub(exec);
    assert!(
        added <= 512 * 1024,
        "{added} bytes more than with `version`"
    );
}

/// The engine's events about a container since `of` was called.
struct Events {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    fn of(container: &Container, event: &str, format: &str) -> Self {
        // The start is slightly in the past, so that no event before the subscription is lost.
        let since = format!("--since={}", docker(["info", "--format={{.SystemTime}}"]));
        let mut child = Command::new("docker")
            .args(["events", &since, "--format", format])
            .args(["--filter", &format!("container={}", container.name)])
            .args(["--filter", &format!("event={event}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in stdout.lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            }
        });
        Self { child, lines }
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Process {
    pid: String,
    state: String,
    parent: String,
}

/// All processes on the engine's machine.
fn processes() -> Vec<Process> {
    let list = [
        "run",
        "--rm",
        "--pid=host",
        "debian:trixie-slim",
        "sh",
        "-c",
    ];
    let stat = "cat /proc/[0-9]*/stat 2>/dev/null || true";
    let text = docker(list.into_iter().chain([stat]));
    let process = |line: &str| {
        // A process name can contain spaces and parentheses, so the fields are searched from the
        // end.
        let (pid, rest) = line.split_once(" (")?;
        let mut rest = rest.rsplit_once(") ")?.1.split(' ').map(str::to_owned);
        Some(Process {
            pid: pid.to_owned(),
            state: rest.next()?,
            parent: rest.next()?,
        })
    };
    text.lines().filter_map(process).collect()
}

fn parent(pid: &str) -> String {
    let found = processes().into_iter().find(|process| process.pid == pid);
    found.expect("the process").parent
}

/// Children of `parents` that have ended but were not waited for.
fn zombies(parents: &[&str]) -> Vec<String> {
    let zombie = |process: &Process| process.state == "Z" && parents.contains(&&*process.parent);
    let processes = processes().into_iter();
    processes
        .filter(zombie)
        .map(|process| process.pid)
        .collect()
}

/// Peak memory of a container, in bytes.
fn peak(container: &Container) -> u64 {
    let text = memory(
        container,
        "cat",
        &["--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro"],
    );
    text.lines().next().expect("a peak").parse().unwrap()
}

fn reset_peak(container: &Container) {
    let options = ["--privileged", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"];
    memory(
        container,
        "sh -c 'echo 0 >\"$0\" && echo forgotten'",
        &options,
    );
}

fn memory(container: &Container, command: &str, options: &[&str]) -> String {
    let id = docker(["inspect", "--format={{.Id}}", &container.name]);
    // `find` fails if the cgroup of another container disappears while it runs, so `true` follows.
    let find = format!(
        "find /sys/fs/cgroup -path '*{id}*' -name memory.max_usage_in_bytes -exec {command} {{}} ';'; true"
    );
    let run = ["run", "--rm", "--cgroupns=host"].into_iter();
    let words = ["debian:trixie-slim", "sh", "-c", &find];
    let text = docker(run.chain(options.iter().copied()).chain(words));
    assert!(!text.is_empty(), "no memory of {id}");
    text
}
