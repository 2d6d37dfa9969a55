//! The validated plan's types, by its sections. Durations are `std::time::Duration`; the TOML writes them as `"10s"`,
//! `"2h"`. How they are written and their defaults are in `read`, what must hold between them in `relations`.

mod channel;
mod probe;
mod procedure;

use std::collections::BTreeMap;
use std::time::Duration;

pub use channel::*;
pub use probe::*;
pub use procedure::*;

use super::condition::{Condition, DegradedAs};
use super::limits::Limits;
use super::protect::{Group, Maintenance};
use crate::event::{BackupKind, RecoveryMethod, Severity, TriggerMode};
use crate::ids::{ChannelId, DrillId, PlanVersion, PolicyId, ProbeId, ProcedureId, ServiceId, SiteId, TierId};

/// A plan that holds together. Every map is keyed by the id that its value carries too, in id order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) version: PlanVersion,
    pub(super) name: String,
    pub(super) sites: BTreeMap<SiteId, Site>,
    pub(super) tiers: BTreeMap<TierId, Tier>,
    pub(super) services: BTreeMap<ServiceId, Service>,
    pub(super) probes: BTreeMap<ProbeId, Probe>,
    pub(super) policies: BTreeMap<PolicyId, Policy>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    pub(super) routes: Vec<super::route::Route>,
    pub(super) procedures: BTreeMap<ProcedureId, Procedure>,
    pub(super) backups: BTreeMap<String, Backup>,
    pub(super) service_levels: BTreeMap<String, ServiceLevel>,
    pub(super) validations: BTreeMap<String, Validation>,
    pub(super) drills: BTreeMap<DrillId, Drill>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) maintenance: BTreeMap<String, Maintenance>,
    pub(super) limits: Limits,
    pub(super) start_order: Vec<ServiceId>,
    pub(super) allow: Vec<String>,
    /// Which probes and dependants a service has, so that asking for them doesn't walk a plan of ten thousand.
    pub(super) probes_of: BTreeMap<ServiceId, Vec<ProbeId>>,
    pub(super) dependants_of: BTreeMap<ServiceId, Vec<ServiceId>>,
}

impl Plan {
    /// Content hash of the plan's text.
    #[must_use]
    pub fn version(&self) -> &PlanVersion {
        &self.version
    }
    /// What the plan is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Places where services run.
    #[must_use]
    pub fn sites(&self) -> &BTreeMap<SiteId, Site> {
        &self.sites
    }
    /// Tiers of recovery priority.
    #[must_use]
    pub fn tiers(&self) -> &BTreeMap<TierId, Tier> {
        &self.tiers
    }
    /// Protected services.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceId, Service> {
        &self.services
    }
    /// Probes of all services.
    #[must_use]
    pub fn probes(&self) -> &BTreeMap<ProbeId, Probe> {
        &self.probes
    }
    /// Alerting policies.
    #[must_use]
    pub fn policies(&self) -> &BTreeMap<PolicyId, Policy> {
        &self.policies
    }
    /// Notification channels.
    #[must_use]
    pub fn channels(&self) -> &BTreeMap<ChannelId, Channel> {
        &self.channels
    }
    /// Recovery procedures.
    #[must_use]
    pub fn procedures(&self) -> &BTreeMap<ProcedureId, Procedure> {
        &self.procedures
    }
    /// Backup schedules, by name.
    #[must_use]
    pub fn backups(&self) -> &BTreeMap<String, Backup> {
        &self.backups
    }
    /// Service-level thresholds, by name.
    #[must_use]
    pub fn service_levels(&self) -> &BTreeMap<String, ServiceLevel> {
        &self.service_levels
    }
    /// Checks that follow recoveries, by name.
    #[must_use]
    pub fn validations(&self) -> &BTreeMap<String, Validation> {
        &self.validations
    }
    /// Recovery drills.
    #[must_use]
    pub fn drills(&self) -> &BTreeMap<DrillId, Drill> {
        &self.drills
    }
    /// Redundancy groups, by name.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<String, Group> {
        &self.groups
    }
    /// Planned maintenance windows, by name.
    #[must_use]
    pub fn maintenance(&self) -> &BTreeMap<String, Maintenance> {
        &self.maintenance
    }
    /// The order in which services are started from nothing: dependencies before dependants.
    #[must_use]
    pub fn start_order(&self) -> &[ServiceId] {
        &self.start_order
    }
    /// Absolute paths of programs that probes and procedures may run.
    #[must_use]
    pub fn allow(&self) -> &[String] {
        &self.allow
    }
    /// The policy of a service: its own, else the plan's policy `default`.
    #[must_use]
    pub fn policy_of(&self, service: &ServiceId) -> Option<&Policy> {
        self.policies.get(&self.services.get(service)?.policy)
    }
    /// The probes of a service, in id order.
    pub fn probes_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Probe> + 'a {
        self.probes_of.get(service).into_iter().flatten().filter_map(|id| self.probes.get(id))
    }
    /// Services that name this one among their dependencies, in id order.
    pub fn dependants_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Service> + 'a {
        self.dependants_of.get(service).into_iter().flatten().filter_map(|id| self.services.get(id))
    }
}

