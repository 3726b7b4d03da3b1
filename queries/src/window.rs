//! Windows: `TUMBLE` and `HOP` as table functions.
//!
//! A window function adds `window_start` and `window_end` to the rows of a table. When a rule runs as a stream, the two
//! columns name the row's *pane*, the largest span that every window either contains or does not touch (for a tumbling
//! window the window itself); the engine puts windows together from panes. When the same query runs as a batch (the
//! oracle), a row of a hopping window appears once per window, as SQL says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, ListBuilder, TimestampNanosecondArray, TimestampNanosecondBuilder};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampNanosecondType};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::logical_expr_common::signature::TypeSignature;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, TableFunctionArgs,
};
use lictor_schemas::time::{EventTime, Window};

/// The name of the column that holds a window's first instant.
pub(crate) const WINDOW_START: &str = "window_start";
/// The name of the column that holds the first instant behind a window.
pub(crate) const WINDOW_END: &str = "window_end";

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// How event time is cut into windows; all lengths in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// The length of a window.
    pub size_ns: i64,
    /// From one window's start to the next; equal to the size for a tumbling window.
    pub slide_ns: i64,
    /// How far the first window's start lies behind the epoch, 1970-01-01T00:00:00Z.
    pub offset_ns: i64,
}

impl WindowSpec {
    /// Whether windows do not overlap.
    #[must_use]
    pub fn is_tumbling(&self) -> bool {
        self.size_ns == self.slide_ns
    }

    /// The length of a pane: the greatest common divisor of size and slide.
    #[must_use]
    pub fn pane_ns(&self) -> i64 {
        let (mut a, mut b) = (self.size_ns, self.slide_ns);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The start of the pane that holds `at`.
    #[must_use]
    pub fn pane_start(&self, at: EventTime) -> EventTime {
        EventTime(floor(at.0, self.pane_ns(), self.offset_ns))
    }

    /// The windows that hold the instant `at`, the earliest first.
    pub fn windows_at(&self, at: EventTime) -> impl Iterator<Item = Window> + use<> {
        let (size, slide) = (self.size_ns, self.slide_ns);
        let last = floor(at.0, slide, self.offset_ns);
        let count = (size - at.0.saturating_sub(last) + slide - 1).div_euclid(slide).max(0);
        (0..count).rev().map(move |i| {
            let start = EventTime(last.saturating_sub(i.saturating_mul(slide)));
            Window { start, end: start.plus(size) }
        })
    }

    /// When the window after `window` ends, rows or not.
    #[must_use]
    pub fn end_after(&self, window: Window) -> EventTime {
        window.end.plus(self.slide_ns)
    }

    /// The panes that a window is made of, the earliest first.
    pub fn panes_of(&self, window: Window) -> impl Iterator<Item = EventTime> + use<> {
        let pane = self.pane_ns();
        (0..self.size_ns / pane).map(move |i| window.start.plus(i * pane))
    }
}

/// The greatest multiple of `step` (plus `offset`) that is not after `at`.
fn floor(at: i64, step: i64, offset: i64) -> i64 {
    at.saturating_sub(at.saturating_sub(offset).rem_euclid(step))
}

/// Whether window columns name panes or windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Planning {
    Stream,
    Batch,
}

/// The tables and views that a window function may name: the planner resolves only names that stand in `FROM`
/// themselves.
pub(crate) type Tables = Arc<Mutex<HashMap<String, Arc<dyn TableProvider>>>>;

