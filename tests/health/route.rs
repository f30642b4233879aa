//! From a registered check to a served report, in process: states, codes, headers, exact JSON.

use std::{
    future::pending,
    io,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
    middleware,
    routing::get,
};
use lifesign::{Health, HealthBuilder, Probe, RegisterError, Status, build_info};
use serde_json::{Value, json};
use tokio::time::{advance, sleep};
use tower::ServiceExt;

const ROUTES: [&str; 3] = ["/health", "/health/ready", "/health/live"];
const SECRET: &str = "postgres://svc:hunter2@db.internal/prod";

fn builder() -> HealthBuilder {
    Health::builder(build_info!())
}

/// A dependency that a test breaks and mends.
#[derive(Clone, Default)]
struct Dependency {
    broken: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Dependency {
    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn check(&self) -> impl Fn() -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
        let this = self.clone();
        move || {
            this.asked.fetch_add(1, SeqCst);
            std::future::ready(match this.broken.load(SeqCst) {
                true => Err(format!("connect to {SECRET}: refused")),
                false => Ok(()),
            })
        }
    }
}

async fn send(app: Router, method: Method, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).expect("a fixed request");
    app.oneshot(request).await.expect("routers do not fail")
}

async fn ask(health: &Health, path: &str) -> (u16, Value) {
    let response = send(health.routes(), Method::GET, path).await;
    let code = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("the body is in memory");
    (code, serde_json::from_slice(&body).expect("JSON"))
}

/// Code and status of each route: `200 pass`.
async fn row(health: &Health) -> [String; 3] {
    let mut row = [const { String::new() }; 3];
    for (cell, path) in row.iter_mut().zip(ROUTES) {
        let (code, body) = ask(health, path).await;
        let status = body["status"].as_str().expect("a status");
        *cell = format!("{code} {status}");
    }
    row
}

/// The cache has expired.
async fn next_second() {
    advance(Duration::from_millis(1001)).await;
}

