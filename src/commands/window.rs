//! `rebound silence` and `rebound maintenance`: events that keep alerts quiet, and what of them is in force.
//!
//! Adding and ending emit one event over HTTP, as `rebound emit` does; listing folds the event log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use rebound_alerting::matcher;
use rebound_schemas::event::{
    MaintenanceCancelled, MaintenanceScheduled, MatchOn, Matcher, SilenceCreated, SilenceExpired,
};
use rebound_schemas::{Event, EventData, EventId, Kind, ServiceId, Source, encode};
use serde_json::Value;

use super::emit::{Target, deliver};
use super::print_table;
use crate::cli::{Common, Done};

/// `rebound silence …`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SilenceCommand {
    /// Keep alerts quiet.
    Add {
        /// What they must all match: `service=api`, `tier=tier-1`, `site=primary`, `severity=warning`; `~` instead of `=`
        /// for a regular expression over the whole.
        #[arg(long = "match", value_name = "MATCHER", value_parser = parse_matcher)]
        matchers: Vec<Matcher>,
        #[command(flatten)]
        window: Window,
    },
    /// Those in force, and those to come.
    List {
        /// Those that are over too.
        #[arg(long)]
        all: bool,
    },
    /// End one before its time.
    Expire(End),
}

/// `rebound maintenance …`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Say when work is done. A window in the past rewrites no decision, and restates the figures.
    Add(Window),
    /// Those in force, and those to come. The plan's own windows are shown by `rebound check`.
    List {
        /// Those that are over too.
        #[arg(long)]
        all: bool,
    },
    /// Call one off, or end it before its time.
    Cancel(End),
}

/// When, for what, by whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Window {
    /// A service that it covers; may be given several times.
    #[arg(long = "service")]
    services: Vec<ServiceId>,
    /// Its start (RFC 3339); now when absent.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Its end (RFC 3339).
    #[arg(long, conflicts_with = "length")]
    until: Option<DateTime<Utc>>,
    /// How long it lasts, as in `2h`.
    #[arg(long = "for", value_name = "LENGTH", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Why.
    #[arg(long)]
    reason: String,
    /// What it is called; adding one of the same name replaces it. Made from the time when absent.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    said: Said,
}

/// Ends one.
#[derive(Debug, Clone, Args)]
pub(crate) struct End {
    /// What it is called.
    name: String,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    said: Said,
}

/// Who says so, and where to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Said {
    /// Who says so.
    #[arg(long, env = "USER")]
    by: String,
    #[command(flatten)]
    target: Target,
}

fn parse_matcher(text: &str) -> Result<Matcher, String> {
    let at = text.find(['=', '~']).ok_or("write it as in tier=tier-1, or service~api-.* for a regular expression")?;
    let on = MatchOn::parse(&text[..at]).ok_or_else(|| {
        let known: Vec<&str> = MatchOn::ALL.iter().map(|on| on.as_str()).collect();
        format!("{:?} is not something to match: write one of {}", &text[..at], known.join(", "))
    })?;
    let matcher = Matcher { on, value: text[at + 1..].to_owned(), regex: text[at..].starts_with('~') };
    matcher::fault(&matcher).map_or(Ok(matcher), Err)
}

impl Window {
    fn bounds(&self, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
        let from = self.from.unwrap_or(now);
        let until = match (self.until, self.length) {
            (Some(until), _) => until,
            (None, Some(length)) => {
                let end = TimeDelta::from_std(length).ok().and_then(|length| from.checked_add_signed(length));
                end.context("--for is longer than the calendar")?
            }
            (None, None) => bail!("say when it ends: --for 2h, or --until {}", now.format("%Y-%m-%dT%H:%M:%SZ")),
        };
        if until <= from {
            bail!("it would end at {until}, which is not after its start at {from}: give a later --until");
        }
        Ok((from, until))
    }
}

