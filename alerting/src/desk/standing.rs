//! What is told of recoveries, requests, pauses and procedures: as people read it, and as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{RecoveryOutcome, Restraint, StepOutcome};
use rebound_schemas::{EventId, IncidentId, ProcedureId, RecoveryId, ServiceId, SiteId, StepId, TierId};
use serde::Serialize;

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StandingState {
    /// An outage calls for it, and something stands in the way of triggering it.
    Withheld,
    /// It begins when a person approves.
    AwaitingApproval,
    /// A pause covers it.
    Paused,
    /// It begins when its turn comes.
    Queued,
    /// It runs, and a step of it waits for a person.
    AwaitingStep,
    /// It runs.
    Running,
    /// A person called it off, and it is coming to its end.
    Stopping,
    /// It ended.
    Finished,
}

impl StandingState {
    /// Every state, as far as from not begun to ended.
    pub const ALL: [Self; 8] = [
        Self::Withheld,
        Self::AwaitingApproval,
        Self::Paused,
        Self::Queued,
        Self::AwaitingStep,
        Self::Running,
        Self::Stopping,
        Self::Finished,
    ];

    /// The state as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Paused => "paused",
            Self::Queued => "queued",
            Self::AwaitingStep => "awaiting_step",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// A step that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// The step.
    pub step: StepId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// What is asked.
    pub question: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// One recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The recovery.
    pub recovery: RecoveryId,
    /// The service.
    pub service: ServiceId,
    /// The incident that it is for; none if nothing was wrong.
    pub incident: Option<IncidentId>,
    /// Which attempt at the incident, from 1.
    pub attempt: u32,
    /// The procedure.
    pub procedure: Option<ProcedureId>,
    /// How far it is.
    pub state: StandingState,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// Whether it is told only and not done.
    pub dry_run: bool,
    /// When it was decided on; none while something stands in the way of that.
    pub triggered_at: Option<DateTime<Utc>>,
    /// Since when something stands in the way of triggering it.
    pub withheld_at: Option<DateTime<Utc>>,
    /// Who asked for it; none: automation.
    pub by: Option<String>,
    /// Why: what was seen, or what whoever asked said.
    pub reason: Option<String>,
    /// Until when it can be approved.
    pub approve_until: Option<DateTime<Utc>>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When a runner began.
    pub started_at: Option<DateTime<Utc>>,
    /// Steps that wait for a person.
    pub gates: Vec<Gate>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Option<RecoveryOutcome>,
    /// Why it ended so, where it did not succeed.
    pub outcome_reason: Option<String>,
}

/// One attempt at one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepLine {
    /// The step.
    pub step: StepId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// What it does; empty where it was passed over before it was known.
    pub action: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Option<StepOutcome>,
    /// What it printed.
    pub output: Option<String>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// What a person said of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WordLine {
    /// The event.
    pub event: EventId,
    /// `approved`, `rejected` or `cancelled`.
    pub word: &'static str,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: Option<String>,
    /// Of which step.
    pub step: Option<StepId>,
    /// When.
    pub at: DateTime<Utc>,
}

/// One recovery with what was done and said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
    /// What shall not hold it back.
    pub overrides: Vec<Restraint>,
    /// What was handed to its procedure.
    pub inputs: BTreeMap<String, String>,
    /// Which runner.
    pub runner: Option<String>,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepLine>,
    /// What people said.
    pub words: Vec<WordLine>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answered {
    /// It became a recovery.
    Triggered {
        /// Which.
        recovery: RecoveryId,
    },
    /// It is not run.
    Declined {
        /// Why.
        reason: String,
        /// What forbids it, where that could be overridden.
        restraint: Option<Restraint>,
    },
}

/// A request that was not answered with a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestStanding {
    /// The request.
    pub request: EventId,
    /// The service.
    pub service: ServiceId,
    /// Who asked.
    pub by: String,
    /// Why.
    pub comment: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why it was declined; none while nobody has decided.
    pub declined: Option<String>,
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseStanding {
    /// What it covers, in words.
    pub covers: String,
    /// Only services of this site.
    pub site: Option<SiteId>,
    /// Only this service.
    pub service: Option<ServiceId>,
    /// Only services of this tier.
    pub tier: Option<TierId>,
    /// Only recoveries by this procedure.
    pub procedure: Option<ProcedureId>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// It ends by itself at this time.
    pub until: Option<DateTime<Utc>>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The event that says so.
    pub event: EventId,
}

/// A procedure whose recoveries wait for a person, whatever their policies say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Demoted {
    /// Which.
    pub procedure: ProcedureId,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Verified successes among the attempts.
    pub succeeded: u32,
    /// Attempts that were judged.
    pub attempts: u32,
    /// The share that it fell below.
    pub below: f64,
    /// Over so many attempts.
    pub over: u32,
    /// Attempts that were no success, oldest first.
    pub failed: Vec<RecoveryId>,
}
