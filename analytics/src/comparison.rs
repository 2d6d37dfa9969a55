//! Are recoveries shorter after than before: two samples, one test, and a verdict that may be that nobody can tell.
//!
//! | of the two samples | test |
//! |---|---|
//! | too few, whatever they were | none: not enough data |
//! | nothing is censored | Mann–Whitney |
//! | something is still open | log-rank |
//!
//! Too few is when even the clearest difference would not be one at 5 %: fewer than 40 ways of dealing the values
//! out to the two samples (Mann–Whitney's smallest p is 2 ÷ that number), or a sample in which nothing has happened.

use serde::Serialize;

use crate::series::{ranks, ties};
use crate::stats::{Summary, Z_95, normal_two_sided, sorted};
use crate::survival::{KaplanMeier, Observation, log_rank};

/// What is called different: p below this.
pub const SIGNIFICANT: f64 = 0.05;
/// A sample up to this size, without ties, has its exact distribution; scipy's rule.
const EXACT_UP_TO: usize = 8;
/// Together with a larger sample than this the approximation is as good.
const EXACT_WITH_UP_TO: usize = 20_000;

/// Whether values of one sample tend to be larger than those of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MannWhitney {
    /// Pairs in which the first sample's value is larger; half for equal ones.
    pub u: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Whether it is exact; otherwise normal, corrected for ties and continuity.
    pub exact: bool,
}

/// The test of Mann & Whitney (1947), as `scipy.stats.mannwhitneyu` with its defaults. `None` without values in both.
#[must_use]
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Option<MannWhitney> {
    let (first, second) = (sorted(first), sorted(second));
    let (n, m) = (first.len(), second.len());
    if n == 0 || m == 0 {
        return None;
    }
    let mut u = 0.0;
    for value in &first {
        let equal = ranks(&second, *value);
        u += equal.start as f64 + equal.len() as f64 / 2.0;
    }
    let pairs = n as f64 * m as f64;
    let larger = u.max(pairs - u);
    let pooled = sorted(&[first, second].concat());
    let tied = ties(&pooled).any(|equal| equal > 1.0);
    if !tied && n.min(m) <= EXACT_UP_TO && n + m <= EXACT_WITH_UP_TO {
        let ways = ways(n.min(m), n.max(m));
        let all: f64 = ways.iter().map(|w| *w as f64).sum();
        let as_far: f64 = ways[larger as usize..].iter().map(|w| *w as f64).sum();
        return Some(MannWhitney { u, p: (2.0 * as_far / all).min(1.0), exact: true });
    }
    // The tail is one-sided before it is doubled: what the correction takes below the middle is no evidence.
    let distance = larger - pairs / 2.0 - 0.5;
    let variance = variance(n, m, &pooled);
    let p = if variance > 0.0 && distance > 0.0 { normal_two_sided(distance / variance.sqrt()) } else { 1.0 };
    Some(MannWhitney { u, p, exact: false })
}

/// Variance of U if both samples are of one distribution, ties accounted for: of their sizes, and all their values in
/// ascending order.
fn variance(n: usize, m: usize, pooled: &[f64]) -> f64 {
    let all = pooled.len() as f64;
    if all < 2.0 {
        return 0.0;
    }
    let of_ties: f64 = ties(pooled).map(|t| t * t * t - t).sum();
    n as f64 * m as f64 / 12.0 * ((all + 1.0) - of_ties / (all * (all - 1.0)))
}

/// In how many ways U comes out as 0, 1, … for samples of these sizes: coefficients of the Gaussian binomial,
/// ∏ (1 − qᵐ⁺ⁱ) ÷ (1 − qⁱ). Whole numbers below 2¹²⁸ at the sizes used; between, they may wrap without harm.
fn ways(n: usize, m: usize) -> Vec<u128> {
    let most = n * m;
    let mut ways = vec![0_u128; most + 1];
    ways[0] = 1;
    for i in 1..=n {
        for u in (m + i..=most).rev() {
            ways[u] = ways[u].wrapping_sub(ways[u - m - i]);
        }
        for u in i..=most {
            ways[u] = ways[u].wrapping_add(ways[u - i]);
        }
    }
    ways
}

/// By how much the second sample differs from the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shift {
    /// Median of all differences second − first (Hodges & Lehmann 1963).
    pub shift: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// The shift with the interval of Moses (Hollander & Wolfe 1973, §4.3), by ranks among the differences, which are
/// found without writing all of them down. `None` without values in both.
#[must_use]
pub fn shift(first: &[f64], second: &[f64]) -> Option<Shift> {
    let (first, second) = (sorted(first), sorted(second));
    let pairs = first.len() * second.len();
    if pairs == 0 {
        return None;
    }
    let difference = |k| kth_difference(&first, &second, k);
    let pooled = sorted(&[first.as_slice(), &second].concat());
    let rank =
        (pairs as f64 / 2.0 - Z_95 * variance(first.len(), second.len(), &pooled).sqrt()).floor().max(1.0) as usize;
    let middle = f64::midpoint(difference((pairs - 1) / 2), difference(pairs / 2));
    Some(Shift { shift: middle, low: difference(rank - 1), high: difference(pairs - rank) })
}

