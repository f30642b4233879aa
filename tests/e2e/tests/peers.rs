//! Runs the scenarios of `tests/probe` with other programs that are used as health checks.
//!
//! Takes one or two minutes, and writes `docs/hostile.md`. Asserts that our own probe is right in
//! every scenario, and that all programs distinguish healthy from unhealthy in the two simplest.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::{
    REPOSITORY,
    support::{
        example,
        hostile::{Case, Scene, Table},
        scenarios,
    },
};

/// Time after which a program counts as hanging. All programs have a timeout of 3 s.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum duration of a run that is not late. A busy machine delays curl by up to a second.
const IN_TIME: Duration = Duration::from_secs(6);

/// Number of scenarios that run at the same time. The programs mostly wait, so two cores are
/// enough.
const WORKERS: usize = 16;

/// The compared programs. The first one is our own probe.
const PEERS: [&str; 6] = [
    "`healthcheck`",
    "`curl -fsS --max-time 3`",
    "`busybox wget -q -T 3 -O /dev/null`",
    "`wget -q -T 3 -t 1 -O /dev/null`",
    "`wget -q -T 3 -t 1 --spider`",
    "Go, `http.Client{Timeout: 3 s}`",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Healthy,
    Unhealthy,
    /// The program ended by itself, but too late.
    Late,
    Hung,
}

#[test]
#[ignore = "writes docs/hostile.md; needs curl, wget, busybox and Go"]
fn the_probe_is_right_where_its_peers_differ() {
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let both = hosts
        .lines()
        .any(|line| line.starts_with("::1") && line.contains("localhost"));
    assert!(
        both,
        "/etc/hosts must name ::1 localhost, as in Docker's containers"
    );
    let go = go();
    let cases: Vec<(&str, Case)> = scenarios::tables()
        .into_iter()
        .flat_map(|(promise, Table { cases, .. })| cases.into_iter().map(move |c| (promise, c)))
        .collect();

    let verdicts = judge(&cases, &go);

    let page = page(&cases, &verdicts);
    let path = Path::new(REPOSITORY).join("docs/hostile.md");
    fs::write(path, page).expect("the page can be written");
    for ((promise, case), verdicts) in cases.iter().zip(&verdicts) {
        assert_eq!(verdicts[0], expected(case), "{promise}: {}", case.name);
    }
    for (name, right) in [
        ("200", Verdict::Healthy),
        ("nobody listens", Verdict::Unhealthy),
    ] {
        let case = cases.iter().position(|(_, case)| case.name == name);
        let case = case.expect("it is in the tables");
        assert_eq!(verdicts[case], [right; PEERS.len()], "{name}");
    }
}

/// Runs each of [`PEERS`] in each scenario, and returns the verdicts.
fn judge(cases: &[(&str, Case)], go: &Path) -> Vec<[Verdict; PEERS.len()]> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, case)) = cases.get(index) else {
                return done;
            };
            let verdicts = std::array::from_fn(|peer| {
                let scene = Scene::set(&case.stage).expect("there is a ::1");
                verdict(&mut command(peer, &format!("{}/health", scene.url), go))
            });
            done.push((index, verdicts));
        }
    };
    let done: BTreeMap<_, _> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.flat_map(|done| done.expect("a worker does not panic"))
            .collect()
    });
    done.into_values().collect()
}

fn command(peer: usize, url: &str, go: &Path) -> Command {
    let words = PEERS[peer].trim_matches('`').split(' ');
    let mut command = match peer {
        0 => Command::new(example("service")),
        5 => Command::new(go),
        _ => Command::new(words.clone().next().expect("a program")),
    };
    match peer {
        0 => command.arg("healthcheck"),
        5 => &mut command,
        _ => command.args(words.skip(1)),
    };
    command.arg(url).env_clear();
    // wget writes files to its home directory.
    command.env("HOME", env!("CARGO_TARGET_TMPDIR"));
    command.env("PATH", env::var_os("PATH").unwrap_or_default());
    command
}

