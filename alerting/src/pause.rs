//! Pauses of automation: which scopes a person stopped, and until when. A pure fold over `recovery.paused` and
//! `recovery.resumed`.
//!
//! A pause holds recoveries back, it forgets none: when it ends, [`crate::queue`] decides about each by what is then
//! so, and calls off those whose incident was resolved meanwhile.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::EventRef;
use rebound_schemas::{Event, EventData, EventId, ServiceId, SiteId, Source};

/// What a pause covers: a site, a service, or (neither) everything.
type Scope = (Option<SiteId>, Option<ServiceId>);

/// The order in which a person's words about one scope are weighed.
type Stamp = (DateTime<Utc>, Source, EventId);

/// The newest word about each scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pauses {
    scopes: BTreeMap<Scope, (Stamp, Option<Pause>)>,
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// It ends by itself at this time; none: when somebody resumes.
    pub until: Option<DateTime<Utc>>,
    /// Who stopped automation.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The event that says so.
    pub said: EventRef,
}

impl Pauses {
    /// Takes note of an event. Of two about the same scope the later by time counts, whichever was folded first.
    pub fn evolve(&mut self, event: &Event) {
        let (scope, pause) = match &event.data {
            EventData::RecoveryPaused(data) => {
                let (by, reason, said) = (data.by.clone(), data.reason.clone(), EventRef::from(event));
                let pause = Pause { until: data.until, by, reason, said };
                ((data.site.clone(), data.service.clone()), Some(pause))
            }
            EventData::RecoveryResumed(data) => ((data.site.clone(), data.service.clone()), None),
            _ => return,
        };
        let stamp = (event.occurred_at, event.source.clone(), event.id.clone());
        if self.scopes.get(&scope).is_none_or(|(held, _)| *held < stamp) {
            self.scopes.insert(scope, (stamp, pause));
        }
    }

    /// The pause that holds a service of `site` back at `now`.
    ///
    /// | paused | holds back |
    /// |---|---|
    /// | everything | every service |
    /// | a site | the services of that site |
    /// | a service | that service |
    /// | a site and a service | that service while it is of that site |
    /// | anything, with an `until` that has come | nothing |
    #[must_use]
    pub fn active(&self, service: &ServiceId, site: Option<&SiteId>, now: DateTime<Utc>) -> Option<&Pause> {
        self.scopes.iter().find_map(|((of_site, of_service), (_, pause))| {
            let covers = of_site.as_ref().is_none_or(|of| Some(of) == site)
                && of_service.as_ref().is_none_or(|of| of == service);
            pause.as_ref().filter(|pause| covers && pause.until.is_none_or(|until| now < until))
        })
    }
}

#[cfg(test)]
mod tests;
