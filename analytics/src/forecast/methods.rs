//! The methods that may forecast a series, each a function of values alone, so that the same code is tried on the
//! past and used for the future.

use super::ets::{self, Trend};
use super::season::{decompose, is_seasonal};

/// A way to forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Exponential smoothing, its states chosen by Akaike's criterion.
    Ets,
    /// Theta: half the trend, and the level smoothed.
    Theta,
    /// A damped trend on seasonally adjusted values.
    Damped,
    /// As a season ago; as the last value without a season.
    SeasonalNaive,
}

impl Method {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Ets, Self::Theta, Self::Damped, Self::SeasonalNaive];

    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ets => "ets",
            Self::Theta => "theta",
            Self::Damped => "damped",
            Self::SeasonalNaive => "seasonal_naive",
        }
    }
}

/// What every method expects at steps 1 to `horizon`, in the order of [`Method::ALL`], and how it was found.
pub(super) struct Paths {
    pub(super) of: [Vec<f64>; Method::ALL.len()],
    pub(super) seasonal: bool,
    /// Root mean square of the one-step errors of `ets` within the sample.
    pub(super) within: f64,
}

/// Forecasts values by every method. `None` of fewer than four values.
pub(super) fn paths(values: &[f64], period: usize, horizon: usize) -> Option<Paths> {
    let n = values.len();
    let season = is_seasonal(values, period).then(|| decompose(values, period)).flatten();
    let adjusted = season.as_ref().map_or_else(|| values.to_vec(), |season| season.adjust(values));
    let seasoned = |path: Vec<f64>| match &season {
        Some(season) => path.iter().zip(season.ahead(n, horizon)).map(|(level, effect)| level + effect).collect(),
        None => path,
    };
    let smoothed = ets::best(values, season.as_ref())?;
    let ets = smoothed.forecast(horizon);
    let damped = seasoned(ets::fit(&adjusted, None, Trend::Damped)?.forecast(horizon));
    let theta = seasoned(theta(&adjusted, horizon)?);
    let back = if n >= period && period > 1 { period } else { 1 };
    let naive = (0..horizon).map(|step| values[n - back + step % back]).collect();
    let within = (smoothed.squares / n as f64).sqrt();
    Some(Paths { of: [ets, theta, damped, naive], seasonal: season.is_some(), within })
}

/// The Theta method in the form of Hyndman & Billah (2003): simple exponential smoothing, and half the slope of the
/// least-squares line as drift.
pub(super) fn theta(values: &[f64], horizon: usize) -> Option<Vec<f64>> {
    let smooth = ets::fit(values, None, Trend::Flat)?;
    let alpha = smooth.rates.alpha;
    let (_, slope) = ets::line(values);
    let begun = (1.0 - libm::pow(1.0 - alpha, values.len() as f64)) / alpha;
    Some((0..horizon).map(|step| smooth.end.level + slope / 2.0 * (step as f64 + begun)).collect())
}
