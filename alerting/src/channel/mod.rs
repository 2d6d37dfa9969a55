//! Notification channels: how a [`Notice`] leaves Rebound.
//!
//! A [`Channel`] is made once from the plan, with its secrets read then, and delivers notices with retries. What it
//! says in `Debug`, in errors and in events holds no secret, also not one that a server repeats. Which notices are
//! due is [`crate::notify`]'s; this is only about getting one across.

pub mod email;
pub mod guard;
pub mod http;
pub mod kafka;
pub mod program;
pub mod request;
pub mod secret;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, SubsecRound, Utc};
use rebound_schemas::plan::{self, ChannelKind, Plan, SecretRef};
use rebound_schemas::{ChannelId, Event};

use crate::notify::Notice;
use crate::procedure::shorten;
use email::{Mailer, Relay};
use http::Webhook;
use kafka::{Connect, Publisher, Target};
use program::Program;
use request::Shape;
use secret::{Redactor, Secret};
use words::Speech;

/// Before the second attempt; doubles before each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A server that asks for more patience than this is asked again after this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Longest error kept of a failed delivery, in bytes.
const MAX_ERROR_BYTES: usize = 500;

/// Why a channel can't be made from the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {channel}: {part}: {reason}")]
pub struct ChannelError {
    /// The channel.
    pub channel: ChannelId,
    /// Which of its keys.
    pub part: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// How one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendError {
    pub(crate) message: String,
    pub(crate) retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail again.
    Never,
    /// After the usual wait.
    Usual,
    /// The server said when.
    After(Duration),
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The channel took it.
    Sent {
        /// Which attempt succeeded, from 1.
        attempt: u32,
    },
    /// It could not be delivered, and no further attempt is made.
    Failed {
        /// How many attempts were made.
        attempts: u32,
        /// What the channel said, secrets removed.
        error: String,
    },
}

impl Delivery {
    /// The `notification.sent` or `notification.failed` that says so.
    #[must_use]
    pub fn event(self, notice: &Notice, now: DateTime<Utc>) -> Event {
        match self {
            Self::Sent { attempt } => notice.sent(attempt, now),
            Self::Failed { attempts, error } => notice.failed(attempts, error, now),
        }
    }
}

/// Every channel of a plan.
#[derive(Debug)]
pub struct Channels {
    channels: BTreeMap<ChannelId, Channel>,
}

impl Channels {
    /// Makes them all, topics by `connect`; the first that can't be made is the error, so that it is found out before
    /// anybody must be told.
    pub fn new(plan: &Plan, connect: Connect<'_>) -> Result<Self, ChannelError> {
        let made = plan.channels().values().map(|channel| {
            let made = Channel::speaking(channel, Speech::new(plan, channel), connect)?;
            Ok((channel.id.clone(), made))
        });
        Ok(Self { channels: made.collect::<Result<_, _>>()? })
    }

    /// Delivers a notice by its channel and gives the event that says what became of it.
    pub async fn deliver(&self, notice: &Notice) -> Event {
        let delivery = match self.channels.get(&notice.channel) {
            Some(channel) => Box::pin(channel.deliver(notice)).await,
            None => {
                Delivery::Failed { attempts: 0, error: format!("the plan has no channel {} any more", notice.channel) }
            }
        };
        if let Delivery::Failed { attempts, error } = &delivery {
            let (channel, key) = (&notice.channel, &notice.dedup_key);
            tracing::warn!(%channel, dedup_key = key, attempts, error, "a notification could not be delivered");
        }
        delivery.event(notice, Utc::now().trunc_subsecs(6))
    }
}

fn load_key(key: &SecretRef, redactor: &mut Redactor) -> Result<Secret, (&'static str, String)> {
    let key = Secret::load(key).map_err(|error| ("key", error))?;
    redactor.add(key.expose());
    Ok(key)
}

#[derive(Debug)]
enum Sender {
    Http(Webhook),
    Email(Box<Mailer>),
    Program(Program),
    Kafka(std::sync::Arc<dyn Publisher>),
    Log,
}

/// A way out for notices.
#[derive(Debug)]
pub struct Channel {
    id: ChannelId,
    sender: Sender,
    speech: Speech,
    attempts: u32,
    first_wait: Duration,
    redactor: Redactor,
}

impl Channel {
    /// Makes a channel from the plan's: reads its secrets and checks its addresses. Routes' words are not known to it.
    pub fn new(plan: &plan::Channel, connect: Connect<'_>) -> Result<Self, ChannelError> {
        Self::speaking(plan, Speech::of(plan), connect)
    }

