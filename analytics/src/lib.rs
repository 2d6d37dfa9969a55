//! Figures: projections of the event log, recovery statistics, SQL.
//!
//! Reading order: [`stats`] defines every figure, with [`survival`] for what still waits, [`series`] for what changes
//! and [`comparison`] for what differs; [`mttr`] applies them to the incident fold, and [`report`] to groups of
//! incidents, with [`surroundings`] (deployments, drills, backups, measurements) and [`observed`] (availability, by
//! way of [`spans`]). [`trend`] is the fold over time, by way of [`frame`], the crossing to Polars. [`tables`] lists
//! what SQL sees, [`projections`] turns the fold into those tables, [`functions`] gives SQL the statistics, [`kept`]
//! keeps them as the log grows, `follow`, `extract` and `gather` read the log, `repeats` counts each event once, `guard`
//! says what may be asked, [`session`] answers, [`recall`] reads single events back, [`output`] writes the answer,
//! [`wire`] gives it to clients of PostgreSQL. [`anomaly`] and [`forecast`] speak of any series: what is unusual in it,
//! and what comes next.

pub mod anomaly;
mod bucket;
pub mod chronicle;
pub mod comparison;
mod extract;
#[cfg(test)]
mod fixture;
mod follow;
pub mod forecast;
pub mod frame;
pub mod functions;
mod gather;
mod guard;
mod json;
pub mod kept;
pub mod mttr;
pub mod observed;
pub mod oddities;
pub mod output;
pub mod projections;
pub mod queries;
pub mod recall;
mod repeats;
pub mod report;
pub mod series;
pub mod session;
pub mod spans;
pub mod stats;
pub mod surroundings;
pub mod survival;
pub mod tables;
pub mod trend;
pub mod wire;
