//! Mail by SMTP: one plain-text message a notice to all receivers of the channel.
//!
//! The message's id follows from the notice's key, so that a mailbox drops repeats, and every message of one alert
//! refers to the same thread. A relay that refuses one receiver refuses the message. Relays are trusted by the
//! public (Mozilla) root certificates and those of the channel's `ca_file`; one that is not is told nothing.

use std::error::Error as _;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use rebound_schemas::plan::{MailTls, SecretRef};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, InvalidMessage};

use super::guard;
use super::secret::{Redactor, Secret};
use super::words::{Speech, Words, one_line};
use super::{Retry, SendError};
use crate::notify::Notice;
use crate::procedure::shorten;

type Fault = (&'static str, String);

/// Largest file of authorities, in bytes: a whole system's bundle has a quarter of that.
const MAX_CA_BYTES: u64 = 1 << 20;

/// Where mail is handed in, and how that is protected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relay<'a> {
    /// `host:port`.
    pub(crate) server: &'a str,
    pub(crate) tls: MailTls,
    /// PEM file of authorities that are trusted besides the public ones.
    pub(crate) ca_file: Option<&'a str>,
}

/// A relay, a sender and receivers.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    server: String,
    tls: MailTls,
    timeout: Duration,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The transport holds the password.
        f.debug_struct("Mailer").field("server", &self.server).field("to", &self.to.len()).finish_non_exhaustive()
    }
}

impl Mailer {
    /// `login` is a user name with its password. A password is only ever sent over TLS, or to loopback.
    pub(crate) fn new(
        relay: Relay<'_>,
        from: &str,
        to: &[String],
        login: Option<(&str, Option<&SecretRef>)>,
        timeout: Duration,
        redactor: &mut Redactor,
    ) -> Result<Self, Fault> {
        let (host, port) = split_server(relay.server)?;
        let tls = match relay.tls {
            MailTls::Implicit => Tls::Wrapper(parameters(host, relay.ca_file)?),
            MailTls::StartTls => Tls::Required(parameters(host, relay.ca_file)?),
            MailTls::None if is_loopback(host) => Tls::None,
            MailTls::None => {
                let reason = format!(
                    "{host} is not on loopback, and mail is sent unprotected to loopback only: write \"starttls\" or \"implicit\""
                );
                return Err(("tls", reason));
            }
        };
        let mailbox = |part, text: &String| {
            text.parse::<Mailbox>().map_err(|e| (part, format!("{text:?} is not a mail address: {e}")))
        };
        let from = mailbox("from", &from.to_owned())?;
        let to = to.iter().map(|text| mailbox("to", text)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(("to", "there is nobody to send to".into()));
        }
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port).tls(tls).timeout(Some(timeout));
        match login {
            Some((user, Some(password))) => {
                let password = Secret::load(password).map_err(|e| ("password", e))?;
                redactor.add(password.expose());
                // Servers may repeat what they were sent: AUTH PLAIN and AUTH LOGIN are base 64.
                let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
                redactor.add(&base64(&format!("\0{user}\0{}", password.expose())));
                redactor.add(&base64(password.expose()));
                builder = builder.credentials(Credentials::new(user.to_owned(), password.expose().to_owned()));
            }
            Some((_, None)) => return Err(("password", "there is a user name but no password".into())),
            None => {}
        }
        let (server, tls) = (relay.server.to_owned(), relay.tls);
        Ok(Self { transport: builder.build(), from, to, server, tls, timeout })
    }

    pub(crate) async fn send(&self, notice: &Notice, speech: &Speech) -> Result<(), SendError> {
        let message = self.message(notice, speech)?;
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let error = innermost(&error);
                let hint = tls_error(error).and_then(remedy);
                let never = error.is_permanent() || error.is_client() || hint.is_some();
                let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                let message = format!("{}: {}{hint}", self.server, one_line(&guard::chain(error)));
                Err(SendError { message, retry: if never { Retry::Never } else { Retry::Usual } })
            }
            Err(_) => {
                let hint = match (self.tls, self.server.ends_with(":465")) {
                    (MailTls::StartTls, true) => ": port 465 usually begins with TLS, by tls = \"implicit\"",
                    _ => "",
                };
                let message = format!("{} did not take the message in time{hint}", self.server);
                Err(SendError { message, retry: Retry::Usual })
            }
        }
    }

    fn message(&self, notice: &Notice, speech: &Speech) -> Result<Message, SendError> {
        let domain = self.from.email.domain();
        let thread = format!("<{}@{domain}>", notice.first().told.alert);
        let words = speech.words(notice);
        let tag = if notice.is_over() { "resolved" } else { notice.severity().as_str() };
        let subject = format!("[{tag}] {}", words.title);
        let mut builder: MessageBuilder = Message::builder()
            .from(self.from.clone())
            .subject(shorten(&one_line(&subject), 200))
            .message_id(Some(format!("<{}@{domain}>", notice.dedup_key)))
            .in_reply_to(thread.clone())
            .references(thread);
        for receiver in &self.to {
            builder = builder.to(receiver.clone());
        }
        let text = text(notice, &words);
        let message = match words.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, html)),
            None => builder.header(ContentType::TEXT_PLAIN).body(text),
        };
        let mut message = message
            .map_err(|e| SendError { message: format!("the mail can't be written: {e}"), retry: Retry::Never })?;
        // Keeps holiday replies from answering.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }
}

