//! Detector calls, checked and cut out of a plan.
//!
//! A window-function node whose calls include detectors becomes a node with the other calls over rows that have a
//! column more per detector; what the operator folds is projected from the rows before.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Window, WindowFrameBound, col};

use super::arguments::Settings;
use super::function::{SequenceFunction, called, coerced};
use super::keyed::{Call, Keyed};
use super::readings::data_type;
use super::{DETECTORS, Detector, Value};
use crate::aggregation::GroupColumn;
use crate::lineage::{Origin, origin, strip_alias, top_aggregate};
use crate::session::{Session, scan_as};
use crate::shape::Refusal;
use crate::slot::SlotTable;
use crate::stage::Stage;
use crate::window_spec::WindowSpec;

/// A key that has been silent for longer is forgotten: a rule looks back over a month, and a key that comes back later
/// has another normal.
const KEEP_NS: i64 = 31 * 86_400_000_000_000;

/// How long after its last window's end a key is kept: 31 days, and as long as a window lasts.
pub(crate) fn keep_ns(spec: WindowSpec) -> i64 {
    KEEP_NS.saturating_add(spec.span_ns_max())
}

/// Whether a window-function expression calls a detector.
pub(crate) fn is_detector(expr: &Expr) -> bool {
    called(expr).is_some()
}

/// Whether any call of a node is a detector's.
pub(crate) fn has_detectors(window: &Window) -> bool {
    window.window_expr.iter().any(is_detector)
}

/// What folds rows before a level's stage runs.
#[derive(Debug)]
pub(crate) struct Detecting {
    /// Makes what is folded of the rows: `[key…, end, value…]` for each `OVER`.
    arguments: Stage,
    overs: Vec<Keyed>,
    /// For each call, in the order of the query, the `OVER` that it is in and its number there.
    calls: Vec<(usize, usize)>,
    /// The rows with a column more per call.
    schema: SchemaRef,
}

/// A node without its detectors.
pub(crate) struct Cut {
    pub(crate) detecting: Detecting,
    /// Has the columns that the node had.
    pub(crate) plan: LogicalPlan,
    /// What `plan` reads.
    pub(crate) table: Arc<SlotTable>,
}

impl Detecting {
    /// How many histories it has.
    pub(crate) fn histories(&self) -> usize {
        self.overs.len()
    }

    /// After how many rows its detectors have settled.
    pub(crate) fn rows_back(&self) -> usize {
        let calls = self.overs.iter().flat_map(|over| &over.calls);
        calls.map(|call| (call.detector.settled)(&call.settings)).max().unwrap_or_default()
    }

    /// Changes whenever a remembered state has another meaning.
    pub(crate) fn id(&self) -> String {
        let version = |call: &Call| format!("{} {} {:?}", call.detector.name, call.detector.version, call.settings);
        let over = |over: &Keyed| {
            let calls: Vec<String> = over.calls.iter().map(version).collect();
            format!("{calls:?} {:?} {} {}", over.partition, over.end, over.keep_ns)
        };
        let overs: Vec<String> = self.overs.iter().map(over).collect();
        format!("{overs:?} {:?}", self.arguments.explain())
    }

    /// What it does, a line per call.
    pub(crate) fn explain(&self) -> Vec<String> {
        let call = |(over, nth): &(usize, usize)| {
            let over = &self.overs[*over];
            let call = &over.calls[*nth];
            format!(
                "detect {} {:?}, a state per key of {} columns",
                call.detector.name,
                call.settings,
                over.partition.len()
            )
        };
        self.calls.iter().map(call).collect()
    }

