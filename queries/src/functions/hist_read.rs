//! What a single histogram says: count, mean, quantiles, cumulative shares; and histograms from their parts.

use datafusion::common::{Result, exec_err};

use super::FunctionDoc;
use super::aligned::ranges_of;
use super::coerce::Kind;
use super::hist::{BINS_MAX, Cells, Hist, LogScale, edges_fault};
use super::scalar::{Gives, ScalarSpec, Value};

const fn spec(
    doc: FunctionDoc,
    takes: &'static [Kind],
    gives: Gives,
    body: fn(&[Value]) -> Result<Value>,
) -> ScalarSpec {
    ScalarSpec { doc, takes, required: takes.len(), gives, body }
}

const fn doc(name: &'static str, arguments: &'static str, meaning: &'static str, source: &'static str) -> FunctionDoc {
    FunctionDoc { name, arguments, meaning, source }
}

pub(super) static HIST_FUNCTIONS: [ScalarSpec; 9] = [
    spec(
        doc("hist_count", "hist", "how many values are in its cells", "sum of counts"),
        &[Kind::Hist],
        Gives::Number,
        |arguments| Ok(Value::of(hist(arguments)?.total())),
    ),
    spec(
        doc("hist_ignored", "hist", "how many values were NaN or infinite, and are in no cell", "count"),
        &[Kind::Hist],
        Gives::Number,
        |arguments| Ok(Value::of(hist(arguments)?.ignored as f64)),
    ),
    spec(
        doc("hist_share", "hist, key", "share of a category; 0 if it does not occur", "count / total"),
        &[Kind::Hist, Kind::Text],
        Gives::Number,
        hist_share,
    ),
    spec(
        doc("hist_mean", "hist", "mean, all values at the middle of their cells", "midpoint rule"),
        &[Kind::Hist],
        Gives::Number,
        hist_mean,
    ),
    spec(
        doc(
            "hist_quantile",
            "hist, q",
            "quantile q of 0 to 1, values spread evenly within their cells",
            "linear interpolation, as Prometheus' histogram_quantile",
        ),
        &[Kind::Hist, Kind::Number],
        Gives::Number,
        hist_quantile,
    ),
    spec(
        doc(
            "hist_cdf",
            "hist, x",
            "share of values up to x, values spread evenly within their cells",
            "linear interpolation",
        ),
        &[Kind::Hist, Kind::Number],
        Gives::Number,
        hist_cdf,
    ),
    spec(
        doc(
            "hist",
            "edges, counts",
            "the histogram with these counts in the bins between the edges; null if a count is not finite or negative",
            "constructor",
        ),
        &[Kind::Numbers, Kind::Numbers],
        Gives::Hist,
        hist_of_edges,
    ),
    spec(
        doc("hist_of", "counts", "the histogram with these counts in bins 0, 1, 2, …", "constructor"),
        &[Kind::Numbers],
        Gives::Hist,
        hist_of_counts,
    ),
    spec(
        doc("freq", "keys, counts", "the histogram with these counts of categories; equal keys add up", "constructor"),
        &[Kind::Texts, Kind::Numbers],
        Gives::Hist,
        freq,
    ),
];

fn hist(arguments: &[Value]) -> Result<&Hist> {
    match arguments.first() {
        Some(Value::Hist(hist)) => Ok(hist),
        _ => exec_err!("no histogram"),
    }
}

fn hist_share(arguments: &[Value]) -> Result<Value> {
    let (hist, Some(Value::Text(key))) = (hist(arguments)?, arguments.get(1)) else { return Ok(Value::Null) };
    let Cells::Categories(counts) = &hist.cells else { return exec_err!("hist_share reads categories") };
    let count = counts.iter().find(|cell| cell.0 == *key).map_or(0.0, |cell| cell.1);
    Ok(Value::of(count / hist.total()))
}