/// What TLS to `host` trusts.
fn parameters(host: &str, ca_file: Option<&str>) -> Result<TlsParameters, Fault> {
    let builder = TlsParameters::builder(host.to_owned());
    let Some(path) = ca_file else { return builder.build().map_err(|e| ("tls", e.to_string())) };
    let wrong = |reason: String| ("ca_file", format!("the file {path} {reason}"));
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CA_BYTES + 1).read_to_end(&mut pem));
    read.map_err(|e| wrong(format!("can't be read: {e}")))?;
    if pem.len() as u64 > MAX_CA_BYTES {
        return Err(wrong(format!("is larger than the {MAX_CA_BYTES} bytes that authorities may have")));
    }
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|e| wrong(format!("is damaged: {e}")))?;
    if certificates.is_empty() {
        return Err(wrong("has no certificate in it: expected PEM, which begins -----BEGIN CERTIFICATE-----".into()));
    }
    let authorities = Certificate::from_pem(&pem).map_err(|e| wrong(format!("is damaged: {e}")))?;
    builder.add_root_certificate(authorities).build().map_err(|e| wrong(format!("has a bad certificate: {e}")))
}

/// The error that others of the same kind are wrapped around.
fn innermost(error: &SmtpError) -> &SmtpError {
    let mut error = error;
    while let Some(under) = error.source().and_then(|under| under.downcast_ref::<SmtpError>()) {
        error = under;
    }
    error
}

/// What TLS said, if it was that which failed.
fn tls_error(error: &SmtpError) -> Option<&rustls::Error> {
    let under = error.source()?;
    let under = under.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    under?.downcast_ref::<rustls::Error>()
}

/// What to do about it, where trying again would not help.
fn remedy(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(error) => Some(match error {
            Certificate::UnknownIssuer => "write its authority's certificate into a file, and that as ca_file",
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "write the name that the certificate has as server"
            }
            _ => "the relay needs another certificate",
        }),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("it does not begin with TLS: write tls = \"starttls\"")
        }
        _ => None,
    }
}

/// The plain text: title, message, and what may be looked for later.
fn text(notice: &Notice, words: &Words) -> String {
    let mut lines = vec![words.title.clone(), String::new()];
    lines.extend(words.body.lines().map(str::to_owned));
    lines.push(String::new());
    lines.extend(words.own.iter().map(|(name, value)| format!("{name}: {value}")));
    if let [only] = notice.members.as_slice() {
        lines.push(format!("Policy: {}", only.policy));
        lines.push(format!("Incident: {}", only.told.incident));
        lines.push(format!("Alert: {}", only.told.alert));
    }
    lines.push(format!("Message: {}", notice.dedup_key));
    lines.join("\r\n") + "\r\n"
}

