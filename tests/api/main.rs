//! The public types, the documentation, the dependencies, and the advertisement.

mod advertisement;
mod dependencies;
mod documentation;
mod types;
