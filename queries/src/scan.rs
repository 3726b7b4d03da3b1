//! The scan stage's side of a windowed rule: telemetry rows in, partial aggregates out.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};

use crate::EvaluationError;
use crate::aggregation::Aggregation;
use crate::partial::{Partial, update_schema};
use crate::stage::{Filtered, Stage};

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

    /// Whether what the filter of another scan leaves of a batch is what is left here.
    #[must_use]
    pub fn filters_as(&self, other: &Self) -> bool {
        self.stage.filters_as(&other.stage)
    }

    /// Adds telemetry rows; the batch has at least the columns that the rule set wants of the table.
    ///
    /// # Errors
    /// An expression of the rule fails on these rows; what was added before stays.
    pub fn absorb(&mut self, rows: &RecordBatch) -> Result<(), EvaluationError> {
        self.absorb_filtered(rows, &mut Filtered::default())
    }

    /// As [`Scan::absorb`]; `filtered` is what scans that filter alike have left of the same batch, or nothing yet.
    ///
    /// # Errors
    /// As [`Scan::absorb`].
    pub fn absorb_filtered(&mut self, rows: &RecordBatch, filtered: &mut Filtered) -> Result<(), EvaluationError> {
        self.try_absorb(rows, filtered).map_err(|e| self.failed(&e))
    }

    fn try_absorb(&mut self, rows: &RecordBatch, filtered: &mut Filtered) -> Result<()> {
        if self.partial.needs_sorted_rows() {
            // The stage sorts a batch; the next one begins anew.
            self.apart.extend(self.partial.flush()?);
        }
        self.stage.run_filtered(rows, filtered)?.iter().try_for_each(|batch| self.partial.absorb(batch, None))
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

    /// Sums up the rows of several records, each record by itself; `turns`, which do not descend, say which one each
    /// row is of; `filtered` as for [`Scan::absorb_filtered`]. Gives rows of [`update_schema`] in the order of their
    /// turns, none if there are none. Nothing that [`Scan::absorb`] has added may wait to be flushed.
    ///
    /// # Errors
    /// An expression of the rule fails on the rows of one of the records.
    pub fn sum_up_turns(
        &mut self,
        rows: &RecordBatch,
        turns: &[u32],
        filtered: &mut Filtered,
    ) -> Result<Option<RecordBatch>, TurnFailure> {
        match self.sum_up_at_once(rows, turns, filtered) {
            Some(Ok(sums)) => Ok(sums),
            // Whatever fails does so again at the record that makes it fail.
            Some(Err(_)) | None => self.sum_up_turn_by_turn(rows, turns),
        }
    }

    /// None if rows of different records cannot be told apart once they are taken together.
    fn sum_up_at_once(
        &self,
        rows: &RecordBatch,
        turns: &[u32],
        filtered: &mut Filtered,
    ) -> Option<Result<Option<RecordBatch>>> {
        if turns.first() == turns.last() || self.partial.needs_sorted_rows() {
            return None;
        }
        let numbered = self.stage.run_numbered(rows, turns, filtered)?;
        Some(numbered.and_then(|(rows, turns)| {
            if rows.num_rows() == 0 {
                return Ok(None);
            }
            let mut partial = Partial::in_turns(Arc::clone(self.partial.aggregation()))?;
            partial.absorb(&rows, Some(&turns))?;
            partial.flush()?.map(in_order).transpose()
        }))
    }

    fn sum_up_turn_by_turn(&mut self, rows: &RecordBatch, turns: &[u32]) -> Result<Option<RecordBatch>, TurnFailure> {
        let (mut batches, mut of_rows, mut at) = (Vec::new(), Vec::new(), 0);
        for of_turn in turns.chunk_by(|one, next| one == next) {
            let turn = of_turn[0];
            let of_record = rows.slice(at, of_turn.len());
            let summed = self.absorb(&of_record).and_then(|()| self.flush());
            at += of_turn.len();
            match summed {
                Ok(sums) => {
                    of_rows.extend(sums.iter().flat_map(|batch| std::iter::repeat_n(turn, batch.num_rows())));
                    batches.extend(sums);
                }
                Err(error) => {
                    self.begin_anew();
                    return Err(TurnFailure { before: self.with_turns(&batches, of_rows), turn, error });
                }
            }
        }
        Ok(self.with_turns(&batches, of_rows))
    }

    /// What was begun is in no later sum.
    fn begin_anew(&mut self) {
        self.apart.clear();
        if let Ok(partial) = Partial::try_new(Arc::clone(self.partial.aggregation())) {
            self.partial = partial;
        }
    }

    /// Partial batches as one, with the turn of each row.
    fn with_turns(&self, batches: &[RecordBatch], turns: Vec<u32>) -> Option<RecordBatch> {
        if turns.is_empty() {
            return None;
        }
        let partial = self.partial.aggregation().partial_schema();
        let whole = concat_batches(&partial, batches).and_then(|whole| {
            let turns: ArrayRef = Arc::new(UInt32Array::from(turns));
            let columns = whole.columns().iter().cloned().chain([turns]).collect();
            RecordBatch::try_new(update_schema(&partial), columns)
        });
        Some(whole.unwrap_or_else(|e| unreachable!("batches of one scan have one schema: {e}")))
    }

    fn failed(&self, error: &DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }
}

/// Why the rows of one of several records could not be summed up.
#[derive(Debug)]
pub struct TurnFailure {
    /// What the records before it have come to.
    pub before: Option<RecordBatch>,
    /// Which record it was.
    pub turn: u32,
    /// What went wrong.
    pub error: EvaluationError,
}

/// Groups are numbered as they come, and so they stand; unless hashes of two keys were the same.
fn in_order(sums: RecordBatch) -> Result<RecordBatch> {
    let turns = sums.column(sums.num_columns() - 1).as_primitive::<UInt32Type>().values();
    if turns.is_sorted() {
        return Ok(sums);
    }
    let mut rows: Vec<usize> = (0..turns.len()).collect();
    rows.sort_by_key(|row| turns[*row]);
    let rows: UInt64Array = rows.into_iter().map(|row| row as u64).collect();
    Ok(take_record_batch(&sums, &rows)?)
}
