//! When services were observed, and what follows: availability, coverage, MTBF.
//!
//! A service is observed from a probe until the next, but no longer than the silence after which its policy calls it
//! unobserved: what nobody looked at is neither up nor down, and is in coverage alone.
//!
//! | | |
//! |---|---|
//! | calendar | from the first probe (or the period's start, if that is later) until now (or its end) |
//! | observed | stretches of the calendar in which it was observed |
//! | maintenance | windows of the plan and those told of, within observed |
//! | down | t0 to t3 of incidents that count, within observed, outside maintenance |
//! | good | observed − maintenance − down |

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;
use serde::Serialize;

use crate::spans::Spans;
use crate::stats::{availability, coverage, mean_time_between_failures};

/// Silence after which a service that no plan knows is unobserved.
pub const SILENCE: Duration = Duration::from_secs(300);
/// Most windows of one recurring maintenance that are looked at.
const MOST_WINDOWS: usize = 20_000;

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn silence_of(plan: Option<&Plan>, service: &ServiceId) -> i64 {
    micros(plan.and_then(|plan| plan.policy_of(service)).map_or(SILENCE, |policy| policy.silent_after))
}

/// The shortest and the longest silence that matters to any service, in microseconds.
pub(crate) fn silences(plan: Option<&Plan>) -> (i64, i64) {
    let policies = plan.into_iter().flat_map(|plan| plan.policies().values());
    let silences = policies.map(|policy| micros(policy.silent_after));
    silences.fold((micros(SILENCE), micros(SILENCE)), |(least, most), one| (least.min(one), most.max(one)))
}

/// The observations before and after a pause, in microseconds; none before the first, none after the last.
type Break = (Option<i64>, Option<i64>);

/// Where each service's observations begin, pause and end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Breaks(BTreeMap<ServiceId, Vec<Break>>);

impl Breaks {
    pub(crate) fn add(&mut self, service: ServiceId, before: Option<i64>, after: Option<i64>) {
        self.0.entry(service).or_default().push((before, after));
    }
}

/// When each service was observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed(BTreeMap<ServiceId, Watch>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Watch {
    /// The first observation of all, in microseconds: the calendar begins no earlier.
    first: i64,
    spans: Spans,
}

impl Observed {
    /// `first`: the first observations, where they may lie before what the breaks are of.
    pub(crate) fn of(breaks: Breaks, first: BTreeMap<ServiceId, i64>, plan: Option<&Plan>) -> Self {
        let seen = |(service, first)| (service, Watch { first, spans: Spans::default() });
        let mut watched: BTreeMap<ServiceId, Watch> = first.into_iter().map(seen).collect();
        for (service, mut breaks) in breaks.0 {
            let silence = silence_of(plan, &service);
            breaks.sort_unstable();
            let begins = breaks.iter().filter_map(|(_, after)| *after);
            let mut ends: Vec<i64> = breaks.iter().filter_map(|(before, _)| *before).collect();
            ends.sort_unstable();
            // A pause that is no silence for this service is bridged by what is added to the stretch before it.
            let stretches = begins.zip(ends).map(|(begin, end)| (begin, end.saturating_add(silence)));
            let spans = Spans::of(stretches);
            let begin = spans.stretches().first().map_or(i64::MAX, |(begin, _)| *begin);
            let watch = watched.entry(service).or_insert(Watch { first: begin, spans: Spans::default() });
            *watch = Watch { first: watch.first.min(begin), spans };
        }
        Self(watched)
    }

    /// The services that were observed at all.
    pub fn services(&self) -> impl Iterator<Item = &ServiceId> {
        self.0.keys()
    }

    /// The first observation of a service, in microseconds.
    pub(crate) fn first(&self, service: &ServiceId) -> Option<i64> {
        self.0.get(service).map(|watch| watch.first)
    }

    /// Stretches in which a service was observed.
    #[must_use]
    pub fn stretches(&self, service: &ServiceId) -> Option<&Spans> {
        self.0.get(service).map(|watch| &watch.spans)
    }
}

