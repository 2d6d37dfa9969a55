//! Mail over TLS to a real relay (aiosmtpd): taken from whom it trusts, and no word to anybody else.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rebound_schemas::plan::MailTls;
use serde_json::{Value, json};

use super::tests::{LONG, configured, notice};
use super::*;

/// Debian's Python, whose packages `.ci/run` installs.
const PYTHON: &str = "/usr/bin/python3";

/// Whether the relay can be run here. Says so if not, past the harness's capture.
fn can_run() -> bool {
    let found = Command::new(PYTHON).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    let can = found.is_ok_and(|status| status.success());
    if !can {
        let _ = writeln!(std::io::stderr(), "MAIL OVER TLS NOT RUN: it needs Debian's python3-aiosmtpd");
    }
    can
}

/// An authority in `<name>-ca.pem`, and by it a certificate for `host` in `<name>.pem`, with its key in `<name>.key`.
fn certify(folder: &Path, name: &str, host: &str) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let files = [("-ca.pem", ca.pem()), (".pem", leaf.pem()), (".key", key.serialize_pem())];
    for (end, pem) in files {
        std::fs::write(folder.join(format!("{name}{end}")), pem).unwrap();
    }
}

/// The relay as a process; killed when dropped.
struct Relay {
    process: Child,
    said: std::io::Lines<BufReader<std::process::ChildStdout>>,
    port: u64,
}

impl Relay {
    /// `kind` is `implicit`, `starttls` or `plain`.
    fn start(kind: &str, folder: &Path, certificate: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mail/relay.py");
        let mut process = Command::new(PYTHON)
            .arg(script)
            .args([kind, &format!("{certificate}.pem"), &format!("{certificate}.key")])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = said.next().expect("the relay speaks").unwrap().parse().unwrap();
        Self { process, said, port }
    }

    /// Ends it, and gives the messages that it took.
    fn taken(mut self) -> Vec<Value> {
        drop(self.process.stdin.take());
        self.said.by_ref().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mail(port: u64, tls: MailTls, ca_file: Option<String>) -> Channel {
    let kind = ChannelKind::Email {
        server: format!("localhost:{port}"),
        tls,
        ca_file,
        from: "rebound@example.com".into(),
        to: vec!["ops@example.com".into()],
        user: Some("me".into()),
        password: Some(SecretRef::Plain("hunter2".into())),
    };
    Channel::new(&configured(kind, LONG, 3), &super::kafka::unconnected).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_takes_mail_over_tls_from_whoever_trusts_its_authority() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "right", "localhost");
    let ca = folder.path().join("right-ca.pem").display().to_string();
    for (kind, tls) in [("implicit", MailTls::Implicit), ("starttls", MailTls::StartTls)] {
        let relay = Relay::start(kind, folder.path(), "right");
        let channel = mail(relay.port, tls, Some(ca.clone()));
        assert_eq!(channel.deliver(&notice()).await, Delivery::Sent { attempt: 1 }, "{kind}");
        // A second one, by the connection that is kept or by a new one.
        assert_eq!(channel.deliver(&notice()).await, Delivery::Sent { attempt: 1 }, "{kind}");
        let taken = relay.taken();
        assert_eq!(taken.len(), 2, "{taken:?}");
        for mail in taken {
            assert!(mail["tls"].as_str().is_some_and(|version| version.starts_with("TLSv1.")), "{mail}");
            assert_eq!((&mail["login"], &mail["to"]), (&json!("me"), &json!(["ops@example.com"])));
            assert!(mail["message"].as_str().unwrap().contains("Subject: [critical] api is down"), "{mail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_whom_it_should_be_is_told_nothing() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "right", "localhost");
    certify(folder.path(), "other", "mail.example.org");
    let ca = |name: &str| Some(folder.path().join(format!("{name}-ca.pem")).display().to_string());
    let authority = "UnknownIssuer: write its authority's certificate into a file, and that as ca_file";
    let name = "write the name that the certificate has as server";
    for (kind, tls) in [("implicit", MailTls::Implicit), ("starttls", MailTls::StartTls)] {
        for (certificate, ca_file, says) in
            [("right", None, authority), ("right", ca("other"), authority), ("other", ca("other"), name)]
        {
            let relay = Relay::start(kind, folder.path(), certificate);
            let delivery = mail(relay.port, tls, ca_file).deliver(&notice()).await;
            // Once: trying again would not help.
            let Delivery::Failed { attempts: 1, error } = delivery else { panic!("{kind}: {delivery:?}") };
            assert!(error.starts_with(&format!("localhost:{}: ", relay.port)) && error.ends_with(says), "{error}");
            assert_eq!(relay.taken(), Vec::<Value>::new(), "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_the_tls_that_was_asked_for_is_told_nothing() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "right", "localhost");
    let ca = folder.path().join("right-ca.pem").display().to_string();
    for (tls, says) in [
        (MailTls::StartTls, "STARTTLS is not supported on this server"),
        (MailTls::Implicit, "it does not begin with TLS: write tls = \"starttls\""),
    ] {
        let relay = Relay::start("plain", folder.path(), "right");
        let delivery = mail(relay.port, tls, Some(ca.clone())).deliver(&notice()).await;
        let Delivery::Failed { attempts: 1, error } = delivery else { panic!("{delivery:?}") };
        assert!(error.ends_with(says), "{error}");
        assert_eq!(relay.taken(), Vec::<Value>::new());
    }
}
