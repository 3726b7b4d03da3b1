//! Windows: `TUMBLE`, `HOP`, `CUMULATE`, `CALENDAR` and `SESSION` as table functions.
//!
//! A window function adds `window_start` and `window_end` to the rows of a table. When a rule runs as a stream, the two
//! columns name the row's *pane* (for windows that do not overlap the window itself); the engine puts windows together
//! from panes. When the same query runs as a batch (the oracle), a row appears once per window, as SQL says.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, ListBuilder, TimestampNanosecondArray, TimestampNanosecondBuilder};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampNanosecondType};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue, UnnestOptions, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, cast,
};
use datafusion::logical_expr_common::signature::TypeSignature;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, TableFunctionArgs,
};
use lictor_schemas::tables::Table;
use lictor_schemas::time::{EventTime, Window};

use crate::calendar::{self, CalendarUnit};
use crate::lineage::strip_alias;
use crate::usage_leaves::{self, Reach};
use crate::window_spec::WindowSpec;
use crate::zoned;

/// The name of the column that holds a window's first instant.
pub(crate) const WINDOW_START: &str = "window_start";
/// The name of the column that holds the first instant behind a window.
pub(crate) const WINDOW_END: &str = "window_end";

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Whether window columns name panes or windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Planning {
    Stream,
    Batch,
}

/// The tables and views that a window function may name: the planner resolves only names that stand in `FROM`
/// themselves.
pub(crate) type Tables = Arc<Mutex<HashMap<String, Arc<dyn TableProvider>>>>;

/// A window function of `FROM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Tumble,
    Hop,
    Cumulate,
    Calendar,
    Session,
}

