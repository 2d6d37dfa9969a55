//! Facts to tables: group by group, in the order in which they were taken in.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use chrono::DateTime;
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;
use rebound_schemas::table::RowReader;

use super::facts::{GROUP, WINDOWS, groups, hash};
use crate::projections;
use crate::session::SqlError;
use crate::tables::Table;

/// The tables that are kept, in the order in which a fold gives them.
pub(super) const TABLES: [&str; 4] = ["incidents", "alerts", "recoveries", "recovery_steps"];
/// Facts that are folded at a time, about: a group is never split.
pub(super) const CHUNK: usize = 4096;
/// An event is late that is taken in so long after it happened, in microseconds.
const LATE: i64 = 3_600_000_000;

/// A table's columns as they are kept: those that SQL shows, and behind them those that it does not.
pub(super) fn schema(table: &str) -> SchemaRef {
    static SCHEMAS: LazyLock<HashMap<&str, SchemaRef>> = LazyLock::new(|| {
        let with_hidden = |name: &'static str| {
            let shown = Table::named(name).expect("a listed table").schema();
            let mut fields: Vec<_> = shown.fields().iter().map(|field| viewed(field)).collect();
            fields.push(Field::new(GROUP, DataType::Int64, false));
            if name == "incidents" {
                fields.push(Field::new("_events", DataType::Int64, false));
                fields.push(Field::new("_repeated", DataType::Int64, false));
                fields.push(Field::new("_late", DataType::Boolean, false));
                fields.push(Field::new("_unordered", DataType::Boolean, false));
            }
            (name, Arc::new(Schema::new(fields)))
        };
        TABLES.into_iter().map(with_hidden).collect()
    });
    SCHEMAS[table].clone()
}

/// Text as views, which SQL compares and groups faster.
fn viewed(field: &Field) -> Field {
    match field.data_type() {
        DataType::Utf8 => field.clone().with_data_type(DataType::Utf8View),
        _ => field.clone(),
    }
}

/// What facts became.
#[derive(Debug)]
pub(super) struct Folded {
    /// In the order of [`TABLES`].
    pub(super) tables: [RecordBatch; 4],
    /// Rows that are no events of this build.
    pub(super) unreadable: usize,
}

/// Where facts stand, in the order in which they are folded: by group, then as they were taken in.
pub(super) fn order(batches: &[RecordBatch]) -> Vec<(usize, usize)> {
    let mut keys = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let column = |name: &str| batch.column_by_name(name).expect("facts have the log's positions");
        let ingested = column("ingested_at").as_primitive::<TimestampMicrosecondType>();
        let (topics, partitions) =
            (column("topic").as_string::<i32>(), column("partition").as_primitive::<Int32Type>());
        let offsets = column("offset").as_primitive::<Int64Type>();
        for (row, group) in groups(batch).values().iter().enumerate() {
            let topic = topics.value(row).as_bytes().first().copied();
            keys.push((*group, ingested.value(row), topic, partitions.value(row), offsets.value(row), n, row));
        }
    }
    keys.sort_unstable();
    // The same row twice is one: a message that told of two incidents of one group, say.
    keys.dedup_by_key(|key| (key.0, key.2, key.3, key.4));
    keys.into_iter().map(|key| (key.5, key.6)).collect()
}

/// Cuts what [`order`] gave into chunks at the borders of groups.
pub(super) fn chunks<'a>(batches: &[RecordBatch], order: &'a [(usize, usize)]) -> Vec<&'a [(usize, usize)]> {
    let group = |at: &(usize, usize)| groups(&batches[at.0]).value(at.1);
    let (mut chunks, mut from) = (Vec::new(), 0);
    while from < order.len() {
        let mut until = (from + CHUNK).min(order.len());
        while until < order.len() && group(&order[until]) == group(&order[until - 1]) {
            until += 1;
        }
        chunks.push(&order[from..until]);
        from = until;
    }
    chunks
}

/// The facts of a chunk in one batch.
pub(super) fn gathered(batches: &[RecordBatch], chunk: &[(usize, usize)]) -> Result<RecordBatch, SqlError> {
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    interleave_record_batch(&batches, chunk).map_err(|error| SqlError::Execution(error.into()))
}

