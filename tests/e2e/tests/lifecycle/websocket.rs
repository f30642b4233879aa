//! A WebSocket over HTTP/2. Browsers open one as a stream of an existing connection.

use std::pin::pin;

use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::any,
};
use lifesign::{Health, Shutdown, build_info};
use tokio::{net::TcpListener, runtime::Runtime, select};

use crate::http2::{DATA, HEADERS, Http2, SETTINGS};

/// The setting `SETTINGS_ENABLE_CONNECT_PROTOCOL = 1` (RFC 8441, section 3).
const ENABLE_CONNECT_PROTOCOL: [u8; 6] = [0, 8, 0, 0, 0, 1];

/// The header field `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

#[test]
fn websocket_over_http2_is_served() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let health = Health::builder(build_info!()).build().expect("no checks");
    let shutdown = health.handle_signals().expect("a runtime");
    let echo = async move |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(move |socket| echo(socket, shutdown))
    };
    let app = Router::new().route("/echo", any(echo));
    runtime.spawn({
        let health = health.clone();
        async move { health.serve(listener, app).await }
    });

    let mut client = Http2::connect(address);
    let settings = client.read_until(SETTINGS).payload;
    client.websocket(1, "/echo");
    let response = client.read_until(HEADERS);
    // The text message "ping", masked with zeros.
    client.data(1, b"\x81\x84\0\0\0\0ping");
    let echo = client.read_until(DATA);
    health.begin_drain();
    let goodbye = client.read_until(DATA);

    let mut settings = settings.chunks_exact(ENABLE_CONNECT_PROTOCOL.len());
    assert!(settings.any(|setting| setting == ENABLE_CONNECT_PROTOCOL));
    assert_eq!(response.payload.first(), Some(&STATUS_200), "{response:?}");
    assert_eq!(echo.payload, b"\x81\x04ping");
    assert_eq!(goodbye.payload, b"\x81\x03bye");
}

/// Sends each message back until the drain begins, and then "bye".
async fn echo(mut socket: WebSocket, shutdown: Shutdown) {
    let mut started = pin!(shutdown.started());
    loop {
        let message = select! {
            () = started.as_mut() => break,
            message = socket.recv() => message,
        };
        let Some(Ok(message)) = message else { return };
        let _ = socket.send(message).await;
    }
    let _ = socket.send(Message::text("bye")).await;
}
