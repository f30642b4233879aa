//! Step 4a, serve: the three routes on a listener of their own, for services without axum.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

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
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    select,
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::Health;

/// A client that has not sent its request by then never will. On a kept connection it counts from the
/// answer before: with whole seconds, probers that keep their connection would come when it closes.
const HEADER_READ_TIMEOUT: Duration = Duration::from_millis(2500);

/// The first answer after that is a connection's last, and says so: its client is told before it asks
/// again.
const LIFE: Duration = Duration::from_secs(60);

/// However a client behaves, its connection ends then: what hyper does with one that sends much, and
/// reads nothing, is not for us to know. Time for one more request and its answer.
const END: Duration = LIFE.saturating_add(Duration::from_secs(5));

/// Probes send some hundred bytes. hyper's least.
const BUFFER: usize = 8 * 1024;

/// What the system may keep of what a client sends, and of answers that it does not read. Of its
/// own accord it would keep megabytes of them, for each connection.
const SYSTEM_BUFFER: u32 = 16 * 1024;

/// With one more, the oldest that is not being answered has to make room: probes come and go, so it
/// is the one that hangs, and silent connections cannot keep out a probe that sends its request at
/// once. One whose answer is being made never has to; that takes 0.9 s at most.
const CONNECTIONS: usize = 256;

/// Of connections that wait to be accepted; the system may take fewer. With tokio's own 128 a flood
/// fills it, and the probe that finds it full tries again after a second: too late.
const BACKLOG: u32 = 4096;

/// Those that are about to make room, at most.
const LEAVING: usize = 128;

/// So long a connection has before it counts as one that hangs: its request is on its way.
const YOUNG: Duration = Duration::from_millis(10);

/// How long one that is to make room looks whether its request has come.
const LOOK: Duration = Duration::from_millis(1);

/// What is logged is not logged again for so long: it can be a client's doing.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// How long to leave the system alone when it has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The routes on an address of their own, from [`Health::listen`].
///
/// Bound and advertised, so its port is known; nothing is answered until it [serves](Self::serve).
#[derive(Debug)]
#[must_use = "a listener answers nothing until it serves"]
pub struct Listener {
    health: Health,
    socket: TcpListener,
}

impl Health {
    /// Binds a listener for the three routes and [advertises](Self::advertise) it.
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
    /// tokio::spawn(health.listen("0.0.0.0:8080".parse()?)?.serve());
    /// let shutdown = health.handle_signals()?;
    /// health.set_ready();
    /// tokio::select! {
    ///     () = work() => {}
    ///     () = shutdown.delay_over() => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be bound: it is in use, is not this machine's, or the port needs
    /// privileges. There is no tokio runtime.
    ///
    /// # Panics
    ///
    /// In a tokio runtime that was built without IO.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        Handle::try_current().map_err(io::Error::other)?;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As tokio does: on Windows it would let others take the port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        // Each connection has them from here.
        socket.set_send_buffer_size(SYSTEM_BUFFER)?;
        socket.set_recv_buffer_size(SYSTEM_BUFFER)?;
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
    /// through the whole drain until the process exits. Connections are bounded: 256 at once, and up
    /// to 128 that are about to end, 8 KiB of head, 2.5 s for the head to arrive, a minute for all of
    /// its requests.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with IO and time enabled.
    pub async fn serve(self) -> Infallible {
        let mut open = Open::default();
        let mut told: Option<Instant> = None;
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    while open.count() >= CONNECTIONS && !open.make_room(YOUNG)
                        || open.tasks.len() >= CONNECTIONS + LEAVING
                    {
                        open.one_ends(YOUNG).await;
                    }
                    let progress = Arc::<Progress>::default();
                    let conversation = self.health.clone().converse(stream, Arc::clone(&progress));
                    open.spawn(conversation, progress);
                }
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    // Most likely there is no descriptor left. The system says so even when nobody
                    // waits, so that a probe that has only just come is not to be closed for it.
                    if !open.make_room(ACCEPT_PAUSE)
                        && told.is_none_or(|told| told.elapsed() > TOLD_FOR)
                    {
                        warn!(%error, "the health listener cannot accept");
                        told = Some(Instant::now());
                    }
                    open.one_ends(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether that is one connection's error, which its client took back, and not one of accepting.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// The connections there are. They end with this.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    by_age: Vec<Connection>,
}

struct Connection {
    task: AbortHandle,
    since: Instant,
    progress: Arc<Progress>,
}

/// What a connection and the listener tell each other.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    phase: AtomicU8,
    /// It was asked to make room.
    room: Notify,
}

