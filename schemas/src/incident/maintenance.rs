//! Maintenance windows in the incident fold. A window may be told of before it begins or long after it ended: what
//! was decided stays as it is, and the figures are restated, with the original beside them.
//!
//! | t0 in a window of the service | t3 | figures |
//! |---|---|---|
//! | no | | as recorded |
//! | yes | none yet | as recorded: what goes on is never hidden |
//! | yes | before the window's end | excluded |
//! | yes | after it | t0 is the window's end; in another window by then, this table again |
//!
//! Does not depend on the order of events: of one window's tellings the newest counts, and a cancellation ends it at
//! its own time if it is newer than that.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{Incident, Maintained, Stamp};
use crate::event::{Event, MaintenanceScheduled};
use crate::ids::ServiceId;

#[derive(Debug, Clone, PartialEq)]
struct Window {
    stamp: Stamp,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    services: Vec<ServiceId>,
}

/// Every window told of, by name, and by the services that any telling named.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Windows {
    told: BTreeMap<String, Window>,
    cancelled: BTreeMap<String, Stamp>,
    by_service: BTreeMap<ServiceId, BTreeSet<String>>,
}

impl Windows {
    pub(super) fn scheduled(&mut self, event: &Event, stamp: Stamp, data: &MaintenanceScheduled) {
        let services = if data.services.is_empty() { vec![event.subject.clone()] } else { data.services.clone() };
        for service in &services {
            self.by_service.entry(service.clone()).or_default().insert(data.maintenance.clone());
        }
        if self.told.get(&data.maintenance).is_none_or(|held| held.stamp < stamp) {
            let window = Window { stamp, from: data.from, until: data.until, services };
            self.told.insert(data.maintenance.clone(), window);
        }
    }

    pub(super) fn cancelled(&mut self, name: &str, stamp: Stamp) {
        if self.cancelled.get(name).is_none_or(|held| *held < stamp) {
            self.cancelled.insert(name.to_owned(), stamp);
        }
    }

    /// The windows of a service by name, as start and end; one that was cancelled in time has its end before its start.
    pub(super) fn of(&self, service: &ServiceId) -> impl Iterator<Item = (&String, DateTime<Utc>, DateTime<Utc>)> {
        let names = self.by_service.get(service).into_iter().flatten();
        let windows = names.filter_map(|name| self.told.get_key_value(name));
        windows.filter(|(_, window)| window.services.contains(service)).map(|(name, window)| {
            let cancelled = self.cancelled.get(name).filter(|stamp| **stamp > window.stamp);
            (name, window.from, cancelled.map_or(window.until, |stamp| stamp.at.min(window.until)))
        })
    }

    /// The window of this service that covers a time and ends last.
    fn covering(&self, service: &ServiceId, at: DateTime<Utc>) -> Option<(&String, DateTime<Utc>)> {
        let covering = self.of(service).filter(|(_, from, until)| *from <= at && at < *until);
        covering.max_by_key(|(_, _, until)| *until).map(|(name, _, until)| (name, until))
    }

    pub(super) fn restate(&self, incident: &mut Incident) {
        let t0 = incident.first_failure_at;
        let Some(recovered_at) = incident.recovered_at else { return };
        // Where one window ends in another, the incident has been in maintenance all along.
        let mut at = t0;
        while let Some((name, until)) = self.covering(&incident.service, at) {
            let excluded = recovered_at <= until;
            if !excluded {
                incident.first_failure_at = until;
            }
            let maintenance = incident.maintenance.take().map_or_else(|| name.clone(), |first| first.maintenance);
            incident.maintenance = Some(Maintained { maintenance, excluded, original_first_failure_at: t0 });
            if excluded {
                incident.first_failure_at = t0;
                return;
            }
            at = until;
        }
    }
}
