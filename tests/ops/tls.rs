//! TLS: a real handshake, certificates replaced while the server runs, and clients without TLS.

use std::{path::PathBuf, sync::Arc, time::Duration};

use dinoserve::{
    http::{Certificate, ServeConfig},
    telemetry,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    process::PROGRAM,
    replace, scratch,
    server::{Server, Setup},
    until,
};

struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// Replaces the files by a new certificate for localhost, and returns it.
fn write_certificate(files: &Files) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace(&files.key, &signing_key.serialize_pem());
    replace(&files.chain, &cert.pem());
    cert.der().clone()
}

fn files() -> Files {
    let folder = scratch("tls");
    Files {
        chain: folder.join("chain.pem"),
        key: folder.join("key.pem"),
    }
}

async fn start(files: &Files) -> Server {
    let mut setup = Setup::tiny();
    let certificate = Certificate::open(&files.chain, &files.key).unwrap();
    setup.serve = ServeConfig {
        certificate: Some(certificate),
        ..setup.serve
    };
    setup.start().await
}

/// Makes a handshake as a client that trusts only this certificate.
async fn connect(
    server: &Server,
    trusted: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn get(mut stream: TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_come_over_tls_and_certificates_are_rotated() {
    let files = files();
    let first = write_certificate(&files);
    let server = start(&files).await;
    let stream = connect(&server, &first, "http/1.1").await.unwrap();
    assert!(get(stream, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
    let stream = connect(&server, &first, "h2").await.unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(&b"h2"[..]),
        "HTTP/2 is offered"
    );

    let second = write_certificate(&files);
    until(async || connect(&server, &second, "http/1.1").await.is_ok()).await;
    assert!(
        connect(&server, &first, "http/1.1").await.is_err(),
        "the old certificate is no longer used"
    );

    // A key that does not match the certificate changes nothing.
    let failures = || {
        telemetry::metrics()
            .reload_failures
            .with_label_values(&["certificate"])
            .get()
    };
    let before = failures();
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace(&files.key, &other.signing_key.serialize_pem());
    until(async || failures() > before).await;
    let stream = connect(&server, &second, "http/1.1").await.unwrap();
    assert!(get(stream, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
    server.stopped().await;
}

#[tokio::test]
async fn clients_without_tls_are_disconnected() {
    let files = files();
    write_certificate(&files);
    let server = start(&files).await;
    // Plain HTTP, and a client that sends nothing.
    for sent in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{sent:?}: the connection is closed");
        assert!(
            !answer.starts_with(b"HTTP"),
            "nothing is answered in the clear"
        );
    }
    server.stopped().await;

    // Such a client does not delay a shutdown, either.
    let mut setup = Setup::tiny();
    let certificate = Certificate::open(&files.chain, &files.key).unwrap();
    let header_timeout = Duration::from_secs(60);
    setup.serve = ServeConfig {
        certificate: Some(certificate),
        header_timeout,
        ..setup.serve
    };
    let server = setup.start().await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    timeout(Duration::from_secs(10), server.stopped())
        .await
        .expect("a stop");
}

#[test]
fn errors_in_certificates_are_named() {
    let good = files();
    write_certificate(&good);
    let folder = scratch("tls");
    let empty = folder.join("empty.pem");
    let other = folder.join("other.pem");
    std::fs::write(&empty, "").unwrap();
    std::fs::write(
        &other,
        generate_simple_self_signed(["x".to_owned()])
            .unwrap()
            .signing_key
            .serialize_pem(),
    )
    .unwrap();
    let missing = folder.join("missing.pem");
    for (chain, key, expected) in [
        (
            &missing,
            &good.key,
            "missing.pem: the certificates cannot be read",
        ),
        (&empty, &good.key, "empty.pem: the file has no certificate"),
        (
            &good.chain,
            &missing,
            "missing.pem: the private key cannot be read",
        ),
        (
            &good.chain,
            &empty,
            "empty.pem: the private key cannot be read",
        ),
        (&good.chain, &other, "other.pem: the key does not match"),
    ] {
        let error = Certificate::open(chain, key).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// The health check of a container, without and with TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_health_command_checks_a_local_server() {
    let files = files();
    write_certificate(&files);
    let over_tls = start(&files).await;
    let mut plain = Setup::tiny().start().await;
    let health = |port: u16, chain: Option<&std::path::Path>| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["health", "--port", &port.to_string()]);
        command.args(
            chain
                .iter()
                .flat_map(|chain| ["--tls-cert", chain.to_str().unwrap()]),
        );
        tokio::task::spawn_blocking(move || {
            let output = command.output().unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        })
    };
    assert_eq!(health(plain.address.port(), None).await.unwrap().0, Some(0));
    assert_eq!(
        health(over_tls.address.port(), Some(&files.chain))
            .await
            .unwrap()
            .0,
        Some(0)
    );
    assert_eq!(
        health(over_tls.address.port(), None).await.unwrap().0,
        Some(1),
        "it speaks TLS"
    );
    let address = plain.address;
    plain.stop();
    plain.stopped().await;
    let (code, printed) = health(address.port(), None).await.unwrap();
    assert!(
        code == Some(1) && printed.contains("requesting http://127.0.0.1"),
        "{printed}"
    );
    over_tls.stopped().await;
}
