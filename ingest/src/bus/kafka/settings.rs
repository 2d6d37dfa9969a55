//! Settings of the Kafka bus, librdkafka's clients made from them, and its errors in our words.
//!
//! librdkafka's own settings pass through as they are, except those that would break a promise of the bus. Secrets
//! are removed from everything that is shown: Debug, errors and the client's log lines.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

use crate::bus::{BusError, MAX_RECORD_BYTES};

/// What a client complains of is logged again after this.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Settings that make the bus's promises; a user's value would break them.
const OURS: [&str; 14] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// How to reach Kafka (`[kafka]`).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// Goes before the names of topics, groups and transactional ids: `rebound.observations`.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Partitions of every topic; existing topics must have as many.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// Copies of every topic that is created.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// How long a call may take before it fails, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How long a member may be silent before its partitions go to others, in milliseconds.
    #[serde(default = "default_timeout")]
    pub session_timeout_ms: u64,
    /// How long a transaction may stay open before the broker aborts it, in milliseconds.
    #[serde(default = "default_transaction_timeout")]
    pub transaction_timeout_ms: u64,
    /// librdkafka's settings, by their own names.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

fn default_prefix() -> String {
    "rebound".to_owned()
}

fn default_partitions() -> i32 {
    4
}

fn default_replication() -> i32 {
    1
}

fn default_timeout() -> u64 {
    10_000
}

fn default_transaction_timeout() -> u64 {
    30_000
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value)| if is_secret(key) { (key, "***") } else { (key, value) };
        let properties: BTreeMap<&str, &str> =
            self.properties.iter().map(|(key, value)| shown((key.as_str(), value.as_str()))).collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("timeout_ms", &self.timeout_ms)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("transaction_timeout_ms", &self.transaction_timeout_ms)
            .field("properties", &properties)
            .finish()
    }
}

/// Whether a setting's value must not be shown, by its name. Locations of keys may be shown.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    rebound_schemas::plan::sounds_secret(key)
}

impl KafkaSettings {
    /// The defaults, for some brokers.
    #[must_use]
    pub fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            prefix: default_prefix(),
            partitions: default_partitions(),
            replication: default_replication(),
            timeout_ms: default_timeout(),
            session_timeout_ms: default_timeout(),
            transaction_timeout_ms: default_transaction_timeout(),
            properties: BTreeMap::new(),
        }
    }

    /// Checks what can be checked without a broker: values, and every name among the properties.
    pub fn check(&self) -> Result<(), BusError> {
        let wrong = |text: String| Err(BusError::Configuration(text));
        if self.brokers.trim().is_empty() {
            return wrong("[kafka] brokers is empty: name at least one as host:port".to_owned());
        }
        if self.prefix.is_empty() || !self.prefix.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return wrong(format!("[kafka] prefix {:?} must be letters, digits, '.', '_' or '-'", self.prefix));
        }
        if self.partitions < 1 || self.replication < 1 {
            return wrong("[kafka] partitions and replication must be at least 1".to_owned());
        }
        if self.timeout_ms == 0 || self.transaction_timeout_ms < 1_000 || self.session_timeout_ms < 1_000 {
            return wrong(
                "[kafka] timeout_ms must be at least 1, session_timeout_ms and transaction_timeout_ms at least 1000"
                    .to_owned(),
            );
        }
        if let Some(key) = self.properties.keys().find(|key| OURS.contains(&key.as_str())) {
            return wrong(format!("[kafka.properties] {key} is set by rebound itself: remove it"));
        }
        // One at a time, so that the error can name the key and never needs to show a value.
        for (key, value) in &self.properties {
            let mut config = ClientConfig::new();
            config.set(key, value);
            match config.create_native_config() {
                Ok(_) => {}
                Err(KafkaError::ClientConfig(_, text, ..)) if text.contains("No such configuration") => {
                    return wrong(format!(
                        "[kafka.properties] {key} is no setting of librdkafka: see its CONFIGURATION.md"
                    ));
                }
                Err(KafkaError::ClientConfig(_, text, ..)) => {
                    return wrong(format!("[kafka.properties] {key}: {}", self.redact(&text)));
                }
                Err(other) => return wrong(format!("[kafka.properties] {key}: {}", self.redact(&other.to_string()))),
            }
        }
        Ok(())
    }

    /// A text without the values of secret settings.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.properties.iter().filter(|(key, value)| is_secret(key) && !value.is_empty());
        secrets.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), "***"))
    }

    /// The limit of a call.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What all clients of one bus share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) settings: KafkaSettings,
    /// What a client last complained about: the cause behind a time-out.
    complaint: Mutex<Option<String>>,
    /// What was logged lately, and when: every client of a bus complains of the same, twice, and again and again.
    told: Mutex<HashMap<String, Instant>>,
}

