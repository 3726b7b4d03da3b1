//! A windowed aggregate as pure functions over Arrow batches.
//!
//! DataFusion's own group tables and accumulators do the work; what is kept between calls is only ever a batch of
//! *state rows*: one row per group, the state columns that each accumulator defines itself. So every aggregate can be
//! merged, sent, checkpointed and undone without a serializer of ours.
//!
//! Shapes: a partial batch is `[pane_start, key…, state…]`, one row per pane and group, with `pane_end` behind them
//! where a pane's end does not follow from its start; evaluated groups are `[c0, c1, …]`: the group expressions in the
//! query's order, its aggregates, then `count`, `latest`, `exemplar`.

mod merging;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampNanosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use lictor_schemas::time::{EventTime, Window};

pub use self::merging::Merger;
use crate::EvaluationError;
use crate::session::positional;
use crate::window_spec::WindowSpec;

/// What a group expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    WindowStart,
    WindowEnd,
    /// The `n`th key.
    Key(usize),
}

/// A windowed aggregate, planned.
#[derive(Debug)]
pub struct Aggregation {
    pub(crate) rule: String,
    pub(crate) spec: WindowSpec,
    pub(crate) groups: Vec<(GroupColumn, Arc<dyn PhysicalExpr>)>,
    pub(crate) aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub(crate) arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    pub(crate) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Projection that the planner put above the aggregate, if any.
    pub(crate) above: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The aggregate's own output: group expressions, then aggregates.
    pub(crate) raw_schema: SchemaRef,
    /// What [`Aggregation::evaluate`] yields: the planned output's columns, named by their positions.
    pub(crate) output_schema: SchemaRef,
    shapes: Shapes,
}

/// The schemas of keys and states, and how many state columns each aggregate has.
#[derive(Debug)]
struct Shapes {
    keys: SchemaRef,
    states: SchemaRef,
    partial: SchemaRef,
    widths: Vec<usize>,
}

impl Shapes {
    fn try_new(
        spec: WindowSpec,
        groups: &[(GroupColumn, Arc<dyn PhysicalExpr>)],
        aggregates: &[Arc<AggregateFunctionExpr>],
        raw: &Schema,
    ) -> Result<Self> {
        let keys = groups.iter().zip(raw.fields()).filter(|((column, _), _)| matches!(column, GroupColumn::Key(_)));
        let keys: Vec<_> = keys.enumerate().map(|(i, (_, f))| Arc::new(key_field(i, f))).collect();
        let fields = aggregates.iter().map(|a| a.state_fields()).collect::<Result<Vec<_>>>()?;
        let widths = fields.iter().map(Vec::len).collect();
        let rename =
            |(i, f): (usize, Arc<Field>)| Arc::new(f.as_ref().clone().with_name(format!("s{i}")).with_nullable(true));
        let states: Vec<_> = fields.into_iter().flatten().enumerate().map(rename).collect();
        let bound = |name: &str| Arc::new(Field::new(name, timestamp(), false));
        let partial = std::iter::once(bound("pane_start")).chain(keys.iter().cloned()).chain(states.iter().cloned());
        let partial = partial.chain(spec.is_zoned().then(|| bound("pane_end")));
        let partial = Arc::new(Schema::new(partial.collect::<Vec<_>>()));
        Ok(Self { keys: Arc::new(Schema::new(keys)), states: Arc::new(Schema::new(states)), partial, widths })
    }
}

/// A windowed aggregate as the planner made it.
pub(crate) struct PlannedAggregate {
    pub spec: WindowSpec,
    pub groups: Vec<(GroupColumn, Arc<dyn PhysicalExpr>)>,
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    pub filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    pub above: Option<Vec<Arc<dyn PhysicalExpr>>>,
    pub raw_schema: SchemaRef,
    pub output_schema: SchemaRef,
}

impl Aggregation {
    /// The windows it sums over.
    #[must_use]
    pub fn spec(&self) -> WindowSpec {
        self.spec
    }

    /// The group keys besides the window, as `name TYPE`.
    pub(crate) fn explain_keys(&self) -> Vec<String> {
        let keys = self.groups.iter().zip(self.raw_schema.fields());
        let keys = keys.filter(|((column, _), _)| matches!(column, GroupColumn::Key(_)));
        keys.map(|(_, field)| format!("{} {}", field.name(), field.data_type())).collect()
    }

