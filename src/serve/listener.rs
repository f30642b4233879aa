//! The routes on a port of their own, for services without an HTTP server.
//!
//! A connection is closed after one request, because the kubelet and most load balancers open a
//! connection for each probe.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    select,
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::Health;

/// Maximum duration of a connection, from its acceptance to the end of its response, unless the
/// checks and [`RESPONSE_MARGIN`] take longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);

/// Minimum time that a connection has in addition to the time for the checks.
const RESPONSE_MARGIN: Duration = Duration::from_secs(1);

/// Maximum length of a request head in bytes, which is hyper's minimum. Probes send a few hundred
/// bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Size of the kernel's buffers for a connection in bytes. By default, a client that sends much or
/// reads nothing makes the kernel buffer megabytes.
const SOCKET_BUFFER: u32 = 16 * 1024;

/// Maximum number of open connections. At this limit, a new connection evicts the oldest idle one.
/// A probe's connection is not idle, because a probe sends its request at once.
const CONNECTIONS_MAX: usize = 256;

/// Maximum number of evicted connections that are not closed yet.
const EVICTED_MAX: usize = 128;

/// Time in which a new connection is not evicted, so that a probe can send its request.
const GRACE_PERIOD: Duration = Duration::from_millis(10);

/// Maximum number of connections that wait to be accepted. If there are more, the kernel drops a
/// probe's SYN, which is sent again only after 1 s.
const BACKLOG: u32 = 4096;

/// Minimum time between two warnings about failed accepts. A flood would otherwise fill the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum delay after a failed accept, and minimum age of a connection that is evicted because of
/// the failure.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A bound and advertised listener for the routes, from [`Health::listen`].
///
/// ```no_run
/// # async fn example(health: lifesign::Health) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = health.listen("[::]:0".parse()?)?;
/// println!("probes at {}", listener.local_addr()?);
/// tokio::spawn(listener.serve());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a listener does nothing until `serve`"]
pub struct Listener {
    health: Health,
    socket: TcpListener,
}

impl Health {
    /// Binds a listener for the routes and [advertises](Self::advertise) its address.
    ///
    /// Use this in workers, gRPC servers and other services without an HTTP server. A service with
    /// an HTTP server should serve the routes there, because a separate listener responds even if
    /// that server hangs.
    ///
    /// ```no_run
    /// # async fn work() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
    /// tokio::spawn(health.listen("[::]:8080".parse()?)?.serve());
    /// let shutdown = health.handle_signals()?;
    /// health.set_ready();
    /// tokio::select! {
    ///     () = work() => {}
    ///     () = shutdown.started() => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be bound: it is in use, it does not belong to this machine, or the port
    /// needs privileges. Or there is no tokio runtime.
    ///
    /// # Panics
    ///
    /// If the tokio runtime was built without IO.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        Handle::try_current().map_err(io::Error::other)?;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Without `SO_REUSEADDR`, a restarted service could not bind the port for a minute. On
        // Windows, the option would let other processes take the port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit both buffer sizes.
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        self.advertise(socket.local_addr()?);
        Ok(Listener {
            health: self.clone(),
            socket,
        })
    }
}

impl Listener {
    /// Returns the bound address. If port 0 was requested, the address has the port that the system
    /// chose.
    ///
    /// # Errors
    ///
    /// The operating system does not return the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves probes for as long as the future is polled. The future never ends by itself.
    ///
    /// Spawn it, so that the routes are served during the whole drain. A connection serves one
    /// request: its head has at most 8 KiB, and its response ends within 4 s, or within 1.1 s more
    /// than the [check timeout](crate::HealthBuilder::check_timeout) if that is longer. At most 256
    /// connections are open, and up to 128 more are being closed.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with IO and time enabled.
    pub async fn serve(self) -> Infallible {
        let mut connections = Connections::default();
        let mut warned: Option<Instant> = None;
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    connections.make_room().await;
                    let progress = Arc::<Progress>::default();
                    let health = self.health.clone();
                    let connection = health.serve_connection(stream, Arc::clone(&progress));
                    connections.spawn(connection, progress);
                }
                Err(error) => {
                    // Most likely, the process has no file descriptor left, and an eviction frees
                    // one. Linux reports this error even if no client waits, so a connection that
                    // is young enough for a probe is spared.
                    if !connections.evict(ACCEPT_RETRY)
                        && warned.is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL)
                    {
                        warn!(%error, "the health listener cannot accept connections");
                        warned = Some(Instant::now());
                    }
                    connections.wait_for_close(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// The open connections. Dropping it closes them.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    by_age: Vec<Connection>,
}

struct Connection {
    task: AbortHandle,
    accepted: Instant,
    progress: Arc<Progress>,
}

impl Connections {
    fn spawn(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        progress: Arc<Progress>,
    ) {
        self.by_age.push(Connection {
            task: self.tasks.spawn(connection),
            accepted: Instant::now(),
            progress,
        });
    }

