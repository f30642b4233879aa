//! Traits that the public types implement.

use std::{env, error::Error, fmt::Debug, process::Command};

use lifesign::{
    BuildInfo, CheckReport, Cli, Endpoint, Health, HealthBuilder, Heartbeat, Listener, Probe,
    RegisterError, Report, ServiceState, Status, build_info,
};

fn everywhere<T: Send + Sync + Unpin + Debug + 'static>() {}
fn copied<T: Copy + Eq>() {}
fn shared<T: Clone>() {}
fn error<T: Error>() {}

#[test]
fn every_type_is_send_sync_and_debug() {
    everywhere::<BuildInfo>();
    everywhere::<CheckReport<'static>>();
    everywhere::<Endpoint>();
    everywhere::<Health>();
    everywhere::<HealthBuilder>();
    everywhere::<Heartbeat>();
    everywhere::<Listener>();
    everywhere::<Probe>();
    everywhere::<RegisterError>();
    everywhere::<Report>();
    everywhere::<ServiceState>();
    everywhere::<Status>();
    everywhere::<Cli>();
}

#[test]
fn values_are_copy_and_handles_are_clone() {
    copied::<BuildInfo>();
    copied::<CheckReport<'static>>();
    copied::<Probe>();
    copied::<ServiceState>();
    copied::<Status>();
    shared::<Endpoint>();
    shared::<Health>();
    shared::<Report>();
    error::<RegisterError>();
}

#[test]
fn statuses_are_spelled_as_in_the_draft() {
    let words = [Status::Pass, Status::Warn, Status::Fail].map(|status| status.to_string());
    assert_eq!(words, ["pass", "warn", "fail"]);
}

#[test]
fn build_info_is_a_constant() {
    const BUILD: BuildInfo = build_info!();
    static SAME: BuildInfo = build_info!();
    assert_eq!(BUILD, SAME);
}

#[tokio::test]
async fn a_report_can_be_served_by_hand() {
    let health = Health::builder(build_info!()).build().unwrap();
    let report = health.report(Probe::Readiness).await;
    assert_eq!(report.status(), Status::Fail);
    assert_eq!(report.http_status(), 503);
    assert!(report.body().starts_with(
        br#"{"status":"fail","output":"starting: set_ready() has not been called yet""#
    ));

    health.set_ready();
    let report = health.report(Probe::Readiness).await;
    assert_eq!(report.status(), Status::Pass);
    assert_eq!(report.http_status(), 200);
}

/// The test runs itself in a child process, whose first argument is `version`.
#[test]
fn version_can_be_left_to_the_service() {
    const MODE: &str = "LIFESIGN_TEST_VERSION";
    let cli = Cli::new(build_info!());
    match env::var(MODE).as_deref() {
        Ok("with") => assert!(cli.run().is_some()),
        Ok(_) => assert!(cli.without_version().run().is_none()),
        Err(_) => {
            let this = "types::version_can_be_left_to_the_service";
            for mode in ["with", "without"] {
                let mut child = Command::new(env::current_exe().unwrap());
                child.args(["version", this, "--exact"]).env(MODE, mode);
                let output = child.output().unwrap();
                let stdout = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{mode}: {stdout}");
                assert!(stdout.contains("1 passed"), "{mode}: {stdout}");
            }
        }
    }
}

#[tokio::test]
async fn a_report_converts_into_a_response_of_any_framework() {
    let health = Health::builder(build_info!()).build().unwrap();
    let report = health.report(Probe::Readiness).await;

    let response: http::Response<Vec<u8>> = report.clone().into();

    let headers = response.headers();
    assert_eq!(response.status(), 503);
    assert_eq!(headers["content-type"], "application/health+json");
    assert_eq!(headers["cache-control"], "no-store");
    let instance = headers["lifesign-instance"].to_str().unwrap();
    assert_eq!(instance.len(), 16);
    assert!(
        instance.bytes().all(|b| b.is_ascii_hexdigit()),
        "{instance}"
    );
    let listed: Vec<_> = report.headers().collect();
    assert_eq!(listed.len(), headers.len());
    assert!(listed.iter().all(|(name, value)| headers[*name] == *value));
    assert_eq!(response.body(), report.body());
}
