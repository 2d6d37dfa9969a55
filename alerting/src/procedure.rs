//! What a recovery does next: a procedure unfolded into steps, and a fold over what became of them. Pure.
//!
//! [`unfold`] puts steps in order; [`RunState`] folds the recovery's own events and [`RunState::next`] says what
//! follows. Executing, journalling and waiting are [`crate::runner`]'s.

mod state;
mod unfold;

use rebound_schemas::plan::Action;
use rebound_schemas::{ProcedureId, StepId};

pub use state::{Next, RunState};
pub(crate) use unfold::fill_action;
pub use unfold::{Placeholders, ReadyStep, Script, fill, unfold};

/// What the description of a step that waits for approval begins with.
const ASKS: &str = "wait for approval: ";
/// Longest description of an action that an event carries, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 300;

/// Why a procedure can't be run as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcedureError {
    /// A placeholder that there is no value for.
    #[error(
        "procedure {procedure}, step {step}: {{{name}}} is not a placeholder; there are {{service}}, {{site}}, {{incident}}, {{recovery}}, {{attempt}}, {{reason}}, {{error_class}}, {{first_failure_at}}, {{input.…}} and {{steps.….output}} (write {{{{{name}}}}} for the text itself)"
    )]
    UnknownPlaceholder {
        /// The procedure.
        procedure: ProcedureId,
        /// The step.
        step: StepId,
        /// What stood between the braces.
        name: String,
    },
    /// A step needs one that the procedure does not have.
    #[error("procedure {procedure}, step {step}: it needs {needed}, which is not a step of the procedure")]
    UnknownNeed {
        /// The procedure.
        procedure: ProcedureId,
        /// The step.
        step: StepId,
        /// What it needs.
        needed: StepId,
    },
    /// Steps that need one another.
    #[error("procedure {procedure}: steps need one another: {}", .steps.iter().map(StepId::as_str).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// The procedure.
        procedure: ProcedureId,
        /// The steps that can't be put in an order.
        steps: Vec<StepId>,
    },
    /// A procedure within itself.
    #[error("a procedure is a step of itself: {}", .path.iter().map(ProcedureId::as_str).collect::<Vec<_>>().join(" → "))]
    Nesting {
        /// From the outermost to the repeated one.
        path: Vec<ProcedureId>,
    },
    /// A nested procedure that the plan does not have.
    #[error("step {step}: procedure {procedure} is not in the plan")]
    UnknownProcedure {
        /// The step.
        step: StepId,
        /// The nested procedure.
        procedure: ProcedureId,
    },
    /// More steps than a recovery may have.
    #[error(
        "procedure {procedure} has more than {} steps, nested and repeated ones counted",
        rebound_schemas::plan::MOST_STEPS
    )]
    TooLong {
        /// The outermost procedure.
        procedure: ProcedureId,
    },
    /// Ids so deeply nested that their path is no id any more.
    #[error("procedure {procedure}: the path {path} is too long for a step's id: nest less deeply")]
    LongPath {
        /// The procedure.
        procedure: ProcedureId,
        /// The path.
        path: String,
    },
}

/// An action in words, for `step.started`. Left out, since they may be secret: a command's environment, and a
/// request's headers, body, user, password, query and fragment. A command's arguments are shown: every user of the
/// machine can read those anyway.
#[must_use]
pub fn describe(action: &Action) -> String {
    let text = match action {
        Action::Command { argv, .. } => format!("run {}", argv.join(" ")),
        Action::Http { method, url, .. } => match url::Url::parse(url) {
            Ok(mut url) => {
                url.set_query(None);
                url.set_fragment(None);
                // An address that can't have a user has none to hide.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                format!("{method} {url}")
            }
            Err(_) => format!("{method} an address that is not one"),
        },
        Action::WaitForProbe { probe: Some(probe) } => format!("wait until probe {probe} is healthy"),
        Action::WaitForProbe { probe: None } => "wait until the service's probes are healthy".into(),
        Action::Manual { instruction } => format!("for people: {instruction}"),
        Action::Approve { question } => format!("{ASKS}{question}"),
        Action::Procedure { procedure } => format!("run procedure {procedure}"),
        Action::Ask { worker, .. } => format!("ask {worker} and wait for its answer"),
    };
    shorten(&text, MAX_DESCRIPTION_BYTES)
}

/// What is asked, if an action described like this waits for approval.
pub(crate) fn question(described: &str) -> Option<&str> {
    described.strip_prefix(ASKS)
}

/// The text, cut at a character's border with `…` if it has more than `limit` bytes.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_state;
