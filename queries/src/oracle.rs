//! The oracle: what DataFusion's batch engine says of a rule's query over a finite, complete input.
//!
//! For every rule, the streamed result must equal this. Tests hold it, and a backtest over a complete file may use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::{min_max, sum};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, col, lit, when,
};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Table;

use crate::EvaluationError;
use crate::compile::{Compiler, References};
use crate::lineage::{Origin, origin};
use crate::reference::RuleFile;
use crate::sequence::with_times;
use crate::window::Planning;
use crate::window_spec::WindowSpec;

/// Runs the query of `rule` once over whole tables; a row of a hopping window counts in each of its windows.
///
/// # Errors
/// The rule is not among the files, does not plan, or fails on the data.
pub fn oracle(
    files: &[RuleFile],
    references: &References,
    rule: &str,
    telemetry: &BTreeMap<Table, RecordBatch>,
) -> Result<Vec<RecordBatch>, EvaluationError> {
    let failed = |message: String| EvaluationError { rule: rule.to_owned(), message };
    let mut compiler =
        Compiler::try_new(Planning::Batch, &Arc::new(PriceTable::empty())).map_err(|e| failed(e.to_string()))?;
    compiler.compile(files, references, &|_| true);
    let planned = std::mem::take(&mut compiler.planned);
    let Some(planned) = planned.iter().find(|p| p.name == rule) else {
        return Err(failed(compiler.first_fault()));
    };
    run(&compiler, planned, references, telemetry).map_err(|e| failed(e.to_string()))
}

fn run(
    compiler: &Compiler,
    planned: &crate::compile::PlannedRule,
    references: &References,
    telemetry: &BTreeMap<Table, RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let physical = compiler.session.physical(&with_times(with_sessions(planned.plan.clone())?)?)?;
    for (table, slots) in &compiler.tables {
        for slot in slots.take_planned() {
            slot.fill(&telemetry.get(table).cloned().into_iter().collect::<Vec<_>>())?;
        }
    }
    for (name, slots) in compiler.reference_tables() {
        for slot in slots.take_planned() {
            let rows = references.get(name).and_then(|r| r.as_ref().ok()).cloned();
            slot.fill(&rows.into_iter().collect::<Vec<_>>())?;
        }
    }
    compiler.session.runner.collect(&Arc::clone(&physical))
}

/// In a batch a row of a session window has the bounds of a session of its own; here they become those of the session
/// that the row is in, among the rows of its group.
fn with_sessions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => with_sessions_below(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn with_sessions_below(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let (mut start, mut end, mut keys) = (None, None, Vec::new());
    for expr in &aggregate.group_expr {
        let found = match expr {
            Expr::Column(column) => origin(&aggregate.input, column),
            _ => Origin::Other,
        };
        match found {
            Origin::Window { spec: WindowSpec::Session { .. }, is_start: true } => start = Some(expr.clone()),
            Origin::Window { spec: WindowSpec::Session { .. }, is_start: false } => end = Some(expr.clone()),
            _ => keys.push(expr.clone()),
        }
    }
    let (Some(start), Some(end)) = (start, end) else { return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))) };
    let over = |function: AggregateUDF, of: Expr, by: Vec<Expr>, frame: Option<WindowFrame>| {
        let function = WindowFunctionDefinition::AggregateUDF(Arc::new(function));
        let call = Expr::from(WindowFunction::new(function, vec![of])).partition_by(by);
        match frame {
            Some(frame) => call.order_by(vec![start.clone().sort(true, true)]).window_frame(frame).build(),
            None => call.build(),
        }
    };
    let unbounded = || WindowFrameBound::Preceding(ScalarValue::UInt64(None));
    let before = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        unbounded(),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
    );
    let so_far = WindowFrame::new_bounds(WindowFrameUnits::Range, unbounded(), WindowFrameBound::CurrentRow);
    let udaf = |function: Arc<AggregateUDF>| function.as_ref().clone();
    let previous = over(udaf(min_max::max_udaf()), end.clone(), keys.clone(), Some(before))?.alias("__previous");
    let begins = col("__previous").is_null().or(start.clone().gt_eq(col("__previous")));
    let all = || aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let numbered = LogicalPlanBuilder::from(aggregate.input.as_ref().clone())
        .window([previous])?
        .project(all().chain([when(begins, lit(1_i64)).otherwise(lit(0_i64))?.alias("__begins")]))?
        .window([over(udaf(sum::sum_udaf()), col("__begins"), keys.clone(), Some(so_far))?.alias("__session")])?;
    let by: Vec<Expr> = keys.into_iter().chain([col("__session")]).collect();
    let bounds = [
        over(udaf(min_max::min_udaf()), start.clone(), by.clone(), None)?.alias("__start"),
        over(udaf(min_max::max_udaf()), end.clone(), by, None)?.alias("__end"),
    ];
    let own = |expr: Expr| match &expr {
        Expr::Column(column) if expr == start => col("__start").alias_qualified(column.relation.clone(), &column.name),
        Expr::Column(column) if expr == end => col("__end").alias_qualified(column.relation.clone(), &column.name),
        _ => expr,
    };
    let input = numbered.window(bounds)?.project(all().map(own).collect::<Vec<_>>())?.build()?;
    let of_sessions = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), aggregate.aggr_expr.clone())?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(of_sessions)))
}
