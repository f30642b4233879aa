//! A Swarm of one node: `examples/deploy/stack.yaml` behind the HAProxy of its page.
//!
//! `cargo test --test swarm -- --ignored`

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    docker::{
        Container, Image, Network, PATIENCE, Program, REPOSITORY, docker, eventually, get, output,
        remove, snippet, tools, unique,
    },
    load::Load,
};

#[path = "support/docker.rs"]
mod docker;
#[path = "support/load.rs"]
mod load;

const UPDATES: u32 = 20;
const REPLICAS: usize = 3;

#[test]
#[ignore = "needs a Docker Engine"]
fn twenty_updates_lose_no_request() {
    let images = [1, 2].map(|_| Image::of(Program::Service));
    // Both versions work, so nothing has to be waited for but the proxy.
    let quick = "services: {service: {deploy: {update_config: {delay: 2s}}}}";
    let stack = Stack::new(quick);
    stack.deploy(&images[0]);
    stack.runs(&images[0]);
    let proxy = Proxy::new(&stack);

    let load = Load::start(proxy.address);
    let start = Instant::now();
    for update in 1..=UPDATES {
        let image = &images[update as usize % 2];
        stack.deploy(image);
        stack.runs(image);
    }
    let took = start.elapsed();
    stack.update_ends("completed");
    let tally = load.stop();

    println!("{UPDATES} updates of {REPLICAS} tasks in {took:.0?}: {tally}");
    assert_eq!(tally.failed.len(), 0, "{tally}");
    assert!(
        tally.kept > 10_000 && tally.fresh > 10_000,
        "too little load: {tally}"
    );
    // None was lost on the way either: each update replaced each task, once.
    assert_eq!(stack.ended(), 0);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_version_that_is_never_healthy_is_rolled_back_and_loses_no_request() {
    rolled_back("start");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_version_that_breaks_after_two_seconds_is_rolled_back_and_loses_no_request() {
    rolled_back("panic");
}

fn rolled_back(how: &str) {
    let good = Image::of(Program::Service);
    let bad = Image::with(Program::Broken, &format!("ENV BREAK={how}"));
    let stack = Stack::new("services: {}");
    stack.deploy(&good);
    stack.runs(&good);
    let proxy = Proxy::new(&stack);

    let load = Load::start(proxy.address);
    let start = Instant::now();
    stack.deploy(&bad);
    stack.update_ends("rollback_completed");
    let took = start.elapsed();
    stack.runs(&good);
    let tally = load.stop();

    println!("{how}: rolled back after {took:.0?}: {tally}");
    assert_eq!(tally.failed.len(), 0, "{tally}");
    assert!(stack.ended() > 0, "the bad version never ran");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_broken_task_is_replaced() {
    // stack.yaml's interval × retries; what a heartbeat waits until it is late, or a probe of a
    // blocked runtime until it gives up; then the drain, or the grace period of who cannot drain.
    let cases = [
        ("panic", 10 + 5),
        ("deadlock", 10 + 2 + 5),
        ("block", 10 + 2 * 3 + 15),
    ];
    let stacks = cases.map(|(how, within)| {
        let image = Image::with(Program::Broken, &format!("ENV BREAK={how}"));
        let stack = Stack::new("services: {service: {deploy: {replicas: 1}}}");
        stack.deploy(&image);
        (how, within, stack, image)
    });
    thread::scope(|scope| {
        for (how, within, stack, _image) in &stacks {
            scope.spawn(move || {
                let first = eventually("a task that runs", PATIENCE, || stack.running().pop());
                // It breaks two seconds after its start.
                let start = Instant::now() + Duration::from_secs(2);
                eventually("its end", PATIENCE, || (stack.ended() > 0).then_some(()));
                let ended = start.elapsed();
                eventually("another task that runs", PATIENCE, || {
                    stack.running().into_iter().find(|task| *task != first)
                });
                let replaced = start.elapsed();
                println!("{how}: ended after {ended:.1?}, replaced after {replaced:.1?}");
                // The engine starts a probe late on a busy machine, and tells Swarm later.
                let bound = Duration::from_secs(within + 5);
                assert!(ended <= bound, "{how}: {ended:?}");
            });
        }
    });
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_outage_replaces_no_task() {
    let image = Image::of(Program::Postgres);
    let stack = Stack::new(
        "services: {service: {environment: {DATABASE_URL: postgres://service:secret@postgres/service}}}",
    );
    stack.deploy(&image);
    let network = format!("--network={}_front", stack.name);
    let postgres = Container::run(
        tools(),
        &[
            &*network,
            "--network-alias=postgres",
            "--env=POSTGRES_USER=service",
            "--env=POSTGRES_PASSWORD=secret",
        ],
        &[],
    );
    stack.runs(&image);
    let proxy = Proxy::new(&stack);
    let before = stack.tasks("{{.ID}}");

    docker(["pause", &postgres.name]);
    let start = Instant::now();
    // All three are out.
    eventually("no task gets traffic", PATIENCE, || {
        let (status, body) = get(proxy.address, "/");
        (status == 503 && body.contains("No server is available")).then_some(())
    });
    let out = start.elapsed();
    // Longer than stack.yaml's HEALTHCHECK takes to find something broken, 16 s, by far.
    thread::sleep(Duration::from_secs(25));
    docker(["unpause", &postgres.name]);
    let start = Instant::now();
    eventually("traffic", PATIENCE, || {
        (get(proxy.address, "/").0 == 200).then_some(())
    });
    let back = start.elapsed();

    println!("no traffic after {out:.1?}, traffic again after {back:.1?}");
    assert_eq!(stack.tasks("{{.ID}}"), before);
    assert_eq!(stack.running().len(), REPLICAS);
}

/// The shipped stack. Removed when dropped.
struct Stack {
    name: String,
    override_file: PathBuf,
    _swarm: Swarm,
}

impl Stack {
    fn new(above: &str) -> Self {
        let name = format!("lifesign-{}", unique());
        let override_file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        fs::write(&override_file, above).unwrap();
        Self {
            name,
            override_file,
            _swarm: Swarm::new(),
        }
    }

    fn deploy(&self, image: &Image) {
        let mut command = Command::new("docker");
        command
            // There is no registry to ask for a digest.
            .args(["stack", "deploy", "--detach=true", "--resolve-image=never"])
            .args([
                "--compose-file",
                &format!("{REPOSITORY}/examples/deploy/stack.yaml"),
            ])
            .arg("--compose-file")
            .arg(&self.override_file)
            .arg(&self.name)
            .env("IMAGE", &image.tag);
        output(&mut command);
    }

    fn service(&self) -> String {
        format!("{}_service", self.name)
    }

    /// Of each task that there ever was and that Swarm remembers.
    fn tasks(&self, format: &str) -> Vec<String> {
        self.ps(&["--format", format])
    }

    /// Those that are healthy and shall be.
    fn running(&self) -> Vec<String> {
        let format = "{{.CurrentState}}\t{{.ID}}\t{{.Image}}";
        let tasks = self.ps(&["--filter=desired-state=running", "--format", format]);
        let running = tasks.iter().filter_map(|task| {
            let (state, task) = task.split_once('\t')?;
            state.starts_with("Running").then(|| task.to_owned())
        });
        running.collect()
    }

    /// How many ended by themselves, or because they were unhealthy. (When it drains, a task ends
    /// with 0 even then: to Swarm it is complete.)
    fn ended(&self) -> usize {
        let states = self.tasks("{{.CurrentState}}");
        let ended = |state: &&String| state.starts_with("Complete") || state.starts_with("Failed");
        states.iter().filter(ended).count()
    }

    fn ps(&self, options: &[&str]) -> Vec<String> {
        let service = self.service();
        let ps = ["service", "ps", "--no-trunc"].into_iter();
        let text = docker(ps.chain(options.iter().copied()).chain([&*service]));
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until this image, and no other, runs in all replicas.
    fn runs(&self, image: &Image) {
        eventually("all replicas run", 2 * PATIENCE, || {
            let running = self.running();
            let all = running.iter().filter(|task| task.ends_with(&image.tag));
            (all.count() == REPLICAS && running.len() == REPLICAS).then_some(())
        });
    }

    fn update_ends(&self, how: &str) {
        let service = self.service();
        let inspect = [
            "service",
            "inspect",
            "--format={{.UpdateStatus.State}}",
            &service,
        ];
        eventually(&format!("update {how}"), 4 * PATIENCE, || {
            (docker(inspect) == how).then_some(())
        });
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if thread::panicking() {
            let ps = Command::new("docker")
                .args(["service", "ps", "--no-trunc", &self.service()])
                .output();
            let ps = ps.map(|ps| String::from_utf8_lossy(&ps.stdout).into_owned());
            eprintln!("{}", ps.unwrap_or_default());
        }
        remove(["stack", "rm", &self.name]);
        let _ = fs::remove_file(&self.override_file);
    }
}

/// The HAProxy of the page, on the stack's network and on one that this machine reaches.
struct Proxy {
    address: SocketAddr,
    _container: Container,
    _network: Network,
}

impl Proxy {
    fn new(stack: &Stack) -> Self {
        let network = Network::new();
        let config = snippet("HAProxy in front of Swarm");
        let words = ["haproxy", "-f", "/etc/haproxy.cfg"];
        let container = Container::tool(&network, &words, ("/etc/haproxy.cfg", &config));
        let front = format!("{}_front", stack.name);
        docker(["network", "connect", &front, &container.name]);
        let ip = format!(
            "--format={{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}",
            network.name
        );
        let ip = docker(["inspect", &ip, &container.name]);
        let proxy = Self {
            address: SocketAddr::new(ip.parse().unwrap(), 8000),
            _container: container,
            _network: network,
        };
        eventually("the proxy answers", PATIENCE, || {
            (get(proxy.address, "/").0 == 200).then_some(())
        });
        proxy
    }
}

/// A use of the machine's Swarm. Where there is none the first use makes one, and the last leaves it.
struct Swarm;

struct Uses {
    count: u32,
    is_ours: bool,
}

static USES: Mutex<Uses> = Mutex::new(Uses {
    count: 0,
    is_ours: false,
});

impl Swarm {
    fn new() -> Self {
        let mut uses = USES.lock().unwrap();
        if uses.count == 0 && docker(["info", "--format={{.Swarm.LocalNodeState}}"]) == "inactive" {
            docker([
                "swarm",
                "init",
                "--advertise-addr=127.0.0.1",
                "--listen-addr=127.0.0.1:2377",
            ]);
            uses.is_ours = true;
        }
        uses.count += 1;
        Self
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let mut uses = USES.lock().unwrap_or_else(PoisonError::into_inner);
        uses.count -= 1;
        if uses.count == 0 && uses.is_ours {
            remove(["swarm", "leave", "--force"]);
        }
    }
}
