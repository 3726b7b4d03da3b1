//! How values are spread, in buckets of one percent: for quantiles of what has come so far.
//!
//! A bucket holds the values of one sign in `(g^(i-1), g^i]` with g = 1.02 and stands for their geometric middle, so a
//! quantile is off by one percent at most. What is smaller than 1e-9 counts as 0, what is larger than 1e15 as that:
//! there are never more than about 5,600 buckets, and rarely more than 300.

use super::saved::{Saved, Saving};

/// How much wider each bucket is than the one below it.
const WIDENING: f64 = 1.02;
const SMALLEST: f64 = 1e-9;
const LARGEST: f64 = 1e15;
/// Numbers of buckets of positive values are moved by this, so that they lie above that of 0 and mirror negative ones.
const MOVED: i32 = 1 << 15;

/// Counts of values by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogHistogram {
    total: u64,
    /// In the order of the values.
    buckets: Vec<(i32, u32)>,
}

impl LogHistogram {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn add(&mut self, x: f64) {
        let bucket = bucket_of(x);
        match self.buckets.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(place) => self.buckets[place].1 = self.buckets[place].1.saturating_add(1),
            Err(place) => self.buckets.insert(place, (bucket, 1)),
        }
        self.total += 1;
    }

    /// The smallest value such that a share of `q` of all values are not larger; none of nothing.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 windows")]
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q * self.total as f64;
        // Counted from above: quantiles that are asked for are high ones.
        let mut not_above = self.total;
        for (place, (bucket, count)) in self.buckets.iter().enumerate().rev() {
            let below = not_above.saturating_sub(u64::from(*count));
            if place == 0 || (below as f64) < rank {
                return Some(middle_of(*bucket));
            }
            not_above = below;
        }
        None
    }

    pub(super) fn save(&self, to: &mut Saving) {
        to.u64(self.total);
        to.list(self.buckets.iter(), |to, (bucket, count)| {
            to.i32(*bucket).u32(*count);
        });
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { total: from.u64()?, buckets: from.list(|from| Some((from.i32()?, from.u32()?)))? })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a logarithm of numbers between 1e-9 and 1e15")]
fn bucket_of(x: f64) -> i32 {
    if x.abs() <= SMALLEST {
        return 0;
    }
    let size = (x.abs().min(LARGEST).ln() / WIDENING.ln()).ceil() as i32 + MOVED;
    if x > 0.0 { size } else { -size }
}

fn middle_of(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let size = WIDENING.powf(f64::from(bucket.abs() - MOVED) - 0.5);
    if bucket > 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_off_by_one_percent_at_most() {
        let mut histogram = LogHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for n in -500..=500 {
            histogram.add(f64::from(n) / 7.0);
        }
        assert_eq!(histogram.total(), 1_001);
        for (q, exact) in [(0.001, -500.0), (0.25, -250.0), (0.5, 0.0), (0.75, 250.0), (0.99, 490.0), (1.0, 500.0)] {
            let exact: f64 = exact / 7.0;
            let found = histogram.quantile(q).unwrap();
            assert!((found - exact).abs() <= 0.0105 * exact.abs(), "{q}: {found}, not {exact}");
        }
    }

    #[test]
    fn what_is_very_small_or_very_large_has_a_bucket_too() {
        let mut histogram = LogHistogram::default();
        [1e-300, 1e99, -1e99].into_iter().for_each(|x| histogram.add(x));
        assert_eq!(histogram.quantile(0.5), Some(0.0));
        assert!((histogram.quantile(1.0).unwrap() / 1e15 - 1.0).abs() < 0.02);
        assert!((histogram.quantile(0.1).unwrap() / -1e15 - 1.0).abs() < 0.02);
    }
}
