//! The desk at which people speak about recoveries: which there are, how far each is, and whether a word makes sense
//! now. A pure fold; what may be said is judged in [`Desk::judge`].
//!
//! What is down and not being recovered stands there too, with what stands in the way (`recovery.withheld`), and so do
//! pauses and demoted procedures: whoever is woken sees in one place what automation does not do, and why.
//!
//! A refusal here is a courtesy, that says what is wrong and what to do instead. Whoever acts on an event judges again
//! by what it has folded: [`crate::queue`] approvals and refusals, [`crate::engine`] requests, [`crate::runner`] what
//! is said to a step or a running recovery. So two desks that know different things never make anything happen twice.

mod judge;
mod look;
mod standing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_standing;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{
    ProcedureDemoted, RecoveryFinished, RecoveryRequested, RecoveryTriggered, RecoveryWithheld, StepFinished,
    StepOutcome, StepStarted, WithheldReason,
};
use rebound_schemas::{Event, EventData, EventId, IncidentId, ProcedureId, RecoveryId, ServiceId, StepId};

pub use standing::{
    Answered, Demoted, Detail, Gate, PauseStanding, RequestStanding, Standing, StandingState, StepLine, WordLine,
};
pub use words::{Key, Refusal, RefusalKind, Said, Target, Word};

use crate::pause::Pauses;

/// The `source` of what people say at the desk.
pub const SOURCE: &str = "rebound/desk";

/// Ended recoveries, requests, words about recoveries that nobody triggered, and incidents that are over: so many of
/// each are remembered, the newest. What has not ended always is.
const REMEMBERED: usize = 1000;
/// Attempts at steps that are remembered of one recovery.
const STEPS: usize = 500;
/// Words that are remembered of one recovery.
const WORDS: usize = 50;
/// Keys of requests that may be repeated.
const KEYS: usize = 10_000;

/// The word of an approval.
const APPROVED: &str = "approved";

/// One attempt at a step: how it began and when, and how it ended and when.
type StepEntry = (StepStarted, DateTime<Utc>, Option<(StepFinished, DateTime<Utc>)>);

/// What is known of one recovery.
#[derive(Debug, Clone)]
struct Entry {
    service: ServiceId,
    /// Of the first event seen.
    since: DateTime<Utc>,
    trigger: Option<(RecoveryTriggered, DateTime<Utc>)>,
    refused: Option<String>,
    /// Who called it off, and whether what runs is to be killed.
    cancelled: Option<(String, bool)>,
    started: Option<(String, DateTime<Utc>)>,
    steps: Vec<StepEntry>,
    finished: Option<(RecoveryFinished, DateTime<Utc>)>,
    words: Vec<WordLine>,
}

/// What a person asked for, and what became of it.
#[derive(Debug, Clone, Default)]
struct Request {
    /// None where only the answer was seen.
    asked: Option<(ServiceId, DateTime<Utc>, RecoveryRequested)>,
    answer: Option<Answered>,
}

/// What stood in the way of a service's recovery last.
#[derive(Debug, Clone)]
struct InTheWay {
    at: DateTime<Utc>,
    data: RecoveryWithheld,
}

/// What was last said of a procedure's right to run by itself.
#[derive(Debug, Clone, Default)]
struct Right {
    demoted: Option<(DateTime<Utc>, ProcedureDemoted)>,
    promoted: Option<DateTime<Utc>>,
}

/// Everything that can be spoken about.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    entries: BTreeMap<RecoveryId, Entry>,
    /// Ended ones, oldest first.
    ended: VecDeque<RecoveryId>,
    /// Words about recoveries of which nothing else is known, oldest first.
    strangers: VecDeque<RecoveryId>,
    requests: BTreeMap<EventId, Request>,
    /// Requests in the order in which they came.
    asked: VecDeque<EventId>,
    /// Open incidents.
    open: BTreeSet<IncidentId>,
    /// Incidents that are over, oldest first: their end and their beginning may come in either order.
    over: VecDeque<IncidentId>,
    in_the_way: BTreeMap<ServiceId, InTheWay>,
    rights: BTreeMap<ProcedureId, Right>,
    pauses: Pauses,
    /// The event that was made for a key, and the digest of what was asked with it.
    keys: BTreeMap<String, EventId>,
    keyed: VecDeque<String>,
}

