//! The commands that do one thing and end.

pub(crate) mod bench;
pub(crate) mod bench_probes;
pub(crate) mod channels;
pub(crate) mod check;
pub(crate) mod emit;
pub(crate) mod explain;
pub(crate) mod failover;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod recovery;
pub(crate) mod sql;
pub(crate) mod stats;
pub(crate) mod window;
