//! The histogram: one value that window aggregates make, that adds up, and that distances are worked out from.
//!
//! In Arrow it is a struct of plain columns (see [`hist_type`]), so it can be checkpointed, sent and shown as any other
//! value. Counts are `f64`: whole numbers add up exactly to 2^53, so two histograms of the same rows are equal byte for
//! byte however the rows were cut and in which order the parts were merged. Cells are kept in order, empty buckets and
//! absent categories are left out.
//!
//! Four kinds of cells, told apart by which columns are null:
//!
//! | kind | `sub` | `edges` | `buckets` | `keys` | `counts` |
//! |---|---|---|---|---|---|
//! | logarithmic | buckets per doubling | | the bucket's number | | of each bucket |
//! | fixed edges | | of the bins, ascending | | | below, of each bin, above |
//! | categories | | | | sorted | of each key |
//! | numbered bins | | | | | of each bin |

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array,
    ListArray, ListBuilder, StringBuilder, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, exec_err};

/// The name under which a categorical histogram counts what it has no room for.
pub(crate) const OTHER: &str = "__other__";

/// Most bins of a histogram with fixed edges: distances between finer ones measure noise.
pub(crate) const BINS_MAX: usize = 4096;

/// Most buckets per doubling: at 64 a bucket is 1.1 % wide.
pub(crate) const SUB_MAX: i32 = 64;

/// Smaller magnitudes are counted as zero, as 2^-30 is below any latency, price or count of tokens.
const LOG_MIN_EXPONENT: i32 = -30;

/// Magnitudes from 2^64 on are counted in the last bucket, so that no value makes a histogram grow without end.
const LOG_MAX_EXPONENT: i32 = 64;

/// The cells of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cells {
    /// Buckets whose edges are powers of 2^(1/sub): number, count; see [`LogScale`].
    Log { sub: i32, buckets: Vec<(i32, f64)> },
    /// `counts` has two entries more than there are bins: below the first edge, and above the last.
    Edges { edges: Vec<f64>, counts: Vec<f64> },
    /// Sorted by key.
    Categories(Vec<(String, f64)>),
    /// Bins that only have a number: 0, 1, 2, …
    Bins(Vec<f64>),
}

/// A histogram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hist {
    pub(crate) cells: Cells,
    /// How many values were neither null nor a finite number; they are in no cell.
    pub(crate) ignored: i64,
}

impl Hist {
    pub(crate) fn new(cells: Cells) -> Self {
        Self { cells, ignored: 0 }
    }

    /// What is in all cells together.
    pub(crate) fn total(&self) -> f64 {
        match &self.cells {
            Cells::Log { buckets, .. } => buckets.iter().map(|b| b.1).sum(),
            Cells::Edges { counts, .. } | Cells::Bins(counts) => counts.iter().sum(),
            Cells::Categories(counts) => counts.iter().map(|c| c.1).sum(),
        }
    }

    /// Adds another histogram, cell by cell.
    ///
    /// # Errors
    /// It has other cells: another kind, other edges, another number of bins.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        match (&mut self.cells, &other.cells) {
            (Cells::Log { sub, buckets }, Cells::Log { sub: other_sub, buckets: others }) if sub == other_sub => {
                add_sorted(buckets, others);
            }
            (Cells::Edges { edges, counts }, Cells::Edges { edges: other_edges, counts: others })
                if same_edges(edges, other_edges) =>
            {
                add_each(counts, others);
            }
            (Cells::Categories(counts), Cells::Categories(others)) => add_sorted(counts, others),
            (Cells::Bins(counts), Cells::Bins(others)) if counts.len() == others.len() => add_each(counts, others),
            (own, others) => return exec_err!("{} and {} do not add up", describe(own), describe(others)),
        }
        self.ignored += other.ignored;
        Ok(())
    }

    /// The memory of its cells, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.cells {
            Cells::Log { buckets, .. } => buckets.capacity() * size_of::<(i32, f64)>(),
            Cells::Edges { edges, counts } => (edges.capacity() + counts.capacity()) * size_of::<f64>(),
            Cells::Bins(counts) => counts.capacity() * size_of::<f64>(),
            Cells::Categories(counts) => {
                let keys: usize = counts.iter().map(|c| c.0.capacity()).sum();
                keys + counts.capacity() * size_of::<(String, f64)>()
            }
        }
    }
}

/// Infinite edges are equal to themselves, and no edge is NaN.
pub(crate) fn same_edges(left: &[f64], right: &[f64]) -> bool {
    left == right
}

