//! Exponential smoothing with additive errors, in its state-space form (Hyndman, Koehler, Ord & Snyder 2008):
//! level, a trend that may be damped, a season that may change. One recursion for all members of the family.

use super::search::smallest;
use super::season::Season;

/// Which states a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trend {
    /// None: simple exponential smoothing.
    Flat,
    /// Holt's.
    Linear,
    /// Gardner and McKenzie's: each step's growth is φ times the one before.
    Damped,
}

/// How fast each state follows, all between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Of the level.
    pub(super) alpha: f64,
    /// Of the growth: below alpha.
    pub(super) beta: f64,
    /// Of the season: below 1 − alpha.
    pub(super) gamma: f64,
    /// What is left of the growth a step later; 1 without damping.
    pub(super) phi: f64,
}

/// What a model knows at a point in time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) level: f64,
    pub(super) growth: f64,
    /// Effects of the season, the next step's first; empty without a season.
    pub(super) season: Vec<f64>,
}

impl State {
    /// Takes in all values, and gives the sum of squared one-step errors.
    pub(super) fn follow(&mut self, values: &[f64], rates: Rates) -> f64 {
        let (mut level, mut growth, mut phase, mut squares) = (self.level, self.growth, 0, 0.0);
        for value in values {
            let expected = level + rates.phi * growth;
            let effect = self.season.get(phase).copied().unwrap_or(0.0);
            let error = value - expected - effect;
            squares += error * error;
            level = expected + rates.alpha * error;
            growth = rates.phi * growth + rates.beta * error;
            if let Some(effect) = self.season.get_mut(phase) {
                *effect += rates.gamma * error;
                phase = if phase + 1 == self.season.len() { 0 } else { phase + 1 };
            }
        }
        self.season.rotate_left(phase);
        (self.level, self.growth) = (level, growth);
        squares
    }

    /// What it expects at steps 1 to `horizon`.
    pub(super) fn forecast(&self, horizon: usize, phi: f64) -> Vec<f64> {
        let (mut damped, mut growth) = (phi, 0.0);
        (0..horizon)
            .map(|step| {
                growth += damped * self.growth;
                damped *= phi;
                let effect = if self.season.is_empty() { 0.0 } else { self.season[step % self.season.len()] };
                self.level + growth + effect
            })
            .collect()
    }
}

/// A fitted model.
#[derive(Debug, Clone)]
pub(super) struct Fitted {
    /// For those who ask which member won.
    #[cfg(test)]
    pub(super) trend: Trend,
    pub(super) rates: Rates,
    pub(super) end: State,
    /// Sum of squared one-step errors within the sample.
    pub(super) squares: f64,
    /// Akaike's criterion, corrected for small samples: lower is better.
    pub(super) aicc: f64,
}

impl Fitted {
    pub(super) fn forecast(&self, horizon: usize) -> Vec<f64> {
        self.end.forecast(horizon, self.rates.phi)
    }
}

/// The logistic function between two bounds, so that the search knows no walls.
fn between(x: f64, low: f64, high: f64) -> f64 {
    low + (high - low) / (1.0 + libm::exp(-x))
}

fn rates_at(x: &[f64], trend: Trend, seasonal: bool) -> Rates {
    let alpha = between(x[0], 0.0001, 0.9999);
    let mut rest = x[1..].iter();
    let mut next = |low, high| rest.next().map_or(low, |x| between(*x, low, high));
    let beta = if trend == Trend::Flat { 0.0 } else { next(0.0, alpha) };
    let phi = if trend == Trend::Damped { next(0.8, 0.98) } else { 1.0 };
    let gamma = if seasonal { next(0.0, 1.0 - alpha) } else { 0.0 };
    Rates { alpha, beta, gamma, phi }
}

/// Fits one member of the family by least squares: rates, first level and first growth are searched, the first
/// season is what decomposition says. `None` of fewer than four values.
pub(super) fn fit(values: &[f64], season: Option<&Season>, trend: Trend) -> Option<Fitted> {
    let n = values.len();
    let begin = match season {
        Some(season) => n.min((2 * season.effects.len()).max(10)),
        None => n.min(10),
    };
    let adjusted: Vec<f64> = match season {
        Some(season) => values[..begin].iter().zip(season.effects.iter().cycle()).map(|(v, s)| v - s).collect(),
        None => values[..begin].to_vec(),
    };
    if n < 4 {
        return None;
    }
    let (intercept, slope) = line(&adjusted);
    // The steps of the search are in units of how the values scatter.
    let scale = (adjusted.iter().map(|v| (v - intercept).abs()).sum::<f64>() / begin as f64).max(f64::MIN_POSITIVE);
    let effects = season.map(|season| season.effects.clone()).unwrap_or_default();
    let first = |x: &[f64]| {
        let (level, growth) = match trend {
            Trend::Flat => (f64::midpoint(adjusted[0], intercept + slope * (begin as f64 - 1.0) / 2.0), 0.0),
            Trend::Linear | Trend::Damped => (intercept, slope),
        };
        let [.., by_level, by_growth] = x else { unreachable!("a rate and two steps at least") };
        let growth = if trend == Trend::Flat { 0.0 } else { growth + by_growth * scale / 10.0 };
        State { level: level + by_level * scale, growth, season: effects.clone() }
    };
    let mut start = vec![-0.5];
    if trend != Trend::Flat {
        start.push(-2.0);
    }
    if trend == Trend::Damped {
        start.push(1.0);
    }
    if season.is_some() {
        start.push(-1.5);
    }
    let of_rates = start.len();
    start.extend([0.0, 0.0]);
    let found = smallest(&start, 0.8, |x| {
        // Steps far beyond the data are none.
        let stray = (x[of_rates].abs() - 6.0).max(0.0) + (x[of_rates + 1].abs() - 6.0).max(0.0);
        first(x).follow(values, rates_at(x, trend, season.is_some())) * (1.0 + stray)
    });
    let (rates, mut end) = (rates_at(&found, trend, season.is_some()), first(&found));
    let squares = end.follow(values, rates);
    let free = of_rates + 1 + usize::from(trend != Trend::Flat) + effects.len().saturating_sub(1) + 1;
    // A perfect fit is as good as the numbers can tell.
    let floor = values.iter().map(|v| v * v).sum::<f64>().max(f64::MIN_POSITIVE) * 1e-24;
    let (count, free) = (n as f64, free as f64);
    let likelihood = count * libm::log((squares.max(floor)) / count);
    let room = count - free - 1.0;
    let aicc = if room > 0.0 { likelihood + 2.0 * free + 2.0 * free * (free + 1.0) / room } else { f64::INFINITY };
    (squares.is_finite()).then_some(Fitted {
        #[cfg(test)]
        trend,
        rates,
        end,
        squares,
        aicc,
    })
}

/// The member with the lowest criterion; the simplest where none can be told apart.
pub(super) fn best(values: &[f64], season: Option<&Season>) -> Option<Fitted> {
    let mut all = [Trend::Flat, Trend::Damped, Trend::Linear].into_iter().filter_map(|t| fit(values, season, t));
    let first = all.next()?;
    Some(all.fold(first, |best, next| if next.aicc < best.aicc { next } else { best }))
}

/// Intercept (at the first value) and slope of the least-squares line.
pub(super) fn line(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / n;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let x = at as f64 - middle;
        xy += x * (value - mean);
        xx += x * x;
    }
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (mean - slope * middle, slope)
}
