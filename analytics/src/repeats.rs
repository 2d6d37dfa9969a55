//! Events that stand in the log more than once, so that SQL counts each once. Whatever is redelivered, posted again
//! or appended again after an answer that never came has the `(source, id)` of the first.
//!
//! Every row's name is looked at once. Names that are numbers, as Rebound's own probers give them, are kept as a
//! compressed set a source; others as 64 bits of hash. What was seen already is only *doubtful* then (a hash may be
//! that of another name): the follower reads where those stand, and of the rows of one name the first by
//! [`Position`] counts, whichever was read first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col,
};
use roaring::RoaringTreemap;

use crate::gather::strings;
use crate::session::SqlError;

/// The columns that [`Seen::look`] takes, in their order.
pub(crate) const LOOKED_AT: [&str; 5] = ["source", "id", "topic", "partition", "offset"];
/// The columns that [`Doubts::take`] takes, in their order.
pub(crate) const WEIGHED: [&str; 6] = ["source", "id", "ingested_at", "topic", "partition", "offset"];

/// Where a row stands: when it was taken in, topic, partition, offset. The first of several equal events counts.
type Position = (i64, String, i32, i64);
/// `(source, id)`.
type Name = (String, String);

/// Offsets by (topic, partition).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows(BTreeMap<(String, i32), RoaringTreemap>);

impl Rows {
    fn of(&mut self, topic: &str, partition: i32) -> &mut RoaringTreemap {
        let wanted = (topic.to_owned(), partition);
        self.0.entry(wanted).or_default()
    }

    /// How many.
    pub(crate) fn len(&self) -> u64 {
        self.0.values().map(RoaringTreemap::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.values().all(RoaringTreemap::is_empty)
    }

    /// A condition that holds for every row of the log that is none of these.
    pub(crate) fn none_of(self: &Arc<Self>) -> Expr {
        let repeats = ScalarUDF::new_from_impl(Repeats::new(self.clone()));
        Expr::Not(Box::new(repeats.call(vec![col("topic"), col("partition"), col("offset")])))
    }
}

/// A number written as numbers are: the same text, the same number.
fn number(id: &str) -> Option<u64> {
    let plain = id.len() <= 18 && !id.is_empty() && (id.len() == 1 || !id.starts_with('0'));
    (plain && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.parse().ok())?
}

/// Names that were seen, and the rows that were looked at.
#[derive(Default)]
pub(crate) struct Seen {
    rows: Rows,
    numbered: HashMap<String, RoaringTreemap>,
    named: HashSet<u64>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl Seen {
    /// Looks at a batch of [`LOOKED_AT`] and adds the names that were there before to `doubts`. A row that was looked
    /// at before, and that compaction moved to another file, says nothing new.
    pub(crate) fn look(&mut self, batch: &RecordBatch, doubts: &mut Doubts) -> Result<(), SqlError> {
        let (sources, ids, topics) = (strings(batch, 0)?, strings(batch, 1)?, strings(batch, 2)?);
        let partitions = batch.column(3).as_primitive::<Int32Type>();
        let offsets = batch.column(4).as_primitive::<Int64Type>();
        let hash = BuildHasherDefault::<DefaultHasher>::default();
        let mut from = 0;
        while from < batch.num_rows() {
            let (source, topic, partition) = (sources.value(from), topics.value(from), partitions.value(from));
            let same = |row: &usize| {
                sources.value(*row) == source && topics.value(*row) == topic && partitions.value(*row) == partition
            };
            // Rows are sorted, so that what they have in common changes rarely.
            let until = (from..batch.num_rows()).find(|row| !same(row)).unwrap_or(batch.num_rows());
            let rows = self.rows.of(topic, partition);
            let numbers = match self.numbered.get_mut(source) {
                Some(numbers) => numbers,
                None => self.numbered.entry(source.to_owned()).or_default(),
            };
            for row in from..until {
                if !rows.insert(u64::try_from(offsets.value(row)).unwrap_or_default()) {
                    continue;
                }
                let id = ids.value(row);
                let new = match number(id) {
                    Some(number) => numbers.insert(number),
                    None => self.named.insert(hash.hash_one((source, id))),
                };
                if !new {
                    doubts.names.insert((source.to_owned(), id.to_owned()));
                }
            }
            from = until;
        }
        Ok(())
    }
}

/// Names that may stand in the log more than once, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts {
    names: HashSet<Name>,
    found: HashMap<Name, Vec<Position>>,
}

impl Doubts {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The sources that they are of.
    pub(crate) fn sources(&self) -> HashSet<&str> {
        self.names.iter().map(|(source, _)| source.as_str()).collect()
    }

