//! Channels: where notifications go, and where their secrets stand.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ChannelId;
use crate::plan::rate::Rate;
use crate::plan::template::Templates;

/// Where notifications go. Secrets are named, not written: a file or an environment variable holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// What it is.
    pub kind: ChannelKind,
    /// Per attempt.
    pub timeout: Duration,
    /// Attempts at most, with doubling back-off between them.
    pub attempts: u32,
    /// Messages that it takes; no limit without it.
    pub rate: Option<Rate>,
    /// Its own words.
    pub templates: Templates,
}

/// What a channel is.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelKind {
    /// JSON by POST, signed with HMAC-SHA-256 in `X-Rebound-Signature` when there is a secret.
    Webhook {
        /// Where.
        url: SecretRef,
        /// The signing key.
        secret: Option<SecretRef>,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A Slack-compatible incoming webhook.
    Slack {
        /// Where: the address is itself the secret.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A Microsoft Teams workflow ("When a Teams webhook request is received"), told by an Adaptive Card.
    Teams {
        /// Where: the address is itself the secret.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// PagerDuty, by its Events API v2.
    PagerDuty {
        /// The integration's routing key.
        key: SecretRef,
        /// Where: PagerDuty itself unless the plan says otherwise.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// Opsgenie, by its Alert API.
    Opsgenie {
        /// The integration's API key.
        key: SecretRef,
        /// Where: Opsgenie itself (US) unless the plan says otherwise.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// An Alertmanager, by its API v2.
    Alertmanager {
        /// Where: its root, as in `http://alertmanager:9093`.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A program from the plan's `allow` list, that reads the notice as JSON from its standard input.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// A record on a Kafka topic.
    Kafka {
        /// The topic.
        topic: String,
        /// `host:port`, separated by commas; the pipeline's own without it.
        brokers: Option<String>,
        /// librdkafka's settings, over the pipeline's where it has no brokers of its own.
        properties: BTreeMap<String, SecretRef>,
    },
    /// A mail by SMTP.
    Email {
        /// `host:port` of the relay.
        server: String,
        /// How the connection is protected.
        tls: MailTls,
        /// PEM file of authorities that are trusted besides the public ones.
        ca_file: Option<String>,
        /// Sender.
        from: String,
        /// Receivers.
        to: Vec<String>,
        /// User name.
        user: Option<String>,
        /// Password.
        password: Option<SecretRef>,
    },
    /// A line in Rebound's own log.
    Log,
}

impl ChannelKind {
    /// The kind as the plan writes it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Teams { .. } => "teams",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Opsgenie { .. } => "opsgenie",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Command { .. } => "command",
            Self::Kafka { .. } => "kafka",
            Self::Email { .. } => "email",
            Self::Log => "log",
        }
    }

    /// Whether the receiver keeps an alert of its own, which is opened, acknowledged and closed.
    #[must_use]
    pub fn keeps_alerts(&self) -> bool {
        matches!(self, Self::PagerDuty { .. } | Self::Opsgenie { .. } | Self::Alertmanager { .. })
    }
}

/// Whether a setting of librdkafka's holds a secret, by its name. Locations of keys may be shown.
#[must_use]
pub fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !key.ends_with(".location")
        && ["password", "secret", "key", "token", "jaas", "credential", "sasl.oauthbearer.config"]
            .iter()
            .any(|word| key.contains(word))
}

/// How an SMTP connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS, required.
    StartTls,
    /// None: only for a relay on loopback.
    None,
}

/// Where a text that may be secret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In the plan itself: only for what is not secret.
    Plain(String),
    /// In this environment variable.
    Env(String),
    /// In this file, whose trailing line end is dropped.
    File(String),
}
