#[cfg(feature = "axum")]
mod connection;
#[cfg(feature = "listener")]
mod listener;
#[cfg(feature = "axum")]
mod router;
#[cfg(feature = "axum")]
mod server;

#[cfg(feature = "listener")]
pub use self::listener::Listener;
