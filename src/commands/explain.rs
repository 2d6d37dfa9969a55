//! `rebound explain`: reads what belongs to an incident, an alert, a recovery or a service out of the event log, has
//! `rebound_alerting::explain` tell it, and shows it.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table, presets};
use rebound_alerting::explain::{self, Explanation, Fact, Named, Subject, named};
use rebound_analytics::recall::Wanted;
use rebound_analytics::session::Session;
use rebound_schemas::plan::Plan;
use rebound_schemas::{AlertId, Event, IncidentId, Kind, RecoveryId, ServiceId};

use super::sql;
use crate::cli::Done;
use crate::config::Config;

/// Rows that one question to the log may answer.
const MOST_ROWS: usize = 20_000;
/// Ids that are offered where none, or more than one, fits.
const OFFERED: usize = 8;
/// How far back ids are looked for that resemble one that is not there.
const RESEMBLING: TimeDelta = TimeDelta::days(30);
/// How far back a service's open incidents may have begun.
const OPEN_FOR: TimeDelta = TimeDelta::days(31);
/// Narrower than this, an event's name stands below what it says.
const WIDE: u16 = 110;

/// `rebound explain`
#[derive(Debug, Clone, Args)]
pub(crate) struct Explain {
    /// The incident, alert or recovery; the beginning of its id is enough.
    #[arg(required_unless_present = "service", conflicts_with = "service")]
    id: Option<String>,
    /// A service instead: why did something happen to it, or nothing?
    #[arg(long)]
    service: Option<ServiceId>,
    /// At this time (RFC 3339); now when absent.
    #[arg(long, requires = "service", value_name = "TIME")]
    at: Option<DateTime<Utc>>,
    /// What happened in so long before is told.
    #[arg(long, requires = "service", value_name = "LENGTH", default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Shape,
}

/// How an explanation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    Text,
    Json,
}

pub(crate) async fn explain(config: &Config, asked: Explain) -> Result<Done> {
    let plan = sql::plan(config)?;
    let session = sql::open(config, plan.clone()).await?;
    let now = Utc::now();
    let (subject, mut events) = match (asked.service, &asked.id) {
        (Some(service), _) => {
            let within = TimeDelta::from_std(asked.within).ok().filter(|within| *within <= OPEN_FOR);
            let within = within.context("--within is too long: it takes 31 days at most")?;
            (Subject::Service { service, at: asked.at.unwrap_or(now), within }, Vec::new())
        }
        (None, Some(id)) => find(&session, id, now).await?,
        (None, None) => bail!("say what to explain: an id, or --service NAME"),
    };
    // Twice: what the first round names (a dependency's incident, say) is needed too, and nothing beyond.
    for _ in 0..2 {
        let wanted = wanted(&subject, &events, now);
        let more = session.recall(&wanted, MOST_ROWS).await?;
        let known: BTreeSet<_> = events.iter().map(|event| (event.source.clone(), event.id.clone())).collect();
        events.extend(more.into_iter().filter(|event| !known.contains(&(event.source.clone(), event.id.clone()))));
    }
    let Some(mut told) = explain::explain(&subject, &events, plan.as_deref(), now) else {
        bail!("{}", nothing_about(&subject, plan.as_deref()));
    };
    if let Some(reached) = session.reached().await? {
        let behind = (now - reached).max(TimeDelta::zero());
        told.notes.push(format!(
            "the log reaches {} UTC, {} ago: what is newer stands on the bus only",
            reached.format("%Y-%m-%d %H:%M:%S"),
            explain::span(behind)
        ));
    }
    let mut out = std::io::stdout();
    match asked.output {
        Shape::Json => writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?,
        Shape::Text => {
            let width = out.is_terminal().then(|| Table::new().width()).flatten();
            write!(out, "{}", text(&told, width, out.is_terminal()))?;
        }
    }
    out.flush()?;
    Ok(Done::Good)
}

