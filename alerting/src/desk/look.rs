//! How recoveries, requests, pauses and procedures stand.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rebound_schemas::event::{ProcedureDemoted, Restraint, TriggerMode, WithheldReason};
use rebound_schemas::plan::Plan;
use rebound_schemas::{EventId, ProcedureId, RecoveryId, ServiceId};

use super::standing::{
    Answered, Demoted, Detail, Gate, PauseStanding, RequestStanding, Standing, StandingState, StepLine,
};
use super::{Desk, Entry, InTheWay, StepEntry};
use crate::explain;
use crate::pause::{Pause, Scope, Target};
use crate::procedure::question;

/// Who asked and was declined is told of it for so long.
const DECLINED_FOR: TimeDelta = TimeDelta::hours(1);

impl Desk {
    /// Every recovery that is remembered: those that have not ended first, then the newest.
    #[must_use]
    pub fn standings(&self, plan: Option<&Plan>, now: DateTime<Utc>) -> Vec<Standing> {
        let known = self.entries.iter().filter_map(|(id, entry)| self.standing_of(id, entry, plan, now));
        let withheld = self.in_the_way.iter().filter(|(_, known)| self.holds_back(known));
        let withheld = withheld.map(|(service, known)| withheld_of(service, known, plan));
        let mut all: Vec<Standing> = known.chain(withheld).collect();
        all.sort_by_key(|standing| {
            let newest = std::cmp::Reverse(standing.finished_at.or(standing.triggered_at).or(standing.withheld_at));
            (standing.state == StandingState::Finished, newest, standing.recovery.clone())
        });
        all
    }

    /// How one recovery stands.
    #[must_use]
    pub fn standing(&self, id: &RecoveryId, plan: Option<&Plan>, now: DateTime<Utc>) -> Option<Standing> {
        let known = self.entries.get(id).and_then(|entry| self.standing_of(id, entry, plan, now));
        known.or_else(|| self.not_triggered(id).map(|(service, known)| withheld_of(service, known, plan)))
    }

    /// One recovery with what was done and said.
    #[must_use]
    pub fn detail(&self, id: &RecoveryId, plan: Option<&Plan>, now: DateTime<Utc>) -> Option<Detail> {
        let standing = self.standing(id, plan, now)?;
        let Some(entry) = self.entries.get(id) else {
            let (overrides, inputs, runner, steps, words) = Default::default();
            return Some(Detail { standing, overrides, inputs, runner, steps, words });
        };
        let asked = entry.trigger.as_ref().and_then(|(data, _)| data.asked.clone());
        let line = |(started, at, ended): &StepEntry| {
            let ended = ended.as_ref();
            StepLine {
                step: started.step.clone(),
                attempt: started.attempt,
                action: started.action.clone(),
                started_at: *at,
                finished_at: ended.map(|(_, at)| *at),
                outcome: ended.map(|(data, _)| data.outcome),
                output: ended.and_then(|(data, _)| data.output.clone()),
                error: ended.and_then(|(data, _)| data.error.clone()),
            }
        };
        Some(Detail {
            standing,
            overrides: asked.as_ref().map(|asked| asked.overrides.clone()).unwrap_or_default(),
            inputs: asked.map(|asked| asked.inputs).unwrap_or_default(),
            runner: entry.started.as_ref().map(|(runner, _)| runner.clone()),
            steps: entry.steps.iter().map(line).collect(),
            words: entry.words.clone(),
        })
    }

    /// Requests that nobody has decided about, or that were declined within the last hour; the newest first.
    #[must_use]
    pub fn open_requests(&self, now: DateTime<Utc>) -> Vec<RequestStanding> {
        let newest = self.asked.iter().rev().filter_map(|id| Some((id, self.requests.get(id)?)));
        newest
            .filter_map(|(id, request)| {
                let (service, at, data) = request.asked.as_ref()?;
                let declined = match &request.answer {
                    Some(Answered::Triggered { .. }) => return None,
                    Some(Answered::Declined { reason, .. }) if now - *at < DECLINED_FOR => Some(reason.clone()),
                    Some(Answered::Declined { .. }) => return None,
                    None => None,
                };
                Some(RequestStanding {
                    request: id.clone(),
                    service: service.clone(),
                    by: data.by.clone(),
                    comment: data.comment.clone(),
                    at: *at,
                    declined,
                })
            })
            .collect()
    }

