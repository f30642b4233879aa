//! Serves the routes over HTTP, together with an axum router or on a port of their own.

#[cfg(feature = "axum")]
mod connection;
#[cfg(feature = "listener")]
mod listener;
#[cfg(feature = "axum")]
mod router;
#[cfg(feature = "axum")]
mod server;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

#[cfg(feature = "listener")]
pub use self::listener::Listener;
use crate::Health;

impl Health {
    /// Responds to a request for one of the routes, with or without a trailing slash. Returns
    /// `None` for any other path.
    async fn respond<B>(&self, method: &Method, path: &str) -> Option<Response<B>>
    where
        B: From<Bytes> + Default,
    {
        let mut routes = self.inner.settings.routes.iter();
        let path = without_slash(path);
        let route = routes.find(|route| without_slash(&route.outer_path) == path)?;
        if matches!(*method, Method::GET | Method::HEAD) {
            return Some(self.report(route.probe).await.into());
        }
        let mut response = Response::<B>::default();
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allow = HeaderValue::from_static("GET,HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        Some(response)
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}