/// What to ask the log for.
fn wanted(subject: &Subject, known: &[Event], now: DateTime<Utc>) -> Vec<Wanted> {
    let reach = explain::reach(subject, known, now);
    let mut wanted = Vec::new();
    let names: Vec<String> = (reach.incidents.iter().map(ToString::to_string))
        .chain(reach.recoveries.iter().map(ToString::to_string))
        .collect();
    if !names.is_empty() && !matches!(subject, Subject::Service { .. }) {
        // A dependency's incident may have begun long before what it explains, but not for ever.
        let first = known.iter().map(|event| event.occurred_at).min().unwrap_or(now);
        wanted.push(Wanted::Names(names, first - OPEN_FOR));
    }
    if let Subject::Service { service, at, within } = subject {
        wanted.push(Wanted::Decided(service.clone(), *at - OPEN_FOR.max(*within), *at));
    }
    if let Some(service) = &reach.service {
        let spans = reach.spans.iter().map(|(from, until)| Wanted::Observed(service.clone(), *from, *until));
        wanted.extend(spans);
    }
    if let (Some(since), Some(until)) = (reach.windows_since, reach.spans.iter().map(|(_, until)| *until).max()) {
        let kinds = [
            Kind::SilenceCreated,
            Kind::SilenceExpired,
            Kind::MaintenanceScheduled,
            Kind::MaintenanceCancelled,
            Kind::RecoveryPaused,
            Kind::RecoveryResumed,
        ];
        wanted.push(Wanted::Kinds(kinds.to_vec(), since, until));
        if !reach.events.is_empty() {
            wanted.push(Wanted::Events(reach.events.into_iter().collect(), since));
        }
    }
    wanted
}

/// What an id, or the beginning of one, means; and the events that name it.
async fn find(session: &Session, id: &str, now: DateTime<Utc>) -> Result<(Subject, Vec<Event>)> {
    let events = session.recall(&[Wanted::Starts(id.to_owned())], MOST_ROWS).await?;
    let found: BTreeSet<(u8, String)> =
        events.iter().flat_map(names).filter(|(_, name)| name.starts_with(id)).collect();
    let exact = found.iter().find(|(_, name)| name == id);
    let (kind, name) = match (exact, found.len()) {
        (Some(exact), _) => exact.clone(),
        (None, 1) => found.into_iter().next().context("one was found")?,
        (None, 0) => bail!("{}", unknown(session, id, now).await?),
        (None, n) => {
            let offered: Vec<&str> = found.iter().take(OFFERED).map(|(_, name)| name.as_str()).collect();
            let more = if n > OFFERED { ", …" } else { "" };
            bail!("{n} ids begin with {id:?}: {}{more}: write one of them, or more of it", offered.join(", "));
        }
    };
    let subject = match kind {
        0 => Subject::Incident(IncidentId::new(&name)?),
        1 => Subject::Alert(AlertId::new(&name)?),
        _ => Subject::Recovery(RecoveryId::new(&name)?),
    };
    let mine = events.into_iter().filter(|event| names(event).any(|(_, known)| known == name)).collect();
    Ok((subject, mine))
}

/// What an event names: 0 incident, 1 alert, 2 recovery.
fn names(event: &Event) -> impl Iterator<Item = (u8, String)> + use<> {
    let Named { incident, alert, recovery } = named(event);
    let incident = incident.map(|id| (0, id.to_string()));
    incident.into_iter().chain(alert.map(|id| (1, id.to_string()))).chain(recovery.map(|id| (2, id.to_string())))
}

/// What to say where the log holds nothing; a service of the plan is unobserved then, which is an answer.
fn nothing_about(subject: &Subject, plan: Option<&Plan>) -> String {
    let list = "`rebound sql \"SELECT DISTINCT service FROM events\"` lists the services that the log knows";
    let Subject::Service { service, at, within } = subject else {
        return format!("the log holds nothing about {} {}: {list}", subject.word(), subject.id());
    };
    let from = (*at - *within).format("%Y-%m-%d %H:%M:%S");
    let log = format!("the log holds nothing about it from {from} to {} UTC", at.format("%Y-%m-%d %H:%M:%S"));
    let Some(plan) = plan else {
        return format!("{service}: {log}: look further back with --within, or give the plan with --plan; {list}");
    };
    let near = |id: &&ServiceId| {
        let distance = strsim::damerau_levenshtein(service.as_str(), id.as_str());
        distance <= (service.as_str().len() / 3).max(1)
    };
    let near: Vec<&str> = plan.services().keys().filter(near).take(3).map(ServiceId::as_str).collect();
    let perhaps = if near.is_empty() { String::new() } else { format!("perhaps {}; ", near.join(" or ")) };
    format!("the plan has no service {service}, and {log}: {perhaps}{list}")
}

