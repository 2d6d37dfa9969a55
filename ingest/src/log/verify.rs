//! Proof, from the table alone, that the log holds every offset once and that its files are what was written.
//!
//! Every live file is read: its SHA-256 against the one in its name, its Parquet, and each row's (topic, partition,
//! offset), a `log.gap` standing for all of its offsets. Per partition the offsets must be exactly 0 up to the
//! position in the table's transactions, each once. A bit an offset is kept in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rebound_schemas::table::RowReader;
use serde::Serialize;

use super::error::LogError;
use super::file::{digest, promised_digest};
use super::location::LogLocation;
use super::table::{LiveFile, LogTable, read_file};
use crate::bus::Offset;

/// Findings told of one kind and partition, at most.
const TOLD: usize = 20;

/// The result of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Where the log is.
    pub location: String,
    /// The version that was verified.
    pub version: u64,
    /// Data files read.
    pub files: u64,
    /// Rows read.
    pub rows: u64,
    /// Events among them.
    pub events: u64,
    /// What was proved a partition.
    pub partitions: Vec<PartitionProof>,
    /// What is wrong; empty means that the log is whole.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One partition's offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionProof {
    /// `observations-3`.
    pub partition: String,
    /// Offsets `0..next_offset` are claimed by the table.
    pub next_offset: Offset,
    /// Offsets that are there.
    pub offsets: u64,
    /// Of these, offsets that hold no event (dead letters, transaction markers, accepted losses).
    pub without_event: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Offsets that the table's position says are stored, and no row holds.
    Missing {
        /// The partition.
        partition: String,
        /// The first.
        from: Offset,
        /// One past the last.
        until: Offset,
    },
    /// An offset that is there more than once.
    Duplicate {
        /// The partition.
        partition: String,
        /// The offset.
        offset: Offset,
        /// The file in which it was seen again.
        file: String,
    },
    /// An offset at or beyond the table's position.
    Beyond {
        /// The partition.
        partition: String,
        /// The offset.
        offset: Offset,
        /// The file.
        file: String,
    },
    /// A file whose content is not what its name says.
    Checksum {
        /// The file.
        file: String,
        /// The SHA-256 found.
        found: String,
    },
    /// A file that another program wrote, so that no checksum is known.
    Foreign {
        /// The file.
        file: String,
    },
    /// A file that can't be read.
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A file with another number of rows than the table's log says.
    Rows {
        /// The file.
        file: String,
        /// Rows by the log.
        expected: u64,
        /// Rows found.
        found: u64,
    },
}

