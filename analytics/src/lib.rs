//! Figures: projections of the event log, recovery statistics, SQL.
//!
//! Reading order: [`stats`] defines every figure, [`mttr`] applies them to the incident fold, [`tables`] lists what
//! SQL sees, [`projections`] turns the fold into those tables, `follow` reads what is new in the log, `guard` says
//! what may be asked, [`session`] answers.

mod follow;
mod guard;
pub mod mttr;
pub mod projections;
pub mod session;
pub mod stats;
pub mod tables;
