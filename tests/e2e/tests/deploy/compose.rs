//! The service of `examples/postgres` under Docker Compose, with `examples/deploy/compose.yaml`.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy compose`

use std::{
    fmt, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lifesign_e2e::REPOSITORY;
use serde_json::Value;

use lifesign_e2e::engine::{
    Image, Program, TIMEOUT, docker, eventually, get, ip, logs, output, state, tools, turns, unique,
};

use crate::load::Load;

/// Maximum time until an outage or its end is visible on a route.
const SOON: Duration = Duration::from_secs(2);

/// Maximum response time, which is the kubelet's default timeout. The deadline of the checks is 800
/// ms.
const LATE: Duration = Duration::from_secs(1);

/// How long a status must last to count as stable. Several evaluations and several of Docker's
/// probes happen in this time.
const STEADY: Duration = Duration::from_secs(3);

/// Maximum number of the service's connections to PostgreSQL: five from the pool, one from the
/// check, and one more while the pool replaces a connection.
const CONNECTIONS: usize = 7;

/// A container that depends on the service. Tests add it to examples/deploy/compose.yaml.
const DEPENDENT: &str = "
services:
  dependent:
    image: debian:trixie-slim
    command: [sleep, infinity]
    init: true
    depends_on: {service: {condition: service_healthy}}
";

#[test]
fn the_program_of_the_readme_is_healthy_and_reports_its_check() {
    let project = Project::of(Program::Readme, "services: {}\n");

    output(&mut project.compose(&["up", "--no-build", "--wait"]));

    let probe = project.turns("service", "healthy");
    let line = probe["Output"].as_str().unwrap();
    assert!(line.starts_with("healthy: pass in "), "{line}");
    let (status_code, body) = get(project.address(), "/health");
    println!("{line}{body}");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status_code, 200, "{body}");
    assert_eq!(report["status"], "pass", "{body}");
    assert_eq!(report["serviceId"], "readme", "{body}");
    let check = &report["checks"]["postgres:responseTime"][0];
    assert_eq!(check["status"], "pass", "{body}");
}

#[test]
fn a_dependent_starts_after_the_service_is_healthy() {
    let project = Project::new(DEPENDENT);

    output(&mut project.compose(&["up", "--no-build", "--wait"]));

    let probe = project.turns("service", "healthy");
    assert_eq!(probe["ExitCode"], 0, "{probe}");
    // The two times have the same format and time zone, so their texts sort chronologically.
    let healthy = probe["End"].as_str().unwrap();
    let dependent = project.state("dependent");
    let started = dependent["StartedAt"].as_str().unwrap();
    assert!(
        healthy < started,
        "healthy at {healthy}, the dependent started at {started}"
    );
}

#[test]
fn a_missing_dependency_blocks_dependents_with_a_reason() {
    let nowhere = "
  service:
    environment: {DATABASE_URL: postgres://service:secret@127.0.0.1:1/service}
    # With these values, a failing start is detected within seconds.
    healthcheck: {test: [CMD, /app, healthcheck], interval: 1s, retries: 2, start_period: 3s, start_interval: 1s}
";
    let project = Project::new(&format!("{DEPENDENT}{nowhere}"));

    let up: Output = project
        .compose(&["up", "--no-build", "--wait"])
        .output()
        .unwrap();

    let stderr = String::from_utf8_lossy(&up.stderr);
    assert!(!up.status.success(), "{stderr}");
    assert!(stderr.contains("service-1 is unhealthy"), "{stderr}");
    assert_eq!(project.state("dependent")["Status"], "created");
    let probe = project.turns("service", "unhealthy");
    assert_eq!(probe["ExitCode"], 1);
    assert_eq!(
        probe["Output"],
        "unhealthy: 503 fail: starting: set_ready() has not been called yet, waiting for postgres \
         (GET http://[::1]:8080/health)\n"
    );
}

#[test]
fn an_outage_only_fails_readiness() {
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
        // `kill -1` signals every process except PID 1.
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
            turns(&postgres, "healthy", TIMEOUT);
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
        let ready = Prober::start(address, "/health/ready");
        let up = Prober::start(address, "/health");
        // The measured time starts when the engine's command has ended.
        begin();
        let detected = ready.turns("fail");
        // When readiness has failed, the check's result is known, so `/health` reports it too.
        up.turns("warn");
        end();
        let recovered = ready.turns("pass");
        up.turns("pass");
        let (ready, up) = (ready.stop(), up.stop());

        println!(
            "{how}: detected after {detected:.2?}, recovered after {recovered:.2?}; \
             ready: {ready}; up: {up}; {} requests failed so far",
            load.failed()
        );
        assert!(detected <= SOON, "{how}: detected after {detected:?}");
        assert!(recovered <= SOON, "{how}: recovered after {recovered:?}");
        assert_eq!(ready.unanswered, 0, "{how}: {ready}");
        assert_eq!(up.refused, 0, "{how}: {up}");
        for probes in [ready, up] {
            assert!(probes.slowest < LATE, "{how}: {probes}");
        }
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
    let response = get(address, "/");
    assert_eq!(response.0, 200, "{response:?}");
}

#[test]
fn an_exhausted_pool_is_no_outage_and_no_check_hangs() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait"]));
    let load = Load::start(project.address());
    let mut holder = project.exhaust_pool();

    let probers = Probers::start(project.address());
    // If PostgreSQL did not cancel a query that timed out, the pool would open more connections
    // after `QUERY_TIMEOUT`, 2 s. The loop takes longer than that.
    let mut most = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let connections =
            project.sql("SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL");
        most = most.max(connections.parse().unwrap());
        thread::sleep(Duration::from_millis(100));
    }
    probers.stop();
    let held = holder.try_wait().unwrap().is_none();
    holder.wait().unwrap();
    let tally = load.stop();

    println!("{most} connections at most; {tally}");
    assert!(held, "the lock was gone before the end");
    assert!(most <= CONNECTIONS, "{most} connections");
}