    /// What became of a request; none while nobody has decided.
    #[must_use]
    pub fn answer(&self, request: &EventId) -> Option<&Answered> {
        self.requests.get(request)?.answer.as_ref()
    }

    /// The pauses in force.
    #[must_use]
    pub fn pauses(&self, now: DateTime<Utc>) -> Vec<PauseStanding> {
        let standing = |(scope, since, pause): (&Scope, DateTime<Utc>, &Pause)| {
            let Scope { site, service, tier, procedure } = scope.clone();
            PauseStanding {
                covers: scope.to_string(),
                site,
                service,
                tier,
                procedure,
                since,
                until: pause.until,
                by: pause.by.clone(),
                reason: pause.reason.clone(),
                event: pause.said.id.clone(),
            }
        };
        self.pauses.in_force(now).map(standing).collect()
    }

    /// The procedures that a person has to promote.
    #[must_use]
    pub fn demoted_procedures(&self) -> Vec<Demoted> {
        let known = self.rights.keys().filter_map(|procedure| self.demoted_since(procedure));
        known
            .map(|(since, data)| Demoted {
                procedure: data.procedure.clone(),
                since,
                succeeded: data.succeeded,
                attempts: data.attempts,
                below: data.below,
                over: data.over,
                failed: data.failed.clone(),
            })
            .collect()
    }

    pub(super) fn demoted_since(&self, procedure: &ProcedureId) -> Option<(DateTime<Utc>, &ProcedureDemoted)> {
        let right = self.rights.get(procedure)?;
        let (at, data) = right.demoted.as_ref()?;
        right.promoted.is_none_or(|promoted| promoted < *at).then_some((*at, data))
    }

    /// | recovery | state |
    /// |---|---|
    /// | not triggered, its incident open | withheld |
    /// | ended | finished |
    /// | started, called off by a person | stopping |
    /// | started, a step waits for a person who has not spoken | awaiting_step |
    /// | started | running |
    /// | waits for approval, not approved | awaiting_approval |
    /// | covered by a pause that it does not pass over | paused |
    /// | any other | queued |
    fn standing_of(&self, id: &RecoveryId, entry: &Entry, plan: Option<&Plan>, now: DateTime<Utc>) -> Option<Standing> {
        let trigger = entry.trigger.as_ref().map(|(data, _)| data);
        // Words about a recovery that nobody knows of are no recovery.
        if entry.is_stranger() {
            return None;
        }
        let finished = entry.finished.as_ref();
        let mode = trigger.map(|data| data.mode);
        let gates = entry.gates();
        let procedure = trigger.map(|data| &data.procedure).or(finished.map(|(data, _)| &data.procedure));
        let target = match plan {
            Some(plan) => Target::of(plan, &entry.service, procedure),
            None => Target { service: &entry.service, site: None, tier: None, procedure },
        };
        let passes = |of| {
            trigger.and_then(|data| data.asked.as_ref()).is_some_and(|asked| asked.overrides.contains(&of))
                || mode == Some(TriggerMode::DryRun)
        };
        let pause = self.pauses.active(target, now).filter(|_| !passes(Restraint::Pause));
        let not_before = trigger.and_then(|data| data.not_before).filter(|at| *at > now);
        let unapproved = matches!(mode, Some(TriggerMode::Approve | TriggerMode::Off)) && entry.approved().is_none();
        let until = trigger.and_then(|data| data.approve_until);
        let (state, waits_for) = match () {
            () if finished.is_some() => (StandingState::Finished, None),
            () if entry.started.is_some() && entry.cancelled.is_some() => {
                (StandingState::Stopping, entry.cancelled.as_ref().map(|(words, _)| words.clone()))
            }
            () if entry.started.is_some() && !gates.is_empty() => {
                let steps: Vec<&str> = gates.iter().map(|gate| gate.step.as_str()).collect();
                (StandingState::AwaitingStep, Some(format!("the approval of {}", steps.join(", "))))
            }
            () if entry.started.is_some() => (StandingState::Running, None),
            () if unapproved => {
                let until = until.map(|until| format!(", until {}", to_the_second(until))).unwrap_or_default();
                (StandingState::AwaitingApproval, Some(format!("approval{until}")))
            }
            () => match pause {
                Some(pause) => {
                    (StandingState::Paused, Some(format!("the end of {}'s pause: {}", pause.by, pause.reason)))
                }
                None => {
                    let back_off = not_before.map(|at| format!("the end of its back-off at {}", to_the_second(at)));
                    let turn = || format!("its turn{}", self.ahead_of(id, entry).unwrap_or_default());
                    (StandingState::Queued, Some(back_off.unwrap_or_else(turn)))
                }
            },
        };
        Some(Standing {
            recovery: id.clone(),
            service: entry.service.clone(),
            incident: trigger
                .map(|data| &data.incident)
                .or(finished.map(|(data, _)| &data.incident))
                .filter(|incident| !incident.is_of_request())
                .cloned(),
            attempt: trigger.map(|data| data.attempt).or(finished.map(|(data, _)| data.attempt)).unwrap_or(1),
            procedure: procedure.cloned(),
            state,
            waits_for,
            dry_run: id.is_dry_run(),
            triggered_at: Some(entry.trigger.as_ref().map_or(entry.since, |(_, at)| *at)),
            withheld_at: None,
            by: trigger.and_then(|data| data.by.clone()),
            reason: trigger.and_then(|data| match &data.asked {
                Some(asked) => Some(asked.comment.clone()),
                None => data.reason.clone(),
            }),
            approve_until: until,
            approved_by: entry.approved().map(|line| line.by.clone()),
            started_at: entry.started.as_ref().map(|(_, at)| *at),
            gates: if finished.is_some() { Vec::new() } else { gates },
            finished_at: finished.map(|(_, at)| *at),
            outcome: finished.map(|(data, _)| data.outcome),
            outcome_reason: finished.and_then(|(data, _)| data.reason.clone()),
        })
    }
}

