//! The recovery report: every figure of a set of incidents, for all and by service, tier, site, cause, method…
//!
//! Pure: the incident fold, what surrounds it, when services were observed, and `now` in; figures out. Each figure is
//! defined elsewhere once ([`stats`](crate::stats), [`survival`](crate::survival), [`mttr`](crate::mttr),
//! [`observed`](crate::observed)); here they are put together. `docs/statistics.md` has their formulas.

mod case;
mod dora;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::event::RecoveryOutcome;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;
use serde::Serialize;

pub use case::{Case, Dimension, of_service};
pub use dora::{Band, Dora};

use crate::mttr::{Mttr, seconds};
use crate::observed::{Observed, Scope, Uptime};
use crate::oddities;
use crate::stats::Proportion;
use crate::surroundings::{Levels, Surroundings, Usage};

/// A service that fails again within this after it recovered has relapsed.
pub const RELAPSE_WITHIN: TimeDelta = TimeDelta::hours(24);
/// Times after which the share that is still down is published, in seconds.
pub const STILL_DOWN_AFTER: [f64; 6] = [60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What happened.
    pub record: &'a Record,
    /// The plan, for tiers, sites and objectives.
    pub plan: Option<&'a Plan>,
    /// What surrounds it.
    pub surroundings: &'a Surroundings,
    /// When services were observed.
    pub observed: &'a Observed,
    /// Until when open incidents have lasted.
    pub now: DateTime<Utc>,
    /// Only incidents whose t0 is not before this.
    pub since: Option<DateTime<Utc>>,
    /// Only incidents whose t0 is before this.
    pub until: Option<DateTime<Utc>>,
    /// Only incidents that are this in a dimension; all must hold.
    pub only: &'a [(Dimension, String)],
    /// Seed of the intervals.
    pub seed: u64,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// As of when.
    pub now: DateTime<Utc>,
    /// Since when, if not from the beginning.
    pub since: Option<DateTime<Utc>>,
    /// Until when, if not until now.
    pub until: Option<DateTime<Utc>>,
    /// What it is grouped by.
    pub by: Option<Dimension>,
    /// Seed of the intervals.
    pub seed: u64,
    /// Everything together.
    pub all: Figures,
    /// Each group, by name.
    pub groups: BTreeMap<String, Figures>,
}

/// The share that is still down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StillDown {
    /// This long after t0, in seconds.
    pub after_seconds: f64,
    /// Share, 0 to 1.
    pub share: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// Error rates measured while something was down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// Windows measured.
    pub windows: usize,
    /// Their length, in seconds.
    pub seconds: f64,
    /// Mean share of failed requests by time, 0 to 1.
    pub mean: f64,
    /// The worst of a window.
    pub worst: f64,
}

/// What customers had of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Impact {
    /// Services that were down.
    pub services: usize,
    /// Time that they were down, overlaps of one service counted once, in seconds.
    pub down_seconds: f64,
    /// Requests while they were, where throughput was measured.
    pub requests: Option<f64>,
    /// Of which failed.
    pub failed_requests: Option<f64>,
}

/// The use of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ResourceUse {
    /// Measurements.
    pub n: usize,
    /// Mean utilisation, 0 to 1.
    pub mean: f64,
    /// The highest.
    pub max: f64,
}

/// Every figure of a set of incidents. What there is nothing to say of is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Incidents, the excluded and impossible ones too.
    pub incidents: usize,
    /// Of those that count, how many recovered at the moment they began.
    pub zero_length: usize,
    /// Of those that count, how many began before an earlier one of the same service had ended.
    pub overlapping: usize,
    /// Times.
    #[serde(flatten)]
    pub times: Mttr,
    /// Kaplan–Meier: who is still down after how long.
    pub still_down: Vec<StillDown>,
    /// Recoveries that succeeded, of those that ran to an end.
    pub success: Proportion,
    /// Recovered incidents whose service failed again within [`RELAPSE_WITHIN`], of those that had that long.
    pub relapse: Proportion,
    /// Recovered within the objective, of those that recovered or are past it.
    pub rto_met: Proportion,
    /// Lost no more data than the objective allows, of those of which it is known.
    pub rpo_met: Proportion,
    /// Deployments that failed; by what a service is, and for all.
    pub change_failure: Option<Proportion>,
    /// Availability, coverage, MTBF; likewise.
    pub uptime: Option<Uptime>,
    /// Bands of DORA.
    pub dora: Dora,
    /// Use of resources while something was down.
    pub resource_use: BTreeMap<String, ResourceUse>,
    /// Error rates while something was down.
    pub error_rate: Option<Errors>,
    /// Customer impact.
    pub impact: Impact,
}

