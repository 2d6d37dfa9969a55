//! `rebound stats`, `rebound trend`, `rebound compare`: what the three have in common, which incidents they speak of,
//! and the first of them.

mod compare;
mod show;
mod trend;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use rebound_analytics::mttr::SEED;
use rebound_analytics::observed::Observed;
use rebound_analytics::report::{self, Case, Dimension, Inputs};
use rebound_analytics::surroundings::Surroundings;
use rebound_analytics::trend::day_begins;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::{Plan, suggest};

use crate::cli::Done;
use crate::config::Config;

pub(crate) use compare::{Compare, compare};
pub(crate) use trend::{Trend, trend};

/// Recovery statistics: times, success and objectives, availability, impact; for all incidents or by group.
///
/// Times are published as n, median with a 95 % interval, 90th and 95th percentile, geometric mean; the mean only
/// beside them. docs/statistics.md has every formula.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// One row each: service, tier, site, cause, method, automation, drill, severity.
    #[arg(long, value_name = "WHAT", value_parser = dimension)]
    by: Option<Dimension>,
    #[command(flatten)]
    scope: Scope,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// How figures are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// Every figure, with its unit in its name.
    Json,
    /// A row a group, period or side.
    Csv,
}

/// Which incidents.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Only incidents that began then or later: a day (2026-03-01), a time (2026-03-01T08:00:00Z), or so long ago (90d).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only incidents that began before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only incidents that are this, as in cause=network or drill=real; may be given again, and all must hold.
    #[arg(long, value_name = "WHAT=VALUE", value_parser = choice)]
    only: Vec<(Dimension, String)>,
    /// As the log was known then: later events and corrections are left out, and open incidents last until then.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Time zone of days and periods, as in Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = zone)]
    tz: Tz,
    /// Seed of the bootstrap: same log, same seed, same intervals.
    #[arg(long, value_name = "NUMBER", default_value_t = SEED)]
    seed: u64,
}

fn dimension(word: &str) -> Result<Dimension, String> {
    let words = || Dimension::ALL.map(Dimension::as_str).join(", ");
    Dimension::parse(word).ok_or_else(|| format!("write one of {}", words()))
}

fn choice(text: &str) -> Result<(Dimension, String), String> {
    let (word, value) = text.split_once('=').ok_or("write it as in cause=network")?;
    Ok((dimension(word)?, value.to_owned()))
}

fn zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| "write an IANA name, as in Europe/Berlin or UTC".to_owned())
}

/// A time as people write it: the beginning of a day in the time zone, an instant, or so long before `now`.
pub(super) fn time(text: &str, option: &str, zone: Tz, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day_begins(day, zone));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| now.checked_sub_signed(ago)).with_context(|| {
        format!(
            "{option} {text:?} is no time: write a day (2026-03-01), a time (2026-03-01T08:00:00Z) or so long ago (90d)"
        )
    })
}

/// The log, read as far as the commands need it.
struct Loaded {
    plan: Option<Arc<Plan>>,
    record: Arc<Record>,
    surroundings: Surroundings,
    observed: Observed,
    /// Rows of the log that could not be read.
    unreadable: usize,
    now: DateTime<Utc>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Loaded {
    async fn new(config: &Config, scope: &Scope, uptime: bool) -> Result<Self> {
        let real_now = Utc::now();
        let read = |text: &Option<String>, option: &str| {
            text.as_deref().map(|text| time(text, option, scope.tz, real_now)).transpose()
        };
        let (since, until) = (read(&scope.since, "--since")?, read(&scope.until, "--until")?);
        let as_of = read(&scope.as_of, "--as-of")?;
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            bail!(
                "--since {} is not before --until {}: nothing lies between them",
                show::time(since),
                show::time(until)
            );
        }
        let plan = super::sql::plan(config)?;
        let session = super::sql::open(config, plan.clone()).await?;
        let record = match as_of {
            Some(known_at) => Arc::new(session.record_as_of(known_at).await?),
            None => session.record().await?,
        };
        let incidents: Vec<Incident> = record.incidents().collect();
        let surroundings = session.surroundings(&incidents, as_of).await?;
        let observed = if uptime { session.observed(as_of, since).await? } else { Observed::default() };
        let unreadable = session.unreadable().await;
        Ok(Self { plan, record, surroundings, observed, unreadable, now: as_of.unwrap_or(real_now), since, until })
    }

    fn inputs<'a>(&'a self, scope: &'a Scope) -> Inputs<'a> {
        Inputs {
            record: &self.record,
            plan: self.plan.as_deref(),
            surroundings: &self.surroundings,
            observed: &self.observed,
            now: self.now,
            since: self.since,
            until: self.until,
            only: &scope.only,
            seed: scope.seed,
        }
    }

    /// The incidents that are asked for. A value that nothing can have is a mistake, and the message says what there is.
    fn cases(&self, scope: &Scope) -> Result<Vec<Case>> {
        let inputs = self.inputs(scope);
        let cases = report::cases(&inputs);
        for (dimension, value) in &scope.only {
            let mut known: BTreeSet<String> = dimension.words().into_iter().map(str::to_owned).collect();
            if known.is_empty() {
                let planned = inputs.plan.into_iter().flat_map(|plan| plan.services().keys());
                let services = planned.chain(self.observed.services());
                known = services.map(|service| report::of_service(*dimension, service, inputs.plan)).collect();
                known.extend(cases.iter().map(|case| case.is(*dimension, inputs.plan)));
            }
            if !known.contains(value) && !known.is_empty() {
                let dimension = dimension.as_str();
                bail!("nothing has {dimension}={value}: {}", suggest(value, known.iter().map(String::as_str)));
            }
        }
        Ok(cases.into_iter().filter(|case| inputs.lets_through(case)).collect())
    }
}

pub(crate) async fn stats(config: &Config, command: Stats) -> Result<Done> {
    let loaded = Loaded::new(config, &command.scope, true).await?;
    loaded.cases(&command.scope)?;
    let report = report::report(&loaded.inputs(&command.scope), command.by);
    match command.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Csv => print!("{}", show::csv(&report)),
        Output::Table => print!("{}", show::report(&report, &loaded)),
    }
    Ok(Done::Good)
}
