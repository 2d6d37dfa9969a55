//! Procedures that lost the right to run by themselves: who says so, and whom it concerns.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{ProcedureDemoted, TriggerMode};
use rebound_schemas::{Event, EventData, EventId, ProcedureId};

use super::Engine;
use crate::demotion::Standing;

impl Engine {
    /// Takes what bears on a procedure's standing. What is down and would be brought back by it is then decided anew.
    pub(super) fn stand(&mut self, event: &Event) {
        let procedure = match &event.data {
            EventData::RecoveryFinished(data) => &data.procedure,
            EventData::ProcedureDemoted(data) => &data.procedure,
            EventData::ProcedurePromoted(data) => &data.procedure,
            _ => return,
        };
        let Some(known) = self.plan.procedures().get(procedure) else { return };
        let standing = self.standings.entry(procedure.clone()).or_default();
        let changed = match (&event.data, &known.demotion) {
            (EventData::RecoveryFinished(data), Some(rule)) => standing.finished(rule, event, data),
            (EventData::ProcedureDemoted(_), _) => standing.demoted(event.occurred_at),
            (EventData::ProcedurePromoted(_), _) => standing.promoted(event.occurred_at),
            _ => false,
        };
        if changed {
            self.unjudged.insert(procedure.clone());
            let by_it = |at: &u32| self.watched[*at as usize].procedure.as_ref() == Some(procedure);
            let down = |at: &u32| self.states[*at as usize].outage.is_some();
            self.again.extend((0..self.watched.len() as u32).filter(|at| down(at) && by_it(at)));
        }
    }

    /// Says which procedures are demoted: each is said by whoever decides for the service of its newest attempt.
    pub(super) fn demote(&mut self, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        for procedure in std::mem::take(&mut self.unjudged) {
            let Some(standing) = self.standings.get(&procedure).filter(|standing| !standing.is_demoted()) else {
                continue;
            };
            let plan = self.plan.clone();
            let Some(rule) = plan.procedures().get(&procedure).and_then(|known| known.demotion.as_ref()) else {
                continue;
            };
            let Some(judged) = standing.judge(rule) else { continue };
            let Some(at) = self.index.get(&judged.service).copied() else { continue };
            if !self.states[at as usize].owned {
                continue;
            }
            let id = EventId::derive(procedure.as_str(), &format!("demoted-{}", judged.newest));
            let data = ProcedureDemoted {
                procedure,
                succeeded: judged.succeeded,
                attempts: judged.attempts,
                below: rule.below,
                over: rule.over,
                failed: judged.failed,
                newest: judged.newest,
            };
            self.append(at, id, now, data.into(), decided);
        }
    }

    /// How a service's recoveries are triggered: as its policy says, but by a person where its procedure was demoted.
    pub(super) fn trigger_mode(&self, at: u32) -> TriggerMode {
        let procedure = self.watched(at).procedure.as_ref();
        let demoted = procedure.is_some_and(|procedure| self.needs_approval(procedure));
        match self.rules(at).trigger {
            TriggerMode::Auto if demoted => TriggerMode::Approve,
            other => other,
        }
    }

    /// Whether recoveries by a procedure wait for a person, though their policies say that they run by themselves.
    #[must_use]
    pub fn needs_approval(&self, procedure: &ProcedureId) -> bool {
        let rule = self.plan.procedures().get(procedure).and_then(|known| known.demotion.as_ref());
        self.standings.get(procedure).is_some_and(|standing: &Standing| standing.needs_approval(rule))
    }
}
