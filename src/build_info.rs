//! Placeholder while the metadata step is being written.
/// What a binary knows about its own build.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {}
