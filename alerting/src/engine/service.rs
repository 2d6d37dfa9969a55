//! One service's state and how events change it. Two halves that never look at each other: what probes said, and
//! what was decided. Folding an event again changes nothing.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{
    AlertRaised, AlertResolved, AlertSuppressed, EventRef, IncidentOpened, ProbeCompleted, RecoveryFinished,
    RecoveryOutcome, RecoveryTriggered, Severity, SuppressionCause, TriggerMode,
};
use rebound_schemas::{AlertId, Event, EventData, IncidentId, PolicyId, ProbeId, RecoveryId, ServiceId};

use super::request::Requests;
use super::withheld::Said;
use super::{Rules, Watched};
use crate::budget::{Budget, Limits};
use crate::condition::Watch;
use crate::threshold::{Failure, ProbeState, Rule, Verdict, verdict};

/// Incidents from outside that are tracked at once, for one service; the oldest gives way.
const MAX_EXTERNAL: usize = 16;

/// What is known of a service. Boxed parts exist only once something happened.
#[derive(Debug, Default)]
pub(super) struct ServiceState {
    pub(super) owned: bool,
    pub(super) probes: Vec<(ProbeId, ProbeState)>,
    /// Beside the conditions of its policy, one each.
    pub(super) watches: Box<[Watch]>,
    /// The verdict and since when it is that; kept only where the policy has durations.
    pub(super) turned: Option<(Verdict, DateTime<Utc>)>,
    /// The incident that a policy opened, until it and its alert are resolved.
    pub(super) outage: Option<Box<Outage>>,
    /// The last one that was.
    pub(super) closed: Option<Box<Closed>>,
    /// The newest recovery.
    pub(super) recovery: Option<Box<Recovery>>,
    /// The newest incident that was handed to people, when, and by which event.
    pub(super) escalated: Option<Box<(IncidentId, DateTime<Utc>, EventRef)>>,
    /// What was said last to stand in a recovery's way.
    pub(super) said: Option<Box<Said>>,
    pub(super) budget: Option<Box<Budget>>,
    /// Recoveries that people asked for.
    pub(super) requests: Option<Box<Requests>>,
    /// Incidents that people or other systems reported.
    pub(super) external: Option<Box<External>>,
    /// When an observation last came: by this instance's clock, or by the prober's where it was folded as history.
    pub(super) heard_at: Option<DateTime<Utc>>,
    pub(super) scheduled: Option<DateTime<Utc>>,
}

/// An open incident and its alert.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) incident: IncidentId,
    pub(super) alert: AlertId,
    /// The event that opened it.
    pub(super) opened: EventRef,
    pub(super) policy: PolicyId,
    pub(super) severity: Severity,
    pub(super) first_failure_at: DateTime<Utc>,
    pub(super) reason: Box<str>,
    pub(super) acknowledged: bool,
    /// `alert.raised` was decided: somebody is told.
    pub(super) told: bool,
    /// A bit a cause that `alert.suppressed` was decided for.
    pub(super) suppressed: u8,
    pub(super) alert_resolved: bool,
    /// t3 and t4, once the incident is resolved.
    pub(super) resolved: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Folded without the observations that it rests on: probes are HARD until they prove healthy.
    inherited: bool,
}

/// Incidents from outside. A bounded number of resolved ones is remembered, since reports are posted again.
#[derive(Debug, Default)]
pub(super) struct External {
    pub(super) open: Vec<IncidentId>,
    resolved: Vec<IncidentId>,
}

/// A resolved incident.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) incident: IncidentId,
    pub(super) opened: EventRef,
    pub(super) recovered_at: DateTime<Utc>,
    pub(super) at: DateTime<Utc>,
}

/// A recovery.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) id: RecoveryId,
    pub(super) incident: IncidentId,
    pub(super) attempt: u32,
    pub(super) triggered_at: DateTime<Utc>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) finished: Option<(RecoveryOutcome, DateTime<Utc>)>,
    /// The newest event of it: that it was triggered, started or finished.
    pub(super) newest: EventRef,
}

