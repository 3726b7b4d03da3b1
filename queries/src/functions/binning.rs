//! Histograms of samples: lists of values, as `array_agg` or a reference table has them.

use datafusion::common::{Result, exec_err};

use super::FunctionDoc;
use super::coerce::Kind;
use super::hist::{BINS_MAX, Cells, Hist, bin_of, edges_fault, equal_edges};
use super::hist_read::of_pairs;
use super::scalar::{Gives, ScalarSpec, Value, finite};
use super::special::to_index;

pub(super) static BINNING_FUNCTIONS: [ScalarSpec; 5] = [
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_edges_sturges",
            arguments: "values",
            meaning: "edges of 1 + log2(n) equal bins over the values",
            source: "numpy.histogram_bin_edges(bins = 'sturges'); Evidently",
        },
        takes: &[Kind::Numbers],
        required: 1,
        gives: Gives::Numbers,
        body: |arguments| equal_bins("hist_edges_sturges", arguments, sturges_width),
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_edges_doane",
            arguments: "values",
            meaning: "the same with more bins for skewed values",
            source: "numpy.histogram_bin_edges(bins = 'doane'); NannyML",
        },
        takes: &[Kind::Numbers],
        required: 1,
        gives: Gives::Numbers,
        body: |arguments| equal_bins("hist_edges_doane", arguments, doane_width),
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_edges_quantile",
            arguments: "values, bins",
            meaning: "edges of bins with equally many of the values each; the ends are open",
            source: "numpy.quantile",
        },
        takes: &[Kind::Numbers, Kind::Int],
        required: 2,
        gives: Gives::Numbers,
        body: quantile_edges,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_of_values",
            arguments: "values, edges",
            meaning: "the histogram of the values in bins with these edges; NaN and infinity are left out and counted",
            source: "numpy.histogram",
        },
        takes: &[Kind::Numbers, Kind::Numbers],
        required: 2,
        gives: Gives::Hist,
        body: hist_of_values,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "freq_of_values",
            arguments: "values",
            meaning: "how often each value of a list (text, numbers, …) occurs",
            source: "pandas.Series.value_counts",
        },
        takes: &[Kind::Texts],
        required: 1,
        gives: Gives::Hist,
        body: |arguments| match arguments {
            [Value::Texts(values)] => Ok(Value::Hist(of_pairs(values.iter().cloned().map(|value| (value, 1.0))))),
            _ => Ok(Value::Null),
        },
    },
];

fn sturges_width(values: &[f64], range: f64) -> f64 {
    range / ((values.len() as f64).log2() + 1.0)
}

fn doane_width(values: &[f64], range: f64) -> f64 {
    let n = values.len() as f64;
    if n <= 2.0 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    let moment = |power: i32, unit: f64| values.iter().map(|x| ((x - mean) / unit).powi(power)).sum::<f64>() / n;
    let spread = moment(2, 1.0).sqrt();
    if spread == 0.0 {
        return 0.0;
    }
    let of_skewness = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
    range / (1.0 + n.log2() + (1.0 + moment(3, spread).abs() / of_skewness).log2())
}

fn equal_bins(name: &str, arguments: &[Value], width: fn(&[f64], f64) -> f64) -> Result<Value> {
    let [Value::Numbers(values)] = arguments else { return Ok(Value::Null) };
    let values = finite(values);
    let Some(lo) = values.iter().copied().reduce(f64::min) else { return Ok(Value::Null) };
    let hi = values.iter().copied().fold(lo, f64::max);
    if lo == hi {
        return Ok(Value::Numbers(vec![lo - 0.5, hi + 0.5]));
    }
    let width = width(&values, hi - lo);
    let bins = if width > 0.0 { ((hi - lo) / width).ceil() } else { 1.0 };
    if bins > BINS_MAX as f64 {
        return exec_err!("{name}: {bins} bins are more than {BINS_MAX}");
    }
    Ok(Value::Numbers(equal_edges(lo, hi, to_index(bins))))
}

fn quantile_edges(arguments: &[Value]) -> Result<Value> {
    let [Value::Numbers(values), Value::Int(bins)] = arguments else { return Ok(Value::Null) };
    let mut values = finite(values);
    values.sort_by(f64::total_cmp);
    let Some(bins) = usize::try_from(*bins).ok().filter(|bins| (1..=BINS_MAX).contains(bins)) else {
        return exec_err!("hist_edges_quantile: {bins} bins are not 1 to {BINS_MAX}");
    };
    if values.is_empty() {
        return Ok(Value::Null);
    }
    let inner = (1..bins).map(|at| quantile(&values, at as f64 / bins as f64));
    Ok(Value::Numbers([f64::NEG_INFINITY].into_iter().chain(inner).chain([f64::INFINITY]).collect()))
}

/// A quantile of sorted values, linear between two of them, as `numpy.quantile` rounds it.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let lower = to_index(place.floor());
    let (low, high) = (sorted[lower], sorted[(lower + 1).min(sorted.len() - 1)]);
    let part = place - lower as f64;
    if part >= 0.5 { high - (high - low) * (1.0 - part) } else { low + (high - low) * part }
}

fn hist_of_values(arguments: &[Value]) -> Result<Value> {
    let [Value::Numbers(values), Value::Numbers(edges)] = arguments else { return Ok(Value::Null) };
    if let Some(fault) = edges_fault(edges) {
        return exec_err!("hist_of_values: {fault}");
    }
    let mut counts = vec![0.0; edges.len() + 1];
    let mut ignored = 0;
    for x in values {
        if x.is_finite() {
            counts[bin_of(edges, *x)] += 1.0;
        } else {
            ignored += 1;
        }
    }
    Ok(Value::Hist(Hist { cells: Cells::Edges { edges: edges.clone(), counts }, ignored }))
}
