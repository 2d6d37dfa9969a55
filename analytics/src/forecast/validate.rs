//! How wrong each method would have been: forecasts from many points of the past (rolling origin), each with nothing
//! but what was known then.

use super::methods::{Method, paths};

/// Most points of the past that are forecast from.
const ORIGINS: usize = 24;

/// What the past taught.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    /// By method, in the order of [`Method::ALL`]; by step; one error (value − forecast) an origin.
    pub(super) errors: [Vec<Vec<f64>>; Method::ALL.len()],
    /// How many points it was forecast from.
    pub(super) origins: usize,
    /// How many values were there to be forecast.
    pub(super) room: usize,
}

/// Forecasts the last three fifths of the values at most, as far ahead as `horizon` or as there are values.
pub(super) fn trial(values: &[f64], period: usize, horizon: usize) -> Trial {
    let n = values.len();
    let fewest = (2 * period + 3).max(n * 2 / 5).max(6);
    let mut trial = Trial {
        errors: std::array::from_fn(|_| vec![Vec::new(); horizon]),
        origins: 0,
        room: n.saturating_sub(fewest),
    };
    // A single error or two say nothing of the next.
    if n < fewest + 3 {
        return trial;
    }
    let room = trial.room;
    let count = room.min(ORIGINS);
    for number in 0..count {
        // Evenly from the most recent back, so that every part of the past has its say.
        let origin = n - 1 - number * room / count;
        let Some(found) = paths(&values[..origin], period, horizon.min(n - origin)) else { continue };
        trial.origins += 1;
        for (errors, path) in trial.errors.iter_mut().zip(&found.of) {
            for (step, expected) in path.iter().enumerate() {
                errors[step].push(values[origin + step] - expected);
            }
        }
    }
    trial
}

impl Trial {
    /// A method's mean absolute error over steps, each step counting once.
    pub(super) fn mean_error(&self, method: Method) -> Option<f64> {
        let steps = self.errors[method as usize].iter().filter(|errors| !errors.is_empty());
        let means: Vec<f64> = steps.map(|e| e.iter().map(|e| e.abs()).sum::<f64>() / e.len() as f64).collect();
        (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
    }
}
