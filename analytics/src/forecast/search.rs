//! The smallest value of a function of a few variables, by Nelder and Mead (1965): no derivatives, no randomness, the
//! same answer on every machine.

/// Most evaluations for a search.
const MOST: usize = 600;
/// The search ends when the simplex differs by less than this share of its value.
const CLOSE: f64 = 1e-8;

/// Searches from `start` with first steps of `step`; what is no number is worse than everything.
pub(super) fn smallest(start: &[f64], step: f64, mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut rate = |x: &[f64]| {
        let y = f(x);
        if y.is_nan() { f64::INFINITY } else { y }
    };
    let mut simplex: Vec<(f64, Vec<f64>)> = vec![(rate(start), start.to_vec())];
    for axis in 0..start.len() {
        let mut corner = start.to_vec();
        corner[axis] += step;
        simplex.push((rate(&corner), corner));
    }
    let mut spent = simplex.len();
    while spent < MOST {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (best, worst) = (simplex[0].0, simplex[start.len()].0);
        // Two infinities have no difference.
        let apart = worst - best;
        if apart.is_nan() || apart <= CLOSE * best.abs() {
            break;
        }
        let corners = start.len() as f64;
        let centre: Vec<f64> = (0..start.len())
            .map(|axis| simplex[..start.len()].iter().map(|(_, corner)| corner[axis]).sum::<f64>() / corners)
            .collect();
        let from = |far: f64, corner: &[f64]| -> Vec<f64> {
            centre.iter().zip(corner).map(|(centre, corner)| centre + far * (corner - centre)).collect()
        };
        let last = simplex[start.len()].1.clone();
        let mirrored = from(-1.0, &last);
        let value = rate(&mirrored);
        spent += 1;
        let (value, found) = if value < best {
            let further = from(-2.0, &last);
            let there = rate(&further);
            spent += 1;
            if there < value { (there, further) } else { (value, mirrored) }
        } else if value < simplex[start.len() - 1].0 {
            (value, mirrored)
        } else {
            let nearer = from(if value < worst { -0.5 } else { 0.5 }, &last);
            let there = rate(&nearer);
            spent += 1;
            if there < value.min(worst) {
                (there, nearer)
            } else {
                let kept = simplex[0].1.clone();
                for (value, corner) in &mut simplex[1..] {
                    for (x, kept) in corner.iter_mut().zip(&kept) {
                        *x = f64::midpoint(*x, *kept);
                    }
                    *value = rate(corner);
                    spent += 1;
                }
                continue;
            }
        };
        simplex[start.len()] = (value, found);
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex.swap_remove(0).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valley_of_rosenbrock_is_found() {
        let found = smallest(&[-1.2, 1.0], 0.5, |x| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2));
        assert!((found[0] - 1.0).abs() < 1e-3 && (found[1] - 1.0).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn a_function_without_numbers_ends() {
        assert_eq!(smallest(&[1.0, 2.0], 0.5, |_| f64::NAN), [1.0, 2.0]);
        assert_eq!(smallest(&[], 0.5, |_| 1.0), Vec::<f64>::new());
    }
}
