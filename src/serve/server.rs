//! Serves an axum router from the start of the service to its end.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use http::{HeaderValue, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    task::{JoinSet, unconstrained},
    time::timeout,
};
use tracing::warn;

use super::{connection, without_slash};
use crate::{Endpoint, Health, Shutdown, health::lock, identity};

/// Maximum number of queued connections to accept at the end of the drain delay. Without a limit,
/// new clients could prolong the delay. The queue of tokio's listener holds 128 by default.
const BACKLOG: usize = 1024;

impl Health {
    /// Serves a router from the start of the service to its end.
    ///
    /// Advertises the listener's address, unless the service has [advertised](Self::advertise)
    /// another one. Serves the three health routes outside the router and all of its layers.
    /// Installs the [signal handlers](Self::handle_signals), calls [`set_ready`](Self::set_ready),
    /// and serves. When the drain begins:
    ///
    /// 1. During the [drain delay](crate::HealthBuilder::drain_delay), the server still accepts
    ///    connections and requests. HTTP/1 responses have the header `Connection: close`, and
    ///    HTTP/2 connections get GOAWAY.
    /// 2. At the end of the delay, the server closes the port, and all connections without a
    ///    request in flight.
    /// 3. Requests in flight may take as long as the
    ///    [shutdown timeout](crate::HealthBuilder::shutdown_timeout). Then the remaining
    ///    connections are cut, and their number is logged.
    ///
    /// The listener can be any that `axum::serve` accepts. The server speaks HTTP/1. If axum's
    /// feature `http2` is enabled, it also speaks HTTP/2, and WebSocket over HTTP/2 (RFC 8441).
    /// Handlers can extract `ConnectInfo<L::Addr>`. For other information about a connection, such
    /// as the user of a Unix socket's peer, implement [`Listener`] with an address that contains
    /// this information, and [advertise](Self::advertise) the endpoint. An HTTP/1 client that takes
    /// longer than 30 s to send the head of a request is disconnected. For TLS, for two ports, or
    /// for a server of another framework, use the [shutdown handle](Shutdown) instead.
    ///
    /// The handler of a WebSocket should close it after [`Shutdown::started`], because the server
    /// does not treat an open WebSocket as a request in flight.
    ///
    /// ```no_run
    /// # use axum::{Router, routing::get};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
    /// let app = Router::new().route("/", get(async || "hello"));
    /// let listener = tokio::net::TcpListener::bind("[::]:8080").await?;
    /// health.serve(listener, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - The signal handlers cannot be installed.
    /// - The drain began before the service was ready. The error's kind is
    ///   [`Interrupted`](io::ErrorKind::Interrupted).
    /// - A heartbeat was late or dropped when the drain began, or a worker with a heartbeat
    ///   panicked after that.
    ///
    /// # Panics
    ///
    /// If the router has a route for `GET`, or for any method, at the path of a health route, with
    /// or without a trailing slash. A route for another method does not panic, but its requests get
    /// status code 405.
    pub async fn serve<L>(&self, listener: L, app: Router) -> io::Result<()>
    where
        L: Listener<Addr: Clone + Sync + 'static>,
    {
        self.serve_after(listener, async { Ok(app) }).await
    }

    /// Serves the router that the start-up work returns, as [`serve`](Self::serve) does.
    ///
    /// Use this for work that takes long, such as a migration. Until the work is done, health and
    /// readiness fail, liveness passes, and all other requests get status code 503. A signal drops
    /// the work at its current `.await`.
    ///
    /// ```no_run
    /// # use axum::Router;
    /// # use lifesign::Health;
    /// # use std::{error::Error, io};
    /// # #[derive(Clone)]
    /// # struct Pool;
    /// # impl Pool {
    /// #     async fn connect() -> io::Result<Self> { Ok(Self) }
    /// #     async fn migrate(&self) -> io::Result<()> { Ok(()) }
    /// # }
    /// # fn app(_: Pool) -> Router { Router::new() }
    /// async fn start() -> Result<Router, Box<dyn Error>> {
    ///     let pool = Pool::connect().await?;
    ///     pool.migrate().await?;
    ///     Ok(app(pool))
    /// }
    ///
    /// # async fn example(health: Health) -> Result<(), Box<dyn Error>> {
    /// let listener = tokio::net::TcpListener::bind("[::]:8080").await?;
    /// health.serve_after(listener, start()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `serve`, and those of the start-up work.
    ///
    /// # Panics
    ///
    /// Those of `serve`.
    pub async fn serve_after<L, F, E>(&self, mut listener: L, startup: F) -> Result<(), E>
    where
        L: Listener<Addr: Clone + Sync + 'static>,
        F: Future<Output = Result<Router, E>>,
        E: From<io::Error>,
    {
        let server = Arc::new(Server {
            health: self.clone(),
            shutdown: self.handle_signals()?,
            app: OnceLock::new(),
            cut: AtomicUsize::new(0),
        });
        self.advertise_listener(&listener);
        let mut connections = JoinSet::new();
        {
            let mut accepting = pin!(server.accept(&mut listener, &mut connections));
            let app = select! {
                biased;
                app = server.shutdown.startup(startup) => app??,
                never = accepting.as_mut() => match never {},
            };
            self.assert_unrouted(&app);
            // This is the only place that sets the app, so it cannot fail.
            let _ = server.app.set(TowerToHyperService::new(app.with_state(())));
            self.set_ready();
            select! {
                () = server.shutdown.delay_over() => {}
                never = accepting => match never {},
            }
        }
        for _ in 0..BACKLOG {
            let accept = timeout(Duration::ZERO, unconstrained(listener.accept()));
            let Ok((io, address)) = accept.await else {
                break;
            };
            connections.spawn(Arc::clone(&server).serve(io, address));
        }
        drop(listener);
        server.end(connections).await;
        match server.shutdown.broken() {
            None => Ok(()),
            Some(broken) => Err(io::Error::other(format!("ended while broken: {broken}")).into()),
        }
    }