/// The figures of everything that the inputs let through and, where asked for, of each group.
#[must_use]
pub fn report(inputs: &Inputs<'_>, by: Option<Dimension>) -> Report {
    let cases = cases(inputs);
    let chosen: Vec<&Case> = cases.iter().filter(|case| inputs.lets_through(case)).collect();
    let services = inputs.services(&chosen);
    let begins = begins(&cases);
    let whole = Whole { inputs, begins: &begins };
    let all = whole.figures(&chosen, by_service(inputs.only).then_some(&services));
    let mut groups = BTreeMap::new();
    if let Some(dimension) = by {
        let mut members: BTreeMap<String, (Vec<&Case>, BTreeSet<&ServiceId>)> = BTreeMap::new();
        for case in &chosen {
            members.entry(case.is(dimension, inputs.plan)).or_default().0.push(case);
        }
        // A service without an incident has figures all the same: it was available.
        if dimension.is_of_services() {
            for service in &services {
                members.entry(of_service(dimension, service, inputs.plan)).or_default().1.insert(service);
            }
        }
        let speaks = dimension.is_of_services() && by_service(inputs.only);
        let figures = |(name, (cases, services)): (String, (Vec<&Case>, BTreeSet<&ServiceId>))| {
            (name, whole.figures(&cases, speaks.then_some(&services)))
        };
        groups = members.into_iter().map(figures).collect();
    }
    Report { now: inputs.now, since: inputs.since, until: inputs.until, by, seed: inputs.seed, all, groups }
}

/// Whether what is chosen is chosen by service alone: only then is there an uptime to speak of.
fn by_service(only: &[(Dimension, String)]) -> bool {
    only.iter().all(|(dimension, _)| dimension.is_of_services())
}

/// Every incident with what it is in each dimension.
#[must_use]
pub fn cases(inputs: &Inputs<'_>) -> Vec<Case> {
    let recoveries: BTreeMap<_, _> = inputs.record.recoveries().map(|it| (it.id.clone(), it)).collect();
    let case = |incident: Incident| Case::of(incident, &recoveries, inputs.surroundings, inputs.plan);
    inputs.record.incidents().map(case).collect()
}

impl Inputs<'_> {
    /// Whether a case is one that is asked for.
    #[must_use]
    pub fn lets_through(&self, case: &Case) -> bool {
        self.has(case.incident.first_failure_at)
            && self.only.iter().all(|(dimension, value)| case.is(*dimension, self.plan) == *value)
    }

    /// Whether a time is in the period.
    fn has(&self, at: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }

    /// Until when there is anything to tell of.
    fn end(&self) -> DateTime<Utc> {
        self.until.map_or(self.now, |until| until.min(self.now))
    }

    /// The services that are asked for and that anything is known of.
    fn services<'a>(&'a self, chosen: &'a [&Case]) -> BTreeSet<&'a ServiceId> {
        let of_services = self.only.iter().filter(|(dimension, _)| dimension.is_of_services());
        let wanted = |service: &&ServiceId| {
            of_services.clone().all(|(dimension, value)| of_service(*dimension, service, self.plan) == *value)
        };
        let deployed = self.surroundings.deployments().map(|(service, _)| service);
        let known = self.observed.services().chain(deployed).filter(wanted);
        known.chain(chosen.iter().map(|case| &case.incident.service)).collect()
    }
}

/// When incidents that count began, by service and in order.
pub(crate) type Begins<'a> = BTreeMap<&'a ServiceId, Vec<DateTime<Utc>>>;

/// Whether a service failed again soon after it recovered; `None` if it has not had that long.
pub(crate) fn relapsed(case: &Case, begins: &Begins<'_>, now: DateTime<Utc>) -> Option<bool> {
    let recovered = case.incident.recovered_at?;
    let begins = begins.get(&case.incident.service).map_or(&[][..], Vec::as_slice);
    let next =
        begins.get(begins.partition_point(|begin| {
            *begin < recovered.max(case.incident.first_failure_at + TimeDelta::microseconds(1))
        }));
    let again = next.is_some_and(|next| *next - recovered <= RELAPSE_WITHIN);
    (again || recovered + RELAPSE_WITHIN <= now).then_some(again)
}

/// See [`Begins`].
pub(crate) fn begins(cases: &[Case]) -> Begins<'_> {
    let mut begins = Begins::new();
    for case in cases.iter().filter(|case| case.counts()) {
        begins.entry(&case.incident.service).or_default().push(case.incident.first_failure_at);
    }
    for begins in begins.values_mut() {
        begins.sort_unstable();
    }
    begins
}

struct Whole<'a> {
    inputs: &'a Inputs<'a>,
    begins: &'a Begins<'a>,
}

