//! Internal queries, and how their batches are read back into events and observations.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use rebound_schemas::codec::DecodeError;
use rebound_schemas::table::{Row, RowReader};
use rebound_schemas::{Event, Kind, ServiceId};

use crate::observed::Breaks;
use crate::projections::Latest;
use crate::session::SqlError;

/// A column as plain strings, whatever the reader made of it.
pub(crate) fn strings(batch: &RecordBatch, column: usize) -> Result<StringArray, SqlError> {
    let plain = cast(batch.column(column), &DataType::Utf8).map_err(|error| SqlError::Execution(error.into()))?;
    Ok(plain.as_string::<i32>().clone())
}

fn known(known_at: Option<DateTime<Utc>>) -> String {
    known_at.map_or_else(String::new, |at| format!(" AND ingested_at <= '{}'::timestamptz", at.format("%+")))
}

/// Every event of these kinds, each once.
pub(crate) fn events_of(kinds: &[Kind], known_at: Option<DateTime<Utc>>) -> String {
    let kinds: Vec<_> = kinds.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
    format!("SELECT * FROM events WHERE kind IN ({}){}", kinds.join(", "), known(known_at))
}

/// Tells of a row that this build can't read.
pub(crate) fn unreadable(row: &Row<'_>, error: &DecodeError) {
    let (topic, partition, offset) = (row.topic, row.partition, row.offset);
    tracing::warn!(topic, partition, offset, %error, "a row of the log is no event of this build");
}

/// Hands on each row's event. One that this build can't read says so in the log and is passed over, as in the fold.
pub(crate) fn each_event(batch: &RecordBatch, mut take: impl FnMut(&Event)) -> Result<(), SqlError> {
    for row in RowReader::new(batch).map_err(SqlError::Rows)?.iter() {
        match row.event() {
            Ok(Some(event)) => take(&event),
            Ok(None) => {}
            Err(error) => unreadable(&row, &error),
        }
    }
    Ok(())
}

/// Where the observations of each service begin, where none came for longer than `silence` (µs), and where they end.
/// Columns: service, the observation before the break, the one after it; the first has none before, the last none
/// after. With a time, only observations that may still speak of it or of what follows.
pub(crate) fn breaks(silence: i64, known_at: Option<DateTime<Utc>>, since: Option<DateTime<Utc>>) -> String {
    let mut known = known(known_at);
    if let Some(since) = since {
        known += &format!(" AND occurred_at >= '{}'::timestamptz", since.format("%+"));
    }
    format!(
        "SELECT service, before, occurred_at FROM (SELECT service, occurred_at, \
         lag(occurred_at) OVER (PARTITION BY service ORDER BY occurred_at) AS before FROM probes \
         WHERE service IS NOT NULL{known}) t \
         WHERE before IS NULL OR occurred_at - before > INTERVAL '{silence} microseconds' \
         UNION ALL SELECT service, max(occurred_at), NULL FROM probes WHERE service IS NOT NULL{known} GROUP BY service"
    )
}

/// The first observation of each service. Columns: service, when.
pub(crate) fn first(known_at: Option<DateTime<Utc>>) -> String {
    let known = known(known_at);
    format!("SELECT service, min(occurred_at) FROM probes WHERE service IS NOT NULL{known} GROUP BY service")
}

/// Takes in a batch of [`first`].
pub(crate) fn each_first(into: &mut BTreeMap<ServiceId, i64>, batch: &RecordBatch) -> Result<(), SqlError> {
    let services = strings(batch, 0)?;
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    for row in (0..batch.num_rows()).filter(|row| times.is_valid(*row)) {
        if let Ok(service) = ServiceId::new(services.value(row)) {
            into.insert(service, times.value(row));
        }
    }
    Ok(())
}

/// Takes in a batch of [`breaks`].
pub(crate) fn each_break(into: &mut Breaks, batch: &RecordBatch) -> Result<(), SqlError> {
    let services = strings(batch, 0)?;
    let times = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>();
    let (before, after) = (times(1), times(2));
    for row in 0..batch.num_rows() {
        if let Ok(service) = ServiceId::new(services.value(row)) {
            let at = |column: &arrow::array::TimestampMicrosecondArray| column.is_valid(row).then(|| column.value(row));
            into.add(service, at(before), at(after));
        }
    }
    Ok(())
}

/// How timely events came. Columns: imported, late, ahead of time.
pub(crate) fn timeliness(known_at: Option<DateTime<Utc>>) -> String {
    let (known, import) = (known(known_at), "source LIKE 'rebound/import/%'");
    format!(
        "SELECT count(*) FILTER (WHERE {import}), \
         count(*) FILTER (WHERE NOT {import} AND occurred_at < ingested_at - INTERVAL '1 hour'), \
         count(*) FILTER (WHERE occurred_at > ingested_at + INTERVAL '5 minutes') FROM events WHERE true{known}"
    )
}

/// How many events, other than what is measured again and again, were taken in after a later one of the same service
/// and topic. Imports are history and come in any order.
pub(crate) fn disorder(known_at: Option<DateTime<Utc>>) -> String {
    let known = known(known_at);
    format!(
        "SELECT count(*) FROM (SELECT occurred_at, max(occurred_at) OVER (PARTITION BY service, topic, \
         partition ORDER BY \"offset\" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest \
         FROM events WHERE kind NOT IN ('probe.completed', 'service_level.measured', 'resource.measured', \
         'replication.measured') AND source NOT LIKE 'rebound/import/%'{known}) t WHERE occurred_at < newest"
    )
}

/// What the newest probe of each service found, as known at a time. Columns: service, when, outcome.
pub(crate) fn latest(known_at: DateTime<Utc>) -> String {
    let known = known(Some(known_at));
    format!(
        "SELECT service, max(occurred_at), last_value(outcome ORDER BY occurred_at, \"offset\") FROM events \
         WHERE kind = 'probe.completed' AND service IS NOT NULL{known} GROUP BY service"
    )
}

/// Takes in a batch of [`latest`] or of one with its columns; what is known to be newer stays.
pub(crate) fn each_latest(into: &mut BTreeMap<ServiceId, Latest>, batch: &RecordBatch) -> Result<(), SqlError> {
    let (services, outcomes) = (strings(batch, 0)?, strings(batch, 2)?);
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    for row in 0..batch.num_rows() {
        let service = ServiceId::new(services.value(row)).ok();
        let (Some(service), Some(observed_at)) = (service, DateTime::from_timestamp_micros(times.value(row))) else {
            continue;
        };
        if into.get(&service).is_none_or(|held| held.observed_at <= observed_at) {
            into.insert(service, Latest { observed_at, outcome: outcomes.value(row).to_owned() });
        }
    }
    Ok(())
}