/// Least and greatest value, and count of each cell, in order.
fn cells(name: &str, hist: &Hist) -> Result<Vec<(f64, f64, f64)>> {
    let cell = |((lo, hi), count): ((f64, f64), &f64)| (lo, hi, *count);
    Ok(match &hist.cells {
        Cells::Log { sub, buckets } => {
            let scale = LogScale::new(*sub);
            buckets.iter().map(|(bucket, count)| cell((scale.edges_of(*bucket), count))).collect()
        }
        Cells::Edges { edges, counts } => ranges_of(edges).into_iter().zip(counts).map(cell).collect(),
        Cells::Bins(counts) => {
            let ranges = (0..counts.len()).map(|at| (at as f64, at as f64 + 1.0));
            ranges.zip(counts).map(cell).collect()
        }
        Cells::Categories(_) => return exec_err!("{name}: categories are no numbers"),
    })
}

fn hist_mean(arguments: &[Value]) -> Result<Value> {
    let hist = hist(arguments)?;
    let sum: f64 = cells("hist_mean", hist)?.iter().map(|(lo, hi, count)| (lo + (hi - lo) / 2.0) * count).sum();
    Ok(Value::of(sum / hist.total()))
}

fn hist_quantile(arguments: &[Value]) -> Result<Value> {
    let (hist, q) = (hist(arguments)?, arguments[1].number());
    let total = hist.total();
    if !(0.0..=1.0).contains(&q) || total <= 0.0 {
        return Ok(Value::Null);
    }
    let cells = cells("hist_quantile", hist)?;
    let (rank, mut below) = (q * total, 0.0);
    let mut last = Value::Null;
    for (lo, hi, count) in cells.into_iter().filter(|cell| cell.2 > 0.0) {
        if rank <= below + count {
            return Ok(Value::of(lo + (hi - lo) * ((rank - below) / count)));
        }
        below += count;
        last = Value::of(hi);
    }
    Ok(last)
}

fn hist_cdf(arguments: &[Value]) -> Result<Value> {
    let (hist, x) = (hist(arguments)?, arguments[1].number());
    if x.is_nan() {
        return Ok(Value::Null);
    }
    let share = |(lo, hi, count): &(f64, f64, f64)| {
        if x >= *hi {
            *count
        } else if x <= *lo {
            0.0
        } else {
            count * ((x - lo) / (hi - lo))
        }
    };
    let below: f64 = cells("hist_cdf", hist)?.iter().map(share).sum();
    Ok(Value::of(below / hist.total()))
}

fn are_counts(counts: &[f64]) -> bool {
    counts.iter().all(|count| count.is_finite() && *count >= 0.0)
}

fn hist_of_edges(arguments: &[Value]) -> Result<Value> {
    let [Value::Numbers(edges), Value::Numbers(counts)] = arguments else { return Ok(Value::Null) };
    if let Some(fault) = edges_fault(edges) {
        return exec_err!("hist: {fault}");
    }
    if edges.len() != counts.len() + 1 {
        return exec_err!("hist: {} counts do not fit between {} edges", counts.len(), edges.len());
    }
    if !are_counts(counts) {
        return Ok(Value::Null);
    }
    let counts = [0.0].into_iter().chain(counts.iter().copied()).chain([0.0]).collect();
    Ok(Value::Hist(Hist::new(Cells::Edges { edges: edges.clone(), counts })))
}

fn hist_of_counts(arguments: &[Value]) -> Result<Value> {
    match arguments {
        [Value::Numbers(counts)] if counts.len() > BINS_MAX => {
            exec_err!("hist_of: {} bins are more than {BINS_MAX}", counts.len())
        }
        [Value::Numbers(counts)] if are_counts(counts) => Ok(Value::Hist(Hist::new(Cells::Bins(counts.clone())))),
        _ => Ok(Value::Null),
    }
}

fn freq(arguments: &[Value]) -> Result<Value> {
    let [Value::Texts(keys), Value::Numbers(counts)] = arguments else { return Ok(Value::Null) };
    if keys.len() != counts.len() {
        return exec_err!("freq: {} keys have {} counts", keys.len(), counts.len());
    }
    if !are_counts(counts) {
        return Ok(Value::Null);
    }
    Ok(Value::Hist(of_pairs(keys.iter().cloned().zip(counts.iter().copied()))))
}

/// Categories from pairs in any order.
pub(super) fn of_pairs(pairs: impl Iterator<Item = (String, f64)>) -> Hist {
    let mut sum = std::collections::BTreeMap::new();
    for (key, count) in pairs {
        *sum.entry(key).or_insert(0.0) += count;
    }
    Hist::new(Cells::Categories(sum.into_iter().collect()))
}
