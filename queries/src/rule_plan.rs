//! From an analysed query to the stages of its rule.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::projection::ProjectionExec;
use lictor_schemas::genops::closest;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::Table;

use crate::aggregation::{Aggregation, GroupColumn, PlannedAggregate};
use crate::compile::{CompiledStore, Compiler, Feed, JoinedRule, JoinedThen, RuleKind, WindowedRule};
use crate::distribution::distribution;
use crate::finish::{Finish, plan_finish};
use crate::frame::{Emission, GapFillText, RuleText};
use crate::gap_fill::{self, GapFill};
use crate::join::{JoinSide, PlannedJoin, SidePlan};
use crate::measures::with_measures;
use crate::options::{duration_ns, short_hash};
use crate::rising::rising;
use crate::row_wise::RowWise;
use crate::scan::{Scan, ScanPlan};
use crate::session::only_slot;
use crate::shape::{Refusal, Windowed, refuse};
use crate::slot::SlotTable;
use crate::stage::Stage;
use crate::verdict_words::may_be_allowed;
use crate::window_spec::WindowSpec;

/// So many rules read one store: each has a bit in every group that says whether it violates.
const READERS_MAX: usize = 64;

/// A windowed rule whose sums have no store yet.
struct Summed {
    stage: Stage,
    aggregation: Aggregation,
    finish: Finish,
}

impl Compiler {
    /// A rule that judges the rows of a table one by one.
    pub(crate) fn row_wise(
        &mut self,
        head: &RuleHeader,
        plan: &LogicalPlan,
        table: Table,
    ) -> Result<Result<RuleKind, Refusal>> {
        let row_wise = RowWise::try_new(&self.session, head, plan, &self.tables[&table])?;
        Ok(row_wise.map(|r| {
            self.want(table, r.stage());
            RuleKind::RowWise(Box::new(r))
        }))
    }

