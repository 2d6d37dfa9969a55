//! What happened beside incidents and recoveries: the chronicle as tables.

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use rebound_schemas::ServiceId;
use rebound_schemas::event::{BackupFinished, IncidentCorrected};
use rebound_schemas::plan::Plan;

use super::{batch, boolean, count, double, long, text, time};
use crate::chronicle::{Chronicle, Deployment, Improvement, Message, Move, Run, Stamp};
use crate::mttr::seconds;

fn whole(number: Option<u64>) -> Option<i64> {
    number.and_then(|number| i64::try_from(number).ok())
}

fn from_millis(millis: u64) -> f64 {
    millis as f64 / 1e3
}

fn tier<'a>(plan: Option<&'a Plan>, service: &ServiceId) -> Option<&'a str> {
    Some(plan?.services().get(service)?.tier.as_str())
}

/// `notifications`.
#[must_use]
pub fn notifications(chronicle: &Chronicle) -> RecordBatch {
    // Of a message that was only tried again, nothing is known but its key.
    let rows: Vec<(&String, &Message)> =
        chronicle.messages.iter().filter(|(_, message)| message.about.get().is_some()).collect();
    let changes = |row: &(&String, &Message)| row.1.about.get().and_then(|about| count(about.changes));
    let delay = |row: &(&String, &Message)| Some(seconds(row.1.sent.at()? - row.1.planned.at()?));
    let attempts = |row: &(&String, &Message)| {
        row.1.sent.get().copied().or_else(|| row.1.failed.get().map(|failed| failed.attempts)).map(i64::from)
    };
    let columns = vec![
        text(&rows, |row| Some(row.0.as_str())),
        text(&rows, |row| row.1.about.get().map(|about| about.channel.as_str())),
        text(&rows, |row| row.1.about.get().map(|about| about.service.as_str())),
        text(&rows, |row| row.1.about.get().map(|about| about.first.alert.as_str())),
        text(&rows, |row| row.1.about.get().map(|about| about.first.incident.as_str())),
        text(&rows, |row| row.1.about.get().map(|about| about.first.transition.as_str())),
        long(&rows, changes),
        text(&rows, |row| row.1.planned.get().and_then(|planned| planned.route.as_deref())),
        time(&rows, |row| row.1.planned.at()),
        time(&rows, |row| row.1.sent.at()),
        double(&rows, |row| delay(row).filter(|delay| *delay >= 0.0)),
        time(&rows, |row| row.1.failed.at()),
        long(&rows, attempts),
        long(&rows, |row| count(row.1.retried)),
        text(&rows, |row| row.1.failed.get().map(|failed| failed.error.as_str())),
    ];
    batch("notifications", columns)
}

/// `backups`.
#[must_use]
pub fn backups(chronicle: &Chronicle) -> RecordBatch {
    struct Row<'a> {
        service: &'a ServiceId,
        stamp: &'a Stamp,
        data: &'a BackupFinished,
        verified: Option<(DateTime<Utc>, bool)>,
    }
    let runs = chronicle.backups.iter().flat_map(|((service, _), backups)| {
        let row = move |(stamp, data)| Row { service, stamp, data, verified: backups.verification(stamp) };
        backups.runs.iter().map(row)
    });
    let rows: Vec<Row<'_>> = runs.collect();
    let columns = vec![
        text(&rows, |row| Some(row.data.backup.as_str())),
        text(&rows, |row| Some(row.service.as_str())),
        text(&rows, |row| Some(row.data.kind.as_str())),
        time(&rows, |row| Some(row.stamp.at)),
        boolean(&rows, |row| Some(row.data.succeeded)),
        time(&rows, |row| row.data.data_until),
        long(&rows, |row| whole(row.data.size_bytes)),
        double(&rows, |row| row.data.duration_ms.map(from_millis)),
        text(&rows, |row| row.data.detail.as_deref()),
        time(&rows, |row| row.verified.map(|(at, _)| at)),
        boolean(&rows, |row| row.verified.map(|(_, passed)| passed)),
        text(&rows, |row| Some(row.stamp.source.as_str())),
        text(&rows, |row| Some(row.stamp.id.as_str())),
    ];
    batch("backups", columns)
}

/// `drills`.
#[must_use]
pub fn drills(chronicle: &Chronicle, plan: Option<&Plan>) -> RecordBatch {
    type Row<'a> = (&'a (String, String), &'a Run, Option<String>);
    let failed = |run: &Run| {
        let checks = run.finished.get().map_or(&[][..], |finished| finished.checks.as_slice());
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
        (!failed.is_empty()).then(|| failed.join(", "))
    };
    let rows: Vec<Row<'_>> = chronicle.drills.iter().map(|(name, run)| (name, run, failed(run))).collect();
    let planned = |row: &Row<'_>| {
        plan.and_then(|plan| plan.drills().iter().find(|(id, _)| id.as_str() == row.0.0).map(|(_, drill)| drill))
    };
    let faults = |row: &Row<'_>| {
        let (from, until) = (row.1.started.at()?, row.1.finished.at());
        count(chronicle.faults_of(&row.0.0, from, until))
    };
    let finished = |row: &Row<'_>| row.1.finished.get().cloned();
    let failing = |row: &Row<'_>| finished(row).map(|it| it.checks.iter().filter(|check| !check.passed).count());
    let columns = vec![
        text(&rows, |row| Some(row.0.0.as_str())),
        text(&rows, |row| Some(row.0.1.as_str())),
        text(&rows, |row| planned(row).map(|drill| drill.name.as_str())),
        time(&rows, |row| row.1.started.at()),
        text(&rows, |row| row.1.started.get().map(String::as_str)),
        time(&rows, |row| row.1.finished.at()),
        boolean(&rows, |row| finished(row).map(|it| it.passed)),
        double(&rows, |row| finished(row)?.detected_after_ms.map(from_millis)),
        double(&rows, |row| planned(row).map(|drill| drill.detect_within.as_secs_f64())),
        double(&rows, |row| finished(row)?.recovered_after_ms.map(from_millis)),
        double(&rows, |row| planned(row).map(|drill| drill.recover_within.as_secs_f64())),
        long(&rows, faults),
        long(&rows, |row| finished(row).and_then(|it| count(it.checks.len()))),
        long(&rows, |row| failing(row).and_then(count)),
        text(&rows, |row| row.2.as_deref()),
    ];
    batch("drills", columns)
}

