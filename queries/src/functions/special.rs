//! Tails of the distributions that tests of significance need, with full relative precision far out in them.
//!
//! Incomplete gamma functions by series and continued fraction (Numerical Recipes §6.2). The distribution of the
//! two-sided Kolmogorov–Smirnov statistic by the methods that Simard and L'Ecuyer (2011) recommend and scipy's `kstwo`
//! uses: exact for small samples (Marsaglia, Tsang and Wang 2003), twice the one-sided tail (Smirnov) where it is
//! small, and the expansion of Pelz and Good (1976) in the middle of large samples.

use std::f64::consts::PI;

use libm::{erfc, lgamma};

/// Terms of series and fractions; they converge in tens of them but near a = x of large a.
const TERMS_MAX: usize = 100_000;
const EPSILON: f64 = 1e-16;
/// Keeps a continued fraction from dividing by zero.
const TINY: f64 = 1e-300;

/// The upper tail of the standard normal distribution.
pub(super) fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// The upper tail of the chi-squared distribution: the probability of a value of at least `x`.
pub(super) fn chi2_sf(x: f64, dof: f64) -> f64 {
    if dof.is_nan() || x.is_nan() || dof <= 0.0 {
        return f64::NAN;
    }
    if x <= 0.0 { 1.0 } else { gamma_q(dof / 2.0, x / 2.0) }
}

/// The value that chi-squared exceeds with probability `p`.
pub(super) fn chi2_isf(p: f64, dof: f64) -> f64 {
    if !(p > 0.0 && p < 1.0 && dof > 0.0) {
        return match p {
            0.0 => f64::INFINITY,
            1.0 => 0.0,
            _ => f64::NAN,
        };
    }
    let (mut low, mut high) = (0.0, dof.max(1.0));
    while chi2_sf(high, dof) > p {
        (low, high) = (high, high * 2.0);
    }
    // Halving to the last bit: 1,100 steps at most, and only a window's results are tested.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        if chi2_sf(middle, dof) > p { low = middle } else { high = middle }
    }
}

/// The regularised upper incomplete gamma function.
fn gamma_q(a: f64, x: f64) -> f64 {
    if x.is_infinite() {
        return 0.0;
    }
    let scale = (a * x.ln() - x - lgamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..TERMS_MAX {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * EPSILON {
                break;
            }
        }
        return 1.0 - scale * sum;
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut fraction = d;
    for i in 1..TERMS_MAX {
        let i = i as f64;
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / not_zero(an * d + b);
        c = not_zero(b + an / c);
        let step = c * d;
        fraction *= step;
        if (step - 1.0).abs() <= EPSILON {
            break;
        }
    }
    scale * fraction
}

fn not_zero(x: f64) -> f64 {
    if x.abs() < TINY { TINY } else { x }
}

/// The limit distribution of sqrt(n) D: the probability of a value of at least `x`.
pub(super) fn kolmogorov_sf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    // Either series converges in a few terms on its side of 0.82, as in cephes.
    if x < 0.82 {
        let term = |k: f64| (-(2.0 * k - 1.0).powi(2) * PI * PI / (8.0 * x * x)).exp();
        let cdf = (2.0 * PI).sqrt() / x * [1.0, 2.0, 3.0, 4.0].map(term).iter().sum::<f64>();
        return 1.0 - cdf;
    }
    let term = |k: f64| (-2.0 * k * k * x * x).exp();
    2.0 * (term(1.0) - term(2.0) + term(3.0) - term(4.0))
}

/// Samples up to this size are small: their exact distribution is cheap.
const SMALL_N: f64 = 140.0;
/// Beyond this the exact one takes long, and is zero or one where it would be asked for.
const EXACT_N_MAX: f64 = 10_000.0;
/// Beyond this Smirnov's sum takes long; its asymptotic form is then off by less than 1e-6.
const SMIRNOV_N_MAX: f64 = 1e6;

