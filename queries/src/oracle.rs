//! The oracle: what DataFusion's batch engine says of a rule's query over a finite, complete input.
//!
//! For every rule, the streamed result must equal this. Tests hold it, and a backtest over a complete file may use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use lictor_schemas::tables::Table;

use crate::EvaluationError;
use crate::compile::{Compiler, References};
use crate::reference::RuleFile;
use crate::window::Planning;

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
    let mut compiler = Compiler::try_new(Planning::Batch).map_err(|e| failed(e.to_string()))?;
    compiler.compile(files, references);
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
    let physical = compiler.session.physical(&planned.plan)?;
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
