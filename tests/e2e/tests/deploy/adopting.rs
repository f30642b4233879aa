//! The steps of `docs/adopting.md`, applied to the service in `tests/e2e/fixtures/orders`, with a
//! real PostgreSQL.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use lifesign_e2e::{
    REPOSITORY,
    engine::{Container, Network, TIMEOUT, docker, eventually, get, output, tools},
    support::{self, scratch},
};

const PAGE: &str = include_str!("../../../../docs/adopting.md");

#[test]
fn the_page_turns_a_usual_service_into_one_with_probes() {
    let before = build("before", |_, main| main);
    let after = build("after", adopt);

    let network = Network::create();
    let on_network = format!("--network={}", network.name);
    let options = [&on_network, "--env=POSTGRES_PASSWORD=secret"];
    let database = Container::run(tools(), &options, &[]);
    let url = format!(
        "postgres://postgres:secret@{}/postgres",
        database.address(5432)
    );
    eventually("the migration succeeds", TIMEOUT, || {
        let mut migrate = Command::new(&before);
        let status = migrate.arg("migrate").env("DATABASE_URL", &url).output();
        status.unwrap().status.success().then_some(())
    });

    let mut old = Service::start(&before, &url);
    assert_eq!(get(old.address, "/health").0, 200);
    let refused = old.run("healthcheck");
    assert_eq!(refused.status.code(), Some(2));
    let error = "error: unrecognized subcommand 'healthcheck'";
    assert!(line(&refused).contains(error), "{}", line(&refused));
    let troubleshooting = include_str!("../../../../docs/troubleshooting.md");
    assert!(troubleshooting.contains(&format!("### `{error}`\n")));

    let mut new = Service::start(&after, &url);
    eventually("the service is healthy", TIMEOUT, || {
        line(&new.run("healthcheck"))
            .starts_with("healthy: pass in ")
            .then_some(())
    });
    for path in ["/orders", "/admin/orders"] {
        assert_eq!(get(new.address, path), (200, "0 orders\n".to_owned()));
    }
    assert_eq!(new.run("healthcheck --bogus").status.code(), Some(1));
    assert_eq!(new.run("--bogus").status.code(), Some(2));
    for command in ["healthcheck --ready", "version"] {
        let late = new.run(&format!("--verbose {command}"));
        assert_eq!(late.status.code(), Some(1));
        assert!(line(&late).contains("this command must be the first argument"));
    }
    let help = line(&new.run("help healthcheck"));
    assert!(help.contains("Probe the running service"), "{help}");
    for list in ["--help", "help"] {
        let text = line(&new.run(list));
        for command in [
            "healthcheck  Probe the running service",
            "version      Print version, commit and build date",
        ] {
            assert!(text.contains(command), "{text}");
        }
    }
    assert_eq!(line(&new.run("--version")), "orders 1.4.2\n");
    let report = get(new.address, "/health").1;
    assert!(report.contains("\"version\":\"1.4.2\""), "{report}");

    docker(["stop", &database.name]);
    eventually("the outage is reported", TIMEOUT, || {
        (get(new.address, "/health/ready").0 == 503).then_some(())
    });
    let probe = line(&new.run("healthcheck"));
    assert!(probe.starts_with("healthy: warn in "), "{probe}");
    // The check times out before the pool does.
    assert!(probe.ends_with(": postgres timed out\n"), "{probe}");
    // The old route fails during an outage: with 408 from the timeout layer, or with 503 if the
    // kernel reports sooner that the host is unreachable.
    let (code, body) = get(old.address, "/health");
    assert!(matches!(code, 408 | 503), "{code} {body}");
    assert_eq!(old.end().signal(), Some(15));
    docker(["start", &database.name]);
    eventually("the end of the outage is reported", TIMEOUT, || {
        (get(new.address, "/health/ready").0 == 200).then_some(())
    });

    let since = Instant::now();
    new.signal("TERM");
    eventually("the drain is reported", TIMEOUT, || {
        line(&new.run("healthcheck"))
            .contains("draining")
            .then_some(())
    });
    assert_eq!(new.process.wait().unwrap().code(), Some(0));
    let took = since.elapsed();
    assert!((5..9).contains(&took.as_secs()), "{took:?}");
}

