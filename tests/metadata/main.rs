//! Build metadata in many states of the repository, of its environment and of the build arguments.
//!
//! Git creates each state in a temporary directory, and the service must print the same facts as
//! git. Most tests only run the build script, and only when Cargo would run it. `cargo.rs` and
//! `arguments.rs` build and run the service.
//!
//! Reftables need git 2.45, and tests of another owner need root. Tests whose requirements are
//! missing print a message and pass. All tests need Unix for links, owners and file names that are
//! not UTF-8.
#![cfg(unix)]

mod arguments;
mod cargo;
mod commits;
mod foreign;
mod service;
mod without_git;
mod work_tree;
