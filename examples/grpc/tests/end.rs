//! The end of the service while a client holds its connection.
//!
//! This is a test binary of its own, because the probe in `drain.rs` would discover the service of
//! a test that runs at the same time.

mod service;

use std::{error::Error, io::Write, net::TcpStream};

use self::service::Service;

#[test]
fn half_a_preface_is_cut_at_the_shutdown_timeout() -> Result<(), Box<dyn Error>> {
    let (mut service, address) = Service::start()?;
    let mut client = TcpStream::connect(address)?;
    client.write_all(b"PRI * HT")?;

    let signalled = service.terminate()?;

    assert!(service.0.wait()?.success());
    // The drain delay of 5 s, and the shutdown timeout of 4 s.
    let took = signalled.elapsed();
    assert!((9..11).contains(&took.as_secs()), "{took:?}");
    Ok(())
}
