//! `serve CONTENDER CHECKS`: serves the contender's route and prints its URL. The route `/runs`
//! returns the number of runs of all checks.

use std::{env, error::Error, sync::atomic::Ordering};

use axum::routing::get;
use route::{Runs, path, router};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [contender, checks] = &*arguments else {
        return Err("expected a contender and a number of checks".into());
    };
    let runs = Runs::default();
    let counter = runs.clone();
    let app = router(contender, checks.parse()?, &runs).await.route(
        "/runs",
        get(async move || counter.load(Ordering::Relaxed).to_string()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}{}", listener.local_addr()?, path(contender));
    axum::serve(listener, app).await?;
    Ok(())
}
