//! Channels that are a Kafka topic: alerting says what to tell, the bus's client how a topic is reached, and the two
//! meet here.

use std::sync::Arc;

use async_trait::async_trait;
use rebound_alerting::channel::kafka::{Publication, PublishError, Publisher, Target};
use rebound_ingest::bus::kafka::{KafkaPublisher, KafkaSettings};
use rebound_ingest::bus::{BusError, Stream};
use rebound_schemas::Topic;

use crate::config::{BusKind, Config};

/// One topic.
#[derive(Debug)]
struct Published(KafkaPublisher);

#[async_trait]
impl Publisher for Published {
    async fn publish(&self, record: Publication) -> Result<(), PublishError> {
        let Publication { key, headers, value } = record;
        self.0.publish(&key, &headers, &value).await.map_err(|error| PublishError {
            transient: error.is_transient(),
            reason: match error {
                BusError::Unavailable { reason } => reason,
                other => other.to_string(),
            },
        })
    }
}

/// The client's settings for a channel's topic: the channel's own, over the pipeline's where it has no brokers of
/// its own.
fn settings(config: &Config, target: &Target) -> Result<KafkaSettings, String> {
    let mut settings = match &target.brokers {
        Some(brokers) => KafkaSettings::new(brokers),
        None if config.bus.kind == BusKind::Kafka => {
            let mut settings = KafkaSettings::new(&config.kafka.brokers);
            settings.properties.clone_from(&config.kafka.properties);
            let streams = Topic::ALL.into_iter().flat_map(|topic| [Stream::Events(topic), Stream::DeadLetters(topic)]);
            let mut own = streams.map(|stream| stream.name(&config.kafka.prefix));
            if let Some(own) = own.find(|own| *own == target.topic) {
                return Err(format!(
                    "topic = {own:?} is the pipeline's own, which only events belong on: write another"
                ));
            }
            settings
        }
        None => {
            return Err(
                "it has no brokers of its own, and [bus] kind = \"embedded\" has none either: write brokers = \
                        \"host:9092\" in the channel, or [bus] kind = \"kafka\" in the settings"
                    .to_owned(),
            );
        }
    };
    settings.prefix.clone_from(&config.kafka.prefix);
    settings.timeout_ms = u64::try_from(target.timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    let own = target.properties.iter().map(|(key, value)| (key.clone(), value.expose().to_owned()));
    settings.properties.extend(own);
    Ok(settings)
}

/// Reaches a channel's topic.
pub(crate) fn connect(config: &Config, target: &Target) -> Result<Arc<dyn Publisher>, String> {
    let publisher = KafkaPublisher::new(settings(config, target)?, &target.topic);
    let publisher = publisher.map_err(|error| error.to_string().replace("[kafka.properties]", "properties:"))?;
    Ok(Arc::new(Published(publisher)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn target(topic: &str, brokers: Option<&str>) -> Target {
        let (topic, brokers) = (topic.to_owned(), brokers.map(str::to_owned));
        Target { topic, brokers, properties: Default::default(), timeout: Duration::from_secs(5) }
    }

    #[test]
    fn a_topic_without_brokers_is_the_pipelines() {
        let mut config = Config::default();
        let error = settings(&config, &target("told", None)).unwrap_err();
        assert!(error.contains("write brokers = \"host:9092\" in the channel"), "{error}");
        assert_eq!(settings(&config, &target("told", Some("k:1"))).unwrap().brokers, "k:1");
        config.bus.kind = BusKind::Kafka;
        config.kafka.brokers = "own:1".into();
        config.kafka.properties.insert("sasl.username".into(), "me".into());
        let own = settings(&config, &target("told", None)).unwrap();
        assert_eq!((own.brokers.as_str(), own.properties["sasl.username"].as_str()), ("own:1", "me"));
        assert_eq!(own.timeout_ms, 5000);
        let other = settings(&config, &target("told", Some("k:1"))).unwrap();
        assert!(other.properties.is_empty(), "credentials stay with their brokers");
        for own in ["rebound.alerts", "rebound.observations.dlq"] {
            let error = settings(&config, &target(own, None)).unwrap_err();
            assert!(error.contains("is the pipeline's own"), "{error}");
        }
    }
}
