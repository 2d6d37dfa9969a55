//! `time_bucket('1 hour', at)`: the beginning of the stretch of time that a time falls into, as TimescaleDB has it, so
//! that figures can be grouped by any stretch and not only by those that `date_trunc` knows.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// A Monday, so that weeks begin on one; hours and days begin as they would from any day.
const MONDAY: i64 = 946_857_600_000_000_000;
/// The first of a year, for months, quarters and years.
const NEW_YEAR: i64 = 946_684_800_000_000_000;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [width, at] = types else {
            return plan_err!("time_bucket takes a width and a time, as in time_bucket('1 hour', occurred_at)");
        };
        let width = match width {
            DataType::Interval(_) | DataType::Duration(_) | DataType::Utf8 | DataType::LargeUtf8 => INTERVAL,
            DataType::Utf8View | DataType::Null => INTERVAL,
            other => return plan_err!("time_bucket's width is an interval as in '1 hour', not {other}"),
        };
        let at = match at {
            at @ DataType::Timestamp(..) => at.clone(),
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            other => return plan_err!("time_bucket's second argument is a time, not {other}"),
        };
        Ok(vec![width, at])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(width)) = &args.args[0] else {
            return exec_err!("time_bucket's width is one interval, not a column");
        };
        let origin = match width {
            Some(width) if width.months > 0 => NEW_YEAR,
            _ => MONDAY,
        };
        let zone = match args.args[1].data_type() {
            DataType::Timestamp(_, zone) => zone,
            _ => None,
        };
        args.args.push(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), zone)));
        date_bin().invoke_with_args(ScalarFunctionArgs { config_options: Arc::new(ConfigOptions::default()), ..args })
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;
    use datafusion::logical_expr::ScalarUDF;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn bucket(width: &str, at: &str) -> String {
        let context = SessionContext::new();
        context.register_udf(ScalarUDF::new_from_impl(TimeBucket::new()));
        let sql = format!("SELECT time_bucket({width}, '{at}'::TIMESTAMP)");
        let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
        array_value_to_string(batches[0].column(0), 0).unwrap()
    }

    #[tokio::test]
    async fn a_time_falls_into_the_stretch_that_began_last() {
        // 2026-01-31 was a Saturday.
        for (width, begins) in [
            ("'5 minutes'", "2026-01-31T13:40:00"),
            ("'1 hour'", "2026-01-31T13:00:00"),
            ("INTERVAL '6 hours'", "2026-01-31T12:00:00"),
            ("'1 day'", "2026-01-31T00:00:00"),
            ("'1 week'", "2026-01-26T00:00:00"),
            ("'1 month'", "2026-01-01T00:00:00"),
            ("'3 months'", "2026-01-01T00:00:00"),
            ("'1 year'", "2026-01-01T00:00:00"),
        ] {
            assert_eq!(bucket(width, "2026-01-31T13:44:59.5").await, begins, "{width}");
        }
        assert_eq!(bucket("'1 week'", "2026-01-26T00:00:00").await, "2026-01-26T00:00:00", "a Monday begins its own");
        assert_eq!(
            bucket("'1 week'", "1969-12-31T23:00:00").await,
            "1969-12-29T00:00:00",
            "before there were computers"
        );
    }

    #[tokio::test]
    async fn what_is_no_width_or_no_time_is_refused_with_what_to_write() {
        let context = SessionContext::new();
        context.register_udf(ScalarUDF::new_from_impl(TimeBucket::new()));
        for (call, says) in [
            ("time_bucket(5, now())", "'1 hour'"),
            ("time_bucket('1 hour')", "time_bucket('1 hour', occurred_at)"),
            ("time_bucket('1 hour', 5)", "is a time"),
            ("time_bucket('an hour', now())", "an hour"),
        ] {
            let asked = async { context.sql(&format!("SELECT {call}")).await?.collect().await };
            let error = asked.await.unwrap_err().to_string();
            assert!(error.contains(says), "{call}: {error}");
        }
    }
}
