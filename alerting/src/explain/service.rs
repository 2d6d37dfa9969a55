//! A service at a time: what it was, and why something or nothing happened.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{EventRef, SuppressionCause, TriggerMode};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, ServiceId, Topic};

use super::Answer;
use super::choose::Story;
use super::words::{self, clock, count, line, span};
use crate::delta;
use crate::engine::{Engine, ServiceStatus};
use crate::threshold::Health;

fn answer(question: &'static str, text: String, events: Vec<EventRef>) -> Answer {
    Answer { question, text, events }
}

/// The service's state at a time by the rules themselves: the past is folded as after a restart.
fn status(service: &ServiceId, at: DateTime<Utc>, story: &Story<'_>, plan: &Plan) -> Option<ServiceStatus> {
    let mut engine = Engine::new(std::sync::Arc::new(plan.clone()));
    engine.own(service, true);
    let decided = || story.decided.iter().chain(&story.others).filter(|event| event.occurred_at <= at);
    for topic in [Topic::Alerts, Topic::Recoveries] {
        decided().filter(|event| event.kind().topic() == topic).for_each(|event| engine.fold(event));
    }
    story.observed.iter().filter(|event| event.occurred_at <= at).for_each(|event| engine.fold(event));
    engine.status(service, at)
}

/// Title and answers.
pub(super) fn answers(
    service: &ServiceId,
    at: DateTime<Utc>,
    story: &Story<'_>,
    plan: Option<&Plan>,
) -> (String, Vec<Answer>) {
    let when = at.format("%Y-%m-%d %H:%M:%S");
    let Some(status) = plan.and_then(|plan| status(service, at, story, plan)) else {
        let answers = incidents(story).into_iter().chain(last_withheld(story)).collect();
        return (format!("at {when}"), answers);
    };
    let mut answers = Vec::new();
    let policy = plan.and_then(|plan| plan.policy_of(service));
    let last_seen = story.observed.last().map(|event| EventRef::from(*event));
    if let Some(policy) = policy {
        let seen = status.last_seen_at.map(|seen| format!("last seen {} before", span(at - seen)));
        let seen = seen.unwrap_or_else(|| "nothing was seen of it".into());
        let since = status.first_failure_at.map(|t0| format!(" since {}", clock(t0, at))).unwrap_or_default();
        let reason = status.reason.as_deref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
        let failures = count(policy.failures as usize, "failure");
        let text = match status.health {
            Health::Unobserved => {
                let silent = span(delta(policy.silent_after));
                format!("{seen}; after {silent} of silence it is neither up nor down")
            }
            Health::Ok => format!("it answers; {seen}"),
            Health::Degraded => format!("it answers badly, which counts neither way; {seen}"),
            Health::Soft => {
                let more = match policy.of {
                    Some(of) => format!(" among the last {of} observations"),
                    None => " in a row".to_owned(),
                };
                format!(
                    "{} of {failures}{more}{since}{reason}: below the threshold of policy {}",
                    status.failures, policy.id
                )
            }
            Health::Hard if status.incident.is_none() => {
                let hold = span(delta(policy.hold));
                format!("failed{since}{reason}; an incident opens once that has lasted {hold}")
            }
            Health::Hard => format!("failed{since}{reason}"),
        };
        answers.push(answer("what was seen", text, last_seen.into_iter().collect()));
    }
    answers.extend(incidents(story));
    if let Some(suppression) = &status.suppression {
        let told = |event: &&&Event| window_named(&event.data, suppression.cause, &suppression.by);
        let window = story.decided.iter().chain(&story.others).rev().find(told);
        let text =
            window.map_or_else(|| format!("{} {}", suppression.cause, line(&suppression.by)), |w| words::sentence(w));
        answers.push(answer("why it is quiet", text, window.map(|w| EventRef::from(*w)).into_iter().collect()));
    }
    answers.extend(last_withheld(story));
    if let Some(pause) =
        story.others.iter().chain(&story.decided).find(|e| matches!(e.data, EventData::RecoveryPaused(_)))
    {
        answers.push(answer("what is paused", words::sentence(pause), vec![EventRef::from(*pause)]));
    }
    let never = match (policy.map(|policy| policy.trigger), plan.and_then(|plan| plan.services().get(service))) {
        (Some(TriggerMode::Off), _) => Some("its policy triggers no recovery"),
        (_, Some(service)) if service.procedure.is_none() => Some("the plan gives it no procedure"),
        (Some(TriggerMode::Approve), _) => Some("its policy asks for approval of every recovery"),
        _ => None,
    };
    answers.extend(never.map(|text| answer("what never happens by itself", text.to_owned(), Vec::new())));
    (format!("{} at {when}", word(status.health)), answers)
}

/// Whether this tells of what suppresses: the silence of that name, or the window; the plan's own are told of for each
/// service. A dependency may have the name of either.
fn window_named(data: &EventData, cause: SuppressionCause, by: &str) -> bool {
    match (cause, data) {
        (SuppressionCause::Silence, EventData::SilenceCreated(data)) => data.silence == by,
        (SuppressionCause::Maintenance, EventData::MaintenanceScheduled(data)) => {
            data.maintenance == by || data.maintenance.starts_with(&format!("{by}/"))
        }
        _ => false,
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Unobserved => "unobserved",
        Health::Ok => "well",
        Health::Degraded => "degraded",
        Health::Soft => "failing (SOFT)",
        Health::Hard => "failed (HARD)",
    }
}

/// The incidents that were open or opened then.
fn incidents(story: &Story<'_>) -> Option<Answer> {
    let opened: Vec<&Event> =
        story.decided.iter().copied().filter(|event| matches!(event.data, EventData::IncidentOpened(_))).collect();
    let over = |id: &rebound_schemas::IncidentId| {
        story
            .decided
            .iter()
            .any(|event| matches!(&event.data, EventData::IncidentResolved(data) if data.incident == *id))
    };
    let word = |event: &&Event| match &event.data {
        EventData::IncidentOpened(data) => {
            let state = if over(&data.incident) { "over" } else { "open" };
            Some(format!("{} ({state}, since {})", data.incident, clock(data.first_failure_at, event.occurred_at)))
        }
        _ => None,
    };
    let text = opened.iter().filter_map(word).collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| answer("which incidents", text, opened.into_iter().map(EventRef::from).collect()))
}

/// What was said last to stand in a recovery's way.
fn last_withheld(story: &Story<'_>) -> Option<Answer> {
    let last = story.decided.iter().rev().find(|event| matches!(event.data, EventData::RecoveryWithheld(_)))?;
    let EventData::RecoveryWithheld(data) = &last.data else { return None };
    let began = story
        .decided
        .iter()
        .any(|event| matches!(&event.data, EventData::RecoveryStarted(started) if started.recovery == data.recovery));
    let question = if began { "why no recovery sooner" } else { "why no recovery" };
    let text = format!("{} ({})", words::withheld(data, last.occurred_at), clock(last.occurred_at, last.occurred_at));
    Some(answer(question, text, vec![EventRef::from(*last)]))
}
