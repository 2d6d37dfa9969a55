//! The tables of SQL and what each column means: the one list that schemas, the reference page and tests come from.
//!
//! Durations are DOUBLE seconds and end in `_seconds`; times are `TIMESTAMP WITH TIME ZONE` in microseconds, UTC,
//! and end in `_at`. Table and column names only ever grow: a saved query keeps its meaning.

mod around;
mod plans;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::functions::{FUNCTIONS, Function};
use crate::queries::{Query, REVIEW};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// Double.
    Double,
    /// Microseconds, UTC.
    Time,
}

impl ColumnType {
    /// The type as SQL writes it.
    #[must_use]
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Boolean => "BOOLEAN",
            Self::Int => "INTEGER",
            Self::Long => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Time => "TIMESTAMPTZ",
        }
    }

    /// The Arrow type.
    #[must_use]
    pub fn as_arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// What it means, in what unit, and when it is NULL.
    pub meaning: &'static str,
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
    /// In order.
    pub columns: &'static [Column],
}

impl Table {
    /// The table's Arrow schema; every column may be NULL.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(column.name, column.kind.as_arrow(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The table of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }
}

macro_rules! tables {
    ($list:ident: $($table:literal, $about:literal { $($column:ident $kind:ident $meaning:literal,)* })*) => {
        pub(super) const $list: &[Table] = &[$(Table {
            name: $table,
            about: $about,
            columns: &[$(Column { name: stringify!($column), kind: ColumnType::$kind, meaning: $meaning },)*],
        },)*];
    };
}

use tables;

/// Every table, from the lists by what they are about.
pub const TABLES: &[Table] = &{
    const LISTS: [&[Table]; 3] = [RECORD, around::AROUND, plans::PLANS];
    let mut all = [RECORD[0]; LISTS[0].len() + LISTS[1].len() + LISTS[2].len()];
    let (mut list, mut at) = (0, 0);
    while list < LISTS.len() {
        let mut table = 0;
        while table < LISTS[list].len() {
            all[at] = LISTS[list][table];
            at += 1;
            table += 1;
        }
        list += 1;
    }
    all
};

