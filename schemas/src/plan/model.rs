//! The validated plan's types. Durations are `std::time::Duration`; the TOML writes them as `"10s"`, `"2h"`.
//! How they are written and their defaults are in `read`, what must hold between them in `relations`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::{Condition, DegradedAs};
use super::limits::Limits;
use super::protect::{Group, Maintenance};
use super::rate::Rate;
use super::template::Templates;
use super::when::When;
use crate::event::{BackupKind, CheckCategory, Outcome, RecoveryMethod, Severity, TriggerMode};
use crate::ids::{ChannelId, DrillId, PlanVersion, PolicyId, ProbeId, ProcedureId, ServiceId, SiteId, StepId, TierId};

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

/// A probe of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Its id.
    pub id: ProbeId,
    /// The service that it tells about.
    pub service: ServiceId,
    /// The site it looks from.
    pub site: Option<SiteId>,
    /// From one start to the next.
    pub every: Duration,
    /// When it fails for want of an answer; at most `every`.
    pub timeout: Duration,
    /// Slower than this is degraded.
    pub degraded_above: Option<Duration>,
    /// What it does.
    pub check: Check,
}

/// What a probe does. Semantics are those of blackbox_exporter where the two overlap.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// An HTTP request.
    Http(HttpCheck),
    /// A TCP connection with an optional dialogue.
    Tcp(TcpCheck),
    /// A TLS handshake and the certificate's remaining life.
    Tls(TlsCheck),
    /// A DNS question.
    Dns(DnsCheck),
    /// The gRPC health protocol.
    Grpc(GrpcCheck),
    /// A program's exit code.
    Command(CommandCheck),
}

impl Check {
    /// The kind as the plan writes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Dns(_) => "dns",
            Self::Grpc(_) => "grpc",
            Self::Command(_) => "command",
        }
    }
}

/// An HTTP request and what its answer must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// `http://` or `https://`.
    pub url: url::Url,
    /// GET by default.
    pub method: String,
    /// Sent as they are.
    pub headers: BTreeMap<String, String>,
    /// Sent body.
    pub body: Option<String>,
    /// Statuses that pass; empty means 200 to 299.
    pub status: Vec<u16>,
    /// Followed (at most 10) or judged as they are.
    pub follow_redirects: bool,
    /// The body must match every one of these regular expressions.
    pub body_matches: Vec<String>,
    /// The body must match none of these.
    pub body_not_matches: Vec<String>,
    /// These headers must be there and match.
    pub header_matches: BTreeMap<String, String>,
    /// Degraded when the certificate expires within this.
    pub expiry_warning: Option<Duration>,
    /// PEM file of the authorities to trust besides the system's.
    pub ca_file: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A TCP connection and a dialogue over it.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpCheck {
    /// `host:port`.
    pub address: String,
    /// Exchanged in turn.
    pub dialogue: Vec<Exchange>,
}

/// One turn of a TCP dialogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Sent first, as written (no line end is added).
    pub send: Option<String>,
    /// Then a line must match this regular expression.
    pub expect: Option<String>,
}

/// A TLS handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsCheck {
    /// `host:port`.
    pub address: String,
    /// The name asked for (SNI) and verified; the address's host by default.
    pub server_name: Option<String>,
    /// Degraded when the certificate expires within this.
    pub expiry_warning: Option<Duration>,
    /// PEM file of the authorities to trust besides the system's.
    pub ca_file: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A DNS question.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsCheck {
    /// The name asked for.
    pub name: String,
    /// `A`, `AAAA`, `CNAME`, `MX`, `NS`, `SOA`, `SRV`, `TXT`, `PTR`.
    pub record: String,
    /// The server asked, as `host:port`.
    pub server: String,
    /// The answer codes that pass; `NOERROR` by default.
    pub rcode: Vec<String>,
    /// At least one answer must match each of these regular expressions.
    pub answers_match: Vec<String>,
}

/// The gRPC health protocol (`grpc.health.v1.Health/Check`).
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcCheck {
    /// `http://host:port` or `https://host:port`.
    pub url: url::Url,
    /// The service asked about; empty for the server as a whole.
    pub service: String,
}

/// A program's exit code: 0 healthy, 1 degraded, anything else failed, unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandCheck {
    /// The program (an absolute path from the plan's `allow` list) and its arguments; no shell.
    pub argv: Vec<String>,
    /// What exit codes mean; any that isn't listed means failed.
    pub exit_codes: BTreeMap<i32, Outcome>,
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

/// Where notifications go. Secrets are named, not written: a file or an environment variable holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// What it is.
    pub kind: ChannelKind,
    /// Per attempt.
    pub timeout: Duration,
    /// Attempts at most, with doubling back-off between them.
    pub attempts: u32,
    /// Messages that it takes; no limit without it.
    pub rate: Option<Rate>,
    /// Its own words.
    pub templates: Templates,
}

