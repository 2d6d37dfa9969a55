//! PostgreSQL's dialect, as far as DataFusion can be brought to understand it. Most of that is done by
//! `datafusion-postgres`; here is what psql, JDBC and Grafana ask besides, and how PostgreSQL names columns that have
//! no name.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArguments, Query, SelectItem, SetExpr, ShowStatementOptions, Statement as Sql, Value,
    visit_expressions_mut, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use crate::guard;
use crate::session::SqlError;

/// Reads statements.
pub(super) struct Dialect(PostgresCompatibilityParser);

impl Dialect {
    pub(super) fn new() -> Self {
        Self(PostgresCompatibilityParser::new())
    }

    /// The statements of a text, in what DataFusion understands of the dialect.
    pub(super) fn parse(&self, sql: &str) -> Result<Vec<Sql>, SqlError> {
        guard::text(sql)?;
        let parsed = self.0.parse(&understood(sql));
        let mut statements = parsed.map_err(|error| {
            let words = error.to_string();
            let words = words.strip_prefix("sql parser error: ").unwrap_or(&words);
            SqlError::Invalid(format!("not SQL that can be read: {words}"))
        })?;
        for statement in &mut statements {
            about_the_catalog(statement);
            if unnests_keys(statement)
                && let Some(none) = nothing()
            {
                *statement = none;
            }
        }
        Ok(statements)
    }
}

/// A statement that reads, as one that can be planned; any other is refused.
pub(super) fn readable(statement: &Sql) -> Result<Sql, SqlError> {
    let Some(query) = listing(statement) else {
        guard::bounded(statement)?;
        return Ok(statement.clone());
    };
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &query);
    let parsed = parsed.ok().and_then(|mut statements| statements.pop());
    parsed.ok_or_else(|| SqlError::Invalid(format!("not SQL that can be read: {statement}")))
}

/// What DataFusion's and MySQL's ways to list things are in PostgreSQL.
fn listing(statement: &Sql) -> Option<String> {
    match statement {
        Sql::ShowTables { .. } => {
            Some("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1".to_owned())
        }
        Sql::ShowColumns { show_options: ShowStatementOptions { show_in: Some(of), .. }, .. } => {
            let table = of.parent_name.as_ref()?.to_string().replace('\'', "''");
            Some(format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}' \
                 ORDER BY ordinal_position"
            ))
        }
        // The others are answered before: see `settings`.
        Sql::ShowVariable { .. } => {
            Some("SELECT name, setting, short_desc AS description FROM pg_catalog.pg_settings ORDER BY 1".to_owned())
        }
        _ => None,
    }
}

/// Texts that are known to come and that no rule could read: Grafana asks for the tables on the search path by a
/// subquery that unnests it, and the path is one schema here; JDBC compares the name of a function with its number; descriptions hang on a number.
fn understood(sql: &str) -> Cow<'_, str> {
    const BEGINS: &str = "SELECT CASE WHEN trim(s[i])";
    const ENDS: &str = "string_to_array(current_setting('search_path'),',') s";
    const FUNCTION: &str = "'pg_catalog.array_in'::regproc";
    const CLASSES: &str = "'pg_class'::regclass";
    if sql.contains(FUNCTION) {
        return sql.replace(FUNCTION, "'array_in'").into();
    }
    if sql.contains(CLASSES) {
        return sql.replace(CLASSES, "(SELECT oid FROM pg_catalog.pg_class WHERE relname = 'pg_class')").into();
    }
    if !sql.contains("trim(s[i])") {
        return sql.into();
    }
    let mut text = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    while let Some(from) = text.find(BEGINS)
        && let Some(length) = text[from..].find(ENDS)
    {
        text.replace_range(from..from + length + ENDS.len(), "'public'");
    }
    text.into()
}

/// What psql asks of the catalog and DataFusion can't plan, where the answer is known: there are no arrays of anything
/// there, and no composite types.
fn about_the_catalog(statement: &mut Sql) {
    const COMPOSITE: &str = "(SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)";
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("array") => {
                if let FunctionArguments::Subquery(query) = &function.args
                    && reads_the_catalog(query)
                    && let Some(none) = parsed("CAST(make_array() AS TEXT[])")
                {
                    *expression = none;
                }
            }
            Expr::Subquery(_) if is(expression, COMPOSITE) => {
                *expression = Expr::value(Value::Boolean(false));
            }
            Expr::Subquery(query) if has_no_answer(query) => {
                if let Some(none) = parsed("CAST(NULL AS TEXT)") {
                    *expression = none;
                }
            }
            // `(f(x)).n`, as JDBC asks for keys: DataFusion wants the field's name as a text.
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(field) = access
                        && let Expr::Identifier(name) = field
                    {
                        *field = Expr::value(Value::SingleQuotedString(name.value.clone()));
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

/// Whether a query asks what no column has here, as SQLAlchemy does of each: a default, a sequence, a collation.
fn has_no_answer(query: &Query) -> bool {
    const NONE: [&str; 3] = ["pg_attrdef", "pg_sequence", "pg_collation"];
    let mut asks = false;
    let _: ControlFlow<()> = visit_relations(query, |name| {
        asks |= name.0.last().is_some_and(|name| NONE.contains(&name.to_string().as_str()));
        ControlFlow::Continue(())
    });
    asks || query.to_string().starts_with("SELECT pg_catalog.pg_type.typcollation ")
}

/// Whether a statement takes keys or indexes apart, as SQLAlchemy does: there are none, and their columns are no
/// arrays here.
fn unnests_keys(statement: &Sql) -> bool {
    let Sql::Query(query) = statement else { return false };
    let text = query.to_string();
    ["unnest(", "generate_subscripts("].iter().any(|word| text.contains(word))
        && ["pg_constraint", "pg_index"].iter().any(|word| text.contains(word))
        && reads_the_catalog(query)
}

fn nothing() -> Option<Sql> {
    Parser::parse_sql(&PostgreSqlDialect {}, "SELECT NULL::TEXT AS nothing WHERE false").ok()?.pop()
}

/// Whether an expression reads so, however it is written.
fn is(expression: &Expr, text: &str) -> bool {
    expression.to_string().replace(" AS ", " ").replace(" LIMIT 1", "") == text
}

fn parsed(expression: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(expression).ok()?.parse_expr().ok()
}

fn reads_the_catalog(query: &Query) -> bool {
    let mut only = true;
    let _: ControlFlow<()> = visit_relations(query, |name| {
        let name = name.0.last().map(ToString::to_string).unwrap_or_default();
        only &= name.starts_with("pg_") || name == "unnest";
        ControlFlow::Continue(())
    });
    only
}

/// What PostgreSQL calls the columns of a statement that gives them no name: a function's column by its name, a
/// cast's by what is cast. `None` stands for those that DataFusion names alike.
pub(super) fn names(statement: &Sql) -> Vec<Option<String>> {
    let Sql::Query(query) = statement else { return Vec::new() };
    let mut body = query.body.as_ref();
    // The first of several selects names the columns.
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => body = &query.body,
            _ => return Vec::new(),
        }
    };
    let of = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expression) => Some(Some(name(expression)?)),
        SelectItem::ExprWithAlias { .. } => Some(None),
        // As many columns as the tables have: whose is which can't be told from here.
        _ => None,
    };
    let nameless =
        |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
    let names = select.projection.iter().map(|item| if nameless(item) { Some(None) } else { of(item) });
    names.collect::<Option<_>>().unwrap_or_default()
}

