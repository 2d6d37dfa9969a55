//! How rare a size is among those seen, newer ones counting more; beyond them, by a heavy tail.

/// Buckets an octave, and octaves to either side of the first size.
const FINE: f64 = 8.0;
const OCTAVES: f64 = 40.0;
const BUCKETS: usize = 640;
/// Buckets whose counts are also kept as one sum.
const GROUP: usize = 32;
/// Sizes after which one counts half.
const HALF_LIFE: f64 = 4_000.0;
/// The share of the largest sizes that the tail is laid through.
const SHARE: f64 = 0.03;
/// The tail's shape (Hill 1975: mean of the logarithms beyond the share) before any is seen, and what that weighs.
const SHAPE: (f64, f64) = (0.25, 10.0);

/// What a count grows by with each size, so that older ones count half after [`HALF_LIFE`].
const GROWTH: f64 = 1.0 + std::f64::consts::LN_2 / HALF_LIFE;

/// Sizes seen, none negative: a histogram of their logarithms. Nothing at all (0) is far below the smallest. Scaling
/// all sizes by a power of two changes nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    buckets: Vec<f64>,
    groups: Vec<f64>,
    /// The highest bucket that was ever in use.
    top: usize,
    total: f64,
    /// What the newest counts; it grows instead of all others shrinking.
    weight: f64,
    /// The first size above 0; 0 before.
    unit: f64,
}

impl Tail {
    /// −log₁₀ of the chance that a size is as large as this, by those before it; then counts it in.
    pub(super) fn surprise(&mut self, size: f64) -> f64 {
        let place = self.place(size);
        let surprise = self.rarity(place);
        self.learn(size, place);
        surprise
    }

    /// Where a size lies among the buckets.
    fn place(&self, size: f64) -> f64 {
        if size <= 0.0 {
            return 0.0;
        }
        let octave = if self.unit > 0.0 { libm::log2(size / self.unit) } else { 0.0 };
        ((octave + OCTAVES) * FINE).clamp(0.0, BUCKETS as f64 - 1.0)
    }

    fn rarity(&self, place: f64) -> f64 {
        if self.total <= 0.0 {
            return 0.0;
        }
        let n = self.total / self.weight;
        let chance = |above: f64| -libm::log10((above / self.weight + 0.5) / (n + 0.5));
        let wanted = (SHARE * self.total).max(self.weight);
        let (mut beyond, mut logs, mut edge) = (0.0, 0.0, self.top);
        for bucket in (0..=self.top).rev() {
            let count = self.buckets[bucket];
            beyond += count;
            logs += count * (bucket as f64 + 0.5);
            edge = bucket;
            if beyond >= wanted {
                break;
            }
        }
        if place > edge as f64 {
            let octave = std::f64::consts::LN_2 / FINE;
            let seen = beyond / self.weight;
            let excess = (logs / self.weight - seen * edge as f64) * octave;
            let shape = (excess + SHAPE.0 * SHAPE.1) / (seen + SHAPE.1);
            return (chance(beyond) + (place - edge as f64) * octave / shape / std::f64::consts::LN_10).max(0.0);
        }
        let bucket = place as usize;
        let within = self.buckets[bucket] * (1.0 - place.fract());
        let group = bucket / GROUP + 1;
        let above: f64 = self.buckets[bucket + 1..group * GROUP].iter().chain(&self.groups[group..]).sum();
        chance(above + within).max(0.0)
    }

    fn learn(&mut self, size: f64, place: f64) {
        if self.buckets.is_empty() {
            (self.buckets, self.groups, self.weight) = (vec![0.0; BUCKETS], vec![0.0; BUCKETS / GROUP], 1.0);
        }
        if self.unit <= 0.0 && size > 0.0 {
            self.unit = size;
        }
        let bucket = place as usize;
        self.buckets[bucket] += self.weight;
        self.groups[bucket / GROUP] += self.weight;
        self.top = self.top.max(bucket);
        self.total += self.weight;
        self.weight *= GROWTH;
        if self.weight > 1e100 {
            let by = 1.0 / self.weight;
            self.buckets.iter_mut().chain(&mut self.groups).for_each(|count| *count *= by);
            (self.total, self.weight) = (self.total * by, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tail: &Tail, size: f64) -> f64 {
        tail.rarity(tail.place(size))
    }

    #[test]
    fn what_is_as_ever_surprises_nobody_and_what_never_was_does() {
        let mut tail = Tail::default();
        assert_eq!(tail.surprise(1.0), 0.0);
        for n in 0..1_000 {
            tail.surprise(1.0 + f64::from(n % 100) / 100.0);
        }
        assert!(of(&tail, 1.0) < 0.01 && (0.2..0.5).contains(&of(&tail, 1.5)), "{}", of(&tail, 1.5));
        assert!((1.0..2.5).contains(&of(&tail, 1.99)), "{}", of(&tail, 1.99));
        assert!(of(&tail, 20.0) > 4.0 && of(&tail, 200.0) > of(&tail, 20.0));
        assert_eq!(of(&tail, 0.0), 0.0);
    }

    #[test]
    fn a_move_after_nothing_but_standstill_surprises_most() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            assert_eq!(tail.surprise(0.0), 0.0);
        }
        assert!(of(&tail, 3.0) > 20.0 && of(&tail, 3.0).is_finite(), "{}", of(&tail, 3.0));
    }

    #[test]
    fn the_unit_is_nothing() {
        let (mut one, mut other) = (Tail::default(), Tail::default());
        for n in 1..2_000_u32 {
            let size = f64::from(n.wrapping_mul(2_654_435_761) % 1_000);
            assert_eq!(one.surprise(size).to_bits(), other.surprise(size * 1024.0).to_bits());
        }
    }
}