/// What to say about an id that nothing names.
async fn unknown(session: &Session, id: &str, now: DateTime<Utc>) -> Result<String> {
    let kinds = vec![Kind::IncidentOpened, Kind::AlertRaised, Kind::RecoveryTriggered, Kind::RecoveryWithheld];
    let recent = session.recall(&[Wanted::Kinds(kinds, now - RESEMBLING, now)], MOST_ROWS).await?;
    let mut near: Vec<(usize, String)> = recent
        .iter()
        .flat_map(names)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|(_, name)| (strsim::damerau_levenshtein(id, name.get(..id.len()).unwrap_or(&name)), name))
        .filter(|(distance, _)| *distance <= (id.len() / 4).max(1))
        .collect();
    near.sort();
    let near: Vec<String> = near.into_iter().take(3).map(|(_, name)| name).collect();
    let list = "`rebound sql \"SELECT incident, service, first_failure_at FROM incidents ORDER BY 3 DESC LIMIT 10\"` lists \
                the newest incidents, and --service NAME asks by service";
    Ok(match near.as_slice() {
        [] => format!("no incident, alert or recovery in the log is, or begins with, {id:?}: {list}"),
        near => format!(
            "no incident, alert or recovery in the log is, or begins with, {id:?}: perhaps {}; {list}",
            near.join(" or ")
        ),
    })
}

/// An event's name as it can be asked for: Rebound's own ids say what they are of, others need their source.
fn pointer(fact: &Fact) -> String {
    let own = matches!(fact.event.source.as_str(), "rebound/alert" | "rebound/recover");
    if own { fact.event.id.to_string() } else { format!("{} of {}", fact.event.id, fact.event.source) }
}

/// The explanation for people. Without a width nothing is wrapped, as a pipe wants it.
fn text(told: &Explanation, width: Option<u16>, styled: bool) -> String {
    let mut text = format!("{} {} · {}\n", told.subject, told.id, told.title);
    if !told.answers.is_empty() {
        let mut table = plain(width);
        for answer in &told.answers {
            table.add_row(vec![bold(answer.question, styled), Cell::new(&answer.text)]);
        }
        keep(&mut table, 0);
        text += &format!("\n{}\n", trimmed(&table));
    }
    let mut day = None;
    let beside = width.is_none_or(|width| width >= WIDE);
    let mut table = plain(width);
    let mut parts = Vec::new();
    for fact in &told.facts {
        if day.replace(fact.at.date_naive()) != Some(fact.at.date_naive()) {
            parts.push(std::mem::replace(&mut table, plain(width)));
            table.set_header(vec![
                bold(&fact.at.format("%Y-%m-%d UTC").to_string(), styled),
                bold("what happened", styled),
                bold(if beside { "event" } else { "" }, styled),
            ]);
        }
        let indent = if fact.depth > 0 { "  " } else { "" };
        let name = dim(pointer(fact), styled);
        let said = format!("{indent}{}", fact.text);
        let at = fact.at.format("%H:%M:%S%.3f").to_string();
        if beside {
            table.add_row(vec![Cell::new(at), Cell::new(said), name]);
        } else {
            table.add_row(vec![Cell::new(at), Cell::new(format!("{said}\n{indent}{}", pointer(fact)))]);
        }
    }
    parts.push(table);
    for mut part in parts.into_iter().filter(|part| part.row_count() > 0) {
        keep(&mut part, 0);
        keep(&mut part, 2);
        text += &format!("\n{}\n", trimmed(&part));
    }
    if !told.notes.is_empty() {
        text += "\n";
        told.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    }
    text
}

fn plain(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

/// A column that is never wrapped.
fn keep(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// Without the spaces that fill the last column.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn bold(text: &str, styled: bool) -> Cell {
    let cell = Cell::new(text);
    if styled { cell.add_attribute(Attribute::Bold) } else { cell }
}

fn dim(text: String, styled: bool) -> Cell {
    let cell = Cell::new(text);
    if styled { cell.add_attribute(Attribute::Dim) } else { cell }
}