pub(crate) async fn silence(command: SilenceCommand, common: &Common) -> Result<Done> {
    let now = Utc::now();
    match command {
        SilenceCommand::Add { matchers, window } => {
            if window.services.is_empty() && matchers.is_empty() {
                bail!("say what is to be quiet: --service NAME, or --match tier=tier-1");
            }
            let (from, until) = window.bounds(now)?;
            let Window { services, reason, name, said, .. } = window;
            let silence = name.unwrap_or_else(|| format!("silence-{:x}", now.timestamp_micros()));
            let by = said.by.clone();
            let told = format!("{silence} until {}", time(until));
            let name = silence.clone();
            let data = SilenceCreated { silence, services, matchers, from, until, by, reason };
            tell(&said.target, "silence", &name, data.into(), now, &told).await
        }
        SilenceCommand::List { all } => list(common, &[Kind::SilenceCreated, Kind::SilenceExpired], now, all).await,
        SilenceCommand::Expire(End { name, reason, said }) => {
            let data = SilenceExpired { silence: name.clone(), by: said.by.clone(), reason };
            tell(&said.target, "silence", &name, data.into(), now, &format!("{name} ended")).await
        }
    }
}

pub(crate) async fn maintenance(command: MaintenanceCommand, common: &Common) -> Result<Done> {
    let now = Utc::now();
    match command {
        MaintenanceCommand::Add(window) => {
            if window.services.is_empty() {
                bail!("say what is worked on: --service NAME, several times for several");
            }
            let (from, until) = window.bounds(now)?;
            let Window { services, reason, name, said, .. } = window;
            let maintenance = name.unwrap_or_else(|| format!("maintenance-{:x}", now.timestamp_micros()));
            let by = said.by.clone();
            let restates = if until <= now { ": it restates the figures of what began in it" } else { "" };
            let told = format!("{maintenance} from {} until {}{restates}", time(from), time(until));
            let name = maintenance.clone();
            let data = MaintenanceScheduled { maintenance, services, from, until, by, reason };
            tell(&said.target, "maintenance", &name, data.into(), now, &told).await
        }
        MaintenanceCommand::List { all } => {
            list(common, &[Kind::MaintenanceScheduled, Kind::MaintenanceCancelled], now, all).await
        }
        MaintenanceCommand::Cancel(End { name, reason, said }) => {
            let data = MaintenanceCancelled { maintenance: name.clone(), by: said.by.clone(), reason };
            tell(&said.target, "maintenance", &name, data.into(), now, &format!("{name} cancelled")).await
        }
    }
}

/// Sends one event. Its subject is the window itself, so that what is told of one window keeps its order.
async fn tell(
    target: &Target,
    kind: &str,
    name: &str,
    data: EventData,
    now: DateTime<Utc>,
    told: &str,
) -> Result<Done> {
    let subject =
        ServiceId::new(&format!("{kind}/{name}")).with_context(|| format!("{name:?} can't be the name of a {kind}"))?;
    let event = Event {
        id: EventId::new(&format!("{name}:{}", now.timestamp_micros()))?,
        source: Source::new("rebound-cli")?,
        subject,
        occurred_at: now,
        plan: None,
        data,
    };
    let (_, rejected) = deliver(target, &[String::from_utf8(encode(&event))?]).await?;
    if rejected > 0 {
        return Ok(Done::Faults);
    }
    println!("{told}");
    Ok(Done::Good)
}

/// What is known of one window.
#[derive(Debug, Default)]
struct Known {
    services: String,
    from: String,
    until: Option<DateTime<Utc>>,
    by: String,
    reason: String,
}

