//! Batches that were read, whatever the reader made of their text columns, back to rows.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::columns::{Arrays, Row};

/// Why a batch is not one of the event log's.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A column that every row must have is missing.
    #[error("the batch has no column {0:?}, which every row of the event log has")]
    Missing(&'static str),
    /// A column has a type that can't be read as the log's.
    #[error("the column {column:?} can't be read as {wanted}")]
    Type {
        /// Which.
        column: &'static str,
        /// The log's type.
        wanted: DataType,
        /// What Arrow said.
        #[source]
        source: arrow::error::ArrowError,
    },
}

/// Rows of a batch. Columns that the batch lacks (a projection, an older file) read as NULL.
#[derive(Debug)]
pub struct RowReader {
    arrays: Arrays,
    rows: usize,
}

impl RowReader {
    /// Reads a batch with at least the columns that every row must have.
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        let get = |column: &'static str, wanted: &DataType| -> Result<Option<ArrayRef>, ReadError> {
            let Some(array) = batch.column_by_name(column) else { return Ok(None) };
            if array.data_type() == wanted {
                return Ok(Some(array.clone()));
            }
            cast(array, wanted).map(Some).map_err(|source| ReadError::Type { column, wanted: wanted.clone(), source })
        };
        Ok(Self { arrays: Arrays::collect(get, ReadError::Missing)?, rows: batch.num_rows() })
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

    /// The `at`-th row. Panics when there is none, as an index does.
    #[must_use]
    pub fn row(&self, at: usize) -> Row<'_> {
        self.arrays.row(at)
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.rows).map(|at| self.arrays.row(at))
    }
}
