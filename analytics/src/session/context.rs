//! What the tables of a statement are made of beside the incident fold, read from the log when a statement asks for it:
//! under the statement's own limits, as known at a time or now.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::incident::Incident;

use super::SqlError;
use super::answer::Shared;
use crate::chronicle::Chronicle;
use crate::observed::{Breaks, Observed};
use crate::surroundings::Surroundings;
use crate::{gather, observed, projections};

impl Shared {
    /// What happened beside incidents and recoveries.
    pub(super) async fn chronicle(&self, known_at: Option<DateTime<Utc>>) -> Result<Chronicle, SqlError> {
        let query = gather::events_of(Chronicle::KINDS, known_at);
        let step =
            |chronicle: &mut Chronicle, batch: &RecordBatch| gather::each_event(batch, |event| chronicle.evolve(event));
        self.fold(query, Chronicle::default(), step).await
    }

    /// See [`Session::surroundings`](super::Session::surroundings).
    pub(super) async fn surroundings(
        &self,
        incidents: &[Incident],
        known_at: Option<DateTime<Utc>>,
    ) -> Result<Surroundings, SqlError> {
        let query = gather::events_of(Surroundings::KINDS, known_at);
        let init = Surroundings::around(incidents);
        self.fold(query, init, |around, batch| gather::each_event(batch, |event| around.evolve(event))).await
    }

    /// See [`Session::observed`](super::Session::observed).
    pub(super) async fn observed(
        &self,
        known_at: Option<DateTime<Utc>>,
        since: Option<DateTime<Utc>>,
    ) -> Result<Observed, SqlError> {
        let plan = self.plan.as_deref();
        let (least, most) = observed::silences(plan);
        // A probe speaks for as long as the longest silence after it.
        let from = since.map(|since| since - TimeDelta::microseconds(most));
        let breaks = self.fold(gather::breaks(least, known_at, from), Breaks::default(), gather::each_break).await?;
        let first = match since {
            Some(_) => self.fold(gather::first(known_at), BTreeMap::new(), gather::each_first).await?,
            None => BTreeMap::new(),
        };
        Ok(Observed::of(breaks, first, plan))
    }

    /// What is counted over all rows of the log, but for repeats and what can't be read.
    pub(super) async fn quality(&self, known_at: Option<DateTime<Utc>>) -> Result<projections::Log, SqlError> {
        let numbers = |into: &mut Vec<i64>, batch: &RecordBatch| {
            for row in 0..batch.num_rows() {
                let of = |column: &arrow::array::ArrayRef| column.as_primitive::<Int64Type>().value(row);
                into.extend(batch.columns().iter().map(of));
            }
            Ok(())
        };
        let timeliness = self.fold(gather::timeliness(known_at), Vec::new(), numbers).await?;
        let disorder = self.fold(gather::disorder(known_at), Vec::new(), numbers).await?;
        let [imported, late, ahead] = timeliness[..] else { return Ok(projections::Log::default()) };
        let out_of_order = disorder.first().copied().unwrap_or_default();
        Ok(projections::Log { imported, late, ahead, out_of_order, ..projections::Log::default() })
    }
}