impl Desk {
    /// Takes note of an event. Taking it again changes nothing.
    pub fn evolve(&mut self, event: &Event) {
        match &event.data {
            EventData::RecoveryPaused(_) | EventData::RecoveryResumed(_) => drop(self.pauses.evolve(event)),
            EventData::RecoveryRequested(data) => {
                let asked = (event.subject.clone(), event.occurred_at, data.clone());
                self.request(&event.id).asked.get_or_insert(asked);
            }
            EventData::RecoveryDeclined(data) => {
                let answer = Answered::Declined { reason: data.reason.clone(), restraint: data.restraint };
                self.request(&data.request).answer.get_or_insert(answer);
            }
            EventData::IncidentOpened(data) if !self.over.contains(&data.incident) => {
                self.open.insert(data.incident.clone());
            }
            EventData::IncidentResolved(data) => self.resolved(&data.incident),
            // Under `hold` there is no incident yet, and perhaps never one.
            EventData::RecoveryWithheld(data) if data.reason != WithheldReason::Hold => self.withheld(event, data),
            EventData::ProcedureDemoted(data) => {
                let right = self.rights.entry(data.procedure.clone()).or_default();
                if right.demoted.as_ref().is_none_or(|(at, _)| *at < event.occurred_at) {
                    right.demoted = Some((event.occurred_at, data.clone()));
                }
            }
            EventData::ProcedurePromoted(data) => self.promoted(&data.procedure, event.occurred_at),
            data => {
                if let Some(recovery) = data.recovery().filter(|_| is_of_recovery(data)) {
                    self.evolve_recovery(&recovery.clone(), event);
                }
            }
        }
        if event.source.as_str() == SOURCE
            && let Some((key, _)) = judge::key_of(&event.id)
            && !self.keys.contains_key(key)
        {
            self.keys.insert(key.to_owned(), event.id.clone());
            self.keyed.push_back(key.to_owned());
            if self.keyed.len() > KEYS
                && let Some(oldest) = self.keyed.pop_front()
            {
                self.keys.remove(&oldest);
            }
        }
    }

    /// What is known of a request, which may be nothing so far.
    fn request(&mut self, id: &EventId) -> &mut Request {
        if !self.requests.contains_key(id) {
            self.asked.push_back(id.clone());
            if let Some(oldest) = beyond(&mut self.asked) {
                self.requests.remove(&oldest);
            }
        }
        self.requests.entry(id.clone()).or_default()
    }

    fn resolved(&mut self, incident: &IncidentId) {
        self.open.remove(incident);
        if !self.over.contains(incident) {
            self.over.push_back(incident.clone());
            beyond(&mut self.over);
        }
    }

    /// Of two things that stood in the way of one service's recoveries the later counts.
    fn withheld(&mut self, event: &Event, data: &RecoveryWithheld) {
        let known = self.in_the_way.get(&event.subject);
        let order = |at, data: &RecoveryWithheld| (at, data.attempt, data.change);
        if known.is_none_or(|known| order(known.at, &known.data) < order(event.occurred_at, data)) {
            let word = InTheWay { at: event.occurred_at, data: data.clone() };
            self.in_the_way.insert(event.subject.clone(), word);
        }
    }

    fn promoted(&mut self, procedure: &ProcedureId, at: DateTime<Utc>) {
        // Anybody may say so of a procedure that there is not.
        if self.rights.len() >= REMEMBERED && !self.rights.contains_key(procedure) {
            self.rights.retain(|_, right| right.demoted.is_some());
        }
        let right = self.rights.entry(procedure.clone()).or_default();
        right.promoted = right.promoted.max(Some(at));
    }

