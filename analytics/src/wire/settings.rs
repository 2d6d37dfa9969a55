//! Statements that need no log: settings, which clients set when they begin, transactions, and what tidies up. Each is
//! answered as PostgreSQL would, and changes nothing but its own connection.
//!
//! | setting | what it does |
//! |---|---|
//! | `statement_timeout` | shortens `[sql] timeout` |
//! | `rebound.as_of` | statements answer as the log was known then |
//! | `datestyle`, `intervalstyle`, `bytea_output`, `extra_float_digits` | how values are written |
//! | `timezone` | nothing: times are in UTC, and a notice says so |
//! | any other | nothing |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use datafusion::sql::sqlparser::ast::{Expr, Set, Statement as Sql, Value};
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;
use futures::{Sink, SinkExt, stream};

use super::{SERVER_VERSION, SERVER_VERSION_NUMBER, error};

/// Settings that clients look at, as PostgreSQL would answer, with what they are.
pub(super) const SETTINGS: &[(&str, &str, &str)] = &[
    ("application_name", "", "What the client calls itself."),
    ("bytea_output", "hex", "How binary values are written."),
    ("client_encoding", "UTF8", "The client's encoding."),
    ("client_min_messages", "notice", "What the client is told."),
    ("datestyle", "ISO, MDY", "How times are written."),
    ("default_transaction_isolation", "serializable", "Each statement sees one version of the log."),
    ("default_transaction_read_only", "on", "Nothing can be written."),
    ("extra_float_digits", "1", "How many digits a number is written with."),
    ("integer_datetimes", "on", "Times are whole microseconds."),
    ("intervalstyle", "postgres", "How intervals are written."),
    ("is_superuser", "off", "Nobody is."),
    ("lc_collate", "C", "Text is ordered by its bytes."),
    ("lc_ctype", "C", "Text is ordered by its bytes."),
    ("max_identifier_length", "63", "Longest name, in bytes."),
    ("max_index_keys", "32", "There are no indexes."),
    ("rebound.as_of", "", "Answer as the log was known then; empty: now."),
    ("search_path", "public", "Where tables are looked for."),
    ("server_encoding", "UTF8", "The server's encoding."),
    ("server_version", SERVER_VERSION, "The PostgreSQL version whose features there are."),
    ("server_version_num", SERVER_VERSION_NUMBER, "The same as a number."),
    ("session_authorization", "rebound", "Who asks."),
    ("standard_conforming_strings", "on", "Backslashes are backslashes."),
    ("statement_timeout", "0", "Longest that a statement may take; 0: as long as the server allows."),
    ("timezone", "UTC", "Times are in UTC."),
    ("transaction_isolation", "serializable", "Each statement sees one version of the log."),
    ("transaction_read_only", "on", "Nothing can be written."),
];

/// What clients are told of when it changes.
const REPORTED: &[(&str, &str)] = &[
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("intervalstyle", "IntervalStyle"),
];

/// How long a statement of this client may take: what it asked for, at most what is allowed.
pub(super) fn timeout(metadata: &HashMap<String, String>, limit: Duration) -> Duration {
    let asked = metadata.get("statement_timeout").and_then(|text| milliseconds(text)).filter(|ms| *ms > 0);
    asked.map_or(limit, |ms| Duration::from_millis(ms).min(limit))
}

/// When this client wants to know of.
pub(super) fn as_of(metadata: &HashMap<String, String>) -> Option<DateTime<Utc>> {
    metadata.get("rebound.as_of").and_then(|text| time(text))
}

fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    text.parse::<NaiveDate>().ok().map(|date| date.and_time(NaiveTime::MIN).and_utc())
}

/// The columns of a statement that is answered here; `None` of any other.
pub(super) fn columns(statement: &Sql) -> Option<Schema> {
    match statement {
        Sql::ShowVariable { variable } if !is_all(variable) => {
            Some(Schema::new(vec![Field::new(shown(variable), DataType::Utf8, true)]))
        }
        Sql::Set(_)
        | Sql::Reset(_)
        | Sql::StartTransaction { .. }
        | Sql::Commit { .. }
        | Sql::Rollback { .. }
        | Sql::Savepoint { .. }
        | Sql::ReleaseSavepoint { .. }
        | Sql::Discard { .. }
        | Sql::Deallocate { .. }
        | Sql::Close { .. }
        | Sql::UNLISTEN { .. } => Some(Schema::empty()),
        _ => None,
    }
}

