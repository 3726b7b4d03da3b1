//! `hist_fixed(x, lo, hi, bins)` and `hist_fixed(x, edges)`: numbers in given bins.

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue, plan_err};

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, constant_int};
use super::coerce::Kind;
use super::hist::{BINS_MAX, Cells, Hist, bin_of, edges_fault, equal_edges, hist_type, numbers_at};
use super::hist_summary::{Fill, Hists, fill_numbers};

pub(super) static HIST_FIXED: AggregateSpec<Hists<Fixed>> = AggregateSpec {
    doc: FunctionDoc {
        name: "hist_fixed",
        arguments: "x, lo, hi, bins | x, edges",
        meaning: "histogram of numbers in equal bins, or in bins with the given edges; the last bin includes its upper \
                  edge; what is below or above is counted apart; NaN and infinity are left out and counted",
        source: "numpy.histogram",
    },
    takes: &[Kind::Number, Kind::NumberOrNumbers, Kind::Number, Kind::Int],
    required: 2,
    state_type: hist_type,
    result_type: hist_type,
    bind: Fixed::bind,
};

#[derive(Debug)]
pub(super) struct Fixed {
    edges: Vec<f64>,
}

impl Fixed {
    fn bind(constants: &[Option<ScalarValue>]) -> Result<Hists<Self>> {
        let edges = match constants.get(1..) {
            Some([Some(ScalarValue::List(edges))]) => match numbers_at(edges, 0) {
                Some(edges) => edges.values().to_vec(),
                None => return plan_err!("the edges of hist_fixed are null"),
            },
            Some([Some(ScalarValue::Float64(Some(lo))), Some(ScalarValue::Float64(Some(hi))), _]) => {
                let most = i64::try_from(BINS_MAX).unwrap_or(i64::MAX);
                let bins = constant_int(constants, 3, "the number of bins of hist_fixed", 1, 1..=most)?;
                equal_edges(*lo, *hi, usize::try_from(bins).unwrap_or(1))
            }
            _ => return plan_err!("hist_fixed takes x, lo, hi, bins or x, edges, all but x constants"),
        };
        match edges_fault(&edges) {
            Some(fault) => plan_err!("hist_fixed: {fault}"),
            None => Ok(Hists(Self { edges })),
        }
    }
}

impl Fill for Fixed {
    fn fill(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()> {
        let empty = || Hist::new(Cells::Edges { edges: self.edges.clone(), counts: vec![0.0; self.edges.len() + 1] });
        let count = |hist: &mut Hist, x: f64| {
            if let Cells::Edges { counts, .. } = &mut hist.cells {
                counts[bin_of(&self.edges, x)] += 1.0;
            }
        };
        fill_numbers(&arguments[0], rows, groups, &empty, &count);
        Ok(())
    }
}
