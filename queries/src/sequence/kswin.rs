//! `kswin`: the newest rows of a window against older ones, by the Kolmogorov–Smirnov test (river 0.26).
//!
//! River draws as many of the older rows at random. Here they are drawn by a generator that begins with `seed`, so
//! that a replay draws the same; with `window_size = 2 · stat_size` all older rows are taken and nothing is drawn. It
//! is a drift if `p <= alpha` and the distributions are more than 0.1 apart. Begins anew with the row after a drift.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value};

pub(super) const KSWIN: Detector = Detector {
    name: "kswin",
    says: "true when the newest rows are spread differently than older ones; begins anew after that",
    source: "river KSWIN",
    values: &[Value::Number],
    parameters: &[
        Parameter::number("alpha", 0.005, 0.0, 1.0),
        Parameter::whole("window_size", 100, 2, 10_000),
        Parameter::whole("stat_size", 30, 1, 5_000),
        Parameter::whole("seed", 1, 0, u32::MAX),
    ],
    fields: &[Field::flag("drift"), Field::number("p_value")],
    version: 1,
    check: |settings| {
        let (window, stat) = (settings.whole(1), settings.whole(2));
        if window >= 2 * stat {
            Ok(())
        } else {
            Err(format!("window_size ({window}) must be twice stat_size ({stat})"))
        }
    },
    start: |settings| Box::new(Kswin::new(settings)),
    settled: |settings| settings.whole(1) as usize,
};

/// Distributions that are closer than this are the same, whatever the test says.
const DISTANCE_MIN: f64 = 0.1;

#[derive(Debug)]
struct Kswin {
    alpha: f64,
    window_size: usize,
    stat_size: usize,
    seed: u64,
    has_drifted: bool,
    /// As of the last test.
    p_value: f64,
    draws: u64,
    /// The oldest first.
    rows: Vec<f64>,
}

impl Kswin {
    fn new(settings: &Settings) -> Self {
        let seed = u64::from(settings.whole(3));
        Self {
            alpha: settings.number(0),
            window_size: settings.whole(1) as usize,
            stat_size: settings.whole(2) as usize,
            seed,
            has_drifted: false,
            p_value: 0.0,
            draws: seed,
            rows: Vec::new(),
        }
    }

    fn begin_anew(&mut self) {
        (self.has_drifted, self.p_value, self.draws) = (false, 0.0, self.seed);
        self.rows.clear();
    }

    /// As many of the older rows as there are new ones, each at most once.
    fn drawn(&mut self) -> Vec<f64> {
        let mut older = self.rows[..self.window_size - self.stat_size].to_vec();
        if older.len() > self.stat_size {
            for nth in 0..self.stat_size {
                let left = older.len() - nth;
                let at = nth + usize::try_from(splitmix(&mut self.draws) % left as u64).unwrap_or_default();
                older.swap(nth, at);
            }
            older.truncate(self.stat_size);
        }
        older
    }
}

/// The next number of the `SplitMix64` generator.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How many of `n` ranks the distributions of two samples of that size are apart at most.
fn ranks_apart(mut a: Vec<f64>, mut b: Vec<f64>) -> usize {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (mut i, mut j, mut most) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        i += a[i..].iter().take_while(|x| **x <= at).count();
        j += b[j..].iter().take_while(|x| **x <= at).count();
        most = most.max(i.abs_diff(j));
    }
    most
}

/// The exact probability that two samples of `n` are `h` ranks apart or more, if they are of one distribution:
/// `2 · Σ (−1)^(k−1) · C(2n, n − k·h) / C(2n, n)` over `k` from 1 on (Gnedenko and Korolyuk 1951).
#[expect(clippy::cast_precision_loss, reason = "samples are small")]
fn p_value(n: usize, h: usize) -> f64 {
    if h == 0 {
        return 1.0;
    }
    // C(2n, n − d) / C(2n, n) is the product of (n − i) / (n + i + 1) for i from 0 to d − 1.
    let (mut sum, mut share, mut sign) = (0.0, 1.0, 1.0);
    for d in 1..=n {
        share *= (n - d + 1) as f64 / (n + d) as f64;
        if d % h == 0 {
            sum += sign * share;
            sign = -sign;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

impl Sequence for Kswin {
    #[expect(clippy::cast_precision_loss, reason = "samples are small")]
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.has_drifted {
            self.begin_anew();
        }
        if self.rows.len() == self.window_size {
            self.rows.remove(0);
        }
        self.rows.push(row.x);
        if self.rows.len() == self.window_size {
            let newest = self.rows[self.window_size - self.stat_size..].to_vec();
            let apart = ranks_apart(self.drawn(), newest);
            self.p_value = p_value(self.stat_size, apart);
            self.has_drifted = self.p_value <= self.alpha && apart as f64 / self.stat_size as f64 > DISTANCE_MIN;
        }
        reading.copy_from_slice(&[f64::from(u8::from(self.has_drifted)), self.p_value]);
    }

    fn save(&self, to: &mut Saving) {
        to.flag(self.has_drifted).f64(self.p_value).u64(self.draws);
        to.list(self.rows.iter(), |to, x| {
            to.f64(*x);
        });
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.has_drifted, self.p_value, self.draws) = (from.flag()?, from.f64()?, from.u64()?);
        self.rows = from.list(Saved::f64)?;
        (self.rows.len() <= self.window_size).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_exact() {
        // scipy.stats.ks_2samp(range(5), [x + 2.5 for x in range(5)]): three ranks apart.
        assert!((p_value(5, 3) - 0.357_142_857_142_857_2).abs() < 1e-12);
        assert!((p_value(5, 5) - 2.0 / 252.0).abs() < 1e-15);
        assert!((p_value(5, 1) - 1.0).abs() < 1e-12);
        assert_eq!(ranks_apart(vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![2.5, 3.5, 4.5, 5.5, 6.5]), 3);
        assert_eq!(ranks_apart(vec![1.0, 1.0, 2.0], vec![1.0, 2.0, 2.0]), 1);
    }

    #[test]
    fn what_is_drawn_depends_on_the_seed_alone() {
        let sequence = |seed| {
            let mut kswin = Kswin {
                alpha: 0.005,
                window_size: 10,
                stat_size: 3,
                seed,
                has_drifted: false,
                p_value: 0.0,
                draws: seed,
                rows: (0..10).map(f64::from).collect(),
            };
            let drawn = kswin.drawn();
            assert!(drawn.iter().all(|x| *x < 7.0), "of the older rows: {drawn:?}");
            drawn
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }
}
