//! What stands in the way of a recovery: of triggering it ([`crate::engine`]) or of beginning it ([`crate::queue`]).

use chrono::{DateTime, Utc};
use rebound_schemas::SiteId;
use rebound_schemas::event::{EventRef, WithheldReason};

use crate::pause::Pause;

/// Changes that are said of one attempt, at most: what swings to and fro fills no log.
pub(crate) const MAX_CHANGES: u32 = 16;

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hindrance {
    pub(crate) reason: WithheldReason,
    /// Which silence, window, service, recovery, place or person that is.
    pub(crate) by: Option<String>,
    /// When it ends, where time alone ends it.
    pub(crate) until: Option<DateTime<Utc>>,
    /// The figures behind it, or what a person said, where they are at hand.
    pub(crate) detail: Option<String>,
    /// The event behind it, where it is at hand.
    pub(crate) evidence: Option<EventRef>,
}

impl From<WithheldReason> for Hindrance {
    fn from(reason: WithheldReason) -> Self {
        Self { reason, by: None, until: None, detail: None, evidence: None }
    }
}

impl From<&Pause> for Hindrance {
    fn from(pause: &Pause) -> Self {
        Self {
            by: Some(pause.by.clone()),
            until: pause.until,
            detail: Some(pause.reason.clone()),
            evidence: Some(pause.said.clone()),
            ..WithheldReason::Paused.into()
        }
    }
}

/// What a limit is of, in words: a site, or everything.
pub(crate) fn place(site: Option<&SiteId>) -> String {
    site.map_or_else(|| "everything".to_owned(), |site| format!("site {site}"))
}
