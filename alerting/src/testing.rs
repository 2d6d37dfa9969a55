//! What the tests of several modules make: events, what a probe saw, plans.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, EventId, ProbeId, ServiceId, Source};

/// An event under no plan.
pub(crate) fn event(source: &str, id: &str, service: &str, at: DateTime<Utc>, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(id).unwrap(),
        source: Source::new(source).unwrap(),
        subject: ServiceId::new(service).unwrap(),
        occurred_at: at,
        plan: None,
        data: data.into(),
    }
}

/// What a probe saw, and nothing beside its outcome.
pub(crate) fn seen(probe: &str, outcome: Outcome) -> ProbeCompleted {
    ProbeCompleted {
        probe: ProbeId::new(probe).unwrap(),
        outcome,
        latency_us: 1,
        site: None,
        error_class: None,
        reason: None,
        http_status: None,
        certificate_expires_at: None,
    }
}

/// A plan; what is wrong with it fails the test.
pub(crate) fn plan(text: &str) -> Arc<Plan> {
    Arc::new(Plan::parse(text, "plan.toml").unwrap_or_else(|faults| panic!("{faults}")))
}
