//! Figures: projections of the event log, recovery statistics, SQL.
//!
//! Reading order: [`stats`] defines every figure, [`mttr`] applies them to the incident fold, [`tables`] lists what
//! SQL sees, [`projections`] turns the fold into those tables, `follow` reads what is new in the log, `guard` says
//! what may be asked, [`session`] answers, [`recall`] reads single events back, [`output`] writes the answer. [`trend`] is the fold over time, by way of
//! [`frame`], the crossing to Polars.

#[cfg(test)]
mod fixture;
mod follow;
pub mod frame;
mod guard;
pub mod mttr;
pub mod output;
pub mod projections;
pub mod recall;
pub mod session;
pub mod stats;
pub mod tables;
pub mod trend;
