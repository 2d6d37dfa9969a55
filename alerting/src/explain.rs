//! Why something fired, was suppressed, was triggered or was not: told from events alone, with their ids.
//!
//! Pure: events in, an [`Explanation`] out. [`reach`] says what else of the log is needed once something is known of
//! the subject; [`explain`] chooses what belongs to it, puts it into order, and answers. The plan is optional: it
//! gives an observation its place against the threshold, and only where it is the plan that decided.
//! Left out on purpose: reading the log, and how it looks.

mod answers;
mod choose;
mod seen;
mod service;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::EventRef;
use rebound_schemas::plan::Plan;
use rebound_schemas::{AlertId, Event, EventData, EventId, IncidentId, RecoveryId, ServiceId, Source, Topic};
use serde::Serialize;

pub use self::choose::{Named, named};
pub(crate) use self::words::withheld;
pub use self::words::{clock, span};

/// Observations before the first failure that may belong to the story.
const BEFORE: TimeDelta = TimeDelta::minutes(10);
/// Around what is known to have happened, since clocks differ.
const AROUND: TimeDelta = TimeDelta::minutes(1);

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An outage, or one that nearly was.
    Incident(IncidentId),
    /// An alert: of an outage, or a warning.
    Alert(AlertId),
    /// A recovery, whether it was triggered or not.
    Recovery(RecoveryId),
    /// A service at a time: why did something happen, or nothing?
    Service {
        /// Which.
        service: ServiceId,
        /// At this time.
        at: DateTime<Utc>,
        /// What happened in so long before it is told.
        within: TimeDelta,
    },
}

impl Subject {
    /// `incident`, `alert`, `recovery` or `service`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Incident(_) => "incident",
            Self::Alert(_) => "alert",
            Self::Recovery(_) => "recovery",
            Self::Service { .. } => "service",
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Incident(id) => id.as_str(),
            Self::Alert(id) => id.as_str(),
            Self::Recovery(id) => id.as_str(),
            Self::Service { service, .. } => service.as_str(),
        }
    }
}

/// What happened and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// `incident`, `alert`, `recovery` or `service`.
    pub subject: &'static str,
    /// Its id.
    pub id: String,
    /// The service that it is about.
    pub service: ServiceId,
    /// What it is, in one line.
    pub title: String,
    /// The short answers.
    pub answers: Vec<Answer>,
    /// Everything that they rest on, in the order in which it happened.
    pub facts: Vec<Fact>,
    /// What could not be told, and why.
    pub notes: Vec<String>,
}

/// A short answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// To which question: `why it fired`.
    pub question: &'static str,
    /// In words.
    pub text: String,
    /// The events that say so.
    pub events: Vec<EventRef>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// When, by the clock of its source.
    pub at: DateTime<Utc>,
    /// The event.
    pub event: EventRef,
    /// Its kind.
    pub kind: &'static str,
    /// 1 for what is part of a recovery, 0 for the rest.
    pub depth: u8,
    /// In words.
    pub text: String,
    /// The events that it names as its evidence, as far as they are at hand.
    pub evidence: Vec<EventRef>,
}

/// What of the log an explanation needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Everything that names these.
    pub incidents: BTreeSet<IncidentId>,
    /// Everything that names these.
    pub recoveries: BTreeSet<RecoveryId>,
    /// These events.
    pub events: BTreeSet<(Source, EventId)>,
    /// Observations of this service, within `spans`.
    pub service: Option<ServiceId>,
    /// See `service`; both ends belong to it.
    pub spans: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// Silences, maintenance windows and pauses told of since, up to the end of the last span.
    pub windows_since: Option<DateTime<Utc>>,
}

