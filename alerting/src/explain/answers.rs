//! The short answers about an incident, an alert or a recovery.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{EventRef, RecoveryOutcome, SuppressionCause, WithheldReason};
use rebound_schemas::incident::{Incident, Recovery, fold};
use rebound_schemas::plan::{Plan, Policy};
use rebound_schemas::{Event, EventData, RecoveryId};

use super::choose::Story;
use super::words::{self, clock, count, line, span};
use super::{Answer, Subject};
use crate::delta;

/// Title and answers.
pub(super) fn answers(
    subject: &Subject,
    story: &Story<'_>,
    plan: Option<&Plan>,
    now: DateTime<Utc>,
) -> (String, Vec<Answer>) {
    let record = fold(story.decided.iter().chain(&story.others).copied());
    let told = Told { story, now, policy: plan.and_then(|plan| plan.policy_of(&story.service)) };
    let incident = record.incidents().find(|incident| told.is_about(incident));
    let mut answers = Vec::new();
    let title = match subject {
        Subject::Recovery(id) => {
            let recovery = record.recoveries().find(|recovery| recovery.id == *id);
            answers.extend(told.trigger(id));
            answers.extend(told.withheld(Some(id)));
            answers.extend(told.permission(id));
            answers.extend(recovery.as_ref().and_then(|recovery| told.outcome(recovery)));
            told.recovery_title(recovery.as_ref())
        }
        _ => {
            let warning = told.warning();
            answers.extend(told.fired(incident.as_ref()));
            answers.extend(told.audience());
            if matches!(subject, Subject::Incident(_)) && warning.is_none() {
                answers.extend(told.recovered(&record.recoveries().collect::<Vec<_>>()));
                answers.extend(told.withheld(None));
            }
            answers.extend(told.ended(incident.as_ref()));
            answers.extend(incident.as_ref().and_then(|incident| told.restated(incident)));
            match (warning, &incident) {
                (Some(condition), _) => format!("warning {} of {}", line(&condition), story.service),
                (None, Some(incident)) => told.incident_title(incident),
                (None, None) => format!("{}: it never became an incident", story.service),
            }
        }
    };
    (title, answers)
}

struct Told<'a> {
    story: &'a Story<'a>,
    policy: Option<&'a Policy>,
    now: DateTime<Utc>,
}

fn answer(question: &'static str, text: String, events: &[&Event]) -> Answer {
    Answer { question, text, events: events.iter().map(|event| EventRef::from(*event)).collect() }
}

