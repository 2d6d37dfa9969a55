//! Is there a trend in a series, how steep is it, and when did it change: Mann–Kendall, Theil–Sen, Pettitt.
//!
//! All three ask about order and not about size, so that one long outage does not decide. Pure: values in their
//! order in, figures out. Values that are no finite number are left out. The p-values are those of the large-sample
//! distributions, which are rough below ten values; what is too few to say anything is `None`.

use std::ops::Range;

use serde::Serialize;

use crate::stats::{Z_95, normal_two_sided, quantile, sorted};

/// Most points that [`theil_sen`] takes: it looks at every pair of them.
pub const MOST_POINTS: usize = 3_000;

/// Whether a series rises or falls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MannKendall {
    /// How many values.
    pub n: usize,
    /// Pairs that rise minus pairs that fall.
    pub s: f64,
    /// Variance of `s` without a trend, ties accounted for.
    pub variance: f64,
    /// `s` in standard deviations, one taken off towards 0 for continuity.
    pub z: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Kendall's tau, −1 (always falls) to 1 (always rises): `s` ÷ number of pairs.
    pub tau: f64,
}

/// The test of Mann (1945) and Kendall (1975) with the correction for ties, as `pymannkendall.original_test`.
/// `None` of fewer than three values.
#[must_use]
pub fn mann_kendall(values: &[f64]) -> Option<MannKendall> {
    let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let n = values.len();
    if n < 3 {
        return None;
    }
    let sorted = sorted(&values);
    let mut seen = Tally::new(n);
    let mut s = 0.0;
    for (before, value) in values.iter().enumerate() {
        let Range { start: from, end: until } = ranks(&sorted, *value);
        let (smaller, not_larger) = (seen.below(from), seen.below(until));
        s += smaller as f64 - (before - not_larger) as f64;
        seen.add(from);
    }
    let variance = (weight(n as f64) - ties(&sorted).map(weight).sum::<f64>()) / 18.0;
    let z = if variance > 0.0 { (s - s.signum() * s.abs().min(1.0)) / variance.sqrt() } else { 0.0 };
    let pairs = n as f64 * (n as f64 - 1.0) / 2.0;
    Some(MannKendall { n, s, variance, z, p: normal_two_sided(z), tau: s / pairs })
}

/// 18 times the variance of S over so many values without ties; and what so many equal ones take off it.
fn weight(n: f64) -> f64 {
    n * (n - 1.0) * (2.0 * n + 5.0)
}

/// Where a value's equals are among ascending values: below are the smaller ones, above the larger.
pub(crate) fn ranks(sorted: &[f64], value: f64) -> Range<usize> {
    sorted.partition_point(|other| *other < value)..sorted.partition_point(|other| *other <= value)
}

/// Sizes of the groups of equal values.
pub(crate) fn ties(sorted: &[f64]) -> impl Iterator<Item = f64> + '_ {
    sorted.chunk_by(|a, b| a == b).map(|equal| equal.len() as f64)
}

/// Counts by position, with sums of prefixes (a Fenwick tree): n log n where comparing pairs takes n².
struct Tally(Vec<usize>);

impl Tally {
    fn new(n: usize) -> Self {
        Self(vec![0; n + 1])
    }

    fn add(&mut self, position: usize) {
        let mut node = position + 1;
        while node < self.0.len() {
            self.0[node] += 1;
            node += node & node.wrapping_neg();
        }
    }

    /// How many were added at positions below this.
    fn below(&self, position: usize) -> usize {
        let (mut node, mut sum) = (position, 0);
        while node > 0 {
            sum += self.0[node];
            node -= node & node.wrapping_neg();
        }
        sum
    }
}

/// How steep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TheilSen {
    /// Median of the slopes of all pairs: unit of y by unit of x.
    pub slope: f64,
    /// median(y) − slope · median(x).
    pub intercept: f64,
    /// Lower end of the slope's 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// The line of Theil (1950) and Sen (1968) through points `(x, y)` in any order, with Sen's interval, ties accounted
