//! What follows from a service's state: open, tell, recover, escalate, resolve.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{
    AlertRaised, AlertResolved, AlertSuppressed, IncidentOpened, IncidentResolved, RecoveryEscalated, RecoveryOutcome,
    RecoveryTriggered, Severity, TriggerMode, WithheldReason,
};
use rebound_schemas::{Event, EventData, EventId, IncidentId, RecoveryId};

use super::service::{Outage, cause_bit};
use super::{Engine, Rules, Watched};
use crate::hindrance::Hindrance;
use crate::hold::Signal;
use crate::suppress::{Facts, Suppression, suppression};
use crate::threshold::{Failure, ProbeState, Streak, Verdict};

/// What is to be done about recovering a service.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing, and nothing to say about it: a recovery is under way or did what it should.
    Nothing,
    /// This stands in the way.
    Withheld(Hindrance),
    /// This attempt; with a back-off that is over since the time given.
    Trigger(u32, Option<DateTime<Utc>>),
    /// Automation ends here, for one of two reasons, in words.
    Escalate(WithheldReason, String),
}

impl Next {
    fn withheld(reason: WithheldReason) -> Self {
        Self::Withheld(reason.into())
    }
}

impl Engine {
    /// Brings decisions up to date with what is known of one service, and has its next deadline noted.
    ///
    /// | probes | incident | decided |
    /// |---|---|---|
    /// | failed | none | `incident.opened` |
    /// | any | open, not told, not suppressed | `alert.raised` |
    /// | any | open, not told, suppressed | `alert.suppressed`, once a cause |
    /// | failing | open, told, not suppressed | `recovery.triggered` or `recovery.escalated`, see [`Engine::next`] |
    /// | any | open, or will be | `recovery.withheld` when what stands in the way of a recovery changes |
    /// | all clear and one has recovered since t0 | open | `alert.resolved`, `incident.resolved` |
    /// | any | resolved from outside | `alert.resolved` |
    pub(super) fn decide(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let had_failed = self.has_failed(at, now);
        if self.states[at as usize].owned {
            self.resolve(at, now, decided);
            self.open(at, now, decided);
            self.answer_requests(at, now, decided);
            if !self.states[at as usize].watches.is_empty() {
                self.warn(at, now, decided);
            }
            if self.is_down(at) {
                let severity = self.severity(at);
                let suppression = self.suppression(at, now, severity);
                match &suppression {
                    Some(suppression) => self.suppress(at, suppression, now, decided),
                    None => self.raise(at, now, decided),
                }
                self.recover(at, suppression.as_ref(), now, decided);
                self.schedule_next(at, suppression.as_ref(), now);
            }
            self.schedule_held(at, now);
        }
        if had_failed != self.has_failed(at, now) {
            self.decide_dependants(at, now, decided);
        }
    }

    /// Whether dependants of a service are suppressed because of it: it has an open incident that a policy opened,
    /// and, where this instance observes it, it is observed.
    pub(super) fn has_failed(&self, at: u32, now: DateTime<Utc>) -> bool {
        let state = &self.states[at as usize];
        self.is_down(at) && !(state.owned && state.is_unobserved(&self.rules(at).rule, now))
    }

    /// What suppresses a service now. A dependency suppresses until its dependant is seen failing after the
    /// dependency recovered (its t3): before that nobody knows whether anything is left to tell.
    pub(super) fn suppression(&self, at: u32, now: DateTime<Utc>, severity: Severity) -> Option<Suppression> {
        let (watched, state) = (self.watched(at), &self.states[at as usize]);
        let seen_failing = state.last_failure_at();
        let holds = |dependency: u32| {
            let back_at = self.states[dependency as usize].closed.as_ref().map(|closed| closed.recovered_at);
            let back_at = back_at.filter(|t3| !self.is_ahead(at, *t3, now));
            self.has_failed(dependency, now) || back_at.is_some_and(|t3| seen_failing.is_none_or(|seen| seen <= t3))
        };
        let dependency = watched.dependencies.iter().find(|dependency| holds(**dependency));
        let dependency = dependency.map(|dependency| self.watched(*dependency).id.as_str());
        // Of a group, only as many at once as make it fail.
        let group = watched.needs_groups.iter().find(|group| self.group_fails(**group, holds));
        let group = group.map(|group| &*self.groups[*group as usize].id);
        suppression(Facts {
            window: self.windows.active(&watched.id, severity, now),
            dependency: dependency.or(group),
            flapping: Some(&watched.id).filter(|_| state.is_flapping()),
        })
    }

