//! A service's state as `/api/v1/services`, the status page and metrics show it.

use chrono::{DateTime, Utc};
use rebound_schemas::event::RecoveryOutcome;
use rebound_schemas::{AlertId, IncidentId, RecoveryId, ServiceId};

use super::Engine;
use crate::suppress::Suppression;
use crate::threshold::{Health, Verdict};

/// What is known of one service at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStatus {
    /// The service.
    pub service: ServiceId,
    /// Whether this instance observes it and decides for it; if not, `health` is HARD or unobserved.
    pub owned: bool,
    /// Its state.
    pub health: Health,
    /// Most failures that any of its probes counts.
    pub failures: u32,
    /// t0 of the open incident, or else the first failure that counts.
    pub first_failure_at: Option<DateTime<Utc>>,
    /// The newest success.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The newest observation.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Why it fails, in words.
    pub reason: Option<String>,
    /// The open incident that a policy opened.
    pub incident: Option<IncidentId>,
    /// Its alert.
    pub alert: Option<AlertId>,
    /// Whether somebody was told: the alert was raised, not only suppressed.
    pub told: bool,
    /// Whether somebody took it on.
    pub acknowledged: bool,
    /// What suppresses notifications and triggers now.
    pub suppression: Option<Suppression>,
    /// Whether it changes too often to be believed.
    pub flapping: bool,
    /// The newest recovery of the open incident.
    pub recovery: Option<RecoveryStatus>,
    /// Whether automation gave up on the open incident.
    pub escalated: bool,
    /// Open incidents reported from outside.
    pub external: Vec<IncidentId>,
}

/// The newest recovery of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// The recovery.
    pub id: RecoveryId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How far it is.
    pub state: RecoveryState,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryState {
    /// Decided on; no runner has claimed it yet.
    Triggered,
    /// A runner is at it.
    Started,
    /// It ended.
    Finished(RecoveryOutcome),
}

impl Engine {
    /// What is known of a service at `now`; `None` if it isn't in the plan.
    #[must_use]
    pub fn status(&self, service: &ServiceId, now: DateTime<Utc>) -> Option<ServiceStatus> {
        self.index.get(service).map(|at| self.status_of(*at, now))
    }

    /// The same for every service of the plan, in id order.
    pub fn statuses(&self, now: DateTime<Utc>) -> impl Iterator<Item = ServiceStatus> + '_ {
        (0..self.watched.len() as u32).map(move |at| self.status_of(at, now))
    }

    /// Whether nothing is told of a service now; for repeats of [`crate::notify::Notifier`].
    #[must_use]
    pub fn is_quiet(&self, service: &ServiceId, now: DateTime<Utc>) -> bool {
        self.index.get(service).is_some_and(|at| self.suppression(*at, now, self.severity(*at)).is_some())
    }

    fn status_of(&self, at: u32, now: DateTime<Utc>) -> ServiceStatus {
        let state = &self.states[at as usize];
        let outage = state.open_outage();
        let probes = || state.probes.iter().map(|(_, probe)| probe);
        let streak = state.lead().and_then(|probe| probe.streak());
        let streak =
            streak.or_else(|| probes().filter_map(|probe| probe.streak()).max_by_key(|streak| streak.failures));
        let first = streak.and_then(|streak| streak.evidence.front()).map(|first| first.at);
        let recovery = outage.and_then(|outage| state.recovery_from(&outage.incident));
        ServiceStatus {
            service: self.watched(at).id.clone(),
            owned: state.owned,
            health: self.health(at, now),
            failures: probes().filter_map(|probe| probe.streak()).map(|s| s.failures).max().unwrap_or(0),
            first_failure_at: outage.map(|outage| outage.first_failure_at).or(first),
            last_success_at: probes().filter_map(|probe| probe.last_success_at()).max(),
            last_seen_at: state.last_seen_at(),
            reason: streak.map(|s| s.reason.to_string()).or_else(|| outage.map(|outage| outage.reason.to_string())),
            incident: outage.map(|outage| outage.incident.clone()),
            alert: outage.map(|outage| outage.alert.clone()),
            told: outage.is_some_and(|outage| outage.told),
            acknowledged: outage.is_some_and(|outage| outage.acknowledged),
            suppression: self.suppression(at, now, self.severity(at)).filter(|_| outage.is_some()),
            flapping: state.is_flapping(),
            recovery: recovery.map(|recovery| RecoveryStatus {
                id: recovery.id.clone(),
                attempt: recovery.attempt,
                state: match (recovery.finished, recovery.started_at) {
                    (Some((outcome, _)), _) => RecoveryState::Finished(outcome),
                    (None, Some(_)) => RecoveryState::Started,
                    (None, None) => RecoveryState::Triggered,
                },
            }),
            escalated: outage
                .is_some_and(|outage| state.escalated.as_ref().is_some_and(|known| known.0 == outage.incident)),
            external: state.external.as_ref().map(|external| external.open.clone()).unwrap_or_default(),
        }
    }

    /// | observed lately | incident open or failed verdict | a failure counts | a probe degraded | health |
    /// |---|---|---|---|---|
    /// | no | | | | unobserved |
    /// | yes | yes | | | hard |
    /// | yes | no | yes | | soft |
    /// | yes | no | no | yes | degraded |
    /// | yes | no | no | no | ok |
    fn health(&self, at: u32, now: DateTime<Utc>) -> Health {
        let (state, rule) = (&self.states[at as usize], &self.rules(at).rule);
        let open = self.is_down(at);
        let probes = || state.probes.iter().map(|(_, probe)| probe);
        match () {
            () if !state.owned && open => Health::Hard,
            () if state.is_unobserved(rule, now) => Health::Unobserved,
            () if open || state.verdict(rule) == Verdict::Failed => Health::Hard,
            () if probes().any(|probe| probe.is_hard() || probe.streak().is_some()) => Health::Soft,
            () if probes().any(|probe| probe.is_degraded()) => Health::Degraded,
            () => Health::Ok,
        }
    }
}
