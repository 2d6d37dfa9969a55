//! The state of every service, folded from the bus for those who look: `/api/v1/services`, metrics, the demo's screen.
//!
//! It decides nothing and commits no position: a view starts by folding the past anew, like everybody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use rebound_alerting::desk::Desk;
use rebound_alerting::engine::{Engine, RecoveryState, ServiceStatus, lookback};
use rebound_alerting::moves::Courses;
use rebound_alerting::sites::Sites;
use rebound_alerting::threshold::Health;
use rebound_ingest::bus::{BusError, EventBus};
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, IncidentId, RecoveryId, ServiceId, TierId};
use serde::Serialize;

use super::alert::{fold_decisions, fold_observations, remembered};
use super::snapshot::{Snapshots, take_up};
use super::tenure::Feed;

/// State of a service as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceState {
    Healthy,
    Degraded,
    /// Failing, below the threshold.
    Failing,
    Failed,
    /// Failed, and a recovery of it has begun.
    Recovering,
    /// Nothing was seen for too long: neither up nor down.
    Unobserved,
}

impl ServiceState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Failed => "failed",
            Self::Recovering => "recovering",
            Self::Unobserved => "unobserved",
        }
    }

    /// 1 up, 0 down; nothing where neither is known.
    pub(crate) fn as_gauge(self) -> Option<i64> {
        match self {
            Self::Healthy | Self::Degraded | Self::Failing => Some(1),
            Self::Failed | Self::Recovering => Some(0),
            Self::Unobserved => None,
        }
    }
}

/// One service, as `/api/v1/services` answers it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) service: ServiceId,
    pub(crate) tier: Option<TierId>,
    pub(crate) state: ServiceState,
    /// Failures counted towards the threshold.
    pub(crate) failures: u32,
    pub(crate) first_failure_at: Option<DateTime<Utc>>,
    pub(crate) last_success_at: Option<DateTime<Utc>>,
    pub(crate) last_observed_at: Option<DateTime<Utc>>,
    pub(crate) reason: Option<String>,
    pub(crate) incident: Option<IncidentId>,
    pub(crate) acknowledged: bool,
    /// Why notifications and triggers are held back: `dependency`, `silence`, `maintenance`, `flapping`.
    pub(crate) suppressed: Option<&'static str>,
    /// What suppresses it.
    pub(crate) suppressed_by: Option<String>,
    pub(crate) flapping: bool,
    pub(crate) recovery: Option<RecoveryId>,
    pub(crate) attempt: Option<u32>,
    /// Whether automation gave up.
    pub(crate) escalated: bool,
}

#[derive(Debug)]
pub(super) struct Folded {
    engine: Option<Engine>,
    record: Record,
    pub(super) sites: Sites,
    pub(super) desk: Desk,
    pub(super) courses: Courses,
}

/// The fold, shared between the one who keeps it and those who look.
#[derive(Debug)]
pub(crate) struct View {
    plan: Option<Arc<Plan>>,
    folded: Mutex<Folded>,
}

impl View {
    pub(crate) fn new(plan: Option<Arc<Plan>>) -> Self {
        let engine = plan.clone().map(|plan| {
            let mut engine = Engine::new(plan);
            // It looks at all of them. Owning means deciding only where `handle` or `tick` is called: never here.
            engine.own_where(|_| true);
            engine
        });
        let (record, sites, desk, courses) = Default::default();
        Self { plan, folded: Mutex::new(Folded { engine, record, sites, desk, courses }) }
    }

    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Folded> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, events: &[Event]) {
        let mut folded = self.lock();
        for event in events {
            folded.record.evolve(event);
            folded.sites.evolve(event);
            folded.desk.evolve(event);
            folded.courses.evolve(event);
            if let Some(engine) = &mut folded.engine {
                engine.fold(event);
            }
        }
    }

    /// Every service of the plan, in id order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let folded = self.lock();
        let Some(engine) = &folded.engine else { return Vec::new() };
        engine.statuses(Utc::now()).map(|status| self.row(status)).collect()
    }

    fn row(&self, status: ServiceStatus) -> Row {
        let recovering = status.recovery.as_ref().is_some_and(|r| r.state == RecoveryState::Started);
        let state = match status.health {
            Health::Unobserved => ServiceState::Unobserved,
            Health::Ok => ServiceState::Healthy,
            Health::Degraded => ServiceState::Degraded,
            Health::Soft => ServiceState::Failing,
            Health::Hard if recovering => ServiceState::Recovering,
            Health::Hard => ServiceState::Failed,
        };
        Row {
            tier: self.plan.as_ref().and_then(|plan| Some(plan.services().get(&status.service)?.tier.clone())),
            service: status.service,
            state,
            failures: status.failures,
            first_failure_at: status.first_failure_at,
            last_success_at: status.last_success_at,
            last_observed_at: status.last_seen_at,
            reason: status.reason,
            incident: status.incident,
            acknowledged: status.acknowledged,
            suppressed: status.suppression.as_ref().map(|s| s.cause.as_str()),
            suppressed_by: status.suppression.map(|s| s.by),
            flapping: status.flapping,
            attempt: status.recovery.as_ref().map(|r| r.attempt),
            recovery: status.recovery.map(|r| r.id),
            escalated: status.escalated,
        }
    }

    /// Looks at what people may speak about.
    pub(crate) fn with_desk<T>(&self, look: impl FnOnce(&Desk) -> T) -> T {
        look(&self.lock().desk)
    }

    /// Takes what was said here before it comes back over the bus, so that the next who speaks knows of it.
    pub(crate) fn note(&self, event: &Event) {
        self.lock().desk.evolve(event);
    }

    /// Looks at the incidents and recoveries so far.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock().record)
    }

    /// Whether every service is healthy and no incident is open.
    pub(crate) fn all_healthy(&self) -> bool {
        self.rows().iter().all(|row| row.state == ServiceState::Healthy && row.incident.is_none())
    }
}

/// Folds the past into the view, then what comes, until it fails.
pub(crate) async fn follow(
    view: Arc<View>,
    bus: Arc<dyn EventBus>,
    snapshots: Option<Arc<Snapshots>>,
    ready: Arc<AtomicBool>,
) -> Result<(), BusError> {
    let take = |event: &Event| view.take(std::slice::from_ref(event));
    let lookback = view
        .plan
        .as_deref()
        .map_or(TimeDelta::zero(), |plan| TimeDelta::from_std(lookback(plan)).unwrap_or(TimeDelta::days(1)));
    let stretches = remembered(&bus, 0..bus.partitions(), Utc::now() - lookback, None).await?;
    let snapshot = async {
        match &snapshots {
            Some(snapshots) => snapshots.read(&bus, &stretches).await,
            None => BTreeMap::new(),
        }
    };
    let (on, snapshot) = tokio::join!(fold_decisions(&bus, take), snapshot);
    let mut on = on?;
    let known = match &mut view.lock().engine {
        Some(engine) => take_up(engine, snapshot),
        None => BTreeMap::new(),
    };
    on.extend(fold_observations(&bus, &stretches, &known, take).await?);
    ready.store(true, Ordering::Release);
    let mut feed = Feed::start(&bus, on);
    loop {
        view.take(&feed.next().await?.events);
    }
}

/// `GET /api/v1/services`
pub(crate) fn router(view: Arc<View>) -> Router {
    Router::new().route("/api/v1/services", get(services)).with_state(view)
}

async fn services(State(view): State<Arc<View>>) -> Json<Vec<Row>> {
    Json(view.rows())
}
