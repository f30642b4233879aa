//! Checks, heartbeats and routes, tested without sockets or child processes.

mod checks;
mod late_checks;
mod log;
mod properties;
mod registration;
mod report;
mod routes;
mod service;
mod states;
mod stress;