    fn speaking(plan: &plan::Channel, speech: Speech, connect: Connect<'_>) -> Result<Self, ChannelError> {
        let mut redactor = Redactor::default();
        let error = |(part, reason)| ChannelError { channel: plan.id.clone(), part, reason };
        let http = |url, secret, allow_private, shape, redactor: &mut Redactor| {
            let webhook = Webhook::new(url, secret, allow_private, plan.timeout, shape, redactor);
            webhook.map(Sender::Http).map_err(error)
        };
        let sender = match &plan.kind {
            ChannelKind::Webhook { url, secret, allow_private } => {
                http(url, secret.as_ref(), *allow_private, Shape::Rebound, &mut redactor)?
            }
            ChannelKind::Slack { url, allow_private } => http(url, None, *allow_private, Shape::Slack, &mut redactor)?,
            ChannelKind::Teams { url, allow_private } => http(url, None, *allow_private, Shape::Teams, &mut redactor)?,
            ChannelKind::PagerDuty { key, url, allow_private } => {
                let key = load_key(key, &mut redactor).map_err(error)?;
                http(url, None, *allow_private, Shape::PagerDuty(key), &mut redactor)?
            }
            ChannelKind::Opsgenie { key, url, allow_private } => {
                let key = load_key(key, &mut redactor).map_err(error)?;
                http(url, None, *allow_private, Shape::Opsgenie(key), &mut redactor)?
            }
            ChannelKind::Alertmanager { url, allow_private } => {
                http(url, None, *allow_private, Shape::Alertmanager, &mut redactor)?
            }
            ChannelKind::Command { argv } => Sender::Program(Program::new(argv.clone(), plan.timeout)),
            ChannelKind::Email { server, tls, ca_file, from, to, user, password } => {
                let login = user.as_deref().map(|user| (user, password.as_ref()));
                let relay = Relay { server, tls: *tls, ca_file: ca_file.as_deref() };
                let mailer = Mailer::new(relay, from, to, login, plan.timeout, &mut redactor).map_err(error)?;
                Sender::Email(Box::new(mailer))
            }
            ChannelKind::Kafka { topic, brokers, properties } => {
                let mut loaded = BTreeMap::new();
                for (key, value) in properties {
                    let secret =
                        Secret::load(value).map_err(|reason| error(("properties", format!("{key}: {reason}"))))?;
                    if !matches!(value, SecretRef::Plain(_)) || plan::sounds_secret(key) {
                        redactor.add(secret.expose());
                    }
                    loaded.insert(key.clone(), secret);
                }
                let (topic, brokers, timeout) = (topic.clone(), brokers.clone(), plan.timeout);
                let target = Target { topic, brokers, properties: loaded, timeout };
                Sender::Kafka(connect(&target).map_err(|reason| error(("kafka", redactor.redact(&reason))))?)
            }
            ChannelKind::Log => Sender::Log,
        };
        let (id, attempts) = (plan.id.clone(), plan.attempts.max(1));
        Ok(Self { id, sender, speech, attempts, first_wait: FIRST_WAIT, redactor })
    }

    /// Waits this long before the second attempt, and twice as long before each further one.
    #[cfg(test)]
    fn with_first_wait(mut self, wait: Duration) -> Self {
        self.first_wait = wait;
        self
    }

    /// The channel's id.
    #[must_use]
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// Delivers a notice, in at most the plan's `attempts`; a server's `Retry-After` is respected up to 5 minutes.
    /// Dropping the future stops it; whether the notice went out is then unknown, and delivering it again carries the
    /// same key, by which receivers drop repeats.
    pub async fn deliver(&self, notice: &Notice) -> Delivery {
        let attempts = std::sync::atomic::AtomicU32::new(0);
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.first_wait)
            .with_max_delay(MAX_RETRY_AFTER)
            .with_factor(2.0)
            .with_max_times(self.attempts as usize - 1);
        let result = (|| async {
            attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.send(notice).await
        })
        .retry(backoff)
        .when(|error| error.retry != Retry::Never)
        .adjust(|error, wait| match error.retry {
            Retry::After(asked) => wait.map(|wait| wait.max(asked.min(MAX_RETRY_AFTER))),
            Retry::Usual | Retry::Never => wait,
        })
        .notify(|error, wait| {
            let error = self.redactor.redact(&error.message);
            tracing::debug!(channel = %self.id, dedup_key = notice.dedup_key, ?wait, error, "notification put off");
        })
        .await;
        let attempt = attempts.into_inner();
        match result {
            Ok(()) => Delivery::Sent { attempt },
            Err(error) => {
                let error = shorten(&self.redactor.redact(&error.message), MAX_ERROR_BYTES);
                Delivery::Failed { attempts: attempt, error }
            }
        }
    }

    async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        match &self.sender {
            Sender::Http(webhook) => webhook.send(notice, &self.speech, Utc::now()).await,
            Sender::Email(mailer) => mailer.send(notice, &self.speech).await,
            Sender::Program(program) => program.send(notice, &self.speech).await,
            Sender::Kafka(publisher) => kafka::send(publisher.as_ref(), notice, &self.speech).await,
            Sender::Log => {
                let (words, first) = (self.speech.words(notice), notice.first());
                tracing::warn!(
                    channel = %self.id,
                    dedup_key = notice.dedup_key,
                    transition = %first.told.transition,
                    severity = %notice.severity(),
                    service = %first.service,
                    incident = %first.told.incident,
                    reason = notice.reason(),
                    doing = first.doing,
                    ask = first.ask,
                    "{}",
                    words.title
                );
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_alertmanager;
#[cfg(test)]
mod tests_email;
#[cfg(test)]
mod tests_kinds;
#[cfg(test)]
mod tests_words;
