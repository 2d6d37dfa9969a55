//! Records for others: a topic that is none of the pipeline's own, on its brokers or on any.
//!
//! The producer is idempotent (`acks=all`), so that what the client itself sends again stands there once. What its
//! caller sends again is another record with the same key, by which readers drop it.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureRecord, Producer};

use super::settings::Link;
use super::transactor::Client;
use super::{BusError, KafkaSettings, blocking};

/// How long is waited for the answer whether a topic exists.
const ASKING: Duration = Duration::from_secs(2);

/// A topic that records are put on.
pub struct KafkaPublisher {
    link: std::sync::Arc<Link>,
    producer: Client,
    topic: String,
}

impl std::fmt::Debug for KafkaPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (settings, topic) = (&self.link.settings, &self.topic);
        f.debug_struct("KafkaPublisher").field("settings", settings).field("topic", topic).finish_non_exhaustive()
    }
}

impl KafkaPublisher {
    /// Makes the client; brokers are asked when something is published. Errors: a setting is wrong.
    pub fn new(settings: KafkaSettings, topic: &str) -> Result<Self, BusError> {
        settings.check()?;
        let link = Link::new(settings);
        let producer: Client = link.create(&link.producer("publisher", None), link.reporter())?;
        Ok(Self { link, producer, topic: topic.to_owned() })
    }

    /// Appends a record and waits until it is replicated as `acks=all` says, for the settings' `timeout_ms` at most.
    /// Its partition is librdkafka's choice by the key.
    pub async fn publish(&self, key: &str, headers: &[(&str, String)], value: &[u8]) -> Result<(), BusError> {
        let all = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (name, value)| {
            all.insert(Header { key: name, value: Some(Bytes::from(value.clone()).as_ref()) })
        });
        let record = FutureRecord::<[u8], [u8]>::to(&self.topic).key(key.as_bytes()).payload(value).headers(all);
        match self.producer.send(record, self.link.settings.timeout()).await {
            Ok(_) => Ok(()),
            Err((error, _)) => match self.is_missing().await {
                true => Err(BusError::Unavailable {
                    reason: format!("kafka at {} has no topic {}: create it", self.link.settings.brokers, self.topic),
                }),
                false => Err(self.link.error(&format!("appending to {}", self.topic), error)),
            },
        }
    }

    /// Whether the brokers say that there is no such topic; only asked when appending failed, which says less.
    async fn is_missing(&self) -> bool {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let asked = blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), ASKING).ok();
            let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
            Ok(metadata
                .is_some_and(|found| found.topics().iter().any(|found| found.error().map(Into::into) == Some(missing))))
        });
        asked.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::{Headers, Message};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    use super::*;
    use crate::bus::conformance::kafka::brokers;

    /// Its first record, by another client.
    fn first(brokers: &str, topic: &str) -> rdkafka::message::OwnedMessage {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", topic)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
        let mut all = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) {
                return message.detach();
            }
        }
        panic!("nothing on {topic}")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_arrives_with_key_and_headers() {
        let Some(brokers) = brokers() else { return };
        let topic = format!("told-{:016x}", rand::random::<u64>());
        let config = ClientConfig::new().set("bootstrap.servers", &brokers).clone();
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
        admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let settings = KafkaSettings { timeout_ms: 60_000, ..KafkaSettings::new(&brokers) };
        let publisher = KafkaPublisher::new(settings, &topic).unwrap();
        let headers = [("ce_id", "ntf-1".to_owned()), ("content-type", "application/json".to_owned())];
        publisher.publish("ntf-1", &headers, b"{}").await.unwrap();
        let found = first(&brokers, &topic);
        assert_eq!((found.key(), found.payload()), (Some(&b"ntf-1"[..]), Some(&b"{}"[..])));
        let all = found.headers().unwrap();
        let all: Vec<_> = all.iter().map(|header| (header.key, header.value.unwrap())).collect();
        assert_eq!(all, [("ce_id", &b"ntf-1"[..]), ("content-type", &b"application/json"[..])]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_is_not_there_is_named() {
        let Some(brokers) = brokers() else { return };
        let settings = KafkaSettings { timeout_ms: 2_000, ..KafkaSettings::new(&brokers) };
        let publisher = KafkaPublisher::new(settings, "told-to-nobody").unwrap();
        let error = publisher.publish("ntf-1", &[], b"{}").await.unwrap_err();
        assert!(error.to_string().ends_with("has no topic told-to-nobody: create it"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn brokers_that_are_not_there_are_named_in_time() {
        let settings = KafkaSettings { timeout_ms: 1_000, ..KafkaSettings::new("127.0.0.1:1") };
        let publisher = KafkaPublisher::new(settings, "told").unwrap();
        let error = publisher.publish("ntf-1", &[], b"{}").await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        let said = error.to_string();
        assert!(said.contains("127.0.0.1:1") && said.contains("told"), "{said}");
    }
}