fn add_each(counts: &mut [f64], others: &[f64]) {
    counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
}

/// Merges two sorted lists of cells; equal keys are added up.
fn add_sorted<K: Ord + Clone>(counts: &mut Vec<(K, f64)>, others: &[(K, f64)]) {
    if others.iter().all(|(key, _)| counts.binary_search_by(|c| c.0.cmp(key)).is_ok()) {
        for (key, count) in others {
            if let Ok(at) = counts.binary_search_by(|c| c.0.cmp(key)) {
                counts[at].1 += count;
            }
        }
        return;
    }
    let mut merged = Vec::with_capacity(counts.len() + others.len());
    let (mut left, mut right) = (std::mem::take(counts).into_iter().peekable(), others.iter().peekable());
    while let (Some(own), Some(other)) = (left.peek(), right.peek()) {
        let order = own.0.cmp(&other.0);
        let own = if order.is_le() { left.next() } else { None };
        let other = if order.is_ge() { right.next() } else { None };
        merged.extend(match (own, other) {
            (Some((key, count)), Some(other)) => Some((key, count + other.1)),
            (own, other) => own.or_else(|| other.cloned()),
        });
    }
    merged.extend(left);
    merged.extend(right.cloned());
    *counts = merged;
}

/// What a histogram is, for messages.
pub(crate) fn describe(cells: &Cells) -> String {
    match cells {
        Cells::Log { sub, .. } => format!("a logarithmic histogram of {sub} buckets per doubling"),
        Cells::Edges { edges, .. } => format!("a histogram of the edges {edges:?}"),
        Cells::Categories(_) => "a histogram of categories".to_owned(),
        Cells::Bins(counts) => format!("a histogram of {} numbered bins", counts.len()),
    }
}

/// The buckets of a logarithmic histogram.
///
/// A positive value `2^e * m` with `m` in [1, 2) is in the bucket `(e - min) * sub + j + 1`, where `j` is the last of
/// the `sub` steps `2^(j/sub)` that `m` reaches; zero is bucket 0, and negative values mirror the positive ones. So
/// buckets have the order of their values, and neither logarithms nor rounding decide where a value belongs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogScale {
    sub: i32,
    /// `2^(j/sub)` for j in 0..sub.
    steps: Vec<f64>,
}

impl LogScale {
    pub(crate) fn new(sub: i32) -> Self {
        Self { sub, steps: (0..sub).map(|j| (f64::from(j) / f64::from(sub)).exp2()).collect() }
    }

    pub(crate) fn sub(&self) -> i32 {
        self.sub
    }

    /// The bucket of a finite number.
    pub(crate) fn bucket_of(&self, x: f64) -> i32 {
        let magnitude = x.abs();
        let bits = magnitude.to_bits();
        let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1023;
        let bucket = if exponent < LOG_MIN_EXPONENT {
            0
        } else if exponent >= LOG_MAX_EXPONENT {
            (LOG_MAX_EXPONENT - LOG_MIN_EXPONENT) * self.sub
        } else {
            let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
            let step = self.steps.partition_point(|step| *step <= mantissa) - 1;
            (exponent - LOG_MIN_EXPONENT) * self.sub + i32::try_from(step).unwrap_or(0) + 1
        };
        if x < 0.0 { -bucket } else { bucket }
    }

    /// The lower and the upper edge of a bucket.
    pub(crate) fn edges_of(&self, bucket: i32) -> (f64, f64) {
        match bucket {
            0 => (0.0, 0.0),
            b if b > 0 => (self.edge(b - 1), self.edge(b)),
            b => (-self.edge(-b), -self.edge(-b - 1)),
        }
    }

    fn edge(&self, step: i32) -> f64 {
        let within = usize::try_from(step % self.sub).unwrap_or(0);
        self.steps[within] * f64::from(LOG_MIN_EXPONENT + step / self.sub).exp2()
    }
}

/// The Arrow type of every histogram.
pub(crate) fn hist_type() -> DataType {
    DataType::Struct(fields())
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("sub", DataType::Int32, true),
        Field::new("edges", list_of(DataType::Float64), true),
        Field::new("buckets", list_of(DataType::Int32), true),
        Field::new("keys", list_of(DataType::Utf8), true),
        Field::new("counts", list_of(DataType::Float64), true),
        Field::new("ignored", DataType::Int64, true),
    ])
}

