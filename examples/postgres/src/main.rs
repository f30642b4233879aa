//! A service with PostgreSQL behind it: it counts visitors in a table.
//!
//! | part | where it shows |
//! |---|---|
//! | PostgreSQL answers | a required check: an outage takes the traffic away, and restarts nothing |
//! | the schema is up to date | `set_ready()`: no traffic before |
//! | the sweeper sweeps | a heartbeat: when it hangs or ends, the process is broken, and restarted |
//!
//! ```sh
//! DATABASE_URL=postgres://service:secret@127.0.0.1/service cargo run
//! cargo run -- healthcheck
//! ```
//!
//! `PORT` is 8080 by default. The password may be in `PGPASSWORD` instead, where no character needs an
//! escape. Without sqlx's feature `tls-rustls`, as here, the way to PostgreSQL is in plain text, and
//! `?sslmode=require` an error: across machines, add the feature and ask for `verify-full`.

use std::{env, error::Error, io, process::ExitCode, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use lifesign::{BuildInfo, Cli, Health, Heartbeat, build_info};
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    time::{sleep, timeout},
};

/// The most that a request waits for PostgreSQL, which may have stopped to answer without a goodbye.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that the check's connection has to answer. It leaves enough of the 800 ms that a check is
/// given to make a new one.
const PING: Duration = Duration::from_millis(300);

/// The most that an attempt to migrate takes, another instance's that it waits for included. Longer
/// than any migration, and short enough to be tried again when PostgreSQL is cut off meanwhile.
const MIGRATION: Duration = Duration::from_secs(300);

/// How many visits are forgotten at once: few enough for [`PATIENCE`], however many there are.
const BATCH: u64 = 10_000;

const BUILD: BuildInfo = build_info!();

fn main() -> ExitCode {
    if let Some(code) = Cli::new(BUILD).run() {
        return code;
    }
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> Result<(), Box<dyn Error>> {
    // Names the variable and not its value, which holds a password.
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set, or not in UTF-8")?;
    let options: PgConnectOptions = url.parse().map_err(|e| format!("DATABASE_URL: {e}"))?;
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse());
    let port = port.map_err(|e| format!("PORT: {e}"))?;
    let pool = pool(&options);

    let health = Health::builder(BUILD)
        // No request takes longer, and the pool needs some of the grace period to close.
        .shutdown_timeout(PATIENCE)
        .required_with("postgres", (options.clone(), Kept::default()), ping)
        .build()?;
    let app = Router::new()
        .route("/", get(visit))
        .with_state(pool.clone());
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let sweeper = health.heartbeat("sweeper", Duration::from_secs(30))?;
    tokio::spawn(sweep(pool.clone(), sweeper));

    // The routes say "starting" meanwhile, and a signal ends it.
    let start = async {
        migrate(&options).await;
        io::Result::Ok(app)
    };
    let served = health.serve_after(listener, start).await;
    // A PostgreSQL that does not answer is no reason to stay.
    let _ = timeout(PATIENCE, pool.close()).await;
    Ok(served?)
}

fn pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(5)
        .acquire_timeout(PATIENCE)
        // A connection whose query was given up comes back here and may be dead. The pool would
        // wait for it as long as TCP does, a quarter of an hour, and have one less meanwhile.
        .after_release(|connection, _| {
            Box::pin(async move {
                within(PATIENCE, connection.ping()).await?;
                Ok(true)
            })
        })
        .connect_lazy_with(giving_up(options, PATIENCE))
}

/// PostgreSQL gives up as well. It does not notice that nobody waits for a query any more, and would
/// keep a connection for it until it ends, beside those that replace it here.
fn giving_up(options: &PgConnectOptions, patience: Duration) -> PgConnectOptions {
    let milliseconds = patience.as_millis();
    options
        .clone()
        .options([("statement_timeout", milliseconds)])
}

/// The connection of the check, between its runs.
type Kept = Arc<Mutex<Option<PgConnection>>>;

/// The check: a connection of its own answers, or else a new one does.
///
/// Not one of the pool's. Behind requests that hold all of them the check would tell how busy this
/// instance is, and a load balancer would hand its requests to the others, which are no less busy.
/// And it is kept, because a new one is refused where PostgreSQL has as many as it takes, while those
/// that there are work well.
async fn ping((options, kept): (PgConnectOptions, Kept)) -> sqlx::Result<()> {
    let mut kept = kept.lock().await;
    // Taken out, so that none is kept that a deadline left in the middle of an answer.
    if let Some(mut connection) = kept.take()
        && within(PING, connection.ping()).await.is_ok()
    {
        *kept = Some(connection);
        return Ok(());
    }
    *kept = Some(PgConnection::connect_with(&options).await?);
    Ok(())
}

/// Tries until it succeeds: a PostgreSQL that comes later than the service is no reason to end.
async fn migrate(options: &PgConnectOptions) {
    while let Err(error) = within(MIGRATION, migrate_once(options)).await {
        tracing::warn!(%error, "the schema is not up to date");
        sleep(Duration::from_secs(1)).await;
    }
}

/// On a connection that is closed behind it: whoever migrates locks all others out, and where that
/// fails nothing else unlocks.
async fn migrate_once(options: &PgConnectOptions) -> sqlx::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect_with(giving_up(options, MIGRATION))
        .await?;
    let outcome = sqlx::migrate!()
        // After a rollback to this version the schema is newer, which its author has to allow for.
        .set_ignore_missing(true)
        .run(&pool)
        .await;
    pool.close().await;
    Ok(outcome?)
}

async fn visit(State(pool): State<PgPool>) -> Result<String, StatusCode> {
    let visit = sqlx::query_scalar("INSERT INTO visits DEFAULT VALUES RETURNING id");
    let visitor: i64 = within(PATIENCE, visit.fetch_one(&pool))
        .await
        .map_err(|error| {
            tracing::warn!(%error, "a visit was not counted");
            StatusCode::SERVICE_UNAVAILABLE
        })?;
    Ok(format!("Hello, visitor {visitor}\n"))
}

/// Forgets visits of more than a day ago.
async fn sweep(pool: PgPool, heartbeat: Heartbeat) {
    loop {
        // Whether or not PostgreSQL answers: its outage is not this process's fault.
        heartbeat.beat();
        // Replicas share the work: each skips what another is deleting.
        let old = sqlx::query(
            "DELETE FROM visits WHERE id IN (
                 SELECT id FROM visits WHERE at < now() - interval '1 day'
                 LIMIT $1 FOR UPDATE SKIP LOCKED
             )",
        )
        .bind(BATCH as i64);
        match within(PATIENCE, old.execute(&pool)).await {
            Ok(done) if done.rows_affected() == BATCH => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing was swept"),
        }
        sleep(Duration::from_secs(5)).await;
    }
}

async fn within<T>(
    patience: Duration,
    query: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let answer = timeout(patience, query).await;
    answer.unwrap_or_else(|late| Err(io::Error::from(late).into()))
}