impl Function {
    fn of(name: &ObjectName) -> Option<Self> {
        match name.to_string().to_lowercase().as_str() {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "cumulate" => Some(Self::Cumulate),
            "calendar" => Some(Self::Calendar),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    /// How it is called.
    fn shape(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(table, event_time, size [, offset])",
            Self::Hop => "HOP(table, event_time, slide, size [, offset])",
            Self::Cumulate => "CUMULATE(table, event_time, step, size [, offset])",
            Self::Session => "SESSION(table, event_time, gap)",
            Self::Calendar => "CALENDAR(table, event_time, 'hour|day|week|month|quarter|year', 'zone' or a column)",
        }
    }

    /// The windows that its arguments behind table and time say.
    fn spec(self, arguments: &[Expr], input: &DFSchema) -> Result<WindowSpec> {
        let shape = self.shape();
        let (required, optional) = match self {
            Self::Tumble => (1, 1),
            Self::Hop | Self::Cumulate => (2, 1),
            Self::Calendar => (2, 0),
            Self::Session => (1, 0),
        };
        if !(required..=required + optional).contains(&arguments.len()) {
            let or_more = if optional > 0 { format!(" or {}", required + optional + 2) } else { String::new() };
            return plan_err!("{shape} takes {}{or_more} arguments, not {}", required + 2, arguments.len() + 2);
        }
        if self == Self::Calendar {
            return calendar_spec(&arguments[0], &arguments[1], input);
        }
        let lengths = arguments.iter().map(|a| interval_ns(a, shape)).collect::<Result<Vec<_>>>()?;
        let offset_ns = lengths.get(required).copied().unwrap_or_default();
        let spec = match self {
            Self::Tumble => WindowSpec::tumbling(lengths[0], offset_ns),
            Self::Session => WindowSpec::Session { gap_ns: lengths[0] },
            Self::Hop => WindowSpec::Hop { slide_ns: lengths[0], size_ns: lengths[1], offset_ns },
            Self::Cumulate | Self::Calendar => {
                WindowSpec::Cumulate { step_ns: lengths[0], size_ns: lengths[1], offset_ns }
            }
        };
        check_lengths(spec, shape)?;
        Ok(spec)
    }
}

/// Plans window functions in `FROM`.
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
        let plan = match Function::of(name) {
            Some(function) => self.plan_window(function, args, context)?,
            None if name.to_string().eq_ignore_ascii_case("usage_leaves") => self.plan_leaves(args, context)?,
            None => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

impl WindowPlanner {
    fn plan_window(
        &self,
        function: Function,
        args: &TableFunctionArgs,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let shape = function.shape();
        let args = args.args.iter().map(|a| unnamed(a, shape)).collect::<Result<Vec<_>>>()?;
        let [table, time, rest @ ..] = args.as_slice() else {
            return plan_err!("{shape} has {} arguments here", args.len());
        };
        let input = self.plan_input(table, shape, context)?;
        let time = context.sql_to_expr((*time).clone(), input.schema())?;
        check_time(&time)?;
        let rest =
            rest.iter().map(|a| context.sql_to_expr((*a).clone(), input.schema())).collect::<Result<Vec<_>>>()?;
        let spec = function.spec(&rest, input.schema())?;
        match rest.last().filter(|_| spec.is_zoned()) {
            Some(zone) => {
                // A row without a zone is in no window.
                let rows = LogicalPlanBuilder::from(input).filter(zone.clone().is_not_null())?.build()?;
                self.assign(rows, vec![time, cast(zone.clone(), DataType::Utf8View)], spec)
            }
            None => self.assign(input, vec![time], spec),
        }
    }

    /// No window, but the other function of `FROM` that takes a table.
    fn plan_leaves(&self, args: &TableFunctionArgs, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let args = args.args.iter().map(|a| unnamed(a, usage_leaves::SHAPE)).collect::<Result<Vec<_>>>()?;
        let [SqlExpr::Identifier(table), lengths @ ..] = args.as_slice() else {
            return plan_err!("{} takes the table spans first", usage_leaves::SHAPE);
        };
        if context.normalize_ident(table.clone()) != Table::Spans.name() {
            return plan_err!(
                "{} takes the table spans, not `{table}`: a view may lack the spans between two that bear usage",
                usage_leaves::SHAPE
            );
        }
        let spans = self.plan_input(args[0], usage_leaves::SHAPE, context)?;
        let length = |length: &&SqlExpr| {
            let length = context.sql_to_expr((**length).clone(), spans.schema())?;
            interval_ns(&length, usage_leaves::SHAPE)
        };
        let reach = Reach::try_new(&lengths.iter().map(length).collect::<Result<Vec<_>>>()?)?;
        usage_leaves::usage_leaves(self.planning, spans, reach)
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

    fn assign(&self, input: LogicalPlan, arguments: Vec<Expr>, spec: WindowSpec) -> Result<LogicalPlan> {
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let call = |bound: Bound| ScalarUDF::new_from_impl(AssignWindow::new(bound, spec)).call(arguments.clone());
        if let (Planning::Batch, WindowSpec::Session { .. }) = (self.planning, spec) {
            let (start, end) = (call(Bound::Row).alias(WINDOW_START), call(Bound::RowEnd).alias(WINDOW_END));
            return LogicalPlanBuilder::from(input).project(columns.into_iter().chain([start, end]))?.build();
        }
        if self.planning == Planning::Batch && !spec.is_disjoint() {
            let bounds = [call(Bound::Starts).alias(WINDOW_START), call(Bound::Ends).alias(WINDOW_END)];
            let both = [WINDOW_START, WINDOW_END].map(Column::from_name).to_vec();
            return LogicalPlanBuilder::from(input)
                .project(columns.into_iter().chain(bounds))?
                .unnest_columns_with_options(both, UnnestOptions::default())?
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
        return plan_err!(
            "months differ in length: {shape} takes days or shorter; for months write \
             CALENDAR(t, event_time, 'month', 'UTC')"
        );
    }
    let days = i64::from(interval.days).checked_mul(86_400_000_000_000);
    days.and_then(|d| d.checked_add(interval.nanoseconds))
        .ok_or_else(|| DataFusionError::Plan(format!("{} days are longer than 292 years", interval.days)))
}

fn calendar_spec(unit: &Expr, zone: &Expr, input: &DFSchema) -> Result<WindowSpec> {
    let text = |expr: &Expr, what: &str| match expr {
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(Some(text)) => Ok(text.to_owned()),
            _ => plan_err!("`{expr}` is no {what}: write it in single quotes"),
        },
        other => plan_err!("`{other}` is no {what}: write it in single quotes"),
    };
    let unit = text(unit, "unit of the calendar")?;
    let Some(unit) = CalendarUnit::parse(&unit) else {
        let units = CalendarUnit::ALL.map(CalendarUnit::as_str).join(", ");
        return plan_err!("'{unit}' is no unit of the calendar: it has {units}");
    };
    if !zone.column_refs().is_empty() {
        let data_type = zone.get_type(input)?;
        return match data_type {
            DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => Ok(WindowSpec::ZonedCalendar { unit }),
            _ => plan_err!("`{zone}` is {data_type}, and names of time zones are text"),
        };
    }
    let zone = calendar::zone(&text(zone, "time zone")?).or_else(|why| plan_err!("{why}"))?;
    Ok(WindowSpec::Calendar { unit, zone })
}

/// More panes than this in one window cost more memory and time than any rule is worth.
const PANES_MAX: i64 = 10_000;

fn check_lengths(spec: WindowSpec, shape: &str) -> Result<()> {
    let (size, step, name) = match spec {
        WindowSpec::Hop { size_ns, slide_ns, .. } => (size_ns, slide_ns, "slide"),
        WindowSpec::Cumulate { size_ns, step_ns, .. } => (size_ns, step_ns, "step"),
        WindowSpec::Session { gap_ns } => (gap_ns, gap_ns, "gap"),
        WindowSpec::Calendar { .. } | WindowSpec::ZonedCalendar { .. } => return Ok(()),
    };
    if size <= 0 || step <= 0 {
        return plan_err!("the lengths in {shape} must be greater than zero");
    }
    if step > size {
        return plan_err!("the {name} in {shape} is longer than the size: rows between windows would be lost");
    }
    if matches!(spec, WindowSpec::Cumulate { .. }) && size % step != 0 {
        return plan_err!("the size in {shape} is no multiple of the {name}");
    }
    if spec.panes_max() > PANES_MAX {
        return plan_err!(
            "the lengths in {shape} make {} panes per window, at most {PANES_MAX} are kept",
            spec.panes_max()
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
    /// Their ends, in the same order.
    Ends,
    /// The row's own time: where a session of this row alone begins.
    Row,
    /// Where it ends.
    RowEnd,
}

/// `(event_time)` → a bound of the row's pane, or of all its windows; `(event_time, zone)` if the row says in whose
/// zone its window is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AssignWindow {
    bound: Bound,
    spec: WindowSpec,
    name: String,
    signature: Signature,
}

impl AssignWindow {
    fn new(bound: Bound, spec: WindowSpec) -> Self {
        let bound_name = match bound {
            Bound::Start => "start",
            Bound::End => "end",
            Bound::Starts => "starts",
            Bound::Ends => "ends",
            Bound::Row => "row",
            Bound::RowEnd => "row_end",
        };
        let types = if spec.is_zoned() { vec![TIMESTAMP, DataType::Utf8View] } else { vec![TIMESTAMP] };
        let signature = Signature::new(TypeSignature::Exact(types), Volatility::Immutable);
        Self { bound, spec, name: format!("lictor_window_{bound_name}[{spec}]"), signature }
    }

    fn of_pane(&self, times: &TimestampNanosecondArray, bound: impl Fn(Window) -> EventTime) -> ArrayRef {
        // Rows come roughly in order, and a pane holds many of them.
        let pane = Cell::new(Window { start: EventTime::MAX, end: EventTime::MIN });
        let bound_at = |at: i64| {
            let at = EventTime(at);
            if at < pane.get().start || at >= pane.get().end {
                pane.set(self.spec.pane_at(at));
            }
            bound(pane.get()).0
        };
        Arc::new(times.unary::<_, TimestampNanosecondType>(bound_at))
    }

    fn of_windows(&self, times: &TimestampNanosecondArray, bound: impl Fn(&Window) -> EventTime) -> ArrayRef {
        let mut bounds = ListBuilder::new(TimestampNanosecondBuilder::new());
        for at in times {
            if let Some(at) = at {
                let windows = self.spec.windows_at(EventTime(at));
                windows.iter().for_each(|window| bounds.values().append_value(bound(window).0));
            }
            bounds.append(at.is_some());
        }
        Arc::new(bounds.finish())
    }
}

impl ScalarUDFImpl for AssignWindow {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.bound {
            Bound::Start | Bound::End | Bound::Row | Bound::RowEnd => TIMESTAMP,
            Bound::Starts | Bound::Ends => DataType::List(Arc::new(Field::new_list_field(TIMESTAMP, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        if let (WindowSpec::ZonedCalendar { unit }, Some(zones)) = (self.spec, args.args.get(1)) {
            let zones = zones.to_array(args.number_rows)?;
            let bound = |period: Window| if self.bound == Bound::Start { period.start } else { period.end };
            return Ok(ColumnarValue::Array(zoned::bounds(unit, times, zones.as_string_view(), bound)?));
        }
        Ok(ColumnarValue::Array(match self.bound {
            Bound::Start => self.of_pane(times, |pane| pane.start),
            Bound::End => self.of_pane(times, |pane| pane.end),
            Bound::Starts => self.of_windows(times, |window| window.start),
            Bound::Ends => self.of_windows(times, |window| window.end),
            Bound::Row => Arc::new(times.clone()),
            Bound::RowEnd => {
                let WindowSpec::Session { gap_ns } = self.spec else { return plan_err!("{} has no gap", self.spec) };
                Arc::new(times.unary::<_, TimestampNanosecondType>(|at| EventTime(at).plus(gap_ns).0))
            }
        }))
    }
}

/// The start of the pane that holds an instant.
pub(crate) fn pane_start(time: Expr, spec: WindowSpec) -> Expr {
    ScalarUDF::new_from_impl(AssignWindow::new(Bound::Start, spec)).call(vec![time])
}

/// What the windows of a plan follow: a column, and the node that has it.
pub(crate) fn window_argument(plan: &LogicalPlan) -> Option<(&LogicalPlan, &Column)> {
    let LogicalPlan::Projection(projection) = plan else {
        return plan.inputs().into_iter().find_map(window_argument);
    };
    let argument = projection.expr.iter().find_map(|expr| {
        window_column(expr)?;
        let Expr::ScalarFunction(call) = strip_alias(expr) else { return None };
        call.args.first().and_then(Expr::try_as_col)
    });
    match argument {
        Some(column) => Some((projection.input.as_ref(), column)),
        None => window_argument(&projection.input),
    }
}

/// The windows that a plan's rows are put into, whatever it says of them.
pub(crate) fn window_spec_in(plan: &LogicalPlan) -> Option<WindowSpec> {
    let assigned = |expr: &Expr| match strip_alias(expr) {
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref::<AssignWindow>().map(|assign| assign.spec),
        _ => None,
    };
    let own = match plan {
        LogicalPlan::Projection(projection) => projection.expr.iter().find_map(assigned),
        _ => None,
    };
    own.or_else(|| plan.inputs().into_iter().find_map(window_spec_in))
}

/// The window that an expression stands for, if it is a window column of [`WindowPlanner`]'s making: the spec, and
/// whether it is the start.
pub(crate) fn window_column(expr: &Expr) -> Option<(WindowSpec, bool)> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::ScalarFunction(call) = expr else { return None };
    let assigned = call.func.inner().downcast_ref::<AssignWindow>()?;
    match assigned.bound {
        Bound::Start => Some((assigned.spec, true)),
        Bound::End => Some((assigned.spec, false)),
        Bound::Row => Some((assigned.spec, true)),
        Bound::RowEnd => Some((assigned.spec, false)),
        Bound::Starts | Bound::Ends => None,
    }
}
