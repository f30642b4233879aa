//! What the crate promises beside its behaviour: its types, its documentation, its advertisement.

mod advertisement;
mod dependencies;
mod documentation;
mod types;
