//! What is unusual in a series: a score in [0, 1] for every value as it comes, from those before it and nothing else.
//!
//! Pure, a bounded amount of work and memory a value. The way of a value:
//!
//! 1. Three tracks see it (`track`): as it is, less what its time of the day lets expect, and less what its time of
//!    the week does (`season`, learnt from the past). The track whose expectation erred least lately is believed.
//! 2. A track asks five questions of it: is it far from the last values ([`Reason::Spike`]), from the usual ones
//!    ([`Reason::Far`]), are the last few on another level ([`Reason::Level`]), do they vary more
//!    ([`Reason::Wilder`]) or less ([`Reason::Calmer`]) than ever?
//! 3. Each answer is a tail probability under the answers of the past, with a heavy tail laid on beyond them (`tail`).
//!    So a score means the same for CPU shares and for bytes. The surprise is the mean of the five −log₁₀ p.
//! 4. An episode is told once: after a value that scores [`ALARM`] or more, the next [`EPISODE`] values stay below it
//!    unless they are still a hundred times more surprising.
//!
//! The constants are round figures near the middle of a plateau: twice or half as much changes little. README.md says
//! what it scores in the Numenta Anomaly Benchmark, by `benches/nab.py`.

mod season;
mod tail;
mod track;

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use serde::Serialize;

use season::{DayMean, Season};
use track::{Track, Verdict};

/// A score from here on is an anomaly.
pub const ALARM: f64 = 0.5;
/// Values that are only learnt from: their score is 0.
pub const WARM_UP: usize = 150;
/// For so many values behind an anomaly what goes on is part of it.
pub const EPISODE: usize = 100;

/// The mean surprise that [`ALARM`] stands for: each answer as rare as one in forty.
const ALARMING: f64 = 1.6;
/// Within an episode only what is more surprising by so many powers of ten is told anew.
const ANEW: f64 = 2.0;
/// No surprise counts for more.
const MOST: f64 = 20.0;
/// Values over which the tracks' errors are compared.
const MEMORY: f64 = 400.0;
/// How much better than the plain track a season must do to be believed, and the week than the day.
const BETTER: [f64; 2] = [0.85, 0.95];

const DAY: i64 = 86_400;

/// Why a value is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Far from the last values.
    Spike,
    /// The last few values are on another level.
    Level,
    /// The values vary more than they did.
    Wilder,
    /// They vary less than they did, or stand still.
    Calmer,
    /// Far from what is usual.
    Far,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Spike, Self::Level, Self::Wilder, Self::Calmer, Self::Far];

    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spike => "far from the last values",
            Self::Level => "on a new level",
            Self::Wilder => "varies more than before",
            Self::Calmer => "varies less than before",
            Self::Far => "far from what is usual",
        }
    }
}

/// What the expectation rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The last values.
    Recent,
    /// The same time of other days.
    Day,
    /// The same time of other weeks.
    Week,
}

/// What is said of a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// 0 (as ever) to 1 (as never); an anomaly from [`ALARM`] on.
    pub score: f64,
    /// What was expected; `None` of the first value.
    pub expected: Option<f64>,
    /// What about it is the most unusual.
    pub reason: Reason,
    /// What the expectation rests on.
    pub basis: Basis,
}

/// Scores a series, value after value.
#[derive(Debug, Clone)]
pub struct Detector {
    seen: usize,
    tracks: [Track; 3],
    errors: [Error; 3],
    seasons: [Season; 2],
    mean: DayMean,
    episode: Episode,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            seen: 0,
            tracks: std::array::from_fn(|_| Track::default()),
            errors: [Error::default(); 3],
            // Two to five days, three to eight weeks; in parts of five minutes and of half an hour.
            seasons: [Season::new(DAY, 300, 2, 5), Season::new(7 * DAY, 1_800, 3, 8)],
            mean: DayMean::default(),
            episode: Episode::default(),
        }
    }
}

