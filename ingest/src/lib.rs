//! The way in: probes, intake, the bus, and the event log.
//!
//! Reading order: [`bus`] moves bytes, [`probe`] and [`intake`] put events on it, [`log`] writes them down; [`import`]
//! brings history from elsewhere.

pub mod bus;
pub mod import;
pub mod intake;
pub mod log;
#[cfg(test)]
mod memory_bus;
pub mod probe;
mod record;
