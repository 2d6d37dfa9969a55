//! What a detector must hold, whatever its constants: causality, boundedness, and the anomalies that everybody sees.

use chrono::TimeDelta;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn scores(values: &[f64], step: Option<i64>) -> Vec<Score> {
    let begin = DateTime::from_timestamp(1_767_225_600, 0).expect("a time");
    let mut detector = Detector::default();
    let at = |n: usize| step.map(|step| begin + TimeDelta::seconds(step * n as i64));
    values.iter().enumerate().map(|(n, value)| detector.next(at(n), *value)).collect()
}

/// Where anomalies are told.
fn told(values: &[f64], step: Option<i64>) -> Vec<usize> {
    scores(values, step).iter().enumerate().filter(|(_, s)| s.score >= ALARM).map(|(at, _)| at).collect()
}

/// Noise around 50, between 48 and 52.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| 50.0 + 4.0 * (random.random::<f64>() + random.random::<f64>() - 1.0)).collect()
}

/// 20 by night, 80 from 9 to 18, and noise, every five minutes.
fn days(days: usize, seed: u64) -> Vec<f64> {
    let noise = noise(288 * days, seed);
    let level = |n: usize| if (108..216).contains(&(n % 288)) { 80.0 } else { 20.0 };
    noise.iter().enumerate().map(|(n, noise)| level(n) + noise - 50.0).collect()
}

#[test]
fn nothing_is_said_of_noise_and_of_a_standstill() {
    for seed in 0..10 {
        let told = told(&noise(4_000, seed), Some(300));
        assert!(told.len() <= 1, "seed {seed}: {told:?}");
    }
    assert!(scores(&vec![45.0; 3_000], Some(300)).iter().all(|score| score.score == 0.0));
}

#[test]
fn a_spike_is_told_at_once_and_once() {
    let mut values = noise(1_200, 1);
    values[900] = 75.0;
    assert_eq!(told(&values, None), [900]);
    let score = scores(&values, None)[900];
    assert!(matches!(score.reason, Reason::Spike | Reason::Far), "{score:?}");
    assert!((score.expected.expect("expected") - 50.0).abs() < 2.0 && score.basis == Basis::Recent, "{score:?}");
}

#[test]
fn a_new_level_is_told_and_gets_usual() {
    let mut values = noise(6_000, 2);
    values[2_000..].iter_mut().for_each(|value| *value += 15.0);
    let told = told(&values, None);
    assert!((2_000..2_010).contains(&told[0]), "{told:?}");
    assert!(told.iter().all(|at| *at < 2_400), "{told:?}");
    // On the new level the old one is news.
    values[5_900..].iter_mut().for_each(|value| *value -= 15.0);
    assert!(super::tests::told(&values, None).iter().any(|at| (5_900..5_910).contains(at)));
}

#[test]
fn a_standstill_and_a_storm_are_told() {
    let mut values = noise(3_000, 3);
    values[2_000..2_200].fill(50.0);
    let flat = told(&values, None);
    assert!(flat.iter().any(|at| (2_000..2_060).contains(at)), "{flat:?}");
    assert_eq!(scores(&values, None)[flat[0]].reason, Reason::Calmer);
    let mut values = noise(3_000, 4);
    values[2_000..2_200].iter_mut().for_each(|value| *value = 50.0 + 4.0 * (*value - 50.0));
    let storm = told(&values, None);
    assert!(storm.iter().any(|at| (2_000..2_030).contains(at)), "{storm:?}");
}

#[test]
fn a_season_explains_what_repeats_and_shows_what_does_not() {
    let values = days(14, 5);
    assert!(told(&values, Some(300)).iter().all(|at| *at < 4 * 288), "{:?}", told(&values, Some(300)));
    // A day on which the morning never comes, and one that stays half way.
    for level in [20.0, 50.0] {
        let mut values = days(14, 6);
        let quiet = noise(108, 7);
        let day = 11 * 288 + 108;
        for (value, noise) in values[day..day + 108].iter_mut().zip(&quiet) {
            *value = level + noise - 50.0;
        }
        let told = told(&values, Some(300));
        assert!(told.iter().any(|at| (day..day + 12).contains(at)), "{level}: {told:?}");
        let first = scores(&values, Some(300))[day + 1];
        assert!(first.basis != Basis::Recent && (first.expected.expect("expected") - 80.0).abs() < 5.0, "{first:?}");
    }
}

#[test]
fn times_may_repeat_step_back_and_leap() {
    let mut detector = Detector::default();
    let begin = DateTime::from_timestamp(0, 0).expect("a time");
    for n in 0..5_000_i64 {
        let at = begin
            + TimeDelta::seconds(match n % 7 {
                0 => -n * 1_000,
                1 => n * 100_000,
                _ => n * 300,
            });
        let score = detector.next(Some(at), (n % 13) as f64);
        assert!((0.0..1.0).contains(&score.score));
    }
}

#[test]
#[should_panic(expected = "a number within")]
fn what_is_no_number_is_a_broken_promise() {
    Detector::default().next(None, f64::NAN);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Causal: what comes later changes nothing, and what came is all that counts.
    #[test]
    fn scores_of_a_beginning_are_the_beginning_of_the_scores(
        seed in 0..1_000_u64,
        cut in 1..900_usize,
        step in prop::option::of(prop::sample::select(vec![1_i64, 60, 300, 3_600])),
        spike in -1e6..1e6_f64,
    ) {
        let mut values = noise(900, seed);
        values[700] += spike;
        let whole = scores(&values, step);
        prop_assert_eq!(&scores(&values[..cut], step)[..], &whole[..cut]);
        prop_assert!(whole.iter().take(WARM_UP).all(|score| score.score == 0.0));
    }

    #[test]
    fn any_numbers_have_scores(
        values in prop::collection::vec(prop_oneof![-1e100..1e100_f64, Just(0.0), Just(1e-300), -1.0..1.0_f64], 1..500)
    ) {
        for score in scores(&values, Some(300)) {
            prop_assert!((0.0..1.0).contains(&score.score), "{:?}", score);
            prop_assert!(score.expected.is_none_or(f64::is_finite), "{:?}", score);
        }
    }

    /// The unit of measure is nothing to a detector.
    #[test]
    fn a_change_of_unit_changes_no_score(seed in 0..1_000_u64, power in -20..20_i32) {
        let values = noise(600, seed);
        let factor = f64::powi(2.0, power);
        let other: Vec<f64> = values.iter().map(|value| value * factor).collect();
        let of = |values: &[f64]| scores(values, Some(300)).iter().map(|s| s.score).collect::<Vec<_>>();
        prop_assert_eq!(of(&values), of(&other));
    }
}