    /// Their ids, if there are no more than `most`.
    pub(crate) fn ids(&self, most: usize) -> Option<HashSet<&str>> {
        (self.names.len() <= most).then(|| self.names.iter().map(|(_, id)| id.as_str()).collect())
    }

    /// Takes in a batch of [`WEIGHED`]: where the doubtful ones stand.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let (sources, ids, topics) = (strings(batch, 0)?, strings(batch, 1)?, strings(batch, 3)?);
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        let partitions = batch.column(4).as_primitive::<Int32Type>();
        let offsets = batch.column(5).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let name = (sources.value(row).to_owned(), ids.value(row).to_owned());
            if self.names.contains(&name) {
                let here = (times.value(row), topics.value(row).to_owned(), partitions.value(row), offsets.value(row));
                self.found.entry(name).or_default().push(here);
            }
        }
        Ok(())
    }

    /// Of each name all rows but the first are repeats.
    pub(crate) fn settle(self, repeats: &mut Rows) {
        for mut positions in self.found.into_values() {
            positions.sort_unstable();
            for (n, (_, topic, partition, offset)) in positions.iter().enumerate() {
                let (rows, offset) = (repeats.of(topic, *partition), u64::try_from(*offset).unwrap_or_default());
                if n == 0 {
                    rows.remove(offset)
                } else {
                    rows.insert(offset)
                };
            }
        }
    }
}

/// `repeats(topic, partition, offset)`: whether a row is one of these. As a function and not as a list in the
/// statement, so that a million of them are looked up as fast as one, and planned as fast.
#[derive(Debug, Clone)]
struct Repeats {
    rows: Arc<Rows>,
    signature: Signature,
}

impl Repeats {
    fn new(rows: Arc<Rows>) -> Self {
        Self { rows, signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl PartialEq for Repeats {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
    }
}

impl Eq for Repeats {}

impl std::hash::Hash for Repeats {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.rows).hash(state);
    }
}

impl ScalarUDFImpl for Repeats {
    fn name(&self) -> &'static str {
        "repeats"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let as_type = |array: &ArrayRef, kind| cast(array, &kind);
        let partitions = as_type(&arrays[1], DataType::Int32)?;
        let offsets = as_type(&arrays[2], DataType::Int64)?;
        let (partitions, offsets) = (partitions.as_primitive::<Int32Type>(), offsets.as_primitive::<Int64Type>());
        // Few rows are at an offset that repeats in any topic: only then are topics looked at.
        let mut topics: Option<StringArray> = None;
        let mut answer = vec![false; offsets.len()];
        for ((topic, partition), repeated) in &self.rows.0 {
            for (row, is) in answer.iter_mut().enumerate() {
                let offset = u64::try_from(offsets.value(row)).unwrap_or_default();
                if partitions.value(row) != *partition || !repeated.contains(offset) {
                    continue;
                }
                if topics.is_none() {
                    topics = Some(as_type(&arrays[0], DataType::Utf8)?.as_string::<i32>().clone());
                }
                *is |= topics.as_ref().is_some_and(|topics| topics.value(row) == topic);
            }
        }
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(answer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_that_are_written_alike_are_the_same_number() {
        for (id, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("1000000000000000000", None),
            ("007", None),
            ("+7", None),
            ("7a", None),
            ("", None),
        ] {
            assert_eq!(number(id), expected, "{id:?}");
        }
    }
}
