//! What comes next in a series, with intervals that hold what they claim, or the answer that there is not enough data.
//!
//! Pure: values at equal steps in, figures out. Several methods (`methods`) are tried on the past from many points
//! (`validate`); the forecast is their mean, each weighted by 1 ÷ its mean absolute error², which in the M3, M1 and
//! tourism competitions was better than the best single one by that trial. `ets` is exponential smoothing with
//! `search` for its rates, `season` finds what repeats, `transform` the scale, `spread` the width of the intervals.
//! (augurs-ets 0.10 has no seasonal models, so the family is here.)

mod ets;
mod methods;
mod search;
mod season;
mod spread;
mod transform;
mod validate;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use methods::Method;
use methods::paths;
use spread::{Spread, reach};
use transform::Scale;
use validate::trial;

/// Fewest values that anything is said of.
pub const FEWEST: usize = 10;
/// Only so many of the newest values are looked at.
pub const MOST: usize = 2_000;
/// Farthest step ahead, and longest season.
pub const FARTHEST: usize = 900;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Steps after which the series repeats: 12 for months, 7 for days; 1 for none.
    pub season: usize,
    /// How many steps ahead.
    pub horizon: usize,
    /// Levels of the intervals in percent, above 0 and below 100.
    pub levels: Vec<f64>,
}

/// Why there is no forecast.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ForecastError {
    /// Too few values, and why they are too few.
    #[error("not enough data: there are {have} values, and {why} needs at least {need}")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: usize,
        /// For what.
        why: String,
    },
    /// A value that is no finite number.
    #[error("value {at} is no finite number")]
    NoNumber {
        /// Which, the first being 1.
        at: usize,
    },
    /// Something that can't be asked for.
    #[error("{0}")]
    Ask(String),
}

/// An interval that the value lies in with a chance of `level` percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// In percent.
    pub level: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// What is expected at a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// 1 is the step behind the last value.
    pub step: usize,
    /// As likely to be above as below (a median).
    pub forecast: f64,
    /// One a level, in the order they were asked for.
    pub intervals: Vec<Interval>,
}

/// What a method did on the past, and its part in the forecast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// Which.
    pub method: Method,
    /// Its weight, 0 to 1.
    pub weight: f64,
    /// Its mean absolute error ÷ that of the seasonal naive forecast, on the scale that was chosen; `None` where the
    /// past could not be tried.
    pub error_to_naive: Option<f64>,
}

/// The forecast, and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// One a step.
    pub steps: Vec<Step>,
    /// The methods that make it, the heaviest first.
    pub parts: Vec<Part>,
    /// Whether it was made in logarithms.
    pub logarithmic: bool,
    /// Whether the season that was asked about is there.
    pub seasonal: bool,
    /// From how many points of the past the methods were tried.
    pub origins: usize,
    /// How many values were looked at.
    pub values: usize,
    /// What should be known of it.
    pub notes: Vec<String>,
}

/// Forecasts a series of values at equal steps, the oldest first.
///
/// Where no value is negative, neither forecasts nor intervals are.
///
/// # Errors
/// Too few values (fewer than [`FEWEST`], than two seasons and three, or than steps ahead), values that are no finite
/// numbers or beyond ±1e100, and questions that make no sense.
pub fn forecast(values: &[f64], ask: &Ask) -> Result<Forecast, ForecastError> {
    check(values, ask)?;
    let mut notes = Vec::new();
    let values = if values.len() > MOST {
        notes.push(format!("only the newest {MOST} of {} values were looked at", values.len()));
        &values[values.len() - MOST..]
    } else {
        values
    };
    let scale = Scale::choose(values, ask.season);
    let made = on(values, scale, ask);
    // In logarithms a steep trend may leave what numbers can hold: then as it is.
    let mut made = match made {
        Some(made) if made.steps.iter().all(Step::is_finite) => made,
        _ => on(values, scale.plain(), ask).ok_or_else(|| ForecastError::Ask("the series can't be fitted".into()))?,
    };
    if values.iter().all(|value| *value >= 0.0) {
        made.steps.iter_mut().for_each(Step::not_negative);
    }
    if values.iter().all(|value| *value == values[0]) {
        notes.push("all values are the same: nothing tells how far the next may differ".into());
    } else if ask.season > 1 && !made.seasonal {
        notes.push(format!("no season of {} steps is there to be seen", ask.season));
    }
    if made.origins == 0 {
        notes.push("too few values to try the methods on the past: the intervals rest on errors within it".into());
    }
    made.notes = notes;
    Ok(made)
}

