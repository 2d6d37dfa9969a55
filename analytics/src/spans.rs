//! Stretches of time: where two overlap, where one is without the other, how long they are together.
//!
//! Times are microseconds; a stretch has its beginning and not its end. Everything that availability is made of
//! (observed, maintenance, down) is such a set, so that what overlaps is counted once.

/// Stretches in order that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// The union of stretches in any order; those that end before they begin are left out.
    #[must_use]
    pub fn of(stretches: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut ordered: Vec<_> = stretches.into_iter().filter(|(from, until)| until > from).collect();
        ordered.sort_unstable();
        let mut spans: Vec<(i64, i64)> = Vec::with_capacity(ordered.len());
        for (from, until) in ordered {
            match spans.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => spans.push((from, until)),
            }
        }
        Self(spans)
    }

    /// The stretches.
    #[must_use]
    pub fn stretches(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// Whether a moment is in one of them.
    #[must_use]
    pub fn contains(&self, moment: i64) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= moment);
        after.checked_sub(1).is_some_and(|at| moment < self.0[at].1)
    }

    /// What is in both.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        let (mut a, mut b) = (0, 0);
        let mut both = Vec::new();
        while let (Some(one), Some(two)) = (self.0.get(a), other.0.get(b)) {
            let (from, until) = (one.0.max(two.0), one.1.min(two.1));
            if from < until {
                both.push((from, until));
            }
            if one.1 < two.1 { a += 1 } else { b += 1 }
        }
        Self(both)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for (from, until) in &self.0 {
            let mut from = *from;
            let first = other.0.partition_point(|(_, end)| *end <= from);
            for (taken_from, taken_until) in other.0[first..].iter().take_while(|(start, _)| start < until) {
                if *taken_from > from {
                    rest.push((from, *taken_from));
                }
                from = from.max(*taken_until);
            }
            if from < *until {
                rest.push((from, *until));
            }
        }
        Self(rest)
    }

    /// How long they are together, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        // Summed as integers, so that a year of short stretches loses nothing.
        self.0.iter().map(|(from, until)| i128::from(*until) - i128::from(*from)).sum::<i128>() as f64 / 1e6
    }
}

/// Stretches with what they are of: those that overlap or touch put together, with all that they are of, in order.
/// Unlike [`Spans`] this keeps stretches of no length.
pub(crate) fn joined<T: Ord + Copy, N: Ord>(mut stretches: Vec<(T, T, N)>) -> Vec<(T, T, Vec<N>)> {
    stretches.sort_unstable();
    let mut joined: Vec<(T, T, Vec<N>)> = Vec::new();
    for (from, until, of) in stretches {
        match joined.last_mut() {
            Some(last) if from <= last.1 => {
                last.1 = last.1.max(until);
                last.2.push(of);
            }
            _ => joined.push((from, until, vec![of])),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments(spans: &Spans) -> Vec<bool> {
        (0..60).map(|moment| spans.0.iter().any(|(from, until)| *from <= moment && moment < *until)).collect()
    }

    proptest! {
        #[test]
        fn sets_of_time_are_sets_of_moments(
            a in prop::collection::vec((0..60i64, 0..60i64), 0..8), b in prop::collection::vec((0..60i64, 0..60i64), 0..8),
        ) {
            let has = |stretches: &[(i64, i64)], moment| stretches.iter().any(|(from, until)| *from <= moment && moment < *until);
            let (one, two) = (Spans::of(a.clone()), Spans::of(b.clone()));
            let expected = |of: &dyn Fn(bool, bool) -> bool| -> Vec<bool> {
                (0..60).map(|moment| of(has(&a, moment), has(&b, moment))).collect()
            };
            prop_assert_eq!(moments(&one), expected(&|a, _| a));
            prop_assert_eq!(moments(&one.within(&two)), expected(&|a, b| a && b));
            prop_assert_eq!(moments(&one.without(&two)), expected(&|a, b| a && !b));
            let length = moments(&one).iter().filter(|in_it| **in_it).count() as f64;
            prop_assert!((one.seconds() - length / 1e6).abs() < 1e-12);
            prop_assert!((0..60).all(|moment| one.contains(moment) == has(&a, moment)));
            // In order, and apart.
            for spans in [one.within(&two), one.without(&two), one] {
                prop_assert!(spans.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert!(spans.0.iter().all(|(from, until)| from < until));
            }
        }
    }
}
