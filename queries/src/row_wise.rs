//! A rule without a window: every row of its result is a violation of one AI Workload Unit.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::{Exemplar, Violation};

use crate::EvaluationError;
use crate::rows::ResultColumns;
use crate::session::Session;
use crate::shape::{Refusal, refuse};
use crate::slot::SlotTable;
use crate::stage::Stage;

/// Columns of the telemetry that every violation carries, whether the author selects them or not.
const CARRIED: [&str; 5] = ["event_time", "kafka_partition", "kafka_offset", "trace_id", "span_id"];

/// A row-wise rule, planned.
#[derive(Debug)]
pub struct RowWise {
    rule: String,
    stage: Stage,
    columns: ResultColumns,
    /// Where the stage's output has each of [`CARRIED`]; the last two may be missing.
    carried: [Option<usize>; 5],
}

impl RowWise {
    pub(crate) fn try_new(
        session: &Session,
        head: &RuleHeader,
        plan: &LogicalPlan,
        telemetry: &SlotTable,
    ) -> Result<Result<Self, Refusal>> {
        let visible = plan.schema().fields().len();
        let columns = match ResultColumns::of_rows(plan, visible) {
            Ok(columns) => columns.with_header(head),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (plan, carried) = carry(plan)?;
        if carried[..3].iter().any(Option::is_none) {
            let help = "select event_time, kafka_partition and kafka_offset in the subquery or view";
            return Ok(refuse("a subquery drops when and where a row was read", help, "FROM"));
        }
        let stage = session.stage(&plan, telemetry)?;
        Ok(Ok(Self { rule: head.name.clone(), stage, columns, carried }))
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The violations in a batch of telemetry, in its order; the batch has at least the columns that the rule set
    /// wants.
    ///
    /// # Errors
    /// An expression of the rule fails on these rows.
    pub fn judge(&self, rows: &RecordBatch) -> Result<Vec<Violation>, EvaluationError> {
        let judged = self.stage.run(rows).and_then(|out| {
            let mut violations = Vec::new();
            for batch in &out {
                for row in 0..batch.num_rows() {
                    violations.extend(self.violation(batch, row)?);
                }
            }
            Ok(violations)
        });
        judged.map_err(|e| EvaluationError { rule: self.rule.clone(), message: e.strip_backtrace() })
    }

    fn violation(&self, batch: &RecordBatch, row: usize) -> Result<Option<Violation>> {
        let Some(mut violation) = self.columns.violation(batch, row)? else { return Ok(None) };
        let [Some(time), Some(partition), Some(offset), trace, span] = self.carried else { return Ok(None) };
        violation.at = EventTime(batch.column(time).as_primitive::<TimestampNanosecondType>().value(row));
        violation.sample_count = Some(1);
        if let (Some(trace), Some(span)) = (text(batch, trace, row), text(batch, span, row)) {
            violation.exemplars.push(Exemplar {
                trace_id: trace.to_owned(),
                span_id: span.to_owned(),
                value: violation.observed.unwrap_or(1.0),
                partition: batch.column(partition).as_primitive::<Int32Type>().value(row),
                offset: batch.column(offset).as_primitive::<Int64Type>().value(row),
            });
        }
        Ok(Some(violation))
    }
}

fn text(batch: &RecordBatch, column: Option<usize>, row: usize) -> Option<&str> {
    let column = batch.column(column?).as_string_view();
    (!column.is_null(row)).then(|| column.value(row))
}

/// Adds the carried columns to the topmost projection, as far as its input has them.
fn carry(plan: &LogicalPlan) -> Result<(LogicalPlan, [Option<usize>; 5])> {
    let LogicalPlan::Projection(top) = plan else { return Ok((plan.clone(), [None; 5])) };
    let columns = top.input.schema().columns();
    let mut exprs = top.expr.clone();
    let mut carried = [None; 5];
    for (name, place) in CARRIED.iter().zip(&mut carried) {
        let found: Vec<&Column> = columns.iter().filter(|c| c.name == *name).collect();
        if let [one] = found.as_slice() {
            *place = Some(exprs.len());
            exprs.push(Expr::Column((*one).clone()).alias(format!("__{name}")));
        }
    }
    Ok((LogicalPlan::Projection(Projection::try_new(exprs, std::sync::Arc::clone(&top.input))?), carried))
}
