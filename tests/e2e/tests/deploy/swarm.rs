//! A Swarm of one node: `examples/deploy/stack.yaml` behind `proxies/haproxy-swarm.cfg`.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy swarm`

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::REPOSITORY;

use lifesign_e2e::engine::{
    Container, Image, Network, Program, TIMEOUT, config, docker, eventually, get, output, remove,
    tools, unique,
};

use crate::load::Load;

const UPDATES: u32 = 20;
const REPLICAS: usize = 3;

/// Maximum time until probes report an outage or its end: two seconds, and one more because `docker
/// exec` is slow on a busy engine.
const SOON: Duration = Duration::from_secs(2 + 1);

#[test]
fn twenty_updates_lose_no_request() {
    let images = [1, 2].map(|_| Image::of(Program::Service));
    // The two images work, so an update needs no time to detect a broken version. It needs only the
    // time in which the proxy finds the new task.
    let quick = "services: {service: {deploy: {update_config: {delay: 2s, monitor: 5s}}}}";
    let stack = Stack::new(quick);
    stack.deploy(&images[0]);
    stack.runs(&images[0]);
    let proxy = Proxy::new(&stack);

    let load = Load::start(proxy.address);
    let start = Instant::now();
    let mut tasks = BTreeSet::from_iter(stack.tasks("{{.ID}}"));
    for update in 1..=UPDATES {
        let image = &images[update as usize % 2];
        stack.deploy(image);
        stack.runs(image);
        // The IDs are collected in each update, because Swarm remembers only five tasks of each
        // replica.
        tasks.extend(stack.tasks("{{.ID}}"));
        assert_eq!(stack.ended(), 0, "after update {update}");
    }
    let took = start.elapsed();
    stack.update_ends("completed");
    let tally = load.stop();

    println!("{UPDATES} updates of {REPLICAS} tasks in {took:.0?}: {tally}");
    assert_eq!(tally.failed.len(), 0, "{tally}");
    assert!(
        tally.kept > 10_000 && tally.fresh > 10_000 && tally.posts > 5000,
        "too little load: {tally}"
    );
    // The number of tasks proves that each update has replaced each task exactly once.
    assert_eq!(tasks.len(), REPLICAS * (1 + UPDATES as usize));
}

#[test]
fn a_version_that_is_never_healthy_is_rolled_back() {
    rolled_back("start");
}

#[test]
fn a_version_that_breaks_after_2_s_is_rolled_back() {
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
    assert_eq!(stack.replicas_of(&bad).len(), 1);
}

/// A blocked runtime takes the longest to detect, because each probe takes its whole timeout and
/// the task cannot drain.
#[test]
fn a_broken_version_replaces_only_one_task() {
    let good = Image::of(Program::Service);
    let bad = Image::with(Program::Broken, "ENV BREAK=block");
    let stack = Stack::new("services: {}");
    stack.deploy(&good);
    stack.runs(&good);

    let start = Instant::now();
    stack.deploy(&bad);
    stack.update_ends("rollback_completed");

    println!("block: rolled back after {:.0?}", start.elapsed());
    assert_eq!(stack.replicas_of(&bad).len(), 1);
    stack.runs(&good);
}

#[test]
fn a_broken_task_is_replaced() {
    // Seconds from the break to the task's end: interval × retries of stack.yaml; the time until a
    // heartbeat is late, or the timeout of each probe; and the drain delay, or the grace period of
    // a process that cannot drain.
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
                let first = eventually("a task that runs", TIMEOUT, || stack.running().pop());
                // The service breaks two seconds after its start.
                let start = Instant::now() + Duration::from_secs(2);
                eventually("its end", TIMEOUT, || (stack.ended() > 0).then_some(()));
                let ended = start.elapsed();
                eventually("another task that runs", TIMEOUT, || {
                    stack.running().into_iter().find(|task| *task != first)
                });
                let replaced = start.elapsed();
                println!("{how}: ended after {ended:.1?}, replaced after {replaced:.1?}");
                // The 5 s are for a busy engine, which starts a probe late and notifies Swarm late.
                let bound = Duration::from_secs(within + 5);
                assert!(ended <= bound, "{how}: {ended:?}");
            });
        }
    });
}