/// What a channel is.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelKind {
    /// JSON by POST, signed with HMAC-SHA-256 in `X-Rebound-Signature` when there is a secret.
    Webhook {
        /// Where.
        url: SecretRef,
        /// The signing key.
        secret: Option<SecretRef>,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A Slack-compatible incoming webhook.
    Slack {
        /// Where: the address is itself the secret.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A Microsoft Teams workflow ("When a Teams webhook request is received"), told by an Adaptive Card.
    Teams {
        /// Where: the address is itself the secret.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// PagerDuty, by its Events API v2.
    PagerDuty {
        /// The integration's routing key.
        key: SecretRef,
        /// Where: PagerDuty itself unless the plan says otherwise.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// Opsgenie, by its Alert API.
    Opsgenie {
        /// The integration's API key.
        key: SecretRef,
        /// Where: Opsgenie itself (US) unless the plan says otherwise.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// An Alertmanager, by its API v2.
    Alertmanager {
        /// Where: its root, as in `http://alertmanager:9093`.
        url: SecretRef,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// A program from the plan's `allow` list, that reads the notice as JSON from its standard input.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// A record on a Kafka topic.
    Kafka {
        /// The topic.
        topic: String,
        /// `host:port`, separated by commas; the pipeline's own without it.
        brokers: Option<String>,
        /// librdkafka's settings, over the pipeline's where it has no brokers of its own.
        properties: BTreeMap<String, SecretRef>,
    },
    /// A mail by SMTP.
    Email {
        /// `host:port` of the relay.
        server: String,
        /// How the connection is protected.
        tls: MailTls,
        /// PEM file of authorities that are trusted besides the public ones.
        ca_file: Option<String>,
        /// Sender.
        from: String,
        /// Receivers.
        to: Vec<String>,
        /// User name.
        user: Option<String>,
        /// Password.
        password: Option<SecretRef>,
    },
    /// A line in Rebound's own log.
    Log,
}

impl ChannelKind {
    /// The kind as the plan writes it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Teams { .. } => "teams",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Opsgenie { .. } => "opsgenie",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Command { .. } => "command",
            Self::Kafka { .. } => "kafka",
            Self::Email { .. } => "email",
            Self::Log => "log",
        }
    }

    /// Whether the receiver keeps an alert of its own, which is opened, acknowledged and closed.
    #[must_use]
    pub fn keeps_alerts(&self) -> bool {
        matches!(self, Self::PagerDuty { .. } | Self::Opsgenie { .. } | Self::Alertmanager { .. })
    }
}

/// Whether a setting of librdkafka's holds a secret, by its name. Locations of keys may be shown.
#[must_use]
pub fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !key.ends_with(".location")
        && ["password", "secret", "key", "token", "jaas", "credential", "sasl.oauthbearer.config"]
            .iter()
            .any(|word| key.contains(word))
}

/// How an SMTP connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS, required.
    StartTls,
    /// None: only for a relay on loopback.
    None,
}

/// Where a text that may be secret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In the plan itself: only for what is not secret.
    Plain(String),
    /// In this environment variable.
    Env(String),
    /// In this file, whose trailing line end is dropped.
    File(String),
}

/// How a service, a site or a data set is brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Procedure {
    /// Its id.
    pub id: ProcedureId,
    /// What it is called.
    pub name: String,
    /// Steps in an order that respects `needs` (equal ones in the order written).
    pub steps: Vec<Step>,
    /// What undoes steps: each names the one that it undoes. Run backwards when a step fails that rolls back.
    pub rollback: Vec<Step>,
    /// Recoveries by this procedure at the same time, at most.
    pub concurrency: u32,
    /// Steps of one recovery at the same time, at most; 1: one after the other.
    pub parallel: u32,
    /// The move between sites that it makes, where it is one.
    pub failover: Option<Failover>,
    /// What may be handed to it, `{input.name}` in its texts, with the value that it has when nobody hands one.
    pub inputs: BTreeMap<String, String>,
    /// What is done about the steps that succeeded when a person stops it.
    pub on_cancel: OnCancel,
    /// When it may no longer run by itself; none: never.
    pub demotion: Option<Demotion>,
}

/// When a procedure works too rarely to run by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demotion {
    /// With a smaller share of verified successes than this…
    pub below: f64,
    /// …among so many of its last attempts.
    pub over: u32,
}

/// A move of the load between sites, and what must hold before it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Failover {
    /// From here; where the service runs when absent.
    pub from: Option<SiteId>,
    /// To here.
    pub to: SiteId,
    /// It moves back what an earlier failover moved away.
    pub back: bool,
    /// So many sites must be healthy, the left one not counted, or nothing is begun.
    pub healthy_sites_at_least: u32,
}