/// A record of maintenance windows alone.
pub(super) fn windows(facts: &[RecordBatch]) -> Result<Record, SqlError> {
    let mut record = Record::default();
    for batch in facts {
        let reader = RowReader::new(batch).map_err(SqlError::Rows)?;
        for (row, group) in reader.iter().zip(groups(batch).values()) {
            if let (WINDOWS, Ok(Some(event))) = (*group, row.event()) {
                record.evolve(&event);
            }
        }
    }
    Ok(record)
}

/// What is counted of a group beside its figures.
#[derive(Debug, Default)]
struct Counted {
    events: HashMap<[i64; 2], ()>,
    repeated: i64,
    late: bool,
    unordered: bool,
    newest: i64,
}

/// Folds whole groups, given in the order of [`order`].
pub(super) fn fold(facts: &RecordBatch, windows: &Record, plan: Option<&Plan>) -> Result<Folded, SqlError> {
    let mut record = windows.clone();
    let mut counted: HashMap<i64, Counted> = HashMap::new();
    let mut unreadable = 0;
    let reader = RowReader::new(facts).map_err(SqlError::Rows)?;
    for (row, group) in reader.iter().zip(groups(facts).values()) {
        if *group == WINDOWS {
            continue;
        }
        match row.event() {
            Ok(Some(event)) => record.evolve(&event),
            Ok(None) => continue,
            Err(error) => {
                crate::gather::unreadable(&row, &error);
                unreadable += 1;
                continue;
            }
        }
        let of = counted.entry(*group).or_insert_with(|| Counted { newest: i64::MIN, ..Counted::default() });
        if of.events.insert([hash(row.source), hash(row.id)], ()).is_some() {
            of.repeated += 1;
            continue;
        }
        of.late |= row.ingested_at - row.occurred_at > LATE;
        of.unordered |= row.occurred_at < of.newest;
        of.newest = of.newest.max(row.occurred_at);
    }
    // Of what has not recovered, how long it lasts is told by the query, at its own time.
    let incidents = projections::incidents(&record, plan, DateTime::UNIX_EPOCH);
    let tables = [
        incidents,
        projections::alerts(&record),
        projections::recoveries(&record),
        projections::recovery_steps(&record),
    ];
    let mut n = 0;
    let tables = tables.map(|batch| {
        n += 1;
        with_hidden(TABLES[n - 1], &batch, &counted)
    });
    Ok(Folded { tables, unreadable })
}

fn with_hidden(table: &str, batch: &RecordBatch, counted: &HashMap<i64, Counted>) -> RecordBatch {
    let schema = schema(table);
    let incidents: &StringArray = batch.column_by_name("incident").expect("every kept table has it").as_string();
    let groups: Vec<i64> = incidents.iter().map(|incident| hash(incident.unwrap_or_default())).collect();
    let mut columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| arrow::compute::cast(column, field.data_type()).expect("text is text as a view"))
        .collect();
    if table == "incidents" {
        let of =
            |get: fn(&Counted) -> i64| groups.iter().map(|group| counted.get(group).map_or(0, get)).collect::<Vec<_>>();
        let is = |get: fn(&Counted) -> bool| {
            groups.iter().map(|group| Some(counted.get(group).is_some_and(get))).collect::<BooleanArray>()
        };
        let (events, repeated) = (of(|c| i64::try_from(c.events.len()).unwrap_or(i64::MAX)), of(|c| c.repeated));
        let (late, unordered) = (is(|c| c.late), is(|c| c.unordered));
        columns.push(Arc::new(Int64Array::from(groups)));
        columns.push(Arc::new(Int64Array::from(events)));
        columns.push(Arc::new(Int64Array::from(repeated)));
        columns.push(Arc::new(late));
        columns.push(Arc::new(unordered));
    } else {
        columns.push(Arc::new(Int64Array::from(groups)));
    }
    RecordBatch::try_new(schema, columns).expect("the columns are those of the table, and the hidden ones")
}