/// The probability that the two-sided Kolmogorov–Smirnov statistic of `n` values is at least `d`.
pub(super) fn ks_sf(d: f64, n: f64) -> f64 {
    if d.is_nan() || n.is_nan() || n < 1.0 || n.fract() != 0.0 {
        return f64::NAN;
    }
    let t = n * d;
    if d >= 1.0 {
        return 0.0;
    }
    if t <= 0.5 {
        return 1.0;
    }
    if t <= 1.0 {
        // Ruben and Gambino: n! (2d - 1/n)^n.
        return 1.0 - (lgamma(n + 1.0) - n * n.ln() + n * (2.0 * t - 1.0).ln()).exp();
    }
    if t >= n - 1.0 {
        return 2.0 * (1.0 - d).powf(n);
    }
    let square = t * d;
    let doubled = || (2.0 * smirnov_sf(n, d)).min(1.0);
    let sf = if d >= 0.5 {
        doubled()
    } else if n <= SMALL_N {
        if square <= 4.0 { 1.0 - marsaglia_cdf(n, d) } else { doubled() }
    } else if square >= 370.0 {
        0.0
    } else if square >= 2.2 {
        doubled()
    } else if n <= EXACT_N_MAX && n * d.powf(1.5) <= 1.4 {
        1.0 - marsaglia_cdf(n, d)
    } else {
        1.0 - pelz_good_cdf(n, d)
    };
    sf.clamp(0.0, 1.0)
}

/// The upper tail of the one-sided statistic (Smirnov; Birnbaum and Tingey).
///
/// Each term is written as a binomial probability near its own mean times a ratio, so that nothing large cancels.
fn smirnov_sf(n: f64, d: f64) -> f64 {
    if n > SMIRNOV_N_MAX {
        return (-(6.0 * n * d + 1.0).powi(2) / 18.0 / n).exp();
    }
    let nd = n * d;
    let mut sum = (n * (-d).ln_1p()).exp();
    let mut v = 1.0;
    while v < n - nd {
        let rest = n - v;
        let log = v * (nd / v).ln_1p() + rest * (-nd / rest).ln_1p() + stirling_error(n)
            - stirling_error(v)
            - stirling_error(rest)
            + 0.5 * (n / (2.0 * PI * v * rest)).ln();
        sum += log.exp() * d / (d + v / n);
        v += 1.0;
    }
    sum
}

/// `ln n! - ln(sqrt(2 pi n) (n/e)^n)` (Loader 2000).
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        return lgamma(n + 1.0) - (n + 0.5) * n.ln() + n - 0.5 * (2.0 * PI).ln();
    }
    let square = n * n;
    let inner = 1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square;
    (1.0 / 12.0 - (1.0 / 360.0 - inner / square) / square) / n
}

/// The exact distribution: an entry of the n-th power of a matrix (Durbin; Marsaglia, Tsang and Wang).
fn marsaglia_cdf(n: f64, d: f64) -> f64 {
    let k = (n * d).ceil();
    let h = k - n * d;
    let size = 2 * to_index(k) - 1;
    let mut matrix = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..(row + 2).min(size) {
            matrix[row * size + column] = 1.0;
        }
    }
    for i in 0..size {
        let power = h.powi(i32::try_from(i + 1).unwrap_or(i32::MAX));
        matrix[i * size] -= power;
        matrix[(size - 1) * size + (size - 1 - i)] -= power;
    }
    if 2.0 * h > 1.0 {
        matrix[(size - 1) * size] += (2.0 * h - 1.0).powi(i32::try_from(size).unwrap_or(i32::MAX));
    }
    for row in 0..size {
        for column in 0..(row + 1).min(size) {
            let factorial = (1..=row + 1 - column).fold(1.0, |product, g| product * g as f64);
            matrix[row * size + column] /= factorial;
        }
    }
    let (power, mut exponent) = matrix_power(&matrix, size, to_index(n));
    let at = to_index(k) - 1;
    let mut cdf = power[at * size + at];
    for i in 1..=to_index(n) {
        cdf *= i as f64 / n;
        if cdf < 1e-140 {
            cdf *= 1e140;
            exponent -= 140;
        }
    }
    cdf * 10_f64.powi(exponent)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "not negative: a sample size, the rank of a matrix, a place in a list"
)]
pub(super) fn to_index(x: f64) -> usize {
    x as usize
}