    /// A rule that sums up the rows of a table.
    pub(crate) fn windowed(
        &mut self,
        head: &RuleHeader,
        (plan, windowed): (&LogicalPlan, &Windowed),
        text: &RuleText,
        table: Table,
    ) -> Result<Result<RuleKind, Refusal>> {
        let emission = text.emission.map_or(Emission::OnClose, |e| e.0);
        let telemetry = Arc::clone(&self.tables[&table]);
        let Summed { stage, aggregation, finish } = match self.summed(head, (plan, windowed), text, &telemetry)? {
            Ok(summed) => summed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let distribution = distribution(plan, windowed, &finish.subject_groups());
        let state_id = state_id(head, (emission, windowed), &aggregation, &distribution, None);
        let store = match self.store_to_share(&state_id) {
            Ok(store) => store,
            Err(state_id) => {
                self.want(table, &stage);
                let aggregation = Arc::new(aggregation);
                let scan = Scan::try_new(&head.name, stage, Arc::clone(&aggregation))?;
                let feed = Feed::Table { table, scan };
                let spread_by = spread_by(table, windowed, &distribution);
                self.add_store(CompiledStore { feed, emission, aggregation, distribution, spread_by, state_id })
            }
        };
        *self.readers.entry(store).or_default() += 1;
        Ok(Ok(RuleKind::Windowed(Box::new(WindowedRule { store, emission, finish }))))
    }

    /// A rule over the join of two streams.
    pub(crate) fn joined(
        &mut self,
        head: &RuleHeader,
        join: &PlannedJoin,
        windowed: Option<&Windowed>,
        text: &RuleText,
    ) -> Result<Result<RuleKind, Refusal>> {
        let planned = match windowed {
            None => self.joined_rows(head, join)?,
            Some(windowed) => self.joined_windows(head, join, windowed, text)?,
        };
        let (then, reads, distribution) = match planned {
            Ok(planned) => planned,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let sides = match join.sides(&reads)? {
            Ok(sides) => sides,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let runtime = Arc::new(join.runtime(&self.session, &head.name, &reads)?);
        let (id, mut stores) = (join.id(&reads), Vec::new());
        for (side, plan) in JoinSide::BOTH.into_iter().zip(sides) {
            let is_prompt = then.is_prompt();
            let state_id = short_hash(&format!("{id} {side:?} {distribution:?} {is_prompt}"));
            stores.push(match self.set.stores.iter().position(|store| store.state_id == state_id) {
                Some(store) => store,
                None => {
                    let (scan, aggregation) = self.side(head, &plan)?;
                    let feed = Feed::Side {
                        table: plan.table,
                        scan,
                        is_prompt,
                        join: Arc::clone(&runtime),
                        tables: join.shape.tables,
                        side,
                    };
                    let (emission, spread_by) = (Emission::OnClose, format!("{id} {distribution:?}"));
                    let distribution = distribution.clone();
                    self.add_store(CompiledStore { feed, emission, aggregation, distribution, spread_by, state_id })
                }
            });
        }
        let then = match then {
            Unstored::Rows(rows) => JoinedThen::Rows(rows),
            Unstored::Windowed(windows) => {
                let UnstoredWindows { scan, emission, finish, aggregation, follows, state_id } = *windows;
                let (join, tables, distribution) = (Arc::clone(&runtime), join.shape.tables, Vec::new());
                let (feed, spread_by) = (Feed::Joined { join, tables, follows }, state_id.clone());
                let state_id = short_hash(&format!("{id} {state_id}"));
                let store = CompiledStore { feed, emission, aggregation, distribution, spread_by, state_id };
                let store = self.add_store(store);
                let rule = Box::new(WindowedRule { store, emission, finish });
                JoinedThen::Windowed { scan, follows, rule }
            }
        };
        Ok(Ok(RuleKind::Joined(Box::new(JoinedRule {
            join: runtime,
            sides: [stores[0], stores[1]],
            tables: join.shape.tables,
            then,
        }))))
    }

    /// A rule that judges joined rows one by one.
    fn joined_rows(&self, head: &RuleHeader, join: &PlannedJoin) -> Result<Result<Then, Refusal>> {
        let rows = match RowWise::try_new(&self.session, head, &join.query, &join.rows)? {
            Ok(rows) => rows,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let reads = Arc::clone(rows.stage().input_schema());
        let distribution = join.distribution(&join.query, &rows.subject_columns());
        Ok(Ok((Unstored::Rows(Box::new(rows)), reads, distribution)))
    }

    /// A rule that sums joined rows up.
    fn joined_windows(
        &self,
        head: &RuleHeader,
        join: &PlannedJoin,
        windowed: &Windowed,
        text: &RuleText,
    ) -> Result<Result<Then, Refusal>> {
        if text.gap_fill.is_some() {
            let help = "fill gaps in a rule over one stream";
            return Ok(refuse("GAP FILL does not go with the join of two streams", help, "GAP"));
        }
        let follows = match join.followed() {
            Ok(follows) => follows,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let emission = text.emission.map_or(Emission::OnClose, |e| e.0);
        let summed = match self.summed(head, (&join.query, windowed), text, &join.rows)? {
            Ok(summed) => summed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Summed { stage, aggregation, finish } = summed;
        let keys = distribution(&join.query, windowed, &finish.subject_groups());
        let columns = keys.iter().filter_map(|key| windowed.input_column_of_key(*key)).collect::<Vec<_>>();
        let distribution = join.distribution(&windowed.aggregate.input, &columns);
        let state_id = state_id(head, (emission, windowed), &aggregation, &distribution, Some(""));
        let (reads, aggregation) = (Arc::clone(stage.input_schema()), Arc::new(aggregation));
        let scan = ScanPlan::new(&head.name, stage, Arc::clone(&aggregation));
        let windows = UnstoredWindows { scan, emission, finish, aggregation, follows, state_id };
        Ok(Ok((Unstored::Windowed(Box::new(windows)), reads, distribution)))
    }

    /// A side of a join as a scan whose groups are rows.
    fn side(&mut self, head: &RuleHeader, plan: &SidePlan) -> Result<(Scan, Arc<Aggregation>)> {
        let telemetry = Arc::clone(&self.tables[&plan.table]);
        telemetry.take_planned();
        let physical = self.session.physical(&LogicalPlan::Aggregate(plan.windowed.aggregate.clone()))?;
        let (aggregation, input) = aggregation_of(&head.name, &physical, &plan.windowed)?;
        let stage = Stage::new(input, only_slot(&telemetry)?, Arc::clone(&self.session.runner));
        self.want(plan.table, &stage);
        let aggregation = Arc::new(aggregation);
        Ok((Scan::try_new(&head.name, stage, Arc::clone(&aggregation))?, aggregation))
    }

    /// The store with that state that has room for one more rule, or the id of one that is to be made.
    fn store_to_share(&self, state_id: &str) -> Result<usize, String> {
        let mut id = state_id.to_owned();
        loop {
            let Some(store) = self.set.stores.iter().position(|store| store.state_id == id) else { return Err(id) };
            if self.readers.get(&store).is_none_or(|readers| *readers < READERS_MAX) {
                return Ok(store);
            }
            id = short_hash(&format!("{id} is full"));
        }
    }

    fn add_store(&mut self, store: CompiledStore) -> usize {
        self.set.stores.push(store);
        self.set.stores.len() - 1
    }

    /// The aggregate of a windowed rule over `rows`, and what stands above it.
    fn summed(
        &self,
        head: &RuleHeader,
        (plan, windowed): (&LogicalPlan, &Windowed),
        text: &RuleText,
        rows: &Arc<SlotTable>,
    ) -> Result<Result<Summed, Refusal>> {
        let gap_fill = match text.gap_fill.as_ref().map(|said| self.gap_fill(said, windowed)).transpose()? {
            Some(Err(refusal)) => return Ok(Err(refusal)),
            Some(Ok(gap_fill)) => Some(gap_fill),
            None => None,
        };
        let is_session = matches!(windowed.spec, WindowSpec::Session { .. });
        let emission = text.emission.map_or(Emission::OnClose, |e| e.0);
        let (extended, measures) = with_measures(&windowed.aggregate, is_session, emission)?;
        if is_session && measures.latest.is_none() {
            let help = "select event_time in the subquery or view";
            return Ok(refuse("the rows of the session do not have their event_time any more", help, "FROM"));
        }
        rows.take_planned();
        let physical = self.session.physical(&LogicalPlan::Aggregate(extended))?;
        let (aggregation, input) = aggregation_of(&head.name, &physical, windowed)?;
        let stage = Stage::new(input, only_slot(rows)?, Arc::clone(&self.session.runner));
        let groups = SlotTable::new(Arc::clone(&aggregation.output_schema));
        let finish = match plan_finish(&self.session, &head.name, plan, windowed, &groups)? {
            Ok(finish) => finish.with(head, measures, gap_fill),
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Of groups that share a subject a violation is laid at the door of one.
        let keys = windowed.groups.iter().filter(|group| matches!(group, GroupColumn::Key(_))).count();
        let is_plain = windowed.levels.is_empty() && finish.subject_groups().len() == keys && !may_be_allowed(plan);
        let rising = if is_plain { rising(plan, &windowed.aggregate) } else { None };
        let finish = finish.with_rising(rising.and_then(|sums| aggregation.numbers_of(&sums)));
        Ok(Ok(Summed { stage, aggregation, finish }))
    }

    /// Where the keys of `GAP FILL` come from.
    fn gap_fill(&self, said: &GapFillText, windowed: &Windowed) -> Result<Result<GapFill, Refusal>> {
        let keep_ns = match said.keep.as_ref().map(|(text, _)| (text, duration_ns(text))) {
            None => None,
            Some((_, Some(ns))) if ns > 0 => Some(ns),
            Some((text, _)) => {
                let help = "write a length of time such as '1 day' or '90 minutes'";
                return Ok(refuse(format!("`{text}` is no length of time"), help, "GAP"));
            }
        };
        let Some((name, _)) = &said.table else { return Ok(Ok(GapFill { expected: None, keep_ns })) };
        let Some(table) = self.reference_tables.get(name) else {
            let known: Vec<&str> = self.reference_tables.keys().map(String::as_str).collect();
            let help = closest(name, &known).map_or_else(
                || "declare it with CREATE EXTERNAL TABLE".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Ok(refuse(format!("there is no reference table `{name}` to fill gaps from"), help, "GAP"));
        };
        let columns = match gap_fill::key_columns(name, &TableProvider::schema(table.as_ref()), windowed) {
            Ok(columns) => columns,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(GapFill { expected: Some(table.slot(&columns)?), keep_ns }))
    }

    fn want(&mut self, table: Table, stage: &Stage) {
        let columns = stage.input_schema().fields().iter().map(|f| f.name().clone());
        self.set.wanted.0.entry(table).or_default().extend(columns);
    }
}

/// What is done with joined rows, before there is a place for its sums.
enum Unstored {
    Rows(Box<RowWise>),
    Windowed(Box<UnstoredWindows>),
}

struct UnstoredWindows {
    scan: ScanPlan,
    emission: Emission,
    finish: Finish,
    aggregation: Arc<Aggregation>,
    follows: JoinSide,
    state_id: String,
}

impl Unstored {
    /// Whether joined rows are judged after every record.
    fn is_prompt(&self) -> bool {
        match self {
            Self::Rows(_) => true,
            Self::Windowed(windows) => windows.emission == Emission::OnUpdate,
        }
    }
}

/// What is done with joined rows, which of their columns it reads, and by which keys of the join they may be spread.
type Then = (Unstored, arrow::datatypes::SchemaRef, Vec<usize>);

/// Raised when states that look the same mean something else than before.
const STATE_VERSION: u32 = 4;

/// Groups of the same subject are on the same shard, whatever is summed up of them: an edit of that must find there
/// what was said before. Where all groups are on one shard, not all such stores are to be on the same.
fn spread_by(table: Table, windowed: &Windowed, distribution: &[usize]) -> String {
    if distribution.is_empty() {
        let keys = windowed.aggregate.group_expr.iter().map(ToString::to_string).collect::<Vec<_>>();
        return format!("{table:?} {:?} {}", windowed.spec, keys.join(", "));
    }
    "groups".to_owned()
}

fn state_id(
    head: &RuleHeader,
    (emission, windowed): (Emission, &Windowed),
    aggregation: &Aggregation,
    distribution: &[usize],
    join: Option<&str>,
) -> String {
    let plan = LogicalPlan::Aggregate(windowed.aggregate.clone());
    let (states, spec) = (aggregation.partial_schema(), windowed.spec);
    // A running session knows whether it violates, and joined rows come rule by rule: those are of one rule.
    let is_session = matches!(windowed.spec, WindowSpec::Session { .. });
    let is_own = (emission == Emission::OnUpdate && is_session) || join.is_some();
    let owner = if is_own { head.name.as_str() } else { "" };
    short_hash(&format!(
        "{STATE_VERSION} {emission:?} {owner} {spec:?} {} {states:?} {distribution:?} {join:?}",
        plan.display_indent_schema()
    ))
}

/// Takes a planned aggregate apart: what to evaluate per row, how to merge, what feeds it.
fn aggregation_of(
    rule: &str,
    plan: &Arc<dyn ExecutionPlan>,
    windowed: &Windowed,
) -> Result<(Aggregation, Arc<dyn ExecutionPlan>)> {
    let mut at = Arc::clone(plan);
    let mut above = None;
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        above = Some(projection.expr().iter().map(|e| Arc::clone(&e.expr)).collect());
        at = Arc::clone(projection.input());
    }
    let raw_schema = at.schema();
    let aggregate = innermost_aggregate(&at)?;
    let group_by = aggregate.group_expr();
    if group_by.expr().len() != windowed.groups.len() {
        return datafusion::common::internal_err!("the planner changed the group keys");
    }
    let groups = windowed.groups.iter().copied().zip(group_by.expr().iter().map(|(e, _)| Arc::clone(e))).collect();
    let planned = PlannedAggregate {
        spec: windowed.spec,
        groups,
        aggregates: aggregate.aggr_expr().to_vec(),
        arguments: aggregate_expressions(aggregate.aggr_expr(), &AggregateMode::Partial, 0)?,
        filters: aggregate.filter_expr().to_vec(),
        above,
        raw_schema: nullable(&raw_schema),
        output_schema: nullable(&plan.schema()),
    };
    Ok((Aggregation::try_new(rule, planned)?, Arc::clone(aggregate.input())))
}

fn innermost_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Result<&AggregateExec> {
    let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else {
        return datafusion::common::internal_err!("the planner made {} of the aggregate", plan.name());
    };
    match aggregate.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => Ok(aggregate),
        _ => innermost_aggregate(aggregate.input()),
    }
}

/// Group keys and aggregates may be null at run time whatever the planner proved.
fn nullable(schema: &Schema) -> Arc<Schema> {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}
