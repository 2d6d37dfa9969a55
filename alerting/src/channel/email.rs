//! Mail by SMTP: one plain-text message a notice to all receivers of the channel.
//!
//! The message's id follows from the notice's key, so that a mailbox drops repeats, and every message of one alert
//! refers to the same thread. A relay that refuses one receiver refuses the message. Relays are trusted by the
//! public (Mozilla) root certificates.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use rebound_schemas::plan::{MailTls, SecretRef};

use super::guard;
use super::secret::{Redactor, Secret};
use super::words::{Speech, Words, one_line};
use super::{Retry, SendError};
use crate::notify::Notice;
use crate::procedure::shorten;

type Fault = (&'static str, String);

/// A relay, a sender and receivers.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    server: String,
    timeout: Duration,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The transport holds the password.
        f.debug_struct("Mailer").field("server", &self.server).field("to", &self.to.len()).finish_non_exhaustive()
    }
}

impl Mailer {
    /// `server` is `host:port`; `login` is a user name with its password. A password is only ever sent over TLS, or
    /// to loopback.
    pub(crate) fn new(
        server: &str,
        tls: MailTls,
        from: &str,
        to: &[String],
        login: Option<(&str, Option<&SecretRef>)>,
        timeout: Duration,
        redactor: &mut Redactor,
    ) -> Result<Self, Fault> {
        let (host, port) = split_server(server)?;
        let parameters = || TlsParameters::new(host.to_owned()).map_err(|e| ("tls", e.to_string()));
        let tls = match tls {
            MailTls::Implicit => Tls::Wrapper(parameters()?),
            MailTls::StartTls => Tls::Required(parameters()?),
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
        Ok(Self { transport: builder.build(), from, to, server: server.to_owned(), timeout })
    }

    pub(crate) async fn send(&self, notice: &Notice, speech: &Speech) -> Result<(), SendError> {
        let message = self.message(notice, speech)?;
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let retry = if error.is_permanent() || error.is_client() { Retry::Never } else { Retry::Usual };
                Err(SendError { message: format!("{}: {}", self.server, one_line(&guard::chain(&error))), retry })
            }
            Err(_) => {
                let message = format!("{} did not take the message in time", self.server);
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
        let to: Vec<String> = to.iter().map(|text| (*text).to_owned()).collect();
        Mailer::new(
            server,
            tls,
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
    fn debug_shows_no_password() {
        let password = SecretRef::Plain("hunter2".into());
        let login = Some(("me", Some(&password)));
        let mailer = mailer("localhost:25", MailTls::None, &["ops@example.com"], login).unwrap();
        assert!(!format!("{mailer:?}").contains("hunter2"));
    }
}