    /// What is kept of a group, as `aggregate: TYPE, TYPE`.
    pub(crate) fn explain_states(&self) -> Vec<String> {
        let mut fields = self.shapes.states.fields().iter();
        let mut states = Vec::new();
        for ((aggregate, arguments), width) in self.aggregates.iter().zip(&self.arguments).zip(&self.shapes.widths) {
            let types: Vec<String> = fields.by_ref().take(*width).map(|f| f.data_type().to_string()).collect();
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            states.push(format!("{}({}): {}", aggregate.fun().name(), arguments.join(", "), types.join(", ")));
        }
        states
    }

    pub(crate) fn try_new(rule: &str, planned: PlannedAggregate) -> Result<Self> {
        let PlannedAggregate { spec, groups, aggregates, arguments, filters, above, raw_schema, output_schema } =
            planned;
        let shapes = Shapes::try_new(spec, &groups, &aggregates, &raw_schema)?;
        let output_schema = positional(&output_schema);
        let rule = rule.to_owned();
        Ok(Self { rule, spec, groups, aggregates, arguments, filters, above, raw_schema, output_schema, shapes })
    }

    /// The key columns, without the window columns: `[key…]`.
    #[must_use]
    pub fn key_schema(&self) -> SchemaRef {
        Arc::clone(&self.shapes.keys)
    }

    /// The state columns of all aggregates: `[state…]`.
    #[must_use]
    pub fn state_schema(&self) -> SchemaRef {
        Arc::clone(&self.shapes.states)
    }

    /// The columns of a partial batch: `[pane_start, key…, state…]`, and `pane_end` where it does not follow.
    #[must_use]
    pub fn partial_schema(&self) -> SchemaRef {
        Arc::clone(&self.shapes.partial)
    }

    /// The panes that a partial batch has rows of, in the order of their starts, each with the numbers of its rows.
    #[must_use]
    pub fn panes_of(&self, partial: &RecordBatch) -> Vec<(Window, Vec<u64>)> {
        let times = |column: &ArrayRef| column.as_primitive::<TimestampNanosecondType>().clone();
        let starts = times(partial.column(0));
        let ends = partial.columns().last().filter(|_| self.spec.is_zoned()).map(times);
        let mut rows_of: BTreeMap<(EventTime, Option<EventTime>), Vec<u64>> = BTreeMap::new();
        for (row, start) in starts.values().iter().enumerate() {
            let end = ends.as_ref().map(|ends| EventTime(ends.value(row)));
            rows_of.entry((EventTime(*start), end)).or_default().push(row as u64);
        }
        let pane = |(start, end): (EventTime, Option<EventTime>)| match end {
            Some(end) => Window { start, end },
            None => self.spec.pane_at(start),
        };
        rows_of.into_iter().map(|(bounds, rows)| (pane(bounds), rows)).collect()
    }

    /// An empty index over this aggregate's keys.
    ///
    /// # Errors
    /// A key has a type that cannot be grouped by.
    pub fn key_index(&self) -> Result<KeyIndex, EvaluationError> {
        let values = KeyIndex::values_of(self.key_schema()).map_err(|e| self.failed(&e))?;
        Ok(KeyIndex { rule: self.rule.clone(), values, seen: 0 })
    }

    /// Merges state rows: row `i` of `states[b]` goes to group `groups[b][i]`; yields one row per group, `total` rows.
    ///
    /// # Errors
    /// An accumulator refuses (overflow, a state of another type).
    pub fn merge(
        &self,
        states: &[&[ArrayRef]],
        groups: &[&[usize]],
        total: usize,
    ) -> Result<Vec<ArrayRef>, EvaluationError> {
        self.try_merge(states, groups, total).map_err(|e| self.failed(&e))
    }

    /// Finishes groups of one window: `keys` and `states` have one row per group.
    ///
    /// # Errors
    /// An accumulator refuses.
    pub fn evaluate(
        &self,
        keys: &[ArrayRef],
        states: &[ArrayRef],
        window: Window,
    ) -> Result<RecordBatch, EvaluationError> {
        let rows = states.first().map_or(0, |s| s.len());
        self.try_evaluate(keys, states, &vec![window; rows]).map_err(|e| self.failed(&e))
    }

