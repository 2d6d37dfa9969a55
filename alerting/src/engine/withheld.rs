//! What stands in the way of a recovery: said once whenever it changes, so that "why was nothing done?" has an answer
//! in the log. Nothing here decides whether a recovery is triggered; see [`Engine::next`](super::Engine).

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::codec::format_time;
use rebound_schemas::event::{EventRef, RecoveryWithheld, SuppressionCause, WithheldReason};
use rebound_schemas::{Event, EventId, IncidentId, RecoveryId};

use super::decide::humantime_text;
use super::service::{Outage, ServiceState};
use super::{Engine, SOURCE};
use crate::flapping;
use crate::hindrance::{Hindrance, MAX_CHANGES};
use crate::suppress::Suppression;
use crate::threshold::{MAX_EVIDENCE, ProbeState, Streak};

/// What was said last of a service's recoveries.
#[derive(Debug)]
pub(super) struct Said {
    incident: IncidentId,
    attempt: u32,
    change: u32,
    reason: WithheldReason,
    by: Option<Box<str>>,
    at: DateTime<Utc>,
}

impl ServiceState {
    /// Takes what was said. Of one incident the later change counts, of two incidents the later event.
    pub(super) fn withheld(&mut self, event: &Event, data: &RecoveryWithheld) -> bool {
        // What has been triggered and waits is the recoveries' own matter.
        if event.source.as_str() != SOURCE {
            return false;
        }
        let newer = self.said.as_ref().is_none_or(|said| match said.incident == data.incident {
            true => (data.attempt, data.change) > (said.attempt, said.change),
            false => event.occurred_at > said.at,
        });
        if newer {
            self.said = Some(Box::new(Said {
                incident: data.incident.clone(),
                attempt: data.attempt,
                change: data.change,
                reason: data.reason,
                by: data.by.as_deref().map(Into::into),
                at: event.occurred_at,
            }));
        }
        newer
    }

    /// Which attempt at an incident would be next; `None` while one is under way.
    fn next_attempt(&self, incident: &IncidentId) -> Option<u32> {
        match self.recovery_from(incident) {
            None => Some(1),
            Some(last) => last.finished.map(|_| last.attempt + 1),
        }
    }
}

impl Engine {
    /// A suppression as what stands in the way.
    pub(super) fn hindrance(&self, at: u32, suppression: &Suppression, now: DateTime<Utc>) -> Hindrance {
        let reason = match suppression.cause {
            SuppressionCause::Maintenance => WithheldReason::Maintenance,
            SuppressionCause::Silence => WithheldReason::Silence,
            SuppressionCause::Dependency => WithheldReason::Dependency,
            SuppressionCause::Flapping => WithheldReason::Flapping,
        };
        let window = matches!(reason, WithheldReason::Maintenance | WithheldReason::Silence);
        let window = window.then(|| self.windows.active(&self.watched(at).id, self.severity(at), now)).flatten();
        let by = Some(suppression.by.clone()).filter(|_| reason != WithheldReason::Flapping);
        Hindrance { by, until: window.map(|window| window.until), ..reason.into() }
    }

    /// Says what stands in the way of the next attempt at an incident.
    ///
    /// | said before of this attempt | says |
    /// |---|---|
    /// | nothing | it, as change 1 |
    /// | the same reason, by the same | nothing |
    /// | that automation ends here, and now: that it has ended | nothing |
    /// | another, fewer than [`MAX_CHANGES`] times | it, as the next change |
    /// | another, [`MAX_CHANGES`] times | nothing |
    pub(super) fn withhold(
        &mut self,
        at: u32,
        incident: IncidentId,
        hindrance: Hindrance,
        now: DateTime<Utc>,
        decided: &mut Vec<Event>,
    ) {
        use WithheldReason::{Budget, Escalated, Interrupted};
        let state = &self.states[at as usize];
        let Some(attempt) = state.next_attempt(&incident) else { return };
        let said = state.said.as_deref();
        let of_this = said.filter(|said| said.incident == incident && said.attempt == attempt);
        if let Some(said) = of_this {
            let same = said.reason == hindrance.reason && said.by.as_deref() == hindrance.by.as_deref();
            let ended = hindrance.reason == Escalated && matches!(said.reason, Budget | Interrupted);
            if same || ended || said.change >= MAX_CHANGES {
                return;
            }
        }
        let change = of_this.map_or(1, |said| said.change + 1);
        // Of another incident never before what was said of the last, even if the clock was set back.
        let when = said.map_or(now, |said| now.max(said.at + TimeDelta::microseconds(1)));
        let recovery = RecoveryId::derive(&self.watched(at).id, &incident, attempt);
        let id = EventId::derive(recovery.as_str(), &format!("withheld-{change}"));
        let evidence = self.evidence(at, &hindrance);
        let detail = hindrance.detail.clone().or_else(|| self.figures(at, &hindrance, now));
        let Hindrance { reason, by, until, .. } = hindrance;
        let data = RecoveryWithheld { recovery, incident, attempt, change, reason, by, until, detail, evidence };
        self.append(at, id, when, data.into(), decided);
    }