fn is_all(variable: &[datafusion::sql::sqlparser::ast::Ident]) -> bool {
    matches!(variable, [all] if all.value.eq_ignore_ascii_case("all"))
}

/// The setting that `SHOW` asks for, by its one name.
fn shown(variable: &[datafusion::sql::sqlparser::ast::Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        words => words.join("."),
    }
}

/// Answers a statement that needs no log; `None` for any other.
pub(super) async fn answer<C>(client: &mut C, statement: &Sql, format: &Format) -> Option<PgWireResult<Response>>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let done = |tag: &str| Some(Ok(Response::Execution(Tag::new(tag))));
    let begun = client.transaction_status() != TransactionStatus::Idle;
    match statement {
        Sql::Set(set) => Some(assign(client, set).await),
        Sql::Reset(reset) => {
            use datafusion::sql::sqlparser::ast::Reset;
            match &reset.reset {
                Reset::ALL => forget(client),
                Reset::ConfigurationParameter(name) => {
                    client.metadata_mut().remove(&name.to_string().to_lowercase());
                }
            }
            done("RESET")
        }
        Sql::ShowVariable { variable } if !is_all(variable) => Some(show(client, &shown(variable), format)),
        Sql::StartTransaction { .. } if begun => done("BEGIN"),
        Sql::StartTransaction { .. } => Some(Ok(Response::TransactionStart(Tag::new("BEGIN")))),
        Sql::Commit { .. } if client.transaction_status() == TransactionStatus::Error => {
            Some(Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))))
        }
        Sql::Commit { .. } => Some(Ok(Response::TransactionEnd(Tag::new("COMMIT")))),
        Sql::Rollback { savepoint: Some(_), .. } => done("ROLLBACK"),
        Sql::Rollback { .. } => Some(Ok(Response::TransactionEnd(Tag::new("ROLLBACK")))),
        Sql::Savepoint { .. } => done("SAVEPOINT"),
        Sql::ReleaseSavepoint { .. } => done("RELEASE"),
        Sql::Discard { .. } => {
            forget(client);
            done("DISCARD ALL")
        }
        Sql::Deallocate { .. } => done("DEALLOCATE"),
        Sql::Close { .. } => done("CLOSE CURSOR"),
        Sql::UNLISTEN { .. } => done("UNLISTEN"),
        _ => None,
    }
}

/// Settings are as they were when the connection began.
fn forget(client: &mut impl ClientInfo) {
    for (name, _, _) in SETTINGS.iter().filter(|(name, _, _)| !matches!(*name, "application_name" | "client_encoding"))
    {
        client.metadata_mut().remove(*name);
    }
}