/// Applies the code of docs/adopting.md to `main.rs`, and adds lifesign to the manifest.
fn adopt(manifest: &Path, main: String) -> String {
    let dependency = format!("\nlifesign = {{ path = {REPOSITORY:?} }}\n");
    let text = fs::read_to_string(manifest).unwrap();
    let text = text.replace("[dependencies]\n", &format!("[dependencies]{dependency}"));
    fs::write(manifest, text).unwrap();

    let mut main = blocks("diff").fold(main, |main, diff| {
        let side = |sign| {
            let lines = diff.lines().filter(|line| !line.starts_with(sign));
            let lines = lines.map(|line| line.get(1..).unwrap_or_default());
            lines.collect::<Vec<_>>().join("\n")
        };
        replaced(&main, &side('+'), &side('-'))
    });
    let clap = blocks("rust,ignore").next().expect("the block of clap");
    let version = clap.lines().find(|line| line.contains("version = "));
    main = replaced(&main, "#[command(version)]", version.expect("an attribute"));
    let (_, variant) = clap.split_once("    Serve,\n").expect("the variant before");
    let variant = variant.trim_end().trim_end_matches('}');
    main = replaced(&main, "    Migrate,\n", &format!("    Migrate,\n{variant}"));
    // The page leaves out what the compiler asks for: the imports, and the variant's match arm.
    main = replaced(
        &main,
        "    match args.command {\n",
        "    match args.command {\n        Command::Healthcheck { .. } | Command::Version => anyhow::bail!(\"this command must be the first argument\"),\n",
    );
    // The page says to delete the old handler, which is the last function.
    let (main, _handler) = main.split_once("\nasync fn health(").expect("the handler");
    format!(
        "use std::{{ffi::OsString, process::ExitCode}};\n\
         use lifesign::{{BuildInfo, Cli, Health, build_info}};\n{main}"
    )
}

/// The code blocks of the page with this info string.
fn blocks(info: &str) -> impl Iterator<Item = &'static str> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(info)?.strip_prefix('\n'))
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replacen(from, to, 1)
}

/// Builds a copy of the service, after `change` has edited its manifest and returned its new
/// `main.rs`. Returns the path of the executable.
fn build(name: &str, change: impl FnOnce(&Path, String) -> String) -> PathBuf {
    let directory = scratch().join(format!("orders-{name}"));
    let fixture = Path::new(REPOSITORY).join("tests/e2e/fixtures/orders");
    fs::create_dir_all(directory.join("src")).unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(fixture.join(file), directory.join(file)).unwrap();
    }
    let main = fs::read_to_string(fixture.join("src/main.rs")).unwrap();
    let main = change(&directory.join("Cargo.toml"), main);
    fs::write(directory.join("src/main.rs"), main).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--target-dir"])
        .arg(support::target().join("orders"))
        .current_dir(&directory);
    output(&mut cargo);
    let executable = directory.join("orders");
    fs::copy(support::target().join("orders/debug/orders"), &executable).unwrap();
    executable
}

/// Returns what a command printed.
fn line(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// The service in a child process, killed when dropped.
struct Service {
    executable: PathBuf,
    process: Child,
    address: SocketAddr,
}

impl Service {
    fn start(executable: &Path, url: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let process = Command::new(executable)
            .args(["serve", "--address", &address.to_string()])
            .env("DATABASE_URL", url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self {
            executable: executable.to_owned(),
            process,
            address,
        };
        eventually("the service listens", TIMEOUT, || {
            (get(address, "/orders").0 != 0).then_some(())
        });
        service
    }

    /// Runs a command of the service's executable.
    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(&self.executable);
        command
            .args(arguments.split(' '))
            .env("DATABASE_URL", "postgres://127.0.0.1/unused")
            .env_remove("LIFESIGN_URL");
        command.output().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        output(Command::new("kill").args(["-s", name, &pid]));
    }

    fn end(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.process.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
