//! Means and deviations of what has come so far.

use super::saved::{Saved, Saving};

/// The mean of all values, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mean {
    pub(super) n: u64,
    pub(super) mean: f64,
}

impl Mean {
    pub(super) fn add(&mut self, x: f64) {
        self.n += 1;
        self.mean += 1.0 / self.count() * (x - self.mean);
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 windows")]
    pub(super) fn count(&self) -> f64 {
        self.n as f64
    }

    pub(super) fn save(&self, to: &mut Saving) {
        to.u64(self.n).f64(self.mean);
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { n: from.u64()?, mean: from.f64()? })
    }
}

/// Mean and squared deviations of all values (Welford).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) mean: Mean,
    squares: f64,
}

impl Moments {
    pub(super) fn add(&mut self, x: f64) {
        let before = self.mean.mean;
        self.mean.add(x);
        self.squares += (x - before) * (x - self.mean.mean);
    }

    /// The variance of a sample; 0 of fewer than two values.
    pub(super) fn sample_variance(&self) -> f64 {
        if self.mean.n > 1 { self.squares / (self.mean.count() - 1.0) } else { 0.0 }
    }

    /// The standard deviation of all there is; 0 if there is nothing.
    pub(super) fn deviation(&self) -> f64 {
        if self.mean.n == 0 { 0.0 } else { (self.squares / self.mean.count()).max(0.0).sqrt() }
    }

    pub(super) fn save(&self, to: &mut Saving) {
        self.mean.save(to);
        to.f64(self.squares);
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { mean: Mean::load(from)?, squares: from.f64()? })
    }
}

/// An exponentially weighted mean that begins with the first value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EwMean {
    value: Option<f64>,
}

impl EwMean {
    pub(super) fn add(&mut self, x: f64, alpha: f64) -> f64 {
        let value = self.value.map_or(x, |mean| alpha * x + (1.0 - alpha) * mean);
        self.value = Some(value);
        value
    }

    /// The mean; 0 before the first value.
    pub(super) fn value(&self) -> f64 {
        self.value.unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.value.is_none()
    }

    pub(super) fn save(&self, to: &mut Saving) {
        to.flag(self.value.is_some()).f64(self.value());
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        let (is_there, value) = (from.flag()?, from.f64()?);
        Some(Self { value: is_there.then_some(value) })
    }
}

/// Deviations below this are none.
const NOTHING: f64 = 1e-12;

/// How many deviations a value lies from the exponentially weighted mean of those before it.
///
/// Young means weigh all values alike: the weight of the `n`th is `max(alpha, 1/n)`. The weighted deviation is not
/// taken to be less than `floor` times that of all values so far, so that a quiet hour does not make the next ripple
/// remarkable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EwScore {
    mean: f64,
    variance: f64,
    all: Moments,
}

impl EwScore {
    /// The score against what came before, at most `clip` in either direction; 0 until two values have come.
    pub(super) fn step(&mut self, x: f64, (alpha, floor, clip): (f64, f64, f64)) -> f64 {
        let score = self.score(x, floor, clip);
        self.all.add(x);
        if self.all.mean.n == 1 {
            self.mean = x;
        } else {
            let weight = alpha.max(1.0 / self.all.mean.count());
            let off = x - self.mean;
            self.mean += weight * off;
            self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        }
        score
    }

    fn score(&self, x: f64, floor: f64, clip: f64) -> f64 {
        if self.all.mean.n < 2 {
            return 0.0;
        }
        let off = x - self.mean;
        let deviation = self.variance.max(0.0).sqrt().max(floor * self.all.deviation());
        if deviation > NOTHING {
            (off / deviation).clamp(-clip, clip)
        } else if off.abs() > NOTHING {
            clip.copysign(off)
        } else {
            0.0
        }
    }

    pub(super) fn save(&self, to: &mut Saving) {
        to.f64(self.mean).f64(self.variance);
        self.all.save(to);
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { mean: from.f64()?, variance: from.f64()?, all: Moments::load(from)? })
    }
}
