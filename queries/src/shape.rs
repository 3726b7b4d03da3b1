//! Which shape a rule's query has, and why some shapes are refused.
//!
//! A query is a path of plan nodes from its result down to one telemetry table. If an aggregate over a window lies on
//! the path the rule is windowed, else it is judged row by row. Whatever would need unbounded state on the way is
//! refused here, with the reason and the rewrite that works.

use datafusion::common::Column;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, LogicalPlan, Volatility};
use lictor_schemas::tables::Table;

use crate::aggregation::GroupColumn;
use crate::frame::Emission;
use crate::join::JOINED;
use crate::lineage::{Origin, has_aggregate, is_window_projection, origin, source_column, strip_alias};
use crate::unshared;
use crate::window_spec::WindowSpec;

/// Why a query cannot run, and what to write instead.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub message: String,
    pub help: String,
    /// The word of the query to point at.
    pub keyword: Option<&'static str>,
}

pub(crate) fn refuse<T>(
    message: impl Into<String>,
    help: impl Into<String>,
    keyword: &'static str,
) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), help: help.into(), keyword: Some(keyword) })
}

/// A query, understood.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it reads.
    pub source: Source,
    /// How it is windowed; none for a row-wise rule.
    pub windowed: Option<Windowed>,
}

/// The windowed part of a query.
#[derive(Debug)]
pub(crate) struct Windowed {
    pub spec: WindowSpec,
    /// The aggregate over the window.
    pub aggregate: Aggregate,
    /// What each of its group expressions is.
    pub groups: Vec<GroupColumn>,
    /// The window-function nodes above it, the lowest first.
    pub levels: Vec<datafusion::logical_expr::Window>,
}

impl Windowed {
    /// Which column of the aggregate's input its `n`th key is, if it is one.
    pub(crate) fn input_column_of_key(&self, n: usize) -> Option<usize> {
        let keys = self.groups.iter().zip(&self.aggregate.group_expr);
        let mut of_key = keys.filter(|(group, _)| **group == GroupColumn::Key(n));
        let Expr::Column(column) = strip_alias(of_key.next()?.1) else { return None };
        self.aggregate.input.schema().maybe_index_of_column(column)
    }
}

/// Understands an analysed plan.
pub(crate) fn analyse(plan: &LogicalPlan, emission: Emission) -> Result<Shape, Refusal> {
    refuse_unsteady(plan)?;
    let path = stream_path(plan)?;
    let Some(source) = source_of(path.last().copied()) else {
        return refuse("the rule reads no telemetry", "name spans, span_events, logs or metrics in FROM", "FROM");
    };
    let aggregate_at = path.iter().rposition(|p| matches!(p, LogicalPlan::Aggregate(_)));
    let Some(at) = aggregate_at else {
        path.iter().try_for_each(|p| check_stateless(p))?;
        if path.iter().any(|p| is_window_projection(p)) {
            let help = "group by the window: GROUP BY …, window_start, window_end";
            return refuse("the window has no GROUP BY", help, "FROM");
        }
        return Ok(Shape { source, windowed: None });
    };
    path[at + 1..].iter().try_for_each(|p| check_stateless(p))?;
    path[..at].iter().try_for_each(|p| check_above(p, emission))?;
    path[..=at].iter().try_for_each(|p| check_order(p))?;
    let LogicalPlan::Aggregate(aggregate) = path[at] else { unreachable!("found as an aggregate") };
    let (spec, groups) = group_columns(aggregate)?;
    if let WindowSpec::Session { .. } = spec {
        path[..at].iter().try_for_each(|p| unshared::check_above_sessions(p, &groups))?;
    }
    if spec.is_zoned() {
        path[..at].iter().try_for_each(|p| unshared::check_above_zones(p, &groups))?;
    }
    let levels = path[..at].iter().rev().filter_map(|p| match p {
        LogicalPlan::Window(w) => Some(w.clone()),
        _ => None,
    });
    let windowed = Windowed { spec, aggregate: aggregate.clone(), groups, levels: levels.collect() };
    path[..at].iter().try_for_each(|p| check_later_aggregate(p, &windowed.groups))?;
    Ok(Shape { source, windowed: Some(windowed) })
}

/// Where the rows of a query come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A telemetry table.
    Table(Table),
    /// The join of two.
    Joined,
}

fn source_of(plan: Option<&LogicalPlan>) -> Option<Source> {
    match plan? {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == JOINED => Some(Source::Joined),
        LogicalPlan::TableScan(scan) => Table::from_name(scan.table_name.table()).map(Source::Table),
        _ => None,
    }
}

/// The telemetry table that a plan scans.
pub(crate) fn table_of(plan: Option<&LogicalPlan>) -> Option<Table> {
    match source_of(plan)? {
        Source::Table(table) => Some(table),
        Source::Joined => None,
    }
}

