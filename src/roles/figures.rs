//! Metrics over the state of the services and the recovery figures, brought up to date every few seconds.
//!
//! The figures themselves are computed by `rebound_analytics::mttr` from the incident fold, the same as on the command
//! line; nothing is defined here. Labels are bounded by the plan and by closed sets of words.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use chrono::Utc;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rebound_analytics::mttr;
use rebound_schemas::RecoveryId;

use super::view::View;

/// How often the figures are brought up to date.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RecoveryLabels {
    outcome: &'static str,
    method: &'static str,
}

/// The metric families.
#[derive(Debug)]
pub(crate) struct Figures {
    healthy: Family<ServiceLabel, Gauge>,
    open: Gauge,
    in_progress: Gauge,
    recoveries: Family<RecoveryLabels, Counter>,
    durations: Histogram,
    median: Family<ServiceLabel, Gauge<f64, AtomicU64>>,
    p90: Family<ServiceLabel, Gauge<f64, AtomicU64>>,
    attainment: Gauge<f64, AtomicU64>,
}

/// `rebound_build_info`.
pub(crate) fn build_info(registry: &mut Registry) {
    let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("rebound_build", "The version that runs", info);
}

impl Figures {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let figures = Self {
            healthy: Family::default(),
            open: Gauge::default(),
            in_progress: Gauge::default(),
            recoveries: Family::default(),
            durations: Histogram::new(exponential_buckets(0.5, 2.0, 16)),
            median: Family::default(),
            p90: Family::default(),
            attainment: Gauge::default(),
        };
        registry.register(
            "rebound_service_healthy",
            "1 if every probe of the service is healthy, 0 if it has failed; absent if unobserved",
            figures.healthy.clone(),
        );
        registry.register("rebound_incidents_open", "Incidents that have not been resolved", figures.open.clone());
        registry.register(
            "rebound_recoveries_in_progress",
            "Recoveries that have begun and not ended",
            figures.in_progress.clone(),
        );
        registry.register("rebound_recoveries", "Recoveries that ended", figures.recoveries.clone());
        registry.register(
            "rebound_recovery_duration_seconds",
            "From the start of a recovery to its end",
            figures.durations.clone(),
        );
        registry.register(
            "rebound_mttr_median_seconds",
            "Median recovery time (first success minus first failure)",
            figures.median.clone(),
        );
        registry.register("rebound_mttr_p90_seconds", "90th percentile of the recovery time", figures.p90.clone());
        registry.register(
            "rebound_rto_attainment_ratio",
            "Share of incidents that met their recovery time objective",
            figures.attainment.clone(),
        );
        figures
    }

    /// Keeps the figures up to date for as long as it is polled.
    pub(crate) async fn keep(&self, view: &View) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counted = HashSet::new();
        loop {
            every.tick().await;
            self.refresh(view, &mut counted);
        }
    }

    fn refresh(&self, view: &View, counted: &mut HashSet<RecoveryId>) {
        for row in view.rows() {
            let label = ServiceLabel { service: row.service.to_string() };
            match row.state.as_gauge() {
                Some(value) => {
                    self.healthy.get_or_create(&label).set(value);
                }
                None => {
                    self.healthy.remove(&label);
                }
            }
        }
        view.with_record(|record| {
            let mut in_progress = 0;
            for recovery in record.recoveries() {
                match (&recovery.outcome, recovery.started_at) {
                    (Some(outcome), _) if counted.insert(recovery.id.clone()) => {
                        let method = recovery.method.map_or("none", |m| m.as_str());
                        self.recoveries.get_or_create(&RecoveryLabels { outcome: outcome.as_str(), method }).inc();
                        if let Some(duration) = recovery.duration() {
                            self.durations.observe(mttr::seconds(duration));
                        }
                    }
                    (None, Some(_)) => in_progress += 1,
                    _ => {}
                }
            }
            self.in_progress.set(in_progress);
            let report = mttr::mttr(record, view.plan(), Utc::now());
            self.open.set(i64::try_from(report.overall.open).unwrap_or(i64::MAX));
            if let Some(share) = report.overall.rto.share() {
                self.attainment.set(share);
            }
            for (service, figures) in report.services.into_iter().filter(|(s, _)| view.knows(s)) {
                if let Some(recover) = figures.recover {
                    let label = ServiceLabel { service };
                    self.median.get_or_create(&label).set(recover.median);
                    self.p90.get_or_create(&label).set(recover.p90);
                }
            }
        });
    }
}
