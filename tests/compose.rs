//! The service of `examples/postgres` under Docker Compose, by `examples/deploy/compose.yaml`.
//!
//! `cargo test --test compose -- --ignored`

use std::{
    fmt, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    docker::{
        Image, PATIENCE, Program, REPOSITORY, docker, eventually, get, ip, logs, output, parse,
        state, tools, turns, unique,
    },
    load::Load,
};

#[path = "support/docker.rs"]
mod docker;
#[path = "support/load.rs"]
mod load;

/// What an orchestrator may rely on: an outage shows, and ends, within this.
const SOON: Duration = Duration::from_secs(2);

/// 800 ms for the checks, and a busy machine.
const LATE: Duration = Duration::from_millis(1500);

/// Who needs the service, beside the shipped file.
const DEPENDENT: &str = "
services:
  dependent:
    image: debian:trixie-slim
    command: [sleep, infinity]
    init: true
    depends_on: {service: {condition: service_healthy}}
";

#[test]
#[ignore = "needs a Docker Engine"]
fn a_dependent_starts_after_the_service_is_healthy() {
    let project = Project::new(DEPENDENT);

    output(&mut project.compose(&["up", "--no-build", "--wait"]));

    let probe = project.turns("service", "healthy");
    assert_eq!(probe["ExitCode"], 0, "{probe}");
    // In one zone and one format, so the order of the texts is that of the times.
    let healthy = probe["End"].as_str().unwrap();
    let dependent = project.state("dependent");
    let started = dependent["StartedAt"].as_str().unwrap();
    assert!(
        healthy < started,
        "healthy at {healthy}, the dependent started at {started}"
    );
}

