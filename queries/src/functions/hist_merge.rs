//! `hist_merge(hist)`: the histogram of the rows behind several histograms.

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, Summarizer};
use super::coerce::Kind;
use super::freq_map::forget_rare;
use super::hist::{Hist, HistColumn, hist_type};
use super::hist_summary::{Fill, Hists};

pub(super) static HIST_MERGE: AggregateSpec<Hists<Merge>> = AggregateSpec {
    doc: FunctionDoc {
        name: "hist_merge",
        arguments: "hist",
        meaning: "histograms of the same cells, added up; over frames of windows (OVER … ROWS) too. Of categories the \
                  rare are forgotten beyond 8192",
        source: "cell by cell",
    },
    takes: &[Kind::Hist],
    required: 1,
    state_type: hist_type,
    result_type: hist_type,
    bind: |_| Ok(Hists(Merge)),
};

/// A month of hourly maps of 256 texts, of which most come back.
const CATEGORIES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Merge;

impl Fill for Merge {
    fn fill(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()> {
        let column = HistColumn::try_new(&arguments[0])?;
        for (row, group) in rows {
            Hists(Self).merge(&mut groups[group], &column.get(row)?)?;
        }
        Ok(())
    }

    fn trim(&self, hist: &mut Hist) {
        forget_rare(hist, CATEGORIES_MAX);
    }
}