/// The nodes from the result down to the scan of the one telemetry table.
fn stream_path(plan: &LogicalPlan) -> Result<Vec<&LogicalPlan>, Refusal> {
    let mut path = vec![plan];
    let mut at = plan;
    loop {
        let streams: Vec<&LogicalPlan> = at.inputs().into_iter().filter(|p| reads_telemetry(p)).collect();
        match streams.as_slice() {
            [] => break,
            [one] => {
                at = one;
                path.push(one);
            }
            _ => {
                let help = "join them on an equal key and a bound in time, or split the rule in two";
                return refuse("the rule reads two streams", help, "FROM");
            }
        }
    }
    if subqueries_read_telemetry(plan) {
        let help = "compare with a reference table, or aggregate in FROM";
        return refuse("a subquery in an expression reads telemetry", help, "IN");
    }
    Ok(path)
}

/// Whether a telemetry table, or what was joined of two, lies in `plan`.
pub(crate) fn reads_telemetry(plan: &LogicalPlan) -> bool {
    source_of(Some(plan)).is_some() || plan.inputs().into_iter().any(reads_telemetry)
}

fn subqueries_read_telemetry(plan: &LogicalPlan) -> bool {
    let (mut all, mut plain) = (0, 0);
    let _ = plan.apply_with_subqueries(|p| count_scan(p, &mut all));
    let _ = plan.apply(|p| count_scan(p, &mut plain));
    all > plain
}

fn count_scan(plan: &LogicalPlan, count: &mut usize) -> datafusion::common::Result<TreeNodeRecursion> {
    *count += usize::from(table_of(Some(plan)).is_some());
    Ok(TreeNodeRecursion::Continue)
}

/// Refuses functions whose value changes from call to call: a replay must give the same events.
fn refuse_unsteady(plan: &LogicalPlan) -> Result<(), Refusal> {
    let mut found = None;
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    match found {
        None => Ok(()),
        Some(name) => Err(Refusal {
            message: format!("{name}() has another value at every call, so a replay would give other events"),
            help: "use event_time, window_start or window_end".to_owned(),
            keyword: None,
        }),
    }
}

/// What may stand between the telemetry and the aggregate, and anywhere in a row-wise rule.
pub(crate) fn check_stateless(plan: &LogicalPlan) -> Result<(), Refusal> {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::Unnest(_) => Ok(()),
        LogicalPlan::Join(join) => check_join(join),
        LogicalPlan::Distinct(_) => refuse(
            "DISTINCT over a stream must remember every row for ever",
            "say how long: SELECT DISTINCT ON (key) … WITHIN INTERVAL '10 minutes'; or count distinct values in a \
             window: count(DISTINCT x) … GROUP BY …, window_start, window_end",
            "DISTINCT",
        ),
        LogicalPlan::Window(_) => refuse(
            "OVER needs window results, not telemetry rows",
            "aggregate in a subquery over TUMBLE or HOP first, then use OVER on its rows",
            "OVER",
        ),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => refuse_order(),
        other => refuse(
            format!("{} cannot run on a stream", node_name(other)),
            "rewrite it with joins and filters",
            "SELECT",
        ),
    }
}

/// What may stand above the aggregate.
fn check_above(plan: &LogicalPlan, emission: Emission) -> Result<(), Refusal> {
    let on_update = emission == Emission::OnUpdate;
    match plan {
        LogicalPlan::Window(_) if on_update => refuse(
            "OVER compares whole windows, which EMIT ON UPDATE does not wait for",
            "write EMIT ON CLOSE, or compare with a threshold instead of the past",
            "EMIT",
        ),
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) if on_update => refuse(
            "a second aggregate needs all groups of the window, which EMIT ON UPDATE does not wait for",
            "write EMIT ON CLOSE",
            "EMIT",
        ),
        LogicalPlan::Window(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) => Ok(()),
        other => check_stateless(other),
    }
}

fn refuse_order<T>() -> Result<T, Refusal> {
    let help = "leave it out: events carry their time; for the top n of a window filter on row_number() OVER \
                (PARTITION BY window_end ORDER BY …)";
    refuse("ORDER BY and LIMIT mean nothing for a result that never ends", help, "ORDER")
}

fn node_name(plan: &LogicalPlan) -> String {
    plan.display().to_string().split([':', ' ']).next().unwrap_or_default().to_uppercase()
}

/// Telemetry must be on the side whose rows decide: nothing may come out that no telemetry touched.
fn check_join(join: &Join) -> Result<(), Refusal> {
    use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
    let telemetry_left = reads_telemetry(&join.left);
    let allowed = match join.join_type {
        Inner => true,
        Left | LeftSemi | LeftAnti | LeftMark => telemetry_left,
        Right | RightSemi | RightAnti | RightMark => !telemetry_left,
        JoinType::Full => false,
    };
    if allowed {
        return Ok(());
    }
    let message =
        format!("a {} join would also give rows of the reference table that no telemetry touched", join.join_type);
    refuse(message, "put the telemetry first: FROM spans … LEFT JOIN reference …", "JOIN")
}

