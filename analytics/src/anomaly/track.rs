//! Five questions of a series' next value, each answered by how rare the answer is.

use std::collections::VecDeque;

use super::tail::Tail;

/// The last values that a value is compared with.
const NEAR: usize = 21;
/// The last values, this one among them, whose median is the present level.
const FEW: usize = 10;
/// Values that the usual level is the median of, and by how many at a time they are sampled for it.
const USUAL: usize = 2_000;
const SAMPLE: usize = 200;
/// Values before anything is usual.
const ENOUGH: usize = 50;
/// After how many values the usual level is looked up anew.
const REFRESH: usize = 10;

/// What is said of a value: −log₁₀ p of each answer, in the order of `Reason::ALL`, and the middle of the last values.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Verdict {
    pub(super) surprises: [f64; 5],
    pub(super) middle: Option<f64>,
}

/// A series as one of the tracks sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    seen: usize,
    values: VecDeque<f64>,
    usual: f64,
    /// Sum of how much the values moved, and how many, both forgetting.
    roughness: (f64, f64),
    tails: [Tail; 5],
}

impl Track {
    /// How many values it has seen.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    pub(super) fn next(&mut self, value: f64) -> Verdict {
        let mut verdict = Verdict::default();
        let [spike, level, wilder, calmer, far] = &mut self.tails;
        let near = self.values.iter().rev().take(NEAR);
        if let Some(middle) = median::<NEAR>(near.copied()) {
            verdict.middle = Some(middle);
            verdict.surprises[0] = spike.surprise((value - middle).abs());
        }
        if self.seen >= ENOUGH {
            if self.seen < 2 * ENOUGH || self.seen.is_multiple_of(REFRESH) {
                let step = (self.values.len() / SAMPLE).max(1);
                self.usual = median::<{ 2 * SAMPLE }>(self.values.iter().step_by(step).copied()).unwrap_or(value);
            }
            let few = self.values.iter().rev().take(FEW - 1).copied().chain([value]);
            let now = median::<FEW>(few).unwrap_or(value);
            verdict.surprises[1] = level.surprise((now - self.usual).abs());
            verdict.surprises[4] = far.surprise((value - self.usual).abs());
        }
        if self.values.len() >= NEAR {
            let mut next = value;
            let mut sum = 0.0;
            for before in self.values.iter().rev().take(NEAR) {
                sum += (next - before).abs();
                next = *before;
            }
            let moves = sum / NEAR as f64;
            verdict.surprises[2] = wilder.surprise(moves);
            let keep = 1.0 - 1.0 / USUAL as f64;
            self.roughness = (self.roughness.0 * keep + moves, self.roughness.1 * keep + 1.0);
            // A thousandth of the usual is as good as none: standing still is not infinitely calm.
            let usual = self.roughness.0 / self.roughness.1;
            let calm = if usual > 0.0 { usual / (moves + usual / 1_000.0) } else { 0.0 };
            verdict.surprises[3] = calmer.surprise(calm);
        }
        self.seen += 1;
        self.values.push_back(value);
        if self.values.len() > USUAL {
            self.values.pop_front();
        }
        verdict
    }
}

/// The median of the first `N` values at most.
fn median<const N: usize>(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted = [0.0; N];
    let mut len = 0;
    for (place, value) in sorted.iter_mut().zip(values) {
        *place = value;
        len += 1;
    }
    let sorted = &mut sorted[..len];
    let (below, middle, _) =
        if len == 0 { return None } else { sorted.select_nth_unstable_by(len / 2, f64::total_cmp) };
    let middle = *middle;
    let lower = below.iter().copied().reduce(f64::max).filter(|_| len.is_multiple_of(2));
    Some(lower.map_or(middle, |lower| f64::midpoint(lower, middle)))
}
