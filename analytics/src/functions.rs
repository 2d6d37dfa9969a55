//! The statistics as SQL functions, so that whoever asks in SQL gets the figures of the reports: each calls the one
//! definition in Rust.
//!
//! The aggregates look at all values of a group together, so they hold them: within the memory limit of SQL.

use std::fmt::{Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarUDF, Signature, TypeSignature, Volatility,
    create_udf,
};

use crate::bucket::TimeBucket;
use crate::series::{MOST_POINTS, mann_kendall, theil_sen};
use crate::stats;
use crate::survival::{KaplanMeier, Observation};

/// A function of SQL, for its page.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// How it is called.
    pub call: &'static str,
    /// What it answers, in what unit, and when NULL.
    pub meaning: &'static str,
    /// A statement that calls it.
    pub example: &'static str,
}

/// Every function that Rebound adds to those of DataFusion.
pub const FUNCTIONS: &[Function] = &[
    Function {
        call: "rto_met(lasted_seconds, recovered, rto_seconds)",
        meaning: "Whether it recovered within the objective; false too if it lasts beyond it, NULL before or without one.",
        example: "SELECT service, rto_met(lasted_seconds, recovered_at IS NOT NULL, 900) FROM incidents",
    },
    Function {
        call: "time_bucket(width, at)",
        meaning: "Beginning of the stretch that `at` falls into, as in `time_bucket('6 hours', occurred_at)`; weeks begin \
                  on Monday, in UTC.",
        example: "SELECT time_bucket('6 hours', first_failure_at) AS at, count(*) FROM incidents GROUP BY 1 ORDER BY 1",
    },
    Function {
        call: "geo_mean(value)",
        meaning: "Geometric mean, aggregate; 0 if a value is 0, NULL without values or if one is negative.",
        example: "SELECT service, geo_mean(mttr_seconds) FROM incidents GROUP BY service",
    },
    Function {
        call: "km_median(lasted_seconds, recovered)",
        meaning: "Kaplan–Meier median, aggregate, those that have not recovered censored; NULL while more than half wait.",
        example: "SELECT km_median(lasted_seconds, recovered_at IS NOT NULL) FROM incidents WHERE NOT excluded",
    },
    Function {
        call: "km_median_low(lasted_seconds, recovered)",
        meaning: "Lower end of that median's 95 % interval; NULL where it is open.",
        example: "SELECT km_median_low(lasted_seconds, recovered_at IS NOT NULL) FROM incidents WHERE NOT excluded",
    },
    Function {
        call: "km_median_high(lasted_seconds, recovered)",
        meaning: "Upper end of it; NULL where it is open.",
        example: "SELECT km_median_high(lasted_seconds, recovered_at IS NOT NULL) FROM incidents WHERE NOT excluded",
    },
    Function {
        call: "km_survival(lasted_seconds, recovered, after_seconds)",
        meaning: "Share, 0 to 1, that has not recovered `after_seconds` after t0, by Kaplan–Meier; aggregate.",
        example: "SELECT km_survival(lasted_seconds, recovered_at IS NOT NULL, 3600) FROM incidents WHERE NOT excluded",
    },
    Function {
        call: "mann_kendall_z(value, at)",
        meaning: "Mann–Kendall's Z of the values in the order of `at`, aggregate; below 0 they fall. NULL of fewer than 3.",
        example: "SELECT mann_kendall_z(mttr_seconds, first_failure_at) FROM incidents",
    },
    Function {
        call: "mann_kendall_p(value, at)",
        meaning: "Its two-sided p-value: below 0.05, a trend.",
        example: "SELECT mann_kendall_p(mttr_seconds, first_failure_at) FROM incidents",
    },
    Function {
        call: "theil_sen_slope(value, at)",
        meaning: "Theil–Sen's slope, aggregate: units of `value` a day where `at` is a time, else a unit of `at`; at \
                  most 3000 values.",
        example: "SELECT theil_sen_slope(mttr_seconds, first_failure_at) AS seconds_a_day FROM incidents",
    },
    Function {
        call: "theil_sen_low(value, at)",
        meaning: "Lower end of that slope's 95 % interval.",
        example: "SELECT theil_sen_low(mttr_seconds, first_failure_at) FROM incidents",
    },
    Function {
        call: "theil_sen_high(value, at)",
        meaning: "Upper end of it.",
        example: "SELECT theil_sen_high(mttr_seconds, first_failure_at) FROM incidents",
    },
    Function {
        call: "json_text(data, path)",
        meaning: "Text at a path of the JSON in `events.data`, of names and places joined by dots (`members.0.alert`); what is no text as it is written; NULL if nothing is there.",
        example: "SELECT json_text(data, 'silence') AS silence, json_text(data, 'by') AS created_by FROM events WHERE kind = 'silence.created'",
    },
    Function {
        call: "json_number(data, path)",
        meaning: "Number at a path; NULL if none is there.",
        example: "SELECT json_number(data, 'failures') FROM events WHERE kind = 'alert.raised'",
    },
    Function {
        call: "json_boolean(data, path)",
        meaning: "True or false at a path; NULL if neither is there.",
        example: "SELECT json_boolean(data, 'automated') FROM events WHERE kind = 'incident.acknowledged'",
    },
];

