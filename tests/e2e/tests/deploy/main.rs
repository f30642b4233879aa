//! Deployments under real engines, orchestrators and proxies.

mod adopting;
mod compose;
mod container;
mod files;
mod grpc;
mod load;
mod podman;
mod proxies;
mod swarm;
