//! The columns, each written once: schema, [`Row`], builder and reader are made from the one list below.

use std::sync::Arc;

use arrow::array::builder::{
    Int32Builder, Int64Builder, StringBuilder, StringDictionaryBuilder, TimestampMicrosecondBuilder,
};
use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};

/// The column that the table is partitioned by: the UTC date of `occurred_at`. It stands in the table's schema and
/// in the folders' names, not in the files.
pub const PARTITION_COLUMN: &str = "event_date";

/// How a column is typed, built and read.
pub(super) trait Cell {
    /// What a row holds.
    type Value<'a>: Copy + Default;
    /// Collects values.
    type Builder: Default;
    /// Is read from, after a cast to [`Cell::plain`].
    type Array: Array + Clone + 'static;
    /// The type in the table and the files.
    fn plain() -> DataType;
    /// The type in a batch being built.
    fn built() -> DataType {
        Self::plain()
    }
    fn push(builder: &mut Self::Builder, value: Self::Value<'_>);
    fn push_nulls(builder: &mut Self::Builder, n: usize);
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
    fn value(array: &Self::Array, row: usize) -> Self::Value<'_>;
}

/// Text with few distinct values: interned while a batch is built, plain text in the files.
pub(super) enum Word {}
/// Text with many distinct values.
pub(super) enum Text {}
/// 32-bit integer.
pub(super) enum Int {}
/// 64-bit integer.
pub(super) enum Long {}
/// Microseconds since 1970, UTC.
pub(super) enum Time {}

impl Cell for Word {
    type Value<'a> = &'a str;
    type Builder = StringDictionaryBuilder<Int32Type>;
    type Array = StringArray;
    fn plain() -> DataType {
        DataType::Utf8
    }
    fn built() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }
    fn push(builder: &mut Self::Builder, value: &str) {
        builder.append_value(value);
    }
    fn push_nulls(builder: &mut Self::Builder, n: usize) {
        builder.append_nulls(n);
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
    fn value(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }
}

impl Cell for Text {
    type Value<'a> = &'a str;
    type Builder = StringBuilder;
    type Array = StringArray;
    fn plain() -> DataType {
        DataType::Utf8
    }
    fn push(builder: &mut Self::Builder, value: &str) {
        builder.append_value(value);
    }
    fn push_nulls(builder: &mut Self::Builder, n: usize) {
        builder.append_nulls(n);
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
    fn value(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }
}

macro_rules! number {
    ($cell:ident, $native:ty, $builder:ty, $array:ty, $plain:expr) => {
        impl Cell for $cell {
            type Value<'a> = $native;
            type Builder = TypedBuilder<$builder>;
            type Array = $array;
            fn plain() -> DataType {
                $plain
            }
            fn push(builder: &mut Self::Builder, value: $native) {
                builder.0.append_value(value);
            }
            fn push_nulls(builder: &mut Self::Builder, n: usize) {
                builder.0.append_nulls(n);
            }
            fn finish(builder: &mut Self::Builder) -> ArrayRef {
                Arc::new(builder.0.finish())
            }
            fn value(array: &$array, row: usize) -> $native {
                array.value(row)
            }
        }
    };
}

/// A builder with the column's own type: a time's default builder would have no zone.
pub(super) struct TypedBuilder<B>(B);

impl Default for TypedBuilder<Int32Builder> {
    fn default() -> Self {
        Self(Int32Builder::new())
    }
}

impl Default for TypedBuilder<Int64Builder> {
    fn default() -> Self {
        Self(Int64Builder::new())
    }
}

impl Default for TypedBuilder<TimestampMicrosecondBuilder> {
    fn default() -> Self {
        Self(TimestampMicrosecondBuilder::new().with_data_type(Time::plain()))
    }
}

number!(Int, i32, Int32Builder, Int32Array, DataType::Int32);
number!(Long, i64, Int64Builder, Int64Array, DataType::Int64);
number!(
    Time,
    i64,
    TimestampMicrosecondBuilder,
    TimestampMicrosecondArray,
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
);

/// A column being built. A NULL costs nothing until the next value: most columns are NULL in most rows.
pub(super) struct Column<C: Cell> {
    builder: C::Builder,
    len: usize,
}

impl<C: Cell> Default for Column<C> {
    fn default() -> Self {
        Self { builder: C::Builder::default(), len: 0 }
    }
}

impl<C: Cell> Column<C> {
    fn set(&mut self, row: usize, value: C::Value<'_>) {
        self.pad(row);
        C::push(&mut self.builder, value);
        self.len += 1;
    }