    /// As [`Aggregation::evaluate`], each group in a window of its own.
    ///
    /// # Errors
    /// An accumulator refuses.
    pub fn evaluate_each(
        &self,
        keys: &[ArrayRef],
        states: &[ArrayRef],
        windows: &[Window],
    ) -> Result<RecordBatch, EvaluationError> {
        self.try_evaluate(keys, states, windows).map_err(|e| self.failed(&e))
    }

    /// The numbers here of the query's aggregates; none if the planner has made something else of one.
    pub(crate) fn numbers_of(&self, aggregates: &[usize]) -> Option<Vec<usize>> {
        let number = |of_query: &usize| {
            let output = self.groups.len() + of_query;
            let column = match &self.above {
                Some(exprs) => exprs.get(output)?.downcast_ref::<Column>()?.index(),
                None => output,
            };
            column.checked_sub(self.groups.len()).filter(|number| *number < self.aggregates.len())
        };
        aggregates.iter().map(number).collect()
    }

    /// Of each row of `partial` states: whether it surely lets the given sums grow or stay.
    #[must_use]
    pub fn may_only_grow(&self, sums: &[usize], partial: &[ArrayRef]) -> Vec<bool> {
        let rows = partial.first().map_or(0, |state| state.len());
        let mut grows = vec![true; rows];
        for sum in sums {
            let at = self.shapes.widths[..*sum].iter().sum::<usize>();
            // The planner may have made something else of it.
            if self.aggregates[*sum].fun().name() == "sum" && self.shapes.widths[*sum] == 1 {
                adds_nothing_negative(&partial[at], &mut grows);
            } else {
                grows.fill(false);
            }
        }
        grows
    }

    /// Of sessions: the earliest and the latest event time of each group's rows, in nanoseconds.
    #[must_use]
    pub fn bounds(&self, states: &[ArrayRef]) -> Option<(Vec<i64>, Vec<i64>)> {
        let times = |at: usize| states[at].as_primitive::<TimestampNanosecondType>().values().to_vec();
        self.bound_columns().map(|[earliest, latest]| (times(earliest), times(latest)))
    }

    /// Of sessions: which of the state columns have the earliest and the latest event time of each group's rows.
    #[must_use]
    pub fn bound_columns(&self) -> Option<[usize; 2]> {
        let place = |function: &str| {
            let mut at = 0;
            for ((aggregate, arguments), width) in self.aggregates.iter().zip(&self.arguments).zip(&self.shapes.widths)
            {
                let is_time = arguments.first().is_some_and(|a| a.to_string().starts_with("event_time@"));
                if aggregate.fun().name() == function && is_time {
                    return Some(at);
                }
                at += width;
            }
            None
        };
        Some([place("min")?, place("max")?])
    }

    /// `states` with so many rows behind them of groups that have seen nothing.
    ///
    /// # Errors
    /// An accumulator cannot say what it is before its first row.
    pub fn with_empty_groups(&self, states: Vec<ArrayRef>, groups: usize) -> Result<Vec<ArrayRef>, EvaluationError> {
        self.try_with_empty_groups(states, groups).map_err(|e| self.failed(&e))
    }

    fn try_with_empty_groups(&self, states: Vec<ArrayRef>, groups: usize) -> Result<Vec<ArrayRef>> {
        if groups == 0 {
            return Ok(states);
        }
        let mut empty = Vec::new();
        for aggregate in &self.aggregates {
            empty.extend(aggregate.create_accumulator()?.state()?);
        }
        let with_empty = |(states, empty): (&ArrayRef, &ScalarValue)| {
            let empty = cast(&empty.to_array_of_size(groups)?, states.data_type())?;
            Ok(concat(&[states.as_ref(), empty.as_ref()])?)
        };
        states.iter().zip(&empty).map(with_empty).collect()
    }

    fn failed(&self, error: &DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }

    fn try_merge(&self, states: &[&[ArrayRef]], groups: &[&[usize]], total: usize) -> Result<Vec<ArrayRef>> {
        let mut merged = Vec::new();
        let mut at = 0;
        for (aggregate, width) in self.aggregates.iter().zip(&self.shapes.widths) {
            let mut accumulator = accumulator(aggregate)?;
            for (columns, groups) in states.iter().zip(groups) {
                accumulator.merge_batch(&columns[at..at + width], groups, total)?;
            }
            merged.extend(accumulator.state(EmitTo::All)?);
            at += width;
        }
        Ok(merged)
    }

