//! Measures allocations per request, and the costs of up to 1000 checks. Prints Markdown and writes
//! `checks.svg`.

use std::{
    alloc::System,
    fmt::Write as _,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use axum::Router;
use http_body_util::BodyExt as _;
use route::{CONTENDERS, Runs, probe, router};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| 50 checks | allocations per request | bytes per request |\n|---|--:|--:|");
    for contender in CONTENDERS {
        let app = router(contender, 50, &Runs::default()).await;
        request(&app, contender).await;
        // The minimum counts, because a request that starts a new evaluation allocates more.
        let (mut count, mut bytes) = (usize::MAX, usize::MAX);
        for _ in 0..1000 {
            let region = Region::new(ALLOCATOR);
            request(&app, contender).await;
            let change = region.change();
            count = count.min(change.allocations + change.reallocations);
            bytes = bytes.min(change.bytes_allocated);
        }
        println!("| {contender} | {count} | {bytes} |");
    }

    println!(
        "\n| checks | first response, µs | µs per check | bytes allocated | bytes per check |\n|--:|--:|--:|--:|--:|"
    );
    let mut points = Vec::new();
    for checks in [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] {
        let mut times = Vec::new();
        let mut held = 0;
        for _ in 0..51 {
            let region = Region::new(ALLOCATOR);
            let app = router("lifesign", checks, &Runs::default()).await;
            let start = Instant::now();
            request(&app, "lifesign").await;
            times.push(start.elapsed());
            // A check's task frees its memory when it ends, shortly after it has sent its result.
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
        points.push((checks as f64, time, held as f64));
    }
    fs::write("checks.svg", plot(&points)).expect("write checks.svg");
}

/// Draws two log-log plots. Where the growth is linear, the curve is parallel to the grey line.
fn plot(points: &[(f64, f64, f64)]) -> String {
    const SIDE: f64 = 280.0;
    let mut svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"350\" \
                   font-family=\"sans-serif\" font-size=\"12\">\n\
                   <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        .to_owned();
    let panels = [
        (
            60.0,
            1.0,
            "µs per evaluation",
            points.iter().map(|p| p.1).collect(),
        ),
        (
            480.0,
            1000.0,
            "bytes allocated",
            points.iter().map(|p| p.2).collect::<Vec<_>>(),
        ),
    ];
    for (left, least, title, values) in panels {
        // The horizontal axis has three decades, for the number of checks. The vertical axis has
        // four.
        let x = |checks: f64| left + checks.log10() / 3.0 * SIDE;
        let y = |value: f64| 20.0 + SIDE - (value / least).log10() / 4.0 * SIDE;
        for decade in 0..=3 {
            let checks = 10_f64.powi(decade);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.0} 20V300\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.0}\" y=\"316\" text-anchor=\"middle\">{checks}</text>",
                at = x(checks),
            );
        }
        for decade in 0..=4 {
            let value = least * 10_f64.powi(decade);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at:.0}h{SIDE}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{value}</text>",
                left - 6.0,
                y(value) + 4.0,
                at = y(value),
            );
        }
        let last = points[points.len() - 1].0;
        let slope = values[values.len() - 1];
        let _ = writeln!(
            svg,
            "<path d=\"M{:.0} {:.0}L{:.0} {:.0}\" stroke=\"#b8c4cc\" stroke-width=\"2\"/>\
             <text x=\"{:.0}\" y=\"336\" text-anchor=\"middle\">{title} by number of checks</text>",
            x(last * least / slope),
            y(least),
            x(last),
            y(slope),
            left + SIDE / 2.0,
        );
        for ((checks, ..), value) in points.iter().zip(&values) {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#2a7f62\"/>",
                x(*checks),
                y(*value)
            );
        }
    }
    svg + "</svg>\n"
}

async fn request(app: &Router, contender: &str) {
    let response = app.clone().oneshot(probe(contender)).await;
    let response = response.expect("a router is infallible");
    assert_eq!(response.status(), 200);
    black_box(
        response
            .into_body()
            .collect()
            .await
            .expect("the body is in memory"),
    );
}
