//! Blast radius: a site, or everything, of which so much is down at once that it is no service's failure any more.
//! Automatic recovery of what is down there stops, and people are asked once; it goes on when less is down again.
//!
//! Folded from incidents and `recovery.escalated` alone. What time brings about (a service that falls silent) counts
//! for nothing, so that every instance counts the same.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{EventRef, RecoveryEscalated, Stopped, WithheldReason};
use rebound_schemas::plan::{Plan, StopAbove};
use rebound_schemas::{Event, EventId, IncidentId, ServiceId, SiteId};

use super::Engine;
use crate::hindrance::{Hindrance, place};
use crate::threshold::MAX_EVIDENCE;

/// What stops as a whole.
#[derive(Debug)]
pub(super) struct Zone {
    /// A site; none: everything.
    site: Option<SiteId>,
    services: Box<[u32]>,
    above: StopAbove,
    /// So many may be down.
    most: u32,
    /// So many are.
    down: u32,
    /// The newest time that people were told that it stopped: when, by which incident of which service.
    told: Option<(DateTime<Utc>, IncidentId, u32)>,
}

/// The zones of a plan, and which a service is in, by the service's number.
pub(super) fn zones(plan: &Plan, index: &HashMap<ServiceId, u32>) -> Vec<Zone> {
    std::iter::once(None)
        .chain(plan.sites().keys().map(Some))
        .filter_map(|site| {
            let above = plan.reach(site).stop_above?;
            let here = plan.services().values().filter(|service| site.is_none_or(|site| service.site == *site));
            let services: Box<[u32]> = here.filter_map(|service| index.get(&service.id).copied()).collect();
            let most = above.most(u32::try_from(services.len()).unwrap_or(u32::MAX));
            Some(Zone { site: site.cloned(), services, above, most, down: 0, told: None })
        })
        .collect()
}

impl Zone {
    pub(super) fn contains(&self, service: u32) -> bool {
        self.services.binary_search(&service).is_ok()
    }

    fn is_stopped(&self) -> bool {
        self.down > self.most
    }

    fn name(&self) -> String {
        place(self.site.as_ref())
    }

    /// `6 of the 8 services at site one are down at once, and stop_above = 50 % allows 4: …`
    fn words(&self) -> String {
        let place = self.site.as_ref().map_or_else(|| "of the plan".to_owned(), |site| format!("at site {site}"));
        let whole =
            if self.site.is_some() { "this is the site's failure" } else { "this is more than services failing" };
        format!(
            "{} of the {} services {place} are down at once, and stop_above = {} allows {}: {whole}, and automatic \
             recovery stops",
            self.down,
            self.services.len(),
            self.above,
            self.most
        )
    }
}

impl Engine {
    pub(super) fn is_down(&self, at: u32) -> bool {
        self.states[at as usize].open_outage().is_some()
    }

    /// Counts a service that went down or came back. What a stopped zone held back is decided anew when so little is
    /// down that it goes on, or when the incident that people were told of is over.
    pub(super) fn count(&mut self, at: u32, was_down: bool) {
        let is_down = self.is_down(at);
        if is_down == was_down {
            return;
        }
        for n in 0..self.watched[at as usize].zones.len() {
            let zone = &mut self.zones[self.watched[at as usize].zones[n] as usize];
            if is_down {
                zone.down += 1;
                continue;
            }
            zone.down -= 1;
            let told = zone.told.as_ref().is_some_and(|(_, _, service)| *service == at);
            if zone.down == zone.most || told {
                let down = zone.services.iter().filter(|service| self.states[**service as usize].outage.is_some());
                self.again.extend(down);
            }
        }
    }

    /// Folds that people were told of a zone that stopped. Of two tellings the later counts.
    pub(super) fn told_of_stop(&mut self, event: &Event, incident: &IncidentId, stopped: &Stopped) {
        let Some(at) = self.index.get(&event.subject).copied() else { return };
        let Some(zone) = self.zones.iter_mut().find(|zone| zone.site == stopped.site) else { return };
        let told = (event.occurred_at, incident.clone(), at);
        if zone.told.as_ref().is_none_or(|known| *known < told) {
            zone.told = Some(told);
        }
    }

    /// What has stopped as a whole that a service is part of, as what stands in the way of its recovery.
    pub(super) fn stopped(&self, at: u32) -> Option<Hindrance> {
        let zones = self.watched(at).zones.iter().map(|zone| &self.zones[*zone as usize]);
        let zone = zones.into_iter().find(|zone| zone.is_stopped())?;
        Some(Hindrance { by: Some(zone.name()), detail: Some(zone.words()), ..WithheldReason::BlastRadius.into() })
    }

    /// The events that show that a zone of this name stopped.
    pub(super) fn shown_by(&self, name: &str) -> Vec<EventRef> {
        let zone = self.zones.iter().filter(|zone| zone.name() == name);
        let services = zone.flat_map(|zone| zone.services.iter());
        let opened = services.filter_map(|service| Some(self.states[*service as usize].open_outage()?.opened.clone()));
        opened.take(MAX_EVIDENCE).collect()
    }

    /// Has people told that a zone stopped, by the incident of a service whose recovery it holds back; once, for as
    /// long as that incident is open.
    pub(super) fn tell_of_stop(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let zones = self.watched(at).zones.iter().map(|zone| &self.zones[*zone as usize]);
        let Some(zone) = zones.into_iter().find(|zone| zone.is_stopped()) else { return };
        let known = zone.told.as_ref().is_some_and(|(_, incident, service)| {
            let open = self.states[*service as usize].open_outage();
            open.is_some_and(|outage| outage.incident == *incident)
        });
        let state = &self.states[at as usize];
        let Some(outage) = state.outage.as_ref().filter(|_| !known) else { return };
        let incident = outage.incident.clone();
        let (recovery, attempts) = state.tried(&incident);
        let states = zone.services.iter().map(|service| &self.states[*service as usize]);
        let open = states.filter_map(|state| Some(state.open_outage()?.incident.clone()));
        let stopped = Stopped {
            site: zone.site.clone(),
            down: zone.down,
            of: u32::try_from(zone.services.len()).unwrap_or(u32::MAX),
            most: zone.most,
            incidents: open.take(MAX_EVIDENCE).collect(),
        };
        let id = EventId::derive(incident.as_str(), &format!("stopped-{}", zone.name().replace(' ', "-")));
        let reason = zone.words();
        let data = RecoveryEscalated { incident, recovery, attempts, reason, stopped: Some(stopped) };
        self.append(at, id, now, data.into(), decided);
    }
}
