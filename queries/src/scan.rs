//! The scan stage's side of a windowed rule: telemetry rows in, partial aggregates out.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::EvaluationError;
use crate::aggregation::{Aggregation, Partial};
use crate::stage::Stage;

/// Filters, projects and sums up rows; keeps nothing once it is flushed.
pub struct Scan {
    pub(crate) rule: String,
    pub(crate) stage: Stage,
    pub(crate) partial: Partial,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Scan {
    pub(crate) fn try_new(rule: &str, stage: Stage, aggregation: Arc<Aggregation>) -> datafusion::common::Result<Self> {
        Ok(Self { rule: rule.to_owned(), stage, partial: Partial::try_new(aggregation)? })
    }

    /// Adds telemetry rows; the batch has at least the columns that the rule set wants of the table.
    ///
    /// # Errors
    /// An expression of the rule fails on these rows; what was added before stays.
    pub fn absorb(&mut self, rows: &RecordBatch) -> Result<(), EvaluationError> {
        let absorbed = self.stage.run(rows).and_then(|out| out.iter().try_for_each(|b| self.partial.absorb(b)));
        absorbed.map_err(|e| self.failed(&e))
    }

    /// The partial batch `[pane_start, key…, state…]` of everything added since the last flush.
    ///
    /// # Errors
    /// An accumulator cannot yield its state.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, EvaluationError> {
        self.partial.flush().map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &datafusion::common::DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }
}