/// Verifies the newest version. `progress` is told (files done, files in all).
///
/// # Errors
/// The table itself can't be opened. What is wrong with its data is a [`Finding`].
pub async fn verify(location: &LogLocation, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport, LogError> {
    let table = Box::pin(LogTable::load(location)).await?;
    let mut proof = Proof::new(&table.state.positions);
    let files = table.state.files.len() as u64;
    for (done, file) in table.state.files.values().enumerate() {
        match read_file(table.store(), &file.path).await {
            Err(error) => proof.unreadable(file, &chain(&error)),
            Ok(bytes) => {
                let file = file.clone();
                proof = tokio::task::spawn_blocking(move || {
                    proof.file(&file, bytes);
                    proof
                })
                .await
                .map_err(|_| LogError::Panicked { what: "verifying a data file" })?;
            }
        }
        progress(done as u64 + 1, files);
    }
    Ok(proof.report(location, table.state.version, files))
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[derive(Debug, Default)]
struct Proof {
    partitions: BTreeMap<String, Seen>,
    findings: Vec<Finding>,
    rows: u64,
    events: u64,
}

#[derive(Debug, Default)]
struct Seen {
    next: Offset,
    bits: Bits,
    without_event: u64,
    told: usize,
}

impl Proof {
    fn new(positions: &BTreeMap<String, Offset>) -> Self {
        let seen = |(partition, next): (&String, &Offset)| (partition.clone(), Seen { next: *next, ..Seen::default() });
        Self { partitions: positions.iter().map(seen).collect(), ..Self::default() }
    }

    fn unreadable(&mut self, file: &LiveFile, reason: &str) {
        self.findings.push(Finding::Unreadable { file: file.path.clone(), reason: reason.to_owned() });
    }

    fn file(&mut self, file: &LiveFile, bytes: Bytes) {
        match promised_digest(&file.path) {
            None => self.findings.push(Finding::Foreign { file: file.path.clone() }),
            Some(promised) => {
                let found = digest(&bytes);
                if found != promised {
                    self.findings.push(Finding::Checksum { file: file.path.clone(), found });
                }
            }
        }
        match self.content(file, bytes) {
            Ok(found) if found != file.rows => {
                self.findings.push(Finding::Rows { file: file.path.clone(), expected: file.rows, found })
            }
            Ok(_) => {}
            Err(reason) => self.unreadable(file, &reason),
        }
    }

    /// Reads every column, so that every page is decoded, and notes every offset.
    fn content(&mut self, file: &LiveFile, bytes: Bytes) -> Result<u64, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
        let reader = builder.with_projection(ProjectionMask::all()).build().map_err(|e| e.to_string())?;
        let mut rows = 0;
        for batch in reader {
            let batch = batch.map_err(|e| e.to_string())?;
            let reader = RowReader::new(&batch).map_err(|e| e.to_string())?;
            rows += reader.len() as u64;
            let mut name = (("", -1), String::new());
            for row in reader.iter() {
                if name.0 != (row.topic, row.partition) {
                    name = ((row.topic, row.partition), format!("{}-{}", row.topic, row.partition));
                }
                let until = match row.gap_until() {
                    Some(until) => until,
                    None if row.is_gap() => return Err(format!("the gap at offset {} says no end", row.offset)),
                    None => row.offset + 1,
                };
                self.events += u64::from(!row.is_gap());
                self.offsets(&name.1, row.offset..until, row.is_gap(), file);
            }
        }
        self.rows += rows;
        Ok(rows)
    }

    fn offsets(&mut self, partition: &str, offsets: Range<Offset>, gap: bool, file: &LiveFile) {
        if !self.partitions.contains_key(partition) {
            self.partitions.insert(partition.to_owned(), Seen::default());
        }
        let Some(seen) = self.partitions.get_mut(partition) else { return };
        if gap {
            seen.without_event += u64::try_from(offsets.end - offsets.start).unwrap_or_default();
        }
        for offset in offsets {
            let again = !seen.bits.set(offset);
            let beyond = offset >= seen.next || offset < 0;
            if !(again || beyond) {
                continue;
            }
            seen.told += 1;
            if seen.told > TOLD {
                return;
            }
            let (partition, file) = (partition.to_owned(), file.path.clone());
            self.findings.push(if again {
                Finding::Duplicate { partition, offset, file }
            } else {
                Finding::Beyond { partition, offset, file }
            });
        }
    }

    fn report(mut self, location: &LogLocation, version: u64, files: u64) -> VerifyReport {
        let mut partitions = Vec::new();
        for (partition, seen) in &self.partitions {
            for range in seen.bits.missing(seen.next).into_iter().take(TOLD) {
                let partition = partition.clone();
                self.findings.push(Finding::Missing { partition, from: range.start, until: range.end });
            }
            partitions.push(PartitionProof {
                partition: partition.clone(),
                next_offset: seen.next,
                offsets: seen.bits.count,
                without_event: seen.without_event,
            });
        }
        VerifyReport {
            location: location.to_string(),
            version,
            files,
            rows: self.rows,
            events: self.events,
            partitions,
            findings: self.findings,
        }
    }
}

/// A set of offsets: blocks of bits, a full block being a mere note.
#[derive(Debug, Default)]
struct Bits {
    blocks: HashMap<i64, Block>,
    count: u64,
}

const BLOCK: i64 = 1 << 16;

#[derive(Debug)]
enum Block {
    Part(Box<[u64]>, u32),
    Full,
}

impl Bits {
    /// Answers whether the offset was new.
    fn set(&mut self, offset: Offset) -> bool {
        let (block, bit) = (offset.div_euclid(BLOCK), offset.rem_euclid(BLOCK).unsigned_abs());
        let size = usize::try_from(BLOCK / 64).expect("a small constant");
        let entry = self.blocks.entry(block).or_insert_with(|| Block::Part(vec![0; size].into(), 0));
        let Block::Part(words, ones) = entry else { return false };
        let word = &mut words[usize::try_from(bit / 64).expect("below the block's size")];
        if *word & (1 << (bit % 64)) != 0 {
            return false;
        }
        *word |= 1 << (bit % 64);
        *ones += 1;
        if i64::from(*ones) == BLOCK {
            *entry = Block::Full;
        }
        self.count += 1;
        true
    }

    fn contains(&self, offset: Offset) -> bool {
        let bit = offset.rem_euclid(BLOCK).unsigned_abs();
        match self.blocks.get(&offset.div_euclid(BLOCK)) {
            None => false,
            Some(Block::Full) => true,
            Some(Block::Part(words, _)) => {
                words[usize::try_from(bit / 64).unwrap_or_default()] & (1 << (bit % 64)) != 0
            }
        }
    }

    /// The stretches of `0..until` that are not in the set.
    fn missing(&self, until: Offset) -> Vec<Range<Offset>> {
        let mut ranges: Vec<Range<Offset>> = Vec::new();
        let mut at = 0;
        while at < until {
            let end = ((at.div_euclid(BLOCK) + 1) * BLOCK).min(until);
            let range = match self.blocks.get(&at.div_euclid(BLOCK)) {
                Some(Block::Full) => None,
                None => Some(at..end),
                Some(Block::Part(..)) if self.contains(at) => {
                    at += 1;
                    continue;
                }
                Some(Block::Part(..)) => Some(at..(at..end).find(|o| self.contains(*o)).unwrap_or(end)),
            };
            match range {
                None => at = end,
                Some(range) => {
                    at = range.end;
                    match ranges.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => ranges.push(range),
                    }
                }
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The set agrees with the plainest one there is.
        #[test]
        fn bits_are_a_set(spans in proptest::collection::vec((0..200_000i64, 1..70_000i64), 0..6), until in 0..250_000i64) {
            let mut bits = Bits::default();
            let mut plain = std::collections::BTreeSet::new();
            for (from, len) in spans {
                for offset in from..from + len {
                    prop_assert_eq!(bits.set(offset), plain.insert(offset));
                }
            }
            prop_assert_eq!(bits.count as usize, plain.len());
            let missing: Vec<_> = bits.missing(until).into_iter().flatten().collect();
            let expected: Vec<_> = (0..until).filter(|o| !plain.contains(o)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
