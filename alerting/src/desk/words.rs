//! What a person can say about recoveries, and how it is refused.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::Restraint;
use rebound_schemas::{ProcedureId, RecoveryId, ServiceId, StepId};

use crate::pause::Scope;

/// What is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// A service or a procedure, whichever has that name.
    pub name: Option<String>,
    /// The service.
    pub service: Option<ServiceId>,
    /// The procedure; the service's own without it.
    pub procedure: Option<ProcedureId>,
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Run this.
    Run {
        /// What.
        target: Target,
        /// Values of the procedure's inputs.
        inputs: BTreeMap<String, String>,
        /// Only tell what would be run.
        dry_run: bool,
        /// What shall not hold it back.
        overrides: Vec<Restraint>,
    },
    /// Let it begin, or let a step go on.
    Approve {
        /// The recovery.
        recovery: RecoveryId,
        /// The step; none: the recovery as a whole.
        step: Option<StepId>,
    },
    /// It waits for approval, and never runs.
    Reject {
        /// The recovery.
        recovery: RecoveryId,
    },
    /// It does not begin, or ends after its step.
    Cancel {
        /// The recovery.
        recovery: RecoveryId,
        /// Kill what runs.
        now: bool,
    },
    /// Nothing begins within the scope.
    Pause {
        /// What.
        scope: Scope,
        /// It ends by itself.
        until: Option<DateTime<Utc>>,
    },
    /// Ends the pause of exactly this scope.
    Resume {
        /// What.
        scope: Scope,
    },
    /// A demoted procedure may run by itself again.
    Promote {
        /// Which.
        procedure: ProcedureId,
    },
}

/// A word with who says it and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub word: Word,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: Option<String>,
    /// What makes saying it again the same word.
    pub key: Option<Key>,
}

/// A key under which the same may be said again without being done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is: another's key is another key.
    pub owner: String,
    /// The key.
    pub key: String,
    /// What is asked with it, letter by letter: a key is for one word.
    pub asked: String,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such thing.
    NotFound,
    /// It makes no sense as things are.
    Conflict,
    /// It makes no sense at all.
    Invalid,
}

/// Why a word is not taken, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}: {remedy}")]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// What is wrong.
    pub detail: String,
    /// What to do instead.
    pub remedy: String,
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), remedy: remedy.into() }
    }

    pub(super) fn conflict(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, detail, remedy)
    }

    pub(super) fn invalid(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, detail, remedy)
    }

    pub(super) fn unknown(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, detail, remedy)
    }
}
