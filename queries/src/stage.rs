//! A stateless piece of a rule: rows in, rows out, planned once and run for ever.
//!
//! Filters and projections are evaluated straight on the batch. Everything else (joins with reference tables, window
//! functions over a window's results) runs as a DataFusion plan to its end, and is reset before each run: a plan that
//! is executed twice without it keeps growing its metrics.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};

use crate::session::positional;
use crate::slot::Slot;

/// Runs plans to their end on the calling thread.
#[derive(Debug)]
pub(crate) struct Runner {
    runtime: tokio::runtime::Runtime,
    context: Arc<TaskContext>,
}

impl Runner {
    pub(crate) fn try_new(context: Arc<TaskContext>) -> std::io::Result<Self> {
        Ok(Self { runtime: tokio::runtime::Builder::new_current_thread().build()?, context })
    }

    /// Runs a plan once; the caller has filled its slots.
    pub(crate) fn collect(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let fresh = reset_plan_states(Arc::clone(plan))?;
        self.runtime.block_on(collect(fresh, Arc::clone(&self.context)))
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

#[derive(Debug)]
enum Step {
    Filter { predicate: Arc<dyn PhysicalExpr>, keep: Option<Vec<usize>> },
    Project { exprs: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
}

impl Step {
    /// The rows that are left, changed; and which of those before they are, unless all are left.
    fn apply(&self, batch: RecordBatch) -> Result<(RecordBatch, Option<BooleanArray>)> {
        match self {
            Self::Filter { predicate, keep } => {
                let kept = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
                let kept: BooleanArray = match kept.as_boolean() {
                    mask if mask.null_count() > 0 => prep_null_mask_filter(mask),
                    mask => mask.clone(),
                };
                let batch = match keep {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                };
                match kept.true_count() {
                    all if all == kept.len() => Ok((batch, None)),
                    0 => Ok((batch.slice(0, 0), Some(kept))),
                    _ => Ok((filter_record_batch(&batch, &kept)?, Some(kept))),
                }
            }
            Self::Project { exprs, schema } => {
                let rows = batch.num_rows();
                let columns = exprs.iter().map(|e| e.evaluate(&batch)?.into_array(rows)).collect::<Result<_>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                Ok((RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?, None))
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { predicate, .. } => write!(f, "filter {predicate}"),
            Self::Project { exprs, .. } => {
                let exprs: Vec<String> = exprs.iter().map(ToString::to_string).collect();
                write!(f, "project {}", exprs.join(", "))
            }
        }
    }
}

#[derive(Debug)]
enum How {
    Steps(Vec<Step>),
    Plan(Arc<dyn ExecutionPlan>),
}

/// What a filter has left of a batch, once somebody has filtered it.
#[derive(Clone, Debug, Default)]
pub struct Filtered(Option<(RecordBatch, Option<BooleanArray>)>);

/// A planned piece of a rule with one input.
#[derive(Debug)]
pub(crate) struct Stage {
    input: Slot,
    how: How,
    schema: SchemaRef,
    /// The columns that come out, named by their places.
    positional: SchemaRef,
    /// What comes out when nothing does.
    nothing: RecordBatch,
    runner: Arc<Runner>,
}

impl Stage {
    /// `input` is the slot in `plan` that takes the rows.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, input: Slot, runner: Arc<Runner>) -> Self {
        let schema = plan.schema();
        let how = match steps_of(&plan) {
            Some(steps) => How::Steps(steps),
            None => How::Plan(plan),
        };
        let (positional, nothing) = (positional(&schema), RecordBatch::new_empty(Arc::clone(&schema)));
        Self { input, how, schema, positional, nothing, runner }
    }

    /// The columns that come out.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns that come out, named by their places.
    pub(crate) fn positional(&self) -> &SchemaRef {
        &self.positional
    }

    /// The columns that must go in.
    pub(crate) fn input_schema(&self) -> &SchemaRef {
        self.input.schema()
    }

    /// What it does, a line per step: filters and projections in the order in which they are done, else DataFusion's
    /// plan, whose last line is done first.
    pub(crate) fn explain(&self) -> Vec<String> {
        match &self.how {
            How::Steps(steps) => steps.iter().map(ToString::to_string).collect(),
            How::Plan(plan) => {
                displayable(plan.as_ref()).indent(false).to_string().lines().map(str::to_owned).collect()
            }
        }
    }

    /// The columns that it reads of its input.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.input_schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Whether it begins with the same filter of the same columns as another, so that what that has left is left here.
    pub(crate) fn filters_as(&self, other: &Self) -> bool {
        let (How::Steps(ours), How::Steps(theirs)) = (&self.how, &other.how) else { return false };
        match (ours.first(), theirs.first()) {
            (
                Some(Step::Filter { predicate: ours, keep: kept_here }),
                Some(Step::Filter { predicate: theirs, keep: kept_there }),
            ) => ours == theirs && kept_here == kept_there && self.input_schema() == other.input_schema(),
            _ => false,
        }
    }

    /// Runs the stage over one batch; the batch may have more columns than needed, in any order.
    pub(crate) fn run(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.run_filtered(batch, &mut Filtered::default())
    }

    /// As [`Stage::run`]; `filtered` is what stages that filter alike have left of the same batch, or nothing yet.
    pub(crate) fn run_filtered(&self, batch: &RecordBatch, filtered: &mut Filtered) -> Result<Vec<RecordBatch>> {
        match &self.how {
            How::Steps(steps) => {
                let (mut rows, _, rest) = self.begin(steps, batch, filtered)?;
                for step in rest {
                    // Most thresholds let nothing through: what comes after them is of no matter then.
                    if rows.num_rows() == 0 {
                        return Ok(vec![self.nothing.clone()]);
                    }
                    rows = step.apply(rows)?.0;
                }
                Ok(vec![rows])
            }
            How::Plan(plan) => {
                self.input.fill(std::slice::from_ref(batch))?;
                let out = self.runner.collect(plan);
                self.input.fill(&[])?;
                out
            }
        }
    }

    /// As [`Stage::run_filtered`], of a stage of nothing but filters and projections, with numbers of rows: what comes
    /// out keeps those that went in. None if it does more.
    pub(crate) fn run_numbered(
        &self,
        batch: &RecordBatch,
        numbers: &[u32],
        filtered: &mut Filtered,
    ) -> Option<Result<(RecordBatch, UInt32Array)>> {
        let How::Steps(steps) = &self.how else { return None };
        let mut run = || {
            let (mut rows, kept, rest) = self.begin(steps, batch, filtered)?;
            let mut numbers = UInt32Array::from(numbers.to_vec());
            if let Some(kept) = kept {
                numbers = filter(&numbers, &kept)?.as_primitive().clone();
            }
            for step in rest {
                if rows.num_rows() == 0 {
                    return Ok((self.nothing.clone(), UInt32Array::from(Vec::<u32>::new())));
                }
                let (left, kept) = step.apply(rows)?;
                if let Some(kept) = kept {
                    numbers = filter(&numbers, &kept)?.as_primitive().clone();
                }
                rows = left;
            }
            Ok((rows, numbers))
        };
        Some(run())
    }

    /// The rows behind the first filter, which of the batch they are unless all, and the steps behind it.
    fn begin<'s>(
        &self,
        steps: &'s [Step],
        batch: &RecordBatch,
        filtered: &mut Filtered,
    ) -> Result<(RecordBatch, Option<BooleanArray>, &'s [Step])> {
        let Some((filter @ Step::Filter { .. }, rest)) = steps.split_first() else {
            return Ok((self.input.narrow(batch)?, None, steps));
        };
        if filtered.0.is_none() {
            filtered.0 = Some(filter.apply(self.input.narrow(batch)?)?);
        }
        let (rows, kept) = filtered.0.clone().unwrap_or_else(|| unreachable!("it was filtered"));
        Ok((rows, kept, rest))
    }
}

/// The plan as steps from the scan upwards, if it holds nothing but filters and projections.
fn steps_of(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<Step>> {
    if plan.downcast_ref::<StreamingTableExec>().is_some() {
        return Some(Vec::new());
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let mut steps = steps_of(filter.input())?;
        let keep = filter.projection().as_ref().map(|p| p.iter().copied().collect());
        steps.push(Step::Filter { predicate: Arc::clone(filter.predicate()), keep });
        return Some(steps);
    }
    let project = plan.downcast_ref::<ProjectionExec>()?;
    let mut steps = steps_of(project.input())?;
    let exprs = project.expr().iter().map(|e| Arc::clone(&e.expr)).collect();
    steps.push(Step::Project { exprs, schema: plan.schema() });
    Some(steps)
}
