//! What the planner would leave out of a query without a word: its author must hear of it.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result, plan_datafusion_err};
use datafusion::sql::sqlparser::ast::{Query, Statement, TableFactor, Visit, Visitor};

const SAMPLE: &str = "TABLESAMPLE takes other rows at every run, so a replay would give other events: for a sixteenth \
                      of all traces write WHERE starts_with(trace_id, '0')";
const LOCK: &str = "FOR UPDATE and FOR SHARE lock nothing here: leave them out";
const HINT: &str = "WITH (…) behind a table says nothing here: leave it out";
const PARTITION: &str = "PARTITION (…) behind a table chooses nothing here: write WHERE kafka_partition = …";

/// Refuses such words anywhere in a statement.
pub(crate) fn refuse_ignored(statement: &Statement) -> Result<()> {
    match statement.visit(&mut Ignored) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Ignored;

fn refuse(message: &str) -> ControlFlow<DataFusionError> {
    ControlFlow::Break(plan_datafusion_err!("{message}"))
}

impl Visitor for Ignored {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if query.locks.is_empty() { ControlFlow::Continue(()) } else { refuse(LOCK) }
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<Self::Break> {
        match relation {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => refuse(SAMPLE),
            TableFactor::Table { with_hints, .. } if !with_hints.is_empty() => refuse(HINT),
            TableFactor::Table { partitions, .. } if !partitions.is_empty() => refuse(PARTITION),
            _ => ControlFlow::Continue(()),
        }
    }
}