#[test]
fn a_full_postgresql_is_no_outage_for_connected_services() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait", "postgres"]));
    let postgres = project.container("postgres");
    project.sql("ALTER SYSTEM SET max_connections = 20");
    docker(["restart", &postgres]);
    output(&mut project.compose(&["up", "--no-build", "--wait"]));
    let load = Load::start(project.address());
    let mut holder = project.exhaust_pool();

    // Each client retries until it has a connection, because the service's pool may release one
    // later. The shell waits for the clients. Otherwise they would become children of PostgreSQL,
    // which is PID 1 and restarts when an unknown child fails.
    let all = "for i in $(seq 20); do
        until psql --username=service --command='SELECT pg_sleep(20)'; do sleep 0.1; done &
    done; wait";
    docker(["exec", "--detach", &postgres, "sh", "-c", all]);
    let none_left = || {
        let refused = project.psql("SELECT 1").output().unwrap();
        String::from_utf8_lossy(&refused.stderr).contains("too many clients")
    };
    eventually("no connection left", TIMEOUT, || none_left().then_some(()));
    let probers = Probers::start(project.address());
    let start = Instant::now();
    let mut full = start;
    while start.elapsed() < STEADY {
        if none_left() {
            full = Instant::now();
        }
        // As soon as a connection is released, a waiting client takes it.
        assert!(
            full.elapsed() < Duration::from_secs(1),
            "there are connections left"
        );
    }
    probers.stop();
    let held = holder.try_wait().unwrap().is_none();

    assert!(held, "the lock was gone before the end");
    holder.wait().unwrap();
    load.stop();
}

#[test]
fn a_failed_migration_is_retried_by_each_replica() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait", "postgres"]));
    project.sql("CREATE TABLE visits (in_the_way text)");
    output(&mut project.compose(&["up", "--no-build", "--detach", "--scale=service=2"]));
    let replicas = [1, 2].map(|number| format!("{}-service-{number}", project.name));
    let address = |replica: &str| SocketAddr::new(ip(replica), 8080);

    for replica in &replicas {
        eventually("a third attempt", TIMEOUT, || {
            let failed = "relation \"visits\" already exists";
            let attempts = logs(replica).matches(failed).count();
            (attempts >= 3).then_some(())
        });
        assert_eq!(get(address(replica), "/health/ready").0, 503);
    }
    project.sql("DROP TABLE visits");

    for replica in &replicas {
        turns(replica, "healthy", TIMEOUT);
        let response = get(address(replica), "/");
        assert_eq!(response.0, 200, "{response:?}");
    }
}

#[test]
fn an_older_program_is_ready_on_a_newer_schema() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait"]));
    project.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (2, 'of a version that was rolled back', true, '', 0)",
    );

    docker(["restart", &project.container("service")]);

    project.turns("service", "healthy");
    let response = get(project.address(), "/");
    assert_eq!(response.0, 200, "{response:?}");
}

#[test]
fn a_large_backlog_is_swept_in_batches() {
    let project = Project::new("services: {}");
    output(&mut project.compose(&["up", "--no-build", "--wait"]));

    project.sql(
        "INSERT INTO visits (at) SELECT now() - interval '2 days' FROM generate_series(1, 1000000)",
    );

    eventually("an empty table", TIMEOUT, || {
        (project.sql("SELECT count(*) FROM visits") == "0").then_some(())
    });
}