    /// Whether a time lies so far ahead that the clock was set back since: it says nothing of what came first.
    fn is_ahead(&self, at: u32, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        time - now > self.rules(at).rule.silent_after
    }

    fn resolve(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let state = &self.states[at as usize];
        let Some(outage) = &state.outage else { return };
        let recovered_at = match outage.resolved {
            Some((recovered_at, _)) => recovered_at,
            None if state.verdict(&self.rules(at).rule) != Verdict::Clear => return,
            None => {
                let since = state.judged().filter_map(ProbeState::recovered_since);
                // A probe that recovered before this incident began says nothing about it.
                let Some(t3) = since.filter(|t3| *t3 >= outage.first_failure_at).max() else { return };
                let cleared = state.turned.filter(|(verdict, _)| *verdict == Verdict::Clear);
                if cleared.is_some_and(|(_, since)| now - since < self.rules(at).hold.keep_firing) {
                    return;
                }
                t3
            }
        };
        let resolves_incident = outage.resolved.is_none();
        let (incident, alert, policy) = (outage.incident.clone(), outage.alert.clone(), outage.policy.clone());
        let recovery = state.recovery.as_ref().filter(|recovery| !recovery.id.is_dry_run()).filter(|recovery| {
            let under_way = matches!(recovery.finished, None | Some((RecoveryOutcome::Succeeded, _)));
            recovery.incident == incident && recovery.started_at.is_some() && under_way
        });
        let recovery = recovery.map(|recovery| recovery.id.clone());
        if !outage.alert_resolved {
            let successes = state.judged().map(ProbeState::successes).min().unwrap_or(0);
            let id = EventId::derive(alert.as_str(), "resolved");
            let data =
                AlertResolved { alert, incident: incident.clone(), policy, condition: None, recovered_at, successes };
            self.append(at, id, now, data.into(), decided);
        }
        if resolves_incident {
            let id = EventId::derive(incident.as_str(), "resolved");
            self.append(at, id, now, IncidentResolved { incident, recovered_at, recovery }.into(), decided);
        }
    }

    fn open(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let (state, rules) = (&self.states[at as usize], self.rules(at));
        if state.outage.is_some() || state.verdict(&rules.rule) != Verdict::Failed {
            return;
        }
        let held = state.turned.filter(|_| !rules.hold.is_none());
        let held = held.filter(|(_, since)| now - *since < rules.hold.hold);
        let Some(streak) = state.lead().and_then(|probe| probe.streak()) else { return };
        let Some(Failure { at: first_failure_at, event: first, .. }) = streak.evidence.front() else { return };
        let incident = IncidentId::derive(&self.watched(at).id, &first.source, &first.id);
        if state.closed.as_ref().is_some_and(|closed| closed.incident == incident) {
            return; // Somebody closed it by hand; a new one begins with a new streak.
        }
        if let Some((_, since)) = held {
            if rules.trigger != TriggerMode::Off && self.watched(at).procedure.is_some() {
                let until = since.checked_add_signed(rules.hold.hold);
                let hindrance = Hindrance { until, ..WithheldReason::Hold.into() };
                self.withhold(at, incident, hindrance, now, decided);
            }
            return;
        }
        // Never before the last one ended, even if the clock was set back: order tells old from new.
        let detected_at = state.closed.as_ref().map_or(now, |c| now.max(c.at + TimeDelta::microseconds(1)));
        let before = state.judged().filter_map(ProbeState::last_success_at);
        let lead = state.lead_condition().and_then(|n| rules.judges[n].condition.severity);
        let data = IncidentOpened {
            incident: incident.clone(),
            severity: lead.unwrap_or_else(|| self.outage_severity(at, now)),
            first_failure_at: *first_failure_at,
            last_success_at: before.filter(|success| success < first_failure_at).max(),
            detected_at,
            policy: Some(rules.id.clone()),
            error_class: streak.error_class,
            cause: None,
            reason: streak.reason.to_string(),
        };
        self.append(at, EventId::derive(incident.as_str(), "opened"), now, data.into(), decided);
    }