/// `failovers`.
#[must_use]
pub fn failovers(chronicle: &Chronicle) -> RecordBatch {
    type Row<'a> = (&'a String, &'a Move);
    let rows: Vec<Row<'_>> = chronicle.moves.iter().collect();
    let columns = vec![
        text(&rows, |row| Some(row.0.as_str())),
        text(&rows, |row| row.1.subject.get().map(AsRef::as_ref)),
        text(&rows, |row| row.1.started.get().and_then(Option::as_ref).map(AsRef::as_ref)),
        text(&rows, |row| row.1.sites.get().map(|(from, _)| from.as_str())),
        text(&rows, |row| row.1.sites.get().map(|(_, to)| to.as_str())),
        time(&rows, |row| row.1.started.at()),
        time(&rows, |row| row.1.finished.at()),
        boolean(&rows, |row| row.1.finished.get().map(|it| it.succeeded)),
        double(&rows, |row| row.1.finished.get().map(|it| from_millis(it.duration_ms))),
        time(&rows, |row| row.1.finished.get().and_then(|it| it.data_until)),
        text(&rows, |row| row.1.finished.get().and_then(|it| it.reason.as_deref())),
        time(&rows, |row| row.1.back.at()),
        boolean(&rows, |row| row.1.back.get().map(|it| it.succeeded)),
        double(&rows, |row| row.1.back.get().map(|it| from_millis(it.duration_ms))),
    ];
    batch("failovers", columns)
}

/// `deployments`.
#[must_use]
pub fn deployments(chronicle: &Chronicle, plan: Option<&Plan>) -> RecordBatch {
    type Row<'a> = (&'a (ServiceId, String), &'a Deployment);
    let rows: Vec<Row<'_>> = chronicle.deployments.iter().collect();
    let columns = vec![
        text(&rows, |row| Some(row.0.1.as_str())),
        text(&rows, |row| Some(row.0.0.as_str())),
        text(&rows, |row| tier(plan, &row.0.0)),
        text(&rows, |row| row.1.last.get().and_then(|it| it.version.as_deref())),
        time(&rows, |row| row.1.first.at()),
        text(&rows, |row| row.1.last.get().map(|it| it.outcome.as_str())),
        boolean(&rows, |row| Some(row.1.failed)),
        long(&rows, |row| count(row.1.reports)),
        time(&rows, |row| row.1.last.at()),
    ];
    batch("deployments", columns)
}

/// `improvements`; overdue by `now`.
#[must_use]
pub fn improvements(chronicle: &Chronicle, now: DateTime<Utc>) -> RecordBatch {
    type Row<'a> = (&'a String, &'a Improvement);
    let rows: Vec<Row<'_>> = chronicle.improvements.iter().collect();
    let due = |row: &Row<'_>| row.1.opened.get().and_then(|it| it.due_at);
    let columns = vec![
        text(&rows, |row| Some(row.0.as_str())),
        text(&rows, |row| row.1.subject.get().map(AsRef::as_ref)),
        text(&rows, |row| row.1.opened.get().map(|it| it.title.as_str())),
        text(&rows, |row| row.1.opened.get().and_then(|it| it.owner.as_deref())),
        text(&rows, |row| row.1.opened.get().and_then(|it| it.incident.as_ref()).map(AsRef::as_ref)),
        time(&rows, |row| row.1.opened.at()),
        time(&rows, due),
        time(&rows, |row| row.1.closed.at()),
        boolean(&rows, |row| row.1.closed.get().map(|(done, _)| *done)),
        text(&rows, |row| row.1.closed.get().and_then(|(_, comment)| comment.as_deref())),
        boolean(&rows, |row| Some(due(row)? < row.1.closed.at().unwrap_or(now))),
    ];
    batch("improvements", columns)
}

/// `corrections`.
#[must_use]
pub fn corrections(chronicle: &Chronicle) -> RecordBatch {
    type Row<'a> = (&'a Stamp, &'a ServiceId, &'a IncidentCorrected);
    let rows: Vec<Row<'_>> =
        chronicle.corrections.iter().map(|(stamp, (service, data))| (stamp, service, data)).collect();
    let columns = vec![
        text(&rows, |row| Some(row.2.incident.as_str())),
        text(&rows, |row| Some(row.1.as_str())),
        time(&rows, |row| Some(row.0.at)),
        text(&rows, |row| Some(row.2.by.as_str())),
        text(&rows, |row| Some(row.2.reason.as_str())),
        time(&rows, |row| row.2.first_failure_at),
        time(&rows, |row| row.2.recovered_at),
        text(&rows, |row| row.2.error_class.map(|class| class.as_str())),
        text(&rows, |row| row.2.cause.as_deref()),
        boolean(&rows, |row| Some(row.2.exclude)),
        text(&rows, |row| Some(row.0.source.as_str())),
        text(&rows, |row| Some(row.0.id.as_str())),
    ];
    batch("corrections", columns)
}
