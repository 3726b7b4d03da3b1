//! What all aggregates of this crate have in common: how a summary of rows becomes a function of DataFusion.
//!
//! A [`Summarizer`] says how rows are absorbed, how summaries merge and how they look in Arrow. From that come the
//! accumulator of one group, that of many groups, and that of a sliding frame.
//!
//! Nothing is ever subtracted. A sliding frame is kept as two stacks: rows that came, and the same rows from the back
//! to the front, each merged with all that came after it. The oldest row is on top of the second, so leaving costs
//! nothing, and every summary is that of rows that are in the frame: a huge outlier that has left is as if it had never
//! been there. Each row is merged at most three times.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

use super::FunctionDoc;
use super::coerce::{Kind, coerce};

/// How rows become a summary, with the constants of one call.
pub(super) trait Summarizer: Debug + Send + Sync + 'static {
    /// Of no rows, until something is absorbed.
    type Summary: Clone + Debug + Default + Send + Sync;

    /// Absorbs rows: each `(row, group)` says which row of `arguments` belongs to which summary.
    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Self::Summary],
    ) -> Result<()>;

    /// Absorbs what another summary has absorbed; the order must not matter.
    fn merge(&self, into: &mut Self::Summary, from: &Self::Summary) -> Result<()>;

    /// The one state column.
    fn states(&self, summaries: &[Self::Summary]) -> Result<ArrayRef>;

    /// The summaries of a state column.
    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Self::Summary>>;

    /// The results; null for a summary of no rows.
    fn results(&self, summaries: &[Self::Summary]) -> Result<ArrayRef>;

    /// The memory of a summary beside its own size, in bytes.
    fn size_bytes(&self, summary: &Self::Summary) -> usize;
}

/// An aggregate function before its constants are known.
pub(super) struct AggregateSpec<S> {
    pub(super) doc: FunctionDoc,
    /// The arguments, of which the last may be left out.
    pub(super) takes: &'static [Kind],
    pub(super) required: usize,
    pub(super) state_type: fn() -> DataType,
    pub(super) result_type: fn() -> DataType,
    /// Makes the summarizer of a call; arguments that are no constants are none.
    pub(super) bind: fn(&[Option<ScalarValue>]) -> Result<S>,
}

/// An [`AggregateSpec`] as DataFusion knows it.
struct Function<S: 'static> {
    spec: &'static AggregateSpec<S>,
    signature: Signature,
}

/// The function of a spec.
pub(super) fn udaf<S: Summarizer>(spec: &'static AggregateSpec<S>) -> AggregateUDF {
    AggregateUDF::new_from_impl(Function { spec, signature: Signature::user_defined(Volatility::Immutable) })
}

impl<S> Debug for Function<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec.doc.name)
    }
}

impl<S> PartialEq for Function<S> {
    fn eq(&self, other: &Self) -> bool {
        self.spec.doc.name == other.spec.doc.name
    }
}

impl<S> Eq for Function<S> {}

impl<S> Hash for Function<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.doc.name.hash(state);
    }
}

impl<S: Summarizer> Function<S> {
    fn summarizer(&self, arguments: &AccumulatorArgs) -> Result<S> {
        if arguments.is_distinct {
            return plan_err!("{} takes no DISTINCT", self.spec.doc.name);
        }
        let constant = |expr: &Arc<_>| constant_of(expr);
        (self.spec.bind)(&arguments.exprs.iter().map(constant).collect::<Vec<_>>())
    }
}

fn constant_of(expr: &Arc<dyn datafusion::physical_expr::PhysicalExpr>) -> Option<ScalarValue> {
    expr.downcast_ref::<Literal>().map(|literal| literal.value().clone())
}

impl<S: Summarizer> AggregateUDFImpl for Function<S> {
    fn name(&self) -> &str {
        self.spec.doc.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(&self.spec.doc, self.spec.takes, self.spec.required, types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok((self.spec.result_type)())
    }

    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[state]", self.spec.doc.name);
        Ok(vec![Arc::new(Field::new(name, (self.spec.state_type)(), true))])
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { of: self.summarizer(&arguments)?, summary: S::Summary::default() }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { of: self.summarizer(&arguments)?, groups: Vec::new() }))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding::new(self.summarizer(&arguments)?)))
    }
}

/// The summary of one group.
#[derive(Debug)]
struct One<S: Summarizer> {
    of: S,
    summary: S::Summary,
}

