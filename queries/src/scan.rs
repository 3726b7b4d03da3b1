//! The scan stage's side of a windowed rule: telemetry rows in, partial aggregates out.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};

use crate::EvaluationError;
use crate::aggregation::{Aggregation, Partial};
use crate::stage::Stage;

/// Filters, projects and sums up rows; keeps nothing once it is flushed.
pub struct Scan {
    pub(crate) rule: String,
    pub(crate) stage: Arc<Stage>,
    pub(crate) partial: Partial,
    /// What was summed up of earlier batches, if each batch must be summed up by itself.
    apart: Vec<RecordBatch>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// How rows are summed up: makes scans that have seen nothing.
#[derive(Debug)]
pub struct ScanPlan {
    rule: String,
    stage: Arc<Stage>,
    aggregation: Arc<Aggregation>,
}

impl ScanPlan {
    pub(crate) fn new(rule: &str, stage: Stage, aggregation: Arc<Aggregation>) -> Self {
        Self { rule: rule.to_owned(), stage: Arc::new(stage), aggregation }
    }

    /// A scan that has seen nothing.
    ///
    /// # Errors
    /// An accumulator cannot be made.
    pub fn scan(&self) -> Result<Scan, EvaluationError> {
        let failed = |e: DataFusionError| EvaluationError { rule: self.rule.clone(), message: e.strip_backtrace() };
        let partial = Partial::try_new(Arc::clone(&self.aggregation)).map_err(failed)?;
        Ok(Scan { rule: self.rule.clone(), stage: Arc::clone(&self.stage), partial, apart: Vec::new() })
    }
}

impl Scan {
    pub(crate) fn try_new(rule: &str, stage: Stage, aggregation: Arc<Aggregation>) -> Result<Self> {
        let stage = Arc::new(stage);
        Ok(Self { rule: rule.to_owned(), stage, partial: Partial::try_new(aggregation)?, apart: Vec::new() })
    }

    /// What makes scans that do the same.
    #[must_use]
    pub fn plan(&self) -> ScanPlan {
        let aggregation = Arc::clone(self.partial.aggregation());
        ScanPlan { rule: self.rule.clone(), stage: Arc::clone(&self.stage), aggregation }
    }

    /// Adds telemetry rows; the batch has at least the columns that the rule set wants of the table.
    ///
    /// # Errors
    /// An expression of the rule fails on these rows; what was added before stays.
    pub fn absorb(&mut self, rows: &RecordBatch) -> Result<(), EvaluationError> {
        self.try_absorb(rows).map_err(|e| self.failed(&e))
    }

    fn try_absorb(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.partial.needs_sorted_rows() {
            // The stage sorts a batch; the next one begins anew.
            self.apart.extend(self.partial.flush()?);
        }
        self.stage.run(rows)?.iter().try_for_each(|batch| self.partial.absorb(batch))
    }

    /// Everything added since the last flush as partial batches `[pane_start, key…, state…]`; a key occurs in each of
    /// them at most once. There is at most one batch unless an aggregate needs its rows sorted.
    ///
    /// # Errors
    /// An accumulator cannot yield its state.
    pub fn flush(&mut self) -> Result<Vec<RecordBatch>, EvaluationError> {
        let mut batches = std::mem::take(&mut self.apart);
        batches.extend(self.partial.flush().map_err(|e| self.failed(&e))?);
        Ok(batches)
    }

    fn failed(&self, error: &DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }
}
