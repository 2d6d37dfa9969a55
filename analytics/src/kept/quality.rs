//! What is odd about the incidents that the figures rest on: each kind is handled by a rule, and counted here.
//!
//! | kind | what the fold makes of it |
//! |---|---|
//! | told again (same source and id) | counts once |
//! | late, out of order | as if it had come in time: events are weighed by when they happened |
//! | corrected | restated, the original beside it |
//! | excluded | in no figure |
//! | of zero length | a recovery time of 0 |
//! | ends before it begins | no duration at all |
//! | overlaps another of its service | both count; availability counts the time once |

use arrow::array::{Array, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use serde::Serialize;

use super::Kept;
use crate::session::SqlError;

/// Incidents, and how many of them are odd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quality {
    /// All.
    pub incidents: u64,
    /// Not resolved.
    pub open: u64,
    /// Events that tell of them, each once.
    pub events: u64,
    /// Events that were told again.
    pub events_told_again: u64,
    /// With an event that was taken in more than an hour after it happened; imported history is.
    pub late: u64,
    /// With events that came in another order than that in which they happened.
    pub out_of_order: u64,
    /// Corrected.
    pub corrected: u64,
    /// Taken out of every figure, by a correction or a maintenance window.
    pub excluded: u64,
    /// With t3 at t0.
    pub zero_length: u64,
    /// With t3 before t0.
    pub impossible: u64,
    /// That begin while another of the same service lasts; those excluded aside.
    pub overlapping: u64,
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).expect("it was asked for")
}

fn flags<'a>(batch: &'a RecordBatch, name: &str) -> &'a BooleanArray {
    column(batch, name).as_boolean()
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> &'a PrimitiveArray<TimestampMicrosecondType> {
    column(batch, name).as_primitive()
}

fn set(flags: &BooleanArray) -> u64 {
    flags.true_count() as u64
}

const COLUMNS: [&str; 10] = [
    "service",
    "open",
    "excluded",
    "first_failure_at",
    "recovered_at",
    "corrected_at",
    "_events",
    "_repeated",
    "_late",
    "_unordered",
];

impl Kept {
    /// Counts what is odd.
    pub(crate) fn quality(&self) -> Result<Quality, SqlError> {
        let state = self.state.as_ref().expect("it was refreshed");
        let mut found = Quality::default();
        let mut spans: Vec<(i64, i64, i64)> = Vec::new();
        state.each_row(0, &COLUMNS, |batch| {
            let sum = |name: &str| {
                let total = arrow::compute::sum(column(batch, name).as_primitive::<Int64Type>()).unwrap_or(0);
                u64::try_from(total).unwrap_or(0)
            };
            found.incidents += batch.num_rows() as u64;
            found.open += set(flags(batch, "open"));
            found.excluded += set(flags(batch, "excluded"));
            found.events += sum("_events");
            found.events_told_again += sum("_repeated");
            found.late += set(flags(batch, "_late"));
            found.out_of_order += set(flags(batch, "_unordered"));
            let corrected = times(batch, "corrected_at");
            found.corrected += (corrected.len() - corrected.null_count()) as u64;
            let names = arrow::compute::cast(column(batch, "service"), &DataType::Utf8).expect("names are text");
            let (begun, ended) = (times(batch, "first_failure_at"), times(batch, "recovered_at"));
            let rows = names.as_string::<i32>().iter().zip(begun).zip(ended).zip(flags(batch, "excluded"));
            for (((service, begun), ended), excluded) in rows {
                let (Some(service), Some(begun)) = (service, begun) else { continue };
                found.zero_length += u64::from(ended == Some(begun));
                found.impossible += u64::from(ended.is_some_and(|ended| ended < begun));
                if excluded != Some(true) {
                    spans.push((super::facts::hash(service), begun, ended.unwrap_or(i64::MAX)));
                }
            }
        })?;
        found.overlapping = overlapping(spans);
        Ok(found)
    }
}

/// Spans (of what, from, until) that begin while an earlier one of the same lasts.
fn overlapping(mut spans: Vec<(i64, i64, i64)>) -> u64 {
    spans.sort_unstable();
    let (mut n, mut of, mut until) = (0, None, i64::MIN);
    for (service, from, to) in spans {
        if of != Some(service) {
            (of, until) = (Some(service), i64::MIN);
        }
        n += u64::from(from < until);
        until = until.max(to);
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_while_another_lasts_overlaps_it() {
        let rows: [(&[_], u64); 6] = [
            (&[], 0),
            (&[(1, 0, 10), (1, 10, 20)], 0),
            (&[(1, 0, 10), (1, 9, 20)], 1),
            (&[(1, 9, 20), (2, 0, 10)], 0),
            (&[(1, 0, 100), (1, 10, 20), (1, 30, 40)], 2),
            (&[(1, 0, i64::MAX), (1, 5, 5)], 1),
        ];
        for (spans, expected) in rows {
            assert_eq!(overlapping(spans.to_vec()), expected, "{spans:?}");
        }
    }
}
