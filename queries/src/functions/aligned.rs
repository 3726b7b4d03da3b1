//! Two histograms over the same cells, as two lists of counts.

use datafusion::common::{Result, exec_err};

use super::hist::{Cells, Hist, LogScale, describe, same_edges};
use super::scalar::Value;

/// The counts of a reference and of what is compared with it, cell by cell.
///
/// Cells are in the order of their values or keys. Bins are there even if they are empty in both, buckets and
/// categories are those that one of the two has; what is below the first edge or above the last counts as a bin if it
/// is not empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aligned {
    pub(super) reference: Vec<f64>,
    pub(super) current: Vec<f64>,
    /// The least and the greatest value of each cell; none of categories.
    pub(super) ranges: Option<Vec<(f64, f64)>>,
}

impl Aligned {
    /// # Errors
    /// The histograms have different kinds of cells, other edges, or another number of bins.
    pub(super) fn of(reference: &Hist, current: &Hist) -> Result<Self> {
        match (&reference.cells, &current.cells) {
            (Cells::Categories(left), Cells::Categories(right)) => {
                let (_, reference, current) = united(left, right);
                Ok(Self { reference, current, ranges: None })
            }
            (Cells::Log { sub, buckets: left }, Cells::Log { sub: other, buckets: right }) if sub == other => {
                let (buckets, reference, current) = united(left, right);
                let scale = LogScale::new(*sub);
                let ranges = Some(buckets.into_iter().map(|bucket| scale.edges_of(bucket)).collect());
                Ok(Self { reference, current, ranges })
            }
            (Cells::Bins(left), Cells::Bins(right)) if left.len() == right.len() => {
                let ranges = Some((0..left.len()).map(|at| (at as f64, at as f64 + 1.0)).collect());
                Ok(Self { reference: left.clone(), current: right.clone(), ranges })
            }
            (Cells::Edges { edges, counts: left }, Cells::Edges { edges: other, counts: right })
                if same_edges(edges, other) =>
            {
                let ranges = ranges_of(edges);
                let last = ranges.len() - 1;
                let is_bin = |at: usize| (at > 0 && at < last) || left[at] > 0.0 || right[at] > 0.0;
                let kept: Vec<usize> = (0..ranges.len()).filter(|at| is_bin(*at)).collect();
                let of = |counts: &[f64]| kept.iter().map(|at| counts[*at]).collect();
                let ranges = Some(kept.iter().map(|at| ranges[*at]).collect());
                Ok(Self { reference: of(left), current: of(right), ranges })
            }
            (left, right) => exec_err!("{} and {} cannot be compared", describe(left), describe(right)),
        }
    }

    /// The totals of both.
    pub(super) fn totals(&self) -> (f64, f64) {
        (self.reference.iter().sum(), self.current.iter().sum())
    }

    /// The shares of both, cell by cell; none if one of them is empty.
    pub(super) fn shares(&self) -> Option<Vec<(f64, f64)>> {
        let (n, m) = self.totals();
        let pairs = self.reference.iter().zip(&self.current);
        (n > 0.0 && m > 0.0).then(|| pairs.map(|(r, c)| (r / n, c / m)).collect())
    }

    /// Without the cells that are empty in both.
    pub(super) fn without_empty(self) -> Vec<(f64, f64)> {
        let pairs = self.reference.into_iter().zip(self.current);
        pairs.filter(|(r, c)| *r > 0.0 || *c > 0.0).collect()
    }
}

/// What each entry of `counts` covers; open ends end at the nearest finite edge.
pub(super) fn ranges_of(edges: &[f64]) -> Vec<(f64, f64)> {
    let closed = |(lo, hi): (f64, f64)| match (lo.is_finite(), hi.is_finite()) {
        (true, true) => (lo, hi),
        (true, false) => (lo, lo),
        (false, true) => (hi, hi),
        (false, false) => (0.0, 0.0),
    };
    let (first, last) = (edges[0], edges[edges.len() - 1]);
    let bins = edges.windows(2).map(|pair| (pair[0], pair[1]));
    let all = std::iter::once((f64::NEG_INFINITY, first)).chain(bins).chain([(last, f64::INFINITY)]);
    all.map(closed).collect()
}

fn united<K: Ord + Clone>(left: &[(K, f64)], right: &[(K, f64)]) -> (Vec<K>, Vec<f64>, Vec<f64>) {
    let mut keys: Vec<K> = left.iter().chain(right).map(|cell| cell.0.clone()).collect();
    keys.sort();
    keys.dedup();
    let of = |cells: &[(K, f64)]| {
        let count = |key: &K| cells.binary_search_by(|cell| cell.0.cmp(key)).map_or(0.0, |at| cells[at].1);
        keys.iter().map(count).collect()
    };
    let (reference, current) = (of(left), of(right));
    (keys, reference, current)
}

/// The first two arguments, aligned.
pub(super) fn both(name: &str, arguments: &[Value]) -> Result<Aligned> {
    match arguments {
        [Value::Hist(reference), Value::Hist(current), ..] => Aligned::of(reference, current),
        _ => exec_err!("{name} compares two histograms"),
    }
}