    fn pad(&mut self, rows: usize) {
        if self.len < rows {
            C::push_nulls(&mut self.builder, rows - self.len);
            self.len = rows;
        }
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        self.len = 0;
        C::finish(&mut self.builder)
    }
}

/// What a row holds in a column of a kind, spelt out so that [`Row`] shows plain types.
macro_rules! value_of {
    (Word, $life:lifetime) => { &$life str };
    (Text, $life:lifetime) => { &$life str };
    (Int, $life:lifetime) => { i32 };
    (Long, $life:lifetime) => { i64 };
    (Time, $life:lifetime) => { i64 };
}

macro_rules! columns {
    (
        required { $($(#[$rdoc:meta])* $r:ident: $rt:ident,)* }
        optional { $($(#[$odoc:meta])* $o:ident: $ot:ident,)* }
    ) => {
        /// One row of the table, borrowed. Times are microseconds since 1970, UTC.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Row<'a> {
            $($(#[$rdoc])* pub $r: value_of!($rt, 'a),)*
            $($(#[$odoc])* pub $o: Option<value_of!($ot, 'a)>,)*
        }

        fn fields(built: bool) -> Vec<Field> {
            vec![
                $(Field::new(stringify!($r), if built { $rt::built() } else { $rt::plain() }, false),)*
                $(Field::new(stringify!($o), if built { $ot::built() } else { $ot::plain() }, true),)*
            ]
        }

        /// The columns of a batch being built.
        #[derive(Default)]
        pub(super) struct Columns {
            $($r: Column<$rt>,)*
            $($o: Column<$ot>,)*
        }

        impl std::fmt::Debug for Columns {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("Columns").finish_non_exhaustive()
            }
        }

        impl Columns {
            pub(super) fn push(&mut self, at: usize, row: &Row<'_>) {
                $(self.$r.set(at, row.$r);)*
                $(if let Some(value) = row.$o { self.$o.set(at, value); })*
            }

            /// In the order of the schema.
            pub(super) fn finish(&mut self, rows: usize) -> Vec<ArrayRef> {
                vec![$(self.$r.finish(rows),)* $(self.$o.finish(rows),)*]
            }
        }

        /// The columns of a batch that is read, each as its plain type; `None` where the batch has no such column.
        #[derive(Debug)]
        pub(super) struct Arrays {
            $($r: <$rt as Cell>::Array,)*
            $($o: Option<<$ot as Cell>::Array>,)*
        }

        impl Arrays {
            /// `get` gives a column cast to a type; `Ok(None)` if there is none.
            pub(super) fn collect<E>(
                mut get: impl FnMut(&'static str, &DataType) -> Result<Option<ArrayRef>, E>,
                missing: impl Fn(&'static str) -> E,
            ) -> Result<Self, E> {
                Ok(Self {
                    $($r: get(stringify!($r), &$rt::plain())?
                        .and_then(|a| a.as_any().downcast_ref().cloned())
                        .ok_or_else(|| missing(stringify!($r)))?,)*
                    $($o: get(stringify!($o), &$ot::plain())?.and_then(|a| a.as_any().downcast_ref().cloned()),)*
                })
            }

            pub(super) fn row(&self, at: usize) -> Row<'_> {
                Row {
                    $($r: $rt::value(&self.$r, at),)*
                    $($o: self.$o.as_ref().filter(|a| a.is_valid(at)).map(|a| $ot::value(a, at)),)*
                }
            }
        }
    };
}

columns! {
    required {
        /// The kind, as in `probe.completed`; `log.gap` for offsets without an event.
        kind: Word,
        /// The version that the payload was written in.
        version: Int,
        /// CloudEvents `id`, unique within `source`.
        id: Text,
        /// CloudEvents `source`.
        source: Word,
        /// When it happened, by the clock of `source`.
        occurred_at: Time,
        /// When the pipeline took it in (milliseconds precise).
        ingested_at: Time,
        /// `observations`, `alerts` or `recoveries`.
        topic: Word,
        /// Number of the bus partition.
        partition: Int,
        /// Position in it. `(topic, partition, offset)` is unique.
        offset: Long,
    }
    optional {
        /// CloudEvents `subject`; NULL only for `log.gap`.
        service: Word,
        /// The plan that a decision was made under.
        plan: Word,
        /// The site looked from, measured at, or moved to.
        site: Word,
        /// The probe.
        probe: Word,
        /// How it went: `healthy`, `degraded`, `failed`, or how a step, recovery, deployment, backup or drill ended.
        outcome: Word,
        /// Why it went wrong, coarsely.
        error_class: Word,
        /// Why, in words.
        reason: Word,
        /// From a probe's start to its verdict, in microseconds.
        latency_us: Long,
        /// HTTP status of a probe's final answer.
        http_status: Int,
        /// Earliest expiry of a certificate that was shown.
        certificate_expires_at: Time,
        /// The incident.
        incident: Word,
        /// The alert.
        alert: Word,
        /// The policy.
        policy: Word,
        /// How loudly.
        severity: Word,
        /// The recovery.
        recovery: Word,
        /// Which attempt, from 1 (for an escalation or a failed notification: how many).
        attempt: Int,
        /// The procedure.
        procedure: Word,
        /// The procedure's step.
        step: Word,
        /// How the service is brought back.
        method: Word,
        /// The notification channel.
        channel: Word,
        /// The drill.
        drill: Word,
        /// How long it took, in milliseconds.
        duration_ms: Long,
        /// t0 of the incident.
        first_failure_at: Time,
        /// t3 of the incident.
        recovered_at: Time,
        /// The payload's JSON as received; NULL where the typed columns say all of it.
        data: Text,
    }
}

/// The columns of the data files, in order.
#[must_use]
pub fn file_schema() -> SchemaRef {
    Arc::new(Schema::new(fields(false)))
}

/// The columns of a batch that a [`super::RowBuilder`] gives: those of [`file_schema`], words as dictionaries.
pub(super) fn built_schema() -> SchemaRef {
    Arc::new(Schema::new(fields(true)))
}

/// The columns of the table: [`PARTITION_COLUMN`] and those of the files.
#[must_use]
pub fn table_schema() -> SchemaRef {
    let mut all = vec![Field::new(PARTITION_COLUMN, DataType::Date32, false)];
    all.extend(fields(false));
    Arc::new(Schema::new(all))
}