/// The `k`-th smallest (from 0) of all `second − first`: the smallest number that more than `k` of them do not exceed,
/// found by halving the range of numbers.
fn kth_difference(first: &[f64], second: &[f64], k: usize) -> f64 {
    let not_above = |limit: f64| {
        // Going up in the second sample, fewer of the first are small enough to matter.
        let (mut from, mut count) = (0, 0);
        for value in second {
            while from < first.len() && value - first[from] > limit {
                from += 1;
            }
            count += first.len() - from;
        }
        count
    };
    let (mut low, mut high) = (key(f64::MIN), key(f64::MAX));
    while low < high {
        let middle = low + (high - low) / 2;
        if not_above(number(middle)) > k { high = middle } else { low = middle + 1 }
    }
    // Without this a zero might come out as −0.
    number(low) + 0.0
}

/// Numbers as integers in the same order, so that a range of them can be halved.
fn key(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn number(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Recovery takes less time.
    Shorter,
    /// It takes more.
    Longer,
    /// What is seen is what chance could do.
    NotDistinguishable,
    /// Nothing could have been seen.
    NotEnoughData,
}

/// The test that a verdict stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Mann–Whitney with its exact distribution.
    MannWhitneyExact,
    /// Mann–Whitney with the normal distribution, corrected for ties and continuity.
    MannWhitney,
    /// Log-rank, since something is still open.
    LogRank,
}

impl Test {
    /// Its name in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MannWhitneyExact => "Mann–Whitney, exact",
            Self::MannWhitney => "Mann–Whitney, normal approximation with ties and continuity",
            Self::LogRank => "log-rank, since something is still open",
        }
    }
}

/// One of the two samples, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// How many began.
    pub n: usize,
    /// How many of them have not recovered.
    pub open: usize,
    /// Those that recovered.
    pub recovered_seconds: Option<Summary>,
    /// Kaplan–Meier median, the open ones censored.
    pub survival_median_seconds: Option<f64>,
}

/// Two samples of recovery times and what can be said of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// What it comes to.
    pub verdict: Verdict,
    /// The test, where there was one.
    pub test: Option<Test>,
    /// Its p-value.
    pub p: Option<f64>,
    /// After − before in seconds, of those that recovered; none while something is open.
    pub shift_seconds: Option<Shift>,
}

impl Comparison {
    /// Compares recovery times in seconds, open incidents censored.
    #[must_use]
    pub fn of(before: &[Observation], after: &[Observation], seed: u64) -> Self {
        let times = |sample: &[Observation]| -> Vec<f64> {
            sample.iter().filter(|o| o.happened && o.time.is_finite()).map(|o| o.time).collect()
        };
        let (old, new) = (times(before), times(after));
        let side = |sample: &[Observation], times: &[f64]| Side {
            n: sample.len(),
            open: sample.iter().filter(|o| !o.happened).count(),
            recovered_seconds: Summary::of(times, seed),
            survival_median_seconds: KaplanMeier::fit(sample).median(),
        };
        let (before_side, after_side) = (side(before, &old), side(after, &new));
        let censored = before_side.open + after_side.open > 0;
        // (p, whether it is now shorter, by which test)
        let tested = if !tellable(old.len(), new.len()) {
            None
        } else if censored {
            log_rank(before, after).map(|found| (found.p, found.excess > 0.0, Test::LogRank))
        } else {
            mann_whitney(&old, &new).map(|found| {
                let test = if found.exact { Test::MannWhitneyExact } else { Test::MannWhitney };
                (found.p, found.u > old.len() as f64 * new.len() as f64 / 2.0, test)
            })
        };
        let verdict = match tested {
            None => Verdict::NotEnoughData,
            Some((p, true, _)) if p < SIGNIFICANT => Verdict::Shorter,
            Some((p, false, _)) if p < SIGNIFICANT => Verdict::Longer,
            Some(_) => Verdict::NotDistinguishable,
        };
        Self {
            before: before_side,
            after: after_side,
            verdict,
            test: tested.map(|(.., test)| test),
            p: tested.map(|(p, ..)| p),
            shift_seconds: if censored { None } else { shift(&old, &new) },
        }
    }
}

/// Whether samples of these sizes can show a difference at all: 2 ÷ C(n + m, n) below [`SIGNIFICANT`].
fn tellable(n: usize, m: usize) -> bool {
    let few = n.min(m);
    if few == 0 {
        return false;
    }
    let mut ways = 1.0;
    for i in 1..=few {
        ways *= (n.max(m) + i) as f64 / i as f64;
        if 2.0 / ways < SIGNIFICANT {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
