//! What repeats every so many steps: whether it does, and by how much (classical decomposition, shrunken).

/// Effects of a season, additive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Season {
    /// One a step of the season, the first for the first value; they sum to 0.
    pub(super) effects: Vec<f64>,
}

impl Season {
    /// The values without it.
    pub(super) fn adjust(&self, values: &[f64]) -> Vec<f64> {
        values.iter().zip(self.effects.iter().cycle()).map(|(value, effect)| value - effect).collect()
    }

    /// Its effects at the steps behind `n` values.
    pub(super) fn ahead(&self, n: usize, horizon: usize) -> impl Iterator<Item = f64> {
        (n..n + horizon).map(|at| self.effects[at % self.effects.len()])
    }
}

/// Whether values repeat every `period` steps: the autocorrelation at that lag against Bartlett's limit at 90 %, as
/// the Theta method asks (Assimakopoulos & Nikolopoulos 2000), of the values without their linear trend. Never of
/// fewer than two whole periods and three values more.
pub(super) fn is_seasonal(values: &[f64], period: usize) -> bool {
    let n = values.len();
    if period < 2 || n < 2 * period + 3 {
        return false;
    }
    let (intercept, slope) = super::ets::line(values);
    let rest: Vec<f64> = values.iter().enumerate().map(|(at, v)| v - intercept - slope * at as f64).collect();
    let whole: f64 = rest.iter().map(|v| v * v).sum();
    let noise = values.iter().map(|v| v * v).sum::<f64>() * 1e-20;
    if whole <= noise {
        return false;
    }
    let correlation = |lag: usize| rest.iter().zip(&rest[lag..]).map(|(a, b)| a * b).sum::<f64>() / whole;
    let before: f64 = (1..period).map(|lag| correlation(lag).powi(2)).sum();
    correlation(period) > 1.645 * ((1.0 + 2.0 * before) / n as f64).sqrt()
}

/// The effects by classical decomposition: means of what is left when a centred moving average over one period is
/// taken off, shrunken towards 0 by James and Stein's rule (Miller & Williams 2003), so that few periods of noise
/// make no season. `None` of fewer than two periods.
pub(super) fn decompose(values: &[f64], period: usize) -> Option<Season> {
    let n = values.len();
    if period < 2 || n < 2 * period {
        return None;
    }
    let half = period / 2;
    // An even period has its two ends counted half, so that the average stands over a value.
    let average = |at: usize| {
        let inner: f64 = values[at - half..=at + half].iter().sum();
        if period.is_multiple_of(2) {
            (inner - 0.5 * (values[at - half] + values[at + half])) / period as f64
        } else {
            inner / period as f64
        }
    };
    let mut rests: Vec<Vec<f64>> = vec![Vec::new(); period];
    for at in half..n - half {
        rests[at % period].push(values[at] - average(at));
    }
    let means: Vec<f64> = rests
        .iter()
        .map(|rest| if rest.is_empty() { 0.0 } else { rest.iter().sum::<f64>() / rest.len() as f64 })
        .collect();
    let centre = means.iter().sum::<f64>() / period as f64;
    let mut effects: Vec<f64> = means.iter().map(|mean| mean - centre).collect();
    let (mut squares, mut free) = (0.0, 0.0);
    for (rest, mean) in rests.iter().zip(&means) {
        squares += rest.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        free += rest.len().saturating_sub(1) as f64;
    }
    let strength: f64 = effects.iter().map(|effect| effect * effect).sum();
    if free > 0.0 && strength > 0.0 && period > 3 {
        let of_mean = squares / free / (n as f64 / period as f64 - 1.0).max(1.0);
        let keep = (1.0 - (period as f64 - 3.0) * of_mean / strength).clamp(0.0, 1.0);
        effects.iter_mut().for_each(|effect| *effect *= keep);
    }
    Some(Season { effects })
}
