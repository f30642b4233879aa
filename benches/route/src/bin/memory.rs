//! Allocations of a request, and what more checks cost, as Markdown.

use std::{
    alloc::System,
    hint::black_box,
    time::{Duration, Instant},
};

use axum::Router;
use http_body_util::BodyExt as _;
use route::{CONTENDERS, Runs, question, router};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| 50 checks | allocations of a request | bytes of a request |\n|---|--:|--:|");
    for contender in CONTENDERS {
        let app = router(contender, 50, &Runs::default()).await;
        ask(&app, contender).await;
        // The fewest of many: a second may end, and with it an evaluation's use.
        let (mut count, mut bytes) = (usize::MAX, usize::MAX);
        for _ in 0..1000 {
            let region = Region::new(ALLOCATOR);
            ask(&app, contender).await;
            let change = region.change();
            count = count.min(change.allocations + change.reallocations);
            bytes = bytes.min(change.bytes_allocated);
        }
        println!("| {contender} | {count} | {bytes} |");
    }

    println!(
        "\n| checks | first answer, µs | µs a check | bytes held | bytes a check |\n|--:|--:|--:|--:|--:|"
    );
    for checks in [1, 10, 100, 1000] {
        let mut times = Vec::new();
        let mut held = 0;
        for _ in 0..51 {
            let region = Region::new(ALLOCATOR);
            let app = router("lifesign", checks, &Runs::default()).await;
            let start = Instant::now();
            ask(&app, "lifesign").await;
            times.push(start.elapsed());
            // The tasks of the checks end after they have been heard.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let change = region.change();
            held = change.bytes_allocated - change.bytes_deallocated;
        }
        times.sort();
        let time = times[times.len() / 2].as_nanos() as f64 / 1000.0;
        let per = |total: f64| total / checks as f64;
        println!(
            "| {checks} | {time:.0} | {:.2} | {held} | {:.0} |",
            per(time),
            per(held as f64)
        );
    }
}

async fn ask(app: &Router, contender: &str) {
    let answer = app.clone().oneshot(question(contender)).await;
    let answer = answer.expect("it cannot fail");
    assert_eq!(answer.status(), 200);
    black_box(answer.into_body().collect().await.expect("it is in memory"));
}