#[test]
fn an_outage_replaces_no_task() {
    let image = Image::of(Program::Postgres);
    let stack = Stack::new(
        "services: {service: {environment: {DATABASE_URL: postgres://service:secret@postgres/service}}}",
    );
    stack.deploy(&image);
    let front = format!("{}_front", stack.name);
    let postgres = Container::run(
        tools(),
        &[
            &*format!("--network={front}"),
            "--network-alias=postgres",
            "--env=POSTGRES_USER=service",
            "--env=POSTGRES_PASSWORD=secret",
        ],
        &[],
    );
    stack.runs(&image);
    let proxy = Proxy::new(&stack);
    let before = stack.tasks("{{.ID}}");
    let containers = stack.containers();
    let run = |words: &[&str]| drop(docker(words.iter().copied()));
    let (name, front, alias) = (&*postgres.name, &*front, "--alias=postgres");
    // An outage: what starts it, what ends it, and its duration in seconds. Each lasts longer than
    // the 16 s in which the HEALTHCHECK of stack.yaml detects a broken task. One outage also lasts
    // longer than 40 s, after which Swarm would replace the tasks if the sweeper's heartbeat
    // depended on PostgreSQL.
    type Act<'a> = &'a dyn Fn();
    let outages: [(&str, Act<'_>, Act<'_>, u64); 3] = [
        (
            "stopped",
            &|| run(&["stop", name]),
            &|| {
                run(&["start", name]);
                let is_ready = ["exec", name, "pg_isready", "--host=127.0.0.1"];
                eventually("PostgreSQL", TIMEOUT, || {
                    let output = Command::new("docker").args(is_ready).output().unwrap();
                    output.status.success().then_some(())
                });
            },
            20,
        ),
        (
            "frozen",
            &|| run(&["pause", name]),
            &|| run(&["unpause", name]),
            45,
        ),
        (
            "cut off",
            &|| run(&["network", "disconnect", front, name]),
            &|| run(&["network", "connect", alias, front, name]),
            20,
        ),
    ];

    for (how, begin, end, lasts) in outages {
        begin();
        let detected = all_say(&containers, &["--ready"], "unhealthy: 503 fail");
        eventually("no task gets traffic", TIMEOUT, || {
            let (status, body) = get(proxy.address, "/");
            (status == 503 && body.contains("No server is available")).then_some(())
        });
        thread::sleep(Duration::from_secs(lasts));
        // Swarm runs the probe without flags. That probe only warns, so Swarm replaces no task.
        all_say(&containers, &[], "healthy: warn");
        end();
        let recovered = all_say(&containers, &["--ready"], "healthy: pass");
        eventually("traffic", TIMEOUT, || {
            (get(proxy.address, "/").0 == 200).then_some(())
        });

        println!("{how}: detected after {detected:.1?}, recovered after {recovered:.1?}");
        assert!(detected <= SOON, "{how}: detected after {detected:?}");
        assert!(recovered <= SOON, "{how}: recovered after {recovered:?}");
        assert_eq!(stack.tasks("{{.ID}}"), before, "{how}");
        assert_eq!(stack.running().len(), REPLICAS, "{how}");
    }
}

/// Waits until each container's probe prints a line that starts with `response`. Returns the time
/// until then.
fn all_say(containers: &[String], args: &[&str], response: &str) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for container in containers {
            scope.spawn(move || {
                let probe = ["exec", container, "/app", "healthcheck"];
                eventually(&format!("{response:?} of {container}"), TIMEOUT, || {
                    let output = Command::new("docker").args(probe).args(args).output();
                    let output = output.unwrap();
                    let printed = [output.stdout, output.stderr].concat();
                    printed.starts_with(response.as_bytes()).then_some(())
                });
            });
        }
    });
    start.elapsed()
}

/// examples/deploy/stack.yaml with an override file of the test. Removed when dropped.
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
            // Without a registry, Swarm cannot resolve the image's digest.
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

    /// Returns a field of every task that Swarm remembers.
    fn tasks(&self, format: &str) -> Vec<String> {
        self.ps(&["--format", format])
    }

    /// Returns the tasks that should run and are running. Swarm reports a task as running only when
    /// it is healthy.
    fn running(&self) -> Vec<String> {
        let format = "{{.CurrentState}}\t{{.ID}}\t{{.Image}}";
        let tasks = self.ps(&["--filter=desired-state=running", "--format", format]);
        let running = tasks.iter().filter_map(|task| {
            let (state, task) = task.split_once('\t')?;
            state.starts_with("Running").then(|| task.to_owned())
        });
        running.collect()
    }

    /// Returns the containers of the tasks that should run.
    fn containers(&self) -> Vec<String> {
        let tasks = self.ps(&["--filter=desired-state=running", "--format={{.ID}}"]);
        let format = "--format={{.Status.ContainerStatus.ContainerID}}";
        let container = |task: &String| docker(["inspect", format, task]);
        tasks.iter().map(container).collect()
    }

    /// Returns the replicas that have ever run this image.
    fn replicas_of(&self, image: &Image) -> BTreeSet<String> {
        let tasks = self.tasks("{{.Name}}\t{{.Image}}");
        let replica = |task: &String| {
            let (replica, tag) = task.split_once('\t')?;
            // `docker service ps` prints older tasks as branches below the newest one.
            let replica = replica.trim_start_matches("\\_ ").to_owned();
            (tag == image.tag).then_some(replica)
        };
        tasks.iter().filter_map(replica).collect()
    }

    /// Returns the number of tasks that failed or became unhealthy. The engine stops an unhealthy
    /// task, which drains and exits with 0, so Swarm reports it as complete.
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

    /// Waits until all replicas run this image, and no task runs another image.
    fn runs(&self, image: &Image) {
        eventually("all replicas run", 2 * TIMEOUT, || {
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
        eventually(&format!("update {how}"), 4 * TIMEOUT, || {
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
        // `docker stack rm` does not wait for the tasks. Removing an image that is in use would
        // only untag it.
        let tasks = format!("--filter=label=com.docker.stack.namespace={}", self.name);
        let start = Instant::now();
        while start.elapsed() < TIMEOUT
            && Command::new("docker")
                .args(["ps", "--all", "--quiet", &tasks])
                .output()
                .is_ok_and(|left| !left.stdout.is_empty())
        {
            thread::sleep(Duration::from_millis(100));
        }
        let _ = fs::remove_file(&self.override_file);
    }
}

/// HAProxy with proxies/haproxy-swarm.cfg, on the stack's network and on a network that this
/// machine can reach.
struct Proxy {
    address: SocketAddr,
    _container: Container,
    _network: Network,
}

impl Proxy {
    fn new(stack: &Stack) -> Self {
        let network = Network::create();
        let config = config("proxies/haproxy-swarm.cfg");
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
        eventually("the proxy responds", TIMEOUT, || {
            (get(proxy.address, "/").0 == 200).then_some(())
        });
        proxy
    }
}

/// Keeps the machine in a Swarm. The first guard creates a Swarm unless the machine is in one. The
/// last guard leaves the Swarm if a guard created it.
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