    fn try_evaluate(&self, keys: &[ArrayRef], states: &[ArrayRef], windows: &[Window]) -> Result<RecordBatch> {
        let rows = states.first().map_or(0, |s| s.len());
        let identity: Vec<usize> = (0..rows).collect();
        let mut columns: Vec<ArrayRef> = self.groups.iter().map(|(g, _)| group_column(*g, keys, windows)).collect();
        let mut at = 0;
        for (aggregate, width) in self.aggregates.iter().zip(&self.shapes.widths) {
            let mut accumulator = accumulator(aggregate)?;
            accumulator.merge_batch(&states[at..at + width], &identity, rows)?;
            columns.push(accumulator.evaluate(EmitTo::All)?);
            at += width;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let raw = RecordBatch::try_new_with_options(Arc::clone(&self.raw_schema), columns, &options)?;
        let columns = match &self.above {
            Some(exprs) => exprs.iter().map(|e| e.evaluate(&raw)?.into_array(rows)).collect::<Result<_>>()?,
            None => raw.columns().to_vec(),
        };
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output_schema), columns, &options)?)
    }
}

/// Clears what is not surely `0 <= state`, and small enough that no sum of an epoch's rows wraps around.
fn adds_nothing_negative(states: &ArrayRef, surely: &mut [bool]) {
    match states.data_type() {
        DataType::Float64 => {
            let values = states.as_primitive::<Float64Type>().iter();
            surely.iter_mut().zip(values).for_each(|(surely, value)| *surely &= value.is_none_or(|v| v >= 0.0));
        }
        DataType::Int64 => {
            let (values, small) = (states.as_primitive::<Int64Type>().iter(), 0..=i64::from(u32::MAX));
            surely
                .iter_mut()
                .zip(values)
                .for_each(|(surely, value)| *surely &= value.is_none_or(|v| small.contains(&v)));
        }
        _ => surely.fill(false),
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None)
}

fn key_field(i: usize, field: &Arc<Field>) -> Field {
    field.as_ref().clone().with_name(format!("k{i}")).with_nullable(true)
}

fn group_column(column: GroupColumn, keys: &[ArrayRef], windows: &[Window]) -> ArrayRef {
    match column {
        GroupColumn::WindowStart => {
            Arc::new(TimestampNanosecondArray::from_iter_values(windows.iter().map(|w| w.start.0)))
        }
        GroupColumn::WindowEnd => Arc::new(TimestampNanosecondArray::from_iter_values(windows.iter().map(|w| w.end.0))),
        GroupColumn::Key(i) => Arc::clone(&keys[i]),
    }
}

pub(crate) fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = Arc::clone(aggregate);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}

/// Numbers the distinct keys it is shown: 0, 1, 2, … in order of appearance.
pub struct KeyIndex {
    rule: String,
    values: Option<Box<dyn GroupValues>>,
    seen: usize,
}

impl std::fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyIndex").field("len", &self.len()).finish()
    }
}

impl KeyIndex {
    fn values_of(schema: SchemaRef) -> Result<Option<Box<dyn GroupValues>>> {
        let keyed = !schema.fields().is_empty();
        keyed.then(|| new_group_values(schema, &GroupOrdering::None)).transpose()
    }

    /// The number of each row's key; unseen keys get the next numbers. Without key columns every row is group 0.
    ///
    /// # Errors
    /// The columns are not those of the schema.
    pub fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<usize>, EvaluationError> {
        let mut groups = Vec::with_capacity(rows);
        match &mut self.values {
            Some(values) => values
                .intern(keys, &mut groups)
                .map_err(|e| EvaluationError { rule: self.rule.clone(), message: e.strip_backtrace() })?,
            None => {
                groups.resize(rows, 0);
                self.seen = self.seen.max(usize::from(rows > 0));
            }
        }
        Ok(groups)
    }

    /// How many distinct keys were seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.as_ref().map_or(self.seen, |v| v.len())
    }

    /// Whether no key was seen yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.values.as_ref().map_or(0, |v| v.size())
    }
}
