//! Deployments under real engines, orchestrators and proxies.

mod compose;
mod container;
mod docker;
mod files;
mod load;
mod podman;
mod proxies;
mod swarm;
