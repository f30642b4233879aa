//! Situations in which a probe could get a response from another service, under a Docker Engine.
//!
//! Each row of the table in `situations.rs` is a name, a script, and what the script's probes
//! print. The rows are independent of each other. At the end the test prints the results as a
//! table.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test identity -- --nocapture`
//!
//! The environment variable `SITUATION` selects the rows whose name contains its value.

use std::{
    env::{self, consts::ARCH},
    fs,
    path::PathBuf,
    process::{Command, id},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lifesign_e2e::{
    docker, engine, output, remove,
    support::{scratch, target},
};

mod situations;

use situations::{SITUATIONS, Situation};

/// Number of rows that run at the same time.
const AT_ONCE: usize = 4;

/// The Dockerfile of the services. The scripts need the shell, `su` and `killall` of its base.
const DOCKERFILE: &str = r"
FROM alpine:3.23
COPY api vpn /bin/
# Starts the service again when the file /go exists.
COPY --chmod=755 <<END /bin/supervise
#!/bin/sh
while :; do
    api
    until rm /go; do sleep 0.1; done 2>/dev/null
done
END
";

/// Shell functions that the scripts call. They run on this machine.
///
/// In a script, `@name` stands for the name of a container or volume of its row.
const FUNCTIONS: &str = r#"
set -eu

# run NAME [OPTION…] -- COMMAND…: starts a container.
run() {
    name=$1
    shift
    for argument; do
        shift
        if [ "$argument" = -- ]; then argument=$IMAGE; fi
        set -- "$@" "$argument"
    done
    docker run --detach --label="$LABEL" --name="$name" "$@" >"$SCRATCH"
}

# eventually COMMAND…: waits until a command succeeds.
eventually() {
    for _ in $(seq 150); do
        if "$@" >"$SCRATCH" 2>&1; then return; fi
        sleep 0.1
    done
    echo "not within 15 s: $*: $(cat "$SCRATCH")"
    exit 1
}

# up NAME [COUNT]: waits until a container has logged COUNT starts of services, by default 1.
up() { eventually has_started "$1" "${2:-1}"; }
has_started() {
    docker logs "$1" 2>&1
    [ "$(docker logs "$1" 2>&1 | grep -c 'listening on')" -ge "$2" ]
}

# logs NAME TEXT: whether a container has logged a text.
logs() { docker logs "$1" 2>&1 | grep -q "$2"; }

# port NAME: the port of the service in a container, chosen by the system.
port() { docker logs "$1" 2>&1 | sed -n 's/^listening on .*://p'; }

# probe [OPTION…] NAME COMMAND…: executes a probe, and prints its exit code and line.
probe() {
    code=0
    line=$(docker exec "$@" 2>&1) || code=$?
    echo "$code $line"
}

# engine NAME HEALTH: waits until the engine reports this health, and prints the first entry of its
# log.
engine() {
    eventually is "$1" "$2"
    docker inspect --format='{{$log := .State.Health.Log}}{{with index $log 0}}{{.ExitCode}} {{.Output}}{{end}}' "$1"
}
is() { [ "$(docker inspect --format='{{.State.Health.Status}}' "$1")" = "$2" ]; }

# kill_api NAME: kills api in a container in which it is not PID 1.
kill_api() {
    docker exec "$1" killall -9 api
    eventually is_gone "$1"
}
is_single() { [ "$(docker exec "$1" pidof api | wc -w)" = 1 ]; }
is_gone() { ! docker exec "$1" pidof api; }

# as_volume NAME: creates a volume that contains api.
as_volume() {
    docker volume create --label="$LABEL" "$1" >"$SCRATCH"
    docker run --rm --volume="$1:/volume" "$IMAGE" cp /bin/api /volume/
}
"#;

#[test]
fn every_situation_has_the_expected_verdict() {
    let image = Image::build();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let filter = env::var("SITUATION").unwrap_or_default();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(situation) = SITUATIONS.get(number) else {
                        break;
                    };
                    if situation.name.contains(&filter) {
                        let verdicts = image.act(number, situation);
                        results.lock().expect("no panic").push((number, verdicts));
                    }
                }
            });
        }
    });

    let mut results = results.into_inner().expect("no panic");
    assert!(
        !results.is_empty(),
        "no situation has {filter:?} in its name"
    );
    results.sort();
    let mut wrong = Vec::new();
    println!("| situation | exit code | line |\n|---|---|---|");
    for (number, verdicts) in results {
        let Situation { name, expected, .. } = &SITUATIONS[number];
        for line in &verdicts {
            let (code, line) = line.split_once(' ').unwrap_or(("", line));
            // The line can contain backticks, so double backticks enclose it.
            println!("| {name} | {code} | `` {line} `` |");
        }
        let lines: Vec<_> = expected
            .iter()
            .map(|(code, line)| format!("{code} {line}"))
            .collect();
        if verdicts != lines {
            wrong.push(format!("{name}:\n  {verdicts:?}\n  expected {lines:?}"));
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} wrong:\n{}", wrong.join("\n"));
}

