//! Real, small targets for the tests of probes: web servers with and without TLS, scripted TCP peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rebound_schemas::event::ProbeCompleted;
use rebound_schemas::plan::{Check, Exchange, HttpCheck, Probe, TcpCheck};
use rebound_schemas::{ProbeId, ServiceId};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Prober;

pub(crate) fn probe(check: Check, timeout: Duration) -> Probe {
    Probe {
        id: ProbeId::new("p").unwrap(),
        service: ServiceId::new("s").unwrap(),
        site: None,
        every: Duration::from_secs(60),
        timeout,
        degraded_above: None,
        check,
    }
}

pub(super) async fn run(check: Check, timeout: Duration) -> ProbeCompleted {
    run_allowed(check, timeout, &[]).await
}

pub(super) async fn run_allowed(check: Check, timeout: Duration, allow: &[String]) -> ProbeCompleted {
    Prober::new(&probe(check, timeout), allow).unwrap().run().await
}

pub(crate) fn http_check(url: &str) -> HttpCheck {
    HttpCheck {
        url: url.parse().unwrap(),
        method: "GET".into(),
        headers: Default::default(),
        body: None,
        status: vec![],
        follow_redirects: true,
        body_matches: vec![],
        body_not_matches: vec![],
        header_matches: Default::default(),
        expiry_warning: None,
        ca_file: None,
        insecure: false,
    }
}

pub(crate) fn tcp_check(address: &str, dialogue: &[(Option<&str>, Option<&str>)]) -> TcpCheck {
    let exchange = |(send, expect): &(Option<&str>, Option<&str>)| Exchange {
        send: send.map(str::to_owned),
        expect: expect.map(str::to_owned),
    };
    TcpCheck { address: address.into(), dialogue: dialogue.iter().map(exchange).collect() }
}

/// An address of this machine that nobody listens on.
pub(super) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Serves over plain HTTP; answers `http://127.0.0.1:port`.
pub(super) async fn serve(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// An authority of its own and a certificate by it.
pub(super) struct Pki {
    folder: tempfile::TempDir,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    pub(super) leaf_expires_at: DateTime<Utc>,
}

impl Pki {
    /// A certificate for `name` that expires in `left` (or did, when negative); its authority outlives it.
    pub(super) fn new(name: &str, left: TimeDelta) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf_expires_at = DateTime::from_timestamp((Utc::now() + left).timestamp(), 0).unwrap();
        let start = rcgen::date_time_ymd(2020, 1, 1);
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = start;
        let seconds = (leaf_expires_at - DateTime::from_timestamp(start.unix_timestamp(), 0).unwrap()).num_seconds();
        params.not_after = start + Duration::from_secs(seconds.unsigned_abs());
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let chain = vec![leaf.der().clone(), ca.der().clone()];
        Self { folder, chain, key: key.serialize_der(), leaf_expires_at }
    }

    pub(super) fn ca_path(&self) -> String {
        self.folder.path().join("ca.pem").to_str().unwrap().to_owned()
    }
}

/// Serves a router over TLS, one connection a task.
pub(super) async fn serve_tls(pki: &Pki, router: axum::Router) -> SocketAddr {
    let key = PrivateKeyDer::try_from(pki.key.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The web server sits behind the TLS end, on a port of its own: bytes are carried across.
    let inner = serve(router).await;
    let inner = inner.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, inner) = (acceptor.clone(), inner.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = tokio::net::TcpStream::connect(inner).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    address
}

/// What a scripted peer does next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// Says this.
    Send(&'static str),
    /// Waits until exactly this was said.
    Expect(&'static str),
    /// Says nothing and stays.
    Hang,
    /// Talks without end.
    Flood,
}

/// A TCP peer that plays its script on every connection, then closes.
pub(super) async fn scripted(script: Vec<Turn>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                for turn in script {
                    match turn {
                        Turn::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                        Turn::Expect(text) => {
                            let mut said = vec![0; text.len()];
                            stream.read_exact(&mut said).await.unwrap();
                            assert_eq!(said, text.as_bytes());
                        }
                        Turn::Hang => std::future::pending().await,
                        Turn::Flood => while stream.write_all(b"nothing to see here\n").await.is_ok() {},
                    }
                }
            });
        }
    });
    address
}