/// For its first request.
const WAITING: u8 = 0;
/// To make room, unless another request has come, which is then its last.
const ASKED: u8 = 1;
const ANSWERING: u8 = 2;
/// And waits for another request, or for its client to read.
const ANSWERED: u8 = 3;

impl Open {
    /// Without those that are about to make room.
    fn count(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.by_age
            .retain(|connection| !connection.task.is_finished());
        let stays = |connection: &&Connection| connection.progress.phase() != ASKED;
        self.by_age.iter().filter(stays).count()
    }

    fn spawn(
        &mut self,
        conversation: impl Future<Output = ()> + Send + 'static,
        progress: Arc<Progress>,
    ) {
        let task = self.tasks.spawn(conversation);
        let since = Instant::now();
        self.by_age.push(Connection {
            task,
            since,
            progress,
        });
    }

    /// Asks the oldest that hangs to end, if there is one of that age. It looks first whether a
    /// request has come: on a busy machine, that may be there, unread.
    fn make_room(&self, age: Duration) -> bool {
        let now = Instant::now();
        self.by_age
            .iter()
            .take_while(|connection| now - connection.since >= age)
            .any(|connection| connection.progress.ask())
    }

    /// Waits until one of them ends, but no longer than that.
    async fn one_ends(&mut self, patience: Duration) {
        let end = async {
            if self.tasks.join_next().await.is_none() {
                pending::<()>().await;
            }
        };
        let _ = timeout(patience, end).await;
    }
}

impl Progress {
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Not if it is being answered, or was asked before.
    fn ask(&self) -> bool {
        let hangs = |phase| matches!(phase, WAITING | ANSWERED).then_some(ASKED);
        let asked = self
            .phase
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, hangs);
        if asked.is_ok() {
            self.room.notify_one();
        }
        asked.is_ok()
    }

    /// Ends when it was asked to make room, and no request has come.
    async fn hangs(&self) {
        loop {
            self.room.notified().await;
            // tokio asks the system what has come before it looks at the clock; it is read before this
            // goes on.
            sleep(LOOK).await;
            if self.phase() == ASKED {
                break;
            }
        }
    }
}

impl Health {
    pub(crate) async fn converse(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        progress: Arc<Progress>,
    ) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER)
            // The buffer grows for what is sent ahead.
            .max_header_size(BUFFER)
            // Each answer in one piece: into the pieces of one that waits for its reader, hyper 1.12
            // would put the next, where that is a refusal.
            .writev(false)
            // `nc` and its like shut their side down before they read.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), self.service(Arc::clone(&progress)));
        // What goes wrong on a connection is the client's affair, and it has noticed.
        select! {
            biased;
            _ = timeout(END, connection) => {}
            () = progress.hangs() => {}
        }
    }

    fn service(
        self,
        progress: Arc<Progress>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > {
        let born = Instant::now();
        service_fn(move |request: Request<Incoming>| {
            let health = self.clone();
            let progress = Arc::clone(&progress);
            async move {
                let leaves = progress.phase() == ASKED;
                let version = request.version();
                progress.enter(ANSWERING);
                let mut response = health.respond(request.method(), request.uri().path()).await;
                if leaves || born.elapsed() >= LIFE {
                    let close = header::HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                    // To HTTP/1.0, hyper would add that it goes on.
                    *response.version_mut() = version;
                }
                progress.enter(ANSWERED);
                Ok(response)
            }
        })
    }

    async fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let routes = &self.inner.settings.routes;
        match routes.iter().find(|route| route.outer_path == path) {
            Some(route) if matches!(*method, Method::GET | Method::HEAD) => {
                self.report(route.probe).await.into()
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