/// Adds the functions to a session.
///
/// # Errors
/// The session refuses functions, which would be a defect.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    state.register_udf(Arc::new(rto_met()))?;
    crate::json::register(state)?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(TimeBucket::new())))?;
    for aggregate in aggregates() {
        state.register_udaf(Arc::new(AggregateUDF::new_from_impl(aggregate)))?;
    }
    Ok(())
}

fn rto_met() -> ScalarUDF {
    let types = vec![DataType::Float64, DataType::Boolean, DataType::Float64];
    let met = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (lasted, recovered, rto) =
            (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_boolean(), arrays[2].as_primitive::<Float64Type>());
        let met = |((lasted, recovered), rto): ((Option<f64>, Option<bool>), Option<f64>)| {
            stats::rto_met(lasted?, recovered?, rto?)
        };
        let met: BooleanArray = lasted.iter().zip(recovered).zip(rto).map(met).collect();
        Ok(ColumnarValue::Array(Arc::new(met)))
    };
    create_udf("rto_met", types, DataType::Boolean, Volatility::Immutable, Arc::new(met))
}

/// What an aggregate makes of its rows, each as many numbers as it has arguments.
type Finish = fn(&[Vec<f64>]) -> Result<Option<f64>>;

/// What arguments an aggregate takes.
#[derive(Clone, Copy)]
enum Takes {
    /// A number.
    Value,
    /// A number, and whether it happened.
    Observation,
    /// The same, and a number.
    ObservationAndNumber,
    /// A number, and when.
    Point,
}

impl Takes {
    fn signature(self) -> Signature {
        let (number, time) =
            (DataType::Float64, |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into)));
        let exact = |types: &[DataType]| Signature::exact(types.to_vec(), Volatility::Immutable);
        match self {
            Self::Value => exact(&[number]),
            Self::Observation => exact(&[number, DataType::Boolean]),
            Self::ObservationAndNumber => exact(&[number.clone(), DataType::Boolean, number]),
            Self::Point => {
                // The first that fits counts: a time must not be taken for a number.
                let seconds = [time(Some("UTC")), time(None), DataType::Date32, number.clone()];
                let either = seconds.map(|second| TypeSignature::Exact(vec![number.clone(), second]));
                Signature::one_of(either.to_vec(), Volatility::Immutable)
            }
        }
    }

    fn arguments(self) -> usize {
        match self {
            Self::Value => 1,
            Self::Observation | Self::Point => 2,
            Self::ObservationAndNumber => 3,
        }
    }
}

/// An aggregate that holds its rows until the end.
struct Whole {
    name: &'static str,
    takes: Takes,
    signature: Signature,
    finish: Finish,
}