pub(super) fn cause_bit(cause: SuppressionCause) -> u8 {
    match cause {
        SuppressionCause::Dependency => 1,
        SuppressionCause::Silence => 2,
        SuppressionCause::Maintenance => 4,
        SuppressionCause::Flapping => 8,
    }
}

fn push_bounded(incidents: &mut Vec<IncidentId>, incident: IncidentId) {
    if incidents.len() == MAX_EXTERNAL {
        incidents.remove(0);
    }
    incidents.push(incident);
}

impl ServiceState {
    /// Folds one event of this service; `false` if it changed nothing that could matter.
    pub(super) fn fold(&mut self, rules: &Rules, watched: &Watched, event: &Event) -> bool {
        let limits = &rules.limits;
        match &event.data {
            EventData::ProbeCompleted(data) => self.owned && self.observe(rules, watched, event, data),
            EventData::ServiceLevelMeasured(_)
            | EventData::ResourceMeasured(_)
            | EventData::ReplicationMeasured(_)
            | EventData::BackupFinished(_)
            | EventData::BackupVerified(_)
            | EventData::CertificateObserved(_) => self.owned && self.measure(rules, watched, event),
            EventData::IncidentOpened(data) => self.incident_opened(limits, event, data),
            EventData::IncidentAcknowledged(data) => match self.outage_of(&data.incident) {
                Some(outage) => !std::mem::replace(&mut outage.acknowledged, true),
                None => false,
            },
            EventData::IncidentResolved(data) => {
                let Some(outage) = self.outage_of(&data.incident) else {
                    return self.external_resolved(&data.incident);
                };
                if outage.resolved.is_none() {
                    outage.resolved = Some((data.recovered_at, event.occurred_at));
                }
                self.close();
                true
            }
            EventData::AlertRaised(AlertRaised { condition: Some(condition), alert, incident, .. }) => {
                let at = event.occurred_at;
                self.watch_of(rules, condition).is_some_and(|w| w.fold_open(alert, incident, at, None, cause_bit))
            }
            EventData::AlertSuppressed(AlertSuppressed {
                condition: Some(condition), alert, incident, cause, ..
            }) => {
                let (at, cause) = (event.occurred_at, Some(*cause));
                self.watch_of(rules, condition).is_some_and(|w| w.fold_open(alert, incident, at, cause, cause_bit))
            }
            EventData::AlertResolved(AlertResolved { condition: Some(condition), alert, .. }) => {
                let at = event.occurred_at;
                self.watch_of(rules, condition).is_some_and(|watch| watch.fold_resolved(alert, at))
            }
            EventData::AlertRaised(data) => self.mark(&data.alert, |outage| outage.told = true),
            EventData::AlertSuppressed(data) => {
                self.mark(&data.alert, |outage| outage.suppressed |= cause_bit(data.cause))
            }
            EventData::AlertResolved(data) => {
                let known = self.mark(&data.alert, |outage| outage.alert_resolved = true);
                self.close();
                known
            }
            EventData::RecoveryRequested(data) => self.requests.get_or_insert_default().ask(event, data),
            EventData::RecoveryDeclined(data) => {
                self.requests.get_or_insert_default().answer(&data.request);
                false
            }
            EventData::RecoveryWithheld(data) => self.withheld(event, data),
            EventData::RecoveryTriggered(data) => self.recovery_triggered(limits, event, data),
            EventData::RecoveryStarted(data) => match self.recovery_of(&data.recovery) {
                Some(recovery) => {
                    if recovery.finished.is_none() {
                        recovery.newest = EventRef::from(event);
                    }
                    recovery.started_at.replace(event.occurred_at).is_none()
                }
                None => false,
            },
            EventData::RecoveryFinished(data) => self.recovery_finished(event, data),
            EventData::RecoveryEscalated(data) => {
                let newer = self.escalated.as_ref().is_none_or(|known| known.1 < event.occurred_at);
                if newer {
                    let known = (data.incident.clone(), event.occurred_at, EventRef::from(event));
                    self.escalated = Some(Box::new(known));
                }
                newer
            }
            _ => false,
        }
    }