/// for: `scipy.stats.theilslopes`. `None` of fewer than two different x, or of more than [`MOST_POINTS`] points.
#[must_use]
pub fn theil_sen(points: &[(f64, f64)]) -> Option<TheilSen> {
    let points: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    if points.len() > MOST_POINTS {
        return None;
    }
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (at, (x1, y1)) in points.iter().enumerate() {
        slopes.extend(points[at + 1..].iter().filter(|(x2, _)| x2 != x1).map(|(x2, y2)| (y2 - y1) / (x2 - x1)));
    }
    let slopes = sorted(&slopes);
    let slope = quantile(&slopes, 0.5)?;
    let xs = sorted(&points.iter().map(|(x, _)| *x).collect::<Vec<_>>());
    let ys = sorted(&points.iter().map(|(_, y)| *y).collect::<Vec<_>>());
    let (n, pairs) = (points.len() as f64, slopes.len() as f64);
    let of_ties = |values: &[f64]| ties(values).map(weight).sum::<f64>();
    let variance = (weight(n) - of_ties(&xs) - of_ties(&ys)) / 18.0;
    let half = Z_95 * variance.max(0.0).sqrt();
    let lower = (((pairs - half) / 2.0).round_ties_even() - 1.0).max(0.0) as usize;
    let upper = (((pairs + half) / 2.0).round_ties_even() as usize).min(slopes.len() - 1);
    let intercept = quantile(&ys, 0.5)? - slope * quantile(&xs, 0.5)?;
    Some(TheilSen { slope, intercept, low: slopes[lower], high: slopes[upper] })
}

/// When a series changed its level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChangePoint {
    /// Index of the last value before the change.
    pub last_before: usize,
    /// The statistic K = max |U|.
    pub k: f64,
    /// p-value, that there is no change: 2·exp(−6K² ÷ (n³ + n²)), at most 1.
    pub p: f64,
}