impl<S: Summarizer> Accumulator for One<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values[0].len();
        self.of.absorb(values, &mut (0..rows).map(|row| (row, 0)), std::slice::from_mut(&mut self.summary))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = self.of.of_states(&states[0])?;
        states.iter().try_for_each(|state| self.of.merge(&mut self.summary, state))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let results = self.of.results(std::slice::from_ref(&self.summary))?;
        ScalarValue::try_from_array(&results, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.of.states(std::slice::from_ref(&self.summary))?;
        Ok(vec![ScalarValue::try_from_array(&states, 0)?])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.of.size_bytes(&self.summary)
    }
}

/// The summaries of many groups.
#[derive(Debug)]
struct Groups<S: Summarizer> {
    of: S,
    groups: Vec<S::Summary>,
}

impl<S: Summarizer> Groups<S> {
    fn reach(&mut self, total: usize) {
        if total > self.groups.len() {
            self.groups.resize(total, S::Summary::default());
        }
    }
}

impl<S: Summarizer> GroupsAccumulator for Groups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.reach(total_num_groups);
        let rows = group_indices.iter().copied().enumerate();
        let passes = |row: &(usize, usize)| opt_filter.is_none_or(|f| f.is_valid(row.0) && f.value(row.0));
        self.of.absorb(values, &mut rows.filter(passes), &mut self.groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.reach(total_num_groups);
        for (state, group) in self.of.of_states(&values[0])?.iter().zip(group_indices) {
            self.of.merge(&mut self.groups[*group], state)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.of.results(&emit_to.take_needed(&mut self.groups))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.of.states(&emit_to.take_needed(&mut self.groups))?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = vec![S::Summary::default(); rows];
        let passes = |row: &(usize, usize)| opt_filter.is_none_or(|f| f.is_valid(row.0) && f.value(row.0));
        self.of.absorb(values, &mut (0..rows).map(|row| (row, row)).filter(passes), &mut each)?;
        Ok(vec![self.of.states(&each)?])
    }

    fn size(&self) -> usize {
        let own = self.groups.capacity() * size_of::<S::Summary>();
        own + self.groups.iter().map(|summary| self.of.size_bytes(summary)).sum::<usize>()
    }
}

/// The summary of a frame that rows enter at one end and leave at the other.
#[derive(Debug)]
struct Sliding<S: Summarizer> {
    of: S,
    /// Rows that came since the last turn, and all of them together.
    came: Vec<S::Summary>,
    all_that_came: S::Summary,
    /// Rows from before it, the oldest on top, each with all that came after it.
    leaving: Vec<S::Summary>,
}

impl<S: Summarizer> Sliding<S> {
    fn new(of: S) -> Self {
        Self { of, came: Vec::new(), all_that_came: S::Summary::default(), leaving: Vec::new() }
    }

    fn turn(&mut self) -> Result<()> {
        for mut row in self.came.drain(..).rev() {
            if let Some(after) = self.leaving.last() {
                self.of.merge(&mut row, after)?;
            }
            self.leaving.push(row);
        }
        self.all_that_came = S::Summary::default();
        Ok(())
    }

    fn frame(&self) -> Result<S::Summary> {
        let mut frame = self.leaving.last().cloned().unwrap_or_default();
        self.of.merge(&mut frame, &self.all_that_came)?;
        Ok(frame)
    }
}

impl<S: Summarizer> Accumulator for Sliding<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values[0].len();
        let mut each = vec![S::Summary::default(); rows];
        self.of.absorb(values, &mut (0..rows).map(|row| (row, row)), &mut each)?;
        for row in &each {
            self.of.merge(&mut self.all_that_came, row)?;
        }
        self.came.extend(each);
        Ok(())
    }

    /// The oldest rows leave; DataFusion's frames lose rows in the order in which they came.
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values[0].len() {
            if self.leaving.is_empty() {
                self.turn()?;
            }
            self.leaving.pop();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.of.results(&[self.frame()?])?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&self.of.states(&[self.frame()?])?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in self.of.of_states(&states[0])? {
            self.of.merge(&mut self.all_that_came, &state)?;
            self.came.push(state);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let rows = self.came.iter().chain(&self.leaving);
        let held = (self.came.capacity() + self.leaving.capacity()) * size_of::<S::Summary>();
        size_of::<Self>() + held + rows.map(|row| self.of.size_bytes(row)).sum::<usize>()
    }
}

/// The constant argument `at` as a whole number, or its default if it is left out.
///
/// # Errors
/// It is no constant, or not within `range`.
pub(super) fn constant_int(
    constants: &[Option<ScalarValue>],
    at: usize,
    name: &str,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<i64> {
    let Some(given) = constants.get(at) else { return Ok(default) };
    match given {
        Some(ScalarValue::Int64(Some(n))) if range.contains(n) => Ok(*n),
        Some(other) => plan_err!("{name} is {other}, not a number from {} to {}", range.start(), range.end()),
        None => plan_err!("{name} must be a constant"),
    }
}
