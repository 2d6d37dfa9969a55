//! What SQL may run: one statement that reads, of a bounded size and depth, without functions that make something
//! huge out of nothing. Pure: text in, a statement or the reason why not out.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Statement as Sql, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

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

/// The one statement of a text, if it only reads.
pub(crate) fn statement(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("a statement has at most {MAX_SQL_BYTES} bytes, this one has {}", sql.len());
        return Err(SqlError::Refused(message));
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize().map_err(|e| SqlError::Invalid(format!("not SQL: {e}")))?;
    let words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count();
    at_most("words and signs", MAX_TOKENS, words)?;
    at_most("operators", MAX_OPERATORS, tokens.iter().filter(|token| is_operator(token)).count())?;
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).with_recursion_limit(MAX_DEPTH).build();
    let mut statements =
        parser.and_then(|mut parser| parser.parse_statements()).map_err(|error| SqlError::Invalid(explain(&error)))?;
    let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
        let message = "give exactly one statement, such as SELECT * FROM incidents".to_owned();
        return Err(SqlError::Refused(message));
    };
    reads(&statement)?;
    if let Statement::Statement(sql) = &statement {
        let mut relations = 0;
        let _: ControlFlow<()> = visit_relations(sql.as_ref(), |_| {
            relations += 1;
            ControlFlow::Continue(())
        });
        at_most("tables", MAX_RELATIONS, relations)?;
    }
    Ok(statement)
}

fn at_most(what: &str, limit: usize, found: usize) -> Result<(), SqlError> {
    if found <= limit {
        return Ok(());
    }
    Err(SqlError::Refused(format!("a statement has at most {limit} {what}, this one has {found}")))
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

/// What was wrong, in DataFusion's words without its framing; an unknown table also says which was meant and which there are.
pub(crate) fn explain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.trim_start_matches("Error during planning: ").trim_start_matches("Schema error: ");
    if let Some(parser) = text.strip_prefix("SQL error: ") {
        let inner = parser.trim_start_matches("ParserError(\"").trim_end_matches("\")");
        return format!("not SQL that can be read: {inner}");
    }
    if text.contains("table '") && text.contains("not found") {
        let names = || TABLES.iter().map(|table| table.name);
        let asked = text.split('\'').nth(1).map_or("", |path| path.rsplit('.').next().unwrap_or(path));
        let near = rebound_schemas::plan::nearest(asked, names());
        let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        return format!("there is no table {asked:?}: {near}There are {}", names().collect::<Vec<_>>().join(", "));
    }
    text.to_owned()
}