/// The window of the aggregate and what each group expression is.
fn group_columns(aggregate: &Aggregate) -> Result<(WindowSpec, Vec<GroupColumn>), Refusal> {
    let mut spec = None;
    let mut keys = 0;
    let mut groups = Vec::new();
    for (nth, expr) in aggregate.group_expr.iter().enumerate() {
        if aggregate.group_expr[..nth].contains(expr) {
            return refuse(format!("GROUP BY has `{expr}` twice"), "leave one of them out", "GROUP");
        }
        if matches!(expr, Expr::GroupingSet(_)) {
            let help = "write one rule per grouping";
            return refuse("GROUPING SETS, CUBE and ROLLUP have no single subject", help, "GROUP");
        }
        groups.push(match expr_origin(aggregate, expr) {
            Origin::Window { spec: found, is_start } => {
                spec = Some(found);
                if is_start { GroupColumn::WindowStart } else { GroupColumn::WindowEnd }
            }
            Origin::Key(_) | Origin::Other => {
                keys += 1;
                GroupColumn::Key(keys - 1)
            }
        });
    }
    let Some(spec) = spec else { return refuse_unwindowed(aggregate) };
    if !groups.contains(&GroupColumn::WindowStart) || !groups.contains(&GroupColumn::WindowEnd) {
        return refuse(
            "the GROUP BY has only one of the window's bounds",
            "group by window_start, window_end",
            "GROUP",
        );
    }
    let uses_window =
        |e: &Expr| e.column_refs().iter().any(|c| matches!(origin(&aggregate.input, c), Origin::Window { .. }));
    let keys =
        aggregate.group_expr.iter().zip(&groups).filter(|(_, g)| matches!(g, GroupColumn::Key(_))).map(|(e, _)| e);
    if !spec.is_disjoint() && aggregate.aggr_expr.iter().chain(keys).any(uses_window) {
        let help = "use window_start and window_end above the aggregate, in HAVING or SELECT";
        return refuse("the window's bounds are not known inside the aggregate of overlapping windows", help, "GROUP");
    }
    Ok((spec, groups))
}

fn expr_origin(aggregate: &Aggregate, expr: &Expr) -> Origin {
    match expr {
        Expr::Column(c) => origin(&aggregate.input, c),
        Expr::Alias(a) => expr_origin(aggregate, &a.expr),
        _ => Origin::Other,
    }
}

fn refuse_unwindowed<T>(aggregate: &Aggregate) -> Result<T, Refusal> {
    if crate::lineage::reads_window(&aggregate.input) {
        return refuse("the GROUP BY leaves the window out", "group by window_start, window_end too", "GROUP");
    }
    let help = "read through a window: FROM TUMBLE(spans, event_time, INTERVAL '1 hour') … GROUP BY …, window_start, \
                window_end";
    refuse("GROUP BY without a window would grow for ever", help, "GROUP")
}

/// Aggregates that depend on the order of rows must say which: rows arrive in another order at every run.
fn check_order(plan: &LogicalPlan) -> Result<(), Refusal> {
    const ORDERED: [&str; 5] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg"];
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(()) };
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = strip_alias(expr) else { continue };
        let name = call.func.name();
        if ORDERED.contains(&name) && call.params.order_by.is_empty() && !call.params.distinct {
            let message = format!("{name} depends on the order of rows, which is another at every run");
            return refuse(message, format!("say which: {name}(x ORDER BY event_time)"), "SELECT");
        }
    }
    Ok(())
}

/// An aggregate above the windowed one sees one window at a time, so it must group by the window.
fn check_later_aggregate(plan: &LogicalPlan, groups: &[GroupColumn]) -> Result<(), Refusal> {
    let LogicalPlan::Aggregate(later) = plan else { return Ok(()) };
    if !has_aggregate(&later.input) {
        return Ok(());
    }
    let is_bound = |k: usize| groups.get(k).is_some_and(|g| !matches!(g, GroupColumn::Key(_)));
    let is_window = |e: &Expr| match e {
        Expr::Column(c) => matches!(origin(&later.input, c), Origin::Key(k) if is_bound(k)),
        _ => false,
    };
    let of_table = |c: &Column| source_column(&later.input, later.input.schema().maybe_index_of_column(c)?);
    let key_of = |e: &Expr| match strip_alias(e) {
        Expr::Column(c) => Some(c).filter(|c| of_table(c).is_none()).map(|c| origin(&later.input, c)),
        _ => Some(Origin::Other),
    };
    // Who groups by all keys has one row of each.
    let has_all = (0..groups.len()).all(|k| later.group_expr.iter().any(|e| key_of(e) == Some(Origin::Key(k))));
    let is_value = |e: &&Expr| !has_all && key_of(e).is_some_and(|origin| !matches!(origin, Origin::Key(_)));
    if let Some(value) = later.group_expr.iter().find(is_value) {
        let message = format!("the second GROUP BY groups by `{value}`, which is no key of the first");
        let help = "two of its rows could be about one subject: group by keys of the first, or aggregate the value";
        return refuse(message, help, "GROUP");
    }
    if later.group_expr.iter().any(is_window) {
        return Ok(());
    }
    refuse("the second GROUP BY leaves the window out", "group by window_start, window_end in it too", "GROUP")
}