    /// Waits until one more connection may be open. If necessary, evicts an idle connection, or
    /// closes an old one.
    async fn make_room(&mut self) {
        while self.count() >= CONNECTIONS_MAX && !self.evict(GRACE_PERIOD) && !self.close_old()
            || self.tasks.len() >= CONNECTIONS_MAX + EVICTED_MAX
        {
            self.wait_for_close(GRACE_PERIOD).await;
        }
    }

    /// Returns the number of open connections without the evicted ones.
    fn count(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.by_age
            .retain(|connection| !connection.task.is_finished());
        self.by_age.len()
    }

    /// Evicts the oldest idle connection whose age is at least `age`. Returns `false` if there is
    /// none.
    fn evict(&mut self, age: Duration) -> bool {
        let now = Instant::now();
        let is_idle = |connection: &Connection| {
            now - connection.accepted >= age && !connection.progress.has_request()
        };
        let idle = self.by_age.iter().position(is_idle);
        idle.map(|i| self.by_age.remove(i).progress.evict.notify_one())
            .is_some()
    }

    /// Closes the oldest connection if it is older than [`CONNECTION_TIMEOUT`]. Its client may have
    /// given up: the listener cannot tell, because a client that waits may close its write side
    /// too.
    fn close_old(&mut self) -> bool {
        let oldest = self.by_age.first();
        let is_old = oldest.is_some_and(|oldest| oldest.accepted.elapsed() > CONNECTION_TIMEOUT);
        if is_old {
            self.by_age.remove(0).task.abort();
        }
        is_old
    }

    async fn wait_for_close(&mut self, limit: Duration) {
        let close = async {
            if self.tasks.join_next().await.is_none() {
                pending::<()>().await;
            }
        };
        let _ = timeout(limit, close).await;
    }
}

/// State of a connection, which the listener and the connection's task share.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether the head of the request has arrived.
    request: AtomicBool,
    evict: Notify,
}

impl Progress {
    fn has_request(&self) -> bool {
        self.request.load(Relaxed)
    }

    /// Waits until the connection is evicted. Never ends if the request arrived before the
    /// eviction.
    async fn evicted(&self) {
        self.evict.notified().await;
        if self.has_request() {
            pending::<()>().await;
        }
    }
}

impl Health {
    pub(crate) async fn serve_connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        progress: Arc<Progress>,
    ) {
        let (health, progress) = (&self, &*progress);
        let service = service_fn(async move |request: Request<Incoming>| {
            progress.request.store(true, Relaxed);
            let response = health.respond(request.method(), request.uri().path());
            Ok::<_, Infallible>(response.await.unwrap_or_else(not_found))
        });
        let checks = self.inner.settings.response_timeout();
        let deadline = CONNECTION_TIMEOUT.max(checks + RESPONSE_MARGIN);
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD_MAX)
            // `nc` and similar clients shut their write side down before they read the response.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        select! {
            // The connection is polled first, because its request may have arrived just before the
            // eviction.
            biased;
            // An error means that the client sent an invalid request, or is gone.
            _ = timeout(deadline, connection) => {}
            () = progress.evicted() => {}
        }
    }
}

fn not_found() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
