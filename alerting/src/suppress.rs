//! What keeps an alert from being told and a recovery from being triggered, and never anything else: state is
//! tracked all the same, and what was told is resolved.
//!
//! [`Windows`] folds silences and maintenance windows; [`suppression`] ranks the causes.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{EventRef, Severity, SuppressionCause};
use rebound_schemas::{Event, EventData, ServiceId};

use crate::matcher::Chosen;

/// Why nothing is told or triggered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// What kind of reason.
    pub cause: SuppressionCause,
    /// The dependency, silence or window; for flapping the service itself.
    pub by: String,
}

/// What may suppress a service's alert.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// A maintenance window or silence that covers it now.
    pub window: Option<&'a Window>,
    /// A direct dependency that has failed, or that was failed when this service was last seen failing.
    /// Or a redundancy group of which that is true.
    pub dependency: Option<&'a str>,
    /// The service itself, if it flaps.
    pub flapping: Option<&'a ServiceId>,
}

/// The cause that is named, when several hold: a person's intention first, then the reason that lies elsewhere.
///
/// | maintenance | silence | failed dependency | flapping | cause |
/// |---|---|---|---|---|
/// | yes | | | | maintenance |
/// | no | yes | | | silence |
/// | no | no | yes | | dependency |
/// | no | no | no | yes | flapping |
/// | no | no | no | no | none |
#[must_use]
pub fn suppression(facts: Facts<'_>) -> Option<Suppression> {
    let named = |cause, by: &str| Some(Suppression { cause, by: by.to_owned() });
    match facts {
        Facts { window: Some(window), .. } => named(window.cause, &window.name),
        Facts { dependency: Some(service), .. } => named(SuppressionCause::Dependency, service),
        Facts { flapping: Some(service), .. } => named(SuppressionCause::Flapping, service.as_str()),
        _ => None,
    }
}

/// A silence or maintenance window; `from` belongs to it, `until` does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Silence or maintenance.
    pub cause: SuppressionCause,
    /// Its name.
    pub name: Arc<str>,
    /// Start.
    pub from: DateTime<Utc>,
    /// End.
    pub until: DateTime<Utc>,
    /// The alerts that it covers; all when absent.
    severities: Option<Arc<[Severity]>>,
    said_at: DateTime<Utc>,
    /// Remembered until then, though it may have ended before: what is delivered again must not revive it.
    kept_until: DateTime<Utc>,
    services: Arc<[ServiceId]>,
    /// The event that tells of it; none for what only the plan says.
    said_by: Option<EventRef>,
}

/// Silences and maintenance windows. One told of again under the same name is replaced, so that it can be moved
/// or ended early; an older telling never replaces a newer one. One that lists no services covers its subject.
#[derive(Debug, Default)]
pub struct Windows {
    by_name: HashMap<(SuppressionCause, Arc<str>), Window>,
    by_service: HashMap<ServiceId, Vec<(SuppressionCause, Arc<str>)>>,
}

impl Windows {
    /// Folds what is told of silences and maintenance windows; answers the services for which something changed.
    /// `chosen` is what a silence's matchers choose, where it has any.
    pub fn fold(&mut self, event: &Event, chosen: Option<Chosen>) -> Vec<ServiceId> {
        match &event.data {
            EventData::SilenceExpired(d) => {
                return self.end(SuppressionCause::Silence, &d.silence, event.occurred_at);
            }
            EventData::MaintenanceCancelled(d) => {
                return self.end(SuppressionCause::Maintenance, &d.maintenance, event.occurred_at);
            }
            _ => {}
        }
        let (cause, name, services, from, until) = match &event.data {
            EventData::SilenceCreated(d) => (SuppressionCause::Silence, &d.silence, &d.services, d.from, d.until),
            EventData::MaintenanceScheduled(d) => {
                (SuppressionCause::Maintenance, &d.maintenance, &d.services, d.from, d.until)
            }
            _ => return Vec::new(),
        };
        let name: Arc<str> = name.as_str().into();
        let (services, severities) = match &chosen {
            Some(chosen) => (chosen.services.as_slice(), chosen.severities.as_deref().map(Arc::from)),
            None if services.is_empty() => (std::slice::from_ref(&event.subject), None),
            None => (services.as_slice(), None),
        };
        let (said_at, services) = (event.occurred_at, services.into());
        let said_by = Some(EventRef::from(event));
        let known = self.by_name.get(&(cause, name.clone()));
        // Remembered as long as an earlier telling of it would be in force, should that be delivered again.
        let kept_until = known.map_or(until, |known| known.kept_until.max(until));
        let window = Window { cause, name, from, until, severities, said_at, kept_until, services, said_by };
        if known.is_some_and(|known| known.said_at > window.said_at || *known == window) {
            return Vec::new();
        }
        self.insert(window)
    }

