//! The routes as an axum router.

use axum::{Router, routing::get};

use super::without_slash;
use crate::Health;

impl Health {
    /// Returns a router with the routes. Merge it into the service's router *after* all layers.
    ///
    /// | route | probe | for |
    /// |---|---|---|
    /// | `/health` | [is it up?](crate::Probe::Health) | Docker's `HEALTHCHECK`, Compose, Swarm, ECS |
    /// | `/health/ready` | [traffic?](crate::Probe::Readiness) | load balancers, Kubernetes readiness |
    /// | `/health/live` | [restart?](crate::Probe::Liveness) | Kubernetes liveness and startup |
    ///
    /// The routes accept `GET` and `HEAD`. Each is also served with a trailing slash, where
    /// otherwise a catch-all route of the service could respond with 200. A layer that is added
    /// before the merge does not apply to the routes: probes are not authenticated, traced or
    /// limited.
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
            let get = get(async move || health.report(probe).await);
            match without_slash(&route.path) {
                "" => router.route("/", get),
                path => router
                    .route(path, get.clone())
                    .route(&format!("{path}/"), get),
            }
        })
    }
}
