//! A service that exports its health to Prometheus.
//!
//! ```sh
//! DATABASE=127.0.0.1:5432 cargo run --example metrics
//! curl http://127.0.0.1:8080/metrics
//! ```

use std::{
    env,
    error::Error,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use axum::{Router, extract::State, routing::get};
use lifesign::{BuildInfo, Cli, Health, Probe, Status, build_info};
use tokio::net::{TcpListener, TcpStream};

const BUILD: BuildInfo = build_info!();

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = Cli::new(BUILD).run() {
        return Ok(code);
    }
    serve()
}

#[tokio::main]
async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let database = env::var("DATABASE")?;
    let health = Health::builder(BUILD)
        .required_with("database", database, TcpStream::connect)
        .build()?;
    let app = Router::new()
        // The metrics name the checks and the commit. A public service serves them on an internal port.
        .route("/metrics", get(metrics))
        .with_state(health.clone());
    let listener = TcpListener::bind("[::]:8080").await?;
    health.serve(listener, app).await?;
    Ok(ExitCode::SUCCESS)
}

/// Responds in Prometheus' text format.
async fn metrics(State(health): State<Health>) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, samples: &[(String, f64)]| {
        text += &format!("# TYPE {name} gauge\n");
        for (labels, value) in samples {
            text += &format!("{name}{{{labels}}} {value}\n");
        }
    };
    let passes = |status| f64::from(u8::from(status != Status::Fail));

    // Together, the reports share one run of the checks.
    let (up, ready, live) = tokio::join!(
        health.report(Probe::Health),
        health.report(Probe::Readiness),
        health.report(Probe::Liveness),
    );
    let reports = [("health", &up), ("ready", &ready), ("live", &live)];
    let verdicts =
        reports.map(|(probe, report)| (format!("probe=\"{probe}\""), passes(report.status())));
    gauge("service_health", &verdicts);

    let states = ["starting", "waiting", "ready", "draining"].map(|state| {
        let is_current = live.state().as_str() == state;
        (
            format!("state=\"{state}\""),
            f64::from(u8::from(is_current)),
        )
    });
    gauge("service_state", &states);

    let (mut checks, mut durations, mut last_runs) = (Vec::new(), Vec::new(), Vec::new());
    for check in ready.checks() {
        let labels = format!(
            "check=\"{}\",required=\"{}\"",
            check.name, check.is_required
        );
        checks.push((labels.clone(), passes(check.status)));
        durations.push((labels.clone(), check.duration.as_secs_f64()));
        let last_run = check.last_run.duration_since(UNIX_EPOCH);
        last_runs.push((labels, last_run.unwrap_or(Duration::ZERO).as_secs_f64()));
    }
    gauge("service_check", &checks);
    gauge("service_check_duration_seconds", &durations);
    gauge("service_check_last_run_timestamp_seconds", &last_runs);

    let (version, commit) = (BUILD.version(), BUILD.commit().unwrap_or("unknown"));
    let build = format!("version=\"{version}\",revision=\"{commit}\"");
    gauge("service_build_info", &[(build, 1.0)]);
    text
}
