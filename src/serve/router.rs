//! Step 4a, serve: the three routes as an axum router.

use axum::{Router, routing::get};

use crate::Health;

impl Health {
    /// The routes, to be merged into the service's router *after* its layers.
    ///
    /// | route | probe | for |
    /// |---|---|---|
    /// | `GET /health` | [is it up?](crate::Probe::Health) | Docker's `HEALTHCHECK`, Compose, Swarm, ECS |
    /// | `GET /health/ready` | [traffic?](crate::Probe::Readiness) | load balancers, Kubernetes readiness |
    /// | `GET /health/live` | [restart it?](crate::Probe::Liveness) | Kubernetes liveness and startup |
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
        let routes = &self.inner.settings.routes;
        routes.iter().fold(Router::new(), |router, route| {
            let (health, probe) = (self.clone(), route.probe);
            router.route(&route.path, get(async move || health.report(probe).await))
        })
    }
}
