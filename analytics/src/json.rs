//! Functions of SQL that read the JSON in `events.data`, so that what has no column of its own can be asked too.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use sonic_rs::{JsonValueTrait, LazyValue, PointerNode};

/// The value at a path of names and places joined by dots, as in `members.0.alert`.
fn find<'a>(json: &'a str, path: &str) -> Option<LazyValue<'a>> {
    let nodes = path.split('.').map(|part| match part.parse::<usize>() {
        Ok(place) => PointerNode::Index(place),
        Err(_) => PointerNode::Key(part.to_owned().into()),
    });
    sonic_rs::get(json, nodes.collect::<Vec<_>>()).ok().filter(|value| !value.is_null())
}

fn text(json: &str, path: &str) -> Option<String> {
    let value = find(json, path)?;
    Some(value.as_str().map_or_else(|| value.as_raw_str().to_owned(), str::to_owned))
}

fn number(json: &str, path: &str) -> Option<f64> {
    find(json, path)?.as_f64().filter(|number| number.is_finite())
}

fn boolean(json: &str, path: &str) -> Option<bool> {
    find(json, path)?.as_bool()
}

fn function<T>(name: &str, answers: DataType, get: fn(&str, &str) -> Option<T>) -> ScalarUDF
where
    T: Send + Sync + 'static,
    Column: FromIterator<Option<T>>,
{
    let read = move |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (texts, paths) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let values = texts.iter().zip(paths).map(|(json, path)| get(json?, path?));
        Ok(ColumnarValue::Array(values.collect::<Column>().0))
    };
    create_udf(name, vec![DataType::Utf8, DataType::Utf8], answers, Volatility::Immutable, Arc::new(read))
}

struct Column(Arc<dyn Array>);

impl FromIterator<Option<String>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<String>>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect::<StringArray>()))
    }
}

impl FromIterator<Option<f64>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<f64>>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect::<Float64Array>()))
    }
}

impl FromIterator<Option<bool>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<bool>>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect::<BooleanArray>()))
    }
}

/// `json_text(data, path)`.
pub(crate) fn json_text() -> ScalarUDF {
    function("json_text", DataType::Utf8, text)
}

/// `json_number(data, path)`.
pub(crate) fn json_number() -> ScalarUDF {
    function("json_number", DataType::Float64, number)
}

/// `json_boolean(data, path)`.
pub(crate) fn json_boolean() -> ScalarUDF {
    function("json_boolean", DataType::Boolean, boolean)
}

/// Adds the functions to a session.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    for function in [json_text(), json_number(), json_boolean()] {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_path_or_is_none() {
        let json = r#"{"a":{"b":[{"c":"x"},{"c":2.5}]},"yes":true,"none":null,"0":"zero"}"#;
        assert_eq!(text(json, "a.b.0.c").as_deref(), Some("x"));
        assert_eq!(text(json, "a.b.1").as_deref(), Some(r#"{"c":2.5}"#), "what is no text is told as it is written");
        assert_eq!(number(json, "a.b.1.c"), Some(2.5));
        assert_eq!((number(json, "a.b.0.c"), boolean(json, "yes")), (None, Some(true)));
        for path in ["none", "missing", "a.b.9", "a.b.0.c.d", "", "."] {
            assert_eq!(text(json, path), None, "{path:?}");
        }
        for broken in ["", "{", "[1,", "no JSON"] {
            assert_eq!(text(broken, "a"), None, "{broken:?}");
        }
    }
}
