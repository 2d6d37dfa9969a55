//! What an incident is in each dimension that figures are grouped by.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{RecoveryMethod, RecoveryOutcome, Severity};
use rebound_schemas::incident::{Incident, Recovery};
use rebound_schemas::plan::Plan;
use rebound_schemas::{RecoveryId, ServiceId};
use serde::Serialize;

use crate::mttr::seconds;
use crate::surroundings::Surroundings;

/// What is not known, as the name of a group.
const UNKNOWN: &str = "(unknown)";

/// What figures are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The service that failed.
    Service,
    /// Its tier by the present plan.
    Tier,
    /// Its site by the present plan.
    Site,
    /// The cause, as whoever reported it puts it; the error class where only that is known.
    Cause,
    /// The method of the recovery that brought it back or, without one, that which the plan has for the service.
    Method,
    /// `automated`: a procedure brought it back; `manual`: it came back otherwise; `open`: it did not yet.
    Automation,
    /// `drill`: it was made on purpose; `real`.
    Drill,
    /// How bad.
    Severity,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::Tier,
        Self::Site,
        Self::Cause,
        Self::Method,
        Self::Automation,
        Self::Drill,
        Self::Severity,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Tier => "tier",
            Self::Site => "site",
            Self::Cause => "cause",
            Self::Method => "method",
            Self::Automation => "automation",
            Self::Drill => "drill",
            Self::Severity => "severity",
        }
    }

    /// The dimension of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == word)
    }

    /// The words that incidents can be in it, where these are a closed set.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        match self {
            Self::Service | Self::Tier | Self::Site | Self::Cause => Vec::new(),
            Self::Method => RecoveryMethod::ALL.iter().map(|word| word.as_str()).chain([UNKNOWN]).collect(),
            Self::Automation => vec!["automated", "manual", "open"],
            Self::Drill => vec!["drill", "real"],
            Self::Severity => Severity::ALL.iter().map(|word| word.as_str()).collect(),
        }
    }

    /// Whether it says something of services, and not of single incidents: only those have an uptime.
    #[must_use]
    pub fn is_of_services(self) -> bool {
        matches!(self, Self::Service | Self::Tier | Self::Site)
    }
}

/// What a service is, in a dimension of services.
#[must_use]
pub fn of_service(dimension: Dimension, service: &ServiceId, plan: Option<&Plan>) -> String {
    let planned = plan.and_then(|plan| plan.services().get(service));
    let known = match dimension {
        Dimension::Service => Some(service.to_string()),
        Dimension::Tier => planned.map(|it| it.tier.to_string()),
        Dimension::Site => planned.map(|it| it.site.to_string()),
        _ => None,
    };
    known.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// An incident with what is known around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The incident.
    pub incident: Incident,
    /// How it was brought back, or would be.
    pub method: Option<RecoveryMethod>,
    /// Whether a procedure brought it back.
    pub automated: bool,
    /// Whether it was made on purpose.
    pub drill: bool,
    /// How its recoveries ended.
    pub outcomes: Vec<RecoveryOutcome>,
    /// The newest data that was brought back, where known.
    pub data_until: Option<DateTime<Utc>>,
}

impl Case {
    pub(super) fn of(
        incident: Incident,
        recoveries: &BTreeMap<RecoveryId, Recovery>,
        surroundings: &Surroundings,
        plan: Option<&Plan>,
    ) -> Self {
        let own: Vec<&Recovery> = incident.recoveries.iter().filter_map(|id| recoveries.get(id)).collect();
        let named = incident.recovered_by.as_ref().and_then(|id| recoveries.get(id));
        let succeeded = own.iter().copied().find(|it| it.outcome == Some(RecoveryOutcome::Succeeded));
        let brought_back = named.or(succeeded);
        let last = brought_back.or(own.last().copied());
        let planned = plan.and_then(|plan| plan.services().get(&incident.service)).map(|service| service.method);
        let method = last.and_then(|it| it.method).or(planned);
        Self {
            automated: incident.recovered_by.is_some() || succeeded.is_some(),
            drill: surroundings.is_drill(&incident, plan),
            outcomes: own.iter().filter_map(|it| it.outcome).collect(),
            data_until: surroundings.data_until(&incident, last, method),
            method,
            incident,
        }
    }

    /// Whether it is in the figures: not excluded, and not impossible.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.incident.is_excluded() && !self.incident.is_impossible()
    }

    /// How its recoveries ended that ran to an end; called off ones never ran.
    pub fn ended(&self) -> impl Iterator<Item = RecoveryOutcome> + '_ {
        self.outcomes.iter().copied().filter(|outcome| *outcome != RecoveryOutcome::Cancelled)
    }

    /// Data that was lost: t0 − newest recovered data, in seconds, at least 0.
    #[must_use]
    pub fn data_loss(&self) -> Option<f64> {
        Some(seconds(self.incident.first_failure_at - self.data_until?).max(0.0))
    }

    /// Whether no more data was lost than the objective allows; `None` until it recovered or if that is not known.
    #[must_use]
    pub fn rpo_met(&self, plan: Option<&Plan>) -> Option<bool> {
        self.incident.recovered_at?;
        let rpo = plan?.services().get(&self.incident.service)?.rpo;
        Some(self.data_loss()? <= rpo.as_secs_f64())
    }

    /// What it is in a dimension.
    #[must_use]
    pub fn is(&self, dimension: Dimension, plan: Option<&Plan>) -> String {
        let word = match dimension {
            Dimension::Service | Dimension::Tier | Dimension::Site => {
                return of_service(dimension, &self.incident.service, plan);
            }
            Dimension::Cause => self.incident.cause.as_deref().unwrap_or(self.incident.error_class.as_str()),
            Dimension::Method => self.method.map_or(UNKNOWN, RecoveryMethod::as_str),
            Dimension::Automation if self.incident.recovered_at.is_none() => "open",
            Dimension::Automation if self.automated => "automated",
            Dimension::Automation => "manual",
            Dimension::Drill if self.drill => "drill",
            Dimension::Drill => "real",
            Dimension::Severity => self.incident.severity.as_str(),
        };
        word.to_owned()
    }
}