/// A column of histograms, to be read.
pub(crate) struct HistColumn<'a> {
    rows: &'a StructArray,
    sub: &'a Int32Array,
    lists: [&'a ListArray; 4],
    ignored: &'a Int64Array,
}

impl<'a> HistColumn<'a> {
    /// # Errors
    /// The column has another type.
    pub(crate) fn try_new(column: &'a ArrayRef) -> Result<Self> {
        if *column.data_type() != hist_type() {
            return exec_err!("{} is no histogram", column.data_type());
        }
        let rows = column.as_struct();
        let lists = [1, 2, 3, 4].map(|at| rows.column(at).as_list::<i32>());
        let (sub, ignored) = (rows.column(0).as_primitive::<Int32Type>(), rows.column(5).as_primitive::<Int64Type>());
        Ok(Self { rows, sub, lists, ignored })
    }

    /// The histogram of a row; none if it is null.
    ///
    /// # Errors
    /// It is none that an aggregate makes: a struct made by hand, or read from a file, may be anything.
    pub(crate) fn get(&self, row: usize) -> Result<Option<Hist>> {
        if self.rows.is_null(row) {
            return Ok(None);
        }
        let [_, buckets, keys, counts] = self.lists.map(|list| list.value_length(row));
        let is_of = |cells: i32| cells == counts;
        if (self.sub.is_valid(row) && !is_of(buckets)) || (self.lists[2].is_valid(row) && !is_of(keys)) {
            return exec_err!("no histogram: {counts} counts of {} cells", buckets.max(keys));
        }
        let hist = self.read(row);
        match fault(&hist.cells) {
            None => Ok(Some(hist)),
            Some(fault) => exec_err!("no histogram: {fault}"),
        }
    }

    fn read(&self, row: usize) -> Hist {
        let [edges, buckets, keys, counts] = self.lists;
        let floats = |list: &ListArray| list.value(row).as_primitive::<Float64Type>().values().to_vec();
        let counts = floats(counts);
        let cells = if self.sub.is_valid(row) {
            let buckets = buckets.value(row);
            let numbers = buckets.as_primitive::<Int32Type>().values();
            Cells::Log { sub: self.sub.value(row), buckets: numbers.iter().copied().zip(counts).collect() }
        } else if edges.is_valid(row) {
            Cells::Edges { edges: floats(edges), counts }
        } else if keys.is_valid(row) {
            let keys = keys.value(row);
            let keys = keys.as_string::<i32>().iter().map(|key| key.unwrap_or_default().to_owned());
            Cells::Categories(keys.zip(counts).collect())
        } else {
            Cells::Bins(counts)
        };
        Hist { cells, ignored: self.ignored.value(row) }
    }
}

/// Why cells are none that this module makes; none if they could be.
pub(crate) fn fault(cells: &Cells) -> Option<String> {
    let is_count = |count: &f64| count.is_finite() && *count >= 0.0;
    let shape = match cells {
        Cells::Log { sub, .. } if !(1..=SUB_MAX).contains(sub) => Some(format!("{sub} buckets per doubling")),
        Cells::Log { sub, buckets } => {
            let last = (LOG_MAX_EXPONENT - LOG_MIN_EXPONENT) * sub;
            let is_in = |(bucket, _): &(i32, f64)| (-last..=last).contains(bucket);
            let is_in_order = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
            (!is_in_order || !buckets.iter().all(is_in)).then(|| format!("buckets not in order up to {last}"))
        }
        Cells::Edges { edges, counts } if counts.len() != edges.len() + 1 => {
            Some(format!("{} counts of {} edges", counts.len(), edges.len()))
        }
        Cells::Edges { edges, .. } => edges_fault(edges),
        Cells::Categories(cells) => {
            let is_in_order = cells.windows(2).all(|pair| pair[0].0 < pair[1].0);
            (!is_in_order).then(|| "keys not in order".to_owned())
        }
        Cells::Bins(_) => None,
    };
    let counts_are = match cells {
        Cells::Log { buckets, .. } => buckets.iter().all(|cell| is_count(&cell.1)),
        Cells::Categories(cells) => cells.iter().all(|cell| is_count(&cell.1)),
        Cells::Edges { counts, .. } | Cells::Bins(counts) => counts.iter().all(is_count),
    };
    shape.or_else(|| (!counts_are).then(|| "counts must be numbers from 0".to_owned()))
}

