//! From the facts that were folded to what is read of them: incidents, alerts, recoveries and their steps.

use std::collections::BTreeMap;

use super::{
    About, Acknowledgement, Alert, AlertFacts, Correction, First, Incident, IncidentFacts, Record, Recovery,
    RecoveryFacts, Refusal, Stamp, StepFacts, StepRun,
};
use crate::event::{IncidentCorrected, RecoveryTriggered};
use crate::ids::{AlertId, IncidentId, RecoveryId, StepId};

impl Record {
    pub(super) fn read_incident(&self, id: &IncidentId, facts: &IncidentFacts) -> Option<Incident> {
        let (stamp, About { service, plan, data: opened }) = facts.opened.0.as_ref()?;
        let (resolved_at, resolved) = (facts.resolved.at(), facts.resolved.get());
        let original_recovered_at = resolved.map(|data| data.recovered_at);
        let mut recoveries: Vec<_> = facts.recoveries.iter().cloned().collect();
        let attempt = |id: &RecoveryId| self.recoveries.get(id).and_then(RecoveryFacts::attempt);
        recoveries.sort_by_key(|id| (attempt(id).unwrap_or(u32::MAX), id.clone()));
        let (human, automation) = self.acknowledgements(facts);
        let mut incident = Incident {
            id: id.clone(),
            service: service.clone(),
            plan: plan.clone(),
            severity: opened.severity,
            policy: opened.policy.clone(),
            error_class: opened.error_class,
            cause: opened.cause.clone(),
            reason: opened.reason.clone(),
            last_success_at: opened.last_success_at,
            first_failure_at: opened.first_failure_at,
            detected_at: opened.detected_at,
            // On a tie the person's counts: automation must not claim what somebody did.
            acknowledged: [&human, &automation].into_iter().flatten().min_by_key(|a| a.at).cloned(),
            acknowledged_by_human: human,
            acknowledged_by_automation: automation,
            recovered_at: original_recovered_at,
            resolved_at,
            recovered_by: resolved.and_then(|data| data.recovery.clone()),
            escalated_at: facts.escalated.at(),
            recoveries,
            alerts: facts.alerts.iter().cloned().collect(),
            correction: None,
            maintenance: None,
            opened_by: stamp.event(),
            resolved_by: facts.resolved.0.as_ref().map(|(stamp, _)| stamp.event()),
        };
        self.windows.restate(&mut incident);
        correct(&mut incident, &facts.corrections);
        Some(incident)
    }

    /// The first acknowledgement by a person and by automation. Beside what was said in so many words, a person
    /// acknowledges by asking for a recovery, approving or refusing one, and automation by starting one.
    fn acknowledgements(&self, facts: &IncidentFacts) -> (Option<Acknowledgement>, Option<Acknowledgement>) {
        let said = |first: &First<String>, automated| {
            first.0.as_ref().map(|(stamp, by)| Acknowledgement { at: stamp.at, by: by.clone(), automated })
        };
        let mut human = said(&facts.acknowledged_by_human, false);
        let mut automation = said(&facts.acknowledged_by_automation, true);
        let earlier = |held: &mut Option<Acknowledgement>, at, by: &str, automated| {
            if held.as_ref().is_none_or(|held| at < held.at) {
                *held = Some(Acknowledgement { at, by: by.to_owned(), automated });
            }
        };
        for recovery in facts.recoveries.iter().filter_map(|id| self.recoveries.get(id)) {
            if let Some((stamp, RecoveryTriggered { by: Some(by), .. })) = &recovery.triggered.0 {
                earlier(&mut human, stamp.at, by, false);
            }
            for (stamp, by) in [&recovery.approved.0, &recovery.step_approved.0].into_iter().flatten() {
                earlier(&mut human, stamp.at, by, false);
            }
            if let Some((stamp, Refusal { by: Some(by), .. })) = &recovery.refused.0 {
                earlier(&mut human, stamp.at, by, false);
            }
            if let Some((stamp, started)) = &recovery.started.0 {
                earlier(&mut automation, stamp.at, &started.runner, true);
            }
        }
        (human, automation)
    }
}

