//! The incident fold and the plan as Arrow batches: the tables of SQL that are not read from the log itself.
//!
//! Pure: what is known in, a batch out, columns as [`tables`](crate::tables) lists them.

mod around;
mod follows;
mod plans;
mod quality;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::incident::{Alert, Incident, Record, Recovery, StepRun};
use rebound_schemas::plan::{Plan, Service};

pub use around::{backups, corrections, deployments, drills, failovers, improvements, notifications};
pub use follows::{Availability, attainment, availability_daily, outages};
pub use plans::plan;
pub use quality::{Log, data_quality};

use crate::mttr::seconds;
use crate::oddities;
use crate::tables::Table;

/// What the newest probe of a service found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// When it ended.
    pub observed_at: DateTime<Utc>,
    /// `healthy`, `degraded` or `failed`.
    pub outcome: String,
}

fn text<'a, T>(rows: &'a [T], get: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<StringArray>())
}

fn time<T>(rows: &[T], get: impl Fn(&T) -> Option<DateTime<Utc>>) -> ArrayRef {
    let micros = rows.iter().map(|row| get(row).map(|at| at.timestamp_micros()));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn double<T>(rows: &[T], get: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Float64Array>())
}

fn span<T>(rows: &[T], get: impl Fn(&T) -> Option<TimeDelta>) -> ArrayRef {
    double(rows, |row| get(row).map(seconds))
}

fn long<T>(rows: &[T], get: impl Fn(&T) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Int64Array>())
}

fn boolean<T>(rows: &[T], get: impl Fn(&T) -> Option<bool>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<BooleanArray>())
}

/// Invariant: the arrays are those of the table's list of columns, in its order; a test builds every table.
fn batch(table: &str, columns: Vec<ArrayRef>) -> RecordBatch {
    let schema = Table::named(table).expect("projections are of listed tables").schema();
    RecordBatch::try_new(schema, columns).expect("the columns are those that the table lists")
}

fn count(n: usize) -> Option<i64> {
    i64::try_from(n).ok()
}

/// `incidents`, with what still lasts measured up to `now`.
#[must_use]
pub fn incidents(record: &Record, plan: Option<&Plan>, now: DateTime<Utc>) -> RecordBatch {
    let rows: Vec<Incident> = record.incidents().collect();
    let service = |row: &Incident| plan.and_then(|plan| plan.services().get(&row.service));
    let rto = |row: &Incident| service(row).map(|service| service.rto.as_secs_f64());
    // A figure of an excluded incident is none: whoever aggregates the column gets the published figure.
    let figure = |get: fn(&Incident) -> Option<TimeDelta>| {
        span(&rows, move |row| if row.is_excluded() { None } else { get(row) })
    };
    let lasted = |row: &Incident| row.lasted(now).filter(|_| !row.is_excluded()).map(seconds);
    let rto_met = |row: &Incident| crate::stats::rto_met(lasted(row)?, row.recovered_at.is_some(), rto(row)?);
    let correction = |row: &Incident| row.correction.clone();
    // Excluded ones are in no figure, and hide no other.
    let counted = || rows.iter().filter(|row| !row.is_excluded() && !oddities::is_impossible(row, now));
    let (overlapping, duplicates) = (oddities::overlapping(counted()), oddities::duplicates(counted()));
    let columns = vec![
        text(&rows, |row| Some(row.id.as_str())),
        text(&rows, |row| Some(row.service.as_str())),
        text(&rows, |row| service(row).map(|service| service.tier.as_str())),
        text(&rows, |row| Some(row.severity.as_str())),
        text(&rows, |row| row.policy.as_ref().map(AsRef::as_ref)),
        text(&rows, |row| row.plan.as_ref().map(AsRef::as_ref)),
        text(&rows, |row| Some(row.error_class.as_str())),
        text(&rows, |row| Some(row.cause.as_deref().unwrap_or(row.error_class.as_str()))),
        text(&rows, |row| Some(&row.reason)),
        boolean(&rows, |row| Some(row.is_open())),
        boolean(&rows, |row| Some(row.is_excluded())),
        time(&rows, |row| row.last_success_at),
        time(&rows, |row| Some(row.first_failure_at)),
        time(&rows, |row| Some(row.detected_at)),
        time(&rows, |row| row.acknowledged.as_ref().map(|first| first.at)),
        text(&rows, |row| row.acknowledged.as_ref().map(|first| first.by.as_str())),
        boolean(&rows, |row| row.acknowledged.as_ref().map(|first| first.automated)),
        time(&rows, |row| row.recovered_at),
        time(&rows, |row| row.resolved_at),
        time(&rows, |row| row.escalated_at),
        text(&rows, |row| row.recovered_by.as_ref().map(AsRef::as_ref)),
        long(&rows, |row| count(row.recoveries.len())),
        figure(Incident::time_to_detect),
        figure(Incident::time_to_acknowledge),
        figure(Incident::time_to_acknowledge_human),
        figure(Incident::time_to_acknowledge_automated),
        figure(Incident::time_to_recover),
        figure(Incident::time_to_recover_from_detection),
        figure(Incident::time_to_close),
        double(&rows, lasted),
        double(&rows, rto),
        boolean(&rows, rto_met),
        time(&rows, |row| correction(row).map(|it| it.at)),
        text(&rows, |row| row.correction.as_ref().map(|it| it.by.as_str())),
        text(&rows, |row| row.correction.as_ref().map(|it| it.reason.as_str())),
        time(&rows, |row| correction(row).map(|it| it.original_first_failure_at)),
        time(&rows, |row| correction(row).and_then(|it| it.original_recovered_at)),
        text(&rows, |row| row.correction.as_ref().map(|it| it.original_error_class.as_str())),
        text(&rows, |row| Some(row.opened_by.source.as_str())),
        text(&rows, |row| Some(row.opened_by.id.as_str())),
        text(&rows, |row| service(row).map(|service| service.site.as_str())),
        text(&rows, |row| row.maintenance.as_ref().map(|window| window.maintenance.as_str())),
        boolean(&rows, |row| Some(oddities::is_impossible(row, now))),
        boolean(&rows, |row| Some(overlapping.contains(&row.id))),
        boolean(&rows, |row| Some(oddities::is_zero_length(row))),
        text(&rows, |row| duplicates.get(&row.id).map(|id| id.as_str())),
        time(&rows, |row| {
            let before = row.maintenance.as_ref().map(|it| it.original_first_failure_at);
            let original = row.correction.as_ref().map(|it| it.original_first_failure_at);
            Some(original.or(before).unwrap_or(row.first_failure_at))
        }),
        time(&rows, |row| row.correction.as_ref().map_or(row.recovered_at, |it| it.original_recovered_at)),
    ];
    batch("incidents", columns)
}

