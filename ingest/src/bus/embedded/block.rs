//! A block: the records of one partition that were appended together, as one value of the store.
//!
//! ```text
//! version u8 = 1 | ingested_at i64 ms | bytes before this block u64 | count u32 | end of each record u32 × count | records
//! record: key length u32 | headers u16 | (name length u16, value length u32) × headers | names and values | key | value
//! ```
//! Numbers are little-endian; ends count from the first record. Blocks make reading fast: one look-up gives hundreds
//! of records, which are slices of it and not copies. `bytes before` makes sizes a subtraction instead of a scan.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::bus::{Delivery, Offset, Record};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 8 + 4;

/// Bytes of records after which a block is full.
pub(super) const FULL: usize = 256 * 1024;

/// Collects records into a block.
#[derive(Debug, Default)]
pub(super) struct Builder {
    ends: Vec<u32>,
    body: Vec<u8>,
}

impl Builder {
    pub(super) fn push(&mut self, record: &Record) {
        put_u32(&mut self.body, record.key.len());
        self.body.extend_from_slice(&u16::try_from(record.headers.len()).expect("checked on append").to_le_bytes());
        for (name, value) in &record.headers {
            self.body.extend_from_slice(&u16::try_from(name.len()).expect("checked on append").to_le_bytes());
            put_u32(&mut self.body, value.len());
        }
        for (name, value) in &record.headers {
            self.body.extend_from_slice(name.as_bytes());
            self.body.extend_from_slice(value);
        }
        self.body.extend_from_slice(&record.key);
        self.body.extend_from_slice(&record.value);
        self.ends.push(u32::try_from(self.body.len()).expect("a block is far below 4 GiB"));
    }

    pub(super) fn is_full(&self) -> bool {
        self.body.len() >= FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The block, how many records it has, and the bytes they take. The builder is empty afterwards.
    pub(super) fn finish(&mut self, ingested_ms: i64, bytes_before: u64) -> (Vec<u8>, i64, u64) {
        let mut out = Vec::with_capacity(HEAD + 4 * self.ends.len() + self.body.len());
        out.push(VERSION);
        out.extend_from_slice(&ingested_ms.to_le_bytes());
        out.extend_from_slice(&bytes_before.to_le_bytes());
        put_u32(&mut out, self.ends.len());
        for end in &self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&self.body);
        let done = (out, i64::try_from(self.ends.len()).expect("fits"), self.body.len() as u64);
        self.ends.clear();
        self.body.clear();
        done
    }
}

fn put_u32(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&u32::try_from(n).expect("a record is far below 4 GiB").to_le_bytes());
}

/// A block read back.
#[derive(Debug, Clone)]
pub(super) struct Block {
    data: Bytes,
    /// Offset of its first record.
    pub(super) base: Offset,
    count: usize,
    ingested_ms: i64,
    bytes_before: u64,
}

impl Block {
    /// Takes a stored value for a block that starts at `base`; the error says what is wrong with it.
    pub(super) fn open(base: Offset, data: Bytes) -> Result<Self, String> {
        let short = || format!("the block at offset {base} is cut short");
        if data.len() < HEAD {
            return Err(short());
        }
        if data[0] != VERSION {
            return Err(format!("the block at offset {base} has version {}, this program knows {VERSION}", data[0]));
        }
        let ingested_ms = i64::from_le_bytes(data[1..9].try_into().expect("8 bytes"));
        let bytes_before = u64::from_le_bytes(data[9..17].try_into().expect("8 bytes"));
        let count = u32::from_le_bytes(data[17..21].try_into().expect("4 bytes")) as usize;
        let block = Self { data, base, count, ingested_ms, bytes_before };
        if count == 0 || block.body_at() > block.data.len() || block.end_of(count - 1) != block.data.len() {
            return Err(short());
        }
        Ok(block)
    }

    fn body_at(&self) -> usize {
        HEAD + 4 * self.count
    }

    /// Where record `n` ends within the data.
    fn end_of(&self, n: usize) -> usize {
        let at = HEAD + 4 * n;
        self.body_at() + u32::from_le_bytes(self.data[at..at + 4].try_into().expect("4 bytes")) as usize
    }

    /// One past its last offset.
    pub(super) fn end(&self) -> Offset {
        self.base + i64::try_from(self.count).expect("fits")
    }

