//! The steps of a shutdown, in the test's own process and with tokio's clock paused.

use std::{error::Error, future::pending, io, time::Duration};

use lifesign::{Health, build_info};
use tokio::time::{Instant, sleep};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn health() -> Result<Health> {
    Ok(Health::builder(build_info!()).build()?)
}

#[tokio::test(start_paused = true)]
async fn delay_is_five_seconds_and_timeout_four() -> Result {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    health.set_ready();
    let begun = Instant::now();

    health.begin_drain();
    shutdown.started().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    shutdown.delay_over().await;
    let delay = begun.elapsed();
    assert_eq!(shutdown.bound(pending::<()>()).await, None);
    let end = begun.elapsed();

    assert_eq!((delay.as_secs(), end.as_secs()), (5, 9));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn bound_gives_what_ends_in_time() -> Result {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    health.set_ready();
    health.begin_drain();

    let work = async {
        sleep(Duration::from_millis(8990)).await;
        "done"
    };

    assert_eq!(shutdown.bound(work).await, Some("done"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn service_that_is_not_ready_has_no_delay() -> Result {
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let begun = Instant::now();

    health.begin_drain();
    shutdown.delay_over().await;

    assert_eq!(begun.elapsed().as_secs(), 0);
    Ok(())
}

#[tokio::test]
async fn further_calls_give_the_same_shutdown() -> Result {
    let health = health()?;
    let first = health.handle_signals()?;
    let second = health.handle_signals()?;
    assert!(!first.has_started() && !second.has_started());

    health.begin_drain();
    first.delay_over().await;
    second.delay_over().await;

    assert!(first.has_started() && second.has_started());
    Ok(())
}

#[tokio::test]
async fn startup_gives_its_output_or_is_interrupted() -> Result {
    let health = health()?;
    let shutdown = health.handle_signals()?;

    assert_eq!(shutdown.startup(async { 7 }).await?, 7);
    health.begin_drain();
    let error = shutdown
        .startup(pending::<()>())
        .await
        .expect_err("drained");

    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    assert_eq!(error.to_string(), "start-up abandoned: the drain began");
    Ok(())
}

#[tokio::test]
async fn exit_code_is_what_held_when_the_drain_began() -> Result {
    let success = format!("{:?}", std::process::ExitCode::SUCCESS);
    let health = health()?;
    let shutdown = health.handle_signals()?;
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(60))?;
    assert_eq!(format!("{:?}", shutdown.exit_code()), success);

    health.begin_drain();
    drop(heartbeat);
    assert_eq!(format!("{:?}", shutdown.exit_code()), success);
    Ok(())
}

#[tokio::test]
async fn exit_code_fails_if_a_heartbeat_was_dropped_before() -> Result {
    let failure = format!("{:?}", std::process::ExitCode::FAILURE);
    let health = health()?;
    let shutdown = health.handle_signals()?;
    drop(health.heartbeat("mailer", Duration::from_secs(60))?);
    assert_eq!(format!("{:?}", shutdown.exit_code()), failure);

    health.begin_drain();
    assert_eq!(format!("{:?}", shutdown.exit_code()), failure);
    Ok(())
}

#[test]
fn futures_can_be_sent_and_kept() {
    fn sent(_: impl Send + 'static) {}
    fn checked(shutdown: &lifesign::Shutdown) {
        sent(shutdown.started());
        sent(shutdown.delay_over());
        sent(shutdown.clone());
    }
    let _: fn(&lifesign::Shutdown) = checked;
}