/// Histograms as a column.
///
/// # Errors
/// None in practice: Arrow checks the columns against their types.
pub(crate) fn to_column<'a>(hists: impl Iterator<Item = Option<&'a Hist>>) -> Result<ArrayRef> {
    let mut sub = Vec::new();
    let mut edges = ListBuilder::new(Float64Builder::new());
    let mut buckets = ListBuilder::new(Int32Builder::new());
    let mut keys = ListBuilder::new(StringBuilder::new());
    let mut counts = ListBuilder::new(Float64Builder::new());
    let (mut ignored, mut valid) = (Vec::new(), Vec::new());
    for hist in hists {
        let cells = hist.map(|hist| &hist.cells);
        valid.push(hist.is_some());
        ignored.push(hist.map(|hist| hist.ignored));
        sub.push(if let Some(Cells::Log { sub, .. }) = cells { Some(*sub) } else { None });
        match cells {
            Some(Cells::Log { buckets: cells, .. }) => {
                buckets.append_value(cells.iter().map(|c| Some(c.0)));
                counts.append_value(cells.iter().map(|c| Some(c.1)));
            }
            Some(Cells::Categories(cells)) => {
                keys.append_value(cells.iter().map(|c| Some(c.0.as_str())));
                counts.append_value(cells.iter().map(|c| Some(c.1)));
            }
            Some(Cells::Edges { edges: bounds, counts: cells }) => {
                edges.append_value(bounds.iter().copied().map(Some));
                counts.append_value(cells.iter().copied().map(Some));
            }
            Some(Cells::Bins(cells)) => counts.append_value(cells.iter().copied().map(Some)),
            None => counts.append_null(),
        }
        // A list that this kind of histogram does not have.
        if edges.len() < valid.len() {
            edges.append_null();
        }
        if buckets.len() < valid.len() {
            buckets.append_null();
        }
        if keys.len() < valid.len() {
            keys.append_null();
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(sub)),
        Arc::new(edges.finish()),
        Arc::new(buckets.finish()),
        Arc::new(keys.finish()),
        Arc::new(counts.finish()),
        Arc::new(Int64Array::from(ignored)),
    ];
    Ok(Arc::new(StructArray::try_new(fields(), columns, Some(NullBuffer::from(valid)))?))
}

/// Bounds of `bins` equal bins from `lo` to `hi`, as `numpy.linspace` gives them.
pub(crate) fn equal_edges(lo: f64, hi: f64, bins: usize) -> Vec<f64> {
    let step = (hi - lo) / bins as f64;
    (0..bins).map(|i| i as f64 * step + lo).chain([hi]).collect()
}

/// Where in `counts` a finite value belongs; the last bin includes its upper edge, as in `numpy.histogram`.
pub(crate) fn bin_of(edges: &[f64], x: f64) -> usize {
    let at = edges.partition_point(|edge| *edge <= x);
    if at == edges.len() && edges.last() == Some(&x) { at - 1 } else { at }
}

/// Why a list cannot be the edges of bins; none if it can.
pub(crate) fn edges_fault(edges: &[f64]) -> Option<String> {
    let ascends = edges.windows(2).all(|pair| pair[0] <= pair[1]);
    if edges.len() < 2 {
        return Some(format!("{} edges make no bin", edges.len()));
    }
    if edges.len() > BINS_MAX + 1 {
        return Some(format!("{} edges are more than {}", edges.len(), BINS_MAX + 1));
    }
    (!ascends).then(|| format!("the edges {edges:?} do not ascend"))
}