    /// The figures behind a hindrance, in words.
    fn figures(&self, at: u32, hindrance: &Hindrance, now: DateTime<Utc>) -> Option<String> {
        let (rules, state) = (self.rules(at), &self.states[at as usize]);
        match hindrance.reason {
            WithheldReason::Policy => Some(format!("the policy {} triggers no recovery", rules.id)),
            WithheldReason::NoProcedure => Some("the plan gives the service no procedure".into()),
            WithheldReason::Hold => {
                let (_, since) = state.turned?;
                let hold = humantime_text(rules.hold.hold);
                Some(format!("it fails since {} and must for {hold}", format_time(since)))
            }
            WithheldReason::Dependency => {
                let group = self.groups.iter().find(|group| Some(&*group.id) == hindrance.by.as_deref());
                let group = group.filter(|_| !self.index.contains_key(hindrance.by.as_deref().unwrap_or_default()))?;
                let lost = group.members.iter().filter(|member| self.has_failed(**member, now)).count();
                let (left, members) = (group.members.len() - lost, group.members.len());
                Some(format!("{left} of the group's {members} services stand, and {} must", group.least))
            }
            WithheldReason::Flapping => {
                let share = state.probes.iter().map(|(_, probe)| probe.flapping_share()).fold(0.0, f64::max);
                let [share, start, stop] = [share, flapping::START, flapping::STOP].map(|share| share * 100.0);
                Some(format!("{share:.1} % of its last states changed: flapping from {start} % on until {stop} %"))
            }
            WithheldReason::Unobserved => {
                let within = humantime_text(rules.rule.silent_after);
                Some(match state.last_seen_at() {
                    Some(seen) => format!(
                        "it was last seen at {}, and nothing older than {within} is acted upon",
                        format_time(seen)
                    ),
                    None => format!("nothing was seen of it for {within}"),
                })
            }
            WithheldReason::Answering => {
                let successes = state.judged().filter(|p| p.is_hard()).map(ProbeState::successes).max().unwrap_or(0);
                Some(format!("{successes} of the {} successes in a row that resolve it", rules.rule.recoveries))
            }
            WithheldReason::BackOff => {
                let (budget, limits) = (state.budget.as_deref()?, &rules.limits);
                let [wait, first, most] = [budget.wait(limits), limits.backoff, limits.backoff_max].map(humantime_text);
                let recent = budget.recent();
                Some(format!("{wait} after the last of {recent} recoveries: {first} doubled each time, at most {most}"))
            }
            _ => None,
        }
    }

    /// The events behind a hindrance.
    fn evidence(&self, at: u32, hindrance: &Hindrance) -> Vec<EventRef> {
        let state = &self.states[at as usize];
        let streak = state.lead().and_then(ProbeState::streak);
        let newest_recovery = state.recovery.as_ref().map(|recovery| recovery.newest.clone());
        let opened = |of: &ServiceState| {
            let open = of.outage.as_deref().map(|outage: &Outage| outage.opened.clone());
            open.or_else(|| of.closed.as_ref().map(|closed| closed.opened.clone()))
        };
        match hindrance.reason {
            WithheldReason::Policy | WithheldReason::NoProcedure => opened(state).into_iter().collect(),
            WithheldReason::Hold => streak.map_or_else(Vec::new, Streak::events),
            WithheldReason::Flapping | WithheldReason::Unobserved => {
                let last = streak.and_then(|streak| streak.evidence.back());
                last.map(|failure| failure.event.clone()).into_iter().collect()
            }
            WithheldReason::Maintenance | WithheldReason::Silence => {
                let by = hindrance.by.as_deref().unwrap_or_default();
                self.windows.said(&self.watched(at).id, by).into_iter().collect()
            }
            WithheldReason::Dependency => {
                let by = hindrance.by.as_deref().unwrap_or_default();
                match self.index.get(by) {
                    Some(dependency) => opened(&self.states[*dependency as usize]).into_iter().collect(),
                    None => {
                        let members = self.groups.iter().filter(|group| *group.id == *by).flat_map(|g| &g.members);
                        members.filter_map(|m| opened(&self.states[*m as usize])).take(MAX_EVIDENCE).collect()
                    }
                }
            }
            WithheldReason::Paused => hindrance.evidence.iter().cloned().collect(),
            WithheldReason::BlastRadius => self.shown_by(hindrance.by.as_deref().unwrap_or_default()),
            WithheldReason::Budget | WithheldReason::Escalated => {
                let escalated = state.escalated.as_ref().map(|known| known.2.clone());
                escalated.into_iter().chain(newest_recovery).collect()
            }
            _ => newest_recovery.into_iter().collect(),
        }
    }
}
