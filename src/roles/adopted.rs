//! Says which plan is decided under, for the record: `plan.adopted`, whenever a process that decides starts.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rebound_ingest::bus::{BusError, EventBus, Stream};
use rebound_schemas::Topic;
use rebound_schemas::plan::Plan;

use super::tenure::{record, retried};

/// Parts of a large plan that are appended at once.
const AT_ONCE: usize = 16;

/// Appends the plan's events.
pub(crate) async fn adopt(bus: &Arc<dyn EventBus>, plan: &Plan, now: DateTime<Utc>) -> Result<(), BusError> {
    for events in plan.adopted(now).chunks(AT_ONCE) {
        let records: Vec<_> = events.iter().map(record).collect();
        retried(|| bus.append(Stream::Events(Topic::Recoveries), records.clone())).await?;
    }
    Ok(())
}

/// Appends them beside whatever else starts: that the record is told of the plan keeps nobody from deciding.
pub(super) fn tell(bus: Arc<dyn EventBus>, plan: Arc<Plan>, now: DateTime<Utc>) {
    tokio::spawn(async move {
        if let Err(error) = adopt(&bus, &plan, now).await {
            tracing::warn!(%error, "the record does not know that this plan is decided under");
        }
    });
}