fn aggregates() -> Vec<Whole> {
    let whole = |name, takes: Takes, finish: Finish| Whole { name, takes, signature: takes.signature(), finish };
    fn curve(rows: &[Vec<f64>]) -> KaplanMeier {
        let observation = |row: &Vec<f64>| Observation { time: row[0], happened: row[1] != 0.0 };
        KaplanMeier::fit(&rows.iter().map(observation).collect::<Vec<_>>())
    }
    fn in_order(rows: &[Vec<f64>]) -> Vec<f64> {
        let mut rows: Vec<_> = rows.iter().map(|row| (row[1], row[0])).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        rows.into_iter().map(|(_, value)| value).collect()
    }
    fn line(rows: &[Vec<f64>]) -> Result<Option<crate::series::TheilSen>> {
        if rows.len() > MOST_POINTS {
            let message = format!(
                "theil_sen_… compares every value with every other and takes at most {MOST_POINTS}, this group has {}: \
                 aggregate first, as in SELECT theil_sen_slope(m, month) FROM (SELECT date_trunc('month', \
                 first_failure_at) AS month, median(mttr_seconds) AS m FROM incidents GROUP BY 1)",
                rows.len()
            );
            return Err(datafusion::error::DataFusionError::Execution(message));
        }
        Ok(theil_sen(&rows.iter().map(|row| (row[1], row[0])).collect::<Vec<_>>()))
    }
    vec![
        whole("geo_mean", Takes::Value, |rows| {
            Ok(stats::geometric_mean(&rows.iter().map(|row| row[0]).collect::<Vec<_>>()))
        }),
        whole("km_median", Takes::Observation, |rows| Ok(curve(rows).median())),
        whole("km_median_low", Takes::Observation, |rows| Ok(curve(rows).median_interval().0)),
        whole("km_median_high", Takes::Observation, |rows| Ok(curve(rows).median_interval().1)),
        whole("km_survival", Takes::ObservationAndNumber, |rows| {
            Ok(rows.first().map(|first| curve(rows).survival(first[2])))
        }),
        whole("mann_kendall_z", Takes::Point, |rows| Ok(mann_kendall(&in_order(rows)).map(|found| found.z))),
        whole("mann_kendall_p", Takes::Point, |rows| Ok(mann_kendall(&in_order(rows)).map(|found| found.p))),
        whole("theil_sen_slope", Takes::Point, |rows| Ok(line(rows)?.map(|found| found.slope))),
        whole("theil_sen_low", Takes::Point, |rows| Ok(line(rows)?.map(|found| found.low))),
        whole("theil_sen_high", Takes::Point, |rows| Ok(line(rows)?.map(|found| found.high))),
    ]
}

impl Debug for Whole {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whole").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Whole {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Whole {}

impl Hash for Whole {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for Whole {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        Ok(vec![Arc::new(Field::new(format!("{}[rows]", args.name), DataType::List(item), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let (arguments, finish) = (self.takes.arguments(), self.finish);
        Ok(Box::new(Rows { flat: Vec::new(), arguments, distinct: args.is_distinct, finish }))
    }
}

/// The rows so far, one after the other.
struct Rows {
    flat: Vec<f64>,
    arguments: usize,
    distinct: bool,
    finish: Finish,
}

impl Debug for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("values", &self.flat.len()).finish_non_exhaustive()
    }
}

/// An argument as numbers: a time as days, a yes as 1.
fn numbers(array: &ArrayRef) -> Result<Float64Array> {
    let doubles = |array: &ArrayRef| -> Result<Float64Array> {
        Ok(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    };
    match array.data_type() {
        DataType::Timestamp(_, zone) => {
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            Ok(doubles(&cast(&micros, &DataType::Int64)?)?.unary(|micros| micros / 86_400e6))
        }
        DataType::Date32 => doubles(&cast(array, &DataType::Int32)?),
        _ => doubles(array),
    }
}

impl Accumulator for Rows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let columns = values.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        let rows = columns.first().map_or(0, Array::len);
        // As aggregates do: a row with a NULL is none.
        for row in (0..rows).filter(|row| columns.iter().all(|column| column.is_valid(*row))) {
            self.flat.extend(columns.iter().map(|column| column.value(row)));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut rows: Vec<Vec<f64>> = self.flat.chunks_exact(self.arguments).map(<[f64]>::to_vec).collect();
        rows.retain(|row| row.iter().all(|value| value.is_finite()));
        if self.distinct {
            rows.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            rows.dedup();
        }
        Ok(ScalarValue::Float64((self.finish)(&rows)?))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.flat.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: ArrayRef = Arc::new(Float64Array::from(std::mem::take(&mut self.flat)));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([values.len()]);
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        Ok(vec![ScalarValue::List(Arc::new(ListArray::new(item, offsets, values, None)))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.flat.extend(list.as_primitive::<Float64Type>().values());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_function_is_on_the_page_and_the_other_way_round() {
        let listed: BTreeSet<_> = FUNCTIONS.iter().filter_map(|function| function.call.split('(').next()).collect();
        let scalars = ["rto_met", "time_bucket", "json_text", "json_number", "json_boolean"];
        let there: BTreeSet<_> = aggregates().iter().map(|aggregate| aggregate.name).chain(scalars).collect();
        assert_eq!(listed, there);
    }
}