    fn watch_of(&mut self, rules: &Rules, condition: &str) -> Option<&mut Watch> {
        let at = rules.judges.iter().position(|judge| judge.condition.id == *condition)?;
        self.watches.get_mut(at)
    }

    /// Takes something that was measured, or a backup. It is a sign of life only of a service without probes.
    fn measure(&mut self, rules: &Rules, watched: &Watched, event: &Event) -> bool {
        let counted = self.judge(rules, watched, event);
        if counted {
            self.find_cause(&event.subject);
        }
        if counted && !watched.probed {
            self.heard_at = self.heard_at.max(Some(event.occurred_at));
        }
        counted
    }

    fn judge(&mut self, rules: &Rules, watched: &Watched, event: &Event) -> bool {
        let inherited = self.outage.as_ref().is_some_and(|outage| outage.inherited);
        let mut counted = false;
        for (watch, judge) in self.watches.iter_mut().zip(&rules.judges) {
            counted |= watch.observe(judge, &watched.objectives, event, inherited);
        }
        if !rules.hold.is_none() {
            let verdict = self.verdict(&rules.rule);
            if self.turned.is_none_or(|(known, _)| known != verdict) {
                self.turned = Some((verdict, event.occurred_at));
            }
        }
        counted
    }

    fn observe(&mut self, rules: &Rules, watched: &Watched, event: &Event, data: &ProbeCompleted) -> bool {
        let inherited = self.outage.as_ref().is_some_and(|outage| outage.inherited);
        let at = match self.probes.iter().position(|(probe, _)| *probe == data.probe) {
            Some(at) => at,
            None => {
                let probe = if inherited { ProbeState::inherited() } else { ProbeState::default() };
                self.probes.reserve_exact(1);
                self.probes.push((data.probe.clone(), probe));
                self.probes.len() - 1
            }
        };
        let counted = self.probes[at].1.observe(&rules.rule, event, data);
        if counted {
            self.heard_at = Some(event.occurred_at);
            if !self.watches.is_empty() || !rules.hold.is_none() {
                self.judge(rules, watched, event);
            }
            self.find_cause(&event.subject);
        }
        counted
    }

    /// Once the failure that an inherited incident began with is seen again, nothing else need be doubted.
    fn find_cause(&mut self, service: &ServiceId) {
        let Some(outage) = self.outage.as_ref().filter(|outage| outage.inherited) else { return };
        let is_cause =
            |first: &Failure| IncidentId::derive(service, &first.event.source, &first.event.id) == outage.incident;
        if self.judged().filter_map(ProbeState::proof).any(is_cause) {
            self.probes.iter_mut().for_each(|(_, probe)| probe.trust());
            self.watches.iter_mut().for_each(Watch::trust);
            self.outage.iter_mut().for_each(|outage| outage.inherited = false);
        }
    }

    /// An incident with a policy is one that the rules opened; one without came from outside. One that was opened
    /// no later than the last one was closed is a redelivered old one.
    fn incident_opened(&mut self, limits: &Limits, event: &Event, data: &IncidentOpened) -> bool {
        let Some(policy) = &data.policy else {
            let external = self.external.get_or_insert_default();
            let known = external.open.contains(&data.incident) || external.resolved.contains(&data.incident);
            if !known {
                push_bounded(&mut external.open, data.incident.clone());
            }
            return !known;
        };
        let old = self.closed.as_ref().is_some_and(|c| c.incident == data.incident || data.detected_at <= c.at);
        if old || self.outage.is_some() {
            return false;
        }
        if let Some(closed) = &self.closed {
            let budget = self.budget.get_or_insert_default();
            budget.healthy(limits, closed.recovered_at, data.first_failure_at);
        }
        let inherited = self.verdict_of_any() == Verdict::Clear;
        if inherited {
            self.probes.iter_mut().for_each(|(_, probe)| probe.inherit());
        }
        self.outage = Some(Box::new(Outage {
            incident: data.incident.clone(),
            alert: AlertId::derive(policy, &data.incident),
            opened: EventRef::from(event),
            policy: policy.clone(),
            severity: data.severity,
            first_failure_at: data.first_failure_at,
            reason: data.reason.as_str().into(),
            acknowledged: false,
            told: false,
            suppressed: 0,
            alert_resolved: false,
            resolved: None,
            inherited,
        }));
        true
    }

