//! Procedures, their steps, and the checks that follow a recovery.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Service, ServiceLevel};
use crate::event::CheckCategory;
use crate::ids::{ProbeId, ProcedureId, ServiceId, SiteId, StepId, TierId};
use crate::plan::when::When;

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