/// The power of a matrix, and the power of ten that it is to be multiplied by.
fn matrix_power(matrix: &[f64], size: usize, n: usize) -> (Vec<f64>, i32) {
    if n == 1 {
        return (matrix.to_vec(), 0);
    }
    let (half, exponent) = matrix_power(matrix, size, n / 2);
    let mut power = product(&half, &half, size);
    let mut exponent = 2 * exponent;
    if n % 2 == 1 {
        power = product(&power, matrix, size);
    }
    let middle = size / 2 * size + size / 2;
    if power[middle] > 1e140 {
        power.iter_mut().for_each(|x| *x *= 1e-140);
        exponent += 140;
    }
    (power, exponent)
}

fn product(left: &[f64], right: &[f64], size: usize) -> Vec<f64> {
    let mut product = vec![0.0; size * size];
    for (row, into) in left.chunks(size).zip(product.chunks_mut(size)) {
        for (factor, other) in row.iter().zip(right.chunks(size)) {
            into.iter_mut().zip(other).for_each(|(x, y)| *x += factor * y);
        }
    }
    product
}

/// The expansion of Pelz and Good, whose sums are over odd and over all whole numbers.
fn pelz_good_cdf(n: f64, d: f64) -> f64 {
    let z = n.sqrt() * d;
    let (z2, z4, z6) = (z.powi(2), z.powi(4), z.powi(6));
    let pi2 = PI * PI;
    let (pi4, pi6) = (pi2 * pi2, pi2 * pi2 * pi2);
    let log_q = -pi2 / 8.0 / z2;
    if log_q < f64::MIN_POSITIVE.ln() {
        return 0.0;
    }
    let mut sums = [0.0; 4];
    let mut k = (16.0 * z / PI).ceil();
    let last = k;
    while k >= 1.0 {
        let m2 = (2.0 * k - 1.0).powi(2);
        let (m4, m6) = (m2 * m2, m2 * m2 * m2);
        let terms = [
            1.0,
            -z2 + pi2 / 4.0 * m2,
            6.0 * z6 + 2.0 * z4 + (2.0 * z4 - 5.0 * z2) * pi2 / 4.0 * m2 + pi4 * (1.0 - 2.0 * z2) / 16.0 * m4,
            -30.0 * z6 - 90.0 * z.powi(8)
                + pi2 * (135.0 * z4 - 96.0 * z6) / 4.0 * m2
                + pi4 * (-60.0 * z2 + 212.0 * z4) / 16.0 * m4
                + pi6 * (5.0 - 30.0 * z2) / 64.0 * m6,
        ];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term * (log_q * m2).exp());
        k -= 1.0;
    }
    let root = (2.0 * PI).sqrt();
    let below = [z, 6.0 * z4, 72.0 * z.powi(7), 6480.0 * z.powi(10)];
    sums.iter_mut().zip(below).for_each(|(sum, below)| *sum *= root / below);
    let (mut extra2, mut extra3) = (0.0, 0.0);
    let mut k = 1.0;
    while k <= last {
        let power = (-pi2 / 2.0 / z2 * k * k).exp();
        extra2 += k * k * power;
        extra3 += (3.0 * z2 - pi2 * k * k) * k * k * power;
        k += 1.0;
    }
    sums[2] += extra2 * pi2 * root / (-36.0 * z.powi(3));
    sums[3] += extra3 * pi2 * root / (216.0 * z6);
    sums[0] + sums[1] / n.sqrt() + sums[2] / n + sums[3] / n.powf(1.5)
}