/// Applies corrections in the order they were made: of each restated figure, and of `exclude`, the last word counts.
/// Restating a recovery closes an incident that nothing else has resolved, at the time of the correction.
fn correct(incident: &mut Incident, corrections: &BTreeMap<Stamp, IncidentCorrected>) {
    let Some((last, newest)) = corrections.last_key_value() else { return };
    incident.correction = Some(Correction {
        at: last.at,
        by: newest.by.clone(),
        reason: newest.reason.clone(),
        excluded: newest.exclude,
        original_first_failure_at: incident
            .maintenance
            .as_ref()
            .map_or(incident.first_failure_at, |maintained| maintained.original_first_failure_at),
        original_recovered_at: incident.recovered_at,
        original_error_class: incident.error_class,
    });
    for (stamp, correction) in corrections {
        incident.first_failure_at = correction.first_failure_at.unwrap_or(incident.first_failure_at);
        incident.error_class = correction.error_class.unwrap_or(incident.error_class);
        if correction.cause.is_some() {
            incident.cause.clone_from(&correction.cause);
        }
        if correction.recovered_at.is_some() {
            incident.recovered_at = correction.recovered_at;
            incident.resolved_at.get_or_insert(stamp.at);
        }
    }
}

pub(super) fn read_alert(id: &AlertId, facts: &AlertFacts) -> Option<Alert> {
    let (stamp, About { service, data: raised, .. }) = facts.raised.0.as_ref()?;
    Some(Alert {
        id: id.clone(),
        incident: raised.incident.clone(),
        service: service.clone(),
        policy: raised.policy.clone(),
        condition: raised.condition.clone(),
        severity: raised.severity,
        failures: raised.failures,
        first_failure_at: raised.first_failure_at,
        raised_at: stamp.at,
        reason: raised.reason.clone(),
        suppressed: facts.suppressed.get().map(|data| (data.cause, data.by.clone())),
        recovered_at: facts.resolved.get().map(|data| data.recovered_at),
        resolved_at: facts.resolved.at(),
        notified_at: facts.notified.at(),
        notifications_sent: facts.notifications_sent,
        notifications_failed: facts.notifications_failed,
        raised_by: stamp.event(),
    })
}

impl RecoveryFacts {
    fn attempt(&self) -> Option<u32> {
        let finished = || self.finished.get().map(|data| data.attempt);
        self.triggered.get().map(|data| data.attempt).or_else(finished)
    }
}

pub(super) fn read_recovery(id: &RecoveryId, facts: &RecoveryFacts) -> Option<Recovery> {
    let About { service, plan, data: incident } = facts.about.get()?;
    let (triggered, started, finished) = (facts.triggered.get(), facts.started.get(), facts.finished.get());
    let procedure = triggered.map(|data| &data.procedure).or(started.map(|data| &data.procedure));
    Some(Recovery {
        id: id.clone(),
        incident: incident.clone(),
        service: service.clone(),
        plan: plan.clone(),
        attempt: facts.attempt(),
        procedure: procedure.or(finished.map(|data| &data.procedure)).cloned(),
        method: triggered.and_then(|data| data.method).or(finished.and_then(|data| data.method)),
        mode: triggered.map(|data| data.mode),
        first_failure_at: triggered.map(|data| data.first_failure_at),
        triggered_at: facts.triggered.at(),
        triggered_by: triggered.and_then(|data| data.by.clone()),
        approved_at: facts.approved.at(),
        approved_by: facts.approved.get().cloned(),
        refused: facts.refused.get().cloned(),
        started_at: facts.started.at(),
        runner: started.map(|data| data.runner.clone()),
        verified_at: facts.verified.at(),
        verified: facts.verified.get().map(|data| data.passed),
        finished_at: facts.finished.at(),
        outcome: finished.map(|data| data.outcome),
        error_class: finished.and_then(|data| data.error_class),
        reason: finished.and_then(|data| data.reason.clone()),
        escalated_at: facts.escalated.at(),
        steps: facts.steps.iter().map(read_step).collect(),
    })
}

fn read_step(((index, step, attempt), facts): (&(u32, StepId, u32), &StepFacts)) -> StepRun {
    let finished = facts.finished.get();
    StepRun {
        step: step.clone(),
        index: *index,
        attempt: *attempt,
        action: facts.started.get().map(|data| data.action.clone()),
        started_at: facts.started.at(),
        finished_at: facts.finished.at(),
        outcome: finished.map(|data| data.outcome),
        duration_ms: finished.map(|data| data.duration_ms),
        code: finished.and_then(|data| data.code),
        error: finished.and_then(|data| data.error.clone()),
    }
}
