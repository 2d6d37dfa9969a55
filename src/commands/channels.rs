//! `rebound channels`: what the plan's notification channels are, whether one works, and what could not be delivered.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use rebound_alerting::channel::{Channel, Delivery};
use rebound_alerting::notify::Notice;
use rebound_schemas::ChannelId;
use rebound_schemas::codec::{self, TYPE_PREFIX, format_time};
use rebound_schemas::event::{Kind, NotificationFailed, NotificationRetried, NotificationSent, Transition};
use serde_json::{Value, json};

use super::emit::{Target, deliver};
use super::print_table;
use crate::cli::Done;
use crate::config::Config;
use crate::roles::publish;

/// `rebound channels`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ChannelsCommand {
    /// The plan's channels, and what tells them.
    List,
    /// Send a message that says it is a test, and say what became of it. Where the receiver keeps alerts of its own,
    /// the test is closed again at once.
    Test {
        /// The channel's id.
        channel: ChannelId,
    },
    /// Messages that could not be delivered, from the event log.
    Failed,
    /// Have messages that could not be delivered tried again, under their old keys.
    Retry(Retry),
}

/// `rebound channels retry`
#[derive(Debug, Clone, Args)]
pub(crate) struct Retry {
    /// The message's key, as `rebound channels failed` shows it.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    dedup_key: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// Who asks.
    #[arg(long, env = "USER", default_value = "somebody")]
    by: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn channels(config: &Config, command: ChannelsCommand) -> Result<Done> {
    match command {
        ChannelsCommand::List => list(config),
        ChannelsCommand::Test { channel } => test(config, &channel).await,
        ChannelsCommand::Failed => {
            let failed = failed(config).await?;
            if failed.is_empty() {
                println!("every message was delivered, or is still being tried");
            } else {
                let rows = failed.values().map(|f| {
                    let of = f.data.members.len().max(1);
                    let told = if of > 1 { format!("{of} changes") } else { f.data.transition.to_string() };
                    let at = format_time(f.at);
                    [&f.data.dedup_key, f.data.channel.as_str(), &f.service, &told, &at, &f.data.error]
                        .map(String::from)
                });
                print_table(["key", "channel", "service", "told", "given up at", "error"], rows);
            }
            Ok(Done::Good)
        }
        ChannelsCommand::Retry(ask) => retry(config, ask).await,
    }
}

fn plan(config: &Config) -> Result<rebound_schemas::plan::Plan> {
    let Some(path) = &config.plan else {
        bail!("there is no plan: name one with --plan FILE or `plan` in the settings");
    };
    super::check::load_plan(path)
}

fn list(config: &Config) -> Result<Done> {
    let plan = plan(config)?;
    let rows = plan.channels().values().map(|channel| {
        let policies = plan.policies().values().filter(|policy| policy.notify.contains(&channel.id));
        let mut tell: Vec<String> = plan.routes_to(&channel.id).iter().map(|route| route.path.clone()).collect();
        tell.extend(policies.map(|policy| format!("policy {}", policy.id)));
        let tell = if tell.is_empty() { "nothing".to_owned() } else { tell.join(", ") };
        [channel.id.to_string(), channel.kind.as_str().to_owned(), channel.attempts.to_string(), tell]
    });
    print_table(["channel", "kind", "attempts", "told by"], rows);
    Ok(Done::Good)
}

async fn test(config: &Config, id: &ChannelId) -> Result<Done> {
    let plan = plan(config)?;
    let Some(channel) = plan.channels().get(id) else {
        let known: Vec<_> = plan.channels().keys().map(ChannelId::as_str).collect();
        bail!("the plan has no channel {id}: it has {}", known.join(", "));
    };
    let made = Channel::new(channel, &|target: &_| publish::connect(config, target))?;
    let now = Utc::now();
    let name = now.timestamp_micros().to_string();
    let both: &[Transition] = match channel.kind.keeps_alerts() {
        true => &[Transition::Raised, Transition::Resolved],
        false => &[Transition::Raised],
    };
    for transition in both {
        let notice = Notice::test(id, &name, *transition, now);
        let what = if *transition == Transition::Resolved { "the end of the test" } else { "the test" };
        match Box::pin(made.deliver(&notice)).await {
            Delivery::Sent { attempt } => {
                println!("{id}: {what} was taken, at attempt {attempt} ({})", notice.dedup_key)
            }
            Delivery::Failed { attempts, error } => {
                println!("{id}: {what} was not taken in {attempts} attempts: {error}");
                return Ok(Done::Faults);
            }
        }
    }
    Ok(Done::Good)
}

/// A message that was given up and not asked for since.
#[derive(Debug)]
struct Failed {
    data: NotificationFailed,
    service: String,
    at: DateTime<Utc>,
}

/// What could not be delivered, by key: the newest failure of each, unless it was sent or is being retried.
async fn failed(config: &Config) -> Result<BTreeMap<String, Failed>> {
    let session = super::sql::open(config, None).await?;
    let query = "SELECT kind, service, occurred_at, data FROM events WHERE kind IN ('notification.failed', \
                 'notification.sent', 'notification.retried') ORDER BY occurred_at, id";
    let (rows, truncated) = super::sql::rows(&session, query, Utc::now()).await?;
    if truncated {
        eprintln!("only the first {} messages were looked at: raise [sql] max_rows", config.sql.max_rows);
    }
    fold(&rows)
}

fn fold(rows: &[Value]) -> Result<BTreeMap<String, Failed>> {
    let mut failed: BTreeMap<String, Failed> = BTreeMap::new();
    let mut done = std::collections::BTreeSet::new();
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let data = text("data");
        match Kind::parse(text("kind")) {
            Some(Kind::NotificationSent) => {
                let sent: NotificationSent = serde_json::from_str(data)?;
                failed.remove(&sent.dedup_key);
                done.insert(sent.dedup_key);
            }
            Some(Kind::NotificationRetried) => {
                let retried: NotificationRetried = serde_json::from_str(data)?;
                if failed.get(&retried.dedup_key).is_some_and(|known| known.data.round <= retried.round) {
                    failed.remove(&retried.dedup_key);
                }
            }
            Some(Kind::NotificationFailed) => {
                let data: NotificationFailed = serde_json::from_str(data)?;
                if !done.contains(&data.dedup_key) {
                    let at = text("occurred_at").parse().unwrap_or_default();
                    let service = text("service").to_owned();
                    failed.insert(data.dedup_key.clone(), Failed { data, service, at });
                }
            }
            _ => {}
        }
    }
    Ok(failed)
}

