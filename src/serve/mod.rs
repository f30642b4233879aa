#[cfg(feature = "listener")]
mod listener;
#[cfg(feature = "axum")]
mod router;

#[cfg(feature = "listener")]
pub use self::listener::Listener;
