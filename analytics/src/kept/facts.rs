//! Facts: the rows of the log that the incident fold looks at, each with the group that it is folded in.
//!
//! A group is an incident with its alerts and recoveries; what one group becomes depends on no other, but for
//! maintenance windows, which are a group of their own ([`WINDOWS`]) that every fold takes in. So an event that is new
//! asks for its own group to be folded again and leaves the others alone. A group's name is a 64-bit hash: two
//! incidents that share one are folded together, which changes neither.
//!
//! | kind | group |
//! |---|---|
//! | `maintenance.*` | [`WINDOWS`] |
//! | `notification.*` | of each incident that the message told of: the row stands in all of them |
//! | `recovery.approved`, which names no incident | of the recovery, by whatever else names both |
//! | any other | of the incident that it names |

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rebound_schemas::incident::Record;
use rebound_schemas::table::{RowReader, file_schema};
use rebound_schemas::{Event, EventData};
use serde::{Deserialize, Serialize};

use crate::session::SqlError;

/// The group of maintenance windows.
pub(super) const WINDOWS: i64 = 0;
/// Name of the column that holds the group, in facts and in every table.
pub(super) const GROUP: &str = "_group";
/// Name of the column with the hash of the recovery that a fact names.
const RECOVERY: &str = "_recovery";

/// Columns of the log that are read.
pub(crate) const READ: [&str; 14] = [
    "kind",
    "version",
    "id",
    "source",
    "service",
    "occurred_at",
    "ingested_at",
    "topic",
    "partition",
    "offset",
    "plan",
    "data",
    "incident",
    "recovery",
];
/// Columns of the log that are kept.
const KEPT: usize = 12;

/// The kinds that are facts.
pub(crate) static KINDS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| Record::KINDS.iter().map(|kind| kind.as_str()).collect());

/// The columns of facts.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let log = file_schema();
    let mut fields = vec![Field::new(GROUP, DataType::Int64, false), Field::new(RECOVERY, DataType::Int64, true)];
    fields.extend(READ[..KEPT].iter().map(|name| log.field_with_name(name).expect("a column of the log").clone()));
    Arc::new(Schema::new(fields))
});

/// A name's hash, the same on every machine and in every build: FNV-1a, its bits mixed once more. Never [`WINDOWS`].
pub(super) fn hash(name: &str) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = i64::from_ne_bytes((hash ^ (hash >> 29)).to_ne_bytes());
    if hash == WINDOWS { 1 } else { hash }
}

/// The group of an approval whose recovery nothing else has named.
pub(super) fn orphaned(recovery: i64) -> i64 {
    hash(&format!("recovery {recovery}"))
}

/// Rows of the log as facts.
#[derive(Debug, Default)]
pub(super) struct Tagged {
    /// Facts with their groups.
    pub(super) facts: Vec<RecordBatch>,
    /// Approvals, whose group is to be found; the column says [`WINDOWS`] meanwhile.
    pub(super) approvals: Vec<RecordBatch>,
    /// Which group a recovery belongs to, as far as these rows tell.
    pub(super) recoveries: HashMap<i64, i64>,
    /// How far the rows go, those that were left out too.
    pub(super) reach: Reach,
}

/// The offset after the newest fact of each topic partition: of files that compaction wrote, what lies before is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reach(Vec<(String, i32, i64)>);

impl Reach {
    /// Whether a position lies before it.
    pub(super) fn covers(&self, topic: &str, partition: i32, offset: i64) -> bool {
        self.0.iter().any(|(t, p, next)| t == topic && *p == partition && offset < *next)
    }

