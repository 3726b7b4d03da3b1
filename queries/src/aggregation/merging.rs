//! States of many panes, merged: in which ways that may be done, and part by part.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::{Aggregation, accumulator};
use crate::EvaluationError;
use crate::exemplar::{HEAVIEST, LAST};

/// Besides sums, the functions whose states stay as they are if they are merged with nothing.
const KEPT_BY_NOTHING: [&str; 10] =
    ["count", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor", HEAVIEST, LAST];

impl Aggregation {
    /// Merges state rows that come part by part.
    ///
    /// # Errors
    /// An accumulator cannot be made.
    pub fn merger(&self) -> Result<Merger<'_>, EvaluationError> {
        let accumulators = self.aggregates.iter().map(accumulator).collect::<Result<_>>();
        Ok(Merger { aggregation: self, accumulators: accumulators.map_err(|e| self.failed(&e))? })
    }

    /// Whether a state that is merged with nothing stays as it is, to the last bit: then states may be merged in one go
    /// or two by two, as long as it is in their order.
    #[must_use]
    pub fn merges_in_one_go(&self) -> bool {
        let simple = |a: &Arc<AggregateFunctionExpr>| match a.fun().name() {
            "sum" | "avg" => !a.is_distinct(),
            name => KEPT_BY_NOTHING.contains(&name),
        };
        self.aggregates.iter().all(simple)
    }

    /// Whether neighbouring states may be merged before they are merged with those before them, and the result is the
    /// same to the last bit.
    #[must_use]
    pub fn merges_in_any_grouping(&self) -> bool {
        let mut states = self.shapes.states.fields().iter();
        let mut of_aggregates = self.aggregates.iter().zip(&self.shapes.widths);
        self.merges_in_one_go()
            && of_aggregates.all(|(aggregate, width)| {
                let mut types = states.by_ref().take(*width).map(|field| field.data_type());
                match aggregate.fun().name() {
                    // Not for numbers with a point that floats: there an order is part of a sum.
                    "sum" | "avg" | "min" | "max" => types.all(|state| !state.is_floating() && !state.is_nested()),
                    _ => types.count() == *width,
                }
            })
    }
}

/// States that are being merged.
pub struct Merger<'a> {
    aggregation: &'a Aggregation,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Merger<'_> {
    /// Row `i` of `states` goes to group `groups[i]`; there are `total` groups by now.
    ///
    /// # Errors
    /// An accumulator refuses (overflow, a state of another type).
    pub fn add(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), EvaluationError> {
        let mut at = 0;
        for (accumulator, width) in self.accumulators.iter_mut().zip(&self.aggregation.shapes.widths) {
            let merged = accumulator.merge_batch(&states[at..at + width], groups, total);
            merged.map_err(|e| self.aggregation.failed(&e))?;
            at += width;
        }
        Ok(())
    }

    /// One row per group.
    ///
    /// # Errors
    /// An accumulator refuses.
    pub fn finish(mut self) -> Result<Vec<ArrayRef>, EvaluationError> {
        let mut merged = Vec::new();
        for accumulator in &mut self.accumulators {
            merged.extend(accumulator.state(EmitTo::All).map_err(|e| self.aggregation.failed(&e))?);
        }
        Ok(merged)
    }
}
