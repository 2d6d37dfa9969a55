//! The plan at any time, from the events that say which one is decided under.
//!
//! | | |
//! |---|---|
//! | a version is in force | from when it was adopted until another one is |
//! | adopted again while it is in force | nothing changes |
//! | a version of which a part is missing | was never in force: half a plan promises nothing |
//! | a thing of the plan is valid | as long as versions in force say the same of it, however many there are |

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rebound_schemas::event::PlanAdopted;
use rebound_schemas::{PlanVersion, ServiceId};

/// A version's text by its hash, and in how many parts it came.
type Text = (PlanVersion, u32);

/// Every plan that was decided under.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plans {
    texts: BTreeMap<Text, BTreeMap<u32, PlanAdopted>>,
    adopted: BTreeSet<(DateTime<Utc>, Text)>,
}

/// A plan while it was in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Version<'a> {
    /// Its content hash.
    pub version: &'a PlanVersion,
    /// From when on.
    pub from: DateTime<Utc>,
    /// Until when; `None` while it is in force.
    pub until: Option<DateTime<Utc>>,
    parts: &'a BTreeMap<u32, PlanAdopted>,
}

impl<'a> Version<'a> {
    /// Its parts.
    pub fn parts(&self) -> impl Iterator<Item = &'a PlanAdopted> + use<'a> {
        self.parts.values()
    }
}

/// Something that a plan says, while it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Valid<T> {
    /// What.
    pub what: T,
    /// The first version that said so.
    pub version: PlanVersion,
    /// From when on.
    pub from: DateTime<Utc>,
    /// Until when; `None` while it does.
    pub until: Option<DateTime<Utc>>,
}

/// What was promised of a service; seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// Recovery time objective.
    pub rto_seconds: f64,
    /// Recovery point objective.
    pub rpo_seconds: f64,
}

impl Plans {
    pub(super) fn adopt(&mut self, at: DateTime<Utc>, version: &PlanVersion, data: &PlanAdopted) {
        let text = (version.clone(), data.parts);
        self.adopted.insert((at, text.clone()));
        self.texts.entry(text).or_default().entry(data.part).or_insert_with(|| data.clone());
    }

    /// The versions in force, one after the other.
    #[must_use]
    pub fn versions(&self) -> Vec<Version<'_>> {
        let mut versions: Vec<Version<'_>> = Vec::new();
        for (at, text) in &self.adopted {
            let Some(parts) = self.texts.get(text).filter(|parts| parts.len() == text.1 as usize) else { continue };
            if versions.last().is_some_and(|last| *last.version == text.0) {
                continue;
            }
            if let Some(last) = versions.last_mut() {
                last.until = Some(*at);
            }
            // Of two at the same moment the later by name counts, and no time passed under the other.
            versions.pop_if(|last| last.from == *at);
            versions.push(Version { version: &text.0, from: *at, until: None, parts });
        }
        versions
    }

    /// What `tell` finds in a plan, by key, for as long as it stayed the same; in the order of keys, then of time.
    #[must_use]
    pub fn history<'a, K: Ord + Clone, T: PartialEq>(
        &'a self,
        tell: impl Fn(&'a PlanAdopted) -> Vec<(K, T)>,
    ) -> Vec<Valid<T>> {
        let mut by_key: BTreeMap<K, Vec<Valid<T>>> = BTreeMap::new();
        for version in self.versions() {
            let mut said: BTreeMap<K, T> = version.parts().flat_map(&tell).collect();
            for (key, told) in &mut by_key {
                let open = told.last_mut().filter(|last| last.until.is_none());
                let Some(open) = open else { continue };
                if said.get(key).is_some_and(|what| *what == open.what) {
                    said.remove(key);
                } else {
                    open.until = Some(version.from);
                }
            }
            for (key, what) in said {
                let (from, version) = (version.from, version.version.clone());
                by_key.entry(key).or_default().push(Valid { what, version, from, until: None });
            }
        }
        by_key.into_values().flatten().collect()
    }

    /// What was promised of services, and when: by service, in the order of time.
    #[must_use]
    pub fn promises(&self) -> BTreeMap<ServiceId, Vec<Valid<Promise>>> {
        let mut by_service: BTreeMap<ServiceId, Vec<Valid<Promise>>> = BTreeMap::new();
        let told = self.history(|plan| {
            let promise = |rto_seconds, rpo_seconds| Promise { rto_seconds, rpo_seconds };
            let services = plan.services.iter();
            services
                .map(|it| (it.service.clone(), (it.service.clone(), promise(it.rto_seconds, it.rpo_seconds))))
                .collect()
        });
        for Valid { what: (service, what), version, from, until } in told {
            by_service.entry(service).or_default().push(Valid { what, version, from, until });
        }
        by_service
    }
}

/// What was valid at a time.
pub(crate) fn at<T: Copy>(told: &[Valid<T>], at: DateTime<Utc>) -> Option<T> {
    let valid = told.iter().find(|it| it.from <= at && it.until.is_none_or(|until| at < until));
    valid.map(|valid| valid.what)
}