    /// Panics if the router has a route at the path of a health route.
    fn assert_unrouted(&self, app: &Router) {
        for route in &self.inner.settings.routes {
            let with_slash = format!("{}/", without_slash(&route.outer_path));
            for path in [&*route.outer_path, &with_slash] {
                // `route` panics if `app` has a handler for `GET` or a fallback at this path.
                let ours = get(async || {}).fallback(async || {});
                let _ = app.clone().route(path, ours);
            }
        }
    }

    fn advertise_listener<L: Listener<Addr: 'static>>(&self, listener: &L) {
        if lock(&self.inner.advertisement).is_some() {
            return;
        }
        match listener.local_addr() {
            Ok(address) => match endpoint(&address) {
                Some(endpoint) => drop(self.advertise(endpoint)),
                None => warn!("the listener has no address for healthcheck: call `advertise`"),
            },
            Err(error) => warn!(%error, "the listener has no address for healthcheck"),
        }
    }
}

/// Returns the endpoint for a listener's address, or `None` for an address that is neither TCP nor
/// a named Unix socket.
fn endpoint(address: &dyn Any) -> Option<Endpoint> {
    #[cfg(unix)]
    if let Some(address) = address.downcast_ref::<tokio::net::unix::SocketAddr>() {
        return address.as_pathname().map(Endpoint::unix);
    }
    address.downcast_ref::<SocketAddr>().map(|&tcp| tcp.into())
}

/// The state that all connections of a server share.
struct Server {
    health: Health,
    shutdown: Shutdown,
    /// Empty until the start-up work is done.
    app: OnceLock<TowerToHyperService<Router>>,
    /// Number of HTTP/2 connections that were cut before the shutdown timeout.
    cut: AtomicUsize,
}

impl Server {
    async fn accept<L>(
        self: &Arc<Self>,
        listener: &mut L,
        connections: &mut JoinSet<()>,
    ) -> Infallible
    where
        L: Listener<Addr: Clone + Sync + 'static>,
    {
        loop {
            // `accept` can be in a TLS handshake, so the end of another connection must not cancel
            // it.
            let mut accept = pin!(listener.accept());
            let (io, address) = loop {
                select! {
                    accepted = accept.as_mut() => break accepted,
                    Some(_) = connections.join_next() => {}
                }
            };
            connections.spawn(Arc::clone(self).serve(io, address));
        }
    }

    /// Waits until the connections end, or cuts them at the shutdown timeout.
    async fn end(&self, mut connections: JoinSet<()>) {
        select! {
            biased;
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = self.shutdown.timed_out() => {}
        }
        while connections.try_join_next().is_some() {}
        let connections = connections.len() + self.cut.load(Ordering::Relaxed);
        if connections > 0 {
            warn!(connections, "connections cut");
        }
    }

    async fn serve<I, A>(self: Arc<Self>, io: I, address: A)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        A: Clone + Send + Sync + 'static,
    {
        let respond = |mut request: Request| {
            request
                .extensions_mut()
                .insert(ConnectInfo(address.clone()));
            let server = Arc::clone(&self);
            async move { server.respond(request).await }
        };
        if !connection::serve(io, &self.shutdown, respond).await {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn respond(&self, request: Request) -> Response {
        let (method, path) = (request.method(), request.uri().path());
        if let Some(response) = self.health.respond(method, path).await {
            return response;
        }
        let is_probe = request.headers().contains_key(identity::PROBE_HEADER);
        match self.app.get() {
            Some(app) => {
                let response = app.call(request).await;
                let mut response = response.unwrap_or_else(|never| match never {});
                // For `healthcheck /path`, a route of the app responds, and must prove that it is
                // from this service.
                if is_probe && let Ok(own) = identity::own() {
                    let own = HeaderValue::from_static(own);
                    response.headers_mut().insert(identity::HEADER, own);
                }
                response
            }
            None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        }
    }
}
