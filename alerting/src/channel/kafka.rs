//! A Kafka topic as a channel: one record a notice, its key the notice's, so that a reader drops repeats by it and a
//! compacted topic keeps the newest. The value is the webhook's body; the headers make it a CloudEvent in binary mode.
//!
//! Kafka's client is the bus's affair. The program that wires both says how a topic is reached ([`Connect`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rebound_schemas::codec::{SPEC_VERSION, TYPE_PREFIX, format_time};

use super::request::rebound_body;
use super::secret::Secret;
use super::words::Speech;
use super::{Retry, SendError};
use crate::SOURCE;
use crate::notify::Notice;

/// The topic of a channel, with what its client is told.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub topic: String,
    /// `host:port`, separated by commas; none: the pipeline's own.
    pub brokers: Option<String>,
    /// librdkafka's settings.
    pub properties: BTreeMap<String, Secret>,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// A record for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its key: the notice's.
    pub key: String,
    /// CloudEvents' attributes.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub value: Vec<u8>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PublishError {
    /// What the client said, its own secrets removed.
    pub reason: String,
    /// Whether another attempt may succeed.
    pub transient: bool,
}

/// Puts records on one topic.
#[async_trait]
pub trait Publisher: Send + Sync + std::fmt::Debug {
    /// Answers when the record is durable.
    async fn publish(&self, record: Publication) -> Result<(), PublishError>;
}

/// Makes a publisher, or says what is wrong with the target.
pub type Connect<'a> = &'a dyn Fn(&Target) -> Result<Arc<dyn Publisher>, String>;

/// The [`Connect`] of a test that knows no Kafka.
#[cfg(test)]
pub(super) fn unconnected(_: &Target) -> Result<Arc<dyn Publisher>, String> {
    Err("this program reaches no Kafka".to_owned())
}

pub(super) async fn send(publisher: &dyn Publisher, notice: &Notice, speech: &Speech) -> Result<(), SendError> {
    publisher.publish(publication(notice, speech)).await.map_err(|error| SendError {
        retry: if error.transient { Retry::Usual } else { Retry::Never },
        message: error.reason,
    })
}

fn publication(notice: &Notice, speech: &Speech) -> Publication {
    let first = notice.first();
    Publication {
        key: notice.dedup_key.clone(),
        headers: vec![
            ("ce_specversion", SPEC_VERSION.to_owned()),
            ("ce_id", notice.dedup_key.clone()),
            ("ce_source", SOURCE.to_owned()),
            ("ce_type", format!("{TYPE_PREFIX}notification.v1")),
            ("ce_subject", first.service.to_string()),
            ("ce_time", format_time(first.at)),
            ("content-type", "application/json".to_owned()),
        ],
        value: rebound_body(notice, &speech.words(notice)).to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rebound_schemas::plan::{ChannelKind, SecretRef};
    use serde_json::{Value, json};

    use super::super::tests::{LONG, configured, notice, plain};
    use super::super::{Channel, Delivery};
    use super::*;

    /// Fails as told, in turn, and then takes what comes.
    #[derive(Debug, Default)]
    struct Topic {
        failures: Mutex<Vec<PublishError>>,
        taken: Mutex<Vec<Publication>>,
    }

    #[async_trait]
    impl Publisher for Topic {
        async fn publish(&self, record: Publication) -> Result<(), PublishError> {
            self.taken.lock().unwrap().push(record);
            self.failures.lock().unwrap().pop().map_or(Ok(()), Err)
        }
    }

    fn failure(transient: bool) -> PublishError {
        PublishError { reason: "no leader, password hunter2-secret".into(), transient }
    }

    fn kind(properties: &[(&str, SecretRef)]) -> ChannelKind {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        ChannelKind::Kafka { topic: "told".into(), brokers: Some("k:9092".into()), properties }
    }

    fn channel(topic: &Arc<Topic>, attempts: u32) -> Channel {
        let plan = configured(kind(&[("sasl.password", plain("hunter2-secret"))]), LONG, attempts);
        let connect = |target: &Target| -> Result<Arc<dyn Publisher>, String> {
            assert_eq!((target.topic.as_str(), target.brokers.as_deref()), ("told", Some("k:9092")));
            assert_eq!(target.properties["sasl.password"].expose(), "hunter2-secret");
            assert!(!format!("{target:?}").contains("hunter2"));
            Ok(topic.clone())
        };
        Channel::new(&plan, &connect).unwrap().with_first_wait(Duration::from_millis(1))
    }

    #[tokio::test]
    async fn a_record_is_a_cloud_event_under_the_notices_key() {
        let topic = Arc::new(Topic::default());
        assert_eq!(channel(&topic, 1).deliver(&notice()).await, Delivery::Sent { attempt: 1 });
        let record = topic.taken.lock().unwrap()[0].clone();
        let headers: BTreeMap<_, _> = record.headers.iter().cloned().collect();
        assert_eq!((record.key.as_str(), headers["ce_id"].as_str()), ("ntf-abc", "ntf-abc"));
        assert_eq!(headers["ce_type"], "dev.rebound.notification.v1");
        assert_eq!((headers["ce_subject"].as_str(), headers["ce_time"].as_str()), ("api", "2026-02-25T06:13:50.000Z"));
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        assert_eq!((&value["dedup_key"], &value["service"]), (&json!("ntf-abc"), &json!("api")));
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_under_the_same_key() {
        let topic = Arc::new(Topic::default());
        topic.failures.lock().unwrap().push(failure(true));
        assert_eq!(channel(&topic, 3).deliver(&notice()).await, Delivery::Sent { attempt: 2 });
        let keys: Vec<String> = topic.taken.lock().unwrap().iter().map(|record| record.key.clone()).collect();
        assert_eq!(keys, ["ntf-abc", "ntf-abc"]);
        topic.failures.lock().unwrap().push(failure(false));
        let failed = channel(&topic, 3).deliver(&notice()).await;
        let error = "no leader, password [redacted]".to_owned();
        assert_eq!(failed, Delivery::Failed { attempts: 1, error });
    }

    #[test]
    fn what_can_not_be_reached_is_told_with_its_channel() {
        let missing = configured(kind(&[("sasl.password", SecretRef::Env("REBOUND_TEST_NOT_SET".into()))]), LONG, 1);
        let error = Channel::new(&missing, &unconnected).unwrap_err().to_string();
        assert_eq!(
            error,
            "channel pager: properties: sasl.password: the environment variable REBOUND_TEST_NOT_SET is not set"
        );
        let error = Channel::new(&configured(kind(&[]), LONG, 1), &unconnected).unwrap_err().to_string();
        assert_eq!(error, "channel pager: kafka: this program reaches no Kafka");
    }
}
