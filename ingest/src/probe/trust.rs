//! Which certificates probes trust, and what they saw: one rustls configuration for every kind that speaks TLS.
//!
//! The verifier notes the chain before it judges it, so that even a refused certificate's expiry is told.
//! Sessions are never resumed: a resumed handshake shows no certificate, and a probe is there to see it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Wrong, wrong};

/// The certificate chain that the target showed in this run; where it redirects, the last one.
#[derive(Debug, Default)]
pub(super) struct Chain(Mutex<Option<DateTime<Utc>>>);

impl Chain {
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the first certificate of the chain stops being valid.
    pub(super) fn earliest_expiry(&self) -> Option<DateTime<Utc>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<'a>(&self, chain: impl Iterator<Item = &'a CertificateDer<'a>>) {
        let earliest = chain
            .filter_map(|der| {
                let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
                DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
            })
            .min();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = earliest;
    }
}

/// Whom to trust.
#[derive(Debug)]
enum Trust {
    /// These authorities.
    Roots(Arc<WebPkiServerVerifier>),
    /// Nobody: the system has no authorities and the plan names none.
    Nobody,
    /// Anybody: the plan says `insecure`.
    Anybody,
}

/// Verifies as [`Trust`] says and notes what it saw.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    chain: Arc<Chain>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Trusts the system's authorities and those of `ca_file`, or anybody when `insecure`.
    pub(super) fn new(ca_file: Option<&str>, insecure: bool, chain: &Arc<Chain>) -> Result<Arc<Self>, Wrong> {
        let trust = match (insecure, ca_file) {
            (true, _) => Trust::Anybody,
            (false, None) => system_verifier().map_or(Trust::Nobody, Trust::Roots),
            (false, Some(path)) => {
                let mut roots = RootCertStore::clone(system_roots());
                let wrong = |e: &dyn ToString| wrong("ca_file", format!("{path}: {}", e.to_string()));
                let mut found = 0;
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
                    roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
                    found += 1;
                }
                if found == 0 {
                    return Err(wrong(&"no certificate in it: expected PEM"));
                }
                Trust::Roots(verifier(roots).map_err(|e| wrong(&e))?)
            }
        };
        Ok(Arc::new(Self { trust, chain: chain.clone(), provider: provider() }))
    }

    /// A client's configuration around this verifier, offering these application protocols.
    pub(super) fn client_config(self: Arc<Self>, alpn: &[&str]) -> ClientConfig {
        let provider = self.provider.clone();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = rustls::client::Resumption::disabled();
        config
    }
}

/// Named rather than the process's default: two providers are compiled in, and rustls won't choose.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, rustls::client::VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()
}

/// The system's authorities, read once a process: ten thousand probes share them.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "can't read a certificate authority of the system");
        }
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

fn system_verifier() -> Option<Arc<WebPkiServerVerifier>> {
    static VERIFIER: OnceLock<Option<Arc<WebPkiServerVerifier>>> = OnceLock::new();
    VERIFIER.get_or_init(|| verifier(system_roots().clone()).ok()).clone()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chain.note(std::iter::once(end_entity).chain(intermediates));
        match &self.trust {
            Trust::Roots(inner) => inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            Trust::Nobody => Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            Trust::Anybody => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
