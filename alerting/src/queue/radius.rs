//! How much of a site, or of everything, is down: what was triggered waits while that is more than services failing.

use std::collections::BTreeSet;

use rebound_schemas::{ServiceId, SiteId};

use super::{Load, Topology};

impl Load<'_> {
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

/// What a limit is of.
pub(super) fn place(site: Option<&SiteId>) -> String {
    site.map_or_else(|| "everything".to_owned(), |site| format!("site {site}"))
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
