//! Pauses of automation: which scopes a person stopped, and until when. A pure fold over `recovery.paused` and
//! `recovery.resumed`.
//!
//! A pause holds recoveries back, it forgets none: nothing is triggered in it and nothing that was triggered begins.
//! When it ends, [`crate::engine`] triggers what is still down, once, and [`crate::queue`] decides about what waits by
//! what is then so. How long ago it was said makes no difference, so a shell folds every word about pauses there is.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use rebound_schemas::event::EventRef;
use rebound_schemas::plan::{Plan, suggest};
use rebound_schemas::{Event, EventData, EventId, ProcedureId, ServiceId, SiteId, Source, TierId};

/// Scopes that are remembered beyond those in force: words about what was resumed long ago give way, oldest first.
const REMEMBERED: usize = 1024;

/// What a pause covers: everything of which all that it names is true. Naming nothing, it covers everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Services of this site.
    pub site: Option<SiteId>,
    /// This service.
    pub service: Option<ServiceId>,
    /// Services of this tier.
    pub tier: Option<TierId>,
    /// Recoveries by this procedure.
    pub procedure: Option<ProcedureId>,
}

/// What a pause may cover: a recovery of a service, made or to be made.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// Where it runs; `None` for one that the plan does not have.
    pub site: Option<&'a SiteId>,
    /// Its tier; `None` for one that the plan does not have.
    pub tier: Option<&'a TierId>,
    /// What brings it back, where something does.
    pub procedure: Option<&'a ProcedureId>,
}

impl<'a> Target<'a> {
    /// By the plan, of a service by a procedure.
    #[must_use]
    pub fn of(plan: &'a Plan, service: &'a ServiceId, procedure: Option<&'a ProcedureId>) -> Self {
        let known = plan.services().get(service);
        Self { service, site: known.map(|known| &known.site), tier: known.map(|known| &known.tier), procedure }
    }
}

impl Scope {
    /// What an event is about, if it is a word about a pause.
    #[must_use]
    pub fn of(data: &EventData) -> Option<Self> {
        let (site, service, tier, procedure) = match data {
            EventData::RecoveryPaused(data) => (&data.site, &data.service, &data.tier, &data.procedure),
            EventData::RecoveryResumed(data) => (&data.site, &data.service, &data.tier, &data.procedure),
            _ => return None,
        };
        let (site, service) = (site.clone(), service.clone());
        Some(Self { site, service, tier: tier.clone(), procedure: procedure.clone() })
    }

    /// Whether it covers a recovery. What is not known of a service is not what a scope names.
    #[must_use]
    pub fn covers(&self, target: Target<'_>) -> bool {
        fn holds<T: PartialEq>(named: Option<&T>, is: Option<&T>) -> bool {
            named.is_none() || named == is
        }
        holds(self.site.as_ref(), target.site)
            && holds(self.service.as_ref(), Some(target.service))
            && holds(self.tier.as_ref(), target.tier)
            && holds(self.procedure.as_ref(), target.procedure)
    }

    /// What it names that the plan does not have, and what was probably meant: such a pause stops nothing.
    #[must_use]
    pub fn fault(&self, plan: &Plan) -> Option<(String, String)> {
        fn missing<'n, T: AsRef<str> + 'n>(
            what: &str,
            named: Option<&T>,
            there: impl Iterator<Item = &'n T> + Clone,
        ) -> Option<(String, String)> {
            let named = named?.as_ref();
            let there = there.map(AsRef::as_ref);
            (!there.clone().any(|id| id == named))
                .then(|| (format!("{named:?} is not a {what} of the plan"), suggest(named, there)))
        }
        missing("site", self.site.as_ref(), plan.sites().keys())
            .or_else(|| missing("service", self.service.as_ref(), plan.services().keys()))
            .or_else(|| missing("tier", self.tier.as_ref(), plan.tiers().keys()))
            .or_else(|| missing("procedure", self.procedure.as_ref(), plan.procedures().keys()))
    }
}

