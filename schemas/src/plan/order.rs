//! Putting things after what they need, and naming the cycles when that can't be done.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What [`sort`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sorted {
    /// Every index once, needs first, otherwise as near as can be to index order. Cycles are broken somewhere.
    pub(super) order: Vec<usize>,
    /// Disjoint cycles, each from its smallest index: the first needs the second, the last needs the first.
    pub(super) cycles: Vec<Vec<usize>>,
}

/// Sorts `0..needs.len()`, where `needs[n]` must come before `n`. Linear but for a heap; no recursion, since a
/// chain may be as long as the plan.
pub(super) fn sort(needs: &[Vec<usize>]) -> Sorted {
    let mut wanted_by: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    let mut missing: Vec<usize> = vec![0; needs.len()];
    for (n, list) in needs.iter().enumerate() {
        missing[n] = list.len();
        for need in list {
            wanted_by[*need].push(n);
        }
    }
    let mut placed = vec![false; needs.len()];
    let mut ready: BinaryHeap<Reverse<usize>> = (0..needs.len()).filter(|n| missing[*n] == 0).map(Reverse).collect();
    let mut sorted = Sorted { order: Vec::with_capacity(needs.len()), cycles: Vec::new() };
    let mut next_stuck = 0;
    loop {
        while let Some(Reverse(n)) = ready.pop() {
            if std::mem::replace(&mut placed[n], true) {
                continue;
            }
            sorted.order.push(n);
            for dependant in &wanted_by[n] {
                missing[*dependant] -= 1;
                if missing[*dependant] == 0 {
                    ready.push(Reverse(*dependant));
                }
            }
        }
        while next_stuck < placed.len() && placed[next_stuck] {
            next_stuck += 1;
        }
        if next_stuck == placed.len() {
            return sorted;
        }
        let cycle = cycle_from(next_stuck, needs, &placed);
        // Placing one of the cycle's members breaks it; the rest follows.
        ready.push(Reverse(cycle[0]));
        sorted.cycles.push(cycle);
    }
}

/// Walks from a stuck index along unplaced needs until it meets its own way.
fn cycle_from(start: usize, needs: &[Vec<usize>], placed: &[bool]) -> Vec<usize> {
    let mut position = std::collections::BTreeMap::new();
    let mut way = Vec::new();
    let mut here = start;
    loop {
        if let Some(first) = position.insert(here, way.len()) {
            let mut cycle = way.split_off(first);
            let smallest = cycle.iter().enumerate().min_by_key(|(_, n)| **n).map_or(0, |(at, _)| at);
            cycle.rotate_left(smallest);
            return cycle;
        }
        way.push(here);
        // Invariant: what is stuck has a need that isn't placed, else it would have been ready.
        here = needs[here].iter().copied().find(|need| !placed[*need]).unwrap_or(start);
    }
}

/// `a → b → a`
pub(super) fn arrows(names: &[&str]) -> String {
    let mut text = names.join(" → ");
    if let Some(first) = names.first() {
        text.push_str(" → ");
        text.push_str(first);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(needs: &[&[usize]], order: &[usize], cycles: &[&[usize]]) {
        let needs: Vec<Vec<usize>> = needs.iter().map(|list| list.to_vec()).collect();
        let cycles = cycles.iter().map(|cycle| cycle.to_vec()).collect();
        assert_eq!(sort(&needs), Sorted { order: order.to_vec(), cycles });
    }

    #[test]
    fn needs_come_first_and_the_written_order_is_kept_otherwise() {
        check(&[], &[], &[]);
        check(&[&[], &[], &[]], &[0, 1, 2], &[]);
        check(&[&[2], &[], &[]], &[1, 2, 0], &[]);
        check(&[&[1], &[2], &[]], &[2, 1, 0], &[]);
        check(&[&[1, 2], &[], &[1]], &[1, 2, 0], &[]);
    }

    #[test]
    fn cycles_are_named_once_each() {
        check(&[&[0]], &[0], &[&[0]]);
        check(&[&[1], &[0]], &[0, 1], &[&[0, 1]]);
        check(&[&[1], &[2], &[0], &[0]], &[0, 2, 1, 3], &[&[0, 1, 2]]);
        check(&[&[1], &[0], &[3], &[2]], &[0, 1, 2, 3], &[&[0, 1], &[2, 3]]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_needs_no_deep_stack() {
        let needs: Vec<Vec<usize>> = (0..100_000).map(|n| if n == 0 { vec![] } else { vec![n - 1] }).collect();
        assert_eq!(sort(&needs).order, (0..100_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_cycle_is_written_with_its_return() {
        assert_eq!(arrows(&["a", "b"]), "a → b → a");
    }
}
