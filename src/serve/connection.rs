//! Serves one connection: limits how long a request head may take, and ends the connection during
//! the drain.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    select,
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{Shutdown, health::lock};

/// How long a client may take to send a request head. hyper's own timeout would also close idle
/// keep-alive connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection reads requests at the end of the drain delay. Requests that arrived in
/// time may still be in the kernel's buffers.
const LAST_READ: Duration = Duration::from_millis(10);

/// How long an HTTP/2 connection without a request in flight stays open after the drain delay while
/// nothing is written. Part of the last response can be in hyper's buffers until the client's flow
/// control lets hyper send it.
const HTTP2_FLUSH: Duration = Duration::from_secs(1);

/// Serves one connection until it ends, or until the drain delay is over and all responses are
/// sent. Returns `false` if it cut an HTTP/2 connection whose last response may be incomplete.
pub(super) async fn serve<I, F>(io: I, shutdown: &Shutdown, respond: impl Fn(Request) -> F) -> bool
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let progress = Arc::new(Progress::new());
    let io = TokioIo::new(Watched {
        io,
        progress: Arc::clone(&progress),
    });
    let service = service_fn(|request: http::Request<Incoming>| {
        let in_flight = InFlight::new(&progress, request.version());
        let version = request.version();
        let response = respond(request.map(Body::new));
        let shutdown = shutdown.clone();
        async move {
            let response = ask_to_close(response.await, version, &shutdown);
            Ok::<_, Infallible>(response.map(|body| {
                body.map_err(move |error| {
                    let _until_the_body_is_dropped = &in_flight;
                    error
                })
            }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // This enables WebSocket over HTTP/2 (RFC 8441), as `axum::serve` does.
    builder.http2().enable_connect_protocol();
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));

    let mut goaway = pin!(async {
        // A client that receives GOAWAY before its first request would treat the connection as
        // refused, and connect again. So GOAWAY is sent after the first request.
        progress.http2_request.notified().await;
        shutdown.started().await;
    });
    let mut sent_goaway = false;
    let mut delay_over = pin!(shutdown.delay_over());
    let mut head_timeout = pin!(sleep(HEAD_TIMEOUT));
    loop {
        select! {
            biased;
            _ = connection.as_mut() => return true,
            () = goaway.as_mut(), if !sent_goaway => {
                sent_goaway = true;
                connection.as_mut().graceful_shutdown();
            }
            () = delay_over.as_mut() => break,
            () = head_timeout.as_mut() => {
                let now = Instant::now();
                let began = progress.head_began().unwrap_or(now);
                if now - began >= HEAD_TIMEOUT {
                    return true;
                }
                head_timeout.as_mut().reset(began + HEAD_TIMEOUT);
            }
        }
    }
    if timeout(LAST_READ, connection.as_mut()).await.is_ok() {
        return true;
    }
    connection.as_mut().graceful_shutdown();
    let mut flush = pin!(sleep(HTTP2_FLUSH));
    poll_fn(|context| {
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        let is_busy = progress.is_busy();
        if !is_busy && !progress.http2.load(Ordering::Relaxed) {
            return Poll::Ready(true);
        }
        if progress.has_written.swap(false, Ordering::Relaxed) || is_busy {
            flush.as_mut().reset(Instant::now() + HTTP2_FLUSH);
        }
        if is_busy {
            return Poll::Pending;
        }
        ready!(flush.as_mut().poll(context));
        // After GOAWAY, h2 sends a PING. A client that had read its last response would have
        // acknowledged the PING, and then hyper would have closed the connection.
        Poll::Ready(!sent_goaway)
    })
    .await
}

/// Makes the calls of `http2` and `enable_connect_protocol` compile in a build without axum's
/// feature `http2`. With the feature, the builder's own method `http2` takes precedence.
#[allow(dead_code, reason = "unused if the build has HTTP/2")]
trait WithoutHttp2 {
    fn http2(&mut self) -> &mut Self {
        self
    }
    fn enable_connect_protocol(&mut self) {}
}

impl<E> WithoutHttp2 for auto::Builder<E> {}

/// During the drain, asks an HTTP/1 client to close the connection.
fn ask_to_close(mut response: Response, version: Version, shutdown: &Shutdown) -> Response {
    let is_asked = version < Version::HTTP_2 && shutdown.has_started();
    if is_asked && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        // The response needs the version of the request: hyper would add `keep-alive` to a response
        // of version 1.1 to a request of version 1.0.
        *response.version_mut() = version;
    }
    response
}

/// State of a connection, which its requests and its reads and writes update.
#[derive(Debug)]
struct Progress {
    /// Number of requests whose response body hyper has not read to its end.
    in_flight: AtomicUsize,
    /// Whether the last write waits for the client to read.
    writing: AtomicBool,
    has_written: AtomicBool,
    http2: AtomicBool,
    http2_request: Notify,
    has_read: AtomicBool,
    /// Time at which the client connected or began to send a request head. `None` after a head has
    /// arrived, until the next one begins.
    head_began: Mutex<Option<Instant>>,
}

impl Progress {
    fn new() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
            has_written: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            http2_request: Notify::new(),
            has_read: AtomicBool::new(false),
            head_began: Mutex::new(Some(Instant::now())),
        }
    }

    /// Whether a response has not been sent completely.
    fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || self.writing.load(Ordering::Relaxed)
    }

    fn head_began(&self) -> Option<Instant> {
        *lock(&self.head_began)
    }

    fn read(&self, bytes: &[u8]) {
        let is_first = !self.has_read.swap(true, Ordering::Relaxed);
        // hyper's first read is no longer than the preface of HTTP/2, so it contains nothing else.
        if is_first && bytes == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            self.http2.store(true, Ordering::Relaxed);
            *lock(&self.head_began) = None;
        } else if !bytes.is_empty()
            && self.in_flight.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed)
        {
            lock(&self.head_began).get_or_insert_with(Instant::now);
        }
    }
}

/// A request in flight, from the arrival of its head until the body of its response is dropped.
struct InFlight(Arc<Progress>);

impl InFlight {
    fn new(progress: &Arc<Progress>, version: Version) -> Self {
        progress.in_flight.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            progress.http2.store(true, Ordering::Relaxed);
            progress.http2_request.notify_one();
        }
        *lock(&progress.head_began) = None;
        Self(Arc::clone(progress))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that records its reads and writes in [`Progress`].
struct Watched<I> {
    io: I,
    progress: Arc<Progress>,
}

impl<I> Watched<I> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.progress.has_written.store(true, Ordering::Relaxed);
        }
        self.flushed(result)
    }

    fn flushed<T>(&self, result: Poll<T>) -> Poll<T> {
        let writing = result.is_pending();
        self.progress.writing.store(writing, Ordering::Relaxed);
        result
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.progress.read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        self.flushed(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
