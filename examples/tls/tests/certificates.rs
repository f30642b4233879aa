//! The HTTPS probe of services that differ in their certificates and protocols.

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::Arc,
};

use axum_server::tls_rustls::RustlsConfig;
use lifesign::{Endpoint, Health, build_info};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

// These cases are one test, because services of the same name share one advertisement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_protocols_of_a_service() -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let mut expired = CertificateParams::new(["other.example".to_owned()])?;
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2020, 2, 1);
    let expired = expired.self_signed(&key)?;
    let valid = CertificateParams::new(["service.example".to_owned()])?.self_signed(&key)?;
    let chain = || -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (vec![valid.der().clone()], key)
    };
    let health = Health::builder(build_info!()).build()?;
    health.set_ready();

    // The first certificate is expired, self-signed, and for another name. A valid one replaces it.
    let key_pem = || key.serialize_pem().into_bytes();
    let tls = RustlsConfig::from_pem(expired.pem().into_bytes(), key_pem()).await?;
    health.advertise(Endpoint::https(serve(&health, tls.clone())?));
    assert_healthy(&probe());
    tls.reload_from_pem(valid.pem().into_bytes(), key_pem())
        .await?;
    assert_healthy(&probe());

    let (certificates, private_key) = chain();
    let mut http2 = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)?;
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let address = serve(&health, RustlsConfig::from_config(Arc::new(http2)))?;
    health.advertise(Endpoint::https(address));
    assert_eq!(
        probe(),
        format!(
            "unhealthy: the server speaks HTTP/2 only: probe an HTTP/1 port \
             (GET https://{address}/health)\n"
        )
    );

    for version in rustls::ALL_VERSIONS {
        let mut roots = RootCertStore::empty();
        roots.add(valid.der().clone())?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let (certificates, private_key) = chain();
        let mutual = ServerConfig::builder_with_protocol_versions(&[version])
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, private_key)?;
        let address = serve(&health, RustlsConfig::from_config(Arc::new(mutual)))?;
        health.advertise(Endpoint::https(address));
        let line = probe();
        assert_eq!(
            line,
            format!(
                "unhealthy: the server requires a client certificate: probe a port without TLS \
                 (GET https://{address}/health)\n"
            )
        );
        let page = include_str!("../../../docs/troubleshooting.md");
        let heading = line.replace(&address.to_string(), "127.0.0.1:8080");
        assert!(page.contains(&format!("### `{}`", heading.trim_end())));
    }
    // A listener for probes, without TLS, beside the last service.
    let listener = health.listen("127.0.0.1:0".parse()?)?;
    tokio::spawn(listener.serve());
    assert_healthy(&probe());
    Ok(())
}

/// Serves the routes over TLS. Returns the address.
fn serve(health: &Health, tls: RustlsConfig) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let server = axum_server::from_tcp_rustls(listener, tls)?;
    tokio::spawn(server.serve(health.routes().into_make_service()));
    Ok(address)
}

/// Runs the example's command, which finds this process, because their service names are the same.
/// Returns what it prints.
fn probe() -> String {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_tls"));
    let output = probe.arg("healthcheck").env_remove("LIFESIGN_URL").output();
    let output = output.expect("the command runs");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8(printed).expect("a line in UTF-8")
}

#[track_caller]
fn assert_healthy(line: &str) {
    assert!(line.starts_with("healthy: pass in "), "{line}");
}
