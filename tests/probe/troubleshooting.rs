//! The headings of `docs/troubleshooting.md` are the lines that the probe prints.

use std::{
    future::pending,
    net::Ipv4Addr,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    http::StatusCode,
    response::Redirect,
    routing::{get, post},
};
use lifesign::{Health, HealthBuilder, build_info};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    command::{guessing, healthcheck, printed_line, run_probe, skipped, timeless, worker},
    support::{
        exclusive,
        hostile::{Act, Hold, Receive, address_of, bound, closed, greets, perform, responds},
        run, serve,
    },
};

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Returns the lines in the headings of a section, with `#` in place of the elapsed time.
fn headings(section: &str) -> Vec<String> {
    let (_, rest) = PAGE
        .split_once(&format!("## {section}\n"))
        .expect("a section");
    let section = rest.split("\n## ").next().expect("its end");
    section
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(timeless)
        .collect()
}

/// Replaces a port of 127.0.0.1 by 8080, the port in the page's examples.
fn line_of_the_page(line: &str) -> String {
    match line.split_once("127.0.0.1:") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}127.0.0.1:8080{rest}")
        }
        None => line.to_owned(),
    }
}

fn started() -> HealthBuilder {
    Health::builder(build_info!())
}

/// Serves a router, and returns the line that a probe of `path` prints.
async fn ask(router: Router, path: &str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    let line = tokio::task::spawn_blocking(move || printed_line(&run_probe(&url)));
    line_of_the_page(&line.await.unwrap())
}

async fn ask_health(health: &Health, path: &str) -> String {
    ask(health.routes(), path).await
}

#[test]
fn the_page_has_the_lines_of_services_that_respond() {
    let lines = Runtime::new().unwrap().block_on(async {
        let starting = started().build().unwrap();

        let waiting = started()
            .required("postgres", async || Err::<(), _>("refused"))
            .build()
            .unwrap();
        waiting.set_ready();

        let failed = started()
            .required("postgres", passes_once(async || Err("refused")))
            .build()
            .unwrap();
        failed.set_ready();
        ask_health(&failed, "/health/ready").await;

        let late = started()
            .required("postgres", passes_once(async || pending().await))
            .build()
            .unwrap();
        late.set_ready();
        ask_health(&late, "/health/ready").await;

        let stuck = started().build().unwrap();
        stuck.set_ready();
        let _heartbeat = stuck.heartbeat("mailer", Duration::from_millis(1)).unwrap();

        let ended = started().build().unwrap();
        ended.set_ready();
        drop(ended.heartbeat("mailer", Duration::from_secs(60)).unwrap());

        let draining = started().build().unwrap();
        draining.set_ready();
        draining.begin_drain();

        // Waits until the cached result has expired.
        tokio::time::sleep(Duration::from_millis(1001)).await;
        let page = [("content-type", "text/html")];
        [
            ask_health(&starting, "/health").await,
            ask_health(&waiting, "/health").await,
            ask_health(&failed, "/health/ready").await,
            ask_health(&late, "/health/ready").await,
            ask_health(&stuck, "/health").await,
            ask_health(&ended, "/health").await,
            ask_health(&draining, "/health").await,
            ask(Router::new(), "/health").await,
            ask(
                Router::new().route("/health", get(async || StatusCode::UNAUTHORIZED)),
                "/health",
            )
            .await,
            ask(
                Router::new().route(
                    "/health",
                    get(async || Redirect::permanent("https://example.com/health")),
                ),
                "/health",
            )
            .await,
            ask(Router::new().route("/health", post(async || ())), "/health").await,
            ask(
                Router::new().fallback(async || (StatusCode::SERVICE_UNAVAILABLE, "no upstream")),
                "/health",
            )
            .await,
            ask(
                Router::new().fallback(async move || (page, "<!doctype html>")),
                "/health",
            )
            .await,
        ]
    });
    assert_eq!(headings("The service responds"), lines);
}

type Check = Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>>;

/// Returns a check that passes at its first run, so that the service becomes ready. Later runs
/// return what `then` returns.
fn passes_once<F, Fut>(then: F) -> impl Fn() -> Check + Send + Sync
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), &'static str>> + Send + 'static,
{
    let ran = AtomicBool::new(false);
    move || {
        if ran.swap(true, Ordering::Relaxed) {
            Box::pin(then())
        } else {
            Box::pin(async { Ok(()) })
        }
    }
}

#[test]
fn the_page_has_the_lines_of_services_that_do_not_respond() {
    // Other tests that run these examples would listen on the same ports and advertise them.
    let _worker = exclusive("worker");
    if guessing("worker").is_none() {
        return;
    }
    let guessing = |name| guessing(name).expect("mount namespaces are permitted");
    let default = match bound((Ipv4Addr::LOCALHOST, 8080).into()) {
        Ok(socket) => socket,
        Err(error) => return skipped(&format!("port 8080 cannot be bound: {error}")),
    };
    let closed = closed();
    let closed = address_of(&closed);
    let ask = |acts: Vec<Act>| {
        let address = serve(move |stream| perform(&acts, stream));
        printed_line(&run(&mut healthcheck([format!("http://{address}")])))
    };
    let json = "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"pass\",\"serviceId\":\"web\"}";
    let other = serve(move |stream| perform(&responds(json), stream));
    let stranger = run(guessing("worker").env("PORT", other.port().to_string()));
    let lines = [
        printed_line(&run(&mut worker())),
        printed_line(&run(&mut guessing("worker"))),
        printed_line(&run_probe(&format!("http://{closed}"))),
        ask(vec![Receive, Hold]),
        ask(responds(b"\x15\x03\x01\x00\x02\x02\x46")),
        ask(greets(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0")),
        ask(vec![Receive]),
        printed_line(&run(guessing("worker").env("PORT", "tcp://10.0.0.1:80"))),
        printed_line(&stranger),
    ];
    drop(default);
    let lines = lines.map(|line| line_of_the_page(&line));
    // The tests of examples/tls have a server that requires client certificates.
    let mut headings = headings("The service does not respond");
    headings.retain(|line| !line.contains("client certificate"));
    assert_eq!(headings, lines);
}
