//! What the queue needs to know of the plan.

use std::collections::BTreeSet;

use rebound_schemas::plan::{Plan, Reach};
use rebound_schemas::{PlanVersion, ProcedureId, ServiceId, SiteId, TierId};

/// What the queue needs to know of the plan.
pub trait Topology {
    /// The version that decisions carry.
    fn version(&self) -> &PlanVersion;
    /// Where a service runs; `None` for one that the plan does not have.
    fn site(&self, service: &ServiceId) -> Option<&SiteId>;
    /// The tier of a service; `None` for one that the plan does not have.
    fn tier(&self, service: &ServiceId) -> Option<&TierId>;
    /// What a service needs directly.
    fn depends_on(&self, service: &ServiceId) -> &[ServiceId];
    /// How many recoveries by a procedure may run at the same time.
    fn concurrency(&self, procedure: &ProcedureId) -> usize;
    /// The limits of a site; of everything together where none is named.
    fn reach(&self, site: Option<&SiteId>) -> Reach;
    /// How many services run at a site; in all where none is named.
    fn services_at(&self, site: Option<&SiteId>) -> u32;
}

impl Topology for Plan {
    fn version(&self) -> &PlanVersion {
        Self::version(self)
    }

    fn site(&self, service: &ServiceId) -> Option<&SiteId> {
        self.services().get(service).map(|s| &s.site)
    }

    fn tier(&self, service: &ServiceId) -> Option<&TierId> {
        self.services().get(service).map(|s| &s.tier)
    }

    fn depends_on(&self, service: &ServiceId) -> &[ServiceId] {
        self.services().get(service).map_or(&[], |s| &s.depends_on)
    }

    fn concurrency(&self, procedure: &ProcedureId) -> usize {
        self.procedures().get(procedure).map_or(1, |p| p.concurrency as usize)
    }

    fn reach(&self, site: Option<&SiteId>) -> Reach {
        Self::reach(self, site)
    }

    fn services_at(&self, site: Option<&SiteId>) -> u32 {
        Self::services_at(self, site)
    }
}

/// One of these that a service needs, directly or indirectly.
pub(super) fn needs_any<'a, T: Topology + ?Sized>(
    plan: &'a T,
    service: &ServiceId,
    wanted: &BTreeSet<&ServiceId>,
) -> Option<&'a ServiceId> {
    let mut seen: BTreeSet<&ServiceId> = BTreeSet::new();
    let mut next: Vec<&ServiceId> = plan.depends_on(service).iter().collect();
    while let Some(dependency) = next.pop() {
        if wanted.contains(dependency) {
            return Some(dependency);
        }
        if seen.insert(dependency) {
            next.extend(plan.depends_on(dependency));
        }
    }
    None
}
