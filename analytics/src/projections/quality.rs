//! What the log itself is worth: what was odd about it, counted.

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;

use super::{batch, count, long, text};
use crate::chronicle::Chronicle;
use crate::oddities;

/// What is counted over all rows of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Log {
    /// Rows that repeat an event.
    pub repeated: u64,
    /// Events that the fold could not read.
    pub unreadable: usize,
    /// Events from elsewhere that were imported.
    pub imported: i64,
    /// Other events that were taken in more than an hour after they happened.
    pub late: i64,
    /// Events that happened more than five minutes after they were taken in.
    pub ahead: i64,
    /// Decisions and the like that were taken in after a later one of the same service and topic.
    pub out_of_order: i64,
}

struct Finding<'a> {
    finding: &'static str,
    n: Option<i64>,
    meaning: &'static str,
    example: Option<&'a str>,
}

/// `data_quality`.
#[must_use]
pub fn data_quality(
    record: &Record,
    chronicle: &Chronicle,
    plan: Option<&Plan>,
    log: Log,
    now: DateTime<Utc>,
) -> RecordBatch {
    let incidents: Vec<Incident> = record.incidents().collect();
    let counted = || incidents.iter().filter(|it| !it.is_excluded() && !oddities::is_impossible(it, now));
    let of = |finding, meaning, which: &dyn Fn(&Incident) -> bool| {
        let mut found = incidents.iter().filter(|it| which(it));
        let example = found.next().map(|it| it.id.as_str());
        Finding { finding, n: count(found.count() + usize::from(example.is_some())), meaning, example }
    };
    let over = |finding, meaning, n| Finding { finding, n, meaning, example: None };
    let (overlapping, duplicates) = (oddities::overlapping(counted()), oddities::duplicates(counted()));
    let corrected = chronicle.corrected();
    let counts = |it: &Incident| !it.is_excluded() && !oddities::is_impossible(it, now);
    let rows = vec![
        over(
            "repeated_events",
            "Rows of the log that repeat an event (same source and id): each event counts once.",
            i64::try_from(log.repeated).ok(),
        ),
        over(
            "unreadable_events",
            "Events of incidents and recoveries that this build can't read: in no figure; `rebound log verify` tells more.",
            count(log.unreadable),
        ),
        over(
            "imported_events",
            "Events from elsewhere that `rebound import` brought in: counted like any other.",
            Some(log.imported),
        ),
        over(
            "late_events",
            "Other events that were taken in more than an hour after they happened: counted where they belong; `--as-of` leaves them out until they were taken in.",
            Some(log.late),
        ),
        over(
            "events_ahead_of_time",
            "Events that happened more than five minutes after they were taken in: a source's clock is wrong. Counted as told.",
            Some(log.ahead),
        ),
        over(
            "out_of_order_events",
            "Events other than measurements that were taken in after a later one of the same service: every fold gives the same for any order.",
            Some(log.out_of_order),
        ),
        over(
            "orphan_incidents",
            "Incidents that something was said of, but whose opening never came: in no figure.",
            count(record.orphans()),
        ),
        of(
            "corrected_incidents",
            "Incidents that people restated: counted as restated, the original beside it.",
            &|it| corrected.contains_key(&it.id),
        ),
        of("excluded_incidents", "Incidents that a correction took out: in no figure.", &|it| {
            it.correction.as_ref().is_some_and(|it| it.excluded)
        }),
        of(
            "maintenance_incidents",
            "Incidents that began in a maintenance window: excluded if over before it was, else t0 is its end.",
            &|it| it.maintenance.is_some(),
        ),
        of(
            "impossible_incidents",
            "Incidents whose t3 lies before t0, or whose t0 lies after now: in no figure.",
            &|it| !it.is_excluded() && oddities::is_impossible(it, now),
        ),
        of(
            "zero_length_incidents",
            "Incidents that recovered at the moment they began: counted like any other.",
            &|it| counts(it) && oddities::is_zero_length(it),
        ),
        of(
            "overlapping_incidents",
            "Incidents that began before an earlier one of the same service had ended: counted like any other; time down counts once.",
            &|it| overlapping.contains(&it.id),
        ),
        of(
            "duplicated_incidents",
            "Incidents with the service, t0 and t3 of another: counted like any other; a correction can take them out.",
            &|it| duplicates.contains_key(&it.id),
        ),
        of(
            "incidents_of_unknown_services",
            "Incidents of services that the present plan does not name: without tier, site and objectives.",
            &|it| plan.is_some_and(|plan| !plan.services().contains_key(&it.service)),
        ),
    ];
    let columns = vec![
        text(&rows, |row| Some(row.finding)),
        long(&rows, |row| row.n),
        text(&rows, |row| Some(row.meaning)),
        text(&rows, |row| row.example),
    ];
    batch("data_quality", columns)
}
