//! Summaries that are histograms: what the aggregates that make them share.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use datafusion::common::Result;

use super::aggregate::Summarizer;
use super::hist::{Hist, HistColumn, to_column};

/// How rows get into the cells of a histogram.
pub(super) trait Fill: Debug + Send + Sync + 'static {
    /// Adds rows; each `(row, group)` says which row of `arguments` belongs to which histogram.
    fn fill(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()>;

    /// Keeps a histogram within its limits.
    fn trim(&self, _: &mut Hist) {}

    /// The result of what was summed up.
    fn finish(&self, hist: &Hist) -> Hist {
        hist.clone()
    }
}

/// A [`Summarizer`] of histograms.
#[derive(Debug)]
pub(super) struct Hists<F>(pub(super) F);

impl<F: Fill> Summarizer for Hists<F> {
    type Summary = Option<Hist>;

    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()> {
        self.0.fill(arguments, rows, groups)
    }

    fn merge(&self, into: &mut Option<Hist>, from: &Option<Hist>) -> Result<()> {
        let Some(from) = from else { return Ok(()) };
        match into {
            Some(into) => {
                into.add(from)?;
                self.0.trim(into);
            }
            None => *into = Some(from.clone()),
        }
        Ok(())
    }

    fn states(&self, summaries: &[Option<Hist>]) -> Result<ArrayRef> {
        to_column(summaries.iter().map(Option::as_ref))
    }

    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Option<Hist>>> {
        let column = HistColumn::try_new(states)?;
        (0..states.len()).map(|row| column.get(row)).collect()
    }

    fn results(&self, summaries: &[Option<Hist>]) -> Result<ArrayRef> {
        let finished: Vec<_> = summaries.iter().map(|hist| hist.as_ref().map(|hist| self.0.finish(hist))).collect();
        to_column(finished.iter().map(Option::as_ref))
    }

    fn size_bytes(&self, summary: &Option<Hist>) -> usize {
        summary.as_ref().map_or(0, Hist::size_bytes)
    }
}

/// Adds the numbers of a column: `count` counts a finite one; null is nothing, NaN and infinity are ignored and
/// counted.
pub(super) fn fill_numbers(
    column: &ArrayRef,
    rows: &mut dyn Iterator<Item = (usize, usize)>,
    groups: &mut [Option<Hist>],
    empty: &dyn Fn() -> Hist,
    count: &dyn Fn(&mut Hist, f64),
) {
    let numbers = column.as_primitive::<Float64Type>();
    for (row, group) in rows.filter(|(row, _)| numbers.is_valid(*row)) {
        let hist = groups[group].get_or_insert_with(empty);
        let x = numbers.value(row);
        if x.is_finite() {
            count(hist, x);
        } else {
            hist.ignored += 1;
        }
    }
}
