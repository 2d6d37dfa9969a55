//! Single events read back from the log: by what they name, by service and time, by id.
//!
//! Nothing is folded and nothing is kept: each question is a filter that reaches the files, so that what is not asked
//! for is neither decoded nor held. Bound questions in time where that is known: a day is a folder.

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};
use rebound_schemas::table::PARTITION_COLUMN;
use rebound_schemas::{EventId, Kind, ServiceId, Source, Topic};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every decision, and what was done with it, whose incident, alert or recovery begins with this text.
    Starts(String),
    /// The same whose incident, alert or recovery is one of these, from this time on.
    Names(Vec<String>, DateTime<Utc>),
    /// These events, by source and id, from this time on.
    Events(Vec<(Source, EventId)>, DateTime<Utc>),
    /// What was observed of a service, both ends included.
    Observed(ServiceId, DateTime<Utc>, DateTime<Utc>),
    /// What was decided about a service and done with it, both ends included.
    Decided(ServiceId, DateTime<Utc>, DateTime<Utc>),
    /// Everything of these kinds, both ends included.
    Kinds(Vec<Kind>, DateTime<Utc>, DateTime<Utc>),
}

/// The columns that name what an event is about.
const NAMES: [&str; 3] = ["incident", "alert", "recovery"];

/// A time, as the log keeps it.
pub(crate) fn time(at: DateTime<Utc>) -> Expr {
    Expr::Literal(ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into())), None)
}

/// The day of a time, by whose folders the log is kept.
fn day(at: DateTime<Utc>) -> Expr {
    let days = at.date_naive().signed_duration_since(chrono::NaiveDate::default()).num_days();
    Expr::Literal(ScalarValue::Date32(i32::try_from(days).ok()), None)
}

fn since(from: DateTime<Utc>) -> Expr {
    col(PARTITION_COLUMN).gt_eq(day(from)).and(col("occurred_at").gt_eq(time(from)))
}

fn within(from: DateTime<Utc>, until: DateTime<Utc>) -> Expr {
    since(from).and(col(PARTITION_COLUMN).lt_eq(day(until))).and(col("occurred_at").lt_eq(time(until)))
}

fn one_of(column: &str, texts: impl IntoIterator<Item = String>) -> Expr {
    col(column).in_list(texts.into_iter().map(lit).collect(), false)
}

fn any(filters: impl IntoIterator<Item = Expr>) -> Expr {
    filters.into_iter().reduce(Expr::or).unwrap_or_else(|| lit(false))
}

impl Wanted {
    /// The question as a filter over the log's table.
    pub(crate) fn filter(&self) -> Expr {
        let observed = || col("topic").eq(lit(Topic::Observations.as_str()));
        // No observation names any; said of the topic, so that nearly all there is need not be looked at.
        let decided = || col("topic").not_eq(lit(Topic::Observations.as_str()));
        match self {
            Self::Starts(text) => {
                // All texts that begin with it lie between it and it with the last code point behind it.
                let end = format!("{text}{}", char::MAX);
                let begins = |name| col(name).gt_eq(lit(text.clone())).and(col(name).lt(lit(end.clone())));
                decided().and(any(NAMES.map(begins)))
            }
            Self::Names(ids, from) => {
                decided().and(since(*from)).and(any(NAMES.map(|name| one_of(name, ids.iter().cloned()))))
            }
            Self::Events(events, from) => {
                let exactly = |(source, id): &(Source, EventId)| {
                    col("source").eq(lit(source.as_str())).and(col("id").eq(lit(id.as_str())))
                };
                since(*from).and(any(events.iter().map(exactly)))
            }
            Self::Observed(service, from, until) => {
                observed().and(col("service").eq(lit(service.as_str()))).and(within(*from, *until))
            }
            Self::Decided(service, from, until) => {
                decided().and(col("service").eq(lit(service.as_str()))).and(within(*from, *until))
            }
            Self::Kinds(kinds, from, until) => {
                one_of("kind", kinds.iter().map(|kind| kind.as_str().to_owned())).and(within(*from, *until))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rebound_schemas::event::Outcome;

    use super::*;
    use crate::fixture::{Log, acknowledged, at, opened, probe, resolved, service};
    use crate::session::{Session, SqlLimits};

    /// What each question answers, as ids in order; what is in the log twice comes once.
    #[tokio::test]
    async fn each_question_finds_what_it_asks_for_and_no_more() {
        let day = 86_400;
        let mut events: Vec<_> = (0..6).map(|n| probe("p", &n.to_string(), "api", n * 10, Outcome::Failed)).collect();
        events.extend([
            probe("q", "0", "api", 5 * day, Outcome::Healthy),
            opened(1, "api", 10, 30),
            resolved(1, "api", 40, 50),
            opened(11, "db", day, day + 5),
            acknowledged(11, "db", day + 9, false),
        ]);
        let mut log = Log::with(&events).await;
        log.append(&events[7..8]).await;
        let session = Session::open(log.location(), None, SqlLimits::default()).await.unwrap();
        let service = service("api");
        let first = (Source::new("p").unwrap(), EventId::new("0").unwrap());
        let table: [(Wanted, &[&str]); 10] = [
            (Wanted::Names(vec!["inc-1".into()], at(0)), &["inc-1:opened", "inc-1:resolved"]),
            (Wanted::Names(vec!["inc-1".into()], at(31)), &["inc-1:resolved"]),
            (Wanted::Names(vec!["inc".into()], at(0)), &[]),
            (
                Wanted::Starts("inc-1".into()),
                &["inc-1:opened", "inc-11:opened", "inc-1:resolved", events[10].id.as_str()],
            ),
            (Wanted::Starts("inc-11".into()), &["inc-11:opened", events[10].id.as_str()]),
            (Wanted::Events(vec![first.clone()], at(0)), &["0"]),
            (Wanted::Events(vec![first], at(1)), &[]),
            (Wanted::Observed(service.clone(), at(10), at(30)), &["1", "2", "3"]),
            (Wanted::Decided(service.clone(), at(0), at(49)), &["inc-1:opened"]),
            (Wanted::Kinds(vec![Kind::IncidentOpened], at(40), at(2 * day)), &["inc-11:opened"]),
        ];
        for (wanted, ids) in table {
            let found = session.recall(std::slice::from_ref(&wanted), 100).await.unwrap();
            let mut found: Vec<&str> = found.iter().map(|event| event.id.as_str()).collect();
            let mut ids = ids.to_vec();
            found.sort_unstable();
            ids.sort_unstable();
            assert_eq!(found, ids, "{wanted:?}");
        }
        // Rows are counted before repeats are dropped, so the question is one whose rows stand in the log once.
        let three = Wanted::Observed(service, at(10), at(30));
        assert_eq!(session.recall(&[three], 2).await.unwrap().len(), 2, "at most so many");
        assert!(session.reached().await.unwrap().is_some());
    }
}
