//! Rows summed up, until they are flushed: the scan stage's side of a windowed aggregate.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::aggregation::{Aggregation, GroupColumn, accumulator};

/// The column that says which of several records a row of an update is of, in the order in which they were read.
pub const TURN: &str = "turn";

/// The columns of updates: those of partial sums, and [`TURN`].
#[must_use]
pub fn update_schema(partial: &Schema) -> SchemaRef {
    let turn = Arc::new(Field::new(TURN, DataType::UInt32, false));
    Arc::new(Schema::new(partial.fields().iter().cloned().chain([turn]).collect::<Vec<_>>()))
}

/// Sums up rows until it is flushed.
pub(crate) struct Partial {
    aggregation: Arc<Aggregation>,
    /// What a flush gives.
    schema: SchemaRef,
    has_turns: bool,
    index: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    groups: Vec<usize>,
}

impl Partial {
    pub(crate) fn aggregation(&self) -> &Arc<Aggregation> {
        &self.aggregation
    }

    pub(crate) fn try_new(aggregation: Arc<Aggregation>) -> Result<Self> {
        let schema = aggregation.partial_schema();
        Self::with_schema(aggregation, schema, false)
    }

    /// Sums up the rows of each turn by themselves.
    pub(crate) fn in_turns(aggregation: Arc<Aggregation>) -> Result<Self> {
        let schema = update_schema(&aggregation.partial_schema());
        Self::with_schema(aggregation, schema, true)
    }

    fn with_schema(aggregation: Arc<Aggregation>, schema: SchemaRef, has_turns: bool) -> Result<Self> {
        let width = 1 + aggregation.key_schema().fields().len();
        let states = aggregation.state_schema().fields().len();
        let columns: Vec<usize> = (0..width).chain(width + states..schema.fields().len()).collect();
        let index = new_group_values(Arc::new(schema.project(&columns)?), &GroupOrdering::None)?;
        let accumulators = aggregation.aggregates.iter().map(accumulator).collect::<Result<_>>()?;
        Ok(Self { aggregation, schema, has_turns, index, accumulators, groups: Vec::new() })
    }

    /// Adds rows in the shape of the aggregate's input; each with its turn, if it has turns.
    pub(crate) fn absorb(&mut self, batch: &RecordBatch, turns: Option<&UInt32Array>) -> Result<()> {
        assert_eq!(self.has_turns, turns.is_some(), "rows of turns among others");
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let mut keys = self.group_keys(batch)?;
        keys.extend(turns.map(|turns| Arc::new(turns.clone()) as ArrayRef));
        self.index.intern(&keys, &mut self.groups)?;
        let total = self.index.len();
        let aggregation = &self.aggregation;
        let each = self.accumulators.iter_mut().zip(aggregation.arguments.iter().zip(&aggregation.filters));
        for (accumulator, (arguments, filter)) in each {
            let values: Vec<ArrayRef> =
                arguments.iter().map(|e| e.evaluate(batch)?.into_array(rows)).collect::<Result<_>>()?;
            let filter = filter.as_ref().map(|f| f.evaluate(batch)?.into_array(rows)).transpose()?;
            let filter = filter.as_ref().map(|f| f.as_boolean());
            accumulator.update_batch(&values, &self.groups, filter, total)?;
        }
        Ok(())
    }

    /// Whether an aggregate counts on rows in the order of its `ORDER BY`, as `nth_value` does: then only rows that
    /// were sorted together may be summed up together, and what comes of them is merged by that order.
    pub(crate) fn needs_sorted_rows(&self) -> bool {
        let needs = |a: &Arc<AggregateFunctionExpr>| a.order_sensitivity().hard_requires() && !a.order_bys().is_empty();
        self.aggregation.aggregates.iter().any(needs)
    }

    /// Everything summed up since the last flush, as one batch; none if there was nothing.
    pub(crate) fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let rows = self.index.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut columns = self.index.emit(EmitTo::All)?;
        // Emitting leaves the hash table as it was, with numbers of groups that are gone.
        self.index.clear_shrink(0);
        let behind = columns.split_off(1 + self.aggregation.key_schema().fields().len());
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        columns.extend(behind);
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// `[pane_start, key…]` of every row, and `pane_end` where it does not follow.
    fn group_keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        let (mut start, mut end): (Option<ArrayRef>, Option<ArrayRef>) = (None, None);
        let mut keys = Vec::with_capacity(self.aggregation.groups.len());
        for (column, expr) in &self.aggregation.groups {
            let evaluate = || expr.evaluate(batch)?.into_array(rows);
            match column {
                GroupColumn::WindowStart => start = Some(evaluate()?),
                GroupColumn::WindowEnd if self.aggregation.spec.is_zoned() => end = Some(evaluate()?),
                GroupColumn::WindowEnd => {}
                GroupColumn::Key(_) => keys.push(evaluate()?),
            }
        }
        keys.splice(0..0, start);
        keys.extend(end);
        Ok(keys)
    }
}