/// Requests a route again and again, and records the responses.
struct Prober {
    stop: Arc<AtomicBool>,
    probes: Arc<Mutex<Vec<Probe>>>,
    thread: JoinHandle<()>,
}

struct Probe {
    began: Instant,
    ended: Instant,
    /// The status code, or 0 if there was no response.
    code: u16,
    status: Value,
}

struct Probes {
    count: usize,
    unanswered: usize,
    /// Number of responses other than 200.
    refused: usize,
    slowest: Duration,
}

impl Prober {
    fn start(address: SocketAddr, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let probes = Arc::new(Mutex::new(Vec::new()));
        let thread = thread::spawn({
            let (stop, probes) = (Arc::clone(&stop), Arc::clone(&probes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let (code, body) = get(address, path);
                    let ended = Instant::now();
                    let body: Value = serde_json::from_str(&body).unwrap_or_default();
                    probes.lock().unwrap().push(Probe {
                        began,
                        ended,
                        code,
                        status: body["status"].clone(),
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

    /// Waits until the status has this value and keeps it for [`STEADY`]. Returns the time until it
    /// first had the value.
    fn turns(&self, status: &str) -> Duration {
        let start = Instant::now();
        eventually(&format!("a steady {status}"), TIMEOUT, || {
            let probes = self.probes.lock().unwrap();
            let same = |probe: &&Probe| probe.ended > start && probe.status == status;
            let first = probes.iter().rev().take_while(same).last()?;
            (first.ended.elapsed() > STEADY).then(|| first.ended - start)
        })
    }

    fn stop(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let probes = self.probes.lock().unwrap();
        Probes {
            count: probes.len(),
            unanswered: probes.iter().filter(|probe| probe.code == 0).count(),
            refused: probes.iter().filter(|probe| probe.code != 200).count(),
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
            unanswered,
            refused,
            slowest,
        } = self;
        write!(
            f,
            "{count} probes, {unanswered} unanswered, {refused} not 200, slowest {slowest:.2?}"
        )
    }
}

/// Probers of `/health/ready` and `/health`. `stop` fails if a response was late or was not 200.
struct Probers([Prober; 2]);

impl Probers {
    fn start(address: SocketAddr) -> Self {
        Self(["/health/ready", "/health"].map(|path| Prober::start(address, path)))
    }

    fn stop(self) {
        for prober in self.0 {
            let probes = prober.stop();
            println!("{probes}");
            assert!(probes.count > 10, "{probes}");
            assert_eq!(probes.refused, 0, "{probes}");
            assert!(probes.slowest < LATE, "{probes}");
        }
    }
}

/// A Compose project: examples/deploy/compose.yaml with an override file of the test. Removed when
/// dropped.
struct Project {
    name: String,
    override_file: PathBuf,
    image: Image,
}

impl Project {
    fn new(above: &str) -> Self {
        Self::of(Program::Postgres, above)
    }

    fn of(program: Program, above: &str) -> Self {
        let name = format!("lifesign-compose-{}", unique());
        let override_file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        fs::write(&override_file, above).unwrap();
        Self {
            name,
            override_file,
            image: Image::of(program),
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
            .env("POSTGRES_PASSWORD", "a/b?c#d@e%f:g")
            .env("PORT", "0");
        command
    }

    fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(ip(&self.container("service")), 8080)
    }

    fn psql(&self, command: &str) -> Command {
        let mut psql = Command::new("docker");
        psql.args(["exec", &self.container("postgres"), "psql"])
            .args(["--username=service", "--tuples-only", "--no-align"])
            .args(["--command", command]);
        psql
    }

    fn sql(&self, command: &str) -> String {
        output(&mut self.psql(command))
    }

    /// Exhausts the service's pool for ten seconds. Its five connections wait for a lock, which the
    /// returned child process holds, and more requests wait for a connection.
    fn exhaust_pool(&self) -> Child {
        let lock = "BEGIN; LOCK TABLE visits; SELECT pg_sleep(10); COMMIT";
        let holder = self.psql(lock).stdout(Stdio::null()).spawn().unwrap();
        eventually("a request that found no connection", TIMEOUT, || {
            logs(&self.container("service"))
                .contains("visit was not counted")
                .then_some(())
        });
        holder
    }

    fn state(&self, service: &str) -> Value {
        state(&self.container(service))
    }

    fn turns(&self, service: &str, health: &str) -> Value {
        turns(&self.container(service), health, TIMEOUT)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if thread::panicking() {
            for service in ["service", "postgres"] {
                eprintln!("log of {service}:\n{}", logs(&self.container(service)));
            }
        }
        let _ = self.compose(&["down", "--volumes", "--timeout=0"]).output();
        let _ = fs::remove_file(&self.override_file);
    }
}
