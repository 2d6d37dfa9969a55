//! What payloads are made of: the form that all have, and the things that they hold.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Event;
use super::words::{CheckCategory, MatchOn, RecoveryStage, Restraint, Transition};
use crate::ids::{AlertId, EventId, IncidentId, ProcedureId, RecoveryId, SiteId, Source};

/// Payloads: every struct is an object that refuses unknown members, so that a typing error is seen at once.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
    )*};
}
pub(super) use payloads;

/// Something that failed as a whole: more of its services are down at once than the plan takes for failures of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// The site; none: everything that the plan protects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Services that are down.
    pub down: u32,
    /// Of so many.
    pub of: u32,
    /// So many may be down without stopping.
    pub most: u32,
    /// Open incidents that show it (at most 20).
    pub incidents: Vec<IncidentId>,
}

/// Points at another event, as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRef {
    /// The event's source.
    pub source: Source,
    /// The event's id within it.
    pub id: EventId,
}

impl From<&Event> for EventRef {
    fn from(event: &Event) -> Self {
        Self { source: event.source.clone(), id: event.id.clone() }
    }
}

/// One result of a check made while verifying a recovery or validating a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// Which check.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it is about; none in events from before there were categories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<CheckCategory>,
}

/// What a person asked for when asking for a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The id of the `recovery.requested`.
    pub request: EventId,
    /// Why.
    pub comment: String,
    /// Values of the procedure's inputs, where they are not its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// What shall not hold it back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Restraint>,
}

/// One thing that must hold of an alert for a silence to cover it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// What is looked at.
    pub on: MatchOn,
    /// What it must be.
    pub value: String,
    /// `value` is a regular expression over the whole of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

/// One transition of an alert that a message tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The alert.
    pub alert: AlertId,
    /// The incident that it belongs to.
    pub incident: IncidentId,
    /// Which transition.
    pub transition: Transition,
    /// Which repeat or which step of the escalation, from 1; 0 for what happens once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeat: u32,
}

/// How far the newest recovery of an incident was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The incident.
    pub incident: IncidentId,
    /// The recovery.
    pub recovery: RecoveryId,
    /// Its procedure.
    pub procedure: ProcedureId,
    /// Which attempt at the incident, from 1.
    pub attempt: u32,
    /// How far it was.
    pub stage: RecoveryStage,
    /// Not before this time (back-off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
}

/// For serde: members that are left out when they say nothing.
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}