/// The image of all containers, removed when it is dropped.
struct Image {
    tag: String,
}

impl Image {
    fn build() -> Self {
        let image = Self {
            tag: format!("lifesign-identity:{}", id()),
        };
        let context = scratch().join(image.tag.replace(':', "-"));
        fs::create_dir_all(&context).expect("a directory");
        for service in ["api", "vpn"] {
            fs::copy(programs().join(service), context.join(service)).expect("a program");
        }
        fs::write(context.join("Dockerfile"), DOCKERFILE).expect("own directory");
        let path = context.to_str().expect("UTF-8");
        docker(["build", "--quiet", "--tag", &image.tag, path]);
        fs::remove_dir_all(context).expect("own directory");
        image
    }

    /// Runs a script, and returns what its probes printed.
    fn act(&self, number: usize, situation: &Situation) -> Vec<String> {
        let prefix = format!("lifesign-identity-{}-{number}", id());
        let label = format!("lifesign-identity={prefix}");
        let _cleanup = Cleanup(&label);
        let script = situation.script.replace('@', &format!("{prefix}-"));
        let podman = if script.contains("$PODMAN") {
            engine::podman()
        } else {
            ""
        };
        let output = Command::new("sh")
            .args(["-c", &format!("{FUNCTIONS}\n{script}")])
            .env("LABEL", &label)
            .env("IMAGE", &self.tag)
            .env("PODMAN", podman)
            .env("SCRATCH", scratch().join(prefix))
            .output()
            .expect("a shell");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            // The output in Docker's health log ends with a line feed, so an empty line follows it.
            .filter(|line| !line.is_empty())
            .map(|line| without_request(&without_time(line)))
            .collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.tag]);
    }
}

/// Removes the containers and volumes that have a row's label, when dropped.
struct Cleanup<'a>(&'a str);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let script = r#"
            docker ps --all --quiet --filter=label="$0" | xargs --no-run-if-empty docker rm --force --volumes
            docker volume ls --quiet --filter=label="$0" | xargs --no-run-if-empty docker volume rm"#;
        let _ = Command::new("sh").args(["-c", script, self.0]).output();
    }
}

/// Compiles the services as static binaries, and returns their directory.
fn programs() -> PathBuf {
    let triple = format!("{ARCH}-unknown-linux-musl");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--bin=api", "--bin=vpn"])
        .args(["--config=profile.dev.debug=false", "--target", &triple])
        .args(["--manifest-path", manifest, "--target-dir"])
        .arg(target());
    output(&mut cargo);
    target().join(triple).join("debug")
}

/// Removes the elapsed time from `healthy: pass in 0.4 ms`.
fn without_time(line: &str) -> String {
    match line.split_once(" in ") {
        Some((verdict, rest)) if verdict.ends_with("pass") || verdict.ends_with("warn") => {
            let rest = rest.split_once(" ms").map_or("", |(_, rest)| rest);
            format!("{verdict}{rest}")
        }
        _ => line.to_owned(),
    }
}

/// Removes the request from `unhealthy: 503 fail (GET http://127.0.0.1:8080/health)`, because in
/// some situations the kernel chooses the port.
fn without_request(line: &str) -> String {
    let Some((before, rest)) = line.split_once(" (GET ") else {
        return line.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}
