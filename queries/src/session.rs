//! The DataFusion session that rules are planned in.
//!
//! One partition, no dynamic filters: plans are small, run often and to their end. Two optimizer rules are left out
//! because they change what the state of an aggregate is: `count(distinct x)` must stay one aggregate, and a constant
//! group key must stay a key. A third would let an ordered aggregate rely on sorted input, which holds within one batch
//! and not from one batch to the next.

use std::sync::{Arc, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, Result, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, col};
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use lictor_schemas::prices::PriceTable;

use crate::exemplar::{Exemplar, Pick};
use crate::flink::without_flinks_words;
use crate::functions;
use crate::ignored::refuse_ignored;
use crate::sequence;
use crate::slot::{Slot, SlotTable};
use crate::stage::{Runner, Stage};
use crate::window::{Planning, Tables, WindowPlanner};

const LEFT_OUT: [&str; 2] = ["single_distinct_aggregation_to_group_by", "eliminate_group_by_constant"];
const LEFT_OUT_PHYSICAL: &str = "OptimizeAggregateOrder";

/// Plans queries and turns plans into stages.
pub(crate) struct Session {
    context: SessionContext,
    tables: Tables,
    pub(crate) runner: Arc<Runner>,
}

impl Session {
    /// A session whose functions know these prices.
    pub(crate) fn try_new(planning: Planning, prices: &Arc<PriceTable>) -> Result<Self> {
        let mut options = ConfigOptions::new();
        options.execution.target_partitions = 1;
        options.optimizer.enable_dynamic_filter_pushdown = false;
        options.sql_parser.collect_spans = true;
        options.sql_parser.map_string_types_to_utf8view = true;
        let rules = Optimizer::new().rules.into_iter().filter(|r| !LEFT_OUT.contains(&r.name())).collect();
        let physical = PhysicalOptimizer::new().rules.into_iter().filter(|r| r.name() != LEFT_OUT_PHYSICAL).collect();
        let tables = Tables::default();
        let windows = WindowPlanner { planning, tables: Arc::clone(&tables) };
        let state = SessionStateBuilder::new()
            .with_config(SessionConfig::from(options))
            .with_default_features()
            .with_optimizer_rules(rules)
            .with_physical_optimizer_rules(physical)
            .with_relation_planners(vec![Arc::new(windows)])
            .build();
        let context = SessionContext::new_with_state(state);
        for pick in [Pick::Heaviest, Pick::Last] {
            context.register_udaf(AggregateUDF::new_from_impl(Exemplar::new(pick)));
        }
        sequence::register(&context);
        functions::register(&context, prices);
        let runner = Runner::try_new(context.task_ctx())?;
        Ok(Self { context, tables, runner: Arc::new(runner) })
    }

    /// Makes a table or view known to queries and to window functions.
    pub(crate) fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(&table));
        self.context.register_table(name, table).map(drop)
    }

    /// The rows of a table or view; none if there is none of that name.
    pub(crate) fn rows_of(&self, name: &str) -> Option<Result<LogicalPlan>> {
        let table = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)?;
        Some(LogicalPlanBuilder::scan(name, provider_as_source(table), None).and_then(LogicalPlanBuilder::build))
    }

    /// The names of all functions that a query can call.
    pub(crate) fn functions(&self) -> Vec<String> {
        let state = self.context.state();
        let scalar = state.scalar_functions().keys();
        let names = scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
        let ours = ["attr", "resource_attr"].map(str::to_owned);
        let mut names: Vec<String> = names.cloned().chain(ours).collect();
        names.retain(|name| !name.starts_with('_'));
        names.sort();
        names
    }

    pub(crate) fn state(&self) -> SessionState {
        self.context.state()
    }

    /// Plans a query's tokens; types are resolved, nothing is optimised yet.
    pub(crate) fn plan(&self, tokens: &[TokenWithSpan]) -> Result<LogicalPlan> {
        let statement = parse_query(tokens)?;
        refuse_ignored(&statement)?;
        let statement = DfStatement::Statement(Box::new(statement));
        let state = self.state();
        let plan = self.runner.block_on(state.statement_to_plan(statement))?;
        state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
    }

    /// Optimises a plan and makes it executable.
    pub(crate) fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        self.runner.block_on(self.state().create_physical_plan(plan))
    }

    /// Makes a plan over `input` a stage. A plan that reads nothing of its input still gets its rows counted.
    pub(crate) fn stage(&self, plan: &LogicalPlan, input: &SlotTable) -> Result<Stage> {
        input.take_planned();
        let physical = self.physical(plan)?;
        let slot = only_slot(input)?;
        Ok(Stage::new(physical, slot, Arc::clone(&self.runner)))
    }
}

/// The one scan of `input` in what was planned last.
pub(crate) fn only_slot(input: &SlotTable) -> Result<Slot> {
    let mut slots = input.take_planned();
    match (slots.pop(), slots.is_empty()) {
        (Some(slot), true) => Ok(slot),
        (None, _) => datafusion::common::plan_err!("the query's result does not depend on its input"),
        (Some(_), false) => datafusion::common::plan_err!("the query reads its input {} times", slots.len() + 1),
    }
}

/// A scan of `table` (columns `c0`, `c1`, …), called `named`, that looks like a node with the schema `like`.
pub(crate) fn scan_as(named: &str, table: &Arc<SlotTable>, like: &DFSchema) -> Result<LogicalPlan> {
    let provider: Arc<dyn TableProvider> = Arc::<SlotTable>::clone(table);
    let name = |i: usize, qualifier: Option<&TableReference>, field: &str| -> Expr {
        col(format!("c{i}")).alias_qualified(qualifier.cloned(), field)
    };
    let exprs: Vec<Expr> = like.iter().enumerate().map(|(i, (q, f))| name(i, q, f.name())).collect();
    LogicalPlanBuilder::scan(named, provider_as_source(provider), None)?.project(exprs)?.build()
}

/// The columns of `like`, renamed to their positions: what [`scan_as`] reads.
pub(crate) fn positional(like: &SchemaRef) -> SchemaRef {
    let rename = |(i, f): (usize, &Arc<arrow::datatypes::Field>)| f.as_ref().clone().with_name(format!("c{i}"));
    Arc::new(arrow::datatypes::Schema::new(like.fields().iter().enumerate().map(rename).collect::<Vec<_>>()))
}

fn parse_query(tokens: &[TokenWithSpan]) -> Result<SqlStatement, ParserError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(without_flinks_words(tokens));
    let query = parser.parse_query()?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return parser.expected("the end of the query", next);
    }
    Ok(SqlStatement::Query(query))
}