impl Told<'_> {
    fn find<T>(&self, pick: impl Fn(&EventData) -> Option<T>) -> Option<(&Event, T)> {
        self.story.decided.iter().find_map(|event| pick(&event.data).map(|found| (*event, found)))
    }

    fn all<'a>(&'a self, wanted: impl Fn(&EventData) -> bool + 'a) -> impl Iterator<Item = &'a Event> {
        self.story.decided.iter().copied().filter(move |event| wanted(&event.data))
    }

    /// The subject's own incident, and not one that is only told of beside it.
    fn is_about(&self, incident: &Incident) -> bool {
        self.story.decided.iter().any(|event| EventRef::from(*event) == incident.opened_by)
    }

    /// The condition, if the alert is a warning.
    fn warning(&self) -> Option<String> {
        let found = self.find(|data| match data {
            EventData::AlertRaised(data) => data.condition.clone(),
            EventData::AlertSuppressed(data) => data.condition.clone(),
            EventData::AlertResolved(data) => data.condition.clone(),
            _ => None,
        });
        found.map(|(_, condition)| condition)
    }

    fn incident_title(&self, incident: &Incident) -> String {
        let (t0, service) = (incident.first_failure_at, &incident.service);
        let state = match incident.recovered_at {
            Some(t3) if incident.resolved_at.is_some() => format!("over after {}", span(t3 - t0)),
            _ => format!("open for {}", span(self.now - t0)),
        };
        let excluded = if incident.is_excluded() { ", in no figure" } else { "" };
        format!("outage of {service}, {}, {state}{excluded}", incident.severity)
    }

    fn recovery_title(&self, recovery: Option<&Recovery>) -> String {
        let service = &self.story.service;
        let Some(recovery) = recovery else { return format!("recovery of {service}, never triggered") };
        let state = match (recovery.outcome, recovery.started_at) {
            (Some(outcome), _) => outcome.to_string(),
            (None, Some(_)) => "running".to_owned(),
            (None, None) => "waiting".to_owned(),
        };
        let attempt = recovery.attempt.map(|n| format!(", attempt {n}")).unwrap_or_default();
        let procedure = recovery.procedure.as_ref().map(|p| format!(" by {p}")).unwrap_or_default();
        format!("recovery of {service}{procedure}{attempt}, {state}")
    }

    /// What the policy asks for, where the plan says.
    fn rule(&self) -> Option<String> {
        let policy = self.policy?;
        let failures = count(policy.failures as usize, "failure");
        let mut rule = match policy.of {
            Some(of) => format!("{failures} among the last {of} observations"),
            None if policy.failures > 1 => format!("{failures} in a row"),
            None => failures,
        };
        if policy.sites > 1 {
            rule += &format!(" seen from {} sites", policy.sites);
        }
        if !policy.hold.is_zero() {
            rule += &format!(", for {}", span(delta(policy.hold)));
        }
        Some(rule)
    }

    fn fired(&self, incident: Option<&Incident>) -> Option<Answer> {
        let raised = self.find(|data| match data {
            EventData::AlertRaised(data) => Some(data.clone()),
            _ => None,
        });
        if let Some((event, data)) = raised.as_ref().filter(|(_, data)| data.condition.is_some()) {
            let n = if data.failures > 0 { format!(", {} times", data.failures) } else { String::new() };
            let since = clock(data.first_failure_at, event.occurred_at);
            return Some(answer("why it fired", format!("{} since {since}{n}", line(&data.reason)), &[event]));
        }
        let Some(incident) = incident else {
            let (event, _) = self.find(|data| match data {
                EventData::RecoveryWithheld(data) if data.reason == WithheldReason::Hold => Some(()),
                _ => None,
            })?;
            return Some(answer("why it did not fire", words::sentence(event), &[event]));
        };
        let opened = self.find(|data| matches!(data, EventData::IncidentOpened(_)).then_some(()))?.0;
        let Some(policy) = &incident.policy else {
            let text = format!("{} reported it: {}", opened.source, line(&incident.reason));
            return Some(answer("why it fired", text, &[opened]));
        };
        let seen = raised.as_ref().map(|(_, data)| data.failures).filter(|n| *n > 0);
        let seen = seen.map(|n| format!("; {}", count(n as usize, "failure"))).unwrap_or_default();
        let asks = match self.rule() {
            Some(rule) => format!("; policy {policy} asks for {rule}"),
            None => format!("; policy {policy} decided"),
        };
        let text = format!("{}{seen}{asks}", line(&incident.reason));
        let EventData::IncidentOpened(data) = &opened.data else { return None };
        let t0 = data.first_failure_at;
        let before = match data.last_success_at {
            Some(last) => format!("; it last answered at {}", clock(last, opened.occurred_at)),
            None => String::new(),
        };
        let detected = (data.detected_at - t0).max(TimeDelta::zero());
        let began = clock(t0, opened.occurred_at);
        let text = format!("{text}; first failure at {began}, decided {} later{before}", span(detected));
        let events: Vec<&Event> = std::iter::once(opened).chain(raised.map(|(event, _)| event)).collect();
        Some(answer("why it fired", text, &events))
    }

    /// Whom it was told, or why nobody.
    fn audience(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let quiet: Vec<&Event> = self.all(|data| matches!(data, EventData::AlertSuppressed(_))).collect();
        let raised = self.all(|data| matches!(data, EventData::AlertRaised(_))).next();
        if !quiet.is_empty() {
            let text = quiet.iter().filter_map(|event| self.suppression(event)).collect::<Vec<_>>().join("; then ");
            let until = match raised {
                Some(raised) => format!("; told after all at {}", clock(raised.occurred_at, quiet[0].occurred_at)),
                None => String::new(),
            };
            let mut events = quiet.clone();
            events.extend(raised);
            answers.push(answer("why it was quiet", format!("{text}{until}"), &events));
        }
        let sent: Vec<&Event> = self.all(|data| matches!(data, EventData::NotificationSent(_))).collect();
        let failed: Vec<&Event> = self.all(|data| matches!(data, EventData::NotificationFailed(_))).collect();
        if let Some(raised) = raised {
            let channel = |event: &&Event| match &event.data {
                EventData::NotificationSent(data) => (data.channel.to_string(), data.transition.to_string()),
                EventData::NotificationFailed(data) => (data.channel.to_string(), line(&data.error)),
                _ => Default::default(),
            };
            let list = |events: &[&Event]| {
                let mut channels: Vec<(String, Vec<String>)> = Vec::new();
                for (name, what) in events.iter().map(channel) {
                    match channels.iter_mut().find(|known| known.0 == name) {
                        Some((_, known)) if known.last() == Some(&what) => {}
                        Some((_, known)) => known.push(what),
                        None => channels.push((name, vec![what])),
                    }
                }
                let word = |(name, what): &(String, Vec<String>)| format!("{name} ({})", what.join(", "));
                channels.iter().map(word).collect::<Vec<_>>().join(", ")
            };
            let text = match (sent.is_empty(), failed.is_empty()) {
                (true, true) => {
                    "nobody: no message went out (the policy and its routes name no channel, or not yet)".into()
                }
                (false, true) => list(&sent),
                (true, false) => format!("nobody: it could not be delivered to {}", list(&failed)),
                (false, false) => format!("{}; not delivered to {}", list(&sent), list(&failed)),
            };
            let events: Vec<&Event> = std::iter::once(raised).chain(sent).chain(failed).collect();
            answers.push(answer("who was told", text, &events));
        }
        let taken = self.find(|data| match data {
            EventData::IncidentAcknowledged(data) => Some(data.by.clone()),
            _ => None,
        });
        if let Some((event, by)) = taken {
            let text = format!("{} at {}", line(&by), clock(event.occurred_at, event.occurred_at));
            answers.push(answer("who took it", text, &[event]));
        }
        answers
    }

    /// A suppression, with the words of whoever asked for it.
    fn suppression(&self, event: &Event) -> Option<String> {
        let EventData::AlertSuppressed(data) = &event.data else { return None };
        let window = self.story.others.iter().find(|other| match &other.data {
            EventData::SilenceCreated(of) => data.cause == SuppressionCause::Silence && of.silence == data.by,
            EventData::MaintenanceScheduled(of) => {
                let plain = of.maintenance == data.by || of.maintenance.starts_with(&format!("{}/", data.by));
                data.cause == SuppressionCause::Maintenance && plain
            }
            _ => false,
        });
        Some(match (data.cause, window) {
            (_, Some(window)) => words::sentence(window),
            (SuppressionCause::Dependency, _) => format!("{}, which it depends on, had failed", line(&data.by)),
            (SuppressionCause::Flapping, _) => "it was flapping".to_owned(),
            (cause, None) => format!("{cause} {}", line(&data.by)),
        })
    }

    /// What automation did about an incident.
    fn recovered(&self, recoveries: &[Recovery]) -> Option<Answer> {
        let tried = |recovery: &Recovery| {
            let state = match (recovery.outcome, recovery.started_at) {
                (Some(outcome), _) => outcome.as_str(),
                (None, Some(_)) => "is running",
                (None, None) => "waits",
            };
            let why = recovery.reason.as_deref().map(|reason| format!(" ({})", line(reason))).unwrap_or_default();
            format!("{} {state}{why}", recovery.id)
        };
        let mut tries: Vec<&Recovery> = recoveries.iter().filter(|recovery| recovery.triggered_at.is_some()).collect();
        tries.sort_by_key(|recovery| recovery.attempt);
        let events: Vec<&Event> = self.all(|data| matches!(data, EventData::RecoveryTriggered(_))).collect();
        let list = tries.into_iter().map(tried).collect::<Vec<_>>().join("; ");
        (!list.is_empty()).then(|| answer("what was done", list, &events))
    }

    /// Why a recovery was triggered, against budget and back-off.
    fn trigger(&self, id: &RecoveryId) -> Option<Answer> {
        let (event, data) = self.find(|data| match data {
            EventData::RecoveryTriggered(data) if data.recovery == *id => Some(data.clone()),
            _ => None,
        })?;
        let at = event.occurred_at;
        let seen = data.reason.as_deref().map(line).unwrap_or_else(|| "its service had failed".into());
        let mut text = match &data.by {
            Some(by) => format!("{} asked for it", line(by)),
            None => format!("{seen}, failing since {}", clock(data.first_failure_at, at)),
        };
        if let Some(due) = data.not_before {
            let after = match data.attempt {
                0 | 1 => "the recovery of an earlier incident".to_owned(),
                n => format!("attempt {}", n - 1),
            };
            text += &format!("; the back-off after {after} was over at {}", clock(due, at));
        }
        if let Some(policy) = self.policy {
            let period = delta(policy.intensity_period);
            text += &format!("; policy {} allows {} within {}", policy.id, policy.intensity, span(period));
        }
        Some(answer("why it was triggered", text, &[event]))
    }

    /// What stood in the way: of one recovery, or of an incident's next one.
    fn withheld(&self, of: Option<&RecoveryId>) -> Option<Answer> {
        let mine = |data: &EventData| matches!(data, EventData::RecoveryWithheld(data) if of.is_none_or(|id| data.recovery == *id));
        let all: Vec<&Event> = self.all(mine).collect();
        let last = *all.last()?;
        let EventData::RecoveryWithheld(data) = &last.data else { return None };
        let triggered = self.all(
            |event| matches!(event, EventData::RecoveryTriggered(triggered) if triggered.recovery == data.recovery),
        );
        let later = triggered.map(|event| event.occurred_at).next();
        let started =
            self.all(|event| matches!(event, EventData::RecoveryStarted(started) if started.recovery == data.recovery));
        let (question, over) = match (later, started.map(|event| event.occurred_at).next()) {
            (_, Some(at)) if at >= last.occurred_at => ("why not sooner", Some(at)),
            (Some(at), _) if at >= last.occurred_at => ("why not sooner", Some(at)),
            (Some(_), _) => ("why it waits", None),
            (None, _) if data.attempt > 1 => ("why no further one", None),
            (None, _) => ("why none was triggered", None),
        };
        let first = all[0].occurred_at;
        let mut words: Vec<String> = Vec::new();
        for event in &all {
            let EventData::RecoveryWithheld(data) = &event.data else { continue };
            words.push(format!("{} {}", clock(event.occurred_at, first), words::withheld(data, event.occurred_at)));
        }
        // The newest words count most; of many changes only the last ones are told here.
        let skipped = words.len().saturating_sub(4);
        let mut text = words.split_off(skipped).join("; ");
        if skipped > 0 {
            text = format!("({skipped} earlier) {text}");
        }
        if let Some(over) = over {
            text += &format!("; until {}", clock(over, first));
        }
        Some(answer(question, text, &all))
    }

    /// Who decided about a recovery.
    fn permission(&self, id: &RecoveryId) -> Option<Answer> {
        let says: Vec<&Event> = self
            .all(|data| match data {
                EventData::RecoveryApproved(data) => data.recovery == *id,
                EventData::RecoveryRejected(data) => data.recovery == *id,
                EventData::RecoveryCancelled(data) => data.recovery == *id,
                _ => false,
            })
            .collect();
        let text = says.iter().map(|event| words::sentence(event)).collect::<Vec<_>>().join("; ");
        (!says.is_empty()).then(|| answer("who decided", text, &says))
    }

    /// How a recovery went.
    fn outcome(&self, recovery: &Recovery) -> Option<Answer> {
        let outcome = recovery.outcome?;
        let events: Vec<&Event> = self
            .all(|data| match data {
                EventData::RecoveryVerified(data) => data.recovery == recovery.id,
                EventData::RecoveryFinished(data) => data.recovery == recovery.id,
                _ => false,
            })
            .collect();
        let steps = recovery.steps.len();
        let mut text = match outcome {
            RecoveryOutcome::Succeeded => "succeeded".to_owned(),
            other => other.to_string(),
        };
        if let Some(length) = recovery.duration() {
            text += &format!(" after {}", span(length));
        }
        if steps > 0 {
            text += &format!(", {}", count(steps, "step"));
        }
        text += match recovery.verified {
            Some(true) => ", verified",
            Some(false) => ", not verified",
            None => "",
        };
        if let Some(reason) = &recovery.reason {
            text += &format!(": {}", line(reason));
        }
        Some(answer("how it went", text, &events))
    }

    /// How it ended.
    fn ended(&self, incident: Option<&Incident>) -> Option<Answer> {
        let over = self.all(|data| matches!(data, EventData::IncidentResolved(_) | EventData::AlertResolved(_)));
        let events: Vec<&Event> = over.collect();
        let last = *events.last()?;
        let recovered_at = match (&last.data, incident.and_then(|incident| incident.recovered_at)) {
            (_, Some(at)) => at,
            (EventData::AlertResolved(data), None) => data.recovered_at,
            (EventData::IncidentResolved(data), None) => data.recovered_at,
            _ => return None,
        };
        let by = incident.and_then(|incident| incident.recovered_by.as_ref());
        let by = by.map_or_else(|| "without a recovery of Rebound's".to_owned(), |id| format!("brought back by {id}"));
        let by = if self.warning().is_some() { String::new() } else { format!(", {by}") };
        let text = format!("well since {}{by}", clock(recovered_at, last.occurred_at));
        Some(answer("how it ended", text, &events))
    }

    /// What people or maintenance windows restated, beside the original figures.
    fn restated(&self, incident: &Incident) -> Option<Answer> {
        let events: Vec<&Event> = self.all(|data| matches!(data, EventData::IncidentCorrected(_))).collect();
        let beside = incident.detected_at;
        let mut text = Vec::new();
        if let Some(correction) = &incident.correction {
            let was = correction.original_first_failure_at;
            if was != incident.first_failure_at {
                text.push(format!("began {}, was {}", clock(incident.first_failure_at, beside), clock(was, beside)));
            }
            if correction.original_recovered_at != incident.recovered_at {
                let words = |at: Option<DateTime<Utc>>| at.map_or("open".to_owned(), |at| clock(at, beside));
                let (now, was) = (words(incident.recovered_at), words(correction.original_recovered_at));
                text.push(format!("recovered {now}, was {was}"));
            }
            if correction.original_error_class != incident.error_class {
                text.push(format!("cause {}, was {}", incident.error_class, correction.original_error_class));
            }
            if correction.excluded {
                text.push("left out of every figure".into());
            }
            text.push(format!("by {} ({})", line(&correction.by), line(&correction.reason)));
        }
        if let Some(window) = &incident.maintenance {
            let how = if window.excluded { "left out of every figure" } else { "counted from the window's end" };
            text.push(format!("{how}: it began in the maintenance window {}", line(&window.maintenance)));
        }
        (!text.is_empty()).then(|| answer("what was restated", text.join("; "), &events))
    }
}