tables! { RECORD:
    "events", "One row an event of any kind, each counted once by (source, id)." {
        kind Text "What happened, as in `probe.completed`.",
        version Int "Version that the payload was written in.",
        id Text "CloudEvents id, unique within `source`.",
        source Text "Who says so.",
        service Text "The service that it is about.",
        occurred_at Time "When it happened, by the clock of `source`.",
        ingested_at Time "When the pipeline took it in: `ingested_at <= T` is the log as known at T.",
        topic Text "`observations`, `alerts` or `recoveries`.",
        partition Int "Number of the bus partition.",
        offset Long "Position in it; (topic, partition, offset) is unique.",
        plan Text "Version of the plan that a decision was made under.",
        site Text "Site looked from, measured at, or moved to.",
        probe Text "The probe.",
        outcome Text "How it went or ended.",
        error_class Text "Why it went wrong, coarsely.",
        reason Text "Why, in words.",
        latency_us Long "From a probe's start to its verdict, in microseconds.",
        http_status Int "HTTP status of a probe's final answer.",
        certificate_expires_at Time "Earliest expiry of a certificate that was shown.",
        incident Text "The incident.",
        alert Text "The alert.",
        policy Text "The policy.",
        severity Text "`critical`, `warning` or `info`.",
        recovery Text "The recovery.",
        attempt Int "Which attempt, from 1.",
        procedure Text "The procedure.",
        step Text "The procedure's step.",
        method Text "How the service is brought back.",
        channel Text "The notification channel.",
        drill Text "The drill.",
        duration_ms Long "How long it took, in milliseconds.",
        first_failure_at Time "t0 of the incident.",
        recovered_at Time "t3 of the incident.",
        data Text "The payload's JSON as received; NULL where the other columns say all of it.",
    }
    "probes", "One row a completed probe." {
        service Text "The service that it tells about.",
        probe Text "The probe.",
        site Text "The site it looked from.",
        occurred_at Time "When it ended.",
        ingested_at Time "When the pipeline took it in.",
        outcome Text "`healthy`, `degraded` or `failed`.",
        error_class Text "Why it was not healthy, coarsely.",
        reason Text "Why it was not healthy, in words.",
        latency_seconds Double "From start to verdict, in seconds.",
        http_status Int "HTTP status of the final answer.",
        certificate_expires_at Time "Earliest expiry in the certificate chain that was shown.",
        source Text "Who probed.",
        id Text "The event's id.",
    }
    "alerts", "One row an alert: one policy firing over one incident." {
        alert Text "Its id.",
        incident Text "The incident that it belongs to.",
        service Text "The service that failed.",
        policy Text "The policy that fired.",
        severity Text "How loudly: `critical`, `warning` or `info`.",
        failures Long "Failures counted when it fired.",
        reason Text "What was seen.",
        first_failure_at Time "t0.",
        raised_at Time "When it fired.",
        suppressed_by Text "What kept it from telling anybody, first; NULL if nothing did.",
        suppression_cause Text "`dependency`, `silence`, `maintenance` or `flapping`.",
        notified_at Time "When somebody was first told.",
        notifications_sent Long "Notifications taken by their channel.",
        notifications_failed Long "Notifications given up.",
        recovered_at Time "t3.",
        resolved_at Time "When it resolved; NULL while it fires.",
    }
    "incidents", "One row an incident as it stands after every correction. Durations are NULL where a time is missing, where they would be negative, and for excluded incidents, so that aggregates over them are the published figures." {
        incident Text "Its id.",
        service Text "The service that failed.",
        tier Text "The service's tier, by the present plan.",
        severity Text "How bad: `critical`, `warning` or `info`.",
        policy Text "The policy that decided; NULL if it was reported or imported.",
        plan Text "Version of the plan that it was decided under.",
        error_class Text "Why, coarsely; restated where corrected.",
        cause Text "Why, as whoever reported it puts it; the class where only that is known.",
        reason Text "Why, in words.",
        open Boolean "Whether it is still open.",
        excluded Boolean "Whether a correction took it out of every figure.",
        last_success_at Time "Last success before t0: the true onset lies in (this, t0].",
        first_failure_at Time "t0: first failed probe of the streak; restated where corrected.",
        detected_at Time "t1: when it was decided.",
        acknowledged_at Time "t2: first acknowledgement or automated action.",
        acknowledged_by Text "Who acknowledged first.",
        acknowledged_automated Boolean "Whether that was automation.",
        recovered_at Time "t3: first success of the streak that recovered; restated where corrected.",
        resolved_at Time "t4: when it was closed.",
        escalated_at Time "When automation gave up and asked for people.",
        recovery Text "The recovery that brought it back, where one did.",
        recoveries Long "Recoveries attempted.",
        mttd_seconds Double "Time to detect, t1 − t0, in seconds.",
        mtta_seconds Double "Time to acknowledge, t2 − t1, in seconds.",
        mtta_human_seconds Double "From t1 to the first act of a person, in seconds.",
        mtta_automated_seconds Double "From t1 to the first act of automation, in seconds.",
        mttr_seconds Double "Time to recover, t3 − t0, in seconds.",
        detected_to_recovered_seconds Double "t3 − t1, in seconds.",
        detected_to_resolved_seconds Double "t4 − t1, in seconds.",
        lasted_seconds Double "t3 − t0, or now − t0 while it lasts (a censored recovery time), in seconds.",
        rto_seconds Double "The service's recovery time objective by the present plan, in seconds.",
        rto_met Boolean "Whether it recovered within the objective; false too if it lasts beyond it, NULL before.",
        corrected_at Time "When it was last corrected; NULL if never.",
        corrected_by Text "Who corrected it.",
        correction_reason Text "Why.",
        original_first_failure_at Time "t0 before corrections; NULL if never corrected.",
        original_recovered_at Time "t3 before corrections.",
        original_error_class Text "Cause before corrections.",
        opened_source Text "Source of the event that opened it.",
        opened_id Text "Id of the event that opened it.",
        site Text "The service's site, by the present plan.",
        maintenance Text "The maintenance window that it began in, which excludes it or restates t0; NULL if none.",
        impossible Boolean "Whether t3 lies before t0, or t0 after now: in no figure.",
        overlapping Boolean "Whether it began before an earlier one of the same service had ended: counted like any other.",
        zero_length Boolean "Whether it recovered at the moment it began: counted like any other.",
        duplicate_of Text "An incident of the same service with the same t0 and t3 and a smaller id; NULL if there is none. Counted like any other.",
        recorded_first_failure_at Time "t0 as first recorded, before corrections and maintenance windows.",
        recorded_recovered_at Time "t3 as first recorded.",
    }
    "recoveries", "One row a recovery: one attempt at one incident." {
        recovery Text "Its id.",
        incident Text "The incident that it is for.",
        service Text "The service that is brought back.",
        attempt Long "Which attempt at the incident, from 1.",
        procedure Text "What is run.",
        method Text "How the service is brought back.",
        mode Text "`auto`, `approve` or `off`.",
        plan Text "Version of the plan that it was decided under.",
        triggered_at Time "When it was decided on.",
        triggered_by Text "The person who asked for it, where one did.",
        approved_at Time "When it was approved.",
        approved_by Text "Who approved it.",
        refused_at Time "When a person rejected it or called it off, or nobody had approved it in time.",
        refused_by Text "Who rejected it or called it off; NULL where nobody approved it in time.",
        started_at Time "When a runner began.",
        runner Text "Which runner.",
        verified_at Time "When the verification ended.",
        verified Boolean "Whether the service's own probes passed in time; NULL without a verification.",
        finished_at Time "When it ended.",
        outcome Text "`succeeded`, `failed`, `interrupted` or `cancelled`; NULL until it ended.",
        error_class Text "Why it did not succeed, coarsely.",
        reason Text "Why it did not succeed, in words.",
        escalated_at Time "When it was escalated.",
        steps Long "Attempts at steps.",
        duration_seconds Double "From start to end, in seconds.",
    }
    "recovery_steps", "One row an attempt at a step of a recovery." {
        recovery Text "The recovery.",
        incident Text "The incident.",
        service Text "The service.",
        step_index Long "Place in the order of execution, from 0.",
        step Text "The step.",
        attempt Long "Which attempt at the step, from 1.",
        action Text "What it does.",
        started_at Time "When it began.",
        finished_at Time "When it ended.",
        outcome Text "`succeeded`, `failed`, `timed_out` or `skipped`; NULL until it ended.",
        duration_seconds Double "By the runner's own watch, in seconds.",
        code Long "Exit code or HTTP status.",
        error Text "Why it failed.",
    }
    "services", "One row a service that the plan names or the log knows, with its present state." {
        service Text "Its id.",
        name Text "What the plan calls it.",
        tier Text "Its tier; NULL if the plan does not name it.",
        site Text "Where it runs.",
        method Text "How it is brought back.",
        policy Text "Its policy.",
        procedure Text "What brings it back; NULL: people do.",
        depends_on Text "What it needs, separated by commas.",
        last_outcome Text "What its newest probe found; NULL if there was none.",
        last_observed_at Time "When that was.",
        open_incident Text "Its open incident, the newest if several; NULL if none.",
        down_since_at Time "t0 of that incident.",
    }
    "objectives", "One row a service of the plan: what is promised." {
        service Text "The service.",
        tier Text "Its tier.",
        rto_seconds Double "Recovery time objective, in seconds.",
        rpo_seconds Double "Recovery point objective, in seconds.",
        method Text "How it is brought back.",
    }
}

