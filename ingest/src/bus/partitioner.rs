//! Which partition a key belongs to: the rule of Kafka's own default partitioner (murmur2).
//!
//! Both implementations use it, so a key has the same partition number in every topic, whichever bus carries it and
//! whichever client (Java's included) wrote it.

use super::MAX_RECORD_BYTES;
use super::{BusError, Record};

/// Kafka's murmur2 of a key.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka's lengths are 32 bits wide; a key is far shorter.
    #[allow(clippy::cast_possible_truncation)]
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key among `partitions`, which is at least 1.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).expect("31 bits fit");
    positive % partitions.max(1)
}

/// Bytes of a record that count against [`MAX_RECORD_BYTES`]: key, value, and names and values of headers.
pub(crate) fn size_of(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.len() + record.value.len() + headers
}

/// Refuses a record that is too large, or has more headers than a log can hold.
pub(crate) fn check_size(record: &Record) -> Result<(), BusError> {
    let bytes = size_of(record);
    if bytes > MAX_RECORD_BYTES || record.headers.len() > usize::from(u16::MAX) {
        return Err(BusError::TooLarge { bytes, limit: MAX_RECORD_BYTES });
    }
    match record.headers.iter().find(|(name, _)| name.len() > usize::from(u16::MAX)) {
        Some((name, _)) => Err(BusError::TooLarge { bytes: name.len(), limit: usize::from(u16::MAX) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
        // Vectors of Apache Kafka's own UtilsTest.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
    }

    #[test]
    fn partitions_are_kafkas() {
        // toPositive(murmur2(key)) % partitions, of the vectors above.
        assert_eq!(partition_of(b"21", 7), (-973_932_308_i32 & 0x7fff_ffff) % 7);
        assert_eq!(partition_of(b"abc", 4), 479_470_107 % 4);
        assert_eq!(partition_of(b"anything", 1), 0);
    }

    proptest::proptest! {
        #[test]
        fn every_key_has_a_partition(key: Vec<u8>, partitions in 1..64_i32) {
            proptest::prop_assert!((0..partitions).contains(&partition_of(&key, partitions)));
        }
    }
}
