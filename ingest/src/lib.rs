//! The way in: probes, intake, the bus, and the event log.
//!
//! Reading order: [`bus`] moves bytes, [`probe`](crate::probe) and `intake` put events on it, `log` writes them down.

pub mod bus;
pub mod log;
