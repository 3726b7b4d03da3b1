//! Random numbers of the shapes that telemetry has.

use std::f64::consts::TAU;

use fastrand::Rng;

/// A number of the standard normal distribution (Box and Muller 1958).
pub(crate) fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (TAU * random.f64()).cos()
}

/// A log-normal number with this median; `spread` is the standard deviation of its logarithm.
pub(crate) fn log_normal(random: &mut Rng, median: f64, spread: f64) -> f64 {
    median * (spread * normal(random)).exp()
}

/// How many arrivals there are if there are `mean` in the mean: those of a Poisson process.
pub(crate) fn poisson(random: &mut Rng, mean: f64) -> usize {
    let mut left = mean;
    let mut arrivals = 0;
    loop {
        left += (1.0 - random.f64()).ln();
        if left < 0.0 {
            return arrivals;
        }
        arrivals += 1;
    }
}

/// The index of one of these weights, which need not add up to 1.
pub(crate) fn weighted(random: &mut Rng, weights: &[f64]) -> usize {
    let mut ticket = random.f64() * weights.iter().sum::<f64>();
    let wins = |weight: &f64| {
        ticket -= weight;
        ticket < 0.0
    };
    weights.iter().position(wins).unwrap_or(0)
}

/// A whole number; what is beyond its range is at the end of it.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
pub(crate) fn whole(number: f64) -> i64 {
    number.round() as i64
}
