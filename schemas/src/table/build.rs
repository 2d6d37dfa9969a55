//! Rows to Arrow batches: one a day of `occurred_at`, each sorted so that equal things stand together.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

use super::columns::{Columns, Row, built_schema};

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Collects rows.
#[derive(Debug, Default)]
pub struct RowBuilder {
    columns: Columns,
    rows: usize,
}

/// The rows of one day, sorted by (kind, service, probe, `occurred_at`, arrival).
#[derive(Debug, Clone)]
pub struct DayBatch {
    /// Days since 1970, of `occurred_at` in UTC.
    pub day: i32,
    /// Columns as in [`super::file_schema`], with words as dictionaries.
    pub batch: RecordBatch,
}

impl RowBuilder {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn push(&mut self, row: &Row<'_>) {
        self.columns.push(self.rows, row);
        self.rows += 1;
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows so far, by day; the builder is empty then.
    ///
    /// Sorting is what makes the files small: a column whose neighbours are alike costs next to nothing.
    pub fn finish(&mut self) -> Vec<DayBatch> {
        let rows = std::mem::take(&mut self.rows);
        let arrays = self.columns.finish(rows);
        if rows == 0 {
            return Vec::new();
        }
        let schema = built_schema();
        let batch = RecordBatch::try_new(schema, arrays).expect("every column is built from the one list");
        let keys = sort_keys(&batch);
        let mut days = Vec::new();
        let mut from = 0;
        while from < keys.len() {
            let day = keys[from].day;
            let until = from + keys[from..].partition_point(|key| key.day <= day);
            let picked: UInt32Array = keys[from..until].iter().map(|key| key.row).collect::<Vec<_>>().into();
            let columns = batch.columns().iter().map(|column| pick(column, &picked)).collect();
            let batch = RecordBatch::try_new(batch.schema(), columns).expect("taking rows keeps the types");
            days.push(DayBatch { day, batch });
            from = until;
        }
        days
    }
}

fn pick(column: &ArrayRef, rows: &UInt32Array) -> ArrayRef {
    if column.null_count() == column.len() {
        return column.slice(0, rows.len());
    }
    take(column, rows, None).expect("every row number is below the batch's length")
}

/// Sort key of a row; the row's own number makes it unique and keeps the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: i32,
    kind: u32,
    series: u64,
    occurred_at: i64,
    row: u32,
}

fn sort_keys(batch: &RecordBatch) -> Vec<Key> {
    let column = |name: &str| batch.column_by_name(name).expect("named in the one list of columns");
    let kind = ranks(column("kind"));
    let (service, probe) = (ranks(column("service")), ranks(column("probe")));
    let occurred_at = column("occurred_at").as_primitive::<TimestampMicrosecondType>().values();
    let mut keys: Vec<Key> = (0..batch.num_rows())
        .map(|row| Key {
            day: i32::try_from(occurred_at[row].div_euclid(DAY_MICROS)).unwrap_or(i32::MAX),
            kind: kind[row],
            series: u64::from(service[row]) << 32 | u64::from(probe[row]),
            occurred_at: occurred_at[row],
            row: u32::try_from(row).expect("a batch has fewer than 2^32 rows"),
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// For each row the rank of its word among the column's words; NULL first.
fn ranks(column: &ArrayRef) -> Vec<u32> {
    let words: &DictionaryArray<Int32Type> = column.as_dictionary();
    let values = words.values().as_string::<i32>();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by_key(|i| values.value(*i));
    let mut rank = vec![0; values.len()];
    for (place, value) in order.into_iter().enumerate() {
        rank[value] = u32::try_from(place + 1).expect("a batch has fewer than 2^32 words");
    }
    let keys = words.keys();
    (0..keys.len())
        .map(|row| if keys.is_valid(row) { rank[usize::try_from(keys.value(row)).unwrap_or_default()] } else { 0 })
        .collect()
}
