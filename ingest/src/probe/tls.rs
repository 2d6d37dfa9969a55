//! TLS probes: a handshake with the target, its chain verified, its expiry noted; nothing is said over it.

use std::sync::Arc;

use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::TlsCheck;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use super::fault::{Fault, Stage, connect};
use super::trust::{Chain, Verifier};
use super::{Wrong, wrong};

/// A compiled TLS check.
pub(super) struct TlsProbe {
    address: String,
    server_name: ServerName<'static>,
    connector: TlsConnector,
}

impl std::fmt::Debug for TlsProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsProbe").field("address", &self.address).finish_non_exhaustive()
    }
}

impl TlsProbe {
    pub(super) fn new(check: &TlsCheck, chain: &Arc<Chain>) -> Result<Self, Wrong> {
        let (host, _) = check
            .address
            .rsplit_once(':')
            .ok_or_else(|| wrong("address", format!("{:?} has no port: expected host:port", check.address)))?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = check.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|e| wrong("server_name", format!("{name:?}: {e}: expected a host name or an IP address")))?;
        let verifier = Verifier::new(check.ca_file.as_deref(), check.insecure, chain)?;
        let connector = TlsConnector::from(Arc::new(verifier.client_config(&[])));
        Ok(Self { address: check.address.clone(), server_name, connector })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<(), Fault> {
        let stream = connect(&self.address, stage).await?;
        stage.enter(Stage::HANDSHAKE);
        let mut stream = self
            .connector
            .connect(self.server_name.clone(), stream)
            .await
            .map_err(|e| Fault::from_error(&e, ErrorClass::Network))?;
        // A peer that closes without listening has still shown its certificate: that was the question.
        let _ = stream.shutdown().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{self, Pki, run};
    use super::*;
    use chrono::TimeDelta;
    use rebound_schemas::event::Outcome;
    use rebound_schemas::plan::Check;

    fn check(port: u16) -> TlsCheck {
        TlsCheck {
            address: format!("127.0.0.1:{port}"),
            server_name: Some("db.example".into()),
            expiry_warning: None,
            ca_file: None,
            insecure: false,
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_chain_is_verified_for_the_name() {
        let pki = Pki::new("db.example", TimeDelta::days(10));
        let port = testing::serve_tls(&pki, axum::Router::new()).await.port();
        let mut check = TlsCheck { ca_file: Some(pki.ca_path()), ..check(port) };
        let found = run(Check::Tls(check.clone()), LONG).await;
        assert_eq!(found.outcome, Outcome::Healthy, "{found:?}");
        assert_eq!(found.certificate_expires_at, Some(pki.leaf_expires_at));
        check.expiry_warning = Some(Duration::from_secs(11 * 86_400));
        assert_eq!(run(Check::Tls(check.clone()), LONG).await.outcome, Outcome::Degraded);
        check.server_name = Some("other.example".into());
        let found = run(Check::Tls(check.clone()), LONG).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Security)));
        check.server_name = None;
        let found = run(Check::Tls(check), LONG).await;
        assert_eq!(found.error_class, Some(ErrorClass::Security), "verified against the address: {found:?}");
    }

    #[tokio::test]
    async fn an_expired_certificate_fails_unless_insecure() {
        let pki = Pki::new("db.example", TimeDelta::days(-1));
        let port = testing::serve_tls(&pki, axum::Router::new()).await.port();
        let mut check = TlsCheck { ca_file: Some(pki.ca_path()), ..check(port) };
        let found = run(Check::Tls(check.clone()), LONG).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Security)));
        assert!(found.reason.as_deref().unwrap().to_lowercase().contains("expired"), "{found:?}");
        assert_eq!(found.certificate_expires_at, Some(pki.leaf_expires_at));
        check.insecure = true;
        assert_eq!(run(Check::Tls(check), LONG).await.outcome, Outcome::Healthy);
    }

    #[tokio::test]
    async fn who_speaks_no_tls_and_who_says_nothing_fail() {
        let plain = testing::scripted(vec![testing::Turn::Send("220 hello\r\n")]).await;
        let found = run(Check::Tls(check(plain.port())), LONG).await;
        assert_eq!(found.outcome, Outcome::Failed);
        let mute = testing::scripted(vec![testing::Turn::Hang]).await;
        let found = run(Check::Tls(check(mute.port())), Duration::from_millis(200)).await;
        assert_eq!(found.error_class, Some(ErrorClass::Timeout));
        assert!(found.reason.unwrap().contains("shaking hands"));
    }

    #[test]
    fn a_wrong_setting_names_its_key() {
        let chain = Arc::default();
        let mut bad = check(1);
        bad.server_name = Some("not a name".into());
        assert_eq!(TlsProbe::new(&bad, &chain).err().unwrap().key, "server_name");
        bad.address = "nowhere".into();
        assert_eq!(TlsProbe::new(&bad, &chain).err().unwrap().key, "address");
        bad = check(1);
        bad.ca_file = Some("/nonexistent/ca.pem".into());
        assert_eq!(TlsProbe::new(&bad, &chain).err().unwrap().key, "ca_file");
    }
}
