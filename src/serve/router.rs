//! Step 4a, serve: the three routes as an axum router.

use axum::{
    Router,
    routing::{MethodRouter, get},
};

use crate::{Health, Probe};

impl Health {
    /// The routes, to be merged into the service's router *after* its layers.
    ///
    /// | route | probe | for |
    /// |---|---|---|
    /// | `GET /health` | [is it up?](Probe::Health) | Docker's `HEALTHCHECK`, Compose, Swarm, ECS |
    /// | `GET /health/ready` | [traffic?](Probe::Readiness) | load balancers, Kubernetes readiness |
    /// | `GET /health/live` | [restart it?](Probe::Liveness) | Kubernetes liveness and startup |
    ///
    /// `HEAD` is answered too, other methods with 405. A layer that is added before the merge does
    /// not touch the routes, and that is the point: authentication, host checks, tracing and load
    /// shedding are for requests, not for probes.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
    /// let app: Router = Router::new()
    ///     .route("/", get(async || "hello"))
    ///     // .layer(…) goes here
    ///     .merge(health.routes());
    /// # Ok::<(), lifesign::RegisterError>(())
    /// ```
    pub fn routes<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let [health, ready, live] = self.paths().map(|(probe, path)| (path, self.ask(probe)));
        Router::new()
            .route(health.0, health.1)
            .route(ready.0, ready.1)
            .route(live.0, live.1)
    }

    fn ask<S>(&self, probe: Probe) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let health = self.clone();
        get(async move || health.report(probe).await)
    }
}