    fn raise(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let state = &self.states[at as usize];
        let Some(outage) = state.outage.as_ref().filter(|outage| !outage.told) else { return };
        let streak = state.lead().and_then(|probe| probe.streak());
        let data = AlertRaised {
            alert: outage.alert.clone(),
            incident: outage.incident.clone(),
            policy: outage.policy.clone(),
            condition: None,
            severity: outage.severity,
            failures: streak.map_or(0, |streak| streak.failures),
            first_failure_at: outage.first_failure_at,
            reason: streak.map_or(&outage.reason, |streak| &streak.reason).to_string(),
            evidence: streak.map_or_else(Vec::new, Streak::events),
        };
        self.append(at, EventId::derive(outage.alert.as_str(), "raised"), now, data.into(), decided);
    }

    fn suppress(&mut self, at: u32, by: &Suppression, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let fresh = |outage: &&Outage| !outage.told && outage.suppressed & cause_bit(by.cause) == 0;
        if self.states[at as usize].outage.as_deref().filter(fresh).is_some() {
            self.announce(at, by, now, decided);
        }
        let Some(outage) = self.states[at as usize].outage.as_deref().filter(fresh) else { return };
        let data = AlertSuppressed {
            alert: outage.alert.clone(),
            incident: outage.incident.clone(),
            policy: outage.policy.clone(),
            condition: None,
            cause: by.cause,
            by: by.by.clone(),
        };
        let id = EventId::derive(outage.alert.as_str(), &format!("suppressed-{}", by.cause));
        self.append(at, id, now, data.into(), decided);
    }

    fn recover(&mut self, at: u32, suppression: Option<&Suppression>, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let next = self.next_unless(at, suppression, now);
        let (watched, state) = (self.watched(at), &self.states[at as usize]);
        let Some(outage) = &state.outage else { return };
        let incident = outage.incident.clone();
        match (next, &watched.procedure) {
            (Next::Trigger(attempt, not_before), Some(procedure)) => {
                let mode = self.trigger_mode(at);
                let recovery = match mode {
                    TriggerMode::DryRun => RecoveryId::dry_run(&watched.id, &incident, attempt),
                    _ => RecoveryId::derive(&watched.id, &incident, attempt),
                };
                let id = EventId::derive(recovery.as_str(), "triggered");
                let data = RecoveryTriggered {
                    recovery,
                    incident,
                    attempt,
                    procedure: procedure.clone(),
                    method: self.plan.services().get(&watched.id).map(|service| service.method),
                    mode,
                    first_failure_at: outage.first_failure_at,
                    not_before,
                    by: None,
                    reason: Some(outage.reason.to_string()),
                    error_class: state.lead().and_then(|probe| probe.streak()).map(|streak| streak.error_class),
                    approve_until: (mode == TriggerMode::Approve)
                        .then(|| now.checked_add_signed(self.rules(at).approve_within))
                        .flatten(),
                    asked: None,
                };
                self.append(at, id, now, data.into(), decided);
            }
            (Next::Escalate(why, reason), _) => {
                let (recovery, attempts) = state.tried(&incident);
                let id = EventId::derive(incident.as_str(), "escalated");
                let words = Some(reason.clone());
                let data = RecoveryEscalated { incident: incident.clone(), recovery, attempts, reason, stopped: None };
                self.append(at, id, now, data.into(), decided);
                let hindrance = Hindrance { detail: words, ..Hindrance::from(why) };
                self.withhold(at, incident, hindrance, now, decided);
            }
            (Next::Withheld(hindrance), _) => {
                if hindrance.reason == WithheldReason::BlastRadius {
                    self.tell_of_stop(at, now, decided);
                }
                self.withhold(at, incident, hindrance, now, decided);
            }
            _ => {}
        }
    }

