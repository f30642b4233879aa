//! The image: what the repository's own Dockerfile builds, judged by a real Docker Engine.

mod arm64;
mod builds;
mod engine;
mod makefile;
mod projects;
mod reference;
mod reproducible;
mod secrets;
