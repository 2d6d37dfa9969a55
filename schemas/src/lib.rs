//! Rebound's vocabulary, shared by every other crate and pure: no clock, no I/O, no async runtime.
//!
//! Reading order: [`ids`] names things, [`event`] says what can happen, [`codec`] turns it into CloudEvents
//! JSON and back, [`plan`] says what is protected and how, [`incident`] folds events into incidents and
//! recoveries, [`table`] is the event log's Arrow schema, [`json_schema`] the committed JSON Schemas.

pub mod codec;
pub mod event;
pub mod ids;
pub mod incident;
pub mod json_schema;
pub mod plan;
pub mod table;

pub use codec::{DecodeError, decode, encode};
pub use event::{Event, EventData, Kind, Topic};
pub use ids::{
    AlertId, ChannelId, DrillId, EventId, IncidentId, PlanVersion, PolicyId, ProbeId, ProcedureId, RecoveryId,
    ServiceId, SiteId, Source, StepId, TierId,
};