    /// What is to be done, where something may suppress it. What would stand in the way without it goes before: it
    /// would still be so when the suppression ends.
    ///
    /// | without it | suppressed | then |
    /// |---|---|---|
    /// | nothing | | nothing |
    /// | withheld by the plan or by a person, or automation has ended | | that |
    /// | anything else | yes | withheld by what suppresses it |
    /// | anything else | no | that |
    fn next_unless(&self, at: u32, suppression: Option<&Suppression>, now: DateTime<Utc>) -> Next {
        use WithheldReason::{Cancelled, Escalated, NoProcedure, Policy};
        let lasting = |reason| matches!(reason, Policy | NoProcedure | Escalated | Cancelled);
        match (self.next(at, now), suppression) {
            (Next::Nothing, _) => Next::Nothing,
            (Next::Withheld(hindrance), _) if lasting(hindrance.reason) => Next::Withheld(hindrance),
            (_, Some(suppression)) => Next::Withheld(self.hindrance(at, suppression, now)),
            (next, None) => next,
        }
    }

    /// What is to be done about recovering a service that is neither suppressed nor resolved.
    ///
    /// | newest recovery of the incident | next |
    /// |---|---|
    /// | none | attempt 1, after the back-off that recoveries of earlier incidents left |
    /// | none, but one of an earlier incident is running | withheld until it ends |
    /// | triggered or running | nothing |
    /// | failed | next attempt, `wait` after it ended |
    /// | succeeded, and since then as many failures in a row as the threshold | the same |
    /// | interrupted | escalate: what it did is not known, so it isn't repeated |
    /// | cancelled | withheld: a person said so, or nobody approved it in time |
    /// | a dry run | nothing: it was told what would be done |
    ///
    /// An attempt is made only while probes are seen failing (and not on news older than `silent_after`), and only
    /// while no pause covers it: what is still down when the pause ends is then decided anew. And only within the
    /// intensity: else escalate, once an incident, and automation ends for it.
    ///
    /// What would then run by itself doesn't while more of its site, or of everything, is down than the plan takes for
    /// failures of services: people are told once, and what is still down when less is down is decided anew.
    fn next(&self, at: u32, now: DateTime<Utc>) -> Next {
        let (rules, state) = (self.rules(at), &self.states[at as usize]);
        let Some(outage) = &state.outage else { return Next::Nothing };
        if rules.trigger == TriggerMode::Off {
            return Next::withheld(WithheldReason::Policy);
        }
        if self.watched(at).procedure.is_none() {
            return Next::withheld(WithheldReason::NoProcedure);
        }
        if state.escalated.as_ref().is_some_and(|known| known.0 == outage.incident) {
            return Next::withheld(WithheldReason::Escalated);
        }
        let hard = || state.judged().filter(|probe| probe.is_hard());
        let (attempt, ended_at) = match state.recovery.as_deref() {
            None => (1, None),
            Some(other) if other.incident != outage.incident => match (other.started_at, other.finished) {
                (Some(_), None) => {
                    let by = Some(other.id.to_string());
                    return Next::Withheld(Hindrance { by, ..WithheldReason::OtherRecovery.into() });
                }
                (_, finished) => (1, Some(finished.map_or(other.triggered_at, |(_, at)| at))),
            },
            Some(last) => match last.finished {
                None | Some((RecoveryOutcome::DryRun, _)) => return Next::Nothing,
                Some((RecoveryOutcome::Cancelled, _)) => return Next::withheld(WithheldReason::Cancelled),
                Some((RecoveryOutcome::Interrupted, _)) => {
                    let words = "the recovery was interrupted: what it did is not known".into();
                    return Next::Escalate(WithheldReason::Interrupted, words);
                }
                Some((RecoveryOutcome::Failed, at)) => (last.attempt + 1, Some(at)),
                Some((RecoveryOutcome::Succeeded, ended_at)) => {
                    let relapsed = hard().filter_map(|probe| probe.streak()).any(|streak| {
                        let since = streak.run_since > ended_at || self.is_ahead(at, ended_at, now);
                        streak.run >= rules.rule.failures && since
                    });
                    if !relapsed {
                        return Next::Nothing;
                    }
                    (last.attempt + 1, Some(ended_at))
                }
            },
        };
        if state.is_stale(&rules.rule, now) {
            return Next::withheld(WithheldReason::Unobserved);
        }
        if !hard().any(|probe| probe.is_failing()) {
            return Next::withheld(WithheldReason::Answering);
        }
        if let Some(pause) = self.pauses.active(self.target(at), now) {
            return Next::Withheld(Hindrance::from(pause));
        }
        let fresh = Default::default();
        let budget = state.budget.as_deref().unwrap_or(&fresh);
        let wait = budget.wait(&rules.limits);
        let ended_at = ended_at.filter(|ended_at| !wait.is_zero() && !self.is_ahead(at, *ended_at, now));
        let not_before = ended_at.map(|ended_at| ended_at + wait);
        if !budget.allows(&rules.limits, not_before.map_or(now, |at| at.max(now))) {
            return Next::Escalate(WithheldReason::Budget, rules.most_recoveries());
        }
        match not_before {
            Some(due) if due > now => Next::Withheld(Hindrance { until: Some(due), ..WithheldReason::BackOff.into() }),
            _ => match self.stopped(at).filter(|_| self.trigger_mode(at) == TriggerMode::Auto) {
                Some(hindrance) => Next::Withheld(hindrance),
                None => Next::Trigger(attempt, not_before),
            },
        }
    }

