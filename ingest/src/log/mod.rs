//! The event log: a Delta table that holds everything that happened, exactly once.
//!
//! Reading order: [`location`](LogLocation) says where it is; `table` is the writer's view of it, with positions and
//! commits; `encode` and `file` turn what was read from the bus into data files; [`run_log`] is the loop that does
//! so; `upkeep` and `merge` keep the table quick; `repair` sets torn files aside; [`verify`] proves that nothing is
//! missing or doubled; `dead_letter` lists and replays what could not be decoded.
//!
//! **Exactly once.** One commit holds rows of many partitions and, for each, the next offset wanted. The table is
//! the truth: after a crash, a rebalance or a conflict the writer reads on from there. The group's committed
//! offsets are written after the commit, as a hint for lag alone.

mod bench;
mod dead_letter;
mod encode;
mod error;
mod file;
mod location;
mod merge;
mod metrics;
mod positions;
mod repair;
mod stats;
mod store;
mod table;
mod upkeep;
mod verify;
mod writer;

pub use bench::{CommitGrowth, DrainReport, bench_commits, bench_drain, fill};
pub use dead_letter::{DeadLetterEntry, DlqError, ReplayReport, dlq_list, dlq_replay};
pub use error::LogError;
pub use location::{LogLocation, open_table};
pub use metrics::{ClassLabel, LogMetrics, TopicLabel};
pub use repair::Quarantined;
pub use stats::{LogStats, PartitionPosition, stats};
pub use store::DurableLocal;
pub use upkeep::{CompactReport, compact};
pub use verify::{Finding, PartitionProof, VerifyReport, verify};
pub use writer::{COMMIT_BYTES, CommitObserver, CommitReport, GROUP, LogSettings, accept_loss, run_log};

#[cfg(test)]
mod tests;
