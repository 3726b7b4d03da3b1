//! DataFusion's batch engine by itself: plain SQL over whole tables in memory, planned as DataFusion plans it.
//!
//! Nothing of lictor's is in between, neither its windows nor its functions nor its choice of optimizer rules. It is
//! what a rule could cost at best, and benches measure rules against it.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::{Result, plan_err};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::EvaluationError;
use crate::stage::Runner;

/// Whole tables that plain SQL can name.
pub struct BatchTables {
    context: SessionContext,
    runner: Arc<Runner>,
}

impl fmt::Debug for BatchTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchTables").finish_non_exhaustive()
    }
}

impl BatchTables {
    /// Tables by name, each of at least one batch; batches of one table have one schema. Queries run on one thread.
    ///
    /// # Errors
    /// A table has no batch, or batches of several schemas.
    pub fn try_new(tables: Vec<(&str, Vec<RecordBatch>)>) -> Result<Self, EvaluationError> {
        Self::register(tables).map_err(|e| failed("tables", &e))
    }

    fn register(tables: Vec<(&str, Vec<RecordBatch>)>) -> Result<Self> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for (name, batches) in tables {
            let Some(first) = batches.first() else { return plan_err!("table {name} has no batch") };
            let table = MemTable::try_new(first.schema(), vec![batches])?;
            context.register_table(name, Arc::new(table))?;
        }
        let runner = Runner::try_new(context.task_ctx())?;
        Ok(Self { context, runner: Arc::new(runner) })
    }

    /// Plans a query, which is called `name` if something is wrong with it.
    ///
    /// # Errors
    /// The text is no query over these tables.
    pub fn query(&self, name: &str, sql: &str) -> Result<BatchQuery, EvaluationError> {
        let planned = self.runner.block_on(async { self.context.sql(sql).await?.create_physical_plan().await });
        let plan = planned.map_err(|e| failed(name, &e))?;
        Ok(BatchQuery { name: name.to_owned(), plan, runner: Arc::clone(&self.runner) })
    }
}

/// A query, planned once.
#[derive(Debug)]
pub struct BatchQuery {
    name: String,
    plan: Arc<dyn ExecutionPlan>,
    runner: Arc<Runner>,
}

impl BatchQuery {
    /// Runs it over the whole tables; it may be run again.
    ///
    /// # Errors
    /// The query fails on the rows.
    pub fn run(&self) -> Result<Vec<RecordBatch>, EvaluationError> {
        self.runner.collect(&self.plan).map_err(|e| failed(&self.name, &e))
    }
}

fn failed(name: &str, error: &datafusion::common::DataFusionError) -> EvaluationError {
    EvaluationError { rule: name.to_owned(), message: error.strip_backtrace() }
}
