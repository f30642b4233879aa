//! How the probe finds its service: the advertisement in `/dev/shm`, mount namespaces and users.
#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    client::get,
    container::{Container, LONG_DRAIN, Running, assert_healthy, assert_unhealthy, is_healthy},
    forgery::Forger,
    linux::{AS_OTHER_USER, skipped},
    process::{AT_ONCE, Process, TIMEOUT, eventually},
    redis::Redis,
    support::{example, run},
};

#[test]
fn the_probe_finds_a_port_chosen_by_the_system() {
    let container = Container::new();
    for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"] {
        if host.contains(':') && TcpListener::bind("[::1]:0").is_err() {
            skipped("there is no IPv6 here");
            continue;
        }
        let service = container.service(&[("HOST", host)]);

        for arguments in [&[][..], &["--ready"], &["--live"], &["/health/live"]] {
            let outcome = service.healthcheck(arguments);
            assert!(
                is_healthy(&outcome, "pass"),
                "{host} {arguments:?}: {outcome:?}"
            );
        }
        let outcome = service.healthcheck(&["--json"]);
        let advertised = r#","source":"advertised","code":200,"status":"pass","#;
        assert!(outcome.stdout.contains(advertised), "{host}: {outcome:?}");
        let outcome = service.healthcheck(&["/nowhere"]);
        assert_unhealthy(&outcome, "404: no such path");
        // The probe also recognizes the service by a route of the service's own router.
        let outcome = service.healthcheck(&["/"]);
        assert!(is_healthy(&outcome, "200"), "{outcome:?}");
        let agent = ["/", "--header=User-Agent: monitor/1"];
        let outcome = service.healthcheck(&agent);
        assert!(is_healthy(&outcome, "200"), "{outcome:?}");
    }
}

/// The test replaces the time for the checks in the advertisement by that of a service with slow
/// checks.
#[test]
fn the_timeout_of_the_probe_is_longer_than_that_of_the_checks() {
    let container = Container::new();
    let service = container.service(&[]);
    let page = include_str!("../../docs/troubleshooting.md");
    let line = "--timeout 500ms: expected more than 900ms, which the service's checks may take";
    assert_unhealthy(&service.healthcheck(&["--timeout", "500ms"]), line);
    assert!(page.contains(&format!("### `unhealthy: {line}`")));

    let path = container.advertisements().pop().expect("a file");
    let text = fs::read_to_string(&path).expect("text");
    // The file is overwritten in place, so it keeps the service's lock.
    fs::write(&path, text.replace("\n900\n", "\n2500\n")).expect("a file of this user");

    let refused = "--timeout 2.5s: expected more than 2.5s, which the service's checks may take";
    for path in [&[][..], &["--ready"], &["/health"], &["/health/ready"]] {
        let arguments = [path, &["--timeout", "2500ms"]].concat();
        assert_unhealthy(&service.healthcheck(&arguments), refused);
    }
    let longer = &["--timeout", "2501ms"][..];
    let live = &["--live", "--timeout", "1s"];
    for allowed in [longer, live, &["/health/live", "--timeout", "1s"]] {
        assert_healthy(&service.healthcheck(allowed), "pass");
    }
    // The path of a route of the service is not known to run checks, but it can.
    service.signal("STOP");
    for (path, timeout) in [(&[][..], "3.5s"), (&["/"], "3.5s"), (&["--live"], "3s")] {
        let outcome = service.healthcheck(path);
        assert_unhealthy(&outcome, &format!("no response within {timeout}"));
    }
    service.signal("CONT");
}

#[test]
fn the_commands_printed_at_start_work() {
    let container = Container::new();
    let service = container.service(&[]);
    let stdout = service.stdout.text();
    let mut lines = stdout.lines().skip(1);
    let url = lines.next().and_then(|line| line.split("http://").nth(1));
    let (address, path) = url.and_then(|url| url.split_once('/')).expect("an URL");

    let address = address.replace("localhost", "127.0.0.1");
    let response = get(address.parse().expect("an address"), &format!("/{path}"));
    let mut typed = container.command(&["sh", "-c"], lines.next().expect("a third line"));

    assert_eq!(response.expect("a response").code, 200);
    assert_healthy(&run(&mut typed), "pass");
}

#[test]
fn an_advertisement_takes_precedence_over_port() {
    let container = Container::new();
    let service = container.service(&[]);
    let closed = Redis::refusing();
    let (_, closed_port) = closed.address.rsplit_once(':').expect("a port");

    for port in ["0", closed_port] {
        let outcome = run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", port));
        assert_healthy(&outcome, "pass");
    }
    drop(service);
}