/// How long a service, or several together, were there; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Uptime {
    /// Services that were observed.
    pub services: usize,
    /// Calendar time, summed over them.
    pub calendar_seconds: f64,
    /// Observed.
    pub observed_seconds: f64,
    /// Of that, in maintenance.
    pub maintenance_seconds: f64,
    /// Of the rest, down.
    pub down_seconds: f64,
    /// Failures that began while observed and outside maintenance.
    pub failures: usize,
    /// Good ÷ (observed − maintenance), 0 to 1.
    pub availability: Option<f64>,
    /// Observed ÷ calendar, 0 to 1: how much of the time availability speaks of.
    pub coverage: Option<f64>,
    /// Good ÷ failures, in seconds; none without a failure.
    pub mtbf_seconds: Option<f64>,
}

/// What a service's uptime is computed over.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// What happened.
    pub record: &'a Record,
    /// The plan, for its maintenance.
    pub plan: Option<&'a Plan>,
    /// When services were observed.
    pub observed: &'a Observed,
    /// Begin of the calendar; none: each service's first probe.
    pub from: Option<DateTime<Utc>>,
    /// End of it.
    pub until: DateTime<Utc>,
}

impl Uptime {
    /// The uptime of these services, of which these are all incidents; `None` if none was observed.
    #[must_use]
    pub fn of<'a>(
        services: impl IntoIterator<Item = &'a ServiceId>,
        incidents: &[&Incident],
        scope: Scope<'_>,
    ) -> Option<Self> {
        let mut by_service: BTreeMap<&ServiceId, Vec<&Incident>> = BTreeMap::new();
        for incident in incidents.iter().filter(|incident| !incident.is_excluded() && !incident.is_impossible()) {
            by_service.entry(&incident.service).or_default().push(incident);
        }
        let mut sum = Self::default();
        for service in services {
            let Some(Watch { first, spans }) = scope.observed.0.get(service) else { continue };
            let until = scope.until.timestamp_micros();
            let from = scope.from.map_or(*first, |from| from.timestamp_micros().max(*first));
            let calendar = Spans::of([(from, until)]);
            let observed = spans.within(&calendar);
            let maintenance = observed.within(&maintenance(service, scope, from, until));
            let counted = observed.without(&maintenance);
            let incidents = by_service.get(service).map_or(&[][..], Vec::as_slice);
            let down = Spans::of(incidents.iter().map(|incident| {
                let end = incident.recovered_at.map_or(until, |at| at.timestamp_micros());
                (incident.first_failure_at.timestamp_micros(), end)
            }));
            sum.services += 1;
            sum.calendar_seconds += calendar.seconds();
            sum.observed_seconds += observed.seconds();
            sum.maintenance_seconds += maintenance.seconds();
            sum.down_seconds += counted.within(&down).seconds();
            let began = |incident: &&&Incident| counted.contains(incident.first_failure_at.timestamp_micros());
            sum.failures += incidents.iter().filter(began).count();
        }
        let counted = sum.observed_seconds - sum.maintenance_seconds;
        let good = counted - sum.down_seconds;
        sum.availability = availability(good, sum.observed_seconds, sum.maintenance_seconds);
        sum.coverage = coverage(sum.observed_seconds, sum.calendar_seconds);
        sum.mtbf_seconds = mean_time_between_failures(good, sum.failures);
        (sum.services > 0).then_some(sum)
    }
}

/// Windows of maintenance of a service that may touch a stretch of time.
fn maintenance(service: &ServiceId, scope: Scope<'_>, from: i64, until: i64) -> Spans {
    let span = |(from, until): (DateTime<Utc>, DateTime<Utc>)| (from.timestamp_micros(), until.timestamp_micros());
    let mut windows: Vec<(i64, i64)> = scope.record.maintenance_of(service).map(span).collect();
    let planned = scope.plan.into_iter().flat_map(|plan| plan.maintenance().values());
    for planned in planned.filter(|planned| planned.services.is_empty() || planned.services.contains(service)) {
        let mut at = from;
        for _ in 0..MOST_WINDOWS {
            let window = DateTime::from_timestamp_micros(at).and_then(|at| planned.window_at(at));
            let Some((begin, end)) = window.map(span).filter(|(begin, end)| *begin < until && *end > at) else { break };
            windows.push((begin, end));
            at = end;
        }
    }
    Spans::of(windows)
}