/// A place where services run and probes look from.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// What it is for.
    pub purpose: String,
    /// How long until it can take over.
    pub recovery_time: Duration,
    /// Share of the normal load that it can carry: 1.0 is all of it.
    pub capacity: f64,
    /// What moves the load here.
    pub failover: Option<ProcedureId>,
    /// What moves it back.
    pub failback: Option<ProcedureId>,
}

/// A tier of recovery priority.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// Its id.
    pub id: TierId,
    /// What it is called.
    pub name: String,
    /// How loudly its services' alerts ask for somebody, unless a policy says otherwise.
    pub severity: Severity,
}

/// A protected service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its id: the `subject` of its events.
    pub id: ServiceId,
    /// What it is called.
    pub name: String,
    /// Its tier.
    pub tier: TierId,
    /// Where it runs.
    pub site: SiteId,
    /// What it needs to work: when one of these has failed, this service's alerts are suppressed.
    pub depends_on: Vec<ServiceId>,
    /// Redundancy groups that it needs: when one has failed as a group, its alerts are suppressed.
    pub depends_on_groups: Vec<String>,
    /// Recovery time objective: t3 − t0 at most.
    pub rto: Duration,
    /// Recovery point objective: data lost at most.
    pub rpo: Duration,
    /// How it is brought back.
    pub method: RecoveryMethod,
    /// Its policy.
    pub policy: PolicyId,
    /// What brings it back; none: people do.
    pub procedure: Option<ProcedureId>,
}

/// When failures become an alert, and what happens then.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// Failed observations (in a row, or among the last `of`) that make a service HARD.
    pub failures: u32,
    /// M-of-N: `failures` among the last `of` observations.
    pub of: Option<u32>,
    /// Successes in a row that resolve it.
    pub recoveries: u32,
    /// Sites that must agree that it failed; 1 when probes look from one place.
    pub sites: u32,
    /// Without any observation for this long, a service is unobserved.
    pub silent_after: Duration,
    /// It must have failed for this long before an incident opens (Prometheus' `for`).
    pub hold: Duration,
    /// It must have been well for this long before an incident resolves (`keep_firing_for`); t3 stays what it is.
    pub keep_firing: Duration,
    /// What degraded observations mean.
    pub degraded: DegradedAs,
    /// What else is judged.
    pub conditions: Vec<Condition>,
    /// A firing alert is told again after this; none: once only.
    pub repeat: Option<Duration>,
    /// How loudly; the service's tier decides when absent.
    pub severity: Option<Severity>,
    /// Channels that are told.
    pub notify: Vec<ChannelId>,
    /// Whether and how recoveries are triggered.
    pub trigger: TriggerMode,
    /// A recovery that waits for approval is called off and escalated after this.
    pub approve_within: Duration,
    /// Recoveries at most within `intensity_period`, then stop and escalate.
    pub intensity: u32,
    /// See `intensity`.
    pub intensity_period: Duration,
    /// Wait before the second recovery of an incident; doubles up to `backoff_max`.
    pub backoff: Duration,
    /// See `backoff`.
    pub backoff_max: Duration,
    /// Healthy this long, and back-off starts anew.
    pub backoff_reset: Duration,
    /// The service's own probes must pass within this after the steps.
    pub verify_within: Duration,
}

/// A backup schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// Its name.
    pub id: String,
    /// The service whose data it holds.
    pub service: ServiceId,
    /// What kind.
    pub kind: BackupKind,
    /// From one run to the next.
    pub every: Duration,
    /// How long a backup is kept.
    pub retention: Duration,
    /// From one verification to the next.
    pub verify_every: Duration,
    /// What restores from it.
    pub restore: Option<ProcedureId>,
}

/// Service-level thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceLevel {
    /// Its name.
    pub id: String,
    /// The services it holds for; empty means all.
    pub services: Vec<ServiceId>,
    /// At most.
    pub response_time: Option<Duration>,
    /// Requests a second, at least.
    pub throughput_per_second: Option<f64>,
    /// Share of failed requests, at most.
    pub error_rate: Option<f64>,
    /// Share of good time, at least.
    pub availability: Option<f64>,
}

/// A recovery drill and its objectives.
#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    /// Its id.
    pub id: DrillId,
    /// What it is called.
    pub name: String,
    /// What is broken.
    pub scenario: String,
    /// The services that are broken; empty means all.
    pub services: Vec<ServiceId>,
    /// Detected within this.
    pub detect_within: Duration,
    /// Recovered within this.
    pub recover_within: Duration,
    /// Share of data that must be intact afterwards, 0 to 1.
    pub integrity: Option<f64>,
    /// Whether data may be lost.
    pub data_loss_allowed: bool,
    /// Whether services outside `services` may be hit.
    pub impact_on_others_allowed: bool,
}