    /// Takes a window of the plan; `false` if it is known, or was called off.
    pub fn plan(&mut self, name: &str, from: DateTime<Utc>, until: DateTime<Utc>, services: &[ServiceId]) -> bool {
        let (cause, name) = (SuppressionCause::Maintenance, Arc::from(name));
        let key = (cause, name);
        if self.by_name.contains_key(&key) {
            return false;
        }
        let (services, name) = (services.into(), key.1);
        let (severities, said_at, kept_until, said_by) = (None, from, until, None);
        self.insert(Window { cause, name, from, until, severities, said_at, kept_until, services, said_by });
        true
    }

    /// Ends a window early. One that isn't known yet is remembered as ended.
    fn end(&mut self, cause: SuppressionCause, name: &str, at: DateTime<Utc>) -> Vec<ServiceId> {
        let name: Arc<str> = name.into();
        match self.by_name.get_mut(&(cause, name.clone())) {
            Some(window) if window.said_at <= at && window.until > at => {
                (window.until, window.said_at) = (at, at);
                window.services.to_vec()
            }
            Some(_) => Vec::new(),
            None => {
                let kept_until = at + TimeDelta::days(7);
                let services = Arc::default();
                let (from, until, said_at) = (at, at, at);
                let (severities, said_by) = (None, None);
                self.insert(Window { cause, name, from, until, severities, said_at, kept_until, services, said_by })
            }
        }
    }

    fn insert(&mut self, window: Window) -> Vec<ServiceId> {
        let key = (window.cause, window.name.clone());
        let mut changed = self.remove(&key);
        for service in window.services.iter() {
            let names = self.by_service.entry(service.clone()).or_default();
            if !names.contains(&key) {
                names.push(key.clone());
            }
        }
        changed.extend_from_slice(&window.services);
        self.by_name.insert(key, window);
        changed
    }

    fn remove(&mut self, key: &(SuppressionCause, Arc<str>)) -> Vec<ServiceId> {
        let Some(window) = self.by_name.remove(key) else { return Vec::new() };
        for service in window.services.iter() {
            if let Some(names) = self.by_service.get_mut(service) {
                names.retain(|name| name != key);
                if names.is_empty() {
                    self.by_service.remove(service);
                }
            }
        }
        window.services.to_vec()
    }

