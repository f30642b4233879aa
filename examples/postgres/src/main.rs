//! A service with PostgreSQL: it counts visits in a table.
//!
//! | part | what reports it |
//! |---|---|
//! | PostgreSQL | a required check: an outage takes the instance out of traffic and restarts nothing |
//! | the schema | `serve_after`: no traffic before it is up to date |
//! | the worker that deletes old rows | a heartbeat: if it hangs or ends, the process is broken and is restarted |
//!
//! ```sh
//! DATABASE_URL=postgres://service:secret@127.0.0.1/service cargo run
//! cargo run -- healthcheck
//! ```
//!
//! `PORT` is 8080 by default. The password can be in `PGPASSWORD` instead, where no character has
//! to be escaped. This example does not enable sqlx's feature `tls-rustls`, so the connection to
//! PostgreSQL is in plain text, and `?sslmode=require` is an error. Across machines, enable the
//! feature and use `sslmode=verify-full`.

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

/// Timeout of a request's queries. If PostgreSQL loses power, its connections stay open and only a
/// timeout ends a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a ping on the check's open connection. The rest of the check's 800 ms is enough to
/// open a new connection.
const PING_TIMEOUT: Duration = Duration::from_millis(300);

/// Timeout of an attempt to migrate, including the wait for another instance's migration. The value
/// is longer than any migration, and short enough to retry soon after a connection was lost.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum number of rows that one query deletes, so that the query ends within [`QUERY_TIMEOUT`].
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
            tracing::error!(%error, "service failed");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> Result<(), Box<dyn Error>> {
    // The error names the variable and not its value, because the value contains a password.
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set or not UTF-8")?;
    let options: PgConnectOptions = url.parse().map_err(|e| format!("DATABASE_URL: {e}"))?;
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse());
    let port = port.map_err(|e| format!("PORT: {e}"))?;
    let pool = pool(&options);

    let health = Health::builder(BUILD)
        // `QUERY_TIMEOUT` limits every request, so the rest of the grace period is left for closing
        // the pool.
        .shutdown_timeout(QUERY_TIMEOUT)
        .required_with("postgres", (options.clone(), Slot::default()), ping)
        .build()?;
    let app = Router::new()
        .route("/", get(visit))
        .with_state(pool.clone());
    let listener = TcpListener::bind(("::", port)).await?;
    let sweeper = health.heartbeat("sweeper", Duration::from_secs(30))?;
    tokio::spawn(sweep(pool.clone(), sweeper));

    // Until `start` has finished, the routes report "starting". A signal cancels `start`.
    let start = async {
        migrate(&options).await;
        io::Result::Ok(app)
    };
    let served = health.serve_after(listener, start).await;
    // A PostgreSQL that does not respond must not keep the process alive.
    let _ = timeout(QUERY_TIMEOUT, pool.close()).await;
    Ok(served?)
}

fn pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(5)
        .acquire_timeout(QUERY_TIMEOUT)
        // If a query timed out, its connection may be dead when it is released to the pool. If the
        // ping fails, the pool drops the connection. Without the ping, the pool would have one
        // connection less until TCP gives up, after about 15 minutes.
        .after_release(|connection, _| {
            Box::pin(async move {
                within(QUERY_TIMEOUT, connection.ping()).await?;
                Ok(true)
            })
        })
        .connect_lazy_with(with_statement_timeout(options, QUERY_TIMEOUT))
}

/// Makes PostgreSQL cancel a query when the service no longer waits for it. Otherwise the query
/// would keep its connection busy, and the pool would open another connection.
fn with_statement_timeout(options: &PgConnectOptions, timeout: Duration) -> PgConnectOptions {
    let milliseconds = timeout.as_millis();
    options
        .clone()
        .options([("statement_timeout", milliseconds)])
}

/// Holds the check's connection between two runs.
type Slot = Arc<Mutex<Option<PgConnection>>>;

/// The check: pings PostgreSQL on a connection of its own, and opens a new connection if the ping
/// fails.
///
/// The connection is not from the pool. Otherwise the check would fail whenever requests hold all
/// of the pool's connections, and a load balancer would send the requests of a busy instance to
/// others that are just as busy. The connection stays open, because at `max_connections` PostgreSQL
/// refuses new connections while open ones work.
async fn ping((options, slot): (PgConnectOptions, Slot)) -> sqlx::Result<()> {
    let mut slot = slot.lock().await;
    // The check's deadline can interrupt a ping in the middle of a response. The connection is then
    // out of the slot, and is dropped.
    if let Some(mut connection) = slot.take()
        && within(PING_TIMEOUT, connection.ping()).await.is_ok()
    {
        *slot = Some(connection);
        return Ok(());
    }
    *slot = Some(PgConnection::connect_with(&options).await?);
    Ok(())
}

/// Migrates the schema. Retries until it succeeds, because PostgreSQL may start after the service.
async fn migrate(options: &PgConnectOptions) {
    while let Err(error) = within(MIGRATION_TIMEOUT, migrate_once(options)).await {
        tracing::warn!(%error, "migration failed");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Migrates on a new connection, and closes it. Closing releases sqlx's advisory lock even if a
/// migration failed.
async fn migrate_once(options: &PgConnectOptions) -> sqlx::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(QUERY_TIMEOUT)
        .connect_with(with_statement_timeout(options, MIGRATION_TIMEOUT))
        .await?;
    let outcome = sqlx::migrate!()
        // After a rollback to this version of the service, the schema can be newer, and must be
        // compatible.
        .set_ignore_missing(true)
        .run(&pool)
        .await;
    pool.close().await;
    Ok(outcome?)
}

async fn visit(State(pool): State<PgPool>) -> Result<String, StatusCode> {
    let visit = sqlx::query_scalar("INSERT INTO visits DEFAULT VALUES RETURNING id");
    let visitor: i64 = within(QUERY_TIMEOUT, visit.fetch_one(&pool))
        .await
        .map_err(|error| {
            tracing::warn!(%error, "visit was not counted");
            StatusCode::SERVICE_UNAVAILABLE
        })?;
    Ok(format!("Hello, visitor {visitor}\n"))
}

/// Deletes visits that are older than a day.
async fn sweep(pool: PgPool, heartbeat: Heartbeat) {
    loop {
        // The worker beats even if PostgreSQL is down, because a restart of this process would not
        // help.
        heartbeat.beat();
        // Replicas share the work. Each replica skips the rows that another one is deleting.
        let old = sqlx::query(
            "DELETE FROM visits WHERE id IN (
                 SELECT id FROM visits WHERE at < now() - interval '1 day'
                 LIMIT $1 FOR UPDATE SKIP LOCKED
             )",
        )
        .bind(BATCH as i64);
        match within(QUERY_TIMEOUT, old.execute(&pool)).await {
            Ok(done) if done.rows_affected() == BATCH => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "sweep failed"),
        }
        sleep(Duration::from_secs(5)).await;
    }
}

/// Runs a query with a timeout.
async fn within<T>(
    limit: Duration,
    query: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let result = timeout(limit, query).await;
    result.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
}
