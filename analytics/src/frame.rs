//! The crossing from Arrow to Polars, which has an Arrow of its own: one function, by the C data interface.
//!
//! The only unsafe code of the workspace. Strings cross as views, which Polars takes without copying.

#![allow(unsafe_code)]

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, to_ffi};
use polars::frame::DataFrame;
use polars::prelude::{Column, PlSmallStr, Series};
use polars_arrow::ffi::{ArrowArray, ArrowSchema, import_array_from_c, import_field_from_c};

/// Why a batch did not cross.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Arrow could not export a column.
    #[error("arrow can't export the column {column:?}: {source}")]
    Arrow {
        /// Which.
        column: String,
        /// What it said.
        source: arrow::error::ArrowError,
    },
    /// Polars could not import or compute.
    #[error("polars: {0}")]
    Polars(#[from] polars::error::PolarsError),
}

/// A batch as a Polars frame; buffers are shared, not copied.
///
/// # Errors
/// A column has a type that one of the two does not know.
pub fn to_polars(batch: &RecordBatch) -> Result<DataFrame, FrameError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let wrong = |source| FrameError::Arrow { column: field.name().clone(), source };
        let array = match array.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => cast(array, &DataType::Utf8View).map_err(wrong)?,
            _ => array.clone(),
        };
        let (array, schema) = to_ffi(&array.to_data()).map_err(wrong)?;
        let series = import(field.name(), array, schema)?;
        columns.push(Column::from(series));
    }
    Ok(DataFrame::new(batch.num_rows(), columns)?)
}

// Both sides declare the C data interface's structures with `repr(C)` and equal fields; a difference in size is
// found when this is compiled.
const _: () = assert!(size_of::<FFI_ArrowArray>() == size_of::<ArrowArray>());
const _: () = assert!(size_of::<FFI_ArrowSchema>() == size_of::<ArrowSchema>());
const _: () = assert!(align_of::<FFI_ArrowArray>() == align_of::<ArrowArray>());
const _: () = assert!(align_of::<FFI_ArrowSchema>() == align_of::<ArrowSchema>());

fn import(name: &str, array: FFI_ArrowArray, schema: FFI_ArrowSchema) -> Result<Series, FrameError> {
    // SAFETY: `FFI_ArrowArray` and `ArrowArray` are the C data interface's `struct ArrowArray`, of the same layout
    // by its specification. The value moves, so that the release callback runs once, when Polars drops it.
    let array: ArrowArray = unsafe { std::mem::transmute(array) };
    // SAFETY: as above, for `struct ArrowSchema`.
    let schema: ArrowSchema = unsafe { std::mem::transmute(schema) };
    // SAFETY: `schema` was made by arrow's exporter, which fills it as the interface demands.
    let field = unsafe { import_field_from_c(&schema)? };
    // SAFETY: `array` was exported together with `schema`, so `field`'s type describes its buffers, which live until
    // the release callback that the imported array now owns.
    let array = unsafe { import_array_from_c(array, field.dtype)? };
    Ok(Series::try_from((PlSmallStr::from_str(name), array))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use polars::prelude::TimeUnit;

    use super::*;

    #[test]
    fn values_and_nulls_cross() {
        let long = "a text of more than the twelve bytes that a view holds itself";
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec![Some("short"), None, Some(long)]))),
            ("long", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]))),
            ("double", Arc::new(Float64Array::from(vec![0.5, 1.5, f64::MAX]))),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 1_767_225_600_000_000]).with_timezone("UTC"))),
        ];
        // A slice has an offset, which must cross too.
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        for (from, batch) in [(0, batch.clone()), (1, batch.slice(1, 2))] {
            let frame = to_polars(&batch).unwrap();
            drop(batch);
            assert_eq!(frame.shape(), (3 - from, 4));
            let text: Vec<_> = frame.column("text").unwrap().str().unwrap().iter().collect();
            assert_eq!(text, [Some("short"), None, Some(long)][from..]);
            let longs: Vec<_> = frame.column("long").unwrap().i64().unwrap().iter().collect();
            assert_eq!(longs, [Some(1), None, Some(-3)][from..]);
            let doubles: Vec<_> = frame.column("double").unwrap().f64().unwrap().iter().collect();
            assert_eq!(doubles, [Some(0.5), Some(1.5), Some(f64::MAX)][from..]);
            let time = frame.column("time").unwrap().datetime().unwrap();
            assert_eq!(time.time_unit(), TimeUnit::Microseconds);
            assert_eq!(time.physical().get(2 - from), Some(1_767_225_600_000_000));
        }
    }
}