impl Link {
    pub(super) fn new(settings: KafkaSettings) -> Arc<Self> {
        Arc::new(Self { settings, complaint: Mutex::new(None), told: Mutex::default() })
    }

    /// Whether this was not said lately.
    fn is_news(&self, said: &str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < TELL_AGAIN_AFTER);
        // Bounded by what can be said within that time; should it ever be more, some of it is told twice.
        if told.len() >= 256 {
            told.clear();
        }
        let news = !told.contains_key(said);
        if news {
            told.insert(said.to_owned(), now);
        }
        news
    }

    /// What consumers and producers have in common.
    fn base(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", format!("{}-{role}", self.settings.prefix));
        for (key, value) in &self.settings.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.settings.brokers);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// For a consumer of a group, that commits nothing by itself.
    pub(super) fn consumer(&self, role: &str, group: &str) -> ClientConfig {
        let mut config = self.base(role);
        config
            .set("group.id", group)
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed");
        config
    }

    /// The user's value of a setting, or ours.
    pub(super) fn property<'a>(&'a self, key: &str, ours: &'a str) -> &'a str {
        self.settings.properties.get(key).map_or(ours, String::as_str)
    }

    /// For a producer; a transactional one if it has an id.
    pub(super) fn producer(&self, role: &str, transactional_id: Option<&str>) -> ClientConfig {
        let mut config = self.base(role);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Batches form while earlier ones are under way; waiting longer would only add latency.
            .set("linger.ms", self.property("linger.ms", "1"))
            .set("message.max.bytes", self.property("message.max.bytes", &(2 * MAX_RECORD_BYTES).to_string()));
        let limit = self.settings.transaction_timeout_ms;
        match transactional_id {
            Some(id) => {
                config
                    // Between two steps the broker is still writing the first one's marker and asks to try again: by
                    // default that takes 100 ms each time.
                    .set("retry.backoff.ms", self.property("retry.backoff.ms", "5"))
                    .set("transactional.id", id)
                    .set("transaction.timeout.ms", limit.to_string())
                    .set("message.timeout.ms", self.settings.timeout_ms.min(limit).to_string());
            }
            None => drop(config.set("message.timeout.ms", self.settings.timeout_ms.to_string())),
        }
        config
    }

    /// Makes a client that reports to this link.
    pub(super) fn create<C, T>(self: &Arc<Self>, config: &ClientConfig, context: C) -> Result<T, BusError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        config.create_with_context(context).map_err(|error| self.error("making a client", error))
    }

    pub(super) fn reporter(self: &Arc<Self>) -> Reporter {
        Reporter(Arc::clone(self))
    }

    /// An error of librdkafka in our words.
    pub(super) fn error(&self, what: &str, error: KafkaError) -> BusError {
        use RDKafkaErrorCode as Code;
        let brokers = &self.settings.brokers;
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        let said = self.settings.redact(&match &error {
            KafkaError::Transaction(inner) => inner.string(),
            KafkaError::ClientConfig(_, text, key, _) => format!("{key}: {text}"),
            other => code.map_or_else(|| other.to_string(), |code| code.to_string()),
        });
        match code {
            Some(Code::InvalidReplicationFactor) => {
                let copies = self.settings.replication;
                let remedy = format!("[kafka] replication is {copies}, which needs as many brokers");
                BusError::Configuration(format!("kafka at {brokers} refuses {what}: {said}: {remedy}"))
            }
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::InvalidConfig
                | Code::PolicyViolation,
            ) => BusError::Configuration(format!("kafka at {brokers} refuses {what}: {said}")),
            _ if matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) => {
                BusError::Configuration(format!("[kafka.properties] don't fit together: {said}"))
            }
            _ => {
                let cause = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                BusError::Unavailable { reason: format!("kafka at {brokers}: {what}: {said}{cause}") }
            }
        }
    }
}

/// What a complaint says without which of librdkafka's threads says it, and after how many milliseconds.
fn essence(said: &str) -> &str {
    let said = match said.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, rest)) => rest,
        None => said,
    };
    said.rsplit_once(" (after ").map_or(said, |(said, _)| said)
}