/// The reference of tables, columns, functions and questions as Markdown: `docs/sql.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# SQL reference\n\nGenerated from the code (`rebound sql --reference`); do not edit.\n\n\
         Ask with `rebound sql \"…\"`. Durations are DOUBLE seconds (`…_seconds`), shares 0 to 1, times UTC in \
         microseconds (`…_at`). What is not known is NULL. `median` and `percentile_cont` interpolate linearly \
         (type 7). Every table can be asked as it was known at a time: `--as-of 2026-03-31`.\n\n\
         | table | one row … |\n|---|---|\n",
    );
    for table in TABLES {
        let row = table.about.split_once('.').map_or(table.about, |(first, _)| first);
        let row = row.trim_start_matches("One row ");
        let _ = writeln!(page, "| [`{}`](#{}) | {row} |", table.name, table.name);
    }
    for table in TABLES {
        let _ = write!(page, "\n## {}\n\n{}\n\n| column | type | meaning |\n|---|---|---|\n", table.name, table.about);
        for column in table.columns {
            let _ = writeln!(page, "| `{}` | {} | {} |", column.name, column.kind.as_sql(), column.meaning);
        }
    }
    page.push_str("\n## Functions\n\nBeside those of DataFusion.\n");
    for Function { call, meaning, example } in FUNCTIONS {
        let _ = write!(page, "\n`{call}`\n: {meaning}\n\n```sql\n{example}\n```\n");
    }
    page.push_str(
        "\n## Questions of an annual review\n\nEach is run by a test over a history whose answers were worked out by \
         hand. Restrict any of them to the year under review with `WHERE first_failure_at >= '2026-01-01'`; with \
         `rebound sql --as-of T` they answer as was known at T.\n",
    );
    for (number, Query { title, asks, sql }) in (1..).zip(REVIEW) {
        let _ = write!(page, "\n### {number}. {title}\n\n{asks}\n\n```sql\n{sql}\n```\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn columns_keep_the_rules_of_their_names() {
        for table in TABLES {
            let names: BTreeSet<_> = table.columns.iter().map(|column| column.name).collect();
            assert_eq!(names.len(), table.columns.len(), "{} names a column twice", table.name);
            for column in table.columns {
                let time = column.kind == ColumnType::Time;
                assert_eq!(time, column.name.ends_with("_at"), "{}.{}", table.name, column.name);
                assert!(!column.name.ends_with("_seconds") || column.kind == ColumnType::Double, "{}", column.name);
                assert!(column.meaning.ends_with('.'), "{}", column.name);
            }
        }
    }

    #[test]
    fn the_reference_lists_every_column() {
        let page = reference();
        for table in TABLES {
            let section = page.split(&format!("\n## {}\n", table.name)).nth(1).unwrap();
            let section = section.split("\n## ").next().unwrap();
            for column in table.columns {
                assert!(section.contains(&format!("| `{}` | {} |", column.name, column.kind.as_sql())));
            }
        }
        assert!(FUNCTIONS.iter().all(|function| page.contains(&format!("\n`{}`\n", function.call))));
    }

    /// The committed page is what the code says. `REBOUND_BLESS=1 cargo test -p rebound-analytics` writes it anew.
    #[test]
    fn the_committed_reference_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md");
        if std::env::var_os("REBOUND_BLESS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, reference(), "{} is out of date: run with REBOUND_BLESS=1", path.display());
    }
}