/// What else is needed, by what is known of the subject: nothing, if nothing is.
#[must_use]
pub fn reach(subject: &Subject, known: &[Event], now: DateTime<Utc>) -> Reach {
    let mut reach = Reach::default();
    if let Subject::Service { service, at, within } = subject {
        reach.service = Some(service.clone());
        reach.spans = vec![(*at - *within, *at)];
        reach.windows_since = Some(*at - TimeDelta::days(31));
    }
    let (mut first, mut decided, mut back, mut over) = (None, None, None, None);
    for event in known {
        let Named { incident, recovery, .. } = named(event);
        reach.incidents.extend(incident);
        reach.recoveries.extend(recovery);
        reach.events.extend(choose::evidence(&event.data).iter().map(|of| (of.source.clone(), of.id.clone())));
        match &event.data {
            EventData::IncidentOpened(data) => {
                first = Some(data.first_failure_at);
                decided = Some(data.detected_at);
            }
            EventData::AlertRaised(data) => {
                first = first.or(Some(data.first_failure_at));
                decided = Some(decided.unwrap_or(event.occurred_at).max(event.occurred_at));
            }
            EventData::RecoveryWithheld(_) | EventData::AlertSuppressed(_) => {
                first = first.or(Some(event.occurred_at));
                decided = decided.or(Some(event.occurred_at));
            }
            EventData::IncidentResolved(data) => (back, over) = (Some(data.recovered_at), Some(event.occurred_at)),
            EventData::AlertResolved(data) => {
                back = back.or(Some(data.recovered_at));
                over = over.or(Some(event.occurred_at));
            }
            _ => {}
        }
        let observed = event.kind().topic() == Topic::Observations;
        if !observed && !matches!(subject, Subject::Service { .. }) {
            reach.service = Some(event.subject.clone());
        }
    }
    if let (Some(first), Some(decided), false) = (first, decided, matches!(subject, Subject::Service { .. })) {
        reach.spans.push((first - BEFORE, decided.max(first) + AROUND));
        let end = match (back, over) {
            (Some(back), Some(over)) => (back.min(over) - AROUND, over.max(back)),
            _ => (now - AROUND, now),
        };
        reach.spans.push(end);
        reach.windows_since = Some(first - TimeDelta::days(31));
    }
    reach
}

/// Explains the subject from these events, in whatever order they come and however often; `None` if none of them is
/// about it, and it is no service of the plan. Every event that the explanation names is among them.
#[must_use]
pub fn explain(subject: &Subject, events: &[Event], plan: Option<&Plan>, now: DateTime<Utc>) -> Option<Explanation> {
    let in_plan = match subject {
        Subject::Service { service, .. } => plan.is_some_and(|plan| plan.services().contains_key(service)),
        _ => false,
    };
    let story = choose::story(subject, events, in_plan)?;
    let silent = story.decided.is_empty() && story.observed.is_empty();
    let plan = plan.filter(|plan| story.decided_under.as_ref().is_none_or(|version| plan.version() == version));
    let mut facts = seen::facts(&story, plan);
    facts.sort_by(|a, b| (a.at, a.rank, &a.fact.event.id).cmp(&(b.at, b.rank, &b.fact.event.id)));
    let (title, answers) = match subject {
        Subject::Service { service, at, .. } => service::answers(service, *at, &story, plan),
        _ => answers::answers(subject, &story, plan, now),
    };
    let mut notes = Vec::new();
    if let Some(version) = story.decided_under.as_ref().filter(|_| plan.is_none()) {
        notes.push(format!(
            "it was decided under {version}, which is not the plan at hand: no thresholds are shown (give it with --plan)"
        ));
    }
    if let Subject::Service { within, .. } = subject
        && silent
    {
        let within = span(*within);
        notes.push(format!("nothing was observed or decided in the {within} before: --within looks further back"));
    }
    if story.missing > 0 {
        notes.push(format!("{} events that were named as evidence are not at hand", story.missing));
    }
    Some(Explanation {
        subject: subject.word(),
        id: subject.id().to_owned(),
        service: story.service,
        title,
        answers,
        facts: facts.into_iter().map(|placed| placed.fact).collect(),
        notes,
    })
}