#[cfg(test)]
mod tests {
    use rebound_schemas::event::MaintenanceScheduled;
    use rebound_schemas::incident::fold;

    use super::*;
    use crate::fixture::{at, event, excluded, opened, outage, resolved, service};

    /// Probes of one service, with the pauses that the query finds.
    fn observed(name: &str, stretches: &[(i64, i64)]) -> Observed {
        let mut breaks = Breaks::default();
        let mut before = None;
        for (from, until) in stretches {
            breaks.add(service(name), before, Some(at(*from).timestamp_micros()));
            before = Some(at(*until).timestamp_micros());
        }
        breaks.add(service(name), before, None);
        Observed::of(breaks, BTreeMap::new(), None)
    }

    /// By hand: probes from 0 to 10,000 s and from 20,000 to 30,000 s; each stretch goes on for 300 s of silence.
    #[test]
    fn availability_is_of_what_was_observed_outside_maintenance() {
        let window = MaintenanceScheduled {
            maintenance: "m".into(),
            services: vec![service("db")],
            from: at(1_000),
            until: at(2_000),
            by: "ann".into(),
            reason: "disk".into(),
        };
        let events = [
            vec![event("console", "m", "db", 0, window)],
            // Within the window: excluded. The next two overlap: 5,000 to 5,600 is down once.
            outage(1, "db", 1_200, 1_900),
            outage(2, "db", 5_000, 5_400),
            outage(3, "db", 5_200, 5_600),
            // Begins in the dark, of which 100 s are seen.
            outage(4, "db", 15_000, 20_100),
            // Taken out, and one that is impossible.
            outage(5, "db", 21_000, 29_000),
            vec![excluded(5, "db", 30_000)],
            vec![opened(6, "db", 25_000, 25_010), resolved(6, "db", 24_000, 25_020)],
            // Open: down until the end of the calendar.
            vec![opened(7, "db", 29_000, 29_010)],
        ]
        .concat();
        let record = fold(&events);
        let incidents: Vec<_> = record.incidents().collect();
        let incidents: Vec<_> = incidents.iter().collect();
        let observed = observed("db", &[(0, 10_000), (20_000, 30_000)]);
        let scope = Scope { record: &record, plan: None, observed: &observed, from: None, until: at(40_000) };
        let found = Uptime::of([&service("db"), &service("nobody")], &incidents, scope).unwrap();
        assert_eq!((found.services, found.calendar_seconds, found.observed_seconds), (1, 40_000.0, 20_600.0));
        // 600 + 100 + (30,300 − 29,000)
        assert_eq!((found.maintenance_seconds, found.down_seconds, found.failures), (1_000.0, 2_000.0, 3));
        assert_eq!(found.availability, Some(17_600.0 / 19_600.0));
        assert_eq!((found.coverage, found.mtbf_seconds), (Some(0.515), Some(17_600.0 / 3.0)));

        let later = Scope { from: Some(at(20_000)), until: at(29_000), ..scope };
        let found = Uptime::of([&service("db")], &incidents, later).unwrap();
        assert_eq!((found.observed_seconds, found.down_seconds, found.failures), (9_000.0, 100.0, 0));
        assert_eq!((found.coverage, found.mtbf_seconds), (Some(1.0), None));
        assert_eq!(Uptime::of([&service("nobody")], &incidents, scope), None);
        let before = Scope { until: at(-10), ..scope };
        let found = Uptime::of([&service("db")], &incidents, before).unwrap();
        assert_eq!((found.availability, found.coverage), (None, None), "nothing to divide by is no figure");
    }

    #[test]
    fn a_pause_shorter_than_the_policys_silence_is_none() {
        let observed = observed("api", &[(0, 100), (350, 400), (900, 900)]);
        let spans = observed.stretches(&service("api")).unwrap();
        let seconds = |from: i64, until: i64| (at(from).timestamp_micros(), at(until).timestamp_micros());
        assert_eq!(spans.stretches(), [seconds(0, 700), seconds(900, 1_200)]);
    }
}