/// Numbers of a row of lists, or null.
pub(crate) fn numbers_at(lists: &ListArray, row: usize) -> Option<Float64Array> {
    lists.is_valid(row).then(|| lists.value(row).as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_column() {
        let kinds = [
            Cells::Log { sub: 8, buckets: vec![(-3, 1.0), (0, 2.0), (17, 3.0)] },
            Cells::Edges { edges: vec![f64::NEG_INFINITY, 0.0, 1.5], counts: vec![0.0, 1.0, 2.0, 0.0] },
            Cells::Categories(vec![(OTHER.to_owned(), 2.5), ("a".to_owned(), 1.0)]),
            Cells::Bins(vec![0.0, 7.0]),
            Cells::Log { sub: 1, buckets: vec![] },
        ];
        let hists: Vec<_> = kinds.into_iter().map(|cells| Some(Hist { cells, ignored: 4 })).chain([None]).collect();
        let column = to_column(hists.iter().map(Option::as_ref)).unwrap();
        let read = HistColumn::try_new(&column).unwrap();
        let back: Vec<_> = (0..column.len()).map(|row| read.get(row).unwrap()).collect();
        assert_eq!(back, hists);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        #[track_caller]
        fn check(cells: Cells, expected: &str) {
            let column = to_column([Some(&Hist::new(cells))].into_iter()).unwrap();
            let message = HistColumn::try_new(&column).unwrap().get(0).unwrap_err().strip_backtrace();
            assert!(message.contains(expected), "{message}");
        }
        let edges = |edges: &[f64], counts: &[f64]| Cells::Edges { edges: edges.to_vec(), counts: counts.to_vec() };
        let log = |sub, buckets: &[(i32, f64)]| Cells::Log { sub, buckets: buckets.to_vec() };
        check(log(0, &[(1, 1.0)]), "0 buckets per doubling");
        check(log(65, &[]), "65 buckets per doubling");
        check(log(8, &[(2, 1.0), (1, 1.0)]), "buckets not in order up to 752");
        check(log(1, &[(i32::MIN, 1.0)]), "buckets not in order up to 94");
        check(edges(&[], &[]), "0 counts of 0 edges");
        check(edges(&[], &[1.0]), "0 edges make no bin");
        check(edges(&[0.0, 1.0], &[1.0]), "1 counts of 2 edges");
        check(edges(&[1.0, 0.0], &[0.0; 3]), "do not ascend");
        check(edges(&[0.0, f64::NAN], &[0.0; 3]), "do not ascend");
        let keys = ["b", "a"].map(|key| (key.to_owned(), 1.0));
        check(Cells::Categories(keys.to_vec()), "keys not in order");
        check(Cells::Bins(vec![1.0, -1.0]), "counts must be numbers from 0");
        check(Cells::Bins(vec![f64::NAN]), "counts must be numbers from 0");
    }

    #[test]
    fn a_value_lies_between_the_edges_of_its_bucket_and_buckets_have_the_order_of_values() {
        for sub in [1, 3, 8, 64] {
            let scale = LogScale::new(sub);
            let mut random = fastrand::Rng::with_seed(3);
            let mut values: Vec<f64> = (0..2_000).map(|_| (random.f64() * 80.0 - 28.0).exp2()).collect();
            values.extend((0..40).map(|e| f64::from(e).exp2()));
            let negative: Vec<f64> = values.iter().map(|x| -x).collect();
            values.extend(negative);
            values.push(0.0);
            values.sort_by(f64::total_cmp);
            let buckets: Vec<i32> = values.iter().map(|x| scale.bucket_of(*x)).collect();
            assert!(buckets.is_sorted());
            for (x, bucket) in values.iter().zip(buckets) {
                let (lo, hi) = scale.edges_of(bucket);
                let is_in = if *x < 0.0 { lo < *x && *x <= hi } else { lo <= *x && (*x < hi || *x == 0.0) };
                assert!(is_in, "{x} in bucket {bucket}: {lo}..{hi}");
            }
        }
    }

    #[test]
    fn magnitudes_beyond_the_scale_are_counted_at_its_ends() {
        let scale = LogScale::new(8);
        assert_eq!(scale.bucket_of(1e-10), 0);
        assert_eq!(scale.bucket_of(f64::MAX), scale.bucket_of(2f64.powi(64)));
        assert_eq!(scale.bucket_of(f64::MIN), -scale.bucket_of(f64::MAX));
        assert!(scale.bucket_of(f64::MAX) >= scale.bucket_of(2f64.powi(63)));
    }

    #[test]
    fn bins_are_those_of_numpy() {
        assert_eq!(equal_edges(0.0, 1.0, 4), [0.0, 0.25, 0.5, 0.75, 1.0]);
        let edges = [0.0, 1.0, 2.0];
        assert_eq!([-1.0, 0.0, 0.9, 1.0, 2.0, 2.1].map(|x| bin_of(&edges, x)), [0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn histograms_of_other_cells_do_not_add_up() {
        let mut bins = Hist::new(Cells::Bins(vec![1.0]));
        let longer = Hist::new(Cells::Bins(vec![1.0, 2.0]));
        let message = bins.add(&longer).unwrap_err().strip_backtrace();
        assert!(message.contains("1 numbered bins and a histogram of 2 numbered bins do not add up"), "{message}");
        let edges = |edges: &[f64]| Hist::new(Cells::Edges { edges: edges.to_vec(), counts: vec![0.0; 3] });
        assert!(edges(&[0.0, 1.0]).add(&edges(&[0.0, 2.0])).is_err());
        assert!(edges(&[0.0, 1.0]).add(&edges(&[0.0, 1.0])).is_ok());
    }
}
