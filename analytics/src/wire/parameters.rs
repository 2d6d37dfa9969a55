//! The parameters of a prepared statement: of which type each must be, and what was given for it.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::error::PgWireResult;

use super::error;
use crate::guard;
use crate::session::SqlError;

/// Most parameters of a statement.
const MAX_PARAMETERS: usize = 1_000;

/// The type of each parameter, as far as what stands beside it, or a cast, says.
pub(super) fn types(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>, SqlError> {
    let mut found: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
    let mut note = |name: &str, kind: Option<DataType>| {
        let number = name.trim_start_matches('$').parse().ok().filter(|n| (1..=MAX_PARAMETERS).contains(n));
        let number = number.ok_or_else(|| {
            SqlError::Invalid(format!("{name} is no parameter: they are $1, $2, … up to ${MAX_PARAMETERS}"))
        })?;
        let known = found.entry(number).or_default();
        if known.is_none() {
            *known = kind;
        }
        Ok::<_, SqlError>(())
    };
    for (name, kind) in plan.get_parameter_types().map_err(|error| guard::invalid(&error))? {
        note(&name, kind)?;
    }
    let mut casts = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        let beneath = node.inputs().first().map(|input| input.schema().clone());
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                match expression {
                    Expr::Cast(cast) => {
                        if let Expr::Placeholder(placeholder) = cast.expr.as_ref() {
                            casts.push((placeholder.id.clone(), cast.field.data_type().clone()));
                        }
                    }
                    // `x = ANY($1)`: an array of what x is.
                    Expr::ScalarFunction(call) if call.name() == "array_has" => {
                        if let [Expr::Placeholder(placeholder), member] = call.args.as_slice() {
                            let kind = beneath.as_ref().and_then(|schema| member.get_type(schema.as_ref()).ok());
                            let array = DataType::new_list(kind.unwrap_or(DataType::Utf8), true);
                            casts.push((placeholder.id.clone(), array));
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(|error| guard::invalid(&error))?;
    for (name, kind) in casts {
        note(&name, Some(kind))?;
    }
    let last = found.keys().next_back().copied().unwrap_or_default();
    Ok((1..=last).map(|number| found.remove(&number).flatten()).collect())
}

/// What was given for the parameters; `None` where there are none.
pub(super) fn values<S: Clone>(portal: &Portal<S>, types: &[Option<DataType>]) -> PgWireResult<Option<ParamValues>> {
    if let Format::Individual(codes) = &portal.parameter_format
        && codes.len() != portal.parameters.len()
    {
        let message = format!("{} formats for {} parameters", codes.len(), portal.parameters.len());
        return Err(error("08P01", message));
    }
    if types.is_empty() {
        return Ok(None);
    }
    // What nothing is known of is text, as in PostgreSQL.
    let wire: Vec<Type> =
        types.iter().map(|kind| kind.as_ref().map_or(Ok(Type::TEXT), into_pg_type)).collect::<PgWireResult<_>>()?;
    let (kinds, wire): (Vec<_>, Vec<_>) = (types.iter().map(Option::as_ref).collect(), wire.iter().map(Some).collect());
    deserialize_parameters_with_server_types(portal, &kinds, &wire).map(Some)
}