impl Desk {
    /// What the queue said last that a recovery waits for.
    fn ahead_of(&self, id: &RecoveryId, entry: &Entry) -> Option<String> {
        let known = self.in_the_way.get(&entry.service).filter(|known| known.data.recovery == *id)?;
        let ahead = matches!(
            known.data.reason,
            WithheldReason::OtherRecovery
                | WithheldReason::DependencyRecovery
                | WithheldReason::Concurrency
                | WithheldReason::BlastRadius
        );
        ahead.then(|| format!(": {}", explain::withheld(&known.data, known.at)))
    }
}

/// People read it.
fn to_the_second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A recovery that something keeps from being triggered.
fn withheld_of(service: &ServiceId, known: &InTheWay, plan: Option<&Plan>) -> Standing {
    let data = &known.data;
    Standing {
        recovery: data.recovery.clone(),
        service: service.clone(),
        incident: Some(data.incident.clone()),
        attempt: data.attempt,
        procedure: plan.and_then(|plan| plan.services().get(service)?.procedure.clone()),
        state: StandingState::Withheld,
        waits_for: None,
        dry_run: false,
        triggered_at: None,
        withheld_at: Some(known.at),
        by: None,
        reason: Some(explain::withheld(data, known.at)),
        approve_until: None,
        approved_by: None,
        started_at: None,
        gates: Vec::new(),
        finished_at: None,
        outcome: None,
        outcome_reason: None,
    }
}

impl Entry {
    /// Steps that wait for a person who has not spoken.
    pub(super) fn gates(&self) -> Vec<Gate> {
        let waits = self
            .steps
            .iter()
            .filter(|(started, since, ended)| ended.is_none() && self.approved_step(&started.step, *since).is_none());
        waits
            .filter_map(|(started, since, _)| {
                let question = question(&started.action)?.to_owned();
                Some(Gate { step: started.step.clone(), attempt: started.attempt, question, since: *since })
            })
            .collect()
    }
}
