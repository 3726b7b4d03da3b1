//! Distances of vectors and of sets of vectors, for embeddings; and what is robust of a list of numbers.

use datafusion::common::{Result, exec_err};

use super::FunctionDoc;
use super::binning::quantile;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value, finite};

const PAIR: &[Kind] = &[Kind::Numbers, Kind::Numbers];
const SETS: &[Kind] = &[Kind::Vectors, Kind::Vectors, Kind::Number];

const fn spec(doc: FunctionDoc, takes: &'static [Kind], required: usize, body: Body) -> ScalarSpec {
    ScalarSpec { doc, takes, required, gives: Gives::Number, body }
}

type Body = fn(&[Value]) -> Result<Value>;

pub(super) static VECTOR_FUNCTIONS: [ScalarSpec; 7] = [
    spec(
        FunctionDoc {
            name: "cosine_distance",
            arguments: "a, b",
            meaning: "1 - cosine of two vectors, 0 to 2; null of a vector of zeros and of vectors of other lengths",
            source: "scipy.spatial.distance.cosine",
        },
        PAIR,
        2,
        cosine_distance,
    ),
    spec(
        FunctionDoc {
            name: "l2_distance",
            arguments: "a, b",
            meaning: "Euclidean distance of two vectors; null of vectors of other lengths",
            source: "Arize: distance of centroids",
        },
        PAIR,
        2,
        l2_distance,
    ),
    spec(
        FunctionDoc {
            name: "mmd2",
            arguments: "xs, ys [, gamma]",
            meaning: "unbiased squared maximum mean discrepancy of two lists of vectors or numbers (2 to 2000 each) \
                      with the kernel exp(-gamma d^2); without gamma 1 over the median squared distance within xs; \
                      null of vectors of several lengths and where (n + m)^2 times their length is over 1e8",
            source: "Gretton et al. 2012; Evidently 0.7",
        },
        SETS,
        2,
        |arguments| mmd2(arguments, true),
    ),
    spec(
        FunctionDoc {
            name: "mmd2_biased",
            arguments: "xs, ys [, gamma]",
            meaning: "the same with every vector compared with itself as well; never negative",
            source: "Gretton et al. 2012",
        },
        SETS,
        2,
        |arguments| mmd2(arguments, false),
    ),
    spec(
        FunctionDoc {
            name: "list_median",
            arguments: "values",
            meaning: "median of the finite numbers of a list",
            source: "numpy.median",
        },
        &[Kind::Numbers],
        1,
        |arguments| Ok(sorted(arguments).map_or(Value::Null, |sorted| Value::of(quantile(&sorted, 0.5)))),
    ),
    spec(
        FunctionDoc {
            name: "list_std",
            arguments: "values",
            meaning: "standard deviation of the finite numbers of a list (divided by n)",
            source: "numpy.std",
        },
        &[Kind::Numbers],
        1,
        list_std,
    ),
    spec(
        FunctionDoc {
            name: "mad",
            arguments: "values",
            meaning: "median of the distances from the median; times 1.4826 a robust standard deviation",
            source: "scipy.stats.median_abs_deviation",
        },
        &[Kind::Numbers],
        1,
        mad,
    ),
];

/// None of vectors of different lengths: an error would stop the rule for everybody because of one sender's data.
fn pair<'a>(name: &str, arguments: &'a [Value]) -> Result<Option<(&'a [f64], &'a [f64])>> {
    match arguments {
        [Value::Numbers(a), Value::Numbers(b)] => Ok((a.len() == b.len()).then_some((a, b))),
        _ => exec_err!("{name} compares two vectors"),
    }
}

fn cosine_distance(arguments: &[Value]) -> Result<Value> {
    let Some((a, b)) = pair("cosine_distance", arguments)? else { return Ok(Value::Null) };
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    Ok(Value::of(1.0 - product(a, b) / (product(a, a).sqrt() * product(b, b).sqrt())))
}

fn l2_distance(arguments: &[Value]) -> Result<Value> {
    let pair = pair("l2_distance", arguments)?;
    Ok(pair.map_or(Value::Null, |(a, b)| Value::of(square(a, b).sqrt())))
}

/// The squared distance.
fn square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum()
}

/// Every vector is compared with every other: four million kernels at this size.
const VECTORS_MAX: usize = 2000;

/// Every number of a vector is a step of each comparison: 1e8 are 128 vectors of 1500 numbers on either side, and take
/// about a tenth of a second.
const STEPS_MAX: usize = 100_000_000;

fn mmd2(arguments: &[Value], is_unbiased: bool) -> Result<Value> {
    let vectors = |at: usize| match arguments.get(at) {
        Some(Value::Vectors(vectors)) => vectors.clone(),
        Some(Value::Numbers(numbers)) => numbers.iter().map(|x| vec![*x]).collect(),
        _ => Vec::new(),
    };
    let (xs, ys) = (vectors(0), vectors(1));
    let (n, m) = (xs.len(), ys.len());
    if n.min(m) < 2 || n.max(m) > VECTORS_MAX {
        return Ok(Value::Null);
    }
    let length = xs[0].len();
    let steps = ((n + m) * (n + m)).saturating_mul(length);
    if steps > STEPS_MAX || xs.iter().chain(&ys).any(|v| v.len() != length) {
        return Ok(Value::Null);
    }
    let gamma = match arguments.get(2) {
        Some(gamma) => gamma.number(),
        None => 1.0 / median_square(&xs),
    };
    let kernel = |a: &[f64], b: &[f64]| (-gamma * square(a, b)).exp();
    let (n, m) = (n as f64, m as f64);
    let (own_n, own_m) = if is_unbiased { (n, m) } else { (0.0, 0.0) };
    let of_x = (all_pairs(&xs, &xs, &kernel) - own_n) / (n * n - own_n);
    let of_y = (all_pairs(&ys, &ys, &kernel) - own_m) / (m * m - own_m);
    Ok(Value::of(of_x + of_y - 2.0 * all_pairs(&xs, &ys, &kernel) / (n * m)))
}

fn all_pairs(xs: &[Vec<f64>], ys: &[Vec<f64>], kernel: &dyn Fn(&[f64], &[f64]) -> f64) -> f64 {
    xs.iter().map(|x| ys.iter().map(|y| kernel(x, y)).sum::<f64>()).sum()
}

/// The median of all squared distances within a set, those to itself included; of two in the middle the one whose
/// number is even.
fn median_square(xs: &[Vec<f64>]) -> f64 {
    let mut squares: Vec<f64> = xs.iter().flat_map(|x| xs.iter().map(|y| square(x, y))).collect();
    let last = squares.len() - 1;
    let half = last / 2;
    let middle = if last % 2 == 1 { half + half % 2 } else { half };
    *squares.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The finite numbers of a list in order; none if there are none.
fn sorted(arguments: &[Value]) -> Option<Vec<f64>> {
    let Some(Value::Numbers(values)) = arguments.first() else { return None };
    let mut values = finite(values);
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then_some(values)
}

fn mad(arguments: &[Value]) -> Result<Value> {
    let Some(values) = sorted(arguments) else { return Ok(Value::Null) };
    let median = quantile(&values, 0.5);
    let mut apart: Vec<f64> = values.iter().map(|x| (x - median).abs()).collect();
    apart.sort_by(f64::total_cmp);
    Ok(Value::of(quantile(&apart, 0.5)))
}

fn list_std(arguments: &[Value]) -> Result<Value> {
    let Some(values) = sorted(arguments) else { return Ok(Value::Null) };
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    Ok(Value::of((values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()))
}