fn name(expression: &Expr) -> Option<String> {
    Some(match expression {
        Expr::Function(function) => function.name.0.last()?.to_string().trim_matches('"').to_lowercase(),
        Expr::Cast { expr, .. } => match expr.as_ref() {
            Expr::Identifier(word) => word.value.clone(),
            Expr::CompoundIdentifier(words) => words.last()?.value.clone(),
            inner => name(inner)?,
        },
        Expr::Nested(inner) => match inner.as_ref() {
            Expr::Identifier(word) => word.value.clone(),
            inner => name(inner)?,
        },
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Floor { .. } => "floor".to_owned(),
        Expr::Ceil { .. } => "ceil".to_owned(),
        Expr::Substring { .. } => "substring".to_owned(),
        Expr::Trim { .. } => "btrim".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        _ => "?column?".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str) -> Sql {
        let mut statements = Dialect::new().parse(sql).unwrap();
        assert_eq!(statements.len(), 1);
        statements.remove(0)
    }

    #[test]
    fn columns_without_a_name_have_the_one_that_postgresql_gives_them() {
        let found = |sql: &str| {
            names(&one(sql))
                .into_iter()
                .map(|name| name.unwrap_or_else(|| "-".to_owned()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (sql, expected) in [
            ("SELECT count(*), service, max(i.a) AS b, i.service FROM incidents i", "count - - -"),
            ("SELECT 1, 'x', a + 1, -a FROM t", "?column? ?column? ?column? ?column?"),
            ("SELECT a::text, count(*)::int, (1)::int, CAST(t.a AS int) FROM t", "a count ?column? a"),
            ("SELECT extract(epoch FROM a), CASE WHEN a THEN 1 END, floor(a / 2) FROM t", "extract case floor"),
            ("SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY a) FROM t", "percentile_cont"),
            ("SELECT max(a) FROM t UNION ALL SELECT 1", "max"),
            ("WITH t AS (SELECT 1 AS a) SELECT min(a) FROM t", "min"),
            ("SELECT *, count(*) FROM t", ""),
            ("SHOW TABLES", ""),
        ] {
            assert_eq!(found(sql), expected, "{sql}");
        }
    }

    #[test]
    fn arrays_of_the_catalog_are_empty_and_others_are_left() {
        let text = |sql: &str| one(sql).to_string();
        let told = text("SELECT ARRAY(SELECT rolname FROM pg_catalog.pg_roles) AS roles");
        assert!(told.contains("make_array()") && !told.contains("pg_roles"), "{told}");
        let kept = text("SELECT ARRAY(SELECT service FROM incidents) AS services");
        assert!(kept.contains("FROM incidents"), "{kept}");
        let of = "SELECT t.oid FROM pg_catalog.pg_type t \
                  WHERE t.typrelid = 0 OR (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)";
        assert!(text(of).ends_with("OR false"), "{}", text(of));
        assert!(text("SELECT (f(x)).n FROM t").contains("'n'"));
        let of = "SELECT CASE WHEN a.b THEN (SELECT d.adbin FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.c) END \
                  FROM pg_catalog.pg_attribute a";
        assert!(!text(of).contains("pg_attrdef"), "{}", text(of));
        let keys = "SELECT unnest(conkey) FROM pg_catalog.pg_constraint";
        assert_eq!(text(keys), "SELECT NULL::TEXT AS nothing WHERE false");
    }

    #[test]
    fn each_search_path_is_replaced_and_nothing_between() {
        let path = "SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END FROM generate_series(1, 2) \
                    as i, string_to_array(current_setting('search_path'),',') s";
        let sql = format!("SELECT a IN ({path})\n FROM t ORDER BY a IN ({path})");
        assert_eq!(understood(&sql), "SELECT a IN ('public') FROM t ORDER BY a IN ('public')");
        assert_eq!(understood("SELECT  'a  b'"), "SELECT  'a  b'");
    }
}
