//! How far the newest recovery of each incident is, so that a message can say what is being done about it.

use rebound_schemas::event::{RecoveryOutcome, RecoveryStage, Standing, TriggerMode};
use rebound_schemas::{Event, EventData, IncidentId, RecoveryId};

use super::recent::Recent;

/// Folds recoveries. Whatever order two attempts at an incident are folded in, the later attempt is what is known.
#[derive(Debug, Default)]
pub(super) struct Standings {
    by_incident: Recent<IncidentId, Standing>,
    incident_of: Recent<RecoveryId, IncidentId>,
}

impl Standings {
    pub(super) fn fold(&mut self, event: &Event) {
        match &event.data {
            EventData::RecoveryTriggered(data) => {
                if self.by_incident.get(&data.incident).is_some_and(|known| known.attempt >= data.attempt) {
                    return;
                }
                let stage = match data.mode {
                    TriggerMode::Approve => RecoveryStage::Waiting,
                    TriggerMode::Auto | TriggerMode::Off => RecoveryStage::Triggered,
                    // It does nothing about the incident.
                    TriggerMode::DryRun => return,
                };
                let standing = Standing {
                    incident: data.incident.clone(),
                    recovery: data.recovery.clone(),
                    procedure: data.procedure.clone(),
                    attempt: data.attempt,
                    stage,
                    not_before: data.not_before,
                };
                self.incident_of.insert(data.recovery.clone(), data.incident.clone());
                self.by_incident.insert(data.incident.clone(), standing);
            }
            // With a step it is that step's approval: the recovery runs already.
            EventData::RecoveryApproved(data) if data.step.is_none() => {
                self.advance(&data.recovery, RecoveryStage::Triggered);
            }
            EventData::RecoveryStarted(data) => self.advance(&data.recovery, RecoveryStage::Running),
            EventData::RecoveryRejected(data) => self.advance(&data.recovery, RecoveryStage::Cancelled),
            EventData::RecoveryCancelled(data) => self.advance(&data.recovery, RecoveryStage::Cancelled),
            EventData::RecoveryFinished(data) => {
                let stage = match data.outcome {
                    RecoveryOutcome::Succeeded => RecoveryStage::Succeeded,
                    RecoveryOutcome::Failed => RecoveryStage::Failed,
                    RecoveryOutcome::Interrupted => RecoveryStage::Interrupted,
                    RecoveryOutcome::Cancelled => RecoveryStage::Cancelled,
                    RecoveryOutcome::DryRun => return,
                };
                self.advance(&data.recovery, stage);
            }
            _ => {}
        }
    }

    /// `Waiting`, `Triggered`, `Running`, ended: it only ever goes on, however often an event is folded. One that
    /// was called off while it ran goes on running.
    fn advance(&mut self, recovery: &RecoveryId, stage: RecoveryStage) {
        let Some(incident) = self.incident_of.get(recovery) else { return };
        let Some(known) = self.by_incident.get(incident).filter(|known| known.recovery == *recovery) else { return };
        let runs = known.stage == RecoveryStage::Running && stage == RecoveryStage::Cancelled;
        if stage > known.stage && !runs {
            let standing = Standing { stage, ..known.clone() };
            self.by_incident.insert(incident.clone(), standing);
        }
    }

    pub(super) fn incident_of(&self, recovery: &RecoveryId) -> Option<&IncidentId> {
        self.incident_of.get(recovery)
    }

    pub(super) fn of(&self, incident: &IncidentId) -> Option<&Standing> {
        self.by_incident.get(incident)
    }
}