/// A service's library can call `build_info!` too, and the library's name can differ from the
/// binary's.
#[test]
fn a_service_of_another_name_is_found_by_its_executable() {
    let container = Container::new();
    let service = container.service(&[]);
    let renamed = |name: &str| {
        let (namespace, id) = (container.namespace(), service.id());
        container
            .shm()
            .join(format!("lifesign.{namespace}.{name}.{id}"))
    };
    fs::rename(renamed("service"), renamed("library")).expect("a rename");

    assert_healthy(&service.healthcheck(&[]), "pass");
    let outcome = run(container
        .example("worker")
        .arg("healthcheck")
        .env("PORT", "1"));
    assert_unhealthy(
        &outcome,
        &format!(
            "\"worker\" advertises no address in this container (only \"library\" does): {NOT_RUNNING}"
        ),
    );
}

#[test]
fn advertisement_is_named_after_namespace_service_and_pid() {
    let container = Container::new();
    let service = container.service(&[("HOST", "0.0.0.0")]);
    let worker = container.worker();

    let expected = [("0.0.0.0", &service), ("127.0.0.1", &worker)].map(|(host, running)| {
        let (namespace, name, id) = (container.namespace(), running.name, running.id());
        let port = running.address.port();
        let instance = instance(running);
        (
            container
                .shm()
                .join(format!("lifesign.{namespace}.{name}.{id}")),
            0o100_644,
            format!("lifesign 1\nhttp://{host}:{port}\n/health\n/health/ready\n/health/live\n900\n{instance}\n"),
        )
    });
    let found: Vec<_> = container
        .advertisements()
        .into_iter()
        .map(|path| {
            let mode = fs::metadata(&path).expect("a file").mode();
            let text = fs::read_to_string(&path).expect("text");
            (path, mode, text)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn advertisement_is_readable_by_all_whatever_the_umask() {
    let container = Container::new();
    let mut command = container.command(
        &["sh", "-c", "umask 077; exec \"$0\""],
        example("service").as_os_str(),
    );
    let service = container.start("service", &mut command);

    let modes: Vec<u32> = container
        .advertisements()
        .iter()
        .map(|path| fs::metadata(path).expect("a file").mode() & 0o777)
        .collect();

    assert_eq!(modes, [0o644]);
    drop(service);
}

#[test]
fn advertisement_is_removed_on_a_clean_exit() {
    let container = Container::new();
    for name in ["service", "worker"] {
        let mut command = container.example(name);
        let running = container.start(name, command.env("DRAIN_SECONDS", "0"));
        assert_eq!(container.advertisements().len(), 1, "{name}");

        running.signal("TERM");
        let outcome = running.finish(TIMEOUT);

        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.stderr);
        assert_eq!(container.advertisements(), [] as [PathBuf; 0], "{name}");
    }
}

#[test]
fn a_restarted_service_is_found_on_its_new_port() {
    let container = Container::new();
    for _ in 0..3 {
        let service = container.service(&[]);

        assert_healthy(&service.healthcheck(&[]), "pass");
        let left = container.advertisements();
        assert_eq!(left.len(), 1, "the dead ones are swept away: {left:?}");
        service.signal("KILL");
        service.finish(TIMEOUT);
    }
}

/// A service that is killed while it writes its draft leaves the draft behind.
#[test]
fn drafts_of_earlier_services_are_removed() {
    let container = Container::new();
    let draft = |id: &str, age: u64| {
        let name = format!(".lifesign.{}.service.{id}", container.namespace());
        let path = container.shm().join(name);
        let file = File::create(&path).expect("/dev/shm is writable");
        let written = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(written).expect("own file");
        (path, file)
    };
    let (old, _) = draft("7", 11);
    // Another service may be about to lock this draft.
    let (young, _) = draft("8", 0);
    let (locked, lock) = draft("9", 11);
    lock.lock().expect("nobody else's lock");

    let service = container.service(&[]);

    assert!(!old.exists());
    assert!(young.exists() && locked.exists());
    drop((service, fs::remove_file(young), fs::remove_file(locked)));
}

#[test]
fn a_service_that_gets_no_lock_leaves_nothing_behind() {
    let container = Container::new();
    let strace = [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "inject=flock:error=EPERM",
    ];
    if run(container.command(&strace, "true").arg("")).code != Some(0) {
        return skipped("strace cannot inject errors here");
    }
    let mut command = container.command(&strace, example("service"));
    let service = container.start("service", &mut command);

    let log = service.stderr.text();
    assert!(
        log.contains("the endpoint could not be advertised"),
        "{log}"
    );
    assert_eq!(container.advertisements(), [] as [PathBuf; 0]);
    drop(service);
}

#[test]
fn advertisement_of_a_killed_service_is_not_believed() {
    let container = Container::new();
    let worker = container.worker();
    let dead = container.service(&[("HOST", "127.0.0.1")]);
    let address = dead.address;
    dead.signal("KILL");
    dead.finish(TIMEOUT);
    assert_eq!(
        container.advertisements().len(),
        2,
        "the advertisement of the killed service was removed"
    );
    let impostor = Impostor::at(address);

    let port = address.port().to_string();
    let outcome = run(container
        .example("service")
        .arg("healthcheck")
        .env("PORT", port));

    assert_unhealthy(&outcome, ONLY_THE_WORKER);
    drop(worker);
    assert!(impostor.was_left_alone());
}

#[test]
fn a_guess_is_named_with_its_reason() {
    let Some(container) = Container::with("mount -t tmpfs tmpfs /dev", &["--net"]) else {
        return;
    };
    let probe = |port: &str| {
        run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", port))
    };
    let why = "there is no /dev/shm";

    // In a new network namespace the loopback interface is down.
    let unreachable = "network is unreachable";
    assert_unhealthy(
        &probe(""),
        &format!(
            "connect to 127.0.0.1:8080: {unreachable} (guessed, set PORT or LIFESIGN_URL: {why})"
        ),
    );
    assert_unhealthy(
        &probe("81"),
        &format!("connect to 127.0.0.1:81: {unreachable} (guessed from PORT: {why})"),
    );
    assert_unhealthy(&probe("0"), "PORT: expected a port from 1 to 65535");
}

#[test]
fn forged_advertisements_are_ignored_and_nothing_hangs() {
    let container = Container::new();
    let impostor = Impostor::new();
    let worker = container.worker();
    let forger = Forger::new(&container, impostor.address);

    let forgeries = forger.forge_all();
    // At first there are only forged files. Then there is also a real advertisement, which is newer
    // than the first forged files and older than the second ones.
    let outcome = run(container
        .example("service")
        .arg("healthcheck")
        .env("PORT", worker.address.port().to_string()));
    assert_unhealthy(&outcome, ONLY_THE_WORKER);
    assert!(outcome.took < AT_ONCE, "{outcome:?}");
    let service = container.service(&[]);
    assert_healthy(&service.healthcheck(&[]), "pass");
    drop(forgeries);
    let forgeries = forger.forge_all();
    let outcome = service.healthcheck(&[]);
    assert_healthy(&outcome, "pass");
    assert!(outcome.took < AT_ONCE, "{outcome:?}");

    assert!(impostor.was_left_alone());
    drop(forgeries);
}

#[test]
fn forged_advertisements_would_be_believed_without_their_flaw() {
    let container = Container::new();
    let impostor = Impostor::new();
    let forger = Forger::new(&container, impostor.address);
    let forgery = forger.forge("1", &forger.text);

    let outcome =
        run(container
            .example("service")
            .args(["healthcheck", "--live", "--timeout", "100ms"]));

    assert_unhealthy(&outcome, "no response within 100ms");
    assert!(!impostor.was_left_alone());
    drop(forgery);
}

/// The kernel reports the dynamic loader as the executable of each program that is started through
/// it. It does so for an emulator, too.
#[test]
fn programs_of_one_loader_are_distinguished() {
    let loader = "/lib64/ld-linux-x86-64.so.2";
    if !Path::new(loader).exists() {
        return skipped("there is no such loader here");
    }
    let container = Container::new();
    let mut command = container.command(&[loader], example("worker"));
    let worker = container.start("worker", command.env("HEALTH_ADDRESS", "127.0.0.1:0"));
    let probe = |name| {
        run(container
            .command(&[loader], example(name))
            .arg("healthcheck"))
    };

    assert_unhealthy(&probe("service"), ONLY_THE_WORKER);
    assert_healthy(&probe("worker"), "pass");
    drop(worker);
}

/// In another network namespace, the advertised address can belong to another service.
#[test]
fn another_service_at_the_advertised_address_is_not_believed() {
    let container = Container::new();
    let worker = container.worker();
    let forger = Forger::new(&container, worker.address);
    let forgery = forger.forge("1", &forger.text);

    let outcome = run(container.example("service").arg("healthcheck"));

    assert_unhealthy(&outcome, "not \"service\": \"worker\" responded with 200");
    drop((worker, forgery));
}

#[test]
fn a_name_taken_by_another_user_does_not_stop_advertising() {
    let Some(container) = Container::with("", &[]) else {
        return;
    };
    // `exec` keeps the PID of the shell, so the shell can compute the name of the service's
    // advertisement before the service starts.
    let script = "ns=$(readlink /proc/self/ns/mnt | tr -dc 0-9)
        for name in lifesign .lifesign; do
            echo taken >/dev/shm/$name.$ns.service.$$ && chown 6666 /dev/shm/$name.$ns.service.$$
        done && exec \"$@\"";
    let wrapper = [&["sh", "-c", script, "sh"][..], &AS_OTHER_USER].concat();
    let program = example("service");
    if run(container
        .command(&AS_OTHER_USER, "test")
        .arg("-x")
        .arg(&program))
    .code
        != Some(0)
    {
        return skipped("another user may not execute the examples here");
    }
    let service = container.start("service", &mut container.command(&wrapper, &program));

    let outcome = container.healthcheck_as(&AS_OTHER_USER);

    assert!(is_healthy(&outcome, "pass"), "{outcome:?}");
    drop(service);
}

#[test]
fn a_full_directory_does_not_delay_the_probe() {
    // A tmpfs lists the newest files first, so the probe sees the other files before the
    // advertisement.
    for (count, suffix, found) in [
        (9_000, "", true),
        (9_000, ".x", true),
        (10_001, ".x", false),
    ] {
        let container = Container::new();
        let service = container.service(&[]);
        let [path] = &container.advertisements()[..] else {
            panic!("expected one advertisement");
        };
        let path = path.to_str().expect("text");
        let files: Vec<_> = (100_000..100_000 + count)
            .map(|number| format!("{path}{number}{suffix}"))
            .collect();
        for file in &files {
            File::create(file).expect("a file");
        }

        let outcome = run(container
            .example("service")
            .arg("healthcheck")
            .env("PORT", "1"));

        // A user who fills the directory can hide an advertisement, but cannot delay the probe.
        if found {
            assert!(is_healthy(&outcome, "pass"), "{outcome:?}");
        } else {
            assert_eq!(outcome.code, Some(1));
            assert!(
                outcome.stderr.contains("more than 10000 entries"),
                "{outcome:?}"
            );
        }
        drop(service);
    }
}

#[test]
fn own_advertisements_take_precedence_over_other_users() {
    let Some(container) = Container::with("", &[]) else {
        return;
    };
    let impostor = Impostor::new();
    let forger = Forger::new(&container, impostor.address);
    for (service_user, probe_user, forger_id) in [
        (&[][..], &[][..], 6666),
        (&AS_OTHER_USER[..], &AS_OTHER_USER[..], 6666),
        (&AS_OTHER_USER[..], &AS_OTHER_USER[..], 0),
    ] {
        let Some(service) = container.service_as(service_user) else {
            return;
        };
        let forgery = forger.forge("1", &forger.text);
        chown(&forgery.path, Some(forger_id), Some(forger_id)).expect("root may");

        let outcome = container.healthcheck_as(probe_user);

        assert!(is_healthy(&outcome, "pass"), "{forger_id}: {outcome:?}");
        assert!(impostor.was_left_alone(), "{forger_id}");
        drop((service, forgery));
    }
}

#[test]
fn probe_of_another_user_finds_the_service() {
    let Some(container) = Container::with("", &[]) else {
        return;
    };
    for (service_user, probe_user) in [
        (&[][..], &AS_OTHER_USER[..]),
        (&AS_OTHER_USER[..], &[][..]),
        (&AS_OTHER_USER[..], &AS_OTHER_USER[..]),
    ] {
        let Some(service) = container.service_as(service_user) else {
            return;
        };

        let outcome = container.healthcheck_as(probe_user);

        let users = format!("{service_user:?} {probe_user:?}");
        assert!(is_healthy(&outcome, "pass"), "{users}: {outcome:?}");
        drop(service);
    }
}

#[test]
fn services_in_one_container_are_distinguished() {
    let container = Container::new();
    let service = container.service(&[LONG_DRAIN]);
    let worker = container.worker();

    service.signal("TERM");
    service.drains();

    assert_unhealthy(&service.healthcheck(&[]), "503 fail: draining");
    assert_healthy(&worker.healthcheck(&[]), "pass");
}

#[test]
fn the_younger_of_two_processes_is_probed() {
    let container = Container::new();
    let old = container.service(&[LONG_DRAIN]);
    old.signal("TERM");
    old.drains();
    assert_unhealthy(&old.healthcheck(&[]), "503 fail: draining");

    let young = container.service(&[]);
    assert_healthy(&young.healthcheck(&[]), "pass");
    drop(young);

    assert_unhealthy(&old.healthcheck(&[]), "503 fail: draining");
}

#[test]
fn pid_1_is_probed_before_other_processes() {
    let Some(host) = Container::with("", &[]) else {
        return;
    };
    let (first, inside) = host.process_one(&[LONG_DRAIN]);
    let second = inside.service(&[]);
    run(&mut inside.command(&["sh", "-c"], "kill -TERM 1"));
    first.drains();

    assert_unhealthy(&second.healthcheck(&[]), "503 fail: draining");
    assert_eq!(second.get("/health").verdict(), "200 pass");
}

#[test]
fn containers_that_share_dev_shm_each_find_their_own() {
    let Some(pod) = Container::with("", &[]) else {
        return;
    };
    // Both services are PID 1 of their own PID namespace, and share one `/dev/shm`.
    let (one, inside_one) = pod.process_one(&[LONG_DRAIN]);
    let (two, inside_two) = pod.process_one(&[LONG_DRAIN]);
    assert_eq!(fs::read_dir(pod.shm()).expect("/dev/shm").count(), 2);
    run(&mut inside_one.command(&["sh", "-c"], "kill -TERM 1"));
    one.drains();

    assert_unhealthy(&inside_one.healthcheck_as(&[]), "503 fail: draining");
    assert_healthy(&inside_two.healthcheck_as(&[]), "pass");
    // The third container has no service, so its probe must ignore the files of the other two.
    let outcome = run(pod.example("service").arg("healthcheck").env("PORT", "0"));
    assert_unhealthy(
        &outcome,
        &format!("\"service\" advertises no address in this container: {NOT_RUNNING}"),
    );
    drop(two);
}

#[test]
fn sigterm_ends_a_service_that_is_pid_1() {
    let Some(host) = Container::with("", &[]) else {
        return;
    };
    let (service, inside) = host.process_one(&[("DRAIN_SECONDS", "0")]);

    // The shell's exit code is ignored, because the kernel kills the shell when PID 1 exits.
    run(&mut inside.command(&["sh", "-c"], "kill -TERM 1"));
    let outcome = service.finish(TIMEOUT);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn read_only_root_filesystem_is_enough() {
    let Some(container) = Container::with("mount -o remount,ro,bind /", &[]) else {
        return;
    };
    let writable = run(&mut container.command(&["test", "-w"], "/"));
    assert_eq!(writable.code, Some(1), "the root filesystem is read-only");
    let service = container.service(&[]);

    assert_healthy(&service.healthcheck(&[]), "pass");
}

#[test]
fn a_read_only_dev_shm_only_disables_discovery() {
    let Some(container) = Container::with("mount -t tmpfs -o ro tmpfs /dev/shm", &[]) else {
        return;
    };
    let service = container.service(&[]);

    let outcome = run(container
        .example("service")
        .arg("healthcheck")
        .env("PORT", service.address.port().to_string()));

    let guess = " (guessed from PORT: /dev/shm is read-only)\n";
    assert!(
        outcome.stdout.starts_with("healthy: pass in ") && outcome.stdout.ends_with(guess),
        "{outcome:?}"
    );
    let log = service.stderr.text();
    let warnings: Vec<_> = log.lines().filter(|l| l.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("the endpoint could not be advertised")
            && warnings[0].contains("/dev/shm"),
        "{log}"
    );
}

#[test]
fn an_ipv6_only_wildcard_is_found() {
    let only_v6 = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/bindv6only";
    let Some(container) = Container::with(only_v6, &["--net"]) else {
        return;
    };
    let mut command = container.example("service");
    let process = Process::spawn(command.env("HOST", "::").env("PORT", "0"));

    let probe = || run(container.example("service").arg("healthcheck"));
    let outcome = eventually("the service is healthy", TIMEOUT, || {
        Some(probe()).filter(|outcome| outcome.code == Some(0))
    });

    assert_healthy(&outcome, "pass");
    drop(process);
}

/// With `bindv6only`, the same port on IPv4 can belong to another service.
#[test]
fn an_ipv6_wildcard_is_asked_over_ipv6_first() {
    let only_v6 = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/bindv6only";
    let Some(container) = Container::with(only_v6, &["--net"]) else {
        return;
    };
    let mut command = container.example("service");
    let service =
        Process::spawn(command.envs([("HOST", "::"), ("PORT", "0"), ("REDIS", "127.0.0.1:1")]));
    let port = eventually("the service listens", TIMEOUT, || {
        let text = service.stdout.text();
        let address = text.lines().next()?.strip_prefix("listening on ")?;
        Some(address.parse::<SocketAddr>().ok()?.port())
    });
    let mut command = container.example("worker");
    let worker = Process::spawn(command.env("HEALTH_ADDRESS", format!("127.0.0.1:{port}")));
    eventually("the worker is healthy", TIMEOUT, || {
        let outcome = run(container.example("worker").arg("healthcheck"));
        is_healthy(&outcome, "pass").then_some(())
    });

    let outcome = run(container.example("service").arg("healthcheck"));

    assert_unhealthy(&outcome, "503 fail: starting: waiting for store");
    drop((service, worker));
}

#[test]
fn readme_program_is_found_and_ends() {
    let Some(container) = Container::with("ip link set lo up", &["--net"]) else {
        return;
    };
    let process = Process::spawn(&mut container.example("hello"));
    let probe = || run(container.example("hello").arg("healthcheck"));

    let outcome = eventually("hello is healthy", TIMEOUT, || {
        Some(probe()).filter(|outcome| outcome.code == Some(0))
    });
    assert_healthy(&outcome, "pass");
    // Without the advertisement, the probe would connect to the port in `PORT`.
    let outcome = run(container
        .example("hello")
        .arg("healthcheck")
        .env("PORT", "81"));
    assert_healthy(&outcome, "pass");
    process.signal("TERM");
    eventually("hello drains", AT_ONCE, || {
        (probe()
            .stderr
            .starts_with("unhealthy: 503 fail: draining ("))
        .then_some(())
    });
    process.signal_again("TERM");
    let outcome = process.finish(AT_ONCE);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn probe_runs_inside_tight_limits() {
    let container = Container::new();
    let service = container.service(&[]);
    // The limits are 64 KiB of stack, 64 MiB of address space and 8 open files.
    let limits = "ulimit -s 64 && ulimit -v 65536 && ulimit -n 8 && exec \"$@\"";

    let outcome = run(container
        .command(&["sh", "-c", limits, "sh"], example("service"))
        .arg("healthcheck"));

    assert_healthy(&outcome, "pass");
    drop(service);
}

#[test]
fn probe_is_one_process_and_one_thread() {
    let Some(container) = Container::with("", &[]) else {
        return;
    };
    let Some(service) = container.service_as(&[]) else {
        return;
    };
    let mut alone = AS_OTHER_USER.to_vec();
    alone.extend(["prlimit", "--nproc=1", "--"]);
    // A second process fails, which proves that the limit is in effect.
    let two = run(container
        .command(&alone, "sh")
        .args(["-c", "true & wait $!"]));
    assert_ne!(two.code, Some(0), "{two:?}");

    let outcome = container.healthcheck_as(&alone);

    assert_healthy(&outcome, "pass");
    drop(service);
}

/// The reason that the probe prints if there is no advertisement.
const NOT_RUNNING: &str = "the service has not started or has ended, cannot write to /dev/shm, or does not call serve, listen or advertise";

const ONLY_THE_WORKER: &str = "\"service\" advertises no address in this container (only \"worker\" \
     does): the service has not started or has ended, cannot write to /dev/shm, or does not call serve, listen or advertise";

/// Returns the value of `Lifesign-Instance` in a service's responses.
fn instance(service: &Running<'_>) -> String {
    let response = service.get("/health");
    response.header("lifesign-instance").to_owned()
}

/// A listener that no probe should connect to.
struct Impostor {
    listener: TcpListener,
    address: SocketAddr,
}

impl Impostor {
    fn new() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("its address");
        Self { listener, address }
    }

    fn was_left_alone(&self) -> bool {
        let accepted = self.listener.accept();
        accepted.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