    fn evolve_recovery(&mut self, recovery: &RecoveryId, event: &Event) {
        let at = event.occurred_at;
        if !self.entries.contains_key(recovery) {
            if self.ended.contains(recovery) {
                return;
            }
            if is_word(&event.data) {
                self.strangers.push_back(recovery.clone());
                let forgotten = beyond(&mut self.strangers);
                forgotten.and_then(|id| {
                    self.entries.get(&id).is_some_and(Entry::is_stranger).then(|| self.entries.remove(&id))
                });
            }
        }
        let entry = self.entries.entry(recovery.clone()).or_insert_with(|| Entry {
            service: event.subject.clone(),
            since: at,
            trigger: None,
            refused: None,
            cancelled: None,
            started: None,
            steps: Vec::new(),
            finished: None,
            words: Vec::new(),
        });
        match &event.data {
            EventData::RecoveryTriggered(data) => {
                entry.service = event.subject.clone();
                entry.trigger.get_or_insert_with(|| (data.clone(), at));
                if let Some(asked) = &data.asked {
                    let answer = Answered::Triggered { recovery: recovery.clone() };
                    self.request(&asked.request).answer.get_or_insert(answer);
                }
            }
            EventData::RecoveryApproved(data) => {
                entry.say(event, APPROVED, &data.by, data.comment.as_deref(), data.step.as_ref());
            }
            EventData::RecoveryRejected(data) => {
                entry.say(event, "rejected", &data.by, Some(&data.reason), None);
                entry.refused.get_or_insert(format!("{} rejected it: {}", data.by, data.reason));
            }
            EventData::RecoveryCancelled(data) => {
                entry.say(event, "cancelled", &data.by, Some(&data.reason), None);
                let words = format!("{} called it off: {}", data.by, data.reason);
                let (_, now) = entry.cancelled.get_or_insert((words, data.now));
                *now |= data.now;
            }
            EventData::RecoveryStarted(data) => drop(entry.started.get_or_insert((data.runner.clone(), at))),
            EventData::StepStarted(data) => {
                let known =
                    entry.steps.iter().any(|(step, ..)| step.index == data.index && step.attempt == data.attempt);
                if !known && entry.steps.len() < STEPS {
                    entry.steps.push((data.clone(), at, None));
                }
            }
            EventData::StepFinished(data) => entry.step_ended(data, at),
            EventData::RecoveryFinished(data) if entry.finished.is_none() => {
                entry.finished = Some((data.clone(), at));
                self.ended.push_back(recovery.clone());
                // Twice as many ids as recoveries, so that a late event of an old one does not bring it back.
                if self.ended.len() > 2 * REMEMBERED {
                    self.ended.pop_front();
                }
                if let Some(old) = self.ended.len().checked_sub(REMEMBERED + 1).and_then(|at| self.ended.get(at)) {
                    self.entries.remove(old);
                }
            }
            _ => {}
        }
    }

    /// What a key was used for before.
    fn known(&self, key: &str) -> Option<&EventId> {
        self.keys.get(key)
    }

    /// The words about pauses.
    #[must_use]
    pub fn paused(&self) -> &Pauses {
        &self.pauses
    }

    /// The recovery of a service that waits or runs; a dry run does neither.
    #[must_use]
    pub fn under_way(&self, service: &ServiceId) -> Option<&RecoveryId> {
        self.at_it(service).map(|(id, _)| id)
    }

    fn at_it(&self, service: &ServiceId) -> Option<(&RecoveryId, &Entry)> {
        self.entries.iter().find(|(id, entry)| {
            entry.service == *service && entry.finished.is_none() && !entry.is_stranger() && !id.is_dry_run()
        })
    }

    /// What stands in the way of a recovery that is known by that alone: it would be, and was not triggered.
    fn not_triggered(&self, recovery: &RecoveryId) -> Option<(&ServiceId, &InTheWay)> {
        self.in_the_way.iter().find(|(_, known)| known.data.recovery == *recovery && self.holds_back(known))
    }

