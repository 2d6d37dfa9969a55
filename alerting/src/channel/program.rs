//! A program as a channel: it reads the notice as JSON (the webhook's body) from standard input, and has taken it when
//! it exits with 0. It runs as a procedure's programs do: no shell, an empty environment, an end, a cap on its output.

use std::collections::BTreeMap;
use std::time::Duration;

use rebound_schemas::event::StepOutcome;
use tokio_util::sync::CancellationToken;

use super::request::rebound_body;
use super::words::Speech;
use super::{Retry, SendError};
use crate::action::{Limits, run_command_with};
use crate::notify::Notice;

/// Between asking a program to end and ending it.
const GRACE: Duration = Duration::from_secs(1);

/// A program with its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    argv: Vec<String>,
    timeout: Duration,
}

impl Program {
    /// `argv[0]` is on the plan's `allow` list: a plan that says otherwise can't be read.
    pub(crate) fn new(argv: Vec<String>, timeout: Duration) -> Self {
        Self { argv, timeout }
    }

    pub(crate) async fn send(&self, notice: &Notice, speech: &Speech) -> Result<(), SendError> {
        let cancel = CancellationToken::new();
        let limits = Limits { timeout: self.timeout, grace: GRACE, cancel: &cancel };
        let input = rebound_body(notice, &speech.words(notice)).to_string().into_bytes();
        let allow = self.argv.get(..1).unwrap_or_default();
        let result = run_command_with(&self.argv, &BTreeMap::new(), allow, Some(input), limits).await;
        if result.outcome == StepOutcome::Succeeded {
            return Ok(());
        }
        let said = result.output.map(|output| format!(": {}", output.trim())).unwrap_or_default();
        let message = format!("{}{said}", result.error.unwrap_or_default());
        Err(SendError { message, retry: Retry::Usual })
    }
}
