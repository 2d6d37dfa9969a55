//! Which sites are healthy, folded from incidents, and whether a move between sites may begin. Pure.
//!
//! | site | is |
//! |---|---|
//! | an incident of a service that runs there is open | not healthy |
//! | otherwise, also while no service runs there | healthy |

use std::collections::BTreeMap;

use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, IncidentId, ServiceId, SiteId};

use crate::runner::Move;

/// Open incidents and their services.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    open: BTreeMap<IncidentId, ServiceId>,
}

impl Sites {
    /// Takes note of an event; what is no incident's beginning or end changes nothing.
    pub fn evolve(&mut self, event: &Event) {
        match &event.data {
            EventData::IncidentOpened(data) => drop(self.open.insert(data.incident.clone(), event.subject.clone())),
            EventData::IncidentResolved(data) => drop(self.open.remove(&data.incident)),
            _ => {}
        }
    }

    /// The sites of the plan that are healthy.
    pub fn healthy<'p>(&'p self, plan: &'p Plan) -> impl Iterator<Item = &'p SiteId> + 'p {
        let broken = |site: &SiteId| {
            self.open.values().any(|service| plan.services().get(service).is_some_and(|s| s.site == *site))
        };
        plan.sites().keys().filter(move |site| !broken(site))
    }

    /// Why a move must not begin: it would leave fewer healthy sites than it says, or lead to one that is not healthy.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn allow(&self, plan: &Plan, moved: &Move) -> Result<(), String> {
        let left: Vec<&SiteId> = self.healthy(plan).filter(|site| **site != moved.from).collect();
        let names = left.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { "none".to_owned() } else { names };
        if left.len() < moved.healthy_sites_at_least as usize {
            return Err(format!(
                "the move from {} to {} was not begun: {} healthy sites must be left, and there are {} ({names})",
                moved.from,
                moved.to,
                moved.healthy_sites_at_least,
                left.len()
            ));
        }
        if !left.contains(&&moved.to) {
            return Err(format!(
                "the move from {} to {} was not begun: {} is not healthy",
                moved.from, moved.to, moved.to
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rebound_schemas::event::{ErrorClass, IncidentOpened, IncidentResolved, Severity};
    use rebound_schemas::{EventId, Source};

    use super::*;

    fn event(service: &str, data: impl Into<EventData>) -> Event {
        Event {
            id: EventId::new("e").unwrap(),
            source: Source::new("rebound/alert").unwrap(),
            subject: ServiceId::new(service).unwrap(),
            occurred_at: chrono::DateTime::from_timestamp(0, 0).unwrap(),
            plan: None,
            data: data.into(),
        }
    }

    fn opened(service: &str) -> Event {
        let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
        let data = IncidentOpened {
            incident: IncidentId::new(&format!("inc-{service}")).unwrap(),
            severity: Severity::Critical,
            first_failure_at: at,
            last_success_at: None,
            detected_at: at,
            policy: None,
            error_class: ErrorClass::Unknown,
            cause: None,
            reason: "down".into(),
        };
        event(service, data)
    }

    fn resolved(service: &str) -> Event {
        let incident = IncidentId::new(&format!("inc-{service}")).unwrap();
        let recovered_at = chrono::DateTime::from_timestamp(9, 0).unwrap();
        event(service, IncidentResolved { incident, recovered_at, recovery: None })
    }

    #[test]
    fn a_move_leaves_enough_healthy_sites_or_is_not_begun() {
        let site = |id: &str| format!("[[site]]\nid = \"{id}\"\npurpose = \"x\"\nrecovery_time = \"1h\"\n");
        let service = |id: &str, site: &str| format!("[[service]]\nid = \"{id}\"\nsite = \"{site}\"\n");
        let text =
            site("a") + &site("b") + &site("c") + &service("one", "a") + &service("two", "b") + &service("three", "c");
        let plan = Plan::parse(&text, "plan.toml").unwrap();
        let id = |site: &str| SiteId::new(site).unwrap();
        let moved = |least| Move { from: id("a"), to: id("b"), back: false, healthy_sites_at_least: least };
        let mut sites = Sites::default();
        sites.evolve(&opened("one"));
        assert_eq!(sites.healthy(&plan).count(), 2);
        assert_eq!(sites.allow(&plan, &moved(2)), Ok(()));
        let refused = sites.allow(&plan, &moved(3)).unwrap_err();
        assert_eq!(refused, "the move from a to b was not begun: 3 healthy sites must be left, and there are 2 (b, c)");
        sites.evolve(&opened("two"));
        assert!(sites.allow(&plan, &moved(1)).unwrap_err().ends_with("b is not healthy"));
        sites.evolve(&opened("three"));
        assert!(sites.allow(&plan, &moved(1)).unwrap_err().ends_with("there are 0 (none)"));
        sites.evolve(&resolved("two"));
        assert_eq!(sites.allow(&plan, &moved(1)), Ok(()));
    }
}