/// `alerts`.
#[must_use]
pub fn alerts(record: &Record) -> RecordBatch {
    let rows: Vec<Alert> = record.alerts().collect();
    let columns = vec![
        text(&rows, |row| Some(row.id.as_str())),
        text(&rows, |row| Some(row.incident.as_str())),
        text(&rows, |row| Some(row.service.as_str())),
        text(&rows, |row| Some(row.policy.as_str())),
        text(&rows, |row| Some(row.severity.as_str())),
        long(&rows, |row| Some(i64::from(row.failures))),
        text(&rows, |row| Some(&row.reason)),
        time(&rows, |row| Some(row.first_failure_at)),
        time(&rows, |row| Some(row.raised_at)),
        text(&rows, |row| row.suppressed.as_ref().map(|(_, by)| by.as_str())),
        text(&rows, |row| row.suppressed.as_ref().map(|(cause, _)| cause.as_str())),
        time(&rows, |row| row.notified_at),
        long(&rows, |row| Some(i64::from(row.notifications_sent))),
        long(&rows, |row| Some(i64::from(row.notifications_failed))),
        time(&rows, |row| row.recovered_at),
        time(&rows, |row| row.resolved_at),
    ];
    batch("alerts", columns)
}

/// `recoveries`.
#[must_use]
pub fn recoveries(record: &Record) -> RecordBatch {
    let rows: Vec<Recovery> = record.recoveries().collect();
    let columns = vec![
        text(&rows, |row| Some(row.id.as_str())),
        text(&rows, |row| Some(row.incident.as_str())),
        text(&rows, |row| Some(row.service.as_str())),
        long(&rows, |row| row.attempt.map(i64::from)),
        text(&rows, |row| row.procedure.as_ref().map(AsRef::as_ref)),
        text(&rows, |row| row.method.map(|method| method.as_str())),
        text(&rows, |row| row.mode.map(|mode| mode.as_str())),
        text(&rows, |row| row.plan.as_ref().map(AsRef::as_ref)),
        time(&rows, |row| row.triggered_at),
        text(&rows, |row| row.triggered_by.as_deref()),
        time(&rows, |row| row.approved_at),
        text(&rows, |row| row.approved_by.as_deref()),
        time(&rows, |row| row.refused.as_ref().map(|refused| refused.at)),
        text(&rows, |row| row.refused.as_ref().and_then(|refused| refused.by.as_deref())),
        time(&rows, |row| row.started_at),
        text(&rows, |row| row.runner.as_deref()),
        time(&rows, |row| row.verified_at),
        boolean(&rows, |row| row.verified),
        time(&rows, |row| row.finished_at),
        text(&rows, |row| row.outcome.map(|outcome| outcome.as_str())),
        text(&rows, |row| row.error_class.map(|class| class.as_str())),
        text(&rows, |row| row.reason.as_deref()),
        time(&rows, |row| row.escalated_at),
        long(&rows, |row| count(row.steps.len())),
        span(&rows, Recovery::duration),
    ];
    batch("recoveries", columns)
}

