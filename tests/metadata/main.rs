//! Build metadata in the states that a repository, its surroundings and build arguments can be in.
//!
//! Real git makes each state in a directory of its own, and what the service knows must be what git
//! says. Most states are tested by the build script alone, under Cargo's rule for running it again;
//! `cargo.rs` and `arguments.rs` build and run the service.
//!
//! Needs git 2.45 for reftables, and root for an owner that git distrusts; what is not available is
//! skipped with a message. Needs Unix for links, owners and file names that are not UTF-8.
#![cfg(unix)]

mod arguments;
mod cargo;
mod commits;
mod foreign;
mod service;
mod without_git;
mod work_tree;
