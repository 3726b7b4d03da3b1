//! A rule without a window: every row of its result is a violation of one AI Workload Unit.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::{Exemplar, Violation};

use crate::EvaluationError;
use crate::carry::{Carried, carry};
use crate::rows::ResultColumns;
use crate::session::Session;
use crate::shape::{Refusal, refuse};
use crate::slot::SlotTable;
use crate::stage::Stage;

/// A row-wise rule, planned.
#[derive(Debug)]
pub struct RowWise {
    rule: String,
    stage: Stage,
    columns: ResultColumns,
    /// Where the stage's output has each of [`CARRIED`](crate::carry::CARRIED); the last two may be missing.
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
        let Some(Carried { plan, columns: carried }) = carry(plan)? else {
            let help = "leave out what makes other rows of them than they were";
            return Ok(refuse("the rule does not say when and where its rows were read", help, "FROM"));
        };
        let carried = carried.map(|column| plan.schema().maybe_index_of_column(&column?));
        let stage = session.stage(&plan, telemetry)?;
        Ok(Ok(Self { rule: head.name.clone(), stage, columns, carried }))
    }

    /// The columns of the query that make the subject.
    pub(crate) fn subject_columns(&self) -> Vec<usize> {
        self.columns.subject_columns()
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
