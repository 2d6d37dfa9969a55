//! Payloads of the recoveries topic about what brings a service back: asking, deciding, running and verifying.
//! Failovers, drills and improvements are in `drills`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::parts::{Asked, CheckResult, EventRef, Stopped, payloads};
use super::words::{ErrorClass, RecoveryMethod, RecoveryOutcome, Restraint, StepOutcome, TriggerMode, WithheldReason};
use crate::ids::{EventId, IncidentId, ProcedureId, RecoveryId, ServiceId, SiteId, StepId, TierId};

payloads! {
    /// A person asks for a recovery of the subject. What becomes of it is decided like any other:
    /// `recovery.triggered` or `recovery.declined` answers it.
    RecoveryRequested {
        /// Who.
        by: String,
        /// Why.
        comment: String,
        /// The procedure to run; the service's own without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        procedure: Option<ProcedureId>,
        /// Values of the procedure's inputs, where they are not its own.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        inputs: BTreeMap<String, String>,
        /// Only tell what would be run.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
        /// What shall not hold it back.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        overrides: Vec<Restraint>,
    }
    /// A recovery that a person asked for is not run.
    RecoveryDeclined {
        /// The id of the `recovery.requested`.
        request: EventId,
        /// Who asked.
        by: String,
        /// Why it is not run.
        reason: String,
        /// What forbids it, where that could be overridden.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restraint: Option<Restraint>,
    }
    /// A recovery that an outage calls for was not triggered, or has not begun though it was: said anew whenever
    /// what stands in the way changes, and at most sixteen times an attempt.
    RecoveryWithheld {
        /// The recovery: its id is known before it is decided on.
        recovery: RecoveryId,
        /// The incident; under `hold` the one that it will be if it lasts.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// Which change of what stands in the way of this attempt, from 1.
        change: u32,
        /// What stands in the way.
        reason: WithheldReason,
        /// Which silence, window, service, recovery, site or person that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// When it ends, where time alone ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// The figures behind it, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The events that it rests on (at most 20).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<EventRef>,
    }
    /// A recovery was decided on.
    RecoveryTriggered {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident it is for.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// The procedure to run.
        procedure: ProcedureId,
        /// How the service is brought back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<RecoveryMethod>,
        /// Whether it runs at once or waits for approval.
        mode: TriggerMode,
        /// t0 of the incident.
        first_failure_at: DateTime<Utc>,
        /// Not before this time (back-off).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<DateTime<Utc>>,
        /// Who asked, where a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// What was seen, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What was seen, coarsely.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// It has to be approved before this time, where it waits for approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approve_until: Option<DateTime<Utc>>,
        /// What a person asked for, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Asked>,
    }
    /// A person approved a recovery, or one step of it that waits for approval. It counts from when it waits for
    /// approval (for a step: from its `step.started`) until `approve_until` or the step's own end, and at no other time.
    RecoveryApproved {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// What they said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
        /// The step that may go on; none: the recovery may begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
    }
    /// A person refused a recovery that waited for approval; it never runs.
    RecoveryRejected {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// Nobody approved a recovery in time; it never runs.
    RecoveryExpired {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// Until when it could be approved.
        approve_until: DateTime<Utc>,
    }
    /// A person called off a recovery. One that had not begun never runs; one that has begins no further step, and
    /// rolls back if its procedure says so.
    RecoveryCancelled {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Kill what runs instead of waiting for its end.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        now: bool,
    }
    /// A person stopped automation: no recovery begins within the scope until it is resumed. Running ones go on.
    RecoveryPaused {
        /// Only services of this site; with nothing named, everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        /// Only this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceId>,
        /// Only services of this tier.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tier: Option<TierId>,
        /// Only recoveries by this procedure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        procedure: Option<ProcedureId>,
        /// It ends by itself at this time; none: when somebody resumes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A person let automation go on: ends the pause of exactly this scope.
    RecoveryResumed {
        /// The paused site.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        /// The paused service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceId>,
        /// The paused tier.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tier: Option<TierId>,
        /// The paused procedure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        procedure: Option<ProcedureId>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A runner claimed a recovery and is about to act. Nothing is executed before this event is durable.
    RecoveryStarted {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The procedure.
        procedure: ProcedureId,
        /// The runner instance that claimed it.
        runner: String,
    }
    /// A step is about to be executed.
    StepStarted {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Its place in the order of execution, from 0.
        index: u32,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// What it does, in words (never with secrets).
        action: String,
    }
    /// A step ended.
    StepFinished {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Its place in the order of execution, from 0.
        index: u32,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// How it ended.
        outcome: StepOutcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The command's exit code or the HTTP status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// What it printed (capped).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// Another automation is asked to do a step's work. Whoever listens for `worker` does it, once for each
    /// recovery, step and attempt, and says how it ended with `step.answered`.
    StepRequested {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// Who is asked: a name that the other side looks for.
        worker: String,
        /// What it is told.
        args: BTreeMap<String, String>,
        /// An answer after this time is too late.
        answer_until: DateTime<Utc>,
    }
    /// Another automation did a step's work, or failed to.
    StepAnswered {
        /// The recovery that asked.
        recovery: RecoveryId,
        /// The step that asked.
        step: StepId,
        /// The attempt that asked.
        attempt: u32,
        /// Whether it did what was asked.
        succeeded: bool,
        /// Who answers.
        by: String,
        /// What came of it (capped).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// The verification after the steps ended.
    RecoveryVerified {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// Whether every check passed within the window.
        passed: bool,
        /// Each check.
        checks: Vec<CheckResult>,
        /// The observations that it rests on (at most 20).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<EventRef>,
    }
    /// A recovery ended.
    RecoveryFinished {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// The procedure.
        procedure: ProcedureId,
        /// How the service was brought back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<RecoveryMethod>,
        /// How it ended.
        outcome: RecoveryOutcome,
        /// From `recovery.started` to now, in milliseconds.
        duration_ms: u64,
        /// Why it did not succeed, coarsely.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// Why it did not succeed, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Automation gave up and asks for people.
    RecoveryEscalated {
        /// The incident.
        incident: IncidentId,
        /// The recovery that failed, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<RecoveryId>,
        /// Recoveries attempted so far.
        attempts: u32,
        /// Why.
        reason: String,
        /// What failed as a whole, where that is why: automation of the incident goes on when less is down again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stopped: Option<Stopped>,
    }
    /// A procedure worked too rarely: its recoveries wait for a person's approval until a person promotes it.
    ProcedureDemoted {
        /// The procedure.
        procedure: ProcedureId,
        /// Verified successes among the attempts that were judged.
        succeeded: u32,
        /// Attempts that were judged: of the last `over`, those made since it was promoted last.
        attempts: u32,
        /// The share of verified successes that it fell below, even if every attempt still to be made succeeded.
        below: f64,
        /// Over so many attempts.
        over: u32,
        /// Attempts that were no verified success, oldest first (the newest 20).
        failed: Vec<RecoveryId>,
        /// The newest attempt.
        newest: RecoveryId,
    }
    /// A person lets a procedure run by itself again; what it did before counts no more.
    ProcedurePromoted {
        /// The procedure.
        procedure: ProcedureId,
        /// Who.
        by: String,
        /// Why.
        comment: String,
    }
}
