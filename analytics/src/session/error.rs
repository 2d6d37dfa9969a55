//! Why a query has no answer, in words for whoever asked.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use rebound_schemas::table::ReadError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// There is no event log.
    #[error(
        "there is no event log at {location} yet: start a log writer (rebound up, or rebound run log) first, or name its folder (--data DIR)"
    )]
    Absent {
        /// Where it should be.
        location: String,
    },
    /// The event log is not readable.
    #[error("the event log at {location} can't be opened: {reason}")]
    Open {
        /// Where it should be.
        location: String,
        /// What was found, and what to do.
        reason: String,
    },
    /// The event log was there and is no longer readable.
    #[error("the event log can't be read: {0}")]
    Log(#[source] DeltaTableError),
    /// The table is not an event log.
    #[error("the table is not an event log of this version: {0}")]
    Rows(#[source] ReadError),
    /// The statement may not run.
    #[error("{0}")]
    Refused(String),
    /// The statement is not SQL, or names what does not exist.
    #[error("{0}")]
    Invalid(String),
    /// It names what does not exist.
    #[error("{message}: {hint}")]
    Unknown {
        /// What PostgreSQL calls such a fault: `42P01` a table, `42703` a column, `42883` a function.
        code: &'static str,
        /// What there is not.
        message: String,
        /// What there is instead.
        hint: String,
    },
    /// The statement is too long or too tangled.
    #[error("{0}")]
    TooComplex(String),
    /// The answer has more rows than the limit.
    #[error("the answer has more than {limit} rows: aggregate, add a LIMIT, or raise [sql] max_rows")]
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// It took too long.
    #[error("the query was stopped after {}: narrow it down, or raise [sql] timeout", humantime(*.0))]
    Timeout(Duration),
    /// It needed too much memory.
    #[error(
        "the query needs more than the {limit} bytes of memory that SQL may use: select fewer columns, aggregate, or raise [sql] memory"
    )]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// It failed while running.
    #[error("the query failed: {}", words(.0))]
    Execution(#[source] DataFusionError),
}

impl SqlError {
    /// The SQLSTATE that PostgreSQL has for it, which clients look at.
    ///
    /// | what | code |
    /// |---|---|
    /// | it writes | 25006 read_only_sql_transaction |
    /// | not SQL | 42601 syntax_error |
    /// | no such table, column, function | 42P01, 42703, 42883 |
    /// | too long or too tangled | 54001 statement_too_complex |
    /// | too many rows | 54000 program_limit_exceeded |
    /// | too much memory | 53200 out_of_memory |
    /// | stopped | 57014 query_canceled |
    /// | there is no event log | 58P01 undefined_file |
    /// | the event log can't be read | 58030 io_error |
    /// | a division by zero, a text that is no number | 22012, 22P02 |
    /// | not supported | 0A000 feature_not_supported |
    /// | anything else | XX000 internal_error |
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "25006",
            Self::Invalid(_) => "42601",
            Self::Unknown { code, .. } => code,
            Self::TooComplex(_) => "54001",
            Self::TooManyRows { .. } => "54000",
            Self::Memory { .. } => "53200",
            Self::Timeout(_) => "57014",
            Self::Absent { .. } => "58P01",
            Self::Open { .. } | Self::Log(_) | Self::Rows(_) => "58030",
            Self::Execution(error) => match error.find_root() {
                DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
                    ArrowError::DivideByZero => "22012",
                    ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
                    ArrowError::ArithmeticOverflow(_) => "22003",
                    _ => "XX000",
                },
                DataFusionError::NotImplemented(_) => "0A000",
                _ => "XX000",
            },
        }
    }

    /// What is wrong, and what to do about it where that is known: together they are the error's text.
    #[must_use]
    pub fn told(&self) -> (String, Option<String>) {
        let text = self.to_string();
        let remedied =
            !matches!(self, Self::Invalid(_) | Self::Open { .. } | Self::Log(_) | Self::Rows(_) | Self::Execution(_));
        match text.split_once(": ").filter(|_| remedied) {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        }
    }
}

/// What went wrong beneath all that it was wrapped in.
fn words(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let mut words = text.as_str();
    for framing in ["Execution error: ", "External error: ", "Arrow error: "] {
        words = words.strip_prefix(framing).unwrap_or(words);
    }
    words.to_owned()
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_and_what_to_do_are_told_apart() {
        let told = |error: SqlError| (error.code(), error.told());
        let pair = |message: &str, hint: &str| (message.to_owned(), Some(hint.to_owned()));
        assert_eq!(
            told(SqlError::Timeout(Duration::from_millis(1_500))),
            ("57014", pair("the query was stopped after 1.5 s", "narrow it down, or raise [sql] timeout"))
        );
        assert_eq!(
            told(SqlError::TooManyRows { limit: 7 }),
            ("54000", pair("the answer has more than 7 rows", "aggregate, add a LIMIT, or raise [sql] max_rows"))
        );
        assert_eq!(told(SqlError::Invalid("a: b".to_owned())), ("42601", ("a: b".to_owned(), None)));
        let divided = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        assert_eq!(SqlError::Execution(divided.context("while running")).code(), "22012");
    }
}
