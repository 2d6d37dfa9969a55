//! The statistics behind every published figure, each defined once: quantiles, means, intervals, shares. What waits
//! is in [`survival`](crate::survival), what changes over time in [`series`](crate::series), what differs between two
//! samples in [`comparison`](crate::comparison).
//!
//! All of it is pure: values in, figures out, the seed an argument. Values are seconds wherever they are times.
//! A figure that does not exist (nothing to count) is `None`, never NaN and never 0. Logarithms, exponentials and
//! the normal distribution come from `libm` and not from the platform, so that a figure is the same on every machine.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 2_000;
/// Samples larger than this get the interval that the bootstrap converges to, instead of resampling.
const RESAMPLE_UP_TO: usize = 5_000;
/// Two-sided 95 % point of the normal distribution.
pub(crate) const Z_95: f64 = 1.959_963_984_540_054;

/// A sample as it is always published: the mean only beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// Half of them are at most this.
    pub median: f64,
    /// Lower end of the median's 95 % confidence interval.
    pub median_low: f64,
    /// Upper end of it.
    pub median_high: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 95 % are at most this.
    pub p95: f64,
    /// exp of the mean logarithm; 0 if any value is 0.
    pub geometric_mean: f64,
    /// Sum ÷ n.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarises values, none of them negative; `None` if there are none. Values that are no finite number are
    /// left out. The seed decides the bootstrap's draws: same values and seed, same interval.
    #[must_use]
    pub fn of(values: &[f64], seed: u64) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = median_interval(&sorted, seed)?;
        Some(Self {
            n: sorted.len(),
            median: quantile(&sorted, 0.5)?,
            median_low: low,
            median_high: high,
            p90: quantile(&sorted, 0.9)?,
            p95: quantile(&sorted, 0.95)?,
            geometric_mean: geometric_mean(&sorted)?,
            mean: mean(&sorted)?,
            min,
            max,
        })
    }
}

/// The finite values in ascending order.
#[must_use]
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The `q`-quantile (0 to 1) of ascending values by linear interpolation between order statistics: type 7 of
/// Hyndman & Fan (1996), the default of R, NumPy and pandas, and what SQL calls `percentile_cont`.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&q) {
        return None;
    }
    let position = q * (sorted.len().checked_sub(1)?) as f64;
    let below = position.floor();
    let (low, high) = (sorted[below as usize], sorted[position.ceil() as usize]);
    Some(low + (high - low) * (position - below))
}

/// The median of values in any order.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// The arithmetic mean.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// exp of the mean logarithm, for values that are not negative; 0 if any of them is 0.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.iter().any(|v| *v < 0.0) {
        return None;
    }
    // ln 0 is −∞, whose mean is −∞, whose exponential is 0.
    mean(&values.iter().map(|v| libm::log(*v)).collect::<Vec<_>>()).map(libm::exp)
}

/// A 95 % confidence interval of the median of ascending values: percentile bootstrap (Efron 1979) with
/// [`RESAMPLES`] resamples. Above [`RESAMPLE_UP_TO`] values, the ranks n/2 ± z·√n/2 that it converges to.
#[must_use]
pub fn median_interval(sorted: &[f64], seed: u64) -> Option<(f64, f64)> {
    let n = sorted.len();
    if n == 0 {
        return None;
    }
    if n > RESAMPLE_UP_TO {
        let half_width = Z_95 / (2.0 * (n as f64).sqrt());
        return Some((quantile(sorted, 0.5 - half_width)?, quantile(sorted, 0.5 + half_width)?));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draws = vec![0_usize; n];
    let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| resampled_median(sorted, &mut draws, &mut random)).collect();
    medians.sort_unstable_by(f64::total_cmp);
    Some((quantile(&medians, 0.025)?, quantile(&medians, 0.975)?))
}

