//! What keeps a triggered recovery from beginning, said once whenever it changes.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{EventRef, RecoveryTriggered, RecoveryWithheld, Restraint, TriggerMode, WithheldReason};
use rebound_schemas::{Event, RecoveryId, ServiceId};

use super::load::{Full, Load};
use super::{Entry, Phase, Queue, Topology};
use crate::hindrance::{Hindrance, MAX_CHANGES};
use crate::runner::{SOURCE, recovery_event};

/// What was said last of a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    change: u32,
    reason: WithheldReason,
    by: Option<String>,
}

impl Queue {
    /// Takes what this or an earlier owner said of a recovery that waits.
    pub(super) fn said(&mut self, event: &Event, data: &RecoveryWithheld) {
        if event.source.as_str() != SOURCE {
            return;
        }
        let Some(entry) = self.entries.get_mut(&data.recovery) else { return };
        if entry.said.as_ref().is_none_or(|said| data.change > said.change) {
            entry.said = Some(Said { change: data.change, reason: data.reason, by: data.by.clone() });
        }
    }

    /// The first thing that keeps a pending recovery from beginning, in the order of [`Queue::decide`]'s table.
    pub(super) fn in_the_way<T: Topology + ?Sized>(
        &self,
        plan: &T,
        of: (&Entry, &RecoveryTriggered),
        ahead: Ahead<'_>,
        load: &Load<'_>,
        now: DateTime<Utc>,
    ) -> Option<Hindrance> {
        let (entry, trigger) = of;
        let free = |of| trigger.asked.as_ref().is_some_and(|asked| asked.overrides.contains(&of));
        if trigger.mode != TriggerMode::Auto && !entry.approved {
            return Some(WithheldReason::Approval.into());
        }
        if let Some(due) = trigger.not_before.filter(|due| *due > now) {
            return Some(Hindrance { until: Some(due), ..WithheldReason::BackOff.into() });
        }
        if let Some(pause) = self.pauses.active(entry.target(plan), now).filter(|_| !free(Restraint::Pause)) {
            return Some(pause.into());
        }
        if let Some(older) = ahead.older {
            return Some(Hindrance { by: Some(older.to_string()), ..WithheldReason::OtherRecovery.into() });
        }
        if let Some(dependency) = ahead.dependency.filter(|_| !free(Restraint::Dependencies)) {
            return Some(Hindrance { by: Some(dependency.to_string()), ..WithheldReason::DependencyRecovery.into() });
        }
        // A person who approved it, or asked for it, has seen what is down.
        let alone = trigger.mode == TriggerMode::Auto && trigger.by.is_none() && !entry.approved;
        if let Some((by, words)) = load.stopped(&entry.service, plan).filter(|_| alone) {
            return Some(Hindrance { by: Some(by), detail: Some(words), ..WithheldReason::BlastRadius.into() });
        }
        if free(Restraint::Concurrency) {
            return None;
        }
        let Full { place, running, most, planned } = load.full(entry, plan, &self.limits)?;
        let detail = Some(format!("{running} of at most {most} recoveries run there"));
        let reason = if planned { WithheldReason::BlastRadius } else { WithheldReason::Concurrency };
        Some(Hindrance { by: Some(place), detail, ..reason.into() })
    }

    /// What keeps owned recoveries waiting, where that was not said yet: append these, then fold them. Ask after the
    /// commands of [`Queue::decide`] were acted upon.
    #[must_use]
    pub fn withheld<T: Topology + ?Sized>(
        &self,
        plan: &T,
        now: DateTime<Utc>,
        owned: impl Fn(&ServiceId) -> bool,
    ) -> Vec<Event> {
        let (_, waiting) = self.walk(plan, now, owned);
        let say = |(id, hindrance): (RecoveryId, Hindrance)| {
            let entry = self.entries.get(&id).filter(|entry| entry.phase == Phase::Pending)?;
            let (trigger, triggered) = entry.trigger.as_ref()?;
            let known = entry.said.as_ref();
            if known.is_some_and(|s| (s.reason == hindrance.reason && s.by == hindrance.by) || s.change >= MAX_CHANGES)
            {
                return None;
            }
            let change = known.map_or(1, |said| said.change + 1);
            let evidence = std::iter::once(EventRef::from(triggered.as_ref())).chain(hindrance.evidence).collect();
            let data = RecoveryWithheld {
                recovery: id.clone(),
                incident: entry.incident.clone(),
                attempt: trigger.attempt,
                change,
                reason: hindrance.reason,
                by: hindrance.by,
                until: hindrance.until,
                detail: hindrance.detail,
                evidence,
            };
            Some(recovery_event(&id, &entry.service, plan.version(), &format!("waits-{change}"), now, data.into()))
        };
        waiting.into_iter().filter_map(say).collect()
    }
}

/// Who comes before a recovery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// A recovery of the same service that runs, or waits and is older.
    pub(super) older: Option<&'a RecoveryId>,
    /// Something that the service needs, directly or indirectly, whose recovery waits or runs.
    pub(super) dependency: Option<&'a ServiceId>,
}