async fn assign<C>(client: &mut C, set: &Set) -> PgWireResult<Response>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let (name, value) = match set {
        Set::SingleAssignment { variable, values, .. } => {
            let name = variable.to_string().to_lowercase().replace('"', "");
            (name, values.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        Set::SetTimeZone { value, .. } => ("timezone".to_owned(), text(value)),
        // Roles, names, characteristics of transactions: there is one of each.
        _ => return Ok(Response::Execution(Tag::new("SET"))),
    };
    let wrong = |instead: &str| error("22023", format!("{value:?} is no value of {name}: {instead}"));
    match name.as_str() {
        name if name.starts_with("datafusion.") => {
            return Err(error("42704", format!("there is no setting {name}: the server's are those of [sql]")));
        }
        "statement_timeout" if value != "DEFAULT" && milliseconds(&value).is_none() => {
            return Err(wrong("write milliseconds, or '30s', '5min'"));
        }
        "rebound.as_of" if !value.is_empty() && value != "DEFAULT" && time(&value).is_none() => {
            return Err(wrong("write a time as in '2026-01-31T00:00:00Z' or a date, or '' for now"));
        }
        "datestyle" if !style(&value, &["iso", "sql", "postgres", "german"]) => {
            return Err(wrong("write 'ISO', 'SQL', 'Postgres' or 'German'"));
        }
        "intervalstyle" if !style(&value, &["postgres", "postgres_verbose", "sql_standard", "iso_8601"]) => {
            return Err(wrong("write postgres, postgres_verbose, sql_standard or iso_8601"));
        }
        "client_encoding" if !matches!(value.to_lowercase().as_str(), "utf8" | "utf-8" | "unicode" | "default") => {
            return Err(wrong("everything is UTF8"));
        }
        "timezone" => {
            let utc = ["utc", "etc/utc", "gmt", "z", "0", "default", "local"].contains(&value.to_lowercase().as_str());
            if !utc {
                let message = "times are shown in UTC whatever the time zone is set to";
                let mut notice = ErrorInfo::new("NOTICE".to_owned(), "00000".to_owned(), message.to_owned());
                notice.hint = Some(format!("write opened_at AT TIME ZONE '{value}' to see local times"));
                client.send(PgWireBackendMessage::NoticeResponse(notice.into())).await?;
            }
            return Ok(Response::Execution(Tag::new("SET")));
        }
        _ => {}
    }
    if value == "DEFAULT" {
        client.metadata_mut().remove(&name);
    } else if SETTINGS.iter().any(|(known, _, _)| *known == name) {
        if let Some((_, reported)) = REPORTED.iter().find(|(known, _)| *known == name) {
            let status = ParameterStatus::new((*reported).to_owned(), value.clone());
            client.send(PgWireBackendMessage::ParameterStatus(status)).await?;
        }
        client.metadata_mut().insert(name, value);
    }
    Ok(Response::Execution(Tag::new("SET")))
}

fn style(value: &str, styles: &[&str]) -> bool {
    let first = value.split([',', ' ']).next().unwrap_or_default().to_lowercase();
    first == "default" || ["ymd", "mdy", "dmy"].contains(&first.as_str()) || styles.contains(&first.as_str())
}

/// A value as it was meant: a text without its quotes, a word as it stands.
fn text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(word) if word.value.eq_ignore_ascii_case("default") => "DEFAULT".to_owned(),
        Expr::Identifier(word) => word.value.clone(),
        other => other.to_string(),
    }
}

fn show(client: &impl ClientInfo, name: &str, format: &Format) -> PgWireResult<Response> {
    let default = SETTINGS.iter().find(|(known, _, _)| *known == name).map(|(_, value, _)| (*value).to_owned());
    let user = client.metadata().get("user").cloned().filter(|_| name == "session_authorization");
    let Some(value) = user.or_else(|| client.metadata().get(name).cloned()).or(default) else {
        return Err(error("42704", format!("there is no setting {name}: SHOW ALL lists those that there are")));
    };
    let fields = Arc::new(vec![FieldInfo::new(name.to_owned(), None, None, Type::TEXT, format.format_for(0))]);
    let mut row = DataRowEncoder::new(fields.clone());
    row.encode_field(&Some(value))?;
    let row = row.take_row();
    Ok(Response::Query(QueryResponse::new(fields, stream::iter([Ok(row)]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_shortened_and_never_lengthened() {
        let limit = Duration::from_secs(30);
        for (asked, holds) in [
            (None, limit),
            (Some("0"), limit),
            (Some("250"), Duration::from_millis(250)),
            (Some("5s"), Duration::from_secs(5)),
            (Some("1 min"), limit),
            (Some("18446744073709551615h"), limit),
            (Some("soon"), limit),
        ] {
            let metadata = asked.map(|asked| ("statement_timeout".to_owned(), asked.to_owned())).into_iter().collect();
            assert_eq!(timeout(&metadata, limit), holds, "{asked:?}");
        }
    }

    #[test]
    fn a_time_is_a_moment_or_the_beginning_of_a_day() {
        let at = |text| time(text).map(|time| time.to_rfc3339());
        assert_eq!(at("2026-01-31"), Some("2026-01-31T00:00:00+00:00".to_owned()));
        assert_eq!(at(" 2026-01-31T12:00:00+02:00"), Some("2026-01-31T10:00:00+00:00".to_owned()));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn every_setting_has_one_place_and_a_value() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(REPORTED.iter().all(|(name, _)| SETTINGS.iter().any(|(known, _, _)| known == name)));
        assert!(SERVER_VERSION_NUMBER.starts_with(&SERVER_VERSION.replace('.', "")[..2]));
    }
}
