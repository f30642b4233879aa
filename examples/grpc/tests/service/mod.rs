//! The example in a child process.

use std::{
    error::Error,
    io::{self, BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

pub const APP: &str = env!("CARGO_BIN_EXE_grpc");

/// The example in a child process, killed when dropped.
pub struct Service(pub Child);

impl Service {
    /// Starts the service. Returns its address too.
    pub fn start() -> Result<(Self, String), Box<dyn Error>> {
        let mut service = Command::new(APP)
            .env("ADDRESS", "127.0.0.1:0")
            .env("HEALTH_ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .map(Self)?;
        let mut line = String::new();
        BufReader::new(service.0.stdout.take().expect("a pipe")).read_line(&mut line)?;
        let address = line.trim().replace("listening on ", "");
        Ok((service, address))
    }

    /// Sends SIGTERM. Returns the time of the signal.
    pub fn terminate(&self) -> io::Result<Instant> {
        let signalled = Instant::now();
        let pid = self.0.id().to_string();
        let mut kill = Command::new("kill");
        assert!(kill.args(["-TERM", &pid]).status()?.success());
        Ok(signalled)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
