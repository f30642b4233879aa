//! Measures one request to each router, without a network.

use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::BodyExt as _;
use route::{CONTENDERS, Runs, probe, router};
use tokio::runtime::Builder;
use tower::ServiceExt as _;

fn oneshot(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("50 checks");
    for contender in CONTENDERS {
        let app = runtime.block_on(router(contender, 50, &Runs::default()));
        group.bench_function(contender, |bench| {
            bench.to_async(&runtime).iter(async || {
                let response = app.clone().oneshot(probe(contender)).await;
                let body = response.expect("a router is infallible").into_body();
                body.collect().await.expect("the body is in memory")
            });
        });
    }
}

criterion_group!(benches, oneshot);
criterion_main!(benches);
