//! How long until something happens, when for some it has not happened yet: Kaplan & Meier's curve, the interval of
//! its median, and the log-rank test between two curves.
//!
//! An open incident is an observation whose event has not happened: it is right-censored at its age, never left out.

use serde::Serialize;

use crate::stats::{Z_95, chi_squared_above};

/// One subject of a survival analysis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How long it was watched.
    pub time: f64,
    /// Whether what was waited for happened then; otherwise it is right-censored: it was still waiting.
    pub happened: bool,
}

/// One step of a survival curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Survival {
    /// When something happened.
    pub time: f64,
    /// Watched until at least then.
    pub at_risk: usize,
    /// How many it happened to.
    pub events: usize,
    /// Share that is still waiting after it.
    pub survival: f64,
    /// Lower end of that share's 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// The product-limit estimate of Kaplan & Meier (1958). A subject censored at the time of an event counts as at risk
/// in it. Intervals are by Greenwood's variance on the log(−log) scale (Kalbfleisch & Prentice 1980), as lifelines and
/// R's `conf.type = "log-log"` have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KaplanMeier {
    steps: Vec<Survival>,
}

/// Observations in time order, those whose time is no finite number left out.
fn ordered(observations: &[Observation]) -> Vec<Observation> {
    let mut ordered: Vec<_> = observations.iter().copied().filter(|o| o.time.is_finite()).collect();
    ordered.sort_unstable_by(|a, b| a.time.total_cmp(&b.time));
    ordered
}

impl KaplanMeier {
    /// Fits the curve; observations whose time is no finite number are left out.
    #[must_use]
    pub fn fit(observations: &[Observation]) -> Self {
        let ordered = ordered(observations);
        let (mut survival, mut at_risk, mut greenwood) = (1.0, ordered.len(), 0.0);
        let mut steps = Vec::new();
        for tied in ordered.chunk_by(|a, b| a.time == b.time) {
            let events = tied.iter().filter(|o| o.happened).count();
            if events > 0 {
                let (d, n) = (events as f64, at_risk as f64);
                survival *= 1.0 - d / n;
                greenwood += d / (n * (n - d));
                let (low, high) = interval(survival, greenwood);
                steps.push(Survival { time: tied[0].time, at_risk, events, survival, low, high });
            }
            at_risk -= tied.len();
        }
        Self { steps }
    }

    /// The curve, in time order.
    #[must_use]
    pub fn steps(&self) -> &[Survival] {
        &self.steps
    }

    fn step_at(&self, time: f64) -> Option<&Survival> {
        self.steps.partition_point(|step| step.time <= time).checked_sub(1).map(|last| &self.steps[last])
    }

    /// Share that is still waiting after `time`.
    #[must_use]
    pub fn survival(&self, time: f64) -> f64 {
        self.step_at(time).map_or(1.0, |step| step.survival)
    }

    /// The 95 % interval of that share; before the first event it is exactly 1.
    #[must_use]
    pub fn survival_interval(&self, time: f64) -> (f64, f64) {
        self.step_at(time).map_or((1.0, 1.0), |step| (step.low, step.high))
    }

    /// The first time after which at most half are still waiting; `None` while more are.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.first_at_half(|step| step.survival)
    }

    /// The 95 % interval of the median (Brookmeyer & Crowley 1982): where the curve's lower and upper bounds come
    /// down to one half. An end that they do not reach is `None`: the interval is open there.
    #[must_use]
    pub fn median_interval(&self) -> (Option<f64>, Option<f64>) {
        (self.first_at_half(|step| step.low), self.first_at_half(|step| step.high))
    }

    fn first_at_half(&self, of: impl Fn(&Survival) -> f64) -> Option<f64> {
        // A product of fractions that is one half by hand may be a hair above it in binary.
        self.steps.iter().find(|step| of(step) <= 0.5 + 1e-12).map(|step| step.time)
    }
}

/// exp(−exp(ln(−ln S) ± z·√G ÷ ln S)); nothing is left to be uncertain of at S = 0.
fn interval(survival: f64, greenwood: f64) -> (f64, f64) {
    if survival <= 0.0 {
        return (0.0, 0.0);
    }
    let log = libm::log(survival);
    let (middle, half) = (libm::log(-log), Z_95 * greenwood.sqrt() / -log);
    (libm::exp(-libm::exp(middle + half)), libm::exp(-libm::exp(middle - half)))
}

