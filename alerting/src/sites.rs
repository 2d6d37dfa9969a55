//! Which sites are healthy and where their load is, folded from incidents and moves, and whether a move between sites
//! may begin. Pure.
//!
//! | site | is |
//! |---|---|
//! | an incident of a service that runs there is open | not healthy |
//! | its load is being moved away, or was and has not come back | not counted on, and a good place to come back to |
//! | otherwise, also while no service runs there | healthy |

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, IncidentId, ServiceId, SiteId};

use crate::runner::Move;

/// Where the load of a site is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Where it belongs.
    Home,
    /// On its way; it stays so when the move was interrupted, since nobody knows then.
    Leaving(SiteId),
    /// There.
    At(SiteId),
}

/// Open incidents and their services, and moves.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    open: BTreeMap<IncidentId, ServiceId>,
    loads: BTreeMap<SiteId, (DateTime<Utc>, Load)>,
}

impl Sites {
    /// Takes note of an event; what is neither an incident's nor a move's beginning or end changes nothing. Of two
    /// words about one site's load the later by time counts, whichever was folded first.
    ///
    /// | event | the load of | is |
    /// |---|---|---|
    /// | `failover.started` | the left site | on its way |
    /// | `failover.finished`, succeeded | the left site | at the other |
    /// | `failover.finished`, failed | the left site | at home |
    /// | `failback.finished`, succeeded | the site that it came back to | at home |
    pub fn evolve(&mut self, event: &Event) {
        match &event.data {
            EventData::IncidentOpened(data) => drop(self.open.insert(data.incident.clone(), event.subject.clone())),
            EventData::IncidentResolved(data) => drop(self.open.remove(&data.incident)),
            EventData::FailoverStarted(data) => {
                self.load(&data.from_site, event.occurred_at, Load::Leaving(data.to_site.clone()));
            }
            EventData::FailoverFinished(data) => {
                let load = if data.succeeded { Load::At(data.to_site.clone()) } else { Load::Home };
                self.load(&data.from_site, event.occurred_at, load);
            }
            EventData::FailbackFinished(data) if data.succeeded => {
                self.load(&data.to_site, event.occurred_at, Load::Home);
            }
            _ => {}
        }
    }

    /// A move is about to begin, which nobody has told yet.
    pub fn begin(&mut self, moved: &Move, at: DateTime<Utc>) {
        if !moved.back {
            self.load(&moved.from, at, Load::Leaving(moved.to.clone()));
        }
    }

    fn load(&mut self, site: &SiteId, at: DateTime<Utc>, load: Load) {
        // Both at once: the end of a move is folded after its beginning, in their partition's order.
        if self.loads.get(site).is_none_or(|(held, _)| *held <= at) {
            self.loads.insert(site.clone(), (at, load));
        }
    }

    /// Where the load of a site is.
    #[must_use]
    pub fn load_of(&self, site: &SiteId) -> &Load {
        self.loads.get(site).map_or(&Load::Home, |(_, load)| load)
    }

