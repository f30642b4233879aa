//! Real proxies and monitors with the configurations of `examples/deploy`.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy proxies`

use std::{
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lifesign_e2e::engine::{
    Container, Image, Network, Program, TIMEOUT, config, docker, eventually, get, parse, tools,
};
use serde_json::Value;

use crate::load::Load;

/// Number of times that an instance is drained and replaced, alternating between two instances.
const REPLACEMENTS: u32 = 6;

/// Time after which a proxy no longer uses a draining instance, according to
/// examples/deploy/README.md. The port closes after 5 s.
const OUT: Duration = Duration::from_millis(3500);

/// Time after which a proxy no longer uses a frozen instance, which accepts connections and never
/// responds.
const FROZEN_OUT: Duration = Duration::from_millis(4500);

/// A program of the tools image: its configuration file in `examples/deploy`, and its command line.
type Tool = (&'static str, &'static [&'static str]);

const HAPROXY: Tool = ("proxies/haproxy.cfg", &["haproxy", "-f", "/etc/config"]);
const TRAEFIK: Tool = (
    "proxies/traefik.yaml",
    &[
        "traefik",
        "--entryPoints.http.address=:8000",
        "--providers.file.filename=/etc/config.yaml",
    ],
);
const ENVOY: Tool = (
    "proxies/envoy.yaml",
    &[
        "envoy",
        "--concurrency",
        "1",
        "--log-level",
        "warn",
        "-c",
        "/etc/config.yaml",
    ],
);
const CADDY: Tool = (
    "proxies/Caddyfile",
    &[
        "caddy",
        "run",
        "--adapter=caddyfile",
        "--config=/etc/config",
    ],
);
const VARNISH: Tool = (
    "proxies/varnish.vcl",
    &[
        "varnishd",
        "-F",
        "-a",
        ":8000",
        "-f",
        "/etc/config",
        "-s",
        "malloc,16m",
    ],
);
const NGINX: Tool = (
    "proxies/nginx.conf",
    &["nginx", "-g", "daemon off;", "-c", "/etc/config"],
);

#[test]
fn haproxy_loses_no_request() {
    replace_under_load(HAPROXY, Drain::IsSeen);
}

#[test]
fn traefik_loses_no_request() {
    replace_under_load(TRAEFIK, Drain::IsSeen);
}

#[test]
fn envoy_loses_no_request() {
    replace_under_load(ENVOY, Drain::IsSeen);
}

#[test]
fn caddy_loses_no_request() {
    replace_under_load(CADDY, Drain::IsSeen);
}

#[test]
fn varnish_loses_no_request() {
    replace_under_load(VARNISH, Drain::IsSeen);
}

#[test]
fn nginx_loses_no_repeatable_request() {
    replace_under_load(NGINX, Drain::IsNotSeen);
}

#[test]
fn frozen_and_unready_instances_get_no_requests() {
    let network = Network::create();
    let image = Image::of(Program::Service);
    let instances = [1, 2].map(|number| instance(&image, &network, number, &LONG_DRAIN));
    let proxies = [HAPROXY, TRAEFIK, ENVOY, CADDY, VARNISH].map(|proxy| {
        let container = tool(proxy, &network);
        let address = container.address(8000);
        (proxy.0, address, container)
    });
    for (name, address, _container) in &proxies {
        for instance in &instances {
            let own = instance.address(8080);
            eventually(&format!("{name} uses both"), TIMEOUT, || {
                let first = visitor(own);
                for _ in 0..4 {
                    get(*address, "/");
                }
                (visitor(own) > first + 1).then_some(())
            });
        }
    }

    docker(["pause", &instances[0].name]);
    thread::sleep(FROZEN_OUT);
    for (name, address, _container) in &proxies {
        for _ in 0..10 {
            let start = Instant::now();
            let response = get(*address, "/");
            assert_eq!(response.0, 200, "{name}: {response:?}");
            let took = start.elapsed();
            assert!(took < Duration::from_secs(1), "{name}: after {took:?}");
        }
    }
    docker(["unpause", &instances[0].name]);

    let mut stops = instances.each_ref().map(Container::stopping);
    for (name, address, _container) in &proxies {
        eventually(&format!("{name} responds by itself"), TIMEOUT, || {
            (get(*address, "/").0 == 503).then_some(())
        });
    }
    for instance in &instances {
        visitor(instance.address(8080));
        drain_no_longer(instance);
    }
    for stop in &mut stops {
        assert!(stop.wait().unwrap().success());
    }
}

#[test]
fn the_blackbox_exporter_distinguishes_down_and_warn() {
    let network = Network::create();
    let image = Image::of(Program::Service);
    let service = instance(&image, &network, 1, &[]);
    let warning = instance(&image, &network, 2, &["--env=GREETING_FILE=/none"]);
    let exporter = (
        "monitors/blackbox.yaml",
        &[
            "prometheus-blackbox-exporter",
            "--config.file=/etc/config.yaml",
        ][..],
    );
    let exporter = tool(exporter, &network);
    let address = exporter.address(9115);
    let success = |module: &str, service: u8| {
        let path = format!("/probe?module={module}&target=http://service-{service}:8080/health");
        eventually("a response of the exporter", TIMEOUT, || {
            let (status, body) = get(address, &path);
            let line = |line: &str| line.strip_prefix("probe_success ").map(str::to_owned);
            (status == 200).then(|| body.lines().find_map(line).expect("a result"))
        })
    };

    assert_eq!(success("health", 1), "1");
    assert_eq!(success("health_without_warnings", 1), "1");
    assert_eq!(success("health", 2), "1");
    assert_eq!(success("health_without_warnings", 2), "0");
    draining(&service, || assert_eq!(success("health", 1), "0"));
    assert_eq!(success("health", 1), "0");
    drop(warning);
}

#[test]
fn prometheus_sees_an_outage_of_a_database() {
    let network = Network::create();
    let on_network = format!("--network={}", network.name);
    let password = "--env=POSTGRES_PASSWORD=secret";
    let options = [&on_network, password, "--network-alias=database"];
    let database = Container::run(tools(), &options, &[]);
    let image = Image::of(Program::Metrics);
    let service = instance(&image, &network, 1, &["--env=DATABASE=database:5432"]);
    let files = [
        (
            "/etc/prometheus.yml",
            "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n\
             rule_files: [/etc/alerts.yaml]\n\
             scrape_configs: [{job_name: service, static_configs: [{targets: ['service-1:8080']}]}]\n",
        ),
        ("/etc/alerts.yaml", &config("monitors/alerts.yaml")),
    ];
    let options = ["--user=root", &on_network, "--entrypoint=prometheus"];
    let words = [
        "--config.file=/etc/prometheus.yml",
        "--storage.tsdb.path=/tmp/data",
    ];
    let prometheus = Container::create(tools(), &options, &words, &files);
    prometheus.start();
    let lint = docker([
        "exec",
        &prometheus.name,
        "promtool",
        "check",
        "rules",
        "/etc/alerts.yaml",
    ]);
    assert!(lint.contains("SUCCESS: 5 rules found"), "{lint}");
    let address = prometheus.address(9090);
    let becomes = |query: &str, expected: &str| {
        eventually(&format!("{query} becomes {expected}"), TIMEOUT, || {
            let (code, body) = get(address, &format!("/api/v1/query?query={query}"));
            let body: Value = serde_json::from_str(&body).ok()?;
            let value = &body["data"]["result"][0]["value"][1];
            (code == 200 && value == expected).then_some(())
        });
    };
    let report = parse(&get(service.address(8080), "/health").1);
    let version = report["version"].as_str().expect("a version");
    becomes(&format!("service_build_info{{version=\"{version}\"}}"), "1");
    becomes("service_state{state=\"ready\"}", "1");
    let check = "{check=\"database\",required=\"true\"}";
    becomes(&format!("service_check{check}"), "1");
    becomes(
        &format!("service_check_duration_seconds{check}%20<bool%200.8"),
        "1",
    );
    let age = format!("time()-service_check_last_run_timestamp_seconds{check}");
    becomes(&format!("{age}%20<bool%2010"), "1");

    docker(["stop", &database.name]);
    becomes(&format!("service_check{check}"), "0");
    becomes("service_health{probe=\"ready\"}", "0");
    becomes("service_health{probe=\"health\"}", "1");
    becomes(
        "ALERTS{alertname=\"ServiceNotReady\",alertstate=\"pending\"}",
        "1",
    );

    docker(["start", &database.name]);
    becomes(&format!("service_check{check}"), "1");
    becomes("count(ALERTS)%20or%20vector(0)", "0");
    draining(&service, || {
        becomes("service_state{state=\"draining\"}", "1")
    });
}

#[test]
fn monit_and_check_http_read_the_routes() {
    let network = Network::create();
    let image = Image::of(Program::Service);
    let service = instance(&image, &network, 1, &LONG_DRAIN);
    let warning = instance(&image, &network, 2, &["--env=GREETING_FILE=/none"]);
    let control = "set daemon 1\nset log /dev/stdout\n\
        set httpd unixsocket /run/monit.sock allow any:any\n";
    // monit refuses a configuration that other users can read.
    let words = [
        "sh",
        "-c",
        "chmod 0600 /etc/monitrc; exec monit -I -c /etc/monitrc",
    ];
    let monitrc = format!("{control}{}", config("monitors/monit.conf"));
    let monit = Container::tool(&network, &words, ("/etc/monitrc", &monitrc));
    let summary = |state: &str| {
        eventually(&format!("monit reports {state}"), TIMEOUT, || {
            let summary = [
                "exec",
                &monit.name,
                "monit",
                "-c",
                "/etc/monitrc",
                "-B",
                "summary",
            ];
            let output = Command::new("docker").args(summary).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines().filter(|line| line.contains("my-service"));
            lines.any(|line| line.contains(state)).then_some(())
        });
    };
    let check_http = config("monitors/check_http.sh");
    let check_http = |service: &str| {
        let check_http = check_http.replace("service-1", service);
        let command = ["exec", &monit.name, "sh", "-c", &check_http];
        let output = Command::new("docker").args(command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };

    summary("OK");
    let (code, text) = check_http("service-1");
    assert_eq!(code, Some(0), "{text}");
    // The second service warns, because an optional check fails. The entries of its checks contain
    // `pass` and `fail` too, which check_http must ignore.
    let (code, text) = check_http("service-2");
    assert_eq!(code, Some(1), "{text}");
    drop(warning);
    draining(&service, || {
        let (code, text) = check_http("service-1");
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("503"), "{text}");
        summary("failed");
        // The port is still open. If it were closed, the failure would not be due to the status
        // code.
        assert_eq!(get(service.address(8080), "/health").0, 503);
        drain_no_longer(&service);
    });
    service.start();
    summary("OK");
}

/// Whether a proxy notices that an instance drains before its port closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    IsSeen,
    IsNotSeen,
}

/// Options for an instance that drains until [`drain_no_longer`].
const LONG_DRAIN: [&str; 2] = ["--env=DRAIN_SECONDS=120", "--stop-timeout=180"];

fn replace_under_load(proxy: Tool, drain: Drain) {
    let network = Network::create();
    let image = Image::of(Program::Service);
    let instances = [1, 2].map(|number| instance(&image, &network, number, &[]));
    let (name, _) = proxy;
    let proxy = tool(proxy, &network);
    let address = proxy.address(8000);
    passes_on(name, address);

    let load = Load::start(address);
    for replacement in 0..REPLACEMENTS {
        let instance = &instances[replacement as usize % 2];
        let own = instance.address(8080);
        let start = Instant::now();
        let mut stop = instance.stopping();
        thread::sleep(OUT.saturating_sub(start.elapsed()));
        let first = visitor(own);
        // Requests are counted for 0.7 s. The port closes 0.8 s later, so even on a busy machine
        // the count ends before.
        thread::sleep((OUT + Duration::from_millis(700)).saturating_sub(start.elapsed()));
        let between = visitor(own) - first - 1;
        assert!(stop.wait().unwrap().success());
        match drain {
            Drain::IsSeen => assert_eq!(between, 0, "requests when a drain is nearly over"),
            Drain::IsNotSeen => assert!(
                between > 0,
                "the proxy noticed the drain: correct examples/deploy/README.md"
            ),
        }
        instance.start();
        // The other instance must not be stopped before the proxy uses this one.
        gets_traffic(own);
    }
    let tally = load.stop();

    println!("{name}: {REPLACEMENTS} replacements, {tally}");
    // A proxy that does not notice the drain uses the instance until the port closes. The proxy
    // must not repeat a POST that the instance may have processed, so such a POST can fail.
    let may_fail = |failure: &&String| drain == Drain::IsNotSeen && failure.contains("Post");
    let lost = tally.failed.iter().filter(|failure| !may_fail(failure));
    assert_eq!(lost.count(), 0, "{tally}");
    assert!(
        tally.kept > 1000 && tally.fresh > 1000 && tally.posts > 500,
        "too little load: {tally}"
    );
}

fn passes_on(name: &str, address: SocketAddr) {
    eventually(&format!("{name} forwards requests"), TIMEOUT, || {
        (get(address, "/").0 == 200).then_some(())
    });
}

/// Waits until an instance gets requests that this function did not send.
fn gets_traffic(own: SocketAddr) {
    eventually("the instance is ready", TIMEOUT, || {
        (get(own, "/health/ready").0 == 200).then_some(())
    });
    let first = visitor(own);
    let mut requests = 0;
    eventually("traffic of the proxy", TIMEOUT, || {
        requests += 1;
        (visitor(own) > first + requests).then_some(())
    });
}

/// Requests `/`, and returns the visitor's number in the response.
fn visitor(own: SocketAddr) -> u64 {
    let (status, body) = get(own, "/");
    assert_eq!(status, 200, "{body}");
    let number = body.trim_end().strip_prefix("Hello, visitor ");
    number
        .unwrap_or_else(|| panic!("{body:?}"))
        .parse()
        .unwrap()
}

/// Stops an instance, runs a function while it drains, and waits for its exit.
fn draining(instance: &Container, act: impl FnOnce()) {
    let mut stop = instance.stopping();
    let own = instance.address(8080);
    eventually("the instance drains", TIMEOUT, || {
        (get(own, "/health").0 == 503).then_some(())
    });
    act();
    assert!(stop.wait().unwrap().success());
}

/// Ends the drain with a second signal.
fn drain_no_longer(instance: &Container) {
    docker(["kill", "--signal=TERM", &instance.name]);
}

/// Starts `service-1` or `service-2` of the configurations, at an address that stays the same when
/// the container is restarted.
fn instance(image: &Image, network: &Network, number: u8, options: &[&str]) -> Container {
    let network_options = [
        format!("--network={}", network.name),
        format!("--network-alias=service-{number}"),
        format!("--ip={}", network.ip(10 + number)),
    ];
    let network_options = network_options.each_ref().map(String::as_str);
    let container = Container::run(&image.tag, &[&network_options, options].concat(), &[]);
    container.turns("healthy");
    container
}

/// Starts a proxy or monitor with its configuration file in /etc.
fn tool((file, words): Tool, network: &Network) -> Container {
    let config = config(file);
    let path = words
        .iter()
        .find_map(|word| word.find("/etc/config").map(|at| &word[at..]));
    Container::tool(
        network,
        words,
        (path.expect("the path of the configuration"), &config),
    )
}