/// Whether two curves differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LogRank {
    /// The statistic: chi-squared with one degree of freedom if the curves are the same.
    pub chi_squared: f64,
    /// Its p-value.
    pub p: f64,
    /// Events in the second sample beyond those expected: above 0, things happen sooner in it.
    pub excess: f64,
}

/// The log-rank test (Mantel 1966), unweighted, as `lifelines.statistics.logrank_test`. `None` if nothing could ever
/// tell the two apart: no event while both are watched.
#[must_use]
pub fn log_rank(first: &[Observation], second: &[Observation]) -> Option<LogRank> {
    let (first, second) = (ordered(first), ordered(second));
    let mut times: Vec<f64> = first.iter().chain(&second).filter(|o| o.happened).map(|o| o.time).collect();
    times.sort_unstable_by(f64::total_cmp);
    times.dedup();
    let (mut excess, mut variance) = (0.0, 0.0);
    for time in times {
        let counted = |sample: &[Observation]| {
            let from = sample.partition_point(|o| o.time < time);
            let until = sample.partition_point(|o| o.time <= time);
            let events = sample[from..until].iter().filter(|o| o.happened).count();
            ((sample.len() - from) as f64, events as f64)
        };
        let ((n1, d1), (n2, d2)) = (counted(&first), counted(&second));
        let (n, d) = (n1 + n2, d1 + d2);
        excess += d2 - d * n2 / n;
        if n > 1.0 {
            variance += d * (n1 / n) * (n2 / n) * (n - d) / (n - 1.0);
        }
    }
    (variance > 0.0).then(|| {
        let chi_squared = excess * excess / variance;
        LogRank { chi_squared, p: chi_squared_above(chi_squared), excess }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::near;

    fn watched(times: &[f64], happened: &[u8]) -> Vec<Observation> {
        times
            .iter()
            .zip(happened)
            .map(|(time, happened)| Observation { time: *time, happened: *happened == 1 })
            .collect()
    }

    /// Remission times in weeks of the 6-mercaptopurine arm of Freireich et al. (1963), 12 of 21 censored.
    fn treated() -> Vec<Observation> {
        let times = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35].map(f64::from);
        watched(&times, &[1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0])
    }

    /// The placebo arm: nobody is censored.
    fn placebo() -> Vec<Observation> {
        let times = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23].map(f64::from);
        watched(&times, &[1; 21])
    }

    /// Ties, and subjects censored at the time of an event.
    fn mixed() -> Vec<Observation> {
        let times = [30., 45., 45., 60., 75., 75., 90., 120., 180., 240., 240., 300.];
        watched(&times, &[1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1])
    }

    /// lifelines 0.30: KaplanMeierFitter, confidence_interval_survival_function_, median_survival_times of it.
    #[test]
    fn curves_medians_and_intervals_are_those_of_lifelines() {
        let curve = KaplanMeier::fit(&treated());
        for (time, survival, low, high) in [
            (6.0, 0.857_142_857_142_857, 0.619_717_955_265_983_8, 0.951_551_747_646_996_9),
            (7.0, 0.806_722_689_075_629_9, 0.563_146_564_622_233_3, 0.922_809_019_202_880_2),
            (10.0, 0.752_941_176_470_587_8, 0.503_199_510_799_956_4, 0.889_361_835_169_265_1),
            (15.9, 0.690_196_078_431_372_4, 0.431_610_222_486_183_9, 0.849_065_963_349_450_5),
            (22.0, 0.537_815_126_050_419_9, 0.267_778_936_767_134_93, 0.746_790_717_635_394_3),
            (23.0, 0.448_179_271_708_683_27, 0.188_052_005_959_232_33, 0.680_142_628_495_241_2),
            (90.0, 0.448_179_271_708_683_27, 0.188_052_005_959_232_33, 0.680_142_628_495_241_2),
        ] {
            near(curve.survival(time), survival);
            near(curve.survival_interval(time).0, low);
            near(curve.survival_interval(time).1, high);
        }
        assert_eq!((curve.survival(5.9), curve.survival_interval(5.9)), (1.0, (1.0, 1.0)));
        assert_eq!((curve.median(), curve.median_interval()), (Some(23.0), (Some(13.0), None)));
        let at_risk: Vec<_> = curve.steps().iter().map(|step| (step.time, step.at_risk, step.events)).collect();
        let published = [(6.0, 21, 3), (7.0, 17, 1), (10.0, 15, 1), (13.0, 12, 1), (16.0, 11, 1), (22.0, 7, 1)];
        assert_eq!(at_risk[..6], published);

        let curve = KaplanMeier::fit(&placebo());
        assert_eq!((curve.median(), curve.median_interval()), (Some(8.0), (Some(4.0), Some(11.0))));
        near(curve.survival_interval(22.0).0, 0.003_324_463_042_531_178);
        near(curve.survival_interval(22.0).1, 0.197_044_905_698_946_1);
        assert_eq!((curve.survival(23.0), curve.survival_interval(23.0)), (0.0, (0.0, 0.0)));

        let curve = KaplanMeier::fit(&mixed());
        assert_eq!((curve.median(), curve.median_interval()), (Some(120.0), (Some(45.0), Some(300.0))));
        near(curve.survival(180.0), 0.337_5);
        near(curve.survival_interval(180.0).0, 0.086_474_982_569_963_64);
        near(curve.survival_interval(180.0).1, 0.617_567_155_146_769);
    }

    /// lifelines.statistics.logrank_test; the first is published too: χ² = 16.79 (Kleinbaum & Klein, Survival Analysis).
    #[test]
    fn the_log_rank_test_is_that_of_lifelines() {
        let found = log_rank(&treated(), &placebo()).unwrap();
        near(found.chi_squared, 16.792_940_989_216_547);
        near(found.p, 4.168_809_109_334_511e-5);
        assert!(found.excess > 0.0, "relapses come sooner with the placebo");
        let other = watched(&[20., 35., 40., 50., 75., 80.], &[1, 1, 1, 1, 0, 1]);
        let found = log_rank(&mixed(), &other).unwrap();
        near(found.chi_squared, 3.789_802_344_643_167_7);
        near(found.p, 0.051_565_737_358_263_704);
        let swapped = log_rank(&other, &mixed()).unwrap();
        near(swapped.p, found.p);
        near(swapped.excess, -found.excess);
        assert_eq!(log_rank(&[], &placebo()), None);
        assert_eq!(log_rank(&watched(&[5.0], &[0]), &watched(&[4.0], &[0])), None);
    }

    #[test]
    fn survival_without_events_has_no_median() {
        let open = [Observation { time: 5.0, happened: false }; 3];
        let curve = KaplanMeier::fit(&open);
        assert_eq!((curve.median(), curve.survival(9.0), curve.median_interval()), (None, 1.0, (None, None)));
        assert_eq!(KaplanMeier::fit(&[]).median(), None);
        // ¾ · ⅔ = ½: exactly half are left.
        let four = [1.0, 2.0, 3.0, 4.0].map(|time| Observation { time, happened: true });
        assert_eq!(KaplanMeier::fit(&four).median(), Some(2.0));
        let one = KaplanMeier::fit(&[Observation { time: 0.0, happened: true }]);
        assert_eq!((one.median(), one.median_interval(), one.survival(0.0)), (Some(0.0), (Some(0.0), Some(0.0)), 0.0));
    }

    proptest! {
        #[test]
        fn without_censoring_survival_is_the_share_above(values in prop::collection::vec(0..50u32, 1..60), at in 0..50u32) {
            let all: Vec<_> = values.iter().map(|v| Observation { time: f64::from(*v), happened: true }).collect();
            let above = values.iter().filter(|v| **v > at).count() as f64 / values.len() as f64;
            prop_assert!((KaplanMeier::fit(&all).survival(f64::from(at)) - above).abs() < 1e-9);
        }

        #[test]
        fn bounds_enclose_the_curve_and_are_numbers(watched in prop::collection::vec((0..9u32, any::<bool>()), 0..40)) {
            let watched: Vec<_> =
                watched.iter().map(|(time, happened)| Observation { time: f64::from(*time), happened: *happened }).collect();
            for step in KaplanMeier::fit(&watched).steps() {
                prop_assert!(0.0 <= step.low && step.low <= step.survival && step.survival <= step.high && step.high <= 1.0);
            }
        }
    }
}