    /// Open incidents of services that run at a site.
    pub fn incidents<'a>(&'a self, plan: &'a Plan, site: &'a SiteId) -> impl Iterator<Item = &'a IncidentId> + 'a {
        let there = move |service: &ServiceId| plan.services().get(service).is_some_and(|s| s.site == *site);
        self.open.iter().filter(move |(_, service)| there(service)).map(|(incident, _)| incident)
    }

    /// The sites of the plan that can be counted on.
    pub fn healthy<'p>(&'p self, plan: &'p Plan) -> impl Iterator<Item = &'p SiteId> + 'p {
        plan.sites().keys().filter(move |site| *self.load_of(site) == Load::Home && !self.broken(plan, site))
    }

    fn broken(&self, plan: &Plan, site: &SiteId) -> bool {
        self.incidents(plan, site).next().is_some()
    }

    /// The sites that are left healthy by a move.
    #[must_use]
    pub fn left<'p>(&'p self, plan: &'p Plan, moved: &Move) -> Vec<&'p SiteId> {
        // A load that comes back makes its site one that can be counted on again.
        let home = |site: &SiteId| *self.load_of(site) == Load::Home || (moved.back && *site == moved.to);
        let counted = |site: &&SiteId| **site != moved.from && home(site) && !self.broken(plan, site);
        plan.sites().keys().filter(counted).collect()
    }

    /// Why a move must not begin: it would leave fewer healthy sites than it says, or lead to one that is not healthy.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn allow(&self, plan: &Plan, moved: &Move) -> Result<(), String> {
        let left = self.left(plan, moved);
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
        if self.broken(plan, &moved.to) {
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
    use rebound_schemas::event::{
        ErrorClass, FailbackFinished, FailoverFinished, FailoverStarted, IncidentOpened, IncidentResolved, Severity,
    };

    use super::*;
    use crate::testing;

    fn event(service: &str, data: impl Into<EventData>) -> Event {
        testing::event("rebound/alert", "e", service, chrono::DateTime::from_timestamp(0, 0).unwrap(), data)
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

    fn at(second: i64, data: impl Into<EventData>) -> Event {
        Event { occurred_at: chrono::DateTime::from_timestamp(second, 0).unwrap(), ..event("one", data) }
    }

    fn started(second: i64, from: &str, to: &str) -> Event {
        let (from_site, to_site) = (SiteId::new(from).unwrap(), SiteId::new(to).unwrap());
        at(second, FailoverStarted { failover: "f".into(), from_site, to_site, recovery: None })
    }

    fn finished(second: i64, from: &str, to: &str, succeeded: bool) -> Event {
        let (from_site, to_site) = (SiteId::new(from).unwrap(), SiteId::new(to).unwrap());
        let (duration_ms, data_until, reason) = (1, None, None);
        let data =
            FailoverFinished { failover: "f".into(), from_site, to_site, succeeded, duration_ms, data_until, reason };
        at(second, data)
    }

    fn back(second: i64, from: &str, to: &str, succeeded: bool) -> Event {
        let (from_site, to_site) = (SiteId::new(from).unwrap(), SiteId::new(to).unwrap());
        at(second, FailbackFinished { failover: "f".into(), from_site, to_site, succeeded, duration_ms: 1 })
    }

    #[test]
    fn where_the_load_is() {
        let site = |id: &str| SiteId::new(id).unwrap();
        let there = |to: &str| Load::At(site(to));
        for (what, events, load) in [
            ("nothing was moved", vec![], Load::Home),
            ("on its way", vec![started(1, "a", "b")], Load::Leaving(site("b"))),
            ("moved", vec![started(1, "a", "b"), finished(2, "a", "b", true)], there("b")),
            ("moved at once", vec![started(1, "a", "b"), finished(1, "a", "b", true)], there("b")),
            ("rolled back", vec![started(1, "a", "b"), finished(2, "a", "b", false)], Load::Home),
            ("moved back", vec![finished(2, "a", "b", true), back(3, "b", "a", true)], Load::Home),
            ("told in another order", vec![back(3, "b", "a", true), finished(2, "a", "b", true)], Load::Home),
            ("told of again", vec![finished(2, "a", "b", true), started(1, "a", "b")], there("b")),
            ("could not be moved back", vec![finished(2, "a", "b", true), back(3, "b", "a", false)], there("b")),
            ("moved on", vec![finished(2, "a", "b", true), finished(4, "a", "c", true)], there("c")),
            ("another site's", vec![finished(2, "b", "c", true)], Load::Home),
        ] {
            let mut sites = Sites::default();
            events.iter().for_each(|event| sites.evolve(event));
            assert_eq!(*sites.load_of(&site("a")), load, "{what}");
        }
    }

    #[test]
    fn a_site_that_is_left_is_not_counted_on_until_its_load_is_back() {
        let text: String = ["a", "b", "c"]
            .map(|id| format!("[[site]]\nid = \"{id}\"\npurpose = \"x\"\nrecovery_time = \"1h\"\n"))
            .concat();
        let text = text + "[[service]]\nid = \"one\"\nsite = \"a\"\n";
        let plan = Plan::parse(&text, "plan.toml").unwrap();
        let id = |site: &str| SiteId::new(site).unwrap();
        let moved = |from: &str, to: &str, back, least| Move {
            from: id(from),
            to: id(to),
            back,
            healthy_sites_at_least: least,
        };
        let mut sites = Sites::default();
        assert_eq!(sites.allow(&plan, &moved("b", "c", false, 2)), Ok(()));
        // While the load of a is under way, and when it is away, moving b's too would leave one.
        for event in [started(1, "a", "b"), finished(2, "a", "b", true)] {
            sites.evolve(&event);
            let refused = sites.allow(&plan, &moved("b", "c", false, 2)).unwrap_err();
            assert!(refused.ends_with("2 healthy sites must be left, and there are 1 (c)"), "{refused}");
        }
        assert_eq!(sites.allow(&plan, &moved("b", "a", true, 2)), Ok(()), "back: a is healthy, and c");
        sites.evolve(&opened("one"));
        let refused = sites.allow(&plan, &moved("b", "a", true, 1)).unwrap_err();
        assert!(refused.ends_with("a is not healthy"), "{refused}");
        sites.evolve(&resolved("one"));
        sites.evolve(&back(9, "b", "a", true));
        assert_eq!(sites.allow(&plan, &moved("b", "c", false, 2)), Ok(()));
    }
}
