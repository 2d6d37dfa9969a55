//! What follows from incidents: whether objectives were met, when services were down, and how available they were.
//! Each figure is one of [`report`](crate::report)'s or [`observed`](crate::observed)'s.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::event::RecoveryOutcome;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::{Plan, Service};

use super::{batch, boolean, count, double, long, text, time};
use crate::chronicle::{Plans, Promise};
use crate::mttr::seconds;
use crate::observed::{Observed, Scope, Uptime};
use crate::oddities;
use crate::report::{self, Case, Dimension, Inputs};
use crate::stats;
use crate::surroundings::Levels;

/// Rows of `availability_daily` at most: a thousand services over ten years.
const MOST_DAYS: usize = 4_000_000;

fn tier<'a>(plan: Option<&'a Plan>, service: &ServiceId) -> Option<&'a str> {
    Some(planned(plan, service)?.tier.as_str())
}

fn site<'a>(plan: Option<&'a Plan>, service: &ServiceId) -> Option<&'a str> {
    Some(planned(plan, service)?.site.as_str())
}

fn planned<'a>(plan: Option<&'a Plan>, service: &ServiceId) -> Option<&'a Service> {
    plan?.services().get(service)
}

/// `attainment`: the cases of a report over everything, and what was promised when they began.
#[must_use]
pub fn attainment(inputs: &Inputs<'_>, plans: &Plans) -> RecordBatch {
    struct Row<'a> {
        case: &'a Case,
        lasted: f64,
        words: [String; 5],
        relapsed: Option<bool>,
        promised: Option<Promise>,
        levels: Levels,
    }
    let (plan, now) = (inputs.plan, inputs.now);
    let cases = report::cases(inputs);
    let begins = report::begins(&cases);
    let promises = plans.promises();
    let counting = cases.iter().filter(|case| case.counts());
    let rows = counting.filter_map(|case| {
        let Case { incident, .. } = case;
        let told = promises.get(&incident.service).map_or(&[][..], Vec::as_slice);
        let words = [Dimension::Tier, Dimension::Site, Dimension::Cause, Dimension::Method, Dimension::Automation];
        Some(Row {
            case,
            lasted: incident.lasted(now).map(seconds)?,
            words: words.map(|dimension| case.is(dimension, plan)),
            relapsed: report::relapsed(case, &begins, now),
            promised: crate::chronicle::at(told, incident.first_failure_at),
            levels: inputs.surroundings.mark(incident).map_or_else(Levels::default, |mark| mark.levels),
        })
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let service = |row: &Row<'_>| planned(plan, &row.case.incident.service);
    let recovered = |row: &Row<'_>| row.case.incident.recovered_at.is_some();
    let rto = |row: &Row<'_>| service(row).map(|service| service.rto.as_secs_f64());
    let met = |row: &Row<'_>, rto: Option<f64>| stats::rto_met(row.lasted, recovered(row), rto?);
    let promised = |row: &Row<'_>| row.promised.map(|promised| promised.rto_seconds);
    let requests = |row: &Row<'_>, of: f64| (row.levels.counted > 0).then_some(of);
    let columns = vec![
        text(&rows, |row| Some(row.case.incident.id.as_str())),
        text(&rows, |row| Some(row.case.incident.service.as_str())),
        text(&rows, |row| Some(&row.words[0])),
        text(&rows, |row| Some(&row.words[1])),
        text(&rows, |row| Some(row.case.incident.severity.as_str())),
        text(&rows, |row| Some(&row.words[2])),
        text(&rows, |row| Some(&row.words[3])),
        text(&rows, |row| Some(&row.words[4])),
        boolean(&rows, |row| Some(row.case.drill)),
        time(&rows, |row| Some(row.case.incident.first_failure_at)),
        time(&rows, |row| row.case.incident.recovered_at),
        double(&rows, |row| row.case.incident.time_to_recover().map(seconds)),
        double(&rows, |row| Some(row.lasted)),
        long(&rows, |row| count(row.case.ended().count())),
        long(&rows, |row| count(row.case.ended().filter(|it| *it == RecoveryOutcome::Succeeded).count())),
        boolean(&rows, |row| row.relapsed),
        double(&rows, rto),
        boolean(&rows, |row| met(row, rto(row))),
        double(&rows, |row| service(row).map(|service| service.rpo.as_secs_f64())),
        time(&rows, |row| row.case.data_until),
        double(&rows, |row| row.case.data_loss()),
        boolean(&rows, |row| row.case.rpo_met(plan)),
        double(&rows, promised),
        boolean(&rows, |row| met(row, promised(row))),
        double(&rows, |row| row.promised.map(|promised| promised.rpo_seconds)),
        double(&rows, |row| row.levels.error_rate()),
        double(&rows, |row| requests(row, row.levels.requests)),
        double(&rows, |row| requests(row, row.levels.failed)),
    ];
    batch("attainment", columns)
}

/// Incidents that are in figures.
fn counted(record: &Record, now: DateTime<Utc>) -> Vec<Incident> {
    record.incidents().filter(|it| !it.is_excluded() && !oddities::is_impossible(it, now)).collect()
}

/// `outages`, those that last measured up to `now`.
#[must_use]
pub fn outages(record: &Record, plan: Option<&Plan>, now: DateTime<Utc>) -> RecordBatch {
    let incidents = counted(record, now);
    let rows = oddities::outages(&incidents);
    let columns = vec![
        text(&rows, |row| Some(row.service.as_str())),
        text(&rows, |row| tier(plan, row.service)),
        text(&rows, |row| site(plan, row.service)),
        time(&rows, |row| Some(row.started_at)),
        time(&rows, |row| row.ended_at),
        double(&rows, |row| Some(seconds(row.ended_at.unwrap_or(now) - row.started_at))),
        boolean(&rows, |row| Some(row.ended_at.is_none())),
        long(&rows, |row| count(row.incidents.len())),
        text(&rows, |row| row.incidents.first().map(|id| id.as_str())),
    ];
    batch("outages", columns)
}

/// One service on one day.
#[derive(Debug, Clone)]
pub struct Availability {
    service: ServiceId,
    day: DateTime<Utc>,
    uptime: Uptime,
}

impl Availability {
    /// Every service on every day from its first probe until `now`; how many rows there would be, if too many.
    ///
    /// # Errors
    /// More than four million.
    pub fn of(
        record: &Record,
        plan: Option<&Plan>,
        observed: &Observed,
        now: DateTime<Utc>,
    ) -> Result<Vec<Self>, usize> {
        let incidents = counted(record, now);
        let mut by_service: BTreeMap<&ServiceId, Vec<&Incident>> = BTreeMap::new();
        for incident in &incidents {
            by_service.entry(&incident.service).or_default().push(incident);
        }
        let first_day = |service| {
            let first = observed.first(service).and_then(DateTime::from_timestamp_micros)?;
            Some(first.date_naive().and_time(chrono::NaiveTime::MIN).and_utc())
        };
        let begins: Vec<_> = observed.services().filter_map(|it| Some((it, first_day(it)?))).collect();
        let days = |from: DateTime<Utc>| usize::try_from((now - from).num_days() + 1).unwrap_or_default();
        let all: usize = begins.iter().map(|(_, from)| days(*from)).sum();
        if all > MOST_DAYS {
            return Err(all);
        }
        let mut rows = Vec::with_capacity(all);
        for (service, first) in begins {
            let incidents = by_service.get(service).map_or(&[][..], Vec::as_slice);
            let mut day = first;
            while day < now {
                let next = day + TimeDelta::days(1);
                // Only those that touch the day: what is not open ends before the next one begins.
                let touching: Vec<&Incident> = incidents
                    .iter()
                    .copied()
                    .filter(|it| it.first_failure_at < next && it.recovered_at.is_none_or(|at| at >= day))
                    .collect();
                let scope = Scope { record, plan, observed, from: Some(day), until: next.min(now) };
                if let Some(uptime) = Uptime::of([service], &touching, scope) {
                    rows.push(Self { service: service.clone(), day, uptime });
                }
                day = next;
            }
        }
        Ok(rows)
    }
}

/// `availability_daily`.
#[must_use]
pub fn availability_daily(rows: &[Availability], plan: Option<&Plan>) -> RecordBatch {
    let good = |it: &Uptime| it.observed_seconds - it.maintenance_seconds - it.down_seconds;
    let columns = vec![
        text(rows, |row| Some(row.service.as_str())),
        text(rows, |row| tier(plan, &row.service)),
        text(rows, |row| site(plan, &row.service)),
        time(rows, |row| Some(row.day)),
        double(rows, |row| Some(row.uptime.calendar_seconds)),
        double(rows, |row| Some(row.uptime.observed_seconds)),
        double(rows, |row| Some(row.uptime.calendar_seconds - row.uptime.observed_seconds)),
        double(rows, |row| Some(row.uptime.maintenance_seconds)),
        double(rows, |row| Some(row.uptime.down_seconds)),
        double(rows, |row| Some(good(&row.uptime))),
        long(rows, |row| count(row.uptime.failures)),
        double(rows, |row| row.uptime.availability),
        double(rows, |row| row.uptime.coverage),
    ];
    batch("availability_daily", columns)
}
