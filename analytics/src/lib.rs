//! Figures: projections of the event log, recovery statistics, SQL.
//!
//! Reading order: [`stats`] defines every figure, [`mttr`] applies them to the incident fold.

pub mod mttr;
pub mod stats;