fn check(values: &[f64], ask: &Ask) -> Result<(), ForecastError> {
    let refuse = |what: String| Err(ForecastError::Ask(what));
    if ask.season == 0 || ask.season > FARTHEST {
        return refuse(format!("a season of {} steps: write 1 (none) to {FARTHEST}", ask.season));
    }
    if ask.horizon == 0 || ask.horizon > FARTHEST {
        return refuse(format!("{} steps ahead: write 1 to {FARTHEST}", ask.horizon));
    }
    if let Some(level) = ask.levels.iter().find(|level| level.is_nan() || **level <= 0.0 || **level >= 100.0) {
        return refuse(format!("a level of {level} %: write a percentage above 0 and below 100, as in 95"));
    }
    if let Some(at) = values.iter().position(|value| value.is_nan() || value.abs() > 1e100) {
        return Err(ForecastError::NoNumber { at: at + 1 });
    }
    let needs = [
        (FEWEST, "a forecast".to_owned()),
        (if ask.season > 1 { 2 * ask.season + 3 } else { 0 }, format!("a season of {} steps", ask.season)),
        (ask.horizon, format!("looking {} steps ahead", ask.horizon)),
    ];
    let have = values.len();
    match needs.into_iter().max_by_key(|(need, _)| *need) {
        Some((need, why)) if have < need => Err(ForecastError::TooFew { have, need, why }),
        _ => Ok(()),
    }
}

/// The forecast on one scale. `None` where no model can be fitted.
fn on(values: &[f64], scale: Scale, ask: &Ask) -> Option<Forecast> {
    let scaled: Vec<f64> = values.iter().map(|value| scale.forth(*value)).collect();
    let found = paths(&scaled, ask.season, ask.horizon)?;
    let trial = trial(&scaled, ask.season, ask.horizon);
    let errors = Method::ALL.map(|method| trial.mean_error(method));
    let weights = weights(&errors);
    let weighted = |of: &dyn Fn(usize) -> f64| weights.iter().enumerate().map(|(at, weight)| weight * of(at)).sum();
    let spread = if trial.origins > 0 {
        let combined: Vec<Vec<f64>> = (0..ask.horizon)
            .map(|step| {
                let count = trial.errors[0][step].len();
                (0..count).map(|at| weighted(&|method| trial.errors[method][step][at])).collect()
            })
            .collect();
        Spread::of(&combined, trial.room)
    } else {
        None
    };
    let spread = spread.unwrap_or_else(|| Spread::untried(found.within, values.len()));
    let reaches: Vec<f64> = ask.levels.iter().map(|level| reach(*level)).collect();
    let steps = (1..=ask.horizon)
        .map(|step| {
            let middle: f64 = weighted(&|method| found.of[method][step - 1]);
            let error = spread.at(step);
            let intervals = ask.levels.iter().zip(&reaches).map(|(level, reach)| Interval {
                level: *level,
                lower: scale.back(middle - reach * error),
                upper: scale.back(middle + reach * error),
            });
            Step { step, forecast: scale.back(middle), intervals: intervals.collect() }
        })
        .collect();
    let naive = errors[Method::SeasonalNaive as usize].filter(|error| *error > 0.0);
    let mut parts: Vec<Part> = Method::ALL
        .iter()
        .zip(weights)
        .zip(errors)
        .filter(|((_, weight), _)| *weight > 0.0)
        .map(|((method, weight), error)| Part {
            method: *method,
            weight,
            error_to_naive: error.zip(naive).map(|(error, naive)| error / naive),
        })
        .collect();
    parts.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    Some(Forecast {
        steps,
        parts,
        logarithmic: scale.logarithmic,
        seasonal: found.seasonal,
        origins: trial.origins,
        values: values.len(),
        notes: Vec::new(),
    })
}

/// What each method counts for: 1 ÷ error², together 1. Untried, all but the naive one count the same.
fn weights(errors: &[Option<f64>; Method::ALL.len()]) -> [f64; Method::ALL.len()] {
    let mut weights = [0.0; Method::ALL.len()];
    let Some(least) = errors.iter().flatten().copied().reduce(f64::min) else {
        for method in [Method::Ets, Method::Theta, Method::Damped] {
            weights[method as usize] = 1.0 / 3.0;
        }
        return weights;
    };
    for (weight, error) in weights.iter_mut().zip(errors) {
        // Relative to the least, so that a perfect one does not divide by 0.
        let ratio = (error.unwrap_or(f64::INFINITY) + 1e-12) / (least + 1e-12);
        *weight = 1.0 / (ratio * ratio);
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

impl Step {
    fn is_finite(&self) -> bool {
        self.forecast.is_finite() && self.intervals.iter().all(|i| i.lower.is_finite() && i.upper.is_finite())
    }

    fn not_negative(&mut self) {
        self.forecast = self.forecast.max(0.0);
        for interval in &mut self.intervals {
            (interval.lower, interval.upper) = (interval.lower.max(0.0), interval.upper.max(0.0));
        }
    }
}
