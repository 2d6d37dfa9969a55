//! MTTR and its companions from the incident fold: the one definition that the command line, the demo's summary,
//! the metrics and the tests of SQL use.
//!
//! Incidents that a correction excluded, and those whose recovery lies before their failure, are counted apart and
//! are in no figure. Open incidents are right-censored: in the Kaplan–Meier median and, once past their objective,
//! in the RTO attainment.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;
use serde::Serialize;

use crate::stats::{Attainment, Summary};
use crate::survival::{KaplanMeier, Observation};

/// Seed of the confidence intervals: the same history always shows the same figures.
pub const SEED: u64 = 0x5eed;

/// The figures of a set of incidents; times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Mttr {
    /// t3 − t0 of those that recovered: **the** MTTR.
    #[serde(rename = "time_to_recover_seconds")]
    pub recover: Option<Summary>,
    /// Kaplan–Meier median of t3 − t0 with open incidents censored; `None` while more than half are open.
    #[serde(rename = "survival_median_seconds")]
    pub survival_median: Option<f64>,
    /// Lower end of that median's 95 % confidence interval; `None` where it is open.
    #[serde(rename = "survival_median_low_seconds")]
    pub survival_low: Option<f64>,
    /// Upper end of it; `None` where it is open, as it is while too few have recovered.
    #[serde(rename = "survival_median_high_seconds")]
    pub survival_high: Option<f64>,
    /// t1 − t0.
    #[serde(rename = "time_to_detect_seconds")]
    pub detect: Option<Summary>,
    /// t2 − t1 where a person was first to act.
    #[serde(rename = "time_to_acknowledge_human_seconds")]
    pub acknowledge_human: Option<Summary>,
    /// t2 − t1 where automation was first to act.
    #[serde(rename = "time_to_acknowledge_automated_seconds")]
    pub acknowledge_automated: Option<Summary>,
    /// t3 − t1.
    #[serde(rename = "detected_to_recovered_seconds")]
    pub recover_from_detection: Option<Summary>,
    /// t4 − t1.
    #[serde(rename = "detected_to_resolved_seconds")]
    pub close: Option<Summary>,
    /// Attainment of the plan's recovery time objectives, of services that the plan knows.
    pub rto: Attainment,
    /// Incidents that have not recovered.
    pub open: usize,
    /// Incidents that a correction took out.
    pub excluded: usize,
    /// Incidents whose recovery lies before their first failure, or that begin after now.
    pub impossible: usize,
}

/// The figures of everything and of each service that had an incident.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MttrReport {
    /// All services together.
    pub overall: Mttr,
    /// Each service.
    pub services: BTreeMap<String, Mttr>,
}

/// The figures of a record as of `now`. Without a plan there are no objectives, and attainment counts nothing.
#[must_use]
pub fn mttr(record: &Record, plan: Option<&Plan>, now: DateTime<Utc>) -> MttrReport {
    let incidents: Vec<Incident> = record.incidents().collect();
    let rto = |service: &ServiceId| plan.and_then(|plan| plan.services().get(service)).map(|service| service.rto);
    let mut by_service: BTreeMap<&ServiceId, Vec<&Incident>> = BTreeMap::new();
    for incident in &incidents {
        by_service.entry(&incident.service).or_default().push(incident);
    }
    let services = by_service.into_iter().map(|(id, those)| (id.to_string(), Mttr::of(those, rto, now))).collect();
    MttrReport { overall: Mttr::of(&incidents, rto, now), services }
}

/// A time span in seconds, to the microsecond that the log keeps.
#[must_use]
pub fn seconds(span: TimeDelta) -> f64 {
    // An i64 of microseconds always fits: the log's times lie between 1970 and 2200.
    span.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6
}

/// How long an incident lasted or, censored, has lasted by `now`; `None` of an impossible one.
fn observe(incident: &Incident, now: DateTime<Utc>) -> Option<Observation> {
    Some(Observation { time: seconds(incident.lasted(now)?), happened: incident.recovered_at.is_some() })
}

/// The recovery times, in seconds, of incidents that count, open ones censored at `now`.
#[must_use]
pub fn observations<'a>(incidents: impl IntoIterator<Item = &'a Incident>, now: DateTime<Utc>) -> Vec<Observation> {
    let counted = incidents.into_iter().filter(|incident| !incident.is_excluded());
    counted.filter_map(|incident| observe(incident, now)).collect()
}

impl Mttr {
    /// The figures of these incidents as of `now`, with each service's recovery time objective.
    #[must_use]
    pub fn of<'a>(
        incidents: impl IntoIterator<Item = &'a Incident>,
        rto: impl Fn(&ServiceId) -> Option<Duration>,
        now: DateTime<Utc>,
    ) -> Self {
        Self::with_curve(incidents, rto, now, SEED).0
    }

    /// The same with a seed of one's own for the intervals, and the curve that the median is of.
    #[must_use]
    pub(crate) fn with_curve<'a>(
        incidents: impl IntoIterator<Item = &'a Incident>,
        rto: impl Fn(&ServiceId) -> Option<Duration>,
        now: DateTime<Utc>,
        seed: u64,
    ) -> (Self, KaplanMeier) {
        let mut figures = Self::default();
        let mut observations = Vec::new();
        let mut samples: [Vec<f64>; 6] = Default::default();
        for incident in incidents {
            if incident.is_excluded() {
                figures.excluded += 1;
                continue;
            }
            let Some(observation) = observe(incident, now) else {
                figures.impossible += 1;
                continue;
            };
            let Observation { time: lasted, happened: recovered } = observation;
            figures.open += usize::from(!recovered);
            observations.push(observation);
            if let Some(objective) = rto(&incident.service) {
                figures.rto.count(lasted, recovered, objective.as_secs_f64());
            }
            let automated = incident.acknowledged.as_ref().map(|first| first.automated);
            let spans = [
                incident.time_to_recover(),
                incident.time_to_detect(),
                incident.time_to_acknowledge().filter(|_| automated == Some(false)),
                incident.time_to_acknowledge().filter(|_| automated == Some(true)),
                incident.time_to_recover_from_detection(),
                incident.time_to_close(),
            ];
            for (sample, span) in samples.iter_mut().zip(spans) {
                sample.extend(span.map(seconds));
            }
        }
        let [recover, detect, human, automated, from_detection, close] =
            samples.map(|sample| Summary::of(&sample, seed));
        figures.recover = recover;
        figures.detect = detect;
        figures.acknowledge_human = human;
        figures.acknowledge_automated = automated;
        figures.recover_from_detection = from_detection;
        figures.close = close;
        let curve = KaplanMeier::fit(&observations);
        figures.survival_median = curve.median();
        (figures.survival_low, figures.survival_high) = curve.median_interval();
        (figures, curve)
    }
}