    fn widen(&mut self, topic: &str, partition: i32, next: i64) {
        match self.0.iter_mut().find(|(t, p, _)| t == topic && *p == partition) {
            Some((_, _, held)) => *held = next.max(*held),
            None => self.0.push((topic.to_owned(), partition, next)),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (topic, partition, next) in &other.0 {
            self.widen(topic, *partition, *next);
        }
    }
}

impl Tagged {
    /// Takes in rows of the log; those that `wanted` refuses are left out.
    pub(super) fn push(
        &mut self,
        batch: &RecordBatch,
        wanted: impl Fn(&str, i32, i64) -> bool,
        in_share: impl Fn(i64) -> bool,
    ) -> Result<(), SqlError> {
        let reader = RowReader::new(batch).map_err(SqlError::Rows)?;
        let (mut rows, mut groups, mut approvals) = (Vec::new(), Vec::new(), Vec::new());
        let mut recoveries = Vec::with_capacity(reader.len());
        for (at, row) in reader.iter().enumerate() {
            let recovery = row.recovery.map(hash);
            recoveries.push(recovery);
            self.reach.widen(row.topic, row.partition, row.offset + 1);
            if !wanted(row.topic, row.partition, row.offset) {
                continue;
            }
            let at = u32::try_from(at).expect("a batch has fewer than 2^32 rows");
            let mut put = |group| {
                if group == WINDOWS || in_share(group) {
                    rows.push(at);
                    groups.push(group);
                }
            };
            match (row.kind.split_once('.').map_or(row.kind, |(about, _)| about), row.incident) {
                ("maintenance", _) => put(WINDOWS),
                ("notification", first) => match row.event() {
                    Ok(Some(event)) => told(&event).iter().for_each(|incident| put(hash(incident))),
                    // Told of where it is folded.
                    _ => put(hash(first.unwrap_or_default())),
                },
                (_, Some(incident)) => {
                    let group = hash(incident);
                    if let Some(recovery) = recovery {
                        self.recoveries.insert(recovery, group);
                    }
                    put(group);
                }
                (_, None) if recovery.is_some() => approvals.push(at),
                (_, None) => put(hash("")),
            }
        }
        let recoveries = Int64Array::from(recoveries);
        if !rows.is_empty() {
            self.facts.push(facts(batch, rows, groups, &recoveries)?);
        }
        if !approvals.is_empty() {
            let groups = vec![WINDOWS; approvals.len()];
            self.approvals.push(facts(batch, approvals, groups, &recoveries)?);
        }
        Ok(())
    }
}

/// The incidents that a message told of.
fn told(event: &Event) -> BTreeSet<&str> {
    let (first, members) = match &event.data {
        EventData::NotificationSent(data) => (&data.incident, &data.members),
        EventData::NotificationFailed(data) => (&data.incident, &data.members),
        _ => return BTreeSet::new(),
    };
    match members.is_empty() {
        true => BTreeSet::from([first.as_str()]),
        false => members.iter().map(|told| told.incident.as_str()).collect(),
    }
}

fn facts(
    batch: &RecordBatch,
    rows: Vec<u32>,
    groups: Vec<i64>,
    recoveries: &Int64Array,
) -> Result<RecordBatch, SqlError> {
    let wrong = |error: arrow::error::ArrowError| SqlError::Execution(error.into());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(recoveries.clone())];
    for field in &SCHEMA.fields()[2..] {
        let column = batch.column_by_name(field.name());
        let nothing = || arrow::array::new_null_array(field.data_type(), batch.num_rows());
        columns.push(column.map_or_else(|| Ok(nothing()), |column| cast(column, field.data_type())).map_err(wrong)?);
    }
    let without = Arc::new(Schema::new(SCHEMA.fields()[1..].to_vec()));
    let picked = RecordBatch::try_new(without, columns)
        .and_then(|batch| take_record_batch(&batch, &UInt32Array::from(rows)))
        .map_err(wrong)?;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(groups))];
    columns.extend(picked.columns().iter().cloned());
    RecordBatch::try_new(SCHEMA.clone(), columns).map_err(wrong)
}

/// Facts with other groups than they say: those of `group`, by the recovery that each names.
pub(super) fn regrouped(batch: &RecordBatch, group: impl Fn(i64) -> i64) -> RecordBatch {
    let groups: Int64Array =
        recoveries(batch).iter().map(|recovery| group(recovery.unwrap_or_default())).collect::<Vec<_>>().into();
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(groups);
    RecordBatch::try_new(batch.schema(), columns).expect("the column keeps its type and length")
}

/// The group of each row, of facts or of a table.
pub(super) fn groups(batch: &RecordBatch) -> &Int64Array {
    batch.column_by_name(GROUP).expect("facts and tables have groups").as_primitive::<Int64Type>()
}

/// The recovery that each fact names, hashed.
pub(super) fn recoveries(batch: &RecordBatch) -> &Int64Array {
    batch.column(1).as_primitive::<Int64Type>()
}

/// The rows of these groups.
pub(super) fn of_groups(batch: &RecordBatch, wanted: impl Fn(i64) -> bool) -> RecordBatch {
    let mask = groups(batch).values().iter().map(|group| Some(wanted(*group))).collect();
    arrow::compute::filter_record_batch(batch, &mask).expect("the mask has as many rows as the batch")
}

impl Tagged {
    /// Takes in what other rows became.
    pub(super) fn merge(&mut self, other: Self) {
        self.facts.extend(other.facts);
        self.approvals.extend(other.approvals);
        self.recoveries.extend(other.recoveries);
        self.reach.merge(&other.reach);
    }

    /// Gives approvals their groups; answers the recoveries that `known` knows no group of.
    pub(super) fn settle(&mut self, known: impl Fn(i64) -> Option<i64>) -> Vec<i64> {
        let mut orphans = Vec::new();
        for batch in std::mem::take(&mut self.approvals) {
            let found = |recovery: i64| self.recoveries.get(&recovery).copied().or_else(|| known(recovery));
            orphans.extend(recoveries(&batch).iter().flatten().filter(|recovery| found(*recovery).is_none()));
            self.facts.push(regrouped(&batch, |recovery| found(recovery).unwrap_or_else(|| orphaned(recovery))));
        }
        orphans
    }
}
