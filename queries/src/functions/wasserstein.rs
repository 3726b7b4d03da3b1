//! The Wasserstein distance: how far, on average, values must move to become the others.

use datafusion::common::{Result, exec_err};

use super::FunctionDoc;
use super::aligned::{Aligned, both};
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value, finite, mixed};

const fn distance(name: &'static str, meaning: &'static str, source: &'static str, body: Body) -> ScalarSpec {
    let doc = FunctionDoc { name, arguments: "ref, cur", meaning, source };
    let takes = &[Kind::HistOrNumbers, Kind::HistOrNumbers];
    ScalarSpec { doc, takes, required: 2, gives: Gives::Number, body }
}

type Body = fn(&[Value]) -> Result<Value>;

pub(super) static WASSERSTEIN_FUNCTIONS: [ScalarSpec; 3] = [
    distance(
        "wasserstein",
        "Wasserstein-1 distance of two lists, or of two histograms with all values at the middle of their cells; in \
         the unit of the values",
        "scipy.stats.wasserstein_distance",
        |arguments| Ok(work("wasserstein", arguments)?.map_or(Value::Null, |work| Value::of(work.distance))),
    ),
    distance(
        "wasserstein_norm",
        "the same divided by the standard deviation of ref, which counts as at least 0.001",
        "Evidently 0.7",
        |arguments| {
            let work = work("wasserstein_norm", arguments)?;
            Ok(work.map_or(Value::Null, |work| Value::of(work.distance / work.spread.max(SPREAD_MIN))))
        },
    ),
    distance(
        "wasserstein_linear",
        "Wasserstein-1 distance of two histograms with values spread evenly within their cells",
        "area between the cumulative shares",
        wasserstein_linear,
    ),
];

/// A reference without any spread would make every distance infinite.
const SPREAD_MIN: f64 = 0.001;

/// The distance, and the standard deviation of the reference.
struct Work {
    distance: f64,
    spread: f64,
}

fn work(name: &str, arguments: &[Value]) -> Result<Option<Work>> {
    let (reference, current) = match arguments {
        [Value::Hist(_), Value::Hist(_)] => {
            let aligned = both(name, arguments)?;
            let middles = middles(name, &aligned)?;
            let of = |counts: &[f64]| middles.iter().copied().zip(counts.iter().copied()).collect();
            (of(&aligned.reference), of(&aligned.current))
        }
        [Value::Numbers(reference), Value::Numbers(current)] => {
            let of = |sample: &[f64]| finite(sample).into_iter().map(|x| (x, 1.0)).collect();
            (of(reference), of(current))
        }
        _ => return mixed(name),
    };
    Ok(between(reference, current))
}

fn middles(name: &str, aligned: &Aligned) -> Result<Vec<f64>> {
    match &aligned.ranges {
        Some(ranges) => Ok(ranges.iter().map(|(lo, hi)| lo + (hi - lo) / 2.0).collect()),
        None => exec_err!("{name}: categories have no distance"),
    }
}

/// The area between the cumulative shares of weighted values.
fn between(reference: Vec<(f64, f64)>, current: Vec<(f64, f64)>) -> Option<Work> {
    let total = |side: &[(f64, f64)]| side.iter().map(|w| w.1).sum::<f64>();
    let (n, m) = (total(&reference), total(&current));
    if n <= 0.0 || m <= 0.0 {
        return None;
    }
    let mean = reference.iter().map(|(x, w)| x * w).sum::<f64>() / n;
    let variance = reference.iter().map(|(x, w)| (x - mean).powi(2) * w).sum::<f64>() / n;
    let mut steps: Vec<(f64, f64, f64)> = reference.into_iter().map(|(x, w)| (x, w, 0.0)).collect();
    steps.extend(current.into_iter().map(|(x, w)| (x, 0.0, w)));
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut distance) = ((0.0, 0.0), 0.0);
    for pair in steps.windows(2) {
        below = (below.0 + pair[0].1, below.1 + pair[0].2);
        distance += (below.0 / n - below.1 / m).abs() * (pair[1].0 - pair[0].0);
    }
    Some(Work { distance, spread: variance.sqrt() })
}

fn wasserstein_linear(arguments: &[Value]) -> Result<Value> {
    let aligned = both("wasserstein_linear", arguments)?;
    let (n, m) = aligned.totals();
    let Some(ranges) = &aligned.ranges else { return exec_err!("wasserstein_linear: categories have no distance") };
    if n <= 0.0 || m <= 0.0 {
        return Ok(Value::Null);
    }
    let (mut area, mut apart, mut reached) = (0.0, 0.0_f64, f64::NAN);
    for ((r, c), (lo, hi)) in aligned.reference.iter().zip(&aligned.current).zip(ranges) {
        // Between cells that are not neighbours nothing is added to either side.
        if reached < *lo {
            area += apart.abs() * (lo - reached);
        }
        let next = apart + r / n - c / m;
        area += area_between(apart, next) * (hi - lo);
        (apart, reached) = (next, *hi);
    }
    Ok(Value::of(area))
}

/// The mean of |y| on a line from one value to another.
fn area_between(from: f64, to: f64) -> f64 {
    if from * to >= 0.0 {
        return (from.abs() + to.abs()) / 2.0;
    }
    (from * from + to * to) / (2.0 * (from.abs() + to.abs()))
}