    /// `past`, which was folded before, and `now` behind it, with what the calls make of `now`.
    pub(crate) fn run(
        &self,
        past: Option<&RecordBatch>,
        now: &RecordBatch,
        states: &mut [Option<RecordBatch>],
    ) -> Result<RecordBatch> {
        let arguments = self.arguments.run(now)?;
        let arguments = match arguments.as_slice() {
            [one] => one.clone(),
            many => concat_batches(self.arguments.schema(), many)?,
        };
        let folded = self.overs.iter().zip(states).map(|(over, state)| over.fold(&arguments, state));
        let folded: Vec<Vec<ArrayRef>> = folded.collect::<Result<_>>()?;
        let of_past = past.map_or(0, RecordBatch::num_rows);
        let mut columns = match past {
            Some(past) => concat_batches(&now.schema(), [past, now])?.columns().to_vec(),
            None => now.columns().to_vec(),
        };
        for (over, nth) in &self.calls {
            let column = &folded[*over][*nth];
            let nulls = new_null_array(column.data_type(), of_past);
            columns.push(concat(&[nulls.as_ref(), column.as_ref()])?);
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(of_past + now.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }
}

/// Takes the detectors out of a node over rows of `table`; there must be some.
pub(crate) fn cut(session: &Session, window: &Window, spec: WindowSpec, table: &Arc<SlotTable>) -> Result<Cut> {
    let below = TableProvider::schema(table.as_ref());
    let like = window.input.schema();
    let mut fields: Vec<_> = below.fields().iter().cloned().collect();
    let mut arguments = Arguments { overs: Vec::new(), keep_ns: keep_ns(spec), exprs: Vec::new(), calls: Vec::new() };
    for (call, function) in window.window_expr.iter().filter_map(called) {
        let given = data_type(function.detector, function.is_whole);
        fields.push(Arc::new(Field::new(format!("c{}", fields.len()), given, true)));
        arguments.add(call, function)?;
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let rows = scan_as("__rows", table, like)?;
    let projected = LogicalPlanBuilder::from(rows).project(arguments.exprs)?.build()?;
    let stage = session.stage(&projected, table)?;
    let wider = SlotTable::new(Arc::clone(&schema));
    let plan = without_detectors(window, &wider)?;
    let detecting = Detecting { arguments: stage, overs: arguments.overs, calls: arguments.calls, schema };
    Ok(Cut { detecting, plan, table: wider })
}

/// What is to be projected for the calls seen so far.
struct Arguments {
    overs: Vec<Keyed>,
    keep_ns: i64,
    exprs: Vec<Expr>,
    calls: Vec<(usize, usize)>,
}

impl Arguments {
    fn add(&mut self, call: &WindowFunction, function: &SequenceFunction) -> Result<()> {
        let detector = function.detector;
        let (values, said) = call.params.args.split_at(detector.values.len());
        let said: Vec<ScalarValue> = said.iter().filter_map(literal).collect();
        let settings = match Settings::read(detector, &said) {
            Ok(settings) => settings,
            Err(why) => return datafusion::common::plan_err!("{}: {why}", detector.name),
        };
        let partition = call.params.partition_by.iter().map(|expr| self.column(expr)).collect::<Vec<_>>();
        let Some(order) = call.params.order_by.first() else {
            return datafusion::common::plan_err!("{} has no order", detector.name);
        };
        let end = self.column(&order.expr);
        let values = values.iter().map(|expr| self.column(expr)).collect();
        let over = match self.overs.iter().position(|over| over.partition == partition && over.end == end) {
            Some(over) => over,
            None => {
                self.overs.push(Keyed { partition, end, calls: Vec::new(), keep_ns: self.keep_ns });
                self.overs.len() - 1
            }
        };
        self.calls.push((over, self.overs[over].calls.len()));
        self.overs[over].calls.push(Call { detector, settings, is_whole: function.is_whole, values });
        Ok(())
    }

    /// The number of the column that `expr` is.
    fn column(&mut self, expr: &Expr) -> usize {
        let is_it = |known: &Expr| strip_alias(known) == expr;
        self.exprs.iter().position(is_it).unwrap_or_else(|| {
            self.exprs.push(expr.clone().alias(format!("a{}", self.exprs.len())));
            self.exprs.len() - 1
        })
    }
}

/// The node over rows of `table`, which has a column more per detector, with the columns that it had.
fn without_detectors(window: &Window, table: &Arc<SlotTable>) -> Result<LogicalPlan> {
    let (like, width) = (window.input.schema(), window.input.schema().fields().len());
    let detectors = window.window_expr.iter().filter(|expr| is_detector(expr)).count();
    let provider: Arc<dyn TableProvider> = Arc::<SlotTable>::clone(table);
    let own = like
        .iter()
        .enumerate()
        .map(|(n, (qualifier, field))| col(format!("c{n}")).alias_qualified(qualifier.cloned(), field.name()));
    let made = (0..detectors).map(|n| col(format!("c{}", width + n)).alias(format!("__detector{n}")));
    let rows = LogicalPlanBuilder::scan("__input", provider_as_source(provider), None)?.project(own.chain(made))?;
    let others: Vec<Expr> = window.window_expr.iter().filter(|expr| !is_detector(expr)).cloned().collect();
    let rows = if others.is_empty() { rows } else { rows.window(others)? };
    let built = rows.build()?;
    let (mut next_detector, mut next_other) = (0, width + detectors);
    let mut columns = Vec::new();
    for (n, (qualifier, field)) in window.schema.iter().enumerate() {
        let column = match n.checked_sub(width).map(|n| is_detector(&window.window_expr[n])) {
            None => Expr::Column(Column::from((qualifier, field.as_ref()))),
            Some(true) => {
                next_detector += 1;
                Expr::Column(Column::new_unqualified(format!("__detector{}", next_detector - 1)))
            }
            Some(false) => {
                next_other += 1;
                Expr::Column(Column::from(built.schema().qualified_field(next_other - 1)))
            }
        };
        columns.push(column.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(built).project(columns)?.build()
}

/// Why calls of detectors in a node cannot run, if they cannot.
pub(crate) fn refuse_misuse(window: &Window, spec: WindowSpec, groups: &[GroupColumn]) -> Result<(), Refusal> {
    window.window_expr.iter().filter_map(called).try_for_each(|(call, function)| {
        let checked = Checked { call, detector: function.detector, window, groups };
        checked.values()?;
        checked.settings()?;
        checked.over(spec)
    })
}

struct Checked<'a> {
    call: &'a WindowFunction,
    detector: &'static Detector,
    window: &'a Window,
    groups: &'a [GroupColumn],
}

impl Checked<'_> {
    fn usage(&self) -> String {
        format!("{} OVER (PARTITION BY key ORDER BY window_end)", self.detector.signature().call)
    }

    fn refuse(&self, message: String, help: String) -> Result<(), Refusal> {
        Err(Refusal { message, help, keyword: Some(self.detector.name) })
    }

    fn values(&self) -> Result<(), Refusal> {
        let Detector { name, values, .. } = self.detector;
        let arguments = &self.call.params.args;
        if arguments.len() < values.len() {
            let message = format!("{name} takes {} values, not {}", values.len(), arguments.len());
            return self.refuse(message, format!("write {}", self.usage()));
        }
        for (value, argument) in values.iter().zip(arguments) {
            let given = argument.get_type(self.window.input.schema()).unwrap_or(DataType::Null);
            if coerced(*value, &given).is_none() {
                let wanted = match value {
                    Value::Number => "a number",
                    Value::Share => "a condition, or a number from 0 to 1",
                    Value::Flag => "a condition",
                    Value::Time => "an instant, such as window_start",
                };
                let message = format!("{name} needs {wanted}, and `{argument}` is {given}");
                return self.refuse(message, format!("write {}", self.usage()));
            }
        }
        Ok(())
    }

    fn settings(&self) -> Result<(), Refusal> {
        let Detector { name, values, .. } = self.detector;
        let said = &self.call.params.args[values.len()..];
        let literals: Vec<ScalarValue> = said.iter().map_while(literal).collect();
        if let Some(other) = said.get(literals.len()) {
            let message = format!("{name} is set by literals, and `{other}` is none");
            return self.refuse(message, format!("write {}", self.usage()));
        }
        match Settings::read(self.detector, &literals) {
            Ok(_) => Ok(()),
            Err(why) => self.refuse(format!("{name}: {why}"), format!("write {}", self.usage())),
        }
    }

    fn over(&self, spec: WindowSpec) -> Result<(), Refusal> {
        let (name, params) = (self.detector.name, &self.call.params);
        if let WindowSpec::Session { .. } = spec {
            let help = "use TUMBLE or HOP, whose windows follow one another".to_owned();
            return self.refuse(format!("{name} does not go with SESSION"), help);
        }
        let is_unbounded = matches!(&params.window_frame.start_bound, WindowFrameBound::Preceding(n) if n.is_null())
            && params.window_frame.end_bound == WindowFrameBound::CurrentRow;
        if !is_unbounded && !params.order_by.is_empty() {
            let message =
                format!("{name} looks back to the first window of a key in bounded state, so it has no frame");
            return self.refuse(message, "leave ROWS … out".to_owned());
        }
        if params.filter.is_some() || params.null_treatment.is_some() || params.distinct {
            let message = format!("{name} takes every row; it ignores values that are null");
            return self
                .refuse(message, "make the value null where it is to be ignored: CASE WHEN … THEN x END".to_owned());
        }
        let bound = |expr: &Expr| self.group(expr).filter(|group| !matches!(group, GroupColumn::Key(_)));
        let mut order = params.order_by.iter();
        let is_by_end = order.next().is_some_and(|sort| sort.asc && bound(&sort.expr) == Some(GroupColumn::WindowEnd));
        if !is_by_end || !order.all(|sort| sort.asc && bound(&sort.expr) == Some(GroupColumn::WindowStart)) {
            let help = format!("write {}", self.usage());
            return self.refuse(format!("{name} follows the windows of a key in time"), help);
        }
        self.partition()
    }

    /// Rows of a key must come one per window: two of one window would have no order.
    fn partition(&self) -> Result<(), Refusal> {
        let by = &self.call.params.partition_by;
        if let Some(other) = by.iter().find(|expr| !matches!(expr, Expr::Column(_))) {
            let message = format!("PARTITION BY names columns, and `{other}` is none");
            return self.refuse(message, "give the expression a name in a subquery".to_owned());
        }
        if by.iter().any(|expr| self.group(expr).is_some_and(|group| !matches!(group, GroupColumn::Key(_)))) {
            let message = format!("{} compares windows of a key, and PARTITION BY parts them", self.detector.name);
            return self.refuse(message, "leave window_start and window_end out of PARTITION BY".to_owned());
        }
        let named: BTreeSet<usize> = by.iter().filter_map(|expr| self.group_number(expr)).collect();
        let Some(aggregate) = top_aggregate(&self.window.input) else { return Ok(()) };
        for (n, expr) in aggregate.group_expr.iter().enumerate() {
            // Of the aggregate over the window itself the number is that of the key.
            let number = match strip_alias(expr) {
                Expr::Column(column) => match origin(&aggregate.input, column) {
                    Origin::Key(number) => number,
                    Origin::Window { .. } | Origin::Other => n,
                },
                _ => n,
            };
            let is_key = matches!(self.groups.get(number), Some(GroupColumn::Key(_)));
            if is_key && !named.contains(&number) {
                let key = strip_alias(expr);
                let message = format!("PARTITION BY leaves out `{key}`: rows of several keys would have no order");
                return self.refuse(message, "partition by every key of the GROUP BY".to_owned());
            }
        }
        Ok(())
    }

    fn group_number(&self, expr: &Expr) -> Option<usize> {
        let Expr::Column(column) = expr else { return None };
        match origin(&self.window.input, column) {
            Origin::Key(number) => Some(number),
            Origin::Window { .. } | Origin::Other => None,
        }
    }

    fn group(&self, expr: &Expr) -> Option<GroupColumn> {
        self.groups.get(self.group_number(expr)?).copied()
    }
}

fn literal(expr: &Expr) -> Option<ScalarValue> {
    match strip_alias(expr) {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    }
}

/// What to write instead, if a query calls a detector without `OVER`.
pub(crate) fn help_for(name: &str) -> Option<String> {
    let detector = DETECTORS.into_iter().find(|detector| detector.name == name)?;
    Some(format!("{name} looks back: write {name}(…) OVER (PARTITION BY key ORDER BY window_end); {}", detector.says))
}