impl Detector {
    /// Scores the next value. Without its time no season is looked for; times may repeat or step back, as clocks do.
    ///
    /// # Panics
    /// If the value is not within ±1e100: what is no number has no place in a series.
    pub fn next(&mut self, at: Option<DateTime<Utc>>, value: f64) -> Score {
        assert!(value.abs() <= 1e100, "a value of a series is a number within ±1e100");
        let seconds = at.map(|at| at.timestamp());
        // A season is one of differences from the last day's mean, so that a new level does not undo it.
        let mean = seconds.and_then(|at| self.mean.before(at)).unwrap_or(value);
        let different = value - mean;
        let mut views = [Some(View { value, error: different }), None, None];
        if let Some(at) = seconds {
            for (view, season) in views[1..].iter_mut().zip(&mut self.seasons) {
                *view = season.expects(at).map(|expected| View {
                    value: value - expected.nearest(different),
                    error: different - expected.middle,
                });
                season.learn(at, different);
            }
            self.mean.learn(at, value);
        }
        let believed = self.believed(&views);
        let mut verdict = None;
        for (number, (track, view)) in self.tracks.iter_mut().zip(&views).enumerate() {
            let Some(view) = view else { continue };
            let said = track.next(view.value);
            self.errors[number].learn(view.error);
            if number == believed {
                verdict = Some((said, view.value));
            }
        }
        let (Verdict { surprises, middle }, seen_as) = verdict.expect("the plain track sees every value");
        self.seen += 1;
        let surprise = if self.seen <= WARM_UP { 0.0 } else { surprises.iter().sum::<f64>() / surprises.len() as f64 };
        let told = self.episode.tell(surprise.min(MOST));
        let most = surprises.iter().enumerate().fold(0, |most, (n, s)| if *s > surprises[most] { n } else { most });
        Score {
            score: told / (told + ALARMING),
            expected: middle.map(|middle| value - seen_as + middle),
            reason: Reason::ALL[most],
            basis: [Basis::Recent, Basis::Day, Basis::Week][believed],
        }
    }

    /// The track whose expectation erred least lately, the plain one unless another is clearly better.
    fn believed(&self, views: &[Option<View>; 3]) -> usize {
        let mut believed = 0;
        for track in [1, 2] {
            let better = self.errors[track].mean() < BETTER[usize::from(believed > 0)] * self.errors[believed].mean();
            if views[track].is_some() && self.tracks[track].seen() >= WARM_UP && better {
                believed = track;
            }
        }
        believed
    }
}

/// A value as a track sees it, and how wrong the expectation behind that was.
#[derive(Debug, Clone, Copy)]
struct View {
    value: f64,
    error: f64,
}

/// A mean absolute error that forgets; one error counts for five times the mean at most.
#[derive(Debug, Clone, Copy, Default)]
struct Error {
    sum: f64,
    weight: f64,
}

impl Error {
    fn mean(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { f64::INFINITY }
    }

    fn learn(&mut self, error: f64) {
        let mean = self.mean();
        let error = if mean.is_finite() && mean > 0.0 { error.abs().min(5.0 * mean) } else { error.abs() };
        let keep = 1.0 - 1.0 / MEMORY;
        (self.sum, self.weight) = (self.sum * keep + error, self.weight * keep + 1.0);
    }
}

/// What was told, so that it is not told again.
#[derive(Debug, Clone, Copy, Default)]
struct Episode {
    left: usize,
    peak: f64,
}

impl Episode {
    fn tell(&mut self, surprise: f64) -> f64 {
        let anew = if self.left > 0 { surprise > self.peak + ANEW } else { surprise >= ALARMING };
        if anew {
            *self = Self { left: EPISODE, peak: surprise };
            return surprise;
        }
        self.left = self.left.saturating_sub(1);
        // Just below an alarm.
        surprise.min(0.99 * ALARMING)
    }
}
