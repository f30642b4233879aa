//! `hyper URL`: a hyper client on a single-threaded runtime, with a timeout.

use std::{env, error::Error, process::ExitCode, time::Duration};

use http_body_util::Empty;
use hyper::{Request, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

fn main() -> ExitCode {
    let url = env::args().nth(1).unwrap_or_default();
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| {
        runtime.block_on(async { timeout(Duration::from_secs(3), probe(&url)).await })
    }) {
        Ok(Ok(Ok(true))) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

async fn probe(url: &str) -> Result<bool, Box<dyn Error>> {
    let url: Uri = url.parse()?;
    let authority = url.authority().ok_or("an URL without a host")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(url.path())
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.status().is_success())
}