/// Plans `TUMBLE(…)` and `HOP(…)` in `FROM`.
#[derive(Debug)]
pub(crate) struct WindowPlanner {
    pub planning: Planning,
    pub tables: Tables,
}

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let hopping = match name.to_string().to_lowercase().as_str() {
            "tumble" => false,
            "hop" => true,
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let plan = self.plan_window(hopping, args, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

impl WindowPlanner {
    fn plan_window(
        &self,
        hopping: bool,
        args: &TableFunctionArgs,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let shape = if hopping {
            "HOP(table, event_time, slide, size [, offset])"
        } else {
            "TUMBLE(table, event_time, size [, offset])"
        };
        let args = args.args.iter().map(|a| unnamed(a, shape)).collect::<Result<Vec<_>>>()?;
        let fixed = if hopping { 4 } else { 3 };
        if args.len() < fixed || args.len() > fixed + 1 {
            return plan_err!("{shape} takes {fixed} or {} arguments, not {}", fixed + 1, args.len());
        }
        let input = self.plan_input(args[0], shape, context)?;
        let time = context.sql_to_expr(args[1].clone(), input.schema())?;
        check_time(&time)?;
        let mut lengths =
            args[2..].iter().map(|a| interval_ns(&context.sql_to_expr((*a).clone(), input.schema())?, shape));
        let first = lengths.next().transpose()?.unwrap_or_default();
        let size = if hopping { lengths.next().transpose()?.unwrap_or_default() } else { first };
        let offset = lengths.next().transpose()?.unwrap_or_default();
        let spec = WindowSpec { size_ns: size, slide_ns: first, offset_ns: offset };
        check_spec(spec, shape)?;
        self.assign(input, time, spec)
    }

    /// The rows to be windowed: a table or view by name, a query's own `WITH` name, or a subquery.
    fn plan_input(&self, arg: &SqlExpr, shape: &str, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        if let SqlExpr::Identifier(ident) = arg {
            let name = context.normalize_ident(ident.clone());
            let table = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(&name).map(Arc::clone);
            if let Some(table) = table {
                return LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build();
            }
        }
        context.plan(table_of(arg, shape)?)
    }

    fn assign(&self, input: LogicalPlan, time: Expr, spec: WindowSpec) -> Result<LogicalPlan> {
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let call = |bound: Bound| {
            let udf = ScalarUDF::new_from_impl(AssignWindow::new(bound));
            udf.call(vec![time.clone(), lit(spec.slide_ns), lit(spec.size_ns), lit(spec.offset_ns)])
        };
        if self.planning == Planning::Batch && !spec.is_tumbling() {
            let starts = call(Bound::Starts).alias(WINDOW_START);
            let unnested = LogicalPlanBuilder::from(input)
                .project(columns.iter().cloned().chain([starts]))?
                .unnest_column(WINDOW_START)?;
            let size = lit(ScalarValue::new_interval_mdn(0, 0, spec.size_ns));
            let start = Expr::Column(WINDOW_START.into());
            return unnested
                .project(columns.into_iter().chain([start.clone(), (start + size).alias(WINDOW_END)]))?
                .build();
        }
        let (start, end) = (call(Bound::Start).alias(WINDOW_START), call(Bound::End).alias(WINDOW_END));
        LogicalPlanBuilder::from(input).project(columns.into_iter().chain([start, end]))?.build()
    }
}

fn unnamed<'a>(arg: &'a FunctionArg, shape: &str) -> Result<&'a SqlExpr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e),
        other => plan_err!("`{other}` is no argument of {shape}"),
    }
}

/// The first argument names a table, a view or holds a subquery.
fn table_of(arg: &SqlExpr, shape: &str) -> Result<TableFactor> {
    let named = |idents| TableFactor::Table {
        name: ObjectName::from(idents),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    match arg {
        SqlExpr::Identifier(ident) => Ok(named(vec![ident.clone()])),
        SqlExpr::CompoundIdentifier(idents) => Ok(named(idents.clone())),
        SqlExpr::Subquery(query) => {
            Ok(TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None })
        }
        other => plan_err!("`{other}` is no table: {shape} takes a table, a view or a subquery in parentheses"),
    }
}

/// Time advances by `event_time`: windows over another column would close before their rows have come.
fn check_time(time: &Expr) -> Result<()> {
    match time {
        Expr::Column(column) if column.name == "event_time" => Ok(()),
        other => plan_err!("windows follow event_time, not `{other}`: by it rows are late and windows close"),
    }
}

fn interval_ns(expr: &Expr, shape: &str) -> Result<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expr else {
        return plan_err!("`{expr}` is no length of time: {shape} takes literals such as INTERVAL '5 minutes'");
    };
    if interval.months != 0 {
        return plan_err!("months differ in length: {shape} takes days or shorter, e.g. INTERVAL '30 days'");
    }
    let days = i64::from(interval.days).checked_mul(86_400_000_000_000);
    days.and_then(|d| d.checked_add(interval.nanoseconds))
        .ok_or_else(|| DataFusionError::Plan(format!("{expr} is longer than 292 years")))
}

/// More panes than this in one window cost more memory and time than any rule is worth.
const PANES_MAX: i64 = 10_000;

fn check_spec(spec: WindowSpec, shape: &str) -> Result<()> {
    if spec.size_ns <= 0 || spec.slide_ns <= 0 {
        return plan_err!("the lengths in {shape} must be greater than zero");
    }
    if spec.slide_ns > spec.size_ns {
        return plan_err!("the slide in {shape} is longer than the size: rows between windows would be lost");
    }
    if spec.size_ns / spec.pane_ns() > PANES_MAX {
        return plan_err!(
            "size and slide in {shape} make {} panes per window, at most {PANES_MAX} are kept",
            spec.size_ns / spec.pane_ns()
        );
    }
    Ok(())
}