impl Whole<'_> {
    fn figures(&self, cases: &[&Case], services: Option<&BTreeSet<&ServiceId>>) -> Figures {
        let inputs = self.inputs;
        let rto = |service: &ServiceId| Some(inputs.plan?.services().get(service)?.rto);
        let incidents: Vec<&Incident> = cases.iter().map(|case| &case.incident).collect();
        let counted: Vec<&Case> = cases.iter().copied().filter(|case| case.counts()).collect();
        let (times, curve) = Mttr::with_curve(incidents.iter().copied(), rto, inputs.now, inputs.seed);
        let still_down = STILL_DOWN_AFTER.map(|after_seconds| {
            let (low, high) = curve.survival_interval(after_seconds);
            StillDown { after_seconds, share: curve.survival(after_seconds), low, high }
        });
        let scope = Scope {
            record: inputs.record,
            plan: inputs.plan,
            observed: inputs.observed,
            from: inputs.since,
            until: inputs.end(),
        };
        let change_failure =
            services.map(|services| self.chosen_deployments(services).map(|(_, failed)| failed).collect());
        let deployments_a_day = services.and_then(|services| self.deployments_a_day(services));
        let dora = Dora::of(times.recover.as_ref(), change_failure, deployments_a_day);
        let (resource_use, error_rate, impact) = self.measured(&counted);
        Figures {
            incidents: cases.len(),
            zero_length: counted.iter().filter(|case| oddities::is_zero_length(&case.incident)).count(),
            overlapping: oddities::overlapping(counted.iter().map(|case| &case.incident)).len(),
            still_down: if counted.is_empty() { Vec::new() } else { still_down.to_vec() },
            success: success(&counted),
            relapse: self.relapse(&counted),
            rto_met: times.rto.proportion(),
            rpo_met: self.rpo(&counted),
            change_failure,
            uptime: services.and_then(|services| Uptime::of(services.iter().copied(), &incidents, scope)),
            dora,
            resource_use,
            error_rate,
            impact,
            times,
        }
    }

    fn relapse(&self, cases: &[&Case]) -> Proportion {
        cases.iter().filter_map(|case| relapsed(case, self.begins, self.inputs.now)).collect()
    }

    fn rpo(&self, cases: &[&Case]) -> Proportion {
        cases.iter().filter_map(|case| case.rpo_met(self.inputs.plan)).collect()
    }

    fn chosen_deployments<'a>(
        &'a self,
        services: &'a BTreeSet<&ServiceId>,
    ) -> impl Iterator<Item = (DateTime<Utc>, bool)> + 'a {
        let inputs = self.inputs;
        let deployments = inputs.surroundings.deployments().filter(|(service, _)| services.contains(service));
        let deployments = deployments.map(|(_, deployment)| (deployment.at, deployment.failed));
        deployments.filter(move |(at, _)| inputs.has(*at))
    }

    /// Deployments a day since the period began or, without one, since the first; none within less than a week.
    fn deployments_a_day(&self, services: &BTreeSet<&ServiceId>) -> Option<f64> {
        let times: Vec<DateTime<Utc>> = self.chosen_deployments(services).map(|(at, _)| at).collect();
        let from = self.inputs.since.or(times.iter().min().copied())?;
        let days = seconds(self.inputs.end() - from) / 86_400.0;
        (days >= 7.0 && !times.is_empty()).then(|| times.len() as f64 / days)
    }

    fn measured(&self, cases: &[&Case]) -> (BTreeMap<String, ResourceUse>, Option<Errors>, Impact) {
        let (mut levels, mut usage) = (Levels::default(), BTreeMap::<&str, Usage>::new());
        for mark in cases.iter().filter_map(|case| self.inputs.surroundings.mark(&case.incident)) {
            levels.merge(&mark.levels);
            for (name, used) in &mark.resources {
                usage.entry(name).or_default().merge(used);
            }
        }
        let resource = |(name, used): (&str, Usage)| {
            Some((name.to_owned(), ResourceUse { n: used.n, mean: used.mean()?, max: used.max }))
        };
        let errors = levels.error_rate().map(|mean| Errors {
            windows: levels.windows,
            seconds: levels.seconds,
            mean,
            worst: levels.worst,
        });
        let mut down: BTreeMap<&ServiceId, Vec<(f64, f64)>> = BTreeMap::new();
        for case in cases {
            let from = case.incident.first_failure_at.timestamp_micros() as f64 / 1e6;
            let lasted = case.incident.lasted(self.inputs.now).map_or(0.0, seconds);
            down.entry(&case.incident.service).or_default().push((from, from + lasted));
        }
        let requests = |of: f64| (levels.counted > 0).then_some(of);
        let impact = Impact {
            services: down.len(),
            down_seconds: down.values().map(|spans| crate::stats::union_length(spans)).sum(),
            requests: requests(levels.requests),
            failed_requests: requests(levels.failed),
        };
        (usage.into_iter().filter_map(resource).collect(), errors, impact)
    }
}

/// Recoveries that succeeded, of those that ran to an end; called off ones never ran.
fn success(cases: &[&Case]) -> Proportion {
    let ended = cases.iter().flat_map(|case| case.ended());
    ended.map(|outcome| outcome == RecoveryOutcome::Succeeded).collect()
}
