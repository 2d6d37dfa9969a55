//! What SQL may run: one statement that reads, of a bounded size and depth, without functions that make something
//! huge out of nothing. Pure: text in, a statement or the reason why not out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Statement as Sql, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use rebound_schemas::plan::nearest;

use crate::session::SqlError;
use crate::tables::TABLES;

/// Longest statement, in bytes.
const MAX_SQL_BYTES: usize = 64 * 1024;
/// Most words and signs of a statement.
const MAX_TOKENS: usize = 10_000;
/// Most operators and set operations: planners recurse over chains of them.
const MAX_OPERATORS: usize = 250;
/// Most tables, for the same reason.
const MAX_RELATIONS: usize = 50;
/// Deepest nesting of parentheses, subqueries and the like.
const MAX_DEPTH: usize = 50;

/// Most columns that are named to somebody who looks for another.
const MOST_NAMES: usize = 40;

/// Functions whose one call allocates as much as its argument says, unseen by the memory limit.
const UNBOUNDED: &[&str] = &[
    "array_repeat",
    "array_resize",
    "generate_series",
    "list_repeat",
    "list_resize",
    "lpad",
    "range",
    "repeat",
    "rpad",
];

/// Refuses a text that is too long or too tangled, before it is parsed.
pub(crate) fn text(sql: &str) -> Result<(), SqlError> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("a statement has at most {MAX_SQL_BYTES} bytes, this one has {}", sql.len());
        return Err(SqlError::TooComplex(message));
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize().map_err(|e| SqlError::Invalid(format!("not SQL: {e}")))?;
    let words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count();
    at_most("words and signs", MAX_TOKENS, words)?;
    at_most("operators", MAX_OPERATORS, tokens.iter().filter(|token| is_operator(token)).count())
}

/// The one statement of a text, if it only reads.
pub(crate) fn statement(sql: &str) -> Result<Statement, SqlError> {
    text(sql)?;
    let dialect = PostgreSqlDialect {};
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).with_recursion_limit(MAX_DEPTH).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(|error| invalid(&error))?;
    let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
        let message = "give exactly one statement, such as SELECT * FROM incidents".to_owned();
        return Err(SqlError::Invalid(message));
    };
    match &statement {
        Statement::Statement(sql) => bounded(sql)?,
        other => reads(other)?,
    }
    Ok(statement)
}

/// Refuses a statement that does anything but read, or that joins too many tables.
pub(crate) fn bounded(statement: &Sql) -> Result<(), SqlError> {
    reads(&Statement::Statement(Box::new(statement.clone())))?;
    let mut relations = 0;
    let _: ControlFlow<()> = visit_relations(statement, |_| {
        relations += 1;
        ControlFlow::Continue(())
    });
    at_most("tables", MAX_RELATIONS, relations)
}

fn at_most(what: &str, limit: usize, found: usize) -> Result<(), SqlError> {
    if found <= limit {
        return Ok(());
    }
    Err(SqlError::TooComplex(format!("a statement has at most {limit} {what}, this one has {found}")))
}

/// Whether a token joins what stands beside it into something deeper. Lists (commas) and names are flat.
fn is_operator(token: &Token) -> bool {
    use datafusion::sql::sqlparser::keywords::Keyword;
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
                | Keyword::BETWEEN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IS
                | Keyword::IN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::CASE
        ),
        Token::Number(..) | Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::Placeholder(_) => {
            false
        }
        Token::Comma | Token::Period | Token::LParen | Token::RParen | Token::SemiColon | Token::EOF => false,
        Token::Whitespace(_) => false,
        _ => true,
    }
}

fn reads(statement: &Statement) -> Result<(), SqlError> {
    let what = match statement {
        Statement::Explain(explained) => return reads(&explained.statement),
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(_) | Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ExplainTable { .. } => {
                return Ok(());
            }
            Sql::Explain { statement, .. } => return reads(&Statement::Statement(statement.clone())),
            other => other.to_string(),
        },
        other => other.to_string(),
    };
    Err(SqlError::Refused(refusal(what.split_whitespace().next().unwrap_or("this"))))
}

/// Refuses a plan that does anything but read.
pub(crate) fn only_reads(plan: &LogicalPlan) -> Result<(), SqlError> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(plan).map_err(|error| SqlError::Refused(refusal(&explain(&error))))
}

/// The message of a refusal.
pub(crate) fn refusal(what: &str) -> String {
    format!("{what} is not allowed: SQL here only reads (SELECT, EXPLAIN, SHOW TABLES, SHOW COLUMNS, DESCRIBE)")
}

/// Takes away the functions that the memory limit can't hold. The table functions of the same names stay: they give
/// their rows one batch at a time.
pub(crate) fn limit_functions(state: &mut SessionState) -> Result<(), DataFusionError> {
    for name in UNBOUNDED {
        state.deregister_udf(name)?;
    }
    Ok(())
}

/// What was wrong, in DataFusion's words without its framing.
pub(crate) fn explain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.trim_start_matches("Error during planning: ").trim_start_matches("Schema error: ");
    if let Some(parser) = text.strip_prefix("SQL error: ") {
        let inner = parser.trim_start_matches("ParserError(\"").trim_end_matches("\")");
        return format!("not SQL that can be read: {inner}");
    }
    text.to_owned()
}

/// Why a statement can't be planned: what it names and is not there comes with what is.
pub(crate) fn invalid(error: &DataFusionError) -> SqlError {
    let text = explain(error);
    if let DataFusionError::SchemaError(schema, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let names: BTreeSet<&str> = valid_fields.iter().map(|field| field.name()).collect();
        let mut listed: Vec<&str> = names.iter().copied().take(MOST_NAMES).collect();
        if names.len() > MOST_NAMES {
            listed.push("…");
        }
        let hint = remedy(&field.name, names, &listed);
        return SqlError::Unknown { code: "42703", message: format!("there is no column {}", field.name), hint };
    }
    if let Some(name) = text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        let name = name.strip_prefix("rebound.public.").unwrap_or(name);
        let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let hint = remedy(name, tables.iter().copied(), &tables);
        return SqlError::Unknown { code: "42P01", message: format!("there is no table {name}"), hint };
    }
    if let Some(name) = text.strip_prefix("table function '").and_then(|rest| rest.strip_suffix("' not found")) {
        let hint = "tables are named without arguments, and no file or address can be read".to_owned();
        return SqlError::Unknown { code: "42883", message: format!("there is no table function {name}"), hint };
    }
    if let Some((name, rest)) = text.strip_prefix("Invalid function '").and_then(|rest| rest.split_once("'.")) {
        let near = rest.trim().trim_start_matches("Did you mean ").trim_end_matches('?').trim_matches('\'');
        let hint = match near {
            "" => "docs/sql.md lists those that there are".to_owned(),
            near => format!("did you mean {near}?"),
        };
        return SqlError::Unknown { code: "42883", message: format!("there is no function {name}"), hint };
    }
    SqlError::Invalid(text)
}

/// The nearest of what there is, if one is near, and all of it.
fn remedy<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>, listed: &[&str]) -> String {
    let all = format!("there are {}", listed.join(", "));
    match nearest(name, candidates) {
        Some(near) => format!("did you mean {near}? {all}"),
        None => all,
    }
}