    fn of<'a>(&'a self, service: &ServiceId) -> impl Iterator<Item = &'a Window> {
        self.by_service.get(service).into_iter().flatten().filter_map(|key| self.by_name.get(key))
    }

    /// The window that covers a service's alert at `now`: maintenance before silences, then by name.
    #[must_use]
    pub fn active(&self, service: &ServiceId, severity: Severity, now: DateTime<Utc>) -> Option<&Window> {
        let rank = |w: &&Window| (w.cause != SuppressionCause::Maintenance, w.name.clone());
        let covers = |w: &&Window| w.severities.as_ref().is_none_or(|severities| severities.contains(&severity));
        self.of(service).filter(|w| w.from <= now && now < w.until).filter(covers).min_by_key(rank)
    }

    /// The event that tells of a window of a service. The plan's own are told of under a name for each service.
    #[must_use]
    pub fn said(&self, service: &ServiceId, name: &str) -> Option<EventRef> {
        let told = format!("{name}/{service}");
        let named = |wanted: &str| self.of(service).find(|w| *w.name == *wanted).and_then(|w| w.said_by.clone());
        named(name).or_else(|| named(&told))
    }

    /// When a window of the service next begins or ends.
    #[must_use]
    pub fn next_change(&self, service: &ServiceId, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.of(service).flat_map(|w| [w.from, w.until]).filter(|at| *at > now).min()
    }

    /// Lets go of windows that are over.
    pub fn prune(&mut self, now: DateTime<Utc>) {
        let over: Vec<_> =
            self.by_name.iter().filter(|(_, w)| w.kept_until <= now).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use rebound_schemas::event::{MaintenanceScheduled, SilenceCreated, SilenceExpired};

    use super::*;
    use crate::testing;

    const CRITICAL: Severity = Severity::Critical;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn id(text: &str) -> ServiceId {
        ServiceId::new(text).unwrap()
    }

    fn event(said: i64, data: impl Into<EventData>) -> Event {
        testing::event("ops", &said.to_string(), "subject", at(said), data)
    }

    fn silence(said: i64, name: &str, services: &[&str], from: i64, until: i64) -> Event {
        let services = services.iter().map(|s| id(s)).collect();
        let (by, reason) = ("ann".into(), "quiet".into());
        event(
            said,
            SilenceCreated {
                silence: name.into(),
                services,
                matchers: vec![],
                from: at(from),
                until: at(until),
                by,
                reason,
            },
        )
    }

    #[test]
    fn a_window_covers_its_services_from_start_to_just_before_its_end() {
        let mut windows = Windows::default();
        assert_eq!(windows.fold(&silence(1, "s", &["a"], 10, 20), None), [id("a")]);
        let table = [(9, false), (10, true), (19, true), (20, false)];
        for (second, covered) in table {
            assert_eq!(windows.active(&id("a"), CRITICAL, at(second)).is_some(), covered, "at {second}");
            assert!(windows.active(&id("b"), CRITICAL, at(second)).is_none());
        }
        assert_eq!(windows.next_change(&id("a"), at(0)), Some(at(10)));
        assert_eq!(windows.next_change(&id("a"), at(10)), Some(at(20)));
        assert_eq!(windows.next_change(&id("a"), at(20)), None);
    }

    #[test]
    fn the_newest_telling_of_a_name_holds_and_an_empty_list_means_the_subject() {
        let mut windows = Windows::default();
        windows.fold(&silence(1, "s", &["a", "b"], 10, 100), None);
        assert_eq!(windows.fold(&silence(5, "s", &["a"], 10, 50), None), [id("a"), id("b"), id("a")]);
        assert!(windows.fold(&silence(1, "s", &["a", "b"], 10, 100), None).is_empty(), "redelivered, and older");
        assert!(
            windows.active(&id("a"), CRITICAL, at(60)).is_none()
                && windows.active(&id("b"), CRITICAL, at(20)).is_none()
        );
        windows.fold(&silence(6, "t", &[], 0, 10), None);
        assert!(windows.active(&id("subject"), CRITICAL, at(5)).is_some());
        windows.prune(at(99));
        windows.fold(&silence(1, "s", &["a", "b"], 10, 100), None);
        assert!(
            windows.active(&id("b"), CRITICAL, at(99)).is_none(),
            "a shorter one outlives the longer one it replaced"
        );
        windows.prune(at(1000));
        assert!(windows.by_name.is_empty() && windows.by_service.is_empty());
    }

    #[test]
    fn causes_are_ranked() {
        let mut windows = Windows::default();
        windows.fold(&silence(1, "s", &["a"], 0, 10), None);
        let (by, reason) = ("ann".into(), "work".into());
        let data = MaintenanceScheduled {
            maintenance: "m".into(),
            services: vec![id("a")],
            from: at(0),
            until: at(5),
            by,
            reason,
        };
        windows.fold(&event(2, data), None);
        let (a, parent) = (id("a"), "parent");
        let cause = |second, dependency, flapping| {
            let window = windows.active(&a, CRITICAL, at(second));
            suppression(Facts { window, dependency, flapping }).map(|s| (s.cause, s.by))
        };
        use SuppressionCause as Cause;
        assert_eq!(cause(1, Some(parent), Some(&a)), Some((Cause::Maintenance, "m".into())));
        assert_eq!(cause(6, Some(parent), Some(&a)), Some((Cause::Silence, "s".into())));
        assert_eq!(cause(10, Some(parent), Some(&a)), Some((Cause::Dependency, "parent".into())));
        assert_eq!(cause(10, None, Some(&a)), Some((Cause::Flapping, "a".into())));
        assert_eq!(cause(10, None, None), None);
    }

    proptest::proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// Of one silence the newest word holds, in whatever order and however often words come.
        #[test]
        fn the_newest_word_about_a_silence_holds_in_any_order(
            words in proptest::collection::btree_map(0..20_i64, proptest::option::of((0..30_i64, 1..30_i64)), 0..8),
            turn in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let words: Vec<Event> = words.iter().map(|(said, window)| match window {
                Some((from, length)) => silence(*said, "s", &["a"], *from, from + length),
                None => event(*said, SilenceExpired { silence: "s".into(), by: "ann".into(), reason: None }),
            }).collect();
            let start = if words.is_empty() { 0 } else { turn.index(words.len()) };
            let turned: Vec<&Event> = words[start..].iter().chain(&words).collect();
            let active = |told: &[&Event], second| {
                let mut windows = Windows::default();
                told.iter().for_each(|word| drop(windows.fold(word, None)));
                windows.active(&id("a"), CRITICAL, at(second)).is_some()
            };
            let holds = |second| match &words.last()?.data {
                EventData::SilenceCreated(data) => Some(data.from <= at(second) && at(second) < data.until),
                _ => None,
            };
            // From when all of it has been said.
            for second in 20..60 {
                let expected = holds(second).unwrap_or(false);
                proptest::prop_assert_eq!(active(&words.iter().collect::<Vec<_>>(), second), expected, "at {}", second);
                proptest::prop_assert_eq!(active(&turned, second), expected, "turned, at {}", second);
            }
        }
    }
}
