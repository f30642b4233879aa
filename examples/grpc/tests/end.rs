//! The end of the service while a client holds its connection.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Instant,
};

/// The example in a child process, killed when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn half_a_preface_is_cut_at_the_shutdown_timeout() -> Result<(), Box<dyn Error>> {
    let mut service = Command::new(env!("CARGO_BIN_EXE_grpc"))
        .env("ADDRESS", "127.0.0.1:0")
        .env("HEALTH_ADDRESS", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .map(Service)?;
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().expect("a pipe")).read_line(&mut line)?;
    let mut client = TcpStream::connect(line.trim().replace("listening on ", ""))?;
    client.write_all(b"PRI * HT")?;

    let signalled = Instant::now();
    let pid = service.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()?
            .success()
    );

    assert!(service.0.wait()?.success());
    // The drain delay of 5 s, and the shutdown timeout of 4 s.
    let took = signalled.elapsed();
    assert!((9..11).contains(&took.as_secs()), "{took:?}");
    Ok(())
}
