//! What a person asks for: a recovery within the same budget as automation's, or a refusal that says why.
//!
//! A request is answered once, by `recovery.triggered` or `recovery.declined`. Until one of them was folded it is
//! pending, so a request that came while nobody decided is answered by whoever decides next.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{Asked, RecoveryDeclined, RecoveryRequested, RecoveryTriggered, Restraint, TriggerMode};
use rebound_schemas::plan::check_input;
use rebound_schemas::{Event, EventId, IncidentId, RecoveryId};

use super::Engine;

/// Requests of one service that wait at most; the oldest gives way.
const MOST_PENDING: usize = 16;
/// Answered requests that are remembered of one service, since they may be delivered again.
const MOST_ANSWERED: usize = 256;
/// Who asked longer ago has stopped waiting for it.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(10);

/// The requests for one service.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: Vec<(EventId, DateTime<Utc>, RecoveryRequested)>,
    answered: VecDeque<EventId>,
}

impl Requests {
    /// Takes a request; `false` if it is known.
    pub(super) fn ask(&mut self, event: &Event, data: &RecoveryRequested) -> bool {
        if self.answered.contains(&event.id) || self.pending.iter().any(|(id, ..)| *id == event.id) {
            return false;
        }
        if self.pending.len() == MOST_PENDING {
            self.pending.remove(0);
        }
        self.pending.push((event.id.clone(), event.occurred_at, data.clone()));
        true
    }

    /// Takes the answer to one.
    pub(super) fn answer(&mut self, request: &EventId) {
        self.pending.retain(|(id, ..)| id != request);
        if !self.answered.contains(request) {
            self.answered.push_back(request.clone());
            if self.answered.len() > MOST_ANSWERED {
                self.answered.pop_front();
            }
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Why a request is declined, and what of it could be overridden.
type Declined = (String, Option<Restraint>);

impl Engine {
    /// Answers every pending request of a service.
    pub(super) fn answer_requests(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let requests = self.states[at as usize].requests.as_mut();
        for (id, asked_at, request) in requests.map(|r| std::mem::take(&mut r.pending)).unwrap_or_default() {
            match self.judge_request(at, &id, asked_at, &request, now) {
                Ok(data) => {
                    let id = EventId::derive(data.recovery.as_str(), "triggered");
                    self.append(at, id, now, data.into(), decided);
                }
                Err((reason, restraint)) => {
                    let event = EventId::derive(id.as_str(), "declined");
                    let data = RecoveryDeclined { request: id, by: request.by, reason, restraint };
                    self.append(at, event, now, data.into(), decided);
                }
            }
        }
    }

    /// | request | answer |
    /// |---|---|
    /// | older than ten minutes | declined |
    /// | the plan has no such procedure, or the procedure no such input | declined |
    /// | for a dry run | triggered as one, whatever else holds |
    /// | while a recovery of the service waits or runs | declined |
    /// | beyond the policy's intensity, not overridden | declined |
    /// | before the back-off is over, not overridden | triggered, to begin when it is |
    /// | any other | triggered |
    ///
    /// Neither suppression nor an escalation holds it back: those are automation's.
    fn judge_request(
        &self,
        at: u32,
        id: &EventId,
        asked_at: DateTime<Utc>,
        request: &RecoveryRequested,
        now: DateTime<Utc>,
    ) -> Result<RecoveryTriggered, Declined> {
        let (watched, rules, state) = (self.watched(at), self.rules(at), &self.states[at as usize]);
        let declined = |reason: String| (reason, None);
        if now - asked_at > GOOD_FOR {
            let minutes = (now - asked_at).num_minutes();
            return Err(declined(format!("nobody decided for {minutes} min after it was asked for: ask again")));
        }
        let Some(procedure) = request.procedure.as_ref().or(watched.procedure.as_ref()) else {
            return Err(declined(format!("{} has no procedure: name one", watched.id)));
        };
        let Some(known) = self.plan.procedures().get(procedure) else {
            return Err(declined(format!("procedure {procedure} is not in the plan")));
        };
        for (name, value) in &request.inputs {
            if !known.inputs.contains_key(name) {
                return Err(declined(format!("{name} is not an input of procedure {procedure}")));
            }
            if let Err(remedy) = check_input(value) {
                return Err(declined(format!("the input {name} can't be {value:?}: {remedy}")));
            }
        }
        let outage = state.open_outage();
        let incident = outage.map_or_else(|| IncidentId::of_request(&watched.id, id), |outage| outage.incident.clone());
        let (_, attempts) = state.tried(&incident);
        let attempt = attempts + 1;
        let last = state.recovery.as_deref();
        let mut not_before = None;
        if !request.dry_run {
            if let Some(last) = last.filter(|last| last.finished.is_none() && !last.id.is_dry_run()) {
                let does = if last.started_at.is_some() { "runs" } else { "waits" };
                return Err(declined(format!("{} {does} already: let it end, or cancel it", last.id)));
            }
            let overrides = |restraint| request.overrides.contains(&restraint);
            let fresh = Default::default();
            let budget = state.budget.as_deref().unwrap_or(&fresh);
            let wait = budget.wait(&rules.limits);
            let ended_at = last.map(|last| last.finished.map_or(last.triggered_at, |(_, at)| at));
            not_before = ended_at
                .filter(|ended_at| !wait.is_zero() && *ended_at <= now && !overrides(Restraint::Backoff))
                .map(|ended_at| ended_at + wait)
                .filter(|due| *due > now);
            if !overrides(Restraint::Intensity) && !budget.allows(&rules.limits, not_before.unwrap_or(now)) {
                return Err((rules.most_recoveries(), Some(Restraint::Intensity)));
            }
        }
        let overrides: BTreeSet<Restraint> = request.overrides.iter().copied().collect();
        Ok(RecoveryTriggered {
            recovery: match request.dry_run {
                true => RecoveryId::dry_run_of_request(&watched.id, id),
                false => RecoveryId::derive(&watched.id, &incident, attempt),
            },
            attempt,
            procedure: procedure.clone(),
            method: self.plan.services().get(&watched.id).map(|service| service.method),
            mode: if request.dry_run { TriggerMode::DryRun } else { TriggerMode::Auto },
            first_failure_at: outage.map_or(now, |outage| outage.first_failure_at),
            not_before,
            by: Some(request.by.clone()),
            reason: Some(outage.map_or_else(|| request.comment.clone(), |outage| outage.reason.to_string())),
            error_class: state.lead().and_then(|probe| probe.streak()).map(|streak| streak.error_class),
            approve_until: None,
            asked: Some(Asked {
                request: id.clone(),
                comment: request.comment.clone(),
                inputs: request.inputs.clone(),
                overrides: overrides.into_iter().collect(),
            }),
            incident,
        })
    }
}