#[test]
#[ignore = "needs a Docker Engine"]
fn where_a_dependency_is_missing_a_dependent_never_starts_and_the_engine_keeps_why() {
    let nowhere = "
  service:
    environment: {DATABASE_URL: postgres://service:secret@127.0.0.1:1/service}
    # So that a start is given up in seconds.
    healthcheck: {test: [CMD, /app, healthcheck], interval: 1s, retries: 2, start_period: 3s, start_interval: 1s}
";
    let project = Project::new(&format!("{DEPENDENT}{nowhere}"));

    let up: Output = project
        .compose(&["up", "--no-build", "--wait"])
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&up.stderr);
    assert!(!up.status.success(), "{said}");
    assert!(said.contains("service-1 is unhealthy"), "{said}");
    assert_eq!(project.state("dependent")["Status"], "created");
    let probe = project.turns("service", "unhealthy");
    assert_eq!(probe["ExitCode"], 1);
    assert_eq!(
        probe["Output"],
        "unhealthy: 503 fail: starting, waiting for postgres\n"
    );
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_outage_takes_the_traffic_away_and_nothing_else() {
    let often = "
services:
  service:
    healthcheck: {test: [CMD, /app, healthcheck], interval: 1s, timeout: 5s, retries: 1}
";
    let project = Project::new(often);
    output(&mut project.compose(&["up", "--no-build", "--wait"]));
    let (service, postgres) = (project.container("service"), project.container("postgres"));
    let address = SocketAddr::new(ip(&service), 8080);
    let network = format!("{}_default", project.name);
    let all = |signal: &str| {
        // The others first: a first process that is stopped reaps no child.
        let processes = format!("kill -{signal} -1");
        docker(["exec", &postgres, "sh", "-c", &processes]);
        docker(["kill", "--signal", signal, &postgres]);
    };
    let run = |words: &[&str]| drop(docker(words.iter().copied()));
    let alias = "--alias=postgres";
    type Act<'a> = &'a dyn Fn();
    let outages: [(&str, Act<'_>, Act<'_>); 3] = [
        ("stopped", &|| run(&["stop", &postgres]), &|| {
            run(&["start", &postgres]);
            turns(&postgres, "healthy", PATIENCE);
        }),
        ("frozen", &|| all("STOP"), &|| all("CONT")),
        (
            "cut off",
            &|| run(&["network", "disconnect", &network, &postgres]),
            &|| run(&["network", "connect", alias, &network, &postgres]),
        ),
    ];

    let load = Load::start(address);
    for (how, begin, end) in &outages {
        let prober = Prober::start(address);
        // Time counts from when the engine says that it is done.
        begin();
        let detected = prober.ready(503);
        // Long enough for several of the engine's probes, and for all that waits to be late.
        thread::sleep(Duration::from_secs(6));
        let during = get(address, "/health");
        end();
        let recovered = prober.ready(200);
        let probes = prober.stop();

        println!(
            "{how}: detected after {detected:.2?}, recovered after {recovered:.2?}; {probes}; \
             {} requests failed so far",
            load.failed()
        );
        assert!(detected <= SOON, "{how}: detected after {detected:?}");
        assert!(recovered <= SOON, "{how}: recovered after {recovered:?}");
        assert_eq!(during.0, 200, "{how}: {during:?}");
        assert_eq!(parse(&during.1)["status"], "warn", "{how}");
        assert!(probes.slowest < LATE, "{how}: {probes}");
        assert_eq!(probes.failed, 0, "{how}: {probes}");
        let state = project.state("service");
        assert_eq!(state["Health"]["Status"], "healthy", "{how}: {state:#}");
        for entry in state["Health"]["Log"].as_array().unwrap() {
            assert_eq!(entry["ExitCode"], 0, "{how}: {entry}");
        }
    }
    let tally = load.stop();
    println!("{tally}");
    let restarts = docker(["inspect", "--format={{.RestartCount}}", &service]);
    assert_eq!(restarts, "0");
    let answer = get(address, "/");
    assert_eq!(answer.0, 200, "{answer:?}");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_exhausted_pool_is_no_outage_and_no_check_hangs() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait"]));
    let address = SocketAddr::new(ip(&project.container("service")), 8080);
    let postgres = project.container("postgres");
    let lock = "BEGIN; LOCK TABLE visits; SELECT pg_sleep(6); COMMIT";
    let psql = ["exec", &postgres, "psql", "--username=service", "--command"];

    let load = Load::start(address);
    let mut holder = Command::new("docker").args(psql).arg(lock).spawn().unwrap();
    // All five connections of the pool wait for the lock, and more requests for a connection.
    eventually("a request that found no connection", PATIENCE, || {
        logs(&project.container("service"))
            .contains("a visit was not counted")
            .then_some(())
    });
    let prober = Prober::start(address);
    thread::sleep(Duration::from_secs(2));
    let probes = prober.stop();
    let held = holder.try_wait().unwrap().is_none();
    holder.wait().unwrap();
    let tally = load.stop();

    assert!(held, "the lock was gone before the end");
    assert!(!tally.failed.is_empty(), "the pool was not exhausted");
    assert_eq!(probes.unready, 0, "{probes}");
    assert!(probes.slowest < LATE, "{probes}");
    println!(
        "{probes}; {} of {} requests failed",
        tally.failed.len(),
        tally.kept + tally.fresh
    );
}

/// Asks for readiness all the time.
struct Prober {
    stop: Arc<AtomicBool>,
    probes: Arc<Mutex<Vec<Probe>>>,
    thread: JoinHandle<()>,
}

struct Probe {
    began: Instant,
    ended: Instant,
    status: u16,
}

struct Probes {
    count: usize,
    /// Without an answer.
    failed: usize,
    unready: usize,
    slowest: Duration,
}

impl Prober {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let probes = Arc::new(Mutex::new(Vec::new()));
        let thread = thread::spawn({
            let (stop, probes) = (Arc::clone(&stop), Arc::clone(&probes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let (status, _) = get(address, "/health/ready");
                    let ended = Instant::now();
                    probes.lock().unwrap().push(Probe {
                        began,
                        ended,
                        status,
                    });
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        Self {
            stop,
            probes,
            thread,
        }
    }

    /// How long from now until readiness is this.
    fn ready(&self, status: u16) -> Duration {
        let start = Instant::now();
        eventually(&format!("readiness {status}"), PATIENCE, || {
            let probes = self.probes.lock().unwrap();
            let after = |probe: &&Probe| probe.ended > start && probe.status == status;
            probes.iter().find(after).map(|probe| probe.ended - start)
        })
    }

    fn stop(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let probes = self.probes.lock().unwrap();
        Probes {
            count: probes.len(),
            failed: probes.iter().filter(|probe| probe.status == 0).count(),
            unready: probes.iter().filter(|probe| probe.status != 200).count(),
            slowest: probes
                .iter()
                .map(|probe| probe.ended - probe.began)
                .max()
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            failed,
            unready,
            slowest,
        } = self;
        write!(
            f,
            "{count} probes, {failed} unanswered, {unready} not ready, slowest {slowest:.2?}"
        )
    }
}

/// A project of the shipped file and what the test puts on top. Removed when dropped.
struct Project {
    name: String,
    override_file: PathBuf,
    image: Image,
}

impl Project {
    fn new(above: &str) -> Self {
        let name = format!("lifesign-compose-{}", unique());
        let override_file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        fs::write(&override_file, above).unwrap();
        Self {
            name,
            override_file,
            image: Image::of(Program::Postgres),
        }
    }

    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["compose", "--project-name", &self.name])
            .args([
                "--file",
                &format!("{REPOSITORY}/examples/deploy/compose.yaml"),
                "--file",
            ])
            .arg(&self.override_file)
            .args(arguments)
            .env("IMAGE", &self.image.tag)
            .env("POSTGRES_IMAGE", tools())
            .env("POSTGRES_PASSWORD", "secret")
            .env("PORT", "0");
        command
    }

    fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    fn state(&self, service: &str) -> Value {
        state(&self.container(service))
    }

    fn turns(&self, service: &str, health: &str) -> Value {
        turns(&self.container(service), health, PATIENCE)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the service said:\n{}", logs(&self.container("service")));
        }
        let _ = self.compose(&["down", "--volumes", "--timeout=0"]).output();
        let _ = fs::remove_file(&self.override_file);
    }
}