/// Draws as many values as there are, with replacement, and gives their median. Ranks are drawn instead of values:
/// the median of the values is the value at the median rank.
fn resampled_median(sorted: &[f64], draws: &mut [usize], random: &mut impl Rng) -> f64 {
    let n = sorted.len();
    for draw in draws.iter_mut() {
        *draw = random.random_range(0..n);
    }
    let (below, upper, _) = draws.select_nth_unstable(n / 2);
    let upper = sorted[*upper];
    match (n % 2, below.iter().max()) {
        (0, Some(lower)) => f64::midpoint(sorted[*lower], upper),
        _ => upper,
    }
}

/// The chance that a standard normal variable is further from 0 than `z`: the two-sided p-value.
#[must_use]
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The chance that a chi-squared variable with one degree of freedom is above `x`.
#[must_use]
pub fn chi_squared_above(x: f64) -> f64 {
    normal_two_sided(x.max(0.0).sqrt())
}

/// So many of so many, with the 95 % score interval of Wilson (1927), which holds for few and for extreme ones too.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Proportion {
    /// How many of them.
    pub part: usize,
    /// Of how many.
    pub whole: usize,
    /// part ÷ whole, 0 to 1; `None` of nothing.
    pub share: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
}

impl Proportion {
    /// `part` of `whole`; a part larger than the whole is the whole.
    #[must_use]
    pub fn of(part: usize, whole: usize) -> Self {
        if whole == 0 {
            return Self::default();
        }
        let part = part.min(whole);
        let (n, p, z2) = (whole as f64, part as f64 / whole as f64, Z_95 * Z_95);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        // At the ends the formula is exact, and rounding must not lead beyond them.
        let low = if part == 0 { 0.0 } else { (middle - half).max(0.0) };
        let high = if part == whole { 1.0 } else { (middle + half).min(1.0) };
        Self { part, whole, share: Some(p), low: Some(low), high: Some(high) }
    }
}

impl FromIterator<bool> for Proportion {
    /// Those that are true, of all.
    fn from_iter<T: IntoIterator<Item = bool>>(all: T) -> Self {
        let (mut part, mut whole) = (0, 0);
        for one in all {
            part += usize::from(one);
            whole += 1;
        }
        Self::of(part, whole)
    }
}

/// A share of a whole, 0 to 1; `None` of nothing.
#[must_use]
pub fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))
}

/// Availability = good time ÷ (observed − maintenance), all in seconds and good time outside maintenance.
#[must_use]
pub fn availability(good: f64, observed: f64, maintenance: f64) -> Option<f64> {
    share(good, observed - maintenance)
}

/// Coverage = observed ÷ calendar: how much of the time availability speaks of.
#[must_use]
pub fn coverage(observed: f64, calendar: f64) -> Option<f64> {
    share(observed, calendar)
}

/// MTBF = observed uptime outside maintenance ÷ HARD failures, in seconds; `None` without a failure.
#[must_use]
pub fn mean_time_between_failures(uptime: f64, failures: usize) -> Option<f64> {
    (failures > 0).then(|| uptime / failures as f64)
}

/// Total length of intervals `(from, until)`, counting what overlaps once; those that end before they begin are
/// left out.
#[must_use]
pub fn union_length(intervals: &[(f64, f64)]) -> f64 {
    let mut ordered: Vec<_> = intervals.iter().copied().filter(|(from, until)| until > from).collect();
    ordered.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut total, mut covered) = (0.0, f64::NEG_INFINITY);
    for (from, until) in ordered {
        total += (until - from.max(covered)).max(0.0);
        covered = covered.max(until);
    }
    total
}

/// Attainment of a recovery time objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Attainment {
    /// Recovered within the objective.
    pub met: usize,
    /// Recovered at all.
    pub recovered: usize,
    /// Still open and already past the objective.
    pub open_past: usize,
}