/// `everything`, `site one`, `tier gold and procedure restart`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, service, tier, procedure } = self;
        let named = [
            service.as_ref().map(|id| ("service", id.as_str())),
            site.as_ref().map(|id| ("site", id.as_str())),
            tier.as_ref().map(|id| ("tier", id.as_str())),
            procedure.as_ref().map(|id| ("procedure", id.as_str())),
        ];
        let words: Vec<String> = named.into_iter().flatten().map(|(what, id)| format!("{what} {id}")).collect();
        f.write_str(if words.is_empty() { "everything" } else { "" })?;
        f.write_str(&words.join(" and "))
    }
}

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

impl Pause {
    fn is_on(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Pauses {
    /// Takes note of an event; `false` if it changed nothing. Of two words about the same scope the later by time
    /// counts, whichever was folded first.
    pub fn evolve(&mut self, event: &Event) -> bool {
        let Some(scope) = Scope::of(&event.data) else { return false };
        let pause = match &event.data {
            EventData::RecoveryPaused(data) => {
                let (by, reason, said) = (data.by.clone(), data.reason.clone(), EventRef::from(event));
                Some(Pause { until: data.until, by, reason, said })
            }
            _ => None,
        };
        let stamp = (event.occurred_at, event.source.clone(), event.id.clone());
        let newer = self.scopes.get(&scope).is_none_or(|(held, _)| *held < stamp);
        if newer {
            self.scopes.insert(scope, (stamp, pause));
            self.forget();
        }
        newer
    }

    fn forget(&mut self) {
        if self.scopes.len() > REMEMBERED {
            let resumed = self.scopes.iter().filter(|(_, (_, pause))| pause.is_none());
            let oldest = resumed.min_by_key(|(_, (stamp, _))| stamp).map(|(scope, _)| scope.clone());
            oldest.map(|scope| self.scopes.remove(&scope));
        }
    }

    /// Every pause in force at `now`: what it covers, and since when.
    pub fn in_force(&self, now: DateTime<Utc>) -> impl Iterator<Item = (&Scope, DateTime<Utc>, &Pause)> {
        self.scopes.iter().filter_map(move |(scope, ((since, ..), pause))| {
            let pause = pause.as_ref().filter(|pause| pause.is_on(now))?;
            Some((scope, *since, pause))
        })
    }

    fn covering<'a>(&'a self, target: Target<'a>) -> impl Iterator<Item = &'a (Stamp, Option<Pause>)> {
        self.scopes.iter().filter(move |(scope, _)| scope.covers(target)).map(|(_, word)| word)
    }

    /// The pause that holds a recovery back at `now`.
    ///
    /// | paused | holds back |
    /// |---|---|
    /// | everything | every recovery |
    /// | a site, a tier | those of its services |
    /// | a service | its own |
    /// | a procedure | those by it |
    /// | several of these | those of which all is true |
    /// | anything, with an `until` that has come | nothing |
    #[must_use]
    pub fn active<'a>(&'a self, target: Target<'a>, now: DateTime<Utc>) -> Option<&'a Pause> {
        let pauses = self.covering(target).filter_map(|(_, pause)| pause.as_ref());
        pauses.into_iter().find(|pause| pause.is_on(now))
    }

    /// When time alone next ends a pause that covers a recovery.
    #[must_use]
    pub fn next_end(&self, target: Target<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.covering(target).filter_map(|(_, pause)| pause.as_ref()?.until).filter(|until| *until > now).min()
    }

    /// When the last pause that covered a recovery ended, by a word or by itself.
    #[must_use]
    pub fn last_end(&self, target: Target<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let ended = |(stamp, pause): &(Stamp, Option<Pause>)| pause.as_ref().map_or(Some(stamp.0), |pause| pause.until);
        self.covering(target).filter_map(ended).filter(|end| *end <= now).max()
    }
}

#[cfg(test)]
mod tests;
