//! A growing set of numbers that come in stretches but in no order, as ids and offsets do in files that are sorted by
//! service: adding one takes a few nanoseconds, and a stretch a bit a number.

use std::collections::HashMap;

/// Numbers of one chunk.
const CHUNK: u64 = 1 << 16;
/// Up to so many numbers a chunk is a list: far-apart numbers take no more room than they must.
const FEW: usize = 256;

#[derive(Debug)]
enum Chunk {
    Few(Vec<u16>),
    Many(Box<[u64; 1024]>),
}

/// A set of numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    places: HashMap<u64, usize>,
    chunks: Vec<Chunk>,
    /// The chunk that was added to last, and its place: mostly the next number's too.
    last: Option<(u64, usize)>,
}

impl Numbers {
    /// Adds a number; whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let wanted = number / CHUNK;
        let place = match self.last {
            Some((chunk, place)) if chunk == wanted => place,
            _ => {
                let place = *self.places.entry(wanted).or_insert_with(|| {
                    self.chunks.push(Chunk::Few(Vec::new()));
                    self.chunks.len() - 1
                });
                self.last = Some((wanted, place));
                place
            }
        };
        let within = (number % CHUNK) as u16;
        self.chunks[place].insert(within)
    }
}

impl Chunk {
    fn insert(&mut self, number: u16) -> bool {
        match self {
            Self::Few(few) => {
                let Err(place) = few.binary_search(&number) else { return false };
                if few.len() < FEW {
                    few.insert(place, number);
                    return true;
                }
                let mut bits = Box::new([0; 1024]);
                for number in few.iter() {
                    set(&mut bits, *number);
                }
                set(&mut bits, number);
                *self = Self::Many(bits);
                true
            }
            Self::Many(bits) => set(bits, number),
        }
    }
}

/// Sets a bit; whether it was not set.
fn set(bits: &mut [u64; 1024], number: u16) -> bool {
    let (word, bit) = (usize::from(number / 64), 1 << (number % 64));
    let new = bits[word] & bit == 0;
    bits[word] |= bit;
    new
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec(prop_oneof![0..2_000_u64, 65_000..66_000_u64, any::<u64>()], 0..3_000)) {
            let (mut found, mut expected) = (Numbers::default(), HashSet::new());
            for number in numbers {
                prop_assert_eq!(found.insert(number), expected.insert(number));
            }
        }
    }
}
