//! What the plan keeps quiet: redundancy groups that still stand, and maintenance windows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{MaintenanceScheduled, Severity, SuppressionCause};
use rebound_schemas::plan::{Maintenance, Plan};
use rebound_schemas::{Event, EventId, ServiceId};

use super::Engine;
use crate::suppress::Suppression;

/// Services that stand in for one another, by number.
#[derive(Debug)]
pub(super) struct Redundancy {
    pub(super) id: Box<str>,
    pub(super) members: Box<[u32]>,
    pub(super) least: usize,
}

/// The groups of a plan.
pub(super) fn groups(plan: &Plan, index: &HashMap<ServiceId, u32>) -> Vec<Redundancy> {
    let group = |group: &rebound_schemas::plan::Group| Redundancy {
        id: group.id.as_str().into(),
        members: group.services.iter().filter_map(|id| index.get(id).copied()).collect(),
        least: group.healthy_at_least as usize,
    };
    plan.groups().values().map(group).collect()
}

impl Engine {
    /// Whether a group has failed: fewer of its members than it needs are left, counting as lost those for which
    /// `lost` holds.
    pub(super) fn group_fails(&self, group: u32, lost: impl Fn(u32) -> bool) -> bool {
        let group = &self.groups[group as usize];
        group.members.iter().filter(|member| !lost(**member)).count() < group.least
    }

    /// How loud an outage is that begins now.
    ///
    /// | in a group | the groups stand without it | severity |
    /// |---|---|---|
    /// | no | | the policy's, else the tier's |
    /// | yes | every one | no louder than a warning |
    /// | yes | not every one | the policy's, else the tier's |
    pub(super) fn outage_severity(&self, at: u32, now: DateTime<Utc>) -> Severity {
        let watched = self.watched(at);
        let stands = |group: &u32| !self.group_fails(*group, |member| member == at || self.has_failed(member, now));
        match !watched.member_of.is_empty() && watched.member_of.iter().all(stands) {
            true => watched.severity.max(Severity::Warning),
            false => watched.severity,
        }
    }

    /// Brings the plan's windows up to `now`: those that began or will next.
    pub(super) fn roll(&mut self, now: DateTime<Utc>) {
        if self.planned_due.is_none_or(|due| now < due) {
            return;
        }
        let plan = self.plan.clone();
        self.planned_due = None;
        for maintenance in plan.maintenance().values() {
            let Some((from, until)) = maintenance.window_at(now) else { continue };
            self.planned_due = self.planned_due.into_iter().chain([until]).min();
            let services: Vec<ServiceId> = match maintenance.services.as_slice() {
                [] => plan.services().keys().cloned().collect(),
                some => some.to_vec(),
            };
            if self.windows.plan(&name(maintenance, from), from, until, &services) {
                for at in services.iter().filter_map(|id| self.index.get(id).copied()).collect::<Vec<_>>() {
                    self.wake(at);
                }
            }
        }
    }

    /// Says that a window of the plan covers a service, the first time that it matters, so that every reader of the
    /// log knows and figures leave it out.
    pub(super) fn announce(&mut self, at: u32, by: &Suppression, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        if by.cause != SuppressionCause::Maintenance {
            return;
        }
        let plan = self.plan.clone();
        let of = |maintenance: &&Maintenance| {
            by.by.strip_prefix(maintenance.id.as_str()).is_some_and(|s| s.starts_with('@'))
        };
        let Some(maintenance) = plan.maintenance().values().find(of) else { return };
        let Some((from, until)) = maintenance.window_at(now).filter(|(from, _)| *from <= now) else { return };
        let service = self.watched(at).id.clone();
        let told = format!("{}/{service}", by.by);
        let data = MaintenanceScheduled {
            maintenance: told.clone(),
            services: vec![service],
            from,
            until,
            by: "plan".to_owned(),
            reason: maintenance.reason.clone(),
        };
        self.append(at, EventId::derive(&told, "scheduled"), now, data.into(), decided);
    }
}

/// `nightly@2026-03-29T01:00:00Z`
fn name(maintenance: &Maintenance, from: DateTime<Utc>) -> String {
    format!("{}@{}", maintenance.id, from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