    /// Notes when time alone may change something about an open incident.
    fn schedule_next(&mut self, at: u32, suppression: Option<&Suppression>, now: DateTime<Utc>) {
        let (watched, state) = (self.watched(at), &self.states[at as usize]);
        let (retry, stale) = match self.next_unless(at, suppression, now) {
            Next::Withheld(hindrance) => (hindrance.until, waits(hindrance.reason).then(|| state.last_seen_at())),
            _ => (None, None),
        };
        // From then on its news are too old to act upon.
        let stale = stale.flatten().and_then(|seen| seen.checked_add_signed(self.rules(at).rule.silent_after));
        // Dependants are told once this one is unobserved.
        let silent = state.heard_at.filter(|_| !watched.dependants.is_empty());
        let silent = silent.and_then(|seen| seen.checked_add_signed(self.rules(at).rule.silent_after));
        let window = self.windows.next_change(&watched.id, now);
        let pause = self.pauses.next_end(self.target(at), now);
        let due = [retry, stale, silent, window, pause].into_iter().flatten().filter(|due| *due > now).min();
        if let Some(due) = due {
            self.schedule(at, due);
        }
    }

    /// Notes when a verdict has lasted as long as the policy asks.
    fn schedule_held(&mut self, at: u32, now: DateTime<Utc>) {
        let (state, hold) = (&self.states[at as usize], self.rules(at).hold);
        let Some((verdict, since)) = state.turned else { return };
        let holds = match verdict {
            Verdict::Failed => true,
            Verdict::Clear => false,
            Verdict::Disputed => return,
        };
        if let Some(due) = hold.due(state.outage.is_some(), Signal { holds, since }).filter(|due| *due > now) {
            self.schedule(at, due);
        }
    }

    /// How loud a service's alert is: as its outage began, else as one would that began now.
    pub(super) fn severity(&self, at: u32) -> Severity {
        let outage = self.states[at as usize].outage.as_ref();
        outage.map_or(self.watched(at).severity, |outage| outage.severity)
    }

    pub(super) fn append(
        &mut self,
        at: u32,
        id: EventId,
        now: DateTime<Utc>,
        data: EventData,
        decided: &mut Vec<Event>,
    ) {
        let event = Event {
            id,
            source: self.source.clone(),
            subject: self.watched(at).id.clone(),
            occurred_at: now,
            plan: Some(self.plan.version().clone()),
            data,
        };
        self.fold_numbers(&event);
        decided.push(event);
    }

    pub(super) fn watched(&self, at: u32) -> &Watched {
        &self.watched[at as usize]
    }

    pub(super) fn rules(&self, at: u32) -> &Rules {
        &self.policies[self.watched(at).policy as usize]
    }
}

impl Rules {
    /// What the budget is, in words.
    pub(super) fn most_recoveries(&self) -> String {
        let (most, period) = (self.limits.intensity, humantime_text(self.limits.period));
        format!("{most} recoveries within {period} are the most that the policy {} allows", self.id)
    }
}

/// Whether the next attempt is made as soon as this ends, on what is then known.
fn waits(reason: WithheldReason) -> bool {
    use WithheldReason::{Answering, BackOff, BlastRadius, OtherRecovery, Paused};
    matches!(reason, Answering | BackOff | BlastRadius | OtherRecovery | Paused)
}

/// `10m`, `90s`: the largest unit that fits evenly.
pub(super) fn humantime_text(delta: TimeDelta) -> String {
    match delta.num_seconds() {
        s if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}
