//! What groups measure, whether they violate their rule or not: for people who look at a rule.
//!
//! A rule's result has rows of groups that violate it. To see how close the others are, the same query runs without the
//! filters at its very end (`WHERE`, `HAVING`, `QUALIFY`): a look, that decides nothing and changes nothing.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use lictor_schemas::violation::Subject;

/// What a group measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Whom a violation would be about.
    pub subject: Subject,
    /// The measured value; finite.
    pub observed: f64,
    /// What it is compared with; finite.
    pub threshold: Option<f64>,
    /// The unit of both.
    pub unit: Option<String>,
}

impl Observation {
    /// How close it is to what it is compared with: 1 is there. Without a threshold the value itself.
    #[must_use]
    pub fn closeness(&self) -> f64 {
        self.threshold.filter(|threshold| *threshold != 0.0).map_or(self.observed, |t| self.observed / t)
    }
}

/// `plan` without the filters at its end; none if it has none.
pub(crate) fn without_last_filters(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Filter(filter) => {
            let below = filter.input.as_ref();
            Ok(Some(without_last_filters(below)?.unwrap_or_else(|| below.clone())))
        }
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            let [input] = plan.inputs()[..] else { return Ok(None) };
            let open = without_last_filters(input)?;
            open.map(|open| plan.with_new_exprs(plan.expressions(), vec![open])).transpose()
        }
        // What is below decides which rows there are to aggregate, join or number.
        _ => Ok(None),
    }
}

/// A column as numbers; none where it has none, or none that is finite.
pub(crate) struct Numbers(Float64Array);

impl Numbers {
    pub(crate) fn of(batch: &RecordBatch, column: usize) -> Result<Self> {
        let numbers = cast(batch.column(column), &DataType::Float64)?;
        Ok(Self(numbers.as_primitive::<Float64Type>().clone()))
    }

    pub(crate) fn at(&self, row: usize) -> Option<f64> {
        (!self.0.is_null(row)).then(|| self.0.value(row)).filter(|value| value.is_finite())
    }
}

/// The observations that come closest to their thresholds, the closest first.
pub(crate) fn closest(mut all: Vec<Observation>, max: usize) -> Arc<[Observation]> {
    all.sort_by(|a, b| b.closeness().total_cmp(&a.closeness()));
    all.truncate(max);
    all.into()
}