fn verdict(command: &mut Command) -> Verdict {
    let started = Instant::now();
    let nothing = Stdio::null;
    let mut child = command
        .stdin(nothing())
        .stdout(nothing())
        .stderr(nothing())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            assert!(status.code().is_some(), "{command:?} crashed");
            return match status.success() {
                _ if started.elapsed() > IN_TIME => Verdict::Late,
                true => Verdict::Healthy,
                false => Verdict::Unhealthy,
            };
        }
        if started.elapsed() > TIMEOUT {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
            return Verdict::Hung;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn expected(case: &Case) -> Verdict {
    if case.line.starts_with("healthy: ") {
        Verdict::Healthy
    } else {
        Verdict::Unhealthy
    }
}

/// Compiles `get.go`, and returns the path of the executable.
fn go() -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("get");
    let source = Path::new(REPOSITORY).join("tests/e2e/get.go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(source);
    let status = build.env("CGO_ENABLED", "0").status().expect("go starts");
    assert!(status.success(), "{build:?}");
    program
}

/// A table, and the names of some of its scenarios. An empty list means all of them.
type Scenarios = (&'static str, &'static [&'static str]);

/// Groups of scenarios in which another verdict is as defensible as ours, each with the reason. A
/// verdict that is late is never defensible.
const POLICIES: [(&str, &[Scenarios]); 6] = [
    (
        "It reads the body, as most of its users want, and RFC 9112 has clients discard a response whose \
         body has no certain end.\nA probe needs only the head.",
        &[
            (
                "every_2xx_is_healthy",
                &["chunked and with a length", "a length beyond all integers"],
            ),
            ("a_wrong_length_of_the_body_changes_nothing", &[]),
            ("a_complete_head_is_enough_whatever_the_body", &[]),
            ("sloppy_but_unambiguous_heads_are_healthy", &["no header"]),
            (
                "a_connection_reset_before_the_head_is_complete_is_unhealthy",
                &["after the head"],
            ),
        ],
    ),
    (
        "It accepts only 200 or a few other status codes.",
        &[
            (
                "every_2xx_is_healthy",
                &["201", "202", "203", "204", "206", "299"],
            ),
            (
                "a_page_instead_of_a_report_is_healthy_and_named",
                &["HTML with another code"],
            ),
        ],
    ),
    (
        "It was given no option for redirects: curl's `-f` accepts them, and wget and Go follow them.",
        &[
            ("redirects_are_named_and_not_followed", &[]),
            ("no_other_code_is_healthy", &["300", "304"]),
        ],
    ),
    (
        "Each client chooses how long a head may be, and how many interim responses it skips.",
        &[
            ("head_of_more_than_16_kib_is_unhealthy", &[]),
            ("up_to_eight_interim_responses_are_skipped", &["nine"]),
        ],
    ),
    (
        "RFC 9112 allows a client to accept such a response or to reject it.",
        &[
            (
                "a_malformed_status_line_is_unhealthy_at_once",
                &["HTTP/1.1  200 OK", "HTTP/1.1\t200 OK"],
            ),
            (
                "sloppy_but_unambiguous_heads_are_healthy",
                &[
                    "a header of any bytes",
                    "a header with a space before its colon",
                    "a folded line without a header",
                ],
            ),
        ],
    ),
    (
        "It tries IPv6 first. Different services listen on IPv4 and IPv6, and only a URL with an address \
         says which one is meant.",
        &[(
            "the_first_loopback_address_that_connects_is_used",
            &[
                "unhealthy on IPv4, healthy on IPv6",
                "healthy on IPv4, unhealthy on IPv6",
            ],
        )],
    ),
];

const MARKS: [char; POLICIES.len()] = ['¹', '²', '³', '⁴', '⁵', '⁶'];

fn policy(promise: &str, case: &Case) -> Option<usize> {
    let covers = |(table, names): &Scenarios| {
        *table == promise && (names.is_empty() || names.contains(&&*case.name))
    };
    POLICIES
        .iter()
        .position(|(_, scenarios)| scenarios.iter().any(covers))
}

/// The text of `docs/hostile.md`.
fn page(cases: &[(&str, Case)], verdicts: &[[Verdict; PEERS.len()]]) -> String {
    let mut counts = [Count::default(); PEERS.len()];
    let mut details = String::new();
    let mut last = "";
    for ((promise, case), verdicts) in cases.iter().zip(verdicts) {
        let policy = policy(promise, case);
        let cells: Vec<String> = verdicts
            .iter()
            .zip(&mut counts)
            .map(|(verdict, count)| count.add(*verdict, expected(case), policy))
            .collect();
        // Scenarios in which all programs agree are left out.
        if cells.iter().all(String::is_empty) {
            continue;
        }
        if *promise != last {
            last = promise;
            let _ = writeln!(details, "| **{}** | | | | | | |", promise.replace('_', " "));
        }
        let name = case.name.replace('\t', r"\t");
        let name = match *promise {
            "another_version_of_http_is_unhealthy_at_once"
            | "a_malformed_status_line_is_unhealthy_at_once" => format!("`{name}`"),
            _ => name,
        };
        let right = if expected(case) == Verdict::Healthy {
            "healthy"
        } else {
            "unhealthy"
        };
        let _ = writeln!(details, "| {name} | {right} | {} |", cells[1..].join(" | "));
    }

    let mut summary = String::new();
    for (peer, count) in PEERS.iter().zip(counts) {
        let Count {
            healthy,
            unhealthy,
            late,
            hung,
            policy,
        } = count;
        let _ = writeln!(
            summary,
            "| {peer} | {healthy} | {unhealthy} | {late} | {hung} | {policy} |"
        );
    }
    let mut notes = String::new();
    for (mark, (note, _)) in MARKS.iter().zip(POLICIES) {
        let _ = writeln!(notes, "{mark} {note}\n");
    }
    PAGE.replace("{scenarios}", &cases.len().to_string())
        .replace("{versions}", &versions())
        .replace("{summary}", &summary)
        .replace("{details}", &details)
        .replace("{notes}", notes.trim_end())
}

/// Numbers of a program's verdicts that differ from the expected ones, by the kind of difference.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    healthy: u32,
    unhealthy: u32,
    late: u32,
    hung: u32,
    policy: u32,
}

impl Count {
    /// Counts a verdict, and returns its cell in the table.
    fn add(&mut self, verdict: Verdict, expected: Verdict, policy: Option<usize>) -> String {
        let (count, text) = match verdict {
            _ if verdict == expected => return String::new(),
            Verdict::Healthy => (&mut self.healthy, "healthy"),
            Verdict::Unhealthy => (&mut self.unhealthy, "unhealthy"),
            Verdict::Late => (&mut self.late, "late"),
            Verdict::Hung => (&mut self.hung, "hung"),
        };
        match policy {
            Some(policy) if matches!(verdict, Verdict::Healthy | Verdict::Unhealthy) => {
                self.policy += 1;
                format!("{text} {}", MARKS[policy])
            }
            _ => {
                *count += 1;
                format!("**{text}**")
            }
        }
    }
}

/// Returns the versions that the programs print.
fn versions() -> String {
    let version = |words: &[&str], count| {
        let output = Command::new(words[0]).args(&words[1..]).output();
        let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split(' ').take(count).collect::<Vec<_>>().join(" ")
    };
    [
        version(&["curl", "--version"], 2),
        version(&["busybox"], 2),
        version(&["wget", "--version"], 3),
        version(&["go", "version"], 3),
    ]
    .join(", ")
}

const PAGE: &str = "\
# Misbehaving servers

{scenarios} scenarios test the probe, each with a server that misbehaves in its own way
([scenarios.rs](../tests/support/scenarios.rs)).
`cargo test --manifest-path tests/e2e/Cargo.toml --test peers -- --ignored` runs five other probes in the same scenarios,
with a timeout of 3 s, and writes this page.

| probe | wrongly healthy | wrongly unhealthy | late | hung | another policy |
|---|--:|--:|--:|--:|--:|
{summary}
- The expected verdicts are those of [our own probe](./healthcheck.md). We wrote the scenarios to find its faults. Where another verdict
  is as defensible, or RFC 9112 asks for it, the table counts it as another policy, and a note gives the reason.
- *Late* means that the probe ended after more than 6 s. *Hung* means that it was still running after 10 s. curl's `--max-time` and Go's
  `Timeout` limit the whole probe, wget's `-T` each read.
- Some verdicts are right by luck: if a server of another protocol keeps the connection open, GNU wget takes its greeting for a body, and
  fails only because the body does not end.
- `--spider` sends `HEAD`, and expects no body.
- {versions}. Debian 12's static busybox 1.35 crashes with `-T` and is not included.
  `localhost` was `127.0.0.1` and `::1`, as in Docker's containers. Unix sockets, signals, output and limits are tested for our own probe
  only.

## Where they differ

Bold is wrong, late or hung. An empty cell agrees with the second column. In all other scenarios, all probes agree.

| scenario | right | curl | busybox wget | GNU wget | GNU wget, `--spider` | Go |
|---|---|---|---|---|---|---|
{details}
{notes}
";
