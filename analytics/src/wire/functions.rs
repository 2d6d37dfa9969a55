//! What clients ask of a server itself, and DataFusion lacks: its settings and its version.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;

use super::SERVER_VERSION;
use super::settings::SETTINGS;

/// Registers what can be answered without the catalog.
pub(super) fn register(context: &SessionContext, user: &str) {
    context.register_udf(ScalarUDF::new_from_impl(CurrentSetting::new()));
    context.register_udf(ScalarUDF::new_from_impl(Version::new()));
    let user = ScalarValue::Utf8(Some(user.to_owned()));
    let pair = [("x", DataType::Int32), ("n", DataType::Int32)].map(|(name, kind)| Field::new(name, kind, true));
    let (yes, no, none) =
        (ScalarValue::Boolean(Some(true)), ScalarValue::Boolean(Some(false)), ScalarValue::Utf8(None));
    // Whatever they are asked.
    for (name, answer) in [
        ("session_user", &user),
        ("pg_get_userbyid", &user),
        // The members of an array and their places; what has arrays in the catalog has no rows.
        (
            "_pg_expandarray",
            &ScalarValue::try_from(&DataType::Struct(pair.to_vec().into())).unwrap_or_else(|_| none.clone()),
        ),
        ("pg_function_is_visible", &yes),
        ("pg_collation_is_visible", &yes),
        ("pg_type_is_visible", &yes),
        ("pg_opclass_is_visible", &yes),
        ("pg_operator_is_visible", &yes),
        ("has_column_privilege", &yes),
        ("has_function_privilege", &yes),
        ("has_sequence_privilege", &no),
        ("pg_has_role", &yes),
        ("pg_is_in_recovery", &no),
        ("pg_is_other_temp_schema", &no),
        ("pg_advisory_unlock_all", &none),
        ("pg_get_functiondef", &none),
        ("pg_get_function_sqlbody", &none),
        ("pg_get_function_identity_arguments", &none),
        ("pg_get_indexdef", &none),
        ("pg_get_ruledef", &none),
        ("pg_get_serial_sequence", &none),
        ("pg_get_triggerdef", &none),
        ("pg_get_viewdef", &none),
        ("pg_tablespace_location", &none),
        ("shobj_description", &none),
        ("inet_client_addr", &none),
        ("inet_server_addr", &none),
        ("pg_my_temp_schema", &ScalarValue::Int32(Some(0))),
        ("pg_table_size", &ScalarValue::Int64(Some(0))),
        ("pg_indexes_size", &ScalarValue::Int64(Some(0))),
        ("pg_database_size", &ScalarValue::Int64(Some(0))),
        ("pg_size_pretty", &ScalarValue::Utf8(Some("unknown".to_owned()))),
        // No type is known by name that a client would have to ask for: those it knows come with the protocol.
        ("to_regtype", &ScalarValue::Int32(None)),
        ("txid_current", &ScalarValue::Int64(Some(1))),
    ] {
        context.register_udf(ScalarUDF::new_from_impl(Always::new(name, answer.clone())));
    }
    context.register_udf(ScalarUDF::new_from_impl(SetConfig::new()));
}

/// What things in the catalog mean, by their number in `pg_class` or `pg_proc` and, of columns, theirs in the table.
pub(super) type Texts = BTreeMap<(i32, i32), String>;

/// Registers what the catalog's numbers mean.
pub(super) fn register_texts(context: &SessionContext, descriptions: Texts, results: Texts, arguments: Texts) {
    for (name, texts) in [
        ("obj_description", descriptions.clone()),
        ("col_description", descriptions),
        ("pg_get_function_result", results),
        ("pg_get_function_arguments", arguments),
    ] {
        context.register_udf(ScalarUDF::new_from_impl(TextOf::new(name, texts)));
    }
}

/// A function that says the same whatever it is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Always {
    name: &'static str,
    answer: ScalarValue,
    signature: Signature,
}

impl Always {
    fn new(name: &'static str, answer: ScalarValue) -> Self {
        let shapes = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Self { name, answer, signature: Signature::one_of(shapes, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Always {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.answer.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Ok(ColumnarValue::Scalar(self.answer.clone()))
    }
}

/// `set_config(name, value, is_local)`: answers the value, and sets nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SetConfig {
    signature: Signature,
}

impl SetConfig {
    fn new() -> Self {
        let types = vec![DataType::Utf8, DataType::Utf8, DataType::Boolean];
        Self { signature: Signature::exact(types, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for SetConfig {
    fn name(&self) -> &str {
        "set_config"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Ok(args.args[1].clone())
    }
}

/// What a number in the catalog, with that of a column where there is one, means.
#[derive(Debug)]
struct TextOf {
    name: &'static str,
    texts: Texts,
    signature: Signature,
}

impl TextOf {
    fn new(name: &'static str, texts: Texts) -> Self {
        let shapes = vec![TypeSignature::Any(1), TypeSignature::Any(2)];
        Self { name, texts, signature: Signature::one_of(shapes, Volatility::Stable) }
    }
}

impl PartialEq for TextOf {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TextOf {}

impl Hash for TextOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let numbers = |array: &ArrayRef| cast(array, &DataType::Int32);
        let of = numbers(&arrays[0])?;
        // The second argument of obj_description is the name of a catalog.
        let columns = match arrays.get(1).filter(|array| array.data_type().is_integer()) {
            Some(columns) => numbers(columns)?,
            None => Arc::new(Int32Array::from(vec![0; of.len()])),
        };
        let pairs = of.as_primitive::<Int32Type>().iter().zip(columns.as_primitive::<Int32Type>());
        let text = |(of, column): (Option<i32>, Option<i32>)| self.texts.get(&(of?, column?)).map(String::as_str);
        Ok(ColumnarValue::Array(Arc::new(pairs.map(text).collect::<StringArray>())))
    }
}

/// `current_setting(name [, missing_ok])`
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    signature: Signature,
}

impl CurrentSetting {
    fn new() -> Self {
        let shapes = vec![
            TypeSignature::Exact(vec![DataType::Utf8]),
            TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
        ];
        Self { signature: Signature::one_of(shapes, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let missing_ok = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        let setting = |name: &str| {
            let known =
                SETTINGS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name)).map(|(_, value, _)| *value);
            match known {
                None if !missing_ok => exec_err!("unrecognized configuration parameter {name:?}"),
                known => Ok(known),
            }
        };
        match &args.args[0] {
            ColumnarValue::Scalar(ScalarValue::Utf8(name)) => {
                let value = name.as_deref().map(setting).transpose()?.flatten();
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value.map(str::to_owned))))
            }
            ColumnarValue::Array(names) => {
                let names = datafusion::common::cast::as_string_array(names)?;
                let values: Result<Vec<_>, DataFusionError> =
                    names.iter().map(|name| Ok(name.map(setting).transpose()?.flatten())).collect();
                Ok(ColumnarValue::Array(Arc::new(StringArray::from(values?))))
            }
            other => exec_err!("current_setting takes a name, not {:?}", other.data_type()),
        }
    }
}

/// `version()`: clients read the number after "PostgreSQL".
#[derive(Debug, PartialEq, Eq, Hash)]
struct Version {
    signature: Signature,
}

impl Version {
    fn new() -> Self {
        Self { signature: Signature::nullary(Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Version {
    fn name(&self) -> &str {
        "version"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let version = format!("PostgreSQL {SERVER_VERSION} (Rebound {})", env!("CARGO_PKG_VERSION"));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(version))))
    }
}
