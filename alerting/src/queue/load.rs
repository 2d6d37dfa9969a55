//! What runs, and how much of a site or of everything is down: which limits have no room, and what has stopped as a
//! whole, since that is more than services failing.

use std::collections::{BTreeMap, BTreeSet};

use rebound_schemas::{ProcedureId, RecoveryId, ServiceId, SiteId};

use super::{Entry, QueueLimits, Topology};
use crate::hindrance::place;

/// What runs and what is down now.
#[derive(Debug, Default)]
pub(super) struct Load<'a> {
    total: usize,
    /// Services that are being recovered, and by which recovery.
    pub(super) services: BTreeMap<&'a ServiceId, &'a RecoveryId>,
    procedures: BTreeMap<&'a ProcedureId, usize>,
    sites: BTreeMap<SiteId, usize>,
    /// Services that are down, by site.
    down: BTreeMap<Option<SiteId>, u32>,
}

impl<'a> Load<'a> {
    /// Takes note of a recovery that runs.
    pub(super) fn add<T: Topology + ?Sized>(&mut self, id: &'a RecoveryId, entry: &'a Entry, plan: &T) {
        self.total += 1;
        self.services.insert(&entry.service, id);
        *self.procedures.entry(&entry.procedure).or_default() += 1;
        if let Some(site) = plan.site(&entry.service) {
            *self.sites.entry(site.clone()).or_default() += 1;
        }
    }

    /// The first limit that has no room for a recovery.
    pub(super) fn full<T: Topology + ?Sized>(&self, entry: &Entry, plan: &T, limits: &QueueLimits) -> Option<Full> {
        let site = plan.site(&entry.service);
        let at_site = site.and_then(|site| self.sites.get(site)).copied().unwrap_or_default();
        let by_procedure = self.procedures.get(&entry.procedure).copied().unwrap_or_default();
        let reach = |site| plan.reach(site).max_recovering.map_or(usize::MAX, |most| most as usize);
        let of_site = site.map_or(usize::MAX, |site| reach(Some(site)));
        let named = site.map_or_else(|| "no site".to_owned(), |site| place(Some(site)));
        [
            (place(None), self.total, reach(None), true),
            (named.clone(), at_site, of_site, true),
            ("everywhere".to_owned(), self.total, limits.total, false),
            (named, at_site, limits.per_site, false),
            (format!("procedure {}", entry.procedure), by_procedure, plan.concurrency(&entry.procedure), false),
        ]
        .into_iter()
        .find(|(_, running, most, _)| running >= most)
        .map(|(place, running, most, planned)| Full { place, running, most, planned })
    }

    /// Takes note of the services that are down.
    pub(super) fn down<T: Topology + ?Sized>(&mut self, services: BTreeSet<&ServiceId>, plan: &T) {
        for service in services {
            for place in [None, plan.site(service).cloned()].into_iter().collect::<BTreeSet<_>>() {
                *self.down.entry(place).or_default() += 1;
            }
        }
    }

    /// What has stopped as a whole that a service is part of, and the figures in words.
    pub(super) fn stopped<T: Topology + ?Sized>(&self, service: &ServiceId, plan: &T) -> Option<(String, String)> {
        [None, plan.site(service)].into_iter().find_map(|site| {
            let of = plan.services_at(site);
            let most = plan.reach(site).stop_above?.most(of);
            let down = self.down.get(&site.cloned()).copied().unwrap_or_default();
            (down > most).then(|| (place(site), format!("{down} of {of} services are down at once, and {most} may be")))
        })
    }
}

/// A limit that has no room.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) place: String,
    pub(super) running: usize,
    pub(super) most: usize,
    /// The plan says so; else what this machine may run.
    pub(super) planned: bool,
}
