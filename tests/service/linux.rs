//! Helpers that work only on Linux: namespaces, other users, and the files of advertisements.
#![cfg(target_os = "linux")]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread,
};

use crate::{
    container::{Container, Namespace, Running},
    support::{Outcome, example, run},
};

/// Command prefix that runs a program as a user who has no account.
pub(crate) const AS_OTHER_USER: [&str; 4] = [
    "setpriv",
    "--reuid=12345",
    "--regid=12345",
    "--clear-groups",
];

pub(crate) fn skipped(reason: &str) {
    let test = thread::current();
    eprintln!("skipped: {}: {reason}", test.name().unwrap_or_default());
}

impl Container {
    /// Creates a namespace and runs `setup` in it. If this is not possible, prints the reason and
    /// returns `None`.
    pub(crate) fn with(setup: &str, options: &[&str]) -> Option<Self> {
        let own = Namespace::unshare(setup, options);
        if let Err(reason) = &own {
            skipped(reason);
        }
        Some(Self(own.ok()?))
    }

    /// Returns the number of the mount namespace, which is part of an advertisement's name.
    pub(crate) fn namespace(&self) -> String {
        let link = fs::read_link(self.0.process().join("ns/mnt")).expect("procfs");
        let link = link.to_str().expect("ASCII");
        link.replace(|c: char| !c.is_ascii_digit(), "")
    }

    /// Returns the path at which this process sees the container's `/dev/shm`.
    pub(crate) fn shm(&self) -> PathBuf {
        self.0.process().join("root/dev/shm")
    }

    /// Returns the paths of all advertisements of this namespace, including stale and unfinished
    /// files.
    pub(crate) fn advertisements(&self) -> Vec<PathBuf> {
        let prefix = format!("lifesign.{}.", self.namespace());
        let mut found: Vec<_> = fs::read_dir(self.shm())
            .expect("/dev/shm")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let name = path.file_name().and_then(OsStr::to_str);
                name.is_some_and(|name| name.trim_start_matches('.').starts_with(&prefix))
            })
            .collect();
        found.sort();
        found
    }

    /// Starts the service as another user. If that user cannot execute it, prints the reason and
    /// returns `None`.
    pub(crate) fn service_as(&self, user: &[&str]) -> Option<Running<'_>> {
        let program = example("service");
        let executable = run(self.command(&AS_OTHER_USER, "test").arg("-x").arg(&program));
        if executable.code != Some(0) {
            skipped("another user may not execute the examples here");
            return None;
        }
        Some(self.start("service", &mut self.command(user, &program)))
    }

    pub(crate) fn healthcheck_as(&self, user: &[&str]) -> Outcome {
        run(self.command(user, example("service")).arg("healthcheck"))
    }

    /// Starts the service as PID 1 of a nested container. Returns the service and the container.
    pub(crate) fn process_one(&self, variables: &[(&str, &str)]) -> (Running<'_>, Self) {
        let unshare = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ];
        let mut command = self.command(&unshare, example("service"));
        let running = self.start("service", command.envs(variables.iter().copied()));
        let process = running.id();
        (running, Self(Namespace::Inside { process }))
    }
}

impl Namespace {
    /// Returns the `/proc` directory of a process in this namespace.
    pub(crate) fn process(&self) -> PathBuf {
        match self {
            Self::Own { holder } => Path::new("/proc").join(holder.id().to_string()),
            Self::Inside { process } => Path::new("/proc").join(process.to_string()),
            Self::Everyones { .. } => "/proc/self".into(),
        }
    }
}