/// Folds the log's events of two kinds, oldest first, and prints what is left.
async fn list(common: &Common, kinds: &[Kind; 2], now: DateTime<Utc>, all: bool) -> Result<Done> {
    let config = common.settings()?;
    let session = super::sql::open(&config, None).await?;
    let query = format!(
        "SELECT kind, occurred_at, data FROM events WHERE kind IN ('{}', '{}') ORDER BY occurred_at",
        kinds[0], kinds[1]
    );
    let (rows, _) = super::sql::rows(&session, &query, now).await?;
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for row in &rows {
        fold(&mut known, row, kinds[0].as_str());
    }
    known.retain(|_, window| all || window.until.is_none_or(|until| until > now));
    if known.is_empty() {
        println!("none{}", if all { "" } else { ": --all shows those that are over" });
        return Ok(Done::Good);
    }
    let rows = known.into_iter().map(|(name, window)| {
        let until = window.until.map(time).unwrap_or_default();
        [name, window.services, window.from, until, window.by, window.reason]
    });
    print_table(["name", "covers", "from", "until", "by", "reason"], rows);
    Ok(Done::Good)
}

fn fold(known: &mut BTreeMap<String, Known>, row: &Value, opens: &str) {
    let data: Value = row["data"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let at = |value: &Value| value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let name = text(if data["silence"].is_string() { &data["silence"] } else { &data["maintenance"] });
    if row["kind"] == opens {
        let services = data["services"].as_array().into_iter().flatten().map(text);
        let matchers = data["matchers"].as_array().into_iter().flatten().map(|matcher| {
            let sign = if matcher["regex"] == true { '~' } else { '=' };
            format!("{}{sign}{}", text(&matcher["on"]), text(&matcher["value"]))
        });
        let window = Known {
            services: services.chain(matchers).collect::<Vec<_>>().join(" "),
            from: at(&data["from"]).map(time).unwrap_or_default(),
            until: at(&data["until"]),
            by: text(&data["by"]),
            reason: text(&data["reason"]),
        };
        known.insert(name, window);
    } else if let Some(window) = known.get_mut(&name) {
        window.until = window.until.into_iter().chain(at(&row["occurred_at"])).min();
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn matchers_are_read_and_their_faults_say_what_to_write() {
        let matcher = |on, value: &str, regex| Matcher { on, value: value.into(), regex };
        assert_eq!(parse_matcher("tier=tier-1"), Ok(matcher(MatchOn::Tier, "tier-1", false)));
        assert_eq!(parse_matcher("service~api=.*"), Ok(matcher(MatchOn::Service, "api=.*", true)));
        let table = [
            ("api", "write it as in tier=tier-1, or service~api-.* for a regular expression"),
            ("host=x", "\"host\" is not something to match: write one of service, tier, site, severity"),
            ("severity=loud", "\"loud\" is no severity: write one of critical, warning, info"),
        ];
        for (text, fault) in table {
            assert_eq!(parse_matcher(text), Err(fault.to_owned()));
        }
        assert!(parse_matcher("service~(").unwrap_err().starts_with("\"(\" is not a regular expression"));
    }

    #[test]
    fn the_list_knows_what_was_replaced_and_ended() {
        let row =
            |kind: &str, at: &str, data: Value| json!({ "kind": kind, "occurred_at": at, "data": data.to_string() });
        let created = |until: &str| {
            json!({ "silence": "s", "services": ["api"], "matchers": [{ "on": "tier", "value": "one", "regex": true }],
                "from": "2026-01-01T00:00:00Z", "until": until, "by": "ann", "reason": "quiet" })
        };
        let mut known = BTreeMap::new();
        fold(
            &mut known,
            &row("silence.created", "2026-01-01T00:00:00Z", created("2026-01-02T00:00:00Z")),
            "silence.created",
        );
        fold(
            &mut known,
            &row("silence.created", "2026-01-01T01:00:00Z", created("2026-01-03T00:00:00Z")),
            "silence.created",
        );
        assert_eq!(known["s"].services, "api tier~one");
        assert_eq!(known["s"].until, "2026-01-03T00:00:00Z".parse().ok());
        let ended = row("silence.expired", "2026-01-01T02:00:00Z", json!({ "silence": "s", "by": "bob" }));
        fold(&mut known, &ended, "silence.created");
        assert_eq!(known["s"].until, "2026-01-01T02:00:00Z".parse().ok());
    }
}