/// Whether a recovery time objective was met: `lasted` seconds so far or until it recovered, of `objective` allowed.
///
/// | | within | beyond |
/// |---|---|---|
/// | recovered | yes | no |
/// | open | not known yet | no |
#[must_use]
pub fn rto_met(lasted: f64, recovered: bool, objective: f64) -> Option<bool> {
    let within = lasted <= objective;
    (recovered || !within).then_some(within)
}

impl Attainment {
    /// Counts one incident, by [`rto_met`].
    pub fn count(&mut self, lasted: f64, recovered: bool, objective: f64) {
        self.recovered += usize::from(recovered);
        match rto_met(lasted, recovered, objective) {
            Some(true) => self.met += 1,
            Some(false) if !recovered => self.open_past += 1,
            Some(false) | None => {}
        }
    }

    /// Met ÷ (recovered + open past it); `None` of nothing.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        self.proportion().share
    }

    /// The same with its interval.
    #[must_use]
    pub fn proportion(&self) -> Proportion {
        Proportion::of(self.met, self.recovered + self.open_past)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    fn near(found: Option<f64>, expected: f64) {
        fixture::near(found.expect("a figure"), expected);
    }

    #[test]
    fn quantiles_are_type_7() {
        // R: quantile(c(1, 2, 4, 8, 16), c(.1, .25, .5, .9, .95)); NumPy's "linear" gives the same.
        let five = [1.0, 2.0, 4.0, 8.0, 16.0];
        for (q, expected) in [(0.0, 1.0), (0.1, 1.4), (0.25, 2.0), (0.5, 4.0), (0.9, 12.8), (0.95, 14.4), (1.0, 16.0)] {
            near(quantile(&five, q), expected);
        }
        // By hand for 1..=10: 1 + 9q.
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        for (q, expected) in [(0.5, 5.5), (0.9, 9.1), (0.95, 9.55), (0.33, 3.97)] {
            near(quantile(&ten, q), expected);
        }
        near(quantile(&[7.0], 0.9), 7.0);
        assert_eq!((quantile(&[], 0.5), quantile(&five, 1.1), quantile(&five, f64::NAN)), (None, None, None));
    }

    #[test]
    fn a_summary_holds_what_is_published() {
        let summary = Summary::of(&[8.0, 1.0, f64::NAN, 4.0, 16.0, 2.0], 1).unwrap();
        assert_eq!((summary.n, summary.min, summary.max), (5, 1.0, 16.0));
        near(Some(summary.mean), 6.2);
        near(Some(summary.median), 4.0);
        near(Some(summary.geometric_mean), 4.0);
        assert_eq!(Summary::of(&[], 1), None);
        let one = Summary::of(&[3.0], 1).unwrap();
        assert_eq!((one.median_low, one.median, one.median_high, one.p95), (3.0, 3.0, 3.0, 3.0));
        assert_eq!(geometric_mean(&[0.0, 5.0]), Some(0.0));
        assert_eq!(geometric_mean(&[-1.0, 5.0]), None);
    }

    /// The chance that a resample's median is at most the j-th smallest of n (n odd) is that of drawing at least
    /// (n+1)/2 times among the first j: a binomial tail, which gives the interval without drawing anything.
    #[test]
    fn the_bootstrap_agrees_with_its_exact_distribution() {
        let values: Vec<f64> = (1..=21).map(f64::from).collect();
        let tail = |p: f64| -> f64 {
            let binomial = |k: u32| (0..k).fold(1.0, |c, i| c * f64::from(21 - i) / f64::from(i + 1));
            (11..=21).map(|k| binomial(k) * p.powi(k as i32) * (1.0 - p).powi(21 - k as i32)).sum()
        };
        let rank = |level: f64| (1..=21).find(|j| tail(f64::from(*j) / 21.0) >= level).map(f64::from).unwrap();
        let (low, high) = median_interval(&values, 7).unwrap();
        // 7 and 15; the resampled quantiles may fall on the neighbouring rank.
        assert!((low - rank(0.025)).abs() <= 1.0 && (high - rank(0.975)).abs() <= 1.0, "{low} {high}");
        assert_eq!(median_interval(&values, 7), Some((low, high)), "same seed, same interval");
    }

    #[test]
    fn large_samples_get_the_limit_of_the_bootstrap() {
        let values: Vec<f64> = (0..=10_000).map(f64::from).collect();
        let (low, high) = median_interval(&values, 1).unwrap();
        // 5000 ± 1.96 · √10001 / 2
        assert!((low - 4902.0).abs() < 0.2 && (high - 5098.0).abs() < 0.2, "{low} {high}");
    }

    /// scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), and scipy.stats.norm.sf and chi2.sf.
    #[test]
    fn shares_and_chances_are_those_of_scipy() {
        for (part, whole, low, high) in [
            (0, 10, 0.0, 0.277_532_799_862_889_26),
            (8, 10, 0.490_162_471_536_641_8, 0.943_317_848_545_624_8),
            (10, 10, 0.722_467_200_137_110_9, 1.0),
            (81, 263, 0.255_288_519_878_274_2, 0.366_209_576_982_800_04),
            (15, 148, 0.062_386_399_530_736_29, 0.160_487_241_723_308_03),
        ] {
            let found = Proportion::of(part, whole);
            near(found.low, low);
            near(found.high, high);
        }
        assert_eq!(Proportion::of(0, 0), Proportion::default());
        for (z, p) in
            [(0.5, 0.617_075_077_451_973_8), (-1.96, 0.049_995_790_296_440_87), (4.12807, 3.658_207_616_017_484e-5)]
        {
            near(Some(normal_two_sided(z)), p);
        }
        assert!((normal_two_sided(8.0) / 1.244_192_114_854_348e-15 - 1.0).abs() < 1e-9);
        for (x, p) in
            [(0.1, 0.751_829_634_045_849_2), (3.84, 0.050_043_521_248_705_19), (16.79, 4.175_275_138_919_787e-5)]
        {
            near(Some(chi_squared_above(x)), p);
        }
        // scipy.stats.gmean
        near(geometric_mean(&[0.5, 2.0, 8.0, 120.0, 3600.0]), 20.310_225_567_949_626);
    }

    #[test]
    fn shares_of_nothing_are_none() {
        near(availability(90.0, 110.0, 10.0), 0.9);
        near(coverage(50.0, 200.0), 0.25);
        near(mean_time_between_failures(300.0, 3), 100.0);
        assert_eq!((availability(0.0, 5.0, 5.0), coverage(1.0, 0.0)), (None, None));
        assert_eq!(mean_time_between_failures(300.0, 0), None);
        assert!((union_length(&[(0.0, 10.0), (5.0, 12.0), (20.0, 21.0), (9.0, 8.0), (2.0, 3.0)]) - 13.0).abs() < 1e-12);
    }

    #[test]
    fn attainment_counts_the_open_ones_that_are_late() {
        let mut attainment = Attainment::default();
        assert_eq!(attainment.share(), None);
        for (lasted, recovered) in [(59.0, true), (60.0, true), (61.0, true), (60.0, false), (61.0, false)] {
            attainment.count(lasted, recovered, 60.0);
        }
        assert_eq!(attainment, Attainment { met: 2, recovered: 3, open_past: 1 });
        assert_eq!(attainment.share(), Some(0.5));
    }

    proptest! {
        #[test]
        fn figures_keep_their_order(values in prop::collection::vec(0.0..1e9f64, 1..80), seed: u64) {
            let s = Summary::of(&values, seed).unwrap();
            prop_assert!(s.min <= s.median && s.median <= s.p90 && s.p90 <= s.p95 && s.p95 <= s.max);
            prop_assert!(s.median_low <= s.median_high && s.min <= s.median_low && s.median_high <= s.max);
            prop_assert!(s.geometric_mean <= s.mean * (1.0 + 1e-9), "geometric mean above the mean");
        }
    }
}
