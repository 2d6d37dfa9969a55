//! What is odd about incidents: those that overlap, those that were recorded twice, those that can't be. Told of and
//! counted, never silently merged: whoever reports knows what the log is worth.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::incident::Incident;
use rebound_schemas::{IncidentId, ServiceId};

use crate::spans::joined;

/// Whether an incident can be in figures at all: t3 is not before t0, and t0 not after now.
#[must_use]
pub fn is_impossible(incident: &Incident, now: DateTime<Utc>) -> bool {
    incident.lasted(now).is_none()
}

/// Whether it recovered at the moment it began.
#[must_use]
pub fn is_zero_length(incident: &Incident) -> bool {
    incident.time_to_recover() == Some(TimeDelta::zero())
}

/// Those that begin before an earlier one of the same service has ended, among these.
#[must_use]
pub fn overlapping<'a>(incidents: impl IntoIterator<Item = &'a Incident>) -> BTreeSet<&'a IncidentId> {
    let mut spans: Vec<(&ServiceId, DateTime<Utc>, DateTime<Utc>, &IncidentId)> = incidents
        .into_iter()
        .map(|it| (&it.service, it.first_failure_at, it.recovered_at.unwrap_or(DateTime::<Utc>::MAX_UTC), &it.id))
        .collect();
    spans.sort_unstable();
    let mut reach: Option<(&ServiceId, DateTime<Utc>)> = None;
    let mut overlapping = BTreeSet::new();
    for (service, from, until, id) in spans {
        match &mut reach {
            Some((same, end)) if *same == service => {
                if from < *end {
                    overlapping.insert(id);
                }
                *end = until.max(*end);
            }
            _ => reach = Some((service, until)),
        }
    }
    overlapping
}

/// Those with the t0 and t3 of another of the same service, and that other one: of several the one with the smallest id.
#[must_use]
pub fn duplicates<'a>(incidents: impl IntoIterator<Item = &'a Incident>) -> BTreeMap<&'a IncidentId, &'a IncidentId> {
    let mut alike: BTreeMap<_, Vec<&IncidentId>> = BTreeMap::new();
    for it in incidents {
        alike.entry((&it.service, it.first_failure_at, it.recovered_at)).or_default().push(&it.id);
    }
    let mut duplicates = BTreeMap::new();
    for mut ids in alike.into_values() {
        ids.sort_unstable();
        duplicates.extend(ids[1..].iter().map(|id| (*id, ids[0])));
    }
    duplicates
}

/// A stretch in which a service was down, and the incidents that it is made of, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// t0 of the first incident.
    pub started_at: DateTime<Utc>,
    /// t3 of the last; `None` while it lasts.
    pub ended_at: Option<DateTime<Utc>>,
    /// The incidents.
    pub incidents: Vec<&'a IncidentId>,
}

/// The stretches in which services were down by these incidents: those that overlap or touch are one.
#[must_use]
pub fn outages<'a>(incidents: impl IntoIterator<Item = &'a Incident>) -> Vec<Outage<'a>> {
    let mut by_service: BTreeMap<&ServiceId, Vec<_>> = BTreeMap::new();
    for it in incidents {
        let until = it.recovered_at.unwrap_or(DateTime::<Utc>::MAX_UTC);
        by_service.entry(&it.service).or_default().push((it.first_failure_at, until, &it.id));
    }
    let mut outages = Vec::new();
    for (service, spans) in by_service {
        for (started_at, until, incidents) in joined(spans) {
            let ended_at = (until < DateTime::<Utc>::MAX_UTC).then_some(until);
            outages.push(Outage { service, started_at, ended_at, incidents });
        }
    }
    outages
}

#[cfg(test)]
mod tests {
    use rebound_schemas::incident::fold;

    use super::*;
    use crate::fixture::{at, opened, outage};

    #[test]
    fn what_is_odd_is_told_and_what_overlaps_is_one_outage() {
        let events = [
            outage(1, "db", 0, 100),
            outage(2, "db", 50, 200),
            // Touches the one before, and took no time.
            outage(3, "db", 200, 200),
            outage(4, "db", 300, 400),
            outage(5, "db", 300, 400),
            outage(6, "api", 50, 60),
            vec![opened(7, "api", 500, 510), opened(8, "api", 600, 610)],
            // Ends before it began.
            outage(9, "web", 10, 5),
        ]
        .concat();
        let incidents: Vec<Incident> = fold(&events).incidents().collect();
        let possible = || incidents.iter().filter(|it| !is_impossible(it, at(1_000)));
        assert_eq!(possible().count(), 8);
        assert_eq!(incidents.iter().filter(|it| is_impossible(it, at(550))).count(), 2, "one has not begun by then");
        let names: Vec<_> = overlapping(possible()).into_iter().map(|id| id.as_str()).collect();
        assert_eq!(names, ["inc-2", "inc-5", "inc-8"]);
        let twice: Vec<_> = duplicates(possible()).into_iter().map(|(id, of)| (id.as_str(), of.as_str())).collect();
        assert_eq!(twice, [("inc-5", "inc-4")]);
        assert_eq!(possible().filter(|it| is_zero_length(it)).count(), 1);
        let stretches: Vec<_> = outages(possible())
            .into_iter()
            .map(|it| (it.service.to_string(), it.started_at, it.ended_at, it.incidents.len()))
            .collect();
        let row = |service: &str, from, until: Option<i64>, n| (service.to_owned(), at(from), until.map(at), n);
        let expected = [
            row("api", 50, Some(60), 1),
            row("api", 500, None, 2),
            row("db", 0, Some(200), 3),
            row("db", 300, Some(400), 2),
        ];
        assert_eq!(stretches, expected);
    }
}
