//! Reference figures of scipy 1.17 (`mannwhitneyu`, and numpy over all differences) and by hand.

use proptest::prelude::*;

use super::*;
use crate::fixture::near;

fn every(from: u32, until: u32, step: usize) -> Vec<f64> {
    (from..until).step_by(step).map(f64::from).collect()
}

#[test]
fn mann_whitney_is_that_of_scipy() {
    let (slow, fast) = ([310., 250., 265., 190., 205., 180., 240.], [120., 95., 130., 101.5, 99., 185., 88., 77.]);
    for (first, second, u, p, exact) in [
        // scipy's own example: diagnosis of diabetes in young people.
        (&[19., 22., 16., 29., 24.][..], &[20., 11., 17., 12.][..], 17.0, 0.111_111_111_111_111_1, true),
        (&slow, &fast, 55.0, 0.000_621_600_621_600_621_6, true),
        (&[1., 2., 3., 4.], &[5., 6., 7., 8.], 0.0, 0.028_571_428_571_428_57, true),
        (&[1., 4., 5., 8.], &[2., 3., 6., 7.], 8.0, 1.0, true),
        (
            &[5., 5., 7., 8., 8., 9., 10., 12., 12., 13.],
            &[3., 4., 5., 5., 6., 7., 8., 8., 9.],
            70.0,
            0.043_289_409_655_990_096,
            false,
        ),
        (&every(20, 60, 3), &every(15, 52, 4), 90.5, 0.241_259_459_386_368_95, false),
        (&[4., 4., 4.], &[4., 4., 4., 4.], 6.0, 1.0, false),
    ] {
        let found = mann_whitney(first, second).unwrap();
        assert_eq!((found.u, found.exact), (u, exact), "{first:?} {second:?}");
        near(found.p, p);
    }
    assert_eq!((mann_whitney(&[], &[1.0]), shift(&[1.0], &[])), (None, None));
}

/// C(8, 4) = 70 ways, of which 1, 1, 2, 3, 5, 5, 7, 7, 8, … give U = 0, 1, 2, … (Mann & Whitney's table).
#[test]
fn the_ways_are_those_of_the_published_table() {
    assert_eq!(ways(4, 4), [1, 1, 2, 3, 5, 5, 7, 7, 8, 7, 7, 5, 5, 3, 2, 1, 1]);
    assert_eq!(ways(1, 3), [1, 1, 1, 1]);
    // C(5008, 8), by hand from the definition of the binomial.
    let all: u128 = (1..=8u128).fold(1, |c, i| c * (5_000 + i) / i);
    assert_eq!(ways(8, 5_000).iter().sum::<u128>(), all);
}

#[test]
fn shifts_have_the_interval_of_their_ranks() {
    let ties = (vec![5., 5., 7., 8., 8., 9., 10., 12., 12., 13.], vec![3., 4., 5., 5., 6., 7., 8., 8., 9.]);
    let exact = (vec![310., 250., 265., 190., 205., 180., 240.], vec![120., 95., 130., 101.5, 99., 185., 88., 77.]);
    for ((first, second), [middle, low, high]) in [
        (ties, [-3., -5., 0.]),
        (exact, [-120., -170., -78.5]),
        ((every(20, 60, 3), every(15, 52, 4)), [-6.5, -18., 5.]),
    ] {
        let found = shift(&first, &second).unwrap();
        assert_eq!([found.shift, found.low, found.high], [middle, low, high]);
    }
}

fn recovered(times: &[f64]) -> Vec<Observation> {
    times.iter().map(|time| Observation { time: *time, happened: true }).collect()
}

#[test]
fn a_verdict_names_its_test() {
    let slow = recovered(&[310., 250., 265., 190., 205., 180., 240.]);
    let fast = recovered(&[120., 95., 130., 101.5, 99., 185., 88., 77.]);
    let found = Comparison::of(&slow, &fast, 1);
    assert_eq!((found.verdict, found.test), (Verdict::Shorter, Some(Test::MannWhitneyExact)));
    assert_eq!(found.shift_seconds.unwrap().shift, -120.0);
    assert_eq!(Comparison::of(&fast, &slow, 1).verdict, Verdict::Longer);
    assert_eq!(Comparison::of(&slow, &slow, 1).verdict, Verdict::NotDistinguishable);

    // One still open: the log-rank test, and no shift of what has not ended.
    let mut open = fast.clone();
    open.push(Observation { time: 20.0, happened: false });
    let found = Comparison::of(&slow, &open, 1);
    assert_eq!((found.verdict, found.test, found.after.open), (Verdict::Shorter, Some(Test::LogRank), 1));
    assert_eq!(found.shift_seconds, None);
}

#[test]
fn too_few_are_not_enough_and_never_no_difference() {
    for (n, m, enough) in [
        (0, 0, false),
        (0, 90, false),
        (3, 3, false),
        (4, 4, true),
        (1, 38, false),
        (1, 40, true),
        (2, 8, true),
        (2, 7, false),
    ] {
        let before: Vec<f64> = (0..n).map(f64::from).collect();
        let after: Vec<f64> = (0..m).map(|v| f64::from(v) + 0.5).collect();
        let found = Comparison::of(&recovered(&before), &recovered(&after), 1);
        assert_eq!(found.verdict != Verdict::NotEnoughData, enough, "{n} {m}");
        assert_eq!((found.test.is_some(), found.p.is_some()), (enough, enough));
    }
    let open = [Observation { time: 9.0, happened: false }; 50];
    assert_eq!(Comparison::of(&open, &open, 1).verdict, Verdict::NotEnoughData);
}

proptest! {
    #[test]
    fn differences_are_found_without_writing_them_down(
        first in prop::collection::vec(-50..50i32, 1..20), second in prop::collection::vec(-50..50i32, 1..20),
    ) {
        let first = sorted(&first.iter().map(|v| f64::from(*v) / 8.0).collect::<Vec<_>>());
        let second = sorted(&second.iter().map(|v| f64::from(*v) / 8.0).collect::<Vec<_>>());
        let all = sorted(&second.iter().flat_map(|b| first.iter().map(move |a| b - a)).collect::<Vec<_>>());
        for (k, expected) in all.iter().enumerate() {
            prop_assert_eq!(kth_difference(&first, &second, k), *expected);
        }
        let p = mann_whitney(&first, &second).unwrap().p;
        prop_assert!((0.0..=1.0).contains(&p));
        prop_assert!((p - mann_whitney(&second, &first).unwrap().p).abs() < 1e-12);
    }
}
