//! Flap detection as Nagios does it: how much of the recent past was change, newer changes weighing more.
//!
//! 21 states have 20 transitions between them, weighted from 0.75 (oldest) to 1.25 (newest). A probe flaps from
//! 30 % on, and until it falls to 20 %. States that lie before the first observation count as equal to it.
//! Source: Nagios Core, "Detection and Handling of State Flapping".

use std::fmt;

use serde::{Deserialize, Serialize};

/// States that are remembered.
pub const STATES: u32 = 21;
const TRANSITIONS: u32 = STATES - 1;
const OLDEST: f64 = 0.75;
const NEWEST: f64 = 1.25;
/// Flapping starts at this share of weighted change.
pub const START: f64 = 0.30;
/// And stops at this.
pub const STOP: f64 = 0.20;

const SEEN: u32 = 1 << 30;
const FLAPPING: u32 = 1 << 31;

/// The last 21 states of one probe and whether they flap, in four bytes: bit 0 is the newest state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flapping(u32);

impl Flapping {
    /// Takes the next state.
    pub fn push(&mut self, failed: bool) {
        let mask = (1 << STATES) - 1;
        let states = match self.0 & SEEN {
            0 if failed => mask,
            0 => 0,
            _ => (self.0 << 1 | u32::from(failed)) & mask,
        };
        let flapped = self.is_flapping();
        self.0 = states | SEEN;
        let share = self.share();
        if share >= START || (flapped && share > STOP) {
            self.0 |= FLAPPING;
        }
    }

    /// Whether it flaps.
    #[must_use]
    pub fn is_flapping(self) -> bool {
        self.0 & FLAPPING != 0
    }

    /// Weighted share of transitions at which the state changed, 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        let changes = self.0 ^ self.0 >> 1;
        let weight = |age: u32| NEWEST - (NEWEST - OLDEST) * f64::from(age) / f64::from(TRANSITIONS - 1);
        let sum: f64 = (0..TRANSITIONS).filter(|age| changes >> age & 1 == 1).map(weight).sum();
        sum / f64::from(TRANSITIONS)
    }
}

impl fmt::Debug for Flapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %{}", self.share() * 100.0, if self.is_flapping() { " flapping" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(states: impl IntoIterator<Item = bool>) -> Flapping {
        let mut flapping = Flapping::default();
        states.into_iter().for_each(|failed| flapping.push(failed));
        flapping
    }

    /// `n` newest transitions are changes, the 20 − n before them are not.
    fn newest(n: usize) -> Flapping {
        after(std::iter::repeat_n(false, 21 - n).chain((0..n).map(|i| i % 2 == 0)))
    }

    #[test]
    fn the_published_vectors_hold() {
        let percent = |n| (newest(n).share() * 1000.0).round() / 10.0;
        assert_eq!((percent(0), percent(5), percent(6), percent(20)), (0.0, 29.9, 35.5, 100.0));
        assert!(!newest(5).is_flapping(), "29.9 % is below 30 %");
        assert!(newest(6).is_flapping());
    }

    #[test]
    fn it_stops_at_twenty_percent_and_not_before() {
        let mut flapping = newest(6);
        let mut quiet = 0;
        while flapping.is_flapping() {
            assert!(flapping.share() > STOP);
            flapping.push(false);
            quiet += 1;
            assert!(quiet < 21, "twenty-one equal states leave no change");
        }
        assert!(flapping.share() <= STOP && quiet > 1);
    }

    #[test]
    fn the_first_state_is_no_change() {
        assert_eq!(after([true]).share(), 0.0);
        assert!(after([true, false]).share() > 0.0);
    }

    proptest::proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// The four bytes agree with the definition written down over the whole list.
        #[test]
        fn it_flaps_when_the_definition_says_so(states in proptest::collection::vec(proptest::bool::weighted(0.4), 1..80)) {
            let (mut flapping, mut flaps) = (Flapping::default(), false);
            for n in 0..states.len() {
                flapping.push(states[n]);
                // The newest 21 states, what lies before the first being equal to it; oldest first.
                let state = |back: usize| states[n.saturating_sub(back)];
                let share: f64 = (0..20).rev().filter(|back| state(*back) != state(back + 1))
                    .map(|back| 1.25 - 0.5 * back as f64 / 19.0).sum::<f64>() / 20.0;
                proptest::prop_assert!((flapping.share() - share).abs() < 1e-9, "{} is not {share}", flapping.share());
                if (share - 0.3).abs() > 1e-9 && (share - 0.2).abs() > 1e-9 {
                    flaps = share > 0.3 || (flaps && share > 0.2);
                    proptest::prop_assert_eq!(flapping.is_flapping(), flaps);
                }
                flaps = flapping.is_flapping();
            }
        }
    }
}
