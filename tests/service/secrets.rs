//! Secrets in errors, panics and environment variables are never sent. Checks return errors and
//! panic with a connection string. The test sends many kinds of requests, runs the probe, and
//! searches the responses and the probe's output. Only the log contains the string.
#![cfg(target_os = "linux")]

use std::{
    env, error, fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    panic,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use lifesign::{Health, Probe, build_info};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::support::{example, run};

/// The parts of a connection string, none of which may be sent.
const SECRETS: [&str; 4] = ["postgres://", "svc-account", "hunter2", "db.internal"];

fn secret() -> String {
    let [scheme, user, password, host] = SECRETS;
    format!("{scheme}{user}:{password}@{host}/prod")
}

/// A typical driver error: the connection string is in its text, its source and its `Debug` output.
#[derive(Debug)]
struct Refused(
    #[expect(dead_code, reason = "`Debug` prints the field")] String,
    io::Error,
);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect:\n\r\n{}", secret())
    }
}

impl error::Error for Refused {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.1)
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts one service for each combination of server, detail level and state.
async fn services() -> Vec<(Health, SocketAddr)> {
    let mut services = Vec::new();
    for status_only in [false, true] {
        for state in ["starting", "ready", "broken", "draining"] {
            let called = AtomicBool::new(false);
            let builder = Health::builder(build_info!())
                .required("required", move || {
                    let first = !called.swap(true, SeqCst);
                    async move {
                        // The first run passes, because a service becomes ready only after its
                        // required checks have passed.
                        if first && state == "ready" {
                            return Ok(());
                        }
                        let cause = io::Error::other(secret());
                        Err(Refused(secret(), cause))
                    }
                })
                .optional("optional", async || Err::<(), _>(secret()))
                .optional("panics", async || -> Result<(), String> {
                    panic!("{}", secret())
                })
                .optional("panics-at-once", || {
                    assert!(env::args().count() == 0, "{}", secret());
                    async { Ok::<(), String>(()) }
                });
            let health = builder.build().unwrap();
            let health = match status_only {
                true => health.status_only(),
                false => health,
            };
            let heartbeat = health.heartbeat("worker", Duration::from_secs(3600));
            match state {
                "ready" => health.set_ready(),
                "draining" => health.begin_drain(),
                _ => {}
            }
            match state {
                "broken" => drop(heartbeat),
                _ => heartbeat.unwrap().finish(),
            }

            let listener = health.listen("127.0.0.1:0".parse().unwrap()).unwrap();
            services.push((health.clone(), listener.local_addr().unwrap()));
            tokio::spawn(listener.serve());

            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            services.push((health.clone(), listener.local_addr().unwrap()));
            let app = health.routes();
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
    }
    services
}

fn requests() -> Vec<String> {
    let mut requests = Vec::new();
    let headers = [
        "",
        "Accept: text/html\r\n",
        "Accept: application/problem+json\r\nX-Debug: 1\r\nX-Forwarded-For: 127.0.0.1\r\n",
    ];
    let targets = [
        "/health",
        "/health/ready",
        "/health/live",
        "/health?verbose=1&detail=full",
        "/health/ready?pretty",
        "/health/required",
        "/health/../env",
        "/",
        "*",
        "http://127.0.0.1/health",
    ];
    for method in ["GET", "HEAD", "OPTIONS", "POST", "TRACE"] {
        for target in targets {
            for header in headers {
                requests.push(format!(
                    "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"
                ));
            }
        }
    }
    requests.push("GET /health HTTP/1.0\r\n\r\n".to_owned());
    requests.push("GET /health\r\n\r\n".to_owned());
    requests.push("\x16\x03\x01\0\0\0\0\r\n\r\n".to_owned());
    requests
}

/// Returns everything that the server sends until it closes the connection.
fn response(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    let mut response = Vec::new();
    // Errors are ignored. After a reset, the bytes that were received before it are still returned.
    let _ = stream.write_all(request.as_bytes());
    match stream.read_to_end(&mut response) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => response,
    }
}

/// Returns everything that the probe prints.
fn probe(address: SocketAddr) -> Vec<u8> {
    let mut said = Vec::new();
    for options in [&[][..], &["--ready"], &["--live"], &["--quiet"]] {
        let mut command = Command::new(example("service"));
        command.arg("healthcheck").arg(format!("http://{address}"));
        let outcome = run(command.args(options).env("DATABASE_URL", secret()));
        said.extend((outcome.stdout + &outcome.stderr).into_bytes());
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn error_texts_of_checks_are_never_sent() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .init();

    // The panic hook is replaced, because the checks panic often and a backtrace takes seconds to
    // print.
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains(SECRETS[0]) {
            print(panic);
        }
    }));

    let services = services().await;
    for (health, _) in &services {
        health.report(Probe::Health).await;
    }
    // The results of the first run are cached for one second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut sent = Vec::new();
    for (health, address) in services {
        for probe in [Probe::Health, Probe::Readiness, Probe::Liveness] {
            let report = health.report(probe).await;
            sent.extend(format!("{report:?}{health:?}").into_bytes());
            sent.extend(report.body());
        }
        sent.extend(
            spawn_blocking(move || {
                let requests = requests();
                let responses = requests.iter().flat_map(|r| response(address, r));
                responses.chain(probe(address)).collect::<Vec<u8>>()
            })
            .await
            .unwrap(),
        );
    }

    let sent = String::from_utf8_lossy(&sent);
    for secret in SECRETS {
        let found = sent.find(secret).map(|at| &sent[at.saturating_sub(200)..]);
        assert_eq!(found, None, "{secret} was sent");
    }
    // The responses contain every kind of failure, which proves that the checks did fail.
    let words = [
        "starting: set_ready() has not been called yet, waiting for required",
        "required failed, optional failed, panics panicked",
        "heartbeat worker was dropped",
        "draining",
        "unhealthy: 503 fail",
        "healthy: warn in",
    ];
    for words in words {
        assert!(sent.contains(words), "{words}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for secret in SECRETS {
        assert!(log.contains(secret), "{secret} is in the log");
    }
}
