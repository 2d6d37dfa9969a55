//! Notification channels as the plan writes them. What is secret may not stand in the plan: it is named by
//! `{ env = "…" }` or `{ file = "…" }`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::model::{Channel, ChannelKind, MailTls, SecretRef, sounds_secret};
use super::rate;
use super::read::{DEFAULT_CHANNEL, Reading, literal};
use super::read_probe::{check_address, check_url};
use super::section::Section;
use super::template::Templates;

const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Webhook,
    Slack,
    Teams,
    PagerDuty,
    Opsgenie,
    Alertmanager,
    Command,
    Kafka,
    Email,
    Log,
}

/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// Opsgenie's API (US); `https://api.eu.opsgenie.com` is the European one.
const OPSGENIE: &str = "https://api.opsgenie.com";

const KINDS: [(&str, Kind); 10] = [
    ("webhook", Kind::Webhook),
    ("slack", Kind::Slack),
    ("teams", Kind::Teams),
    ("pagerduty", Kind::PagerDuty),
    ("opsgenie", Kind::Opsgenie),
    ("alertmanager", Kind::Alertmanager),
    ("command", Kind::Command),
    ("kafka", Kind::Kafka),
    ("email", Kind::Email),
    ("log", Kind::Log),
];
const TLS: [(&str, MailTls); 3] =
    [("implicit", MailTls::Implicit), ("starttls", MailTls::StartTls), ("none", MailTls::None)];

/// The channel of a plan that declares none: Rebound's own log.
pub(super) fn default_channel() -> Channel {
    Channel {
        id: literal(DEFAULT_CHANNEL),
        kind: ChannelKind::Log,
        timeout: TIMEOUT,
        attempts: ATTEMPTS,
        rate: None,
        templates: Templates::default(),
    }
}

impl<'a> Reading<'a> {
    /// A channel.
    pub(super) fn channel(&self, section: &Section<'a>) -> Option<Channel> {
        let id = section.id("channel");
        section.required("kind", "kind = \"webhook\", \"slack\", \"pagerduty\", \"email\", \"log\"…");
        let timeout = section.duration("timeout").unwrap_or(TIMEOUT);
        let attempts = section.count("attempts", 1, 100).unwrap_or(ATTEMPTS);
        let rate = rate::read(section);
        let kind = section.word("kind", &KINDS)?;
        let (what, kind) = match kind {
            Kind::Webhook => ("a webhook channel", self.webhook(section)),
            Kind::Slack => {
                let slack = self.secret_address(section, "slack");
                ("a slack channel", slack.map(|(url, allow_private)| ChannelKind::Slack { url, allow_private }))
            }
            Kind::Teams => {
                let teams = self.secret_address(section, "teams");
                ("a teams channel", teams.map(|(url, allow_private)| ChannelKind::Teams { url, allow_private }))
            }
            Kind::PagerDuty => {
                let pager = self.keyed(section, PAGERDUTY);
                let pager = pager.map(|(key, url, allow_private)| ChannelKind::PagerDuty { key, url, allow_private });
                ("a pagerduty channel", pager)
            }
            Kind::Opsgenie => {
                let genie = self.keyed(section, OPSGENIE);
                let genie = genie.map(|(key, url, allow_private)| ChannelKind::Opsgenie { key, url, allow_private });
                ("an opsgenie channel", genie)
            }
            Kind::Alertmanager => {
                section.required("url", "url = \"http://alertmanager:9093\"");
                let allow_private = section.flag("allow_private").unwrap_or(false);
                let url = self.address(section, "url");
                ("an alertmanager channel", url.map(|url| ChannelKind::Alertmanager { url, allow_private }))
            }
            Kind::Command => {
                section.required("command", "command = [\"/usr/local/bin/tell\"]");
                let argv = self.argv(section, "command");
                ("a command channel", argv.map(|argv| ChannelKind::Command { argv }))
            }
            Kind::Kafka => ("a kafka channel", self.kafka(section)),
            Kind::Email => ("an email channel", self.email(section)),
            Kind::Log => ("a log channel", Some(ChannelKind::Log)),
        };
        let templates = self.templates(section, kind.as_ref().map(ChannelKind::as_str));
        section.finish(what);
        Some(Channel { id: id?, kind: kind?, timeout, attempts, rate, templates })
    }

    fn webhook(&self, section: &Section<'a>) -> Option<ChannelKind> {
        section.required("url", "url = \"https://…\"");
        let allow_private = section.flag("allow_private").unwrap_or(false);
        let url = self.address(section, "url");
        let secret = self.secret(section, "secret");
        Some(ChannelKind::Webhook { url: url?, secret, allow_private })
    }

    /// An address that is a secret: whoever knows it may post to it. Only a stand-in on a private network may be
    /// written out.
    fn secret_address(&self, section: &Section<'a>, name: &str) -> Option<(SecretRef, bool)> {
        let variable = name.to_ascii_uppercase();
        let remedy = format!("url = {{ env = \"{variable}_URL\" }} or {{ file = \"/run/secrets/{name}\" }}");
        section.required("url", &remedy);
        let allow_private = section.flag("allow_private").unwrap_or(false);
        let url = if allow_private { self.address(section, "url") } else { self.secret(section, "url") };
        Some((url?, allow_private))
    }

    /// A key, and an address that the service's own stands for.
    fn keyed(&self, section: &Section<'a>, default: &str) -> Option<(SecretRef, SecretRef, bool)> {
        section.required("key", "key = { env = \"…\" } or { file = \"/run/secrets/…\" }");
        let key = self.secret(section, "key");
        let allow_private = section.flag("allow_private").unwrap_or(false);
        let url = match section.has("url") {
            true => self.address(section, "url"),
            false => Some(SecretRef::Plain(default.to_owned())),
        };
        Some((key?, url?, allow_private))
    }