#[tokio::test(start_paused = true)]
async fn starting_is_alive_and_nothing_else() {
    let health = builder().build().unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn ready_passes_everywhere() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn optional_failure_warns_and_keeps_traffic() {
    let cache = Dependency::default();
    cache.set_broken(true);
    let health = builder().optional("cache", cache.check()).build().unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 warn", "200 warn", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn required_failure_holds_traffic_back_and_restarts_nobody() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    db.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["200 warn", "503 fail", "200 pass"]);

    db.set_broken(false);
    next_second().await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn starting_lasts_until_required_checks_have_passed_once() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder().required("db", db.check()).build().unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);

    health.set_ready();
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    let (_, body) = ask(&health, "/health").await;
    assert_eq!(body["output"], "starting, waiting for db");

    db.set_broken(false);
    next_second().await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    // Latched: from now on its failure is an outage, not a start.
    db.set_broken(true);
    next_second().await;
    assert_eq!(row(&health).await, ["200 warn", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn passing_checks_do_not_start_a_service_that_has_not_said_ready() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn optional_failure_does_not_hold_back_a_start() {
    let cache = Dependency::default();
    cache.set_broken(true);
    let health = builder()
        .required("db", Dependency::default().check())
        .optional("cache", cache.check())
        .build()
        .unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 warn", "200 warn", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn late_heartbeat_is_broken_until_it_beats_again() {
    let health = builder().build().unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(30)).unwrap();
    health.set_ready();
    advance(Duration::from_secs(30)).await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    advance(Duration::from_millis(1)).await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "503 fail"]);
    let (_, body) = ask(&health, "/health/live").await;
    assert_eq!(body["output"], "heartbeat mailer is late");

    heartbeat.beat();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_heartbeat_is_broken_for_good() {
    let health = builder().build().unwrap();
    health.set_ready();
    let heartbeat = health.heartbeat("mailer", Duration::MAX).unwrap();
    let worker = tokio::spawn(async move {
        heartbeat.beat();
        panic!("the worker's bug");
    });
    assert!(worker.await.unwrap_err().is_panic());

    assert_eq!(row(&health).await, ["503 fail", "503 fail", "503 fail"]);
    let (_, body) = ask(&health, "/health").await;
    assert_eq!(body["output"], "heartbeat mailer ended");
    assert_eq!(body["checks"]["mailer"], json!([{"status": "fail"}]));
}

#[tokio::test(start_paused = true)]
async fn finished_heartbeat_may_be_silent() {
    let health = builder().build().unwrap();
    health.set_ready();
    let heartbeat = health.heartbeat("import", Duration::from_secs(1)).unwrap();
    heartbeat.finish();
    advance(Duration::from_secs(3600)).await;
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn draining_is_final_and_alive_whatever_the_workers_do() {
    let health = builder()
        .required("db", Dependency::default().check())
        .build()
        .unwrap();
    let heartbeat = health.heartbeat("mailer", Duration::from_secs(1)).unwrap();
    health.set_ready();
    assert_eq!(row(&health).await, ["200 pass", "200 pass", "200 pass"]);

    health.begin_drain();
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
    drop(heartbeat);
    health.set_ready();
    next_second().await;
    assert_eq!(row(&health).await, ["503 fail", "503 fail", "200 pass"]);
}

#[tokio::test(start_paused = true)]
async fn state_is_read_again_after_the_checks() {
    let health = builder()
        .required("slow", async || {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, io::Error>(())
        })
        .build();
    let health = health.unwrap();
    health.set_ready();
    let answer = tokio::spawn({
        let health = health.clone();
        async move { ask(&health, "/health/ready").await }
    });
    sleep(Duration::from_millis(100)).await;
    health.begin_drain();
    let (code, body) = answer.await.unwrap();
    assert_eq!((code, body["output"].as_str()), (503, Some("draining")));
}

#[tokio::test(start_paused = true)]
async fn body_is_exactly_this() {
    let cache = Dependency::default();
    cache.set_broken(true);
    let health = builder()
        .required("db", async || {
            sleep(Duration::from_millis(12)).await;
            Ok::<_, io::Error>(())
        })
        .optional("cache", cache.check())
        .build()
        .unwrap();
    let _heartbeat = health.heartbeat("mailer", Duration::from_secs(30)).unwrap();
    health.set_ready();

    let response = send(health.routes(), Method::GET, "/health").await;
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();

    let build = build_info!();
    let known = [
        ("releaseId", build.commit()),
        ("commit", build.commit()),
        ("commitDate", build.commit_date()),
        ("buildDate", build.build_date()),
    ];
    let known: String = known
        .iter()
        .filter_map(|(key, value)| Some(format!(r#""{key}":"{}","#, (*value)?)))
        .collect();
    let expected = format!(
        "{}{}{known}{}",
        r#"{"status":"warn","output":"cache fails","serviceId":"lifesign","#,
        format_args!(r#""version":"{}","#, build.version()),
        concat!(
            r#""checks":{"db:responseTime":"#,
            r#"[{"status":"pass","observedValue":12.0,"observedUnit":"ms"}],"#,
            r#""cache:responseTime":"#,
            r#"[{"status":"fail","observedValue":0.0,"observedUnit":"ms"}],"#,
            r#""mailer":[{"status":"pass"}]}}"#
        )
    );
    assert_eq!(str::from_utf8(&body).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn status_only_is_exactly_that() {
    let db = Dependency::default();
    db.set_broken(true);
    let health = builder()
        .required("db", db.check())
        .status_only()
        .build()
        .unwrap();
    let (code, body) = ask(&health, "/health").await;
    assert_eq!((code, body), (503, json!({"status": "fail"})));
}

#[tokio::test(start_paused = true)]
async fn liveness_runs_no_check() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    ask(&health, "/health/live").await;
    assert_eq!(db.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn head_has_the_headers_of_get_and_no_body() {
    let health = builder().build().unwrap();
    for path in ROUTES {
        for method in [Method::GET, Method::HEAD] {
            let response = send(health.routes(), method.clone(), path).await;
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], "application/health+json");
            assert_eq!(headers[header::CACHE_CONTROL], "no-store");
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_not_allowed() {
    let health = builder().build().unwrap();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = send(health.routes(), method, "/health").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    }
}

#[tokio::test(start_paused = true)]
async fn layers_before_the_merge_do_not_touch_the_routes() {
    let health = builder().build().unwrap();
    health.set_ready();
    let app = Router::new()
        .route("/", get(async || "hello"))
        .layer(middleware::from_fn(
            async |_: axum::extract::Request, _: middleware::Next| StatusCode::UNAUTHORIZED,
        ))
        .merge(health.routes());
    let root = send(app.clone(), Method::GET, "/").await;
    let probe = send(app, Method::GET, "/health").await;
    assert_eq!(root.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(probe.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn paths_are_the_services_to_choose() {
    let health = builder()
        .path(Probe::Health, "/healthz")
        .path(Probe::Readiness, "/readyz")
        .path(Probe::Liveness, "/livez")
        .build()
        .unwrap();
    for (path, code) in [
        ("/healthz", 503),
        ("/readyz", 503),
        ("/livez", 200),
        ("/health", 404),
    ] {
        let response = send(health.routes(), Method::GET, path).await;
        assert_eq!(response.status(), code, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_simultaneous_probes_run_a_slow_check_once() {
    let db = Dependency::default();
    let check = db.check();
    let health = builder()
        .required("db", move || {
            let answer = check();
            async move {
                sleep(Duration::from_millis(500)).await;
                answer.await
            }
        })
        .build()
        .unwrap();
    health.set_ready();
    let probes: Vec<_> = (0..1000)
        .map(|_| {
            let health = health.clone();
            tokio::spawn(async move { ask(&health, "/health/ready").await.0 })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap(), 200);
    }
    assert_eq!(db.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_answers_for_one_second_from_its_start() {
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    for _ in 0..3 {
        ask(&health, "/health").await;
        ask(&health, "/health/ready").await;
    }
    assert_eq!(db.asked(), 1);
    advance(Duration::from_millis(999)).await;
    ask(&health, "/health").await;
    assert_eq!(db.asked(), 1);
    advance(Duration::from_millis(1)).await;
    ask(&health, "/health").await;
    assert_eq!(db.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails_at_the_deadline_and_is_aborted() {
    struct Running(Arc<AtomicBool>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let health = builder()
        .required("hangs", {
            let ended = Arc::clone(&ended);
            move || {
                let running = Running(Arc::clone(&ended));
                async move {
                    let _running = running;
                    pending::<Result<(), io::Error>>().await
                }
            }
        })
        .optional("well", Dependency::default().check())
        .build()
        .unwrap();
    let asked = tokio::time::Instant::now();
    let (code, body) = ask(&health, "/health/ready").await;
    assert_eq!(asked.elapsed(), Duration::from_millis(800));
    assert_eq!(code, 503);
    assert_eq!(body["output"], "starting, waiting for hangs");
    assert_eq!(body["checks"]["hangs:responseTime"][0]["status"], "fail");
    assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
    tokio::task::yield_now().await;
    assert!(ended.load(SeqCst), "the task was left running");
}

#[tokio::test(start_paused = true)]
async fn all_checks_share_one_deadline() {
    let mut builder = builder();
    for name in ["a", "b", "c", "d"] {
        builder = builder.required(name, async || pending::<Result<(), io::Error>>().await);
    }
    let health = builder.build().unwrap();
    let asked = tokio::time::Instant::now();
    ask(&health, "/health").await;
    assert_eq!(asked.elapsed(), Duration::from_millis(800));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_check_is_a_failure_of_that_check_alone() {
    let calls = AtomicUsize::new(0);
    let health = builder()
        .required("panics", move || {
            // Once in the closure, once in the future, then never again.
            let call = calls.fetch_add(1, SeqCst);
            assert!(call != 0, "in the closure: {SECRET}");
            async move {
                assert!(call != 1, "in the future: {SECRET}");
                Ok::<_, io::Error>(())
            }
        })
        .optional("well", Dependency::default().check())
        .build()
        .unwrap();
    health.set_ready();
    for _ in 0..2 {
        let (code, body) = ask(&health, "/health/ready").await;
        assert_eq!(code, 503);
        assert_eq!(body["checks"]["panics:responseTime"][0]["status"], "fail");
        assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
        next_second().await;
    }
    assert_eq!(ask(&health, "/health/ready").await.0, 200);
}

#[tokio::test]
async fn a_late_success_is_a_failure() {
    let health = builder()
        // It blocks the only thread, so that no timer can fire before it succeeds.
        .required("late", async || {
            thread::sleep(Duration::from_millis(900));
            Ok::<_, io::Error>(())
        })
        .build()
        .unwrap();
    health.set_ready();
    let (code, body) = ask(&health, "/health/ready").await;
    assert_eq!(code, 503);
    assert_eq!(body["checks"]["late:responseTime"][0]["status"], "fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_that_blocks_its_thread_is_late_and_not_started_again() {
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let calls = Arc::new(AtomicUsize::new(0));
    let health = builder()
        .required("blocks", {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, SeqCst);
                let blocked = Arc::clone(&blocked);
                async move {
                    let _ = blocked
                        .lock()
                        .unwrap()
                        .recv_timeout(Duration::from_secs(20));
                    Ok::<_, io::Error>(())
                }
            }
        })
        .build()
        .unwrap();
    health.set_ready();
    for _ in 0..2 {
        let asked = Instant::now();
        let report = health.report(Probe::Readiness).await;
        assert_eq!(report.status(), Status::Fail);
        assert!(asked.elapsed() < Duration::from_millis(1500));
        sleep(Duration::from_millis(1001)).await;
    }
    assert_eq!(calls.load(SeqCst), 1);
    assert_eq!(health.report(Probe::Liveness).await.status(), Status::Pass);
    unblock.send(()).unwrap();
}

#[test]
fn a_runtime_that_is_blocked_holds_up_no_prober_of_another() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    // The run is started here, and then nobody drives this runtime: its thread does other things.
    let blocked = runtime();
    blocked.block_on(async {
        tokio::select! {
            biased;
            _ = health.report(Probe::Readiness) => panic!("nobody has run it"),
            () = std::future::ready(()) => {}
        }
    });

    let (tells, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let row = || runtime().block_on(row(&health));
        tells.send([row(), row()]).unwrap();
    });
    let [first, second] = told
        .recv_timeout(Duration::from_secs(5))
        .expect("an answer within the deadline");
    assert_eq!(first, ["503 fail", "200 pass", "200 pass"]);
    assert_eq!(second, ["200 pass", "200 pass", "200 pass"]);
    assert_eq!(db.asked(), 1);
    drop(blocked);
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_hangs_up_spoils_nobodys_answer() {
    let db = Dependency::default();
    let check = db.check();
    let health = builder()
        .required("db", move || {
            let answer = check();
            async move {
                sleep(Duration::from_millis(500)).await;
                answer.await
            }
        })
        .build()
        .unwrap();
    health.set_ready();
    let impatient = tokio::time::timeout(Duration::from_millis(100), ask(&health, "/health"));
    assert!(impatient.await.is_err());

    let (code, _) = ask(&health, "/health").await;
    assert_eq!((code, db.asked()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn error_texts_stay_in_the_log_which_tells_each_change_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish(),
    );
    let db = Dependency::default();
    let health = builder().required("db", db.check()).build().unwrap();
    health.set_ready();
    for broken in [true, true, true, false, false, true] {
        db.set_broken(broken);
        for path in ROUTES {
            let response = send(health.routes(), Method::GET, path).await;
            let head = format!("{:?}", response.headers());
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(!(head + &body).contains("hunter2"), "{path}");
        }
        next_second().await;
    }
    let log = log.text();
    assert_eq!(log.matches("check failed").count(), 2, "{log}");
    assert_eq!(log.matches(SECRET).count(), 2, "{log}");
    assert_eq!(log.matches("check recovered").count(), 1, "{log}");
}

#[tokio::test]
async fn a_log_that_blocks_holds_up_no_worker() {
    let log = BlockedLog::default();
    let entered = Arc::clone(&log.entered);
    let health = builder().build().unwrap();
    drop(health.heartbeat("dies", Duration::MAX).unwrap());
    let asked = health.clone();
    let asking = thread::spawn(move || in_runtime(log, asked.report(Probe::Liveness)).status());
    entered.wait();

    // The asking thread stands in its log now, and stays there until it is let go.
    let (tells, told) = std::sync::mpsc::channel();
    let other = health.clone();
    thread::spawn(move || tells.send(other.heartbeat("lives", Duration::MAX)));
    let heartbeat = told.recv_timeout(Duration::from_secs(5));

    entered.wait();
    assert_eq!(asking.join().unwrap(), Status::Fail);
    heartbeat.expect("no lock is held").unwrap().finish();
}

#[tokio::test]
async fn a_log_that_blocks_holds_up_no_answer() {
    let log = BlockedLog::default();
    let entered = Arc::clone(&log.entered);
    let health = builder()
        .required("down", async || Err::<(), _>("down"))
        .optional("well", async || Ok::<_, io::Error>(()))
        .build()
        .unwrap();
    health.set_ready();
    let first = health.clone();
    let asking = thread::spawn(move || in_runtime(log, first.report(Probe::Readiness)).status());
    entered.wait();

    // The run stands in its log now, and has ended all the same.
    let (code, body) = ask(&health, "/health/ready").await;

    entered.wait();
    assert_eq!(asking.join().unwrap(), Status::Fail);
    assert_eq!(code, 503);
    assert_eq!(body["checks"]["down:responseTime"][0]["status"], "fail");
    assert_eq!(body["checks"]["well:responseTime"][0]["status"], "pass");
}

/// With a runtime and a log of its own.
fn in_runtime<T>(log: BlockedLog, future: impl Future<Output = T>) -> T {
    let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

#[test]
fn mistakes_are_told_when_the_registry_is_built() {
    let ok = async || Ok::<_, io::Error>(());
    let names = |names: &[&str]| {
        let add = |b: HealthBuilder, name: &&str| b.optional(*name, ok);
        names.iter().fold(builder(), add).build()
    };
    let paths = |health: &str, ready: &str, live: &str| {
        builder()
            .path(Probe::Health, health)
            .path(Probe::Readiness, ready)
            .path(Probe::Liveness, live)
            .build()
    };
    let long = "x".repeat(65);
    for (built, text) in [
        (
            names(&[""]),
            "name \"\": expected 1 to 64 letters, digits, '-', '_' or '.'".to_owned(),
        ),
        (
            names(&["db:x"]),
            "name \"db:x\": expected 1 to 64 letters, digits, '-', '_' or '.'".to_owned(),
        ),
        (
            names(&[&long]),
            format!("name {long:?}: expected 1 to 64 letters, digits, '-', '_' or '.'"),
        ),
        (
            names(&["db", "cache", "db"]),
            "name \"db\" is registered twice".to_owned(),
        ),
        (
            paths("/a", "/b", "/a"),
            "two routes have the path \"/a\"".to_owned(),
        ),
        (
            paths("a", "/b", "/c"),
            "path \"a\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
        (
            paths("/{id}", "/b", "/c"),
            "path \"/{id}\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
        (
            builder().nested_under("api").build(),
            "path \"api\": expected '/' and then letters, digits, '/', '-', '_', '.' or '~'"
                .to_owned(),
        ),
    ] {
        assert_eq!(built.unwrap_err().to_string(), text);
    }
}

#[tokio::test]
async fn mistakes_in_heartbeats_are_told_when_they_are_registered() {
    let health = builder()
        .optional("db", async || Ok::<_, io::Error>(()))
        .build()
        .unwrap();
    let text = |result: Result<_, RegisterError>| result.map(drop).unwrap_err().to_string();
    let second = Duration::from_secs(1);
    assert_eq!(
        text(health.heartbeat("db", second)),
        "name \"db\" is registered twice"
    );
    assert_eq!(
        text(health.heartbeat("worker", Duration::ZERO)),
        "heartbeat \"worker\": expected a period of at least 1ms, not 0ns"
    );
    let first = health.heartbeat("worker", second).unwrap();
    assert_eq!(
        text(health.heartbeat("worker", second)),
        "name \"worker\" is registered twice"
    );
    first.finish();
    health.heartbeat("worker", second).unwrap().finish();
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_takes_the_place_of_a_finished_one_has_its_own_name() {
    let health = builder().build().unwrap();
    health.set_ready();
    let first = health.heartbeat("first", Duration::MAX).unwrap();
    let (_, body) = ask(&health, "/health/live").await;
    assert_eq!(body["checks"], json!({"first": [{"status": "pass"}]}));

    first.finish();
    let second = health.heartbeat("second", Duration::MAX).unwrap();
    let (_, body) = ask(&health, "/health/live").await;
    assert_eq!(body["checks"], json!({"second": [{"status": "pass"}]}));
    second.finish();
}

/// A log that a test reads.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A log whose first line waits to be let go.
#[derive(Clone)]
struct BlockedLog {
    entered: Arc<Barrier>,
    blocks: Arc<AtomicBool>,
}

impl Default for BlockedLog {
    fn default() -> Self {
        Self {
            entered: Arc::new(Barrier::new(2)),
            blocks: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl io::Write for BlockedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.blocks.swap(false, SeqCst) {
            self.entered.wait();
            self.entered.wait();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