fn split_server(server: &str) -> Result<(&str, u16), Fault> {
    let wrong = || ("server", format!("{server:?} is not host:port, as in \"mail.example.com:587\""));
    let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port.parse() {
        Ok(port @ 1..) if !host.is_empty() => Ok((host, port)),
        _ => Err(wrong()),
    }
}

/// By number, or by the one name that always means it: any other could change.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer(
        server: &str,
        tls: MailTls,
        to: &[&str],
        login: Option<(&str, Option<&SecretRef>)>,
    ) -> Result<Mailer, Fault> {
        relayed(Relay { server, tls, ca_file: None }, to, login)
    }

    fn relayed(relay: Relay<'_>, to: &[&str], login: Option<(&str, Option<&SecretRef>)>) -> Result<Mailer, Fault> {
        let to: Vec<String> = to.iter().map(|text| (*text).to_owned()).collect();
        Mailer::new(
            relay,
            "Rebound <rebound@example.com>",
            &to,
            login,
            Duration::from_secs(1),
            &mut Redactor::default(),
        )
    }

    #[test]
    fn what_is_wrong_is_named() {
        let to = &["ops@example.com"][..];
        let check = |server: &str, tls, to: &[&str], login, part: &str, says: &str| {
            let (found, reason) = mailer(server, tls, to, login).unwrap_err();
            assert_eq!(found, part, "{reason}");
            assert!(reason.contains(says), "{reason}");
        };
        check("mail.example.com", MailTls::Implicit, to, None, "server", "host:port");
        check("mail.example.com:0", MailTls::Implicit, to, None, "server", "host:port");
        check(":25", MailTls::Implicit, to, None, "server", "host:port");
        check("mail.example.com:25", MailTls::None, to, None, "tls", "loopback");
        check("10.0.0.1:25", MailTls::None, to, None, "tls", "loopback");
        check("localhost:25", MailTls::None, &[], None, "to", "nobody");
        check("localhost:25", MailTls::None, &["ops"], None, "to", "\"ops\" is not a mail address");
        check("localhost:25", MailTls::None, to, Some(("me", None)), "password", "no password");
        assert!(mailer("[::1]:25", MailTls::None, to, None).is_ok());
        assert!(mailer("mail.example.com:465", MailTls::Implicit, to, None).is_ok());
        assert!(mailer("mail.example.com:587", MailTls::StartTls, to, None).is_ok());
    }

    #[test]
    fn a_file_of_authorities_is_looked_at_before_anybody_must_be_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem").display().to_string();
        let ca_file = Some(path.as_str());
        let relay = Relay { server: "mail.example.com:465", tls: MailTls::Implicit, ca_file };
        let made = || relayed(relay, &["ops@example.com"], None);
        let good = rcgen::generate_simple_self_signed(vec!["mail.example.com".into()]).unwrap();
        let (pem, der) = (good.cert.pem(), good.cert.der().to_vec());
        let lie = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (key, torn) = (good.signing_key.serialize_pem(), pem[..pem.len() / 2].to_owned());
        let large = " ".repeat((1 << 20) + 1);
        let bad: [(&[u8], &str); 6] = [
            (b"", "has no certificate in it: expected PEM"),
            (&der, "has no certificate in it: expected PEM"),
            (key.as_bytes(), "has no certificate in it: expected PEM"),
            (torn.as_bytes(), "is damaged"),
            (lie.as_bytes(), "has a bad certificate"),
            (large.as_bytes(), "is larger than"),
        ];
        let check = |says: &str| {
            let (part, reason) = made().unwrap_err();
            assert_eq!(part, "ca_file");
            assert!(reason.starts_with(&format!("the file {path} {says}")), "{reason}");
        };
        check("can't be read");
        for (bytes, says) in bad {
            std::fs::write(&path, bytes).unwrap();
            check(says);
        }
        std::fs::write(&path, format!("authorities of the house\n{pem}{pem}")).unwrap();
        assert!(made().is_ok());
    }

    #[test]
    fn debug_shows_no_password() {
        let password = SecretRef::Plain("hunter2".into());
        let login = Some(("me", Some(&password)));
        let mailer = mailer("localhost:25", MailTls::None, &["ops@example.com"], login).unwrap();
        assert!(!format!("{mailer:?}").contains("hunter2"));
    }
}