async fn retry(config: &Config, ask: Retry) -> Result<Done> {
    let mut failed = failed(config).await?;
    if let Some(key) = &ask.dedup_key {
        if !failed.contains_key(key) {
            bail!("no undeliverable message has the key {key}: `rebound channels failed` lists them");
        }
        failed.retain(|known, _| known == key);
    }
    let lines: Vec<String> = failed.values().map(|failed| retried(failed, &ask.by, Utc::now())).collect();
    let (tried, rejected) = deliver(&ask.target, &lines).await?;
    match tried {
        1 => println!("1 message is tried again, {rejected} were refused"),
        n => println!("{n} messages are tried again, {rejected} were refused"),
    }
    Ok(if rejected == 0 { Done::Good } else { Done::Faults })
}

/// The event that asks for a retry; asking twice for the same failure is asking once.
fn retried(failed: &Failed, by: &str, now: DateTime<Utc>) -> String {
    let (key, round) = (&failed.data.dedup_key, failed.data.round);
    json!({
        "specversion": codec::SPEC_VERSION,
        "id": format!("{key}:retried:{round}"),
        "source": "rebound-channels",
        "type": format!("{TYPE_PREFIX}{}.v{}", Kind::NotificationRetried, Kind::NotificationRetried.version()),
        "subject": failed.service,
        "time": format_time(now),
        "data": { "dedup_key": key, "round": round, "by": by },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, data: Value) -> Value {
        json!({ "kind": kind, "service": "api", "occurred_at": "2026-01-01T00:00:00Z", "data": data.to_string() })
    }

    fn gave_up(key: &str, round: u32) -> Value {
        let data = json!({
            "dedup_key": key, "alert": "a", "incident": "i", "channel": "ops", "transition": "raised", "attempts": 5,
            "error": "refused", "round": round,
        });
        row("notification.failed", data)
    }

    #[test]
    fn what_was_sent_or_asked_for_since_is_not_listed() {
        let sent = json!({
            "dedup_key": "b", "alert": "a", "incident": "i", "channel": "ops", "transition": "raised", "attempt": 1,
        });
        let asked = |round: u32| row("notification.retried", json!({ "dedup_key": "c", "round": round, "by": "ann" }));
        let rows = [gave_up("a", 0), gave_up("b", 0), row("notification.sent", sent), gave_up("c", 0), asked(0)];
        assert_eq!(fold(&rows).unwrap().keys().collect::<Vec<_>>(), ["a"]);
        let again = [rows.as_slice(), &[gave_up("c", 1)]].concat();
        let found = fold(&again).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "c"]);
        let event = retried(&found["c"], "ann", Utc::now());
        let event = codec::decode(event.as_bytes()).unwrap();
        assert_eq!((event.kind(), event.id.as_str()), (Kind::NotificationRetried, "c:retried:1"));
    }
}
