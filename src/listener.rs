//! Step 4a, serve: the three routes on a listener of their own, for services without axum.

use std::{collections::VecDeque, convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tracing::warn;

use crate::Health;

/// A client that has not sent its request by then never will.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes send some hundred bytes. hyper's least.
const BUFFER: usize = 8 * 1024;

/// With one more, the oldest is closed: probes come and go, so the oldest is the one that hangs,
/// and silent connections, however many, cannot keep a probe out.
const CONNECTIONS: usize = 256;

/// How long to leave the system alone when it has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The routes on an address of their own, from [`Health::listen`].
///
/// Bound and published, so its port is known; nothing is answered until it [serves](Self::serve).
#[derive(Debug)]
#[must_use = "a listener answers nothing until it serves"]
pub struct Listener {
    health: Health,
    socket: TcpListener,
}

impl Health {
    /// Binds a listener for the three routes and [publishes](Self::publish) it.
    ///
    /// For workers, gRPC servers and other services without an axum router. Beside a server of
    /// the service's own it can be green while that one is dead: where there is an HTTP server,
    /// mount the routes there.
    ///
    /// ```no_run
    /// # async fn work() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let health = lifesign::Health::builder(lifesign::build_info!()).build()?;
    /// tokio::spawn(health.listen("0.0.0.0:8080".parse()?).await?.serve());
    /// let drained = health.drain()?;
    /// health.ready();
    /// tokio::select! {
    ///     () = work() => {}
    ///     () = drained => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be bound: it is in use, is not this machine's, or the port needs
    /// privileges.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO enabled.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let socket = TcpListener::bind(address).await?;
        self.publish(socket.local_addr()?);
        Ok(Listener {
            health: self.clone(),
            socket,
        })
    }
}

impl Listener {
    /// The address that it is bound to: with port 0, the one that the system chose.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers probes as long as it is polled.
    ///
    /// It never ends by itself, so that it is closed last: spawn it, and readiness says 503
    /// through the whole drain until the process exits. Connections are bounded: 256 at once,
    /// 8 KiB of head, 2 s for the head to arrive.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with IO and time enabled.
    pub async fn serve(self) -> Infallible {
        // Owns the connections: they end with this future.
        let mut open = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
        loop {
            let connection = match self.socket.accept().await {
                Ok((stream, _)) => self.health.clone().converse(stream),
                Err(error) => {
                    warn!(%error, "the health listener cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while open.try_join_next().is_some() {}
            by_age.retain(|connection| !connection.is_finished());
            if by_age.len() == CONNECTIONS
                && let Some(oldest) = by_age.pop_front()
            {
                oldest.abort();
            }
            by_age.push_back(open.spawn(connection));
        }
    }
}

impl Health {
    pub(crate) async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        // What goes wrong on a connection is the client's affair, and it has noticed.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER)
            // `nc` and its like shut their side down before they read.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), self.service())
            .await;
    }

    fn service(
        self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > {
        service_fn(move |request: Request<Incoming>| {
            let health = self.clone();
            async move { Ok(health.respond(request.method(), request.uri().path()).await) }
        })
    }

    async fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match self.question(path) {
            Some(question) if matches!(*method, Method::GET | Method::HEAD) => {
                self.report(question).await.into_response()
            }
            Some(_) => {
                let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
                let allow = header::HeaderValue::from_static("GET,HEAD");
                response.headers_mut().insert(header::ALLOW, allow);
                response
            }
            None => empty(StatusCode::NOT_FOUND),
        }
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