    fn external_resolved(&mut self, incident: &IncidentId) -> bool {
        let Some(external) = &mut self.external else { return false };
        let Some(at) = external.open.iter().position(|open| open == incident) else { return false };
        let incident = external.open.remove(at);
        push_bounded(&mut external.resolved, incident);
        true
    }

    /// Lets go of an incident once both it and its alert are resolved.
    fn close(&mut self) {
        let Some(outage) = self.outage.take_if(|outage| outage.alert_resolved && outage.resolved.is_some()) else {
            return;
        };
        if let Some((recovered_at, at)) = outage.resolved {
            let (incident, opened) = (outage.incident, outage.opened);
            self.closed = Some(Box::new(Closed { incident, opened, recovered_at, at }));
        }
    }

    /// A recovery of another incident replaces the known one if it is newer; of the same, if its attempt is. A dry
    /// run costs nothing, and one that a person asked for is not even automation's.
    fn recovery_triggered(&mut self, limits: &Limits, event: &Event, data: &RecoveryTriggered) -> bool {
        let at = event.occurred_at;
        if let Some(asked) = &data.asked {
            self.requests.get_or_insert_default().answer(&asked.request);
        }
        match (data.mode == TriggerMode::DryRun, &data.asked) {
            (true, Some(_)) => return false,
            (true, None) => {}
            (false, _) => self.budget.get_or_insert_default().triggered(limits, at),
        }
        let newer = self.recovery.as_ref().is_none_or(|known| match known.incident == data.incident {
            true => data.attempt > known.attempt,
            false => at > known.triggered_at,
        });
        if newer {
            self.recovery = Some(Box::new(Recovery {
                id: data.recovery.clone(),
                incident: data.incident.clone(),
                attempt: data.attempt,
                triggered_at: at,
                started_at: None,
                finished: None,
                newest: EventRef::from(event),
            }));
        }
        newer
    }

    fn recovery_finished(&mut self, event: &Event, data: &RecoveryFinished) -> bool {
        match self.recovery_of(&data.recovery) {
            Some(recovery) if recovery.finished.is_none() => {
                recovery.finished = Some((data.outcome, event.occurred_at));
                recovery.newest = EventRef::from(event);
                true
            }
            _ => false,
        }
    }

    pub(super) fn forget_observations(&mut self) {
        self.probes = Vec::new();
        self.watches.iter_mut().for_each(Watch::forget);
        self.turned = None;
        self.heard_at = None;
        if let Some(outage) = &mut self.outage {
            outage.inherited = true;
        }
    }

    /// The open incident, if what it rests on was not seen yet.
    pub(super) fn inherited(&self) -> Option<&IncidentId> {
        self.outage.as_deref().filter(|outage| outage.inherited).map(|outage| &outage.incident)
    }

    /// Says of which open incident it is not seen yet what it rests on: of no other than this.
    pub(super) fn inherit(&mut self, inherited: Option<&IncidentId>) {
        if let Some(outage) = &mut self.outage {
            outage.inherited = inherited == Some(&outage.incident);
        }
    }