    fn holds_back(&self, known: &InTheWay) -> bool {
        self.open.contains(&known.data.incident)
            && !self.ended.contains(&known.data.recovery)
            && self.entries.get(&known.data.recovery).is_none_or(Entry::is_stranger)
    }
}

/// Takes the oldest of more than are remembered.
fn beyond<T>(order: &mut VecDeque<T>) -> Option<T> {
    if order.len() > REMEMBERED { order.pop_front() } else { None }
}

/// Whether it is what a person says of one recovery.
fn is_word(data: &EventData) -> bool {
    matches!(data, EventData::RecoveryApproved(_) | EventData::RecoveryRejected(_) | EventData::RecoveryCancelled(_))
}

/// Whether the desk keeps it: what resolves an incident, or moves between sites, says nothing of how far it is.
fn is_of_recovery(data: &EventData) -> bool {
    is_word(data)
        || matches!(
            data,
            EventData::RecoveryTriggered(_)
                | EventData::RecoveryStarted(_)
                | EventData::StepStarted(_)
                | EventData::StepFinished(_)
                | EventData::RecoveryFinished(_)
        )
}

impl Entry {
    /// Only words about it were seen: nobody triggered it, or not yet.
    fn is_stranger(&self) -> bool {
        self.trigger.is_none() && self.started.is_none() && self.finished.is_none()
    }

    /// The first approval that counts (see [`crate::queue::Queue`]): not before the trigger, and not after its end.
    fn approved(&self) -> Option<&WordLine> {
        let (data, triggered_at) = self.trigger.as_ref()?;
        let counts = |at: DateTime<Utc>| at >= *triggered_at && data.approve_until.is_none_or(|until| at < until);
        self.approvals(None).filter(|line| counts(line.at)).min_by_key(|line| line.at)
    }

    /// The first approval of a step that waits since `since`.
    fn approved_step<'a>(&'a self, step: &'a StepId, since: DateTime<Utc>) -> Option<&'a WordLine> {
        self.approvals(Some(step)).filter(|line| line.at >= since).min_by_key(|line| line.at)
    }

    fn approvals<'a>(&'a self, step: Option<&'a StepId>) -> impl Iterator<Item = &'a WordLine> {
        self.words.iter().filter(move |line| line.word == APPROVED && line.step.as_ref() == step)
    }

    /// The attempt at a step that waits for approval, and since when.
    fn waits_at(&self, step: &StepId) -> Option<(u32, DateTime<Utc>)> {
        let waits = |(started, _, ended): &&StepEntry| {
            started.step == *step && ended.is_none() && crate::procedure::question(&started.action).is_some()
        };
        self.steps.iter().rev().find(waits).map(|(started, since, _)| (started.attempt, *since))
    }

    fn step_ended(&mut self, data: &StepFinished, at: DateTime<Utc>) {
        let room = self.steps.len() < STEPS;
        let found = self.steps.iter_mut().find(|(s, ..)| s.index == data.index && s.attempt == data.attempt);
        match found {
            Some((_, _, ended)) => drop(ended.get_or_insert((data.clone(), at))),
            None if room && data.outcome == StepOutcome::Skipped => {
                let StepFinished { recovery, incident, step, index, attempt, .. } = data.clone();
                let started = StepStarted { recovery, incident, step, index, attempt, action: String::new() };
                self.steps.push((started, at, Some((data.clone(), at))));
            }
            None => {}
        }
    }

    fn say(&mut self, event: &Event, word: &'static str, by: &str, comment: Option<&str>, step: Option<&StepId>) {
        let line = WordLine {
            event: event.id.clone(),
            word,
            by: by.to_owned(),
            comment: comment.map(str::to_owned),
            step: step.cloned(),
            at: event.occurred_at,
        };
        if !self.words.contains(&line) {
            if self.words.len() == WORDS {
                self.words.remove(0);
            }
            self.words.push(line);
        }
    }
}