/// Forwards what librdkafka says, without secrets; what was said lately only to those who debug.
#[derive(Debug, Clone)]
pub(super) struct Reporter(pub(super) Arc<Link>);

impl ClientContext for Reporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel as Level;
        let message = self.0.settings.redact(essence(message));
        let warning = matches!(level, Level::Warning);
        let severe = matches!(level, Level::Emerg | Level::Alert | Level::Critical | Level::Error);
        if (warning || severe) && self.0.is_news(&message) {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        } else if matches!(level, Level::Notice | Level::Info) {
            tracing::info!(target: "librdkafka", facility, "{message}");
        } else {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        if severe {
            *self.0.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is where readers wait: no fault.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let reason = self.0.settings.redact(essence(reason));
        // That all are down says less than what was logged about each of them.
        let down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if down || !self.0.is_news(&reason) {
            tracing::debug!(target: "librdkafka", %error, "{reason}");
        } else {
            tracing::warn!(target: "librdkafka", %error, "{reason}");
        }
        if down {
            return;
        }
        *self.0.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Reporter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(properties: &[(&str, &str)]) -> KafkaSettings {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        KafkaSettings { properties, ..KafkaSettings::new("127.0.0.1:1") }
    }

    #[test]
    fn properties_are_checked_by_name() {
        for (properties, expected) in [
            (
                with(&[("no.such.key", "1")]),
                "[kafka.properties] no.such.key is no setting of librdkafka: see its CONFIGURATION.md",
            ),
            (with(&[("acks", "1")]), "[kafka.properties] acks is set by rebound itself: remove it"),
            (KafkaSettings { partitions: 0, ..with(&[]) }, "[kafka] partitions and replication must be at least 1"),
            (
                KafkaSettings { brokers: String::new(), ..with(&[]) },
                "[kafka] brokers is empty: name at least one as host:port",
            ),
        ] {
            assert_eq!(properties.check().unwrap_err().to_string(), expected);
        }
        let error = with(&[("linger.ms", "soon")]).check().unwrap_err().to_string();
        assert!(error.starts_with("[kafka.properties] linger.ms: "), "{error}");
        with(&[("linger.ms", "5"), ("sasl.password", "hush")]).check().unwrap();
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = with(&[
            ("sasl.password", "hunter2"),
            ("ssl.key.pem", "BEGIN"),
            ("sasl.oauthbearer.client.secret", "s3cret"),
            ("ssl.ca.location", "/etc/ca.pem"),
        ]);
        let shown = format!("{settings:?}");
        for secret in ["hunter2", "BEGIN", "s3cret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("/etc/ca.pem"));
        let link = Link::new(settings);
        let error = link.error("x", KafkaError::ClientCreation("password hunter2 is wrong".to_owned())).to_string();
        assert!(error.contains("password *** is wrong"), "{error}");
    }

    #[test]
    fn what_every_client_says_again_and_again_is_told_once() {
        let said =
            "[thrd:a:1/bootstrap]: a:1/bootstrap: Connect failed: Connection refused (after 0ms in state CONNECT)";
        let again = "a:1/bootstrap: Connect failed: Connection refused (after 3ms in state CONNECT, 1 suppressed)";
        assert_eq!(essence(said), "a:1/bootstrap: Connect failed: Connection refused");
        assert_eq!(essence(said), essence(again));
        assert_eq!(essence("1/1 brokers are down"), "1/1 brokers are down");
        let link = Link::new(with(&[]));
        assert!(link.is_news(essence(said)) && !link.is_news(essence(again)) && link.is_news("something else"));
    }

    #[test]
    fn too_many_copies_are_a_wrong_setting() {
        let link = Link::new(KafkaSettings { replication: 3, ..with(&[]) });
        let error = link.error("creating the topic x", KafkaError::AdminOp(RDKafkaErrorCode::InvalidReplicationFactor));
        assert!(matches!(error, BusError::Configuration(_)), "{error}");
        assert!(error.to_string().ends_with("[kafka] replication is 3, which needs as many brokers"), "{error}");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let text = r#"{"brokers": "a:1", "broker": "b:1"}"#;
        let error = serde_json::from_str::<KafkaSettings>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `broker`"), "{error}");
        let least: KafkaSettings = serde_json::from_str(r#"{"brokers": "a:1"}"#).unwrap();
        assert_eq!(least, KafkaSettings::new("a:1"));
    }
}