    /// An address that may stand in the plan, or be named.
    fn address(&self, section: &Section<'a>, key: &str) -> Option<SecretRef> {
        let url = self.maybe_secret(section, key);
        if let Some(SecretRef::Plain(text)) = &url {
            check_url(section, key, text);
        }
        url
    }

    fn kafka(&self, section: &Section<'a>) -> Option<ChannelKind> {
        section.required("topic", "topic = \"…\", where its messages go");
        let topic = section.text("topic").filter(|topic| {
            let letters = topic.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            let good = letters && (1..=249).contains(&topic.len()) && topic != "." && topic != "..";
            if !good {
                let remedy = "write up to 249 letters, digits, \".\", \"_\" and \"-\"";
                section.fault("topic", format!("{topic:?} is not a topic's name"), remedy);
            }
            good
        });
        let brokers = section.words("brokers");
        for broker in brokers.iter().flat_map(|brokers| brokers.split(',')) {
            if !check_address(section, "brokers", broker.trim()) {
                break;
            }
        }
        let mut properties = BTreeMap::new();
        if section.has("properties")
            && let Some(table) = section.section("properties")
        {
            for key in table.keys() {
                let value =
                    if sounds_secret(&key) { self.secret(&table, &key) } else { self.maybe_secret(&table, &key) };
                properties.extend(value.map(|value| (key, value)));
            }
        }
        Some(ChannelKind::Kafka { topic: topic?, brokers, properties })
    }

    fn email(&self, section: &Section<'a>) -> Option<ChannelKind> {
        section.required("server", "server = \"host:port\" of the relay");
        let server = section.text("server");
        let sound = server.as_ref().is_some_and(|server| check_address(section, "server", server));
        let tls = section.word("tls", &TLS).unwrap_or(MailTls::StartTls);
        if let (MailTls::None, true, Some(server)) = (tls, sound, &server)
            && !is_loopback(server)
        {
            let message = format!("mails to {server:?} would go in the clear");
            section.fault("tls", message, "write tls = \"starttls\" or \"implicit\": none is for loopback only");
        }
        let ca_file = self.file(section, "ca_file");
        if tls == MailTls::None && section.has("ca_file") {
            let remedy = "write tls = \"starttls\" or \"implicit\", or leave ca_file out";
            section.fault("ca_file", "says whom to trust over TLS, and there is none", remedy);
        }
        section.required("from", "from = \"rebound@example.org\"");
        let from = section.text("from");
        if let Some(from) = &from {
            check_mailbox(section, "from", section.place("from"), from);
        }
        section.required("to", "to = [\"ops@example.org\"]");
        let to = section.texts("to");
        if to.as_ref().is_some_and(Vec::is_empty) {
            section.fault("to", "is empty", "write to = [\"ops@example.org\"]");
        }
        for (at, mailbox) in to.iter().flatten() {
            check_mailbox(section, "to", *at, mailbox);
        }
        let user = section.words("user");
        let password = self.secret(section, "password");
        if section.has("user") != section.has("password") {
            let (there, missing) = if user.is_some() { ("user", "password") } else { ("password", "user") };
            section.fault(there, format!("stands without {missing}"), format!("write {missing} too, or neither"));
        }
        let to = to?.into_iter().map(|(_, mailbox)| mailbox).collect();
        Some(ChannelKind::Email { server: server?, tls, ca_file, from: from?, to, user, password })
    }

    /// A text that may stand in the plan, or be named.
    fn maybe_secret(&self, section: &Section<'a>, key: &str) -> Option<SecretRef> {
        if section.is_table(key) { self.secret(section, key) } else { section.text(key).map(SecretRef::Plain) }
    }

    /// A text that must be named.
    fn secret(&self, section: &Section<'a>, key: &str) -> Option<SecretRef> {
        if !section.has(key) {
            return None;
        }
        if !section.is_table(key) {
            // Asked for, so that it isn't reported as unknown as well; its value goes nowhere.
            drop(section.text(key));
            let owner = section.raw_text("id").unwrap_or_default();
            let name: String = format!("{owner}_{key}").chars().map(variable_character).collect();
            let name = name.trim_start_matches('_');
            let remedy = format!("write {key} = {{ env = \"{name}\" }} or {{ file = \"/run/secrets/{key}\" }}");
            section.fault(key, "is a secret, which must not stand in the plan", remedy);
            return None;
        }
        let table = section.section(key)?;
        let (env, _) = (table.text("env"), table.text("file"));
        let secret = match (table.has("env"), table.has("file")) {
            (true, false) => env.map(SecretRef::Env),
            (false, true) => self.file(&table, "file").map(SecretRef::File),
            _ => {
                section.fault(key, "names not exactly one place", "write either { env = \"…\" } or { file = \"…\" }");
                None
            }
        };
        if let Some(SecretRef::Env(name)) = &secret
            && (name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        {
            let message = format!("{name:?} is not a variable's name");
            table.fault("env", message, "write letters, digits and \"_\", as in SMTP_PASSWORD");
        }
        table.finish("a secret");
        secret
    }
}

/// A character of an environment variable's name.
fn variable_character(c: char) -> char {
    if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `name@host`; what else a mailbox may be is the relay's to judge.
fn check_mailbox(section: &Section<'_>, key: &str, at: usize, text: &str) {
    let valid =
        text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if !valid || text.chars().any(|c| c.is_whitespace() || c.is_control() || "<>,;".contains(c)) {
        let message = format!("{text:?} is not a mail address");
        section.reader.fault_at(at, &section.key(key), message, "write name@host, without a display name");
    }
}
