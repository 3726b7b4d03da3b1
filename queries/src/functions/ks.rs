//! The Kolmogorov–Smirnov test, of histograms and of samples.

use datafusion::common::{Result, exec_err};

use super::FunctionDoc;
use super::aligned::both;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value, finite, mixed};
use super::special::{kolmogorov_sf, ks_sf};

pub(super) static KS_FUNCTIONS: [ScalarSpec; 4] = [
    ScalarSpec {
        doc: FunctionDoc {
            name: "ks_stat",
            arguments: "ref, cur",
            meaning: "greatest distance D of the cumulative shares of two histograms of numbers (at their edges) or of \
                      two lists",
            source: "scipy.stats.ks_2samp; whylogs",
        },
        takes: &[Kind::HistOrNumbers, Kind::HistOrNumbers],
        required: 2,
        gives: Gives::Number,
        body: ks_stat,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "ks_pvalue",
            arguments: "ref, cur",
            meaning: "its p-value: of lists whose lengths multiply to 1e6 at most exact, else \
                      ks_sf(D, round(n m / (n + m)))",
            source: "scipy.stats.ks_2samp(method = 'auto'); whylogs",
        },
        takes: &[Kind::HistOrNumbers, Kind::HistOrNumbers],
        required: 2,
        gives: Gives::Number,
        body: ks_pvalue,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "ks_sf",
            arguments: "d, n",
            meaning: "probability that the two-sided Kolmogorov-Smirnov statistic of n values is at least d",
            source: "scipy.stats.kstwo.sf; Simard and L'Ecuyer 2011",
        },
        takes: &[Kind::Number, Kind::Number],
        required: 2,
        gives: Gives::Number,
        body: |arguments| Ok(Value::of(ks_sf(arguments[0].number(), arguments[1].number()))),
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "kolmogorov_sf",
            arguments: "x",
            meaning: "probability that sqrt(n) D is at least x in the limit of large n",
            source: "scipy.stats.kstwobign.sf",
        },
        takes: &[Kind::Number],
        required: 1,
        gives: Gives::Number,
        body: |arguments| Ok(Value::of(kolmogorov_sf(arguments[0].number()))),
    },
];

/// The exact p-value of samples counts paths on a grid of n by m steps, each some nanoseconds. Where there are more the
/// asymptotic one is as good (scipy goes on to lists of 10,000, for which it would take a second).
const EXACT_STEPS_MAX: usize = 1_000_000;

fn ks_stat(arguments: &[Value]) -> Result<Value> {
    Ok(found("ks_stat", arguments)?.map_or(Value::Null, |found| Value::of(found.d)))
}

fn ks_pvalue(arguments: &[Value]) -> Result<Value> {
    let Some(Found { d, n, m, lengths }) = found("ks_pvalue", arguments)? else { return Ok(Value::Null) };
    match lengths {
        Some((n, m)) if n.saturating_mul(m) <= EXACT_STEPS_MAX => Ok(Value::of(exact_sf(d, n, m))),
        // Half to even, as numpy rounds.
        _ => Ok(Value::of(ks_sf(d, (n * m / (n + m)).round_ties_even().max(1.0)))),
    }
}

/// D, and how many values it is of.
struct Found {
    d: f64,
    n: f64,
    m: f64,
    /// Of samples, how long they are.
    lengths: Option<(usize, usize)>,
}

fn found(name: &str, arguments: &[Value]) -> Result<Option<Found>> {
    match arguments {
        [Value::Hist(_), Value::Hist(_)] => of_histograms(name, arguments),
        [Value::Numbers(reference), Value::Numbers(current)] => Ok(of_samples(finite(reference), finite(current))),
        _ => mixed(name),
    }
}

fn of_histograms(name: &str, arguments: &[Value]) -> Result<Option<Found>> {
    let aligned = both(name, arguments)?;
    if aligned.ranges.is_none() {
        return exec_err!("{name}: categories have no order");
    }
    let (n, m) = aligned.totals();
    if n <= 0.0 || m <= 0.0 {
        return Ok(None);
    }
    let (mut below, mut d) = ((0.0, 0.0), 0.0_f64);
    for (r, c) in aligned.reference.iter().zip(&aligned.current) {
        below = (below.0 + r, below.1 + c);
        d = d.max((below.0 / n - below.1 / m).abs());
    }
    Ok(Some(Found { d, n, m, lengths: None }))
}

fn of_samples(mut reference: Vec<f64>, mut current: Vec<f64>) -> Option<Found> {
    if reference.is_empty() || current.is_empty() {
        return None;
    }
    reference.sort_by(f64::total_cmp);
    current.sort_by(f64::total_cmp);
    let (n, m) = (reference.len() as f64, current.len() as f64);
    let share = |sorted: &[f64], x: f64, len: f64| sorted.partition_point(|y| *y <= x) as f64 / len;
    let apart = |x: &f64| (share(&reference, *x, n) - share(&current, *x, m)).abs();
    let d = reference.iter().chain(&current).map(apart).fold(0.0, f64::max);
    Some(Found { d, n, m, lengths: Some((reference.len(), current.len())) })
}

/// The share of all ways to mix two samples in which their cumulative shares are at least `d` apart somewhere.
///
/// A way is a path on a grid of n by m steps. All terms are positive, so tiny results are as precise as others.
fn exact_sf(d: f64, n: usize, m: usize) -> f64 {
    let divisor = greatest_divisor(n, m);
    let (step_n, step_m) = (m / divisor, n / divisor);
    // In units of 1 / lcm(n, m), in which every distance is whole.
    let limit = (d * (step_n * n) as f64).round();
    if limit == 0.0 {
        return 1.0;
    }
    // The share of the paths to (i, j) that were outside, for each j of the row before, then of this one.
    let mut outside = vec![0.0; m + 1];
    for i in 0..=n {
        for j in 0..=m {
            let above = if i == 0 { 0.0 } else { outside[j] };
            let left = if j == 0 { 0.0 } else { outside[j - 1] };
            outside[j] = if (i * step_n).abs_diff(j * step_m) as f64 >= limit {
                1.0
            } else if i + j == 0 {
                0.0
            } else {
                (above * i as f64 + left * j as f64) / (i + j) as f64
            };
        }
    }
    outside[m]
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_not_compared_path_by_path_and_both_ways_agree() {
        let list = |len: u32, by: u32| (0..len).map(|n| f64::from(n + by)).collect::<Vec<_>>();
        let pvalue = |len: u32| match ks_pvalue(&[Value::Numbers(list(len, 0)), Value::Numbers(list(len, len / 20))]) {
            Ok(Value::Number(p)) => p,
            other => panic!("{other:?}"),
        };
        assert_eq!(pvalue(1_000).to_bits(), exact_sf(0.05, 1_000, 1_000).to_bits());
        assert!((pvalue(1_040) / ks_sf(0.05, 520.0) - 1.0).abs() < 1e-9);
        let exact = exact_sf(0.05, 1_040, 1_040);
        assert!((pvalue(1_040) / exact - 1.0).abs() < 0.1, "{} and exactly {exact}", pvalue(1_040));
    }
}