/// Which bound of a window a call yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bound {
    /// The pane's start.
    Start,
    /// The pane's end.
    End,
    /// The starts of all windows that hold the row.
    Starts,
}

/// `(event_time, slide_ns, size_ns, offset_ns)` → a bound of the row's pane, or the starts of all its windows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AssignWindow {
    bound: Bound,
    signature: Signature,
}

impl AssignWindow {
    fn new(bound: Bound) -> Self {
        let exact = TypeSignature::Exact(vec![TIMESTAMP, DataType::Int64, DataType::Int64, DataType::Int64]);
        Self { bound, signature: Signature::new(exact, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AssignWindow {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "lictor_window_start",
            Bound::End => "lictor_window_end",
            Bound::Starts => "lictor_window_starts",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.bound {
            Bound::Start | Bound::End => TIMESTAMP,
            Bound::Starts => DataType::List(Arc::new(Field::new_list_field(TIMESTAMP, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let spec = spec_of_values(&args.args[1..])?;
        let pane = spec.pane_ns();
        let bound = |shift: i64| {
            let at = |t: i64| floor(t, pane, spec.offset_ns).saturating_add(shift);
            Arc::new(times.unary::<_, TimestampNanosecondType>(at))
        };
        Ok(ColumnarValue::Array(match self.bound {
            Bound::Start => bound(0),
            Bound::End => bound(pane),
            Bound::Starts => Arc::new(all_starts(times, spec)),
        }))
    }
}

fn all_starts(times: &TimestampNanosecondArray, spec: WindowSpec) -> impl Array + use<> {
    let mut starts = ListBuilder::new(TimestampNanosecondBuilder::new());
    for at in times {
        if let Some(at) = at {
            spec.windows_at(EventTime(at)).for_each(|w| starts.values().append_value(w.start.0));
        }
        starts.append(at.is_some());
    }
    starts.finish()
}

fn spec_of_values(values: &[ColumnarValue]) -> Result<WindowSpec> {
    let length = |i: usize| match &values[i] {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(ns))) => Ok(*ns),
        other => plan_err!("window lengths are literals, not {other:?}"),
    };
    Ok(WindowSpec { slide_ns: length(0)?, size_ns: length(1)?, offset_ns: length(2)? })
}

/// The window that an expression stands for, if it is a window column of [`WindowPlanner`]'s making: the spec, and
/// whether it is the start.
pub(crate) fn window_column(expr: &Expr) -> Option<(WindowSpec, bool)> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::ScalarFunction(call) = expr else { return None };
    let is_start = match call.func.name() {
        "lictor_window_start" => true,
        "lictor_window_end" => false,
        _ => return None,
    };
    let length = |i: usize| match call.args.get(i) {
        Some(Expr::Literal(ScalarValue::Int64(Some(ns)), _)) => Some(*ns),
        _ => None,
    };
    Some((WindowSpec { slide_ns: length(1)?, size_ns: length(2)?, offset_ns: length(3)? }, is_start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(size_ns: i64, slide_ns: i64, offset_ns: i64) -> WindowSpec {
        WindowSpec { size_ns, slide_ns, offset_ns }
    }

    fn starts(spec: WindowSpec, at: i64) -> Vec<i64> {
        spec.windows_at(EventTime(at)).map(|w| w.start.0).collect()
    }

    #[test]
    fn a_row_belongs_to_one_tumbling_window_also_before_the_epoch() {
        assert_eq!(starts(spec(10, 10, 0), 19), [10]);
        assert_eq!(starts(spec(10, 10, 0), -1), [-10]);
        assert_eq!(starts(spec(10, 10, 3), 12), [3]);
    }

    #[test]
    fn a_row_belongs_to_every_hopping_window_that_holds_it() {
        assert_eq!(starts(spec(10, 5, 0), 12), [5, 10]);
        assert_eq!(starts(spec(10, 4, 0), 12), [4, 8, 12]);
        assert_eq!(starts(spec(10, 4, 0), 15), [8, 12]);
    }

    #[test]
    fn panes_tile_a_window_exactly() {
        let s = spec(10, 4, 0);
        assert_eq!(s.pane_ns(), 2);
        let window = Window { start: EventTime(4), end: EventTime(14) };
        let panes: Vec<i64> = s.panes_of(window).map(|p| p.0).collect();
        assert_eq!(panes, [4, 6, 8, 10, 12]);
    }
}
