//! Placeholder while the metadata step is being written.