    fn mark(&mut self, alert: &AlertId, set: impl FnOnce(&mut Outage)) -> bool {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.alert == *alert) else { return false };
        set(outage);
        true
    }

    fn outage_of(&mut self, incident: &IncidentId) -> Option<&mut Outage> {
        self.outage.as_deref_mut().filter(|outage| outage.incident == *incident)
    }

    fn recovery_of(&mut self, id: &RecoveryId) -> Option<&mut Recovery> {
        self.recovery.as_deref_mut().filter(|recovery| recovery.id == *id)
    }

    /// The incident that a policy opened, until it is resolved.
    pub(super) fn open_outage(&self) -> Option<&Outage> {
        self.outage.as_deref().filter(|outage| outage.resolved.is_none())
    }

    pub(super) fn open_incidents(&self) -> impl Iterator<Item = &IncidentId> {
        let outage = self.open_outage().map(|outage| &outage.incident);
        outage.into_iter().chain(self.external.iter().flat_map(|external| &external.open))
    }

    /// The newest recovery, if it is one of this incident.
    pub(super) fn recovery_from(&self, incident: &IncidentId) -> Option<&Recovery> {
        self.recovery.as_deref().filter(|recovery| recovery.incident == *incident)
    }

    /// The newest recovery of an incident, and how many attempts there were.
    pub(super) fn tried(&self, incident: &IncidentId) -> (Option<RecoveryId>, u32) {
        self.recovery_from(incident).map_or((None, 0), |last| (Some(last.id.clone()), last.attempt))
    }

    pub(super) fn verdict(&self, rule: &Rule) -> Verdict {
        match self.watches.iter().flat_map(Watch::judges).any(ProbeState::is_hard) {
            true => Verdict::Failed,
            false => verdict(rule, self.probes.iter().map(|(_, probe)| probe)),
        }
    }

    /// Everything that fails the service: probes, and what conditions see.
    pub(super) fn judged(&self) -> impl Iterator<Item = &ProbeState> {
        self.probes.iter().map(|(_, probe)| probe).chain(self.watches.iter().flat_map(Watch::judges))
    }

    fn verdict_of_any(&self) -> Verdict {
        if self.judged().any(ProbeState::is_hard) { Verdict::Failed } else { Verdict::Clear }
    }

    pub(super) fn last_seen_at(&self) -> Option<DateTime<Utc>> {
        self.judged().filter_map(ProbeState::last_seen_at).max()
    }

    /// Whether nothing came for `silent_after`. What comes late is still heard: a backlog is not silence.
    pub(super) fn is_unobserved(&self, rule: &Rule, now: DateTime<Utc>) -> bool {
        self.heard_at.is_none_or(|at| now - at >= rule.silent_after)
    }

    /// Whether the newest observation is too old to act upon, however lately it came.
    pub(super) fn is_stale(&self, rule: &Rule, now: DateTime<Utc>) -> bool {
        self.last_seen_at().is_none_or(|at| now - at >= rule.silent_after)
    }

    /// The condition that failed the service, if what failed first was no probe.
    pub(super) fn lead_condition(&self) -> Option<usize> {
        let lead = self.lead()?;
        self.watches.iter().position(|watch| watch.judges().any(|state| std::ptr::eq(state, lead)))
    }

    /// The HARD probe, or what a condition sees, that failed first.
    pub(super) fn lead(&self) -> Option<&ProbeState> {
        let first = |probe: &&ProbeState| {
            let front = probe.streak().and_then(|streak| streak.evidence.front());
            front.map(|first| (first.at, first.event.source.clone(), first.event.id.clone()))
        };
        let hard = self.judged().filter(|probe| probe.is_hard());
        hard.filter(|probe| first(probe).is_some()).min_by_key(first)
    }

    pub(super) fn is_flapping(&self) -> bool {
        self.probes.iter().any(|(_, probe)| probe.is_flapping())
    }

    /// The newest failure that is known of.
    pub(super) fn last_failure_at(&self) -> Option<DateTime<Utc>> {
        let seen = self.judged().filter_map(|probe| Some(probe.streak()?.last_at));
        seen.chain(self.outage.as_ref().map(|outage| outage.first_failure_at)).max()
    }
}
