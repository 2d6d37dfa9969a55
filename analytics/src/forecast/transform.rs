//! On which scale a series is forecast: in logarithms where its swings grow with its level, else as it is.

/// The scale, and the unit that values are divided by so that no square over- or underflows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) logarithmic: bool,
    unit: f64,
}

impl Scale {
    /// Chooses by Guerrero's criterion (1993) between λ = 0 and 1: on the better scale the standard deviation of a
    /// season (of four steps without one) varies less, in proportion to what its mean to that power says.
    pub(super) fn choose(values: &[f64], period: usize) -> Self {
        let unit = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let logarithmic = values.iter().all(|value| *value > 0.0) && grows(values, period.max(4), unit);
        Self { logarithmic, unit }
    }

    /// The same without logarithms.
    pub(super) fn plain(self) -> Self {
        Self { logarithmic: false, ..self }
    }

    pub(super) fn forth(self, value: f64) -> f64 {
        let value = value / self.unit;
        if self.logarithmic { libm::log(value) } else { value }
    }

    pub(super) fn back(self, value: f64) -> f64 {
        self.unit * if self.logarithmic { libm::exp(value) } else { value }
    }
}

fn grows(values: &[f64], block: usize, unit: f64) -> bool {
    let blocks: Vec<(f64, f64)> = values
        .rchunks_exact(block)
        .map(|block| {
            let n = block.len() as f64;
            let mean = block.iter().map(|v| v / unit).sum::<f64>() / n;
            let squares = block.iter().map(|v| (v / unit - mean).powi(2)).sum::<f64>();
            (mean, (squares / (n - 1.0)).sqrt())
        })
        .filter(|(_, deviation)| *deviation > 0.0)
        .collect();
    if blocks.len() < 2 {
        return false;
    }
    let varies = |ratios: Vec<f64>| {
        let n = ratios.len() as f64;
        let mean = ratios.iter().sum::<f64>() / n;
        (ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt() / mean
    };
    varies(blocks.iter().map(|(mean, deviation)| deviation / mean).collect())
        < varies(blocks.iter().map(|(_, deviation)| *deviation).collect())
}
