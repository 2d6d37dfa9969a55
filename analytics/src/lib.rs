//! Figures: projections of the event log, recovery statistics, SQL.
//!
//! Reading order: [`stats`] defines every figure, with [`survival`] for what still waits, [`series`] for what changes
//! and [`comparison`] for what differs; [`mttr`] applies them to the incident fold, [`tables`] lists what
//! SQL sees, [`projections`] turns the fold into those tables, `follow` reads what is new in the log, `guard` says
//! what may be asked, [`session`] answers, [`output`] writes the answer. [`trend`] is the fold over time, by way of
//! [`frame`], the crossing to Polars.

pub mod comparison;
#[cfg(test)]
mod fixture;
mod follow;
pub mod frame;
mod guard;
pub mod mttr;
pub mod output;
pub mod projections;
pub mod series;
pub mod session;
pub mod stats;
pub mod survival;
pub mod tables;
pub mod trend;