/// The change point of Pettitt (1979), ties with their mean rank. `None` of fewer than three values.
#[must_use]
pub fn pettitt(values: &[f64]) -> Option<ChangePoint> {
    let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let n = values.len() as f64;
    if values.len() < 3 {
        return None;
    }
    let sorted = sorted(&values);
    let (mut sum, mut last_before, mut k) = (0.0, 0, 0.0);
    // After the last value U is 0 by definition: it is no candidate.
    for (at, value) in values[..values.len() - 1].iter().enumerate() {
        let Range { start: from, end: until } = ranks(&sorted, *value);
        sum += (from + 1 + until) as f64 / 2.0;
        let u = (2.0 * sum - (at + 1) as f64 * (n + 1.0)).abs();
        if u > k {
            (last_before, k) = (at, u);
        }
    }
    let p = (2.0 * libm::exp(-6.0 * k * k / (n * n * n + n * n))).min(1.0);
    Some(ChangePoint { last_before, k, p })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::near;

    fn indexed(values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect()
    }

    /// Annual flow of the Nile at Aswan, 1871 to 1970, in 10⁸ m³ (Cobb 1978; R's `datasets::Nile`).
    const NILE: [u32; 100] = [
        1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960, 1180, 799, 958, 1140,
        1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694, 940, 833, 701, 916, 692, 1020, 1050, 969,
        831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845, 864, 862, 698, 845, 744, 796, 1040, 759, 781,
        865, 845, 944, 984, 897, 822, 1010, 771, 676, 649, 846, 812, 742, 801, 1040, 860, 874, 848, 890, 744, 749, 838,
        1050, 918, 986, 797, 923, 975, 815, 1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
    ];

    /// Published: S = −1387, Z = −4.12807, slope −2.6 (−3.62791 to −1.42857), change point 1898.
    /// The further digits: pymannkendall 1.4.3 and scipy 1.17.
    #[test]
    fn the_nile_fell_in_1898() {
        let nile = NILE.map(f64::from);
        let trend = mann_kendall(&nile).unwrap();
        assert_eq!((trend.n, trend.s), (100, -1387.0));
        near(trend.variance, 112_728.333_333_333_33);
        near(trend.z, -4.128_066_522_844_101);
        near(trend.p, 3.658_262_921_657_496e-5);
        near(trend.tau, -0.280_202_020_202_020_2);
        let line = theil_sen(&indexed(&nile)).unwrap();
        near(line.slope, -2.6);
        near(line.intercept, 1_022.2);
        near(line.low, -3.627_906_976_744_186);
        near(line.high, -1.428_571_428_571_428_6);
        let change = pettitt(&nile).unwrap();
        assert_eq!((1871 + change.last_before, change.k), (1898, 1617.0));
        near(change.p, 3.591_022_176_936_292_7e-7);
    }

    /// pymannkendall.original_test, scipy.stats.theilslopes; Pettitt by numpy's ranks.
    #[test]
    fn ties_gaps_and_short_series_are_as_elsewhere() {
        struct Case {
            values: &'static [f64],
            at: &'static [f64],
            /// S, variance, z, p, tau.
            trend: [f64; 5],
            /// Slope, intercept, low, high.
            line: [f64; 4],
            /// Index, K, p.
            change: (usize, f64, f64),
        }
        for case in [
            Case {
                values: &[5., 5., 4., 6., 6., 6., 3., 4., 2., 2., 2., 1.],
                at: &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.],
                trend: [
                    -38.,
                    203.333_333_333_333_34,
                    -2.594_761_431_277_623_5,
                    0.009_465_659_595_764_286,
                    -0.575_757_575_757_575_7,
                ],
                line: [-0.369_318_181_818_181_8, 6.031_25, -0.666_666_666_666_666_6, -0.142_857_142_857_142_85],
                change: (5, 35., 0.039_433_685_314_621_39),
            },
            Case {
                values: &[9.5, 7.25, 8.0, 3.5],
                at: &[0., 1., 2., 3.],
                trend: [
                    -4.,
                    8.666_666_666_666_666,
                    -1.019_049_330_730_136_3,
                    0.308_179_547_467_053_9,
                    -0.666_666_666_666_666_6,
                ],
                line: [-1.937_5, 10.531_25, -4.5, 0.75],
                change: (0, 3., 1.),
            },
            Case {
                values: &[1., 2., 3.],
                at: &[0., 1., 2.],
                trend: [3., 3.666_666_666_666_666_5, 1.044_465_935_734_187, 0.296_269_871_484_286_4, 1.],
                line: [1., 1., 1., 1.],
                change: (0, 2., 1.),
            },
            Case {
                values: &[3., 3., 3., 3., 3.],
                at: &[0., 1., 2., 3., 4.],
                trend: [0., 0., 0., 1., 0.],
                line: [0., 3., 0., 0.],
                change: (0, 0., 1.),
            },
            Case {
                values: &[310., 250., 265., 190., 205., 180., 240., 120.],
                at: &[0., 1., 3., 4., 7., 8., 9., 12.],
                trend: [
                    -18.,
                    65.333_333_333_333_33,
                    -2.103_204_552_047_922_3,
                    0.035_447_892_552_460_836,
                    -0.642_857_142_857_142_9,
                ],
                line: [-15., 305., -20., -1.25],
                change: (2, 15., 0.191_934_172_089_996_94),
            },
            Case {
                values: &[
                    316.91, 317.64, 318.45, 318.99, 319.62, 320.04, 321.37, 322.18, 323.05, 324.62, 325.68, 326.32,
                    327.46,
                ],
                at: &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.],
                trend: [78., 268.666_666_666_666_7, 4.697_684_345_866_536, 2.631_276_625_475_465e-6, 1.],
                line: [
                    0.874_722_222_222_222_4,
                    316.121_666_666_666_67,
                    0.769_999_999_999_981_8,
                    0.989_999_999_999_997_8,
                ],
                change: (5, 42., 0.022_817_543_195_122_223),
            },
        ] {
            let found = mann_kendall(case.values).unwrap();
            for (found, expected) in [found.s, found.variance, found.z, found.p, found.tau].into_iter().zip(case.trend)
            {
                near(found, expected);
            }
            let points: Vec<_> = case.at.iter().copied().zip(case.values.iter().copied()).collect();
            let found = theil_sen(&points).unwrap();
            for (found, expected) in [found.slope, found.intercept, found.low, found.high].into_iter().zip(case.line) {
                near(found, expected);
            }
            let found = pettitt(case.values).unwrap();
            assert_eq!((found.last_before, found.k), (case.change.0, case.change.1), "{:?}", case.values);
            near(found.p, case.change.2);
        }
    }

    #[test]
    fn too_little_says_nothing() {
        for few in [&[][..], &[1.0], &[1.0, 2.0], &[f64::NAN, 1.0, 2.0]] {
            assert_eq!((mann_kendall(few), pettitt(few)), (None, None));
        }
        assert_eq!(
            (theil_sen(&[]), theil_sen(&[(1.0, 2.0)]), theil_sen(&[(1.0, 2.0), (1.0, 3.0)])),
            (None, None, None)
        );
        assert_eq!(theil_sen(&vec![(0.0, 0.0); MOST_POINTS + 1]), None);
        let two = theil_sen(&[(1.0, 2.0), (2.0, 5.0)]).unwrap();
        assert_eq!((two.slope, two.low, two.high), (3.0, 3.0, 3.0));
    }

    proptest! {
        #[test]
        fn the_tally_counts_what_pairs_say(values in prop::collection::vec(0..12u32, 3..60)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let mut s = 0.0;
            for (i, a) in values.iter().enumerate() {
                s += values[i + 1..].iter().map(|b| if b > a { 1.0 } else if b < a { -1.0 } else { 0.0 }).sum::<f64>();
            }
            let found = mann_kendall(&values).unwrap();
            prop_assert_eq!(found.s, s);
            prop_assert!(found.z.is_finite() && (0.0..=1.0).contains(&found.p));
            let line = theil_sen(&indexed(&values)).unwrap();
            prop_assert!(line.low <= line.slope && line.slope <= line.high);
        }
    }
}