/// `recovery_steps`.
#[must_use]
pub fn recovery_steps(record: &Record) -> RecordBatch {
    let recoveries: Vec<Recovery> = record.recoveries().collect();
    let rows: Vec<(&Recovery, &StepRun)> =
        recoveries.iter().flat_map(|recovery| recovery.steps.iter().map(move |step| (recovery, step))).collect();
    let columns = vec![
        text(&rows, |(recovery, _)| Some(recovery.id.as_str())),
        text(&rows, |(recovery, _)| Some(recovery.incident.as_str())),
        text(&rows, |(recovery, _)| Some(recovery.service.as_str())),
        long(&rows, |(_, step)| Some(i64::from(step.index))),
        text(&rows, |(_, step)| Some(step.step.as_str())),
        long(&rows, |(_, step)| Some(i64::from(step.attempt))),
        text(&rows, |(_, step)| step.action.as_deref()),
        time(&rows, |(_, step)| step.started_at),
        time(&rows, |(_, step)| step.finished_at),
        text(&rows, |(_, step)| step.outcome.map(|outcome| outcome.as_str())),
        double(&rows, |(_, step)| step.duration_ms.map(|ms| ms as f64 / 1e3)),
        long(&rows, |(_, step)| step.code.map(i64::from)),
        text(&rows, |(_, step)| step.error.as_deref()),
    ];
    batch("recovery_steps", columns)
}

/// `services`: those of the plan, and those that the log knows besides.
#[must_use]
pub fn services(record: &Record, plan: Option<&Plan>, latest: &BTreeMap<ServiceId, Latest>) -> RecordBatch {
    struct State<'a> {
        id: &'a ServiceId,
        plan: Option<&'a Service>,
        needs: Option<String>,
        latest: Option<&'a Latest>,
        open: Option<&'a Incident>,
    }
    let incidents: Vec<Incident> = record.incidents().filter(|incident| incident.is_open()).collect();
    let mut open: BTreeMap<&ServiceId, &Incident> = BTreeMap::new();
    for incident in incidents.iter().filter(|incident| !incident.is_excluded()) {
        let newest = open.entry(&incident.service).or_insert(incident);
        if incident.first_failure_at > newest.first_failure_at {
            *newest = incident;
        }
    }
    let mut ids: BTreeSet<&ServiceId> = latest.keys().chain(open.keys().copied()).collect();
    ids.extend(plan.iter().flat_map(|plan| plan.services().keys()));
    let state = |id| {
        let service = plan.and_then(|plan: &Plan| plan.services().get(id));
        let needs = service
            .map(|service: &Service| service.depends_on.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","));
        State { id, plan: service, needs, latest: latest.get(id), open: open.get(id).copied() }
    };
    let rows: Vec<State<'_>> = ids.into_iter().map(state).collect();
    let columns = vec![
        text(&rows, |row| Some(row.id.as_str())),
        text(&rows, |row| row.plan.map(|service| service.name.as_str())),
        text(&rows, |row| row.plan.map(|service| service.tier.as_str())),
        text(&rows, |row| row.plan.map(|service| service.site.as_str())),
        text(&rows, |row| row.plan.map(|service| service.method.as_str())),
        text(&rows, |row| row.plan.map(|service| service.policy.as_str())),
        text(&rows, |row| row.plan.and_then(|service| service.procedure.as_ref()).map(AsRef::as_ref)),
        text(&rows, |row| row.needs.as_deref()),
        text(&rows, |row| row.latest.map(|latest| latest.outcome.as_str())),
        time(&rows, |row| row.latest.map(|latest| latest.observed_at)),
        text(&rows, |row| row.open.map(|incident| incident.id.as_str())),
        time(&rows, |row| row.open.map(|incident| incident.first_failure_at)),
    ];
    batch("services", columns)
}

/// `objectives`; empty without a plan.
#[must_use]
pub fn objectives(plan: Option<&Plan>) -> RecordBatch {
    let rows: Vec<&Service> = plan.iter().flat_map(|plan| plan.services().values()).collect();
    let columns = vec![
        text(&rows, |row| Some(row.id.as_str())),
        text(&rows, |row| Some(row.tier.as_str())),
        double(&rows, |row| Some(row.rto.as_secs_f64())),
        double(&rows, |row| Some(row.rpo.as_secs_f64())),
        text(&rows, |row| Some(row.method.as_str())),
    ];
    batch("objectives", columns)
}