/// What is done about the steps that succeeded when a person stops a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCancel {
    /// They stay as they are.
    #[default]
    Stop,
    /// They are undone, the last one first.
    RollBack,
}

/// One step of a procedure.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its id, unique within the procedure.
    pub id: StepId,
    /// What it is for.
    pub name: String,
    /// Steps that must have succeeded (or were passed over by their own condition).
    pub needs: Vec<StepId>,
    /// Steps that must have ended, however.
    pub after: Vec<StepId>,
    /// Its condition: when it does not hold, the step is passed over.
    pub when: Option<When>,
    /// Repeats it for each of these services, as steps of their own: `{each}` names the service.
    pub each: Option<Each>,
    /// What it does.
    pub action: Action,
    /// Per attempt.
    pub timeout: Duration,
    /// Further attempts after a failed one.
    pub retries: u32,
    /// Wait before the second attempt; doubles up to `backoff_max`.
    pub backoff: Duration,
    /// See `backoff`.
    pub backoff_max: Duration,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// The step that it undoes: it is run only to roll back, if that step succeeded.
    pub undoes: Option<StepId>,
}

/// Services that a step is repeated for, in the plan's start order: each after those that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Each {
    /// Which.
    pub services: EachOf,
    /// Backwards, as services are stopped: each after those that depend on it.
    pub backwards: bool,
}

/// Which services a step is repeated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EachOf {
    /// Every service of the plan.
    All,
    /// What the recovered service needs, directly and indirectly.
    Dependencies,
    /// What needs the recovered service, directly and indirectly.
    Dependants,
}

/// What a step does. `{service}`, `{steps.find.output}` and the like in texts are replaced when it begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A program from the plan's `allow` list with its arguments; no shell, cleared environment.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Exactly these variables are set.
        env: BTreeMap<String, String>,
    },
    /// An HTTP request; 2xx succeeds.
    Http {
        /// POST by default.
        method: String,
        /// Where.
        url: String,
        /// Sent headers.
        headers: BTreeMap<String, String>,
        /// Sent body.
        body: Option<String>,
        /// Private and loopback addresses are refused unless this is set.
        allow_private: bool,
    },
    /// Waits until a probe is healthy.
    WaitForProbe {
        /// Which; the service's own probes when absent.
        probe: Option<ProbeId>,
    },
    /// For the record: a person does it, and the step says what.
    Manual {
        /// What to do.
        instruction: String,
    },
    /// Waits until a person approves (`recovery.approved` with the step's name).
    Approve {
        /// What is to be approved.
        question: String,
    },
    /// The steps of another procedure, whose ids are then `this-step/that-step`.
    Procedure {
        /// Which.
        procedure: ProcedureId,
    },
    /// Asks another automation to do the work (`step.requested`), and waits for its answer (`step.answered`).
    Ask {
        /// Who: a name that the other side looks for.
        worker: String,
        /// What it is told.
        args: BTreeMap<String, String>,
    },
}

/// What a failed step means for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The recovery failed; later steps are skipped.
    Stop,
    /// Steps that don't need this one go on; the recovery may still succeed.
    Continue,
    /// As stop; then the succeeded steps are undone, the last one first.
    RollBack,
    /// As stop; and people are asked at once, without further attempts by automation.
    Escalate,
}

/// Checks that follow a recovery, besides the service's own probes. All must pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// Its name.
    pub id: String,
    /// What it is about.
    pub category: CheckCategory,
    /// After recoveries of these services; see [`Validation::applies_to`].
    pub services: Vec<ServiceId>,
    /// After recoveries of services of these tiers.
    pub tiers: Vec<TierId>,
    /// After recoveries by these procedures.
    pub procedures: Vec<ProcedureId>,
    /// What is looked at.
    pub check: ValidationCheck,
    /// Per attempt; for a service level: how long a measurement is waited for.
    pub timeout: Duration,
    /// Further attempts after a failed one.
    pub retries: u32,
}

impl Validation {
    /// Whether it follows a recovery of this service by this procedure: any of its lists names it, or all are empty.
    #[must_use]
    pub fn applies_to(&self, service: &Service, procedure: &ProcedureId) -> bool {
        (self.services.is_empty() && self.tiers.is_empty() && self.procedures.is_empty())
            || self.services.contains(&service.id)
            || self.tiers.contains(&service.tier)
            || self.procedures.contains(procedure)
    }
}

/// What a validation looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidationCheck {
    /// A command or an HTTP request: it must succeed.
    Act(Action),
    /// The first `service_level.measured` of the service after the recovery must keep these thresholds.
    ServiceLevel(ServiceLevel),
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
