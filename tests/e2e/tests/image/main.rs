//! The image that the repository's Dockerfile builds, tested in a real Docker Engine.

mod arm64;
mod builds;
mod cures;
mod engine;
mod files;
mod makefile;
mod projects;
mod reference;
mod reproducible;
mod secrets;
mod supply_chain;
