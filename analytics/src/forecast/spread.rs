//! How wide the intervals are: what the past's errors were at each step ahead, and what they leave out.
//!
//! Errors within the sample are too small, since the model was fitted to them; so the errors of the rolling origin are
//! taken. There are few of them a step and they overlap, so a curve is laid through them, s·hᵖ, whose exponent is drawn
//! towards ½ (a random walk's). The constants were chosen on half of the M3, M1 and tourism competitions' series; what
//! they cover on the other half is in the README.

/// Exponent that the curve is drawn to, and the weight of that.
const EXPONENT: (f64, f64) = (0.5, 8.0);
/// The past's models knew fewer values than the one that forecasts.
const KNOWN_MORE: f64 = 0.92;
/// Degrees of freedom of the errors: their tails are heavier than the normal distribution's.
const FREEDOM: u32 = 10;
/// How much larger than errors within the sample errors are, where the past could not be tried.
const UNTRIED: f64 = 1.0;

/// Standard error by step ahead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    first: f64,
    exponent: f64,
    /// Values that were forecast in the trial: a forecast far beyond as many is less sure.
    room: f64,
}

impl Spread {
    /// From errors by step ahead (the first at step 1). `None` where there are none.
    pub(super) fn of(errors: &[Vec<f64>], room: usize) -> Option<Self> {
        let (mut weights, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (step, errors) in errors.iter().enumerate().filter(|(_, errors)| !errors.is_empty()) {
            // √(π/2) times the mean absolute error is the standard error of normal ones; of others it is less swayed by
            // the largest.
            let mean = errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len() as f64;
            // Errors of nothing have no logarithm; they are as small as numbers tell apart.
            let (h, size) = (step as f64 + 1.0, libm::log((mean * std::f64::consts::FRAC_PI_2.sqrt()).max(1e-15)));
            // Far steps overlap most: their errors say the least.
            let (weight, h_log) = (errors.len() as f64 / h, libm::log(h));
            weights += weight;
            x += weight * h_log;
            y += weight * size;
            xx += weight * h_log * h_log;
            xy += weight * h_log * size;
        }
        if weights <= 0.0 {
            return None;
        }
        let (x, y) = (x / weights, y / weights);
        let exponent = (xy - weights * x * y + EXPONENT.0 * EXPONENT.1) / (xx - weights * x * x + EXPONENT.1);
        let exponent = exponent.clamp(0.0, 1.0);
        let first = KNOWN_MORE * libm::exp(y - exponent * x);
        Some(Self { first: if first > 1e-14 { first } else { 0.0 }, exponent, room: (room as f64).max(1.0) })
    }

    /// From the root mean square of one-step errors within the sample of `n` values: where the past can't be tried.
    pub(super) fn untried(within: f64, n: usize) -> Self {
        let first = if within > 1e-14 { UNTRIED * within } else { 0.0 };
        Self { first, exponent: EXPONENT.0, room: (n as f64).max(1.0) }
    }

    /// The standard error at a step, the first being 1.
    pub(super) fn at(&self, step: usize) -> f64 {
        let h = step as f64;
        self.first * libm::pow(h, self.exponent) * (1.0 + (h + 3.0) / self.room).sqrt()
    }
}

/// How many standard errors to either side hold so many of 100: Student's t with [`FREEDOM`] degrees of freedom.
pub(super) fn reach(level: f64) -> f64 {
    let wanted = level / 100.0;
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if within(middle) < wanted { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The chance to be within ±t, in the closed form for even degrees of freedom (Abramowitz & Stegun 26.7.4).
fn within(t: f64) -> f64 {
    let freedom = f64::from(FREEDOM);
    let cosine_squared = freedom / (freedom + t * t);
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..FREEDOM / 2 {
        term *= cosine_squared * f64::from(2 * k - 1) / f64::from(2 * k);
        sum += term;
    }
    (1.0 - cosine_squared).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.stats.t.ppf(0.5 + level / 200, 10), scipy 1.17.
    #[test]
    fn students_quantiles_are_the_published() {
        for (level, t) in [(50.0, 0.699_812_061), (80.0, 1.372_183_641), (95.0, 2.228_138_852), (99.0, 3.169_272_673)] {
            assert!((reach(level) - t).abs() < 1e-8, "{level}: {} is not {t}", reach(level));
        }
    }

    #[test]
    fn intervals_widen_with_the_step_and_need_errors() {
        assert_eq!(Spread::of(&[Vec::new(), Vec::new()], 5), None);
        let spread = Spread::of(&[vec![1.0, -1.0, 1.0], vec![0.9, -0.9]], 5).expect("errors");
        assert!((1..30).all(|h| spread.at(h) <= spread.at(h + 1)), "{spread:?}");
        assert_eq!(Spread::of(&[vec![0.0, 0.0]], 2).expect("errors").at(7), 0.0);
        assert_eq!(Spread::untried(0.0, 12).at(3), 0.0);
    }
}