    pub(super) fn ingested_ms(&self) -> i64 {
        self.ingested_ms
    }

    /// Bytes of all records of the partition before this block.
    pub(super) fn bytes_before(&self) -> u64 {
        self.bytes_before
    }

    /// Bytes of all records of the partition up to this block's end.
    pub(super) fn bytes_after(&self) -> u64 {
        self.bytes_before + (self.data.len() - self.body_at()) as u64
    }

    /// Moves records from `from` on into `out`, until `room` says no. False when it did.
    pub(super) fn read(
        &self,
        from: Offset,
        out: &mut Vec<Delivery>,
        mut room: impl FnMut(usize) -> bool,
    ) -> Result<bool, String> {
        let ingested_at = DateTime::<Utc>::from_timestamp_millis(self.ingested_ms)
            .ok_or_else(|| format!("the block at offset {} has no valid time", self.base))?;
        let first = usize::try_from(from - self.base).unwrap_or(0).min(self.count);
        let mut start = if first == 0 { self.body_at() } else { self.end_of(first - 1) };
        for n in first..self.count {
            let end = self.end_of(n);
            let offset = self.base + i64::try_from(n).expect("fits");
            let record = self.record(start, end).ok_or_else(|| format!("the record at offset {offset} is damaged"))?;
            if !room(record.value.len()) {
                return Ok(false);
            }
            out.push(Delivery { offset, ingested_at, record });
            start = end;
        }
        Ok(true)
    }

    fn record(&self, start: usize, end: usize) -> Option<Record> {
        let bytes = self.data.get(start..end)?;
        let key_len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let count = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
        let lengths = bytes.get(6..6 + 6 * count)?;
        let mut at = 6 + 6 * count;
        let mut headers = Vec::with_capacity(count);
        for pair in lengths.chunks_exact(6) {
            let name_len = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
            let value_len = u32::from_le_bytes([pair[2], pair[3], pair[4], pair[5]]) as usize;
            let name = std::str::from_utf8(bytes.get(at..at + name_len)?).ok()?.to_owned();
            bytes.get(at + name_len..at + name_len + value_len)?;
            headers.push((name, self.data.slice(start + at + name_len..start + at + name_len + value_len)));
            at += name_len + value_len;
        }
        let key_end = at.checked_add(key_len).filter(|key_end| *key_end <= bytes.len())?;
        Some(Record {
            key: self.data.slice(start + at..start + key_end),
            value: self.data.slice(start + key_end..end),
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let header = ("[a-z_-]{0,12}", prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(name, value)| (name, Bytes::from(value)));
        let record = (
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(header, 0..4),
        )
            .prop_map(|(key, value, headers)| Record { key: key.into(), value: value.into(), headers });
        prop::collection::vec(record, 1..30)
    }

    fn build(records: &[Record]) -> Vec<u8> {
        let mut builder = Builder::default();
        records.iter().for_each(|record| builder.push(record));
        let (data, count, _) = builder.finish(1_000, 77);
        assert_eq!(usize::try_from(count).unwrap(), records.len());
        data
    }

    proptest! {
        #[test]
        fn comes_back_from_any_offset(records in records(), skip in 0..30_usize) {
            let skip = skip.min(records.len() - 1);
            let block = Block::open(500, build(&records).into()).unwrap();
            prop_assert_eq!(block.end(), 500 + i64::try_from(records.len()).unwrap());
            prop_assert_eq!(block.bytes_before(), 77);
            let mut out = Vec::new();
            let from = 500 + i64::try_from(skip).unwrap();
            prop_assert!(block.read(from, &mut out, |_| true).unwrap());
            prop_assert_eq!(out[0].offset, from);
            prop_assert_eq!(out.into_iter().map(|d| d.record).collect::<Vec<_>>(), &records[skip..]);
        }

        /// Damage is an error or another record, never a panic.
        #[test]
        fn damage_does_not_panic(records in records(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut data = build(&records);
            let at = at.index(data.len());
            data[at] = byte;
            data.truncate(data.len() - cut.index(3));
            if let Ok(block) = Block::open(0, data.into()) {
                let _ = block.read(0, &mut Vec::new(), |_| true);
            }
        }
    }
}
