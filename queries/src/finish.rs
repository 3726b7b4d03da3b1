//! Above the aggregate: `HAVING`, joins with reference tables, window functions over successive windows, projections.
//!
//! The part of a query above its windowed aggregate is cut into levels, one below and above each `OVER`. A level runs
//! on the finished groups of one window. Where a window function looks back, the level keeps the rows it will look at,
//! per key, in a [`History`] that belongs to the caller, so that it can be checkpointed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{SortOptions, concat_batches, filter_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Expr, LogicalPlan, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::{EventTime, Window as TimeWindow};

use crate::EvaluationError;
use crate::aggregation::GroupColumn;
use crate::compact::compact;
use crate::gap_fill::GapFill;
use crate::lineage::{Origin, origin, origin_at};
use crate::observe::{Observation, closest, without_last_filters};
use crate::options::short_hash;
use crate::rows::{GroupRef, Judged, Measures, ResultColumns};
use crate::sequence::{Detecting, cut, has_detectors, is_detector, refuse_misuse};
use crate::session::{Session, scan_as};
use crate::shape::{Refusal, Windowed, refuse};
use crate::slot::SlotTable;
use crate::stage::Stage;

/// Which rows a level must remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySpec {
    /// What each `OVER` looks back at.
    pub overs: Vec<LookBack>,
}

/// What an `OVER` looks back at: the last rows of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookBack {
    /// The columns of `PARTITION BY`.
    pub partition: Vec<usize>,
    /// The columns of `ORDER BY`; the first is a bound of the window.
    pub order: Vec<(usize, SortOptions)>,
    /// How many rows of a partition.
    pub rows: usize,
}

/// What is remembered from window to window; starts empty. First the rows that each level looks back at, in the order
/// of their windows; then the states of each level's detectors, a row per key; last the keys that gaps are filled with.
pub type History = Vec<Option<RecordBatch>>;

#[derive(Debug)]
struct Level {
    /// What folds rows before the stage runs.
    detecting: Option<Detecting>,
    stage: Stage,
    history: Option<HistorySpec>,
    /// Where the level's output has the window's start and end.
    bounds: Option<[usize; 2]>,
}

/// The part of a rule above its aggregate.
#[derive(Debug)]
pub struct Finish {
    rule: String,
    levels: Vec<Level>,
    /// The last level without the filters at its end, if it has any: for those who look.
    unfiltered: Option<Stage>,
    columns: ResultColumns,
    gap_fill: Option<GapFill>,
    /// Whether more rows can only make its conditions true, and the sums that must not fall for it.
    rising: Option<Vec<usize>>,
}

impl Finish {
    /// A history in which nothing has happened.
    #[must_use]
    pub fn empty_history(&self) -> History {
        let detecting = self.levels.iter().filter_map(|level| level.detecting.as_ref());
        let of_detectors = detecting.map(Detecting::histories).sum::<usize>();
        let of_gaps = usize::from(self.gap_fill.is_some());
        vec![None; self.levels.len() + of_detectors + of_gaps]
    }

    /// Which keys are filled in, if any are; what is known of them is the last history.
    #[must_use]
    pub fn gap_fill(&self) -> Option<&GapFill> {
        self.gap_fill.as_ref()
    }

    /// The aggregates that are sums which must not fall, if it is then certain that a group which does not violate the
    /// rule did not violate it before its last rows either; none if that is never certain.
    #[must_use]
    pub fn rising(&self) -> Option<&[usize]> {
        self.rising.as_deref()
    }

    /// The violations of one closed window; `groups` are all its groups, as evaluated. Windows must be closed in the
    /// order of their ends.
    ///
    /// # Errors
    /// The query fails on these values.
    pub fn close(
        &self,
        groups: &RecordBatch,
        window: TimeWindow,
        history: &mut History,
    ) -> Result<Vec<Judged>, EvaluationError> {
        self.run(groups, &[window], history).map_err(|e| self.failed(&e))
    }

    /// The violations among sessions that have ended, of which `groups` has at most one per key; `windows` are theirs.
    /// Each key's sessions must be closed in the order of their ends.
    ///
    /// # Errors
    /// The query fails on these values.
    pub fn close_sessions(
        &self,
        groups: &RecordBatch,
        windows: &[TimeWindow],
        history: &mut History,
    ) -> Result<Vec<Judged>, EvaluationError> {
        let judged = self.run(groups, windows, history).map_err(|e| self.failed(&e))?;
        let of_own_window = |mut judged: Judged| {
            if let Some(window) = judged.group.and_then(|group| windows.get(group.0)) {
                judged.violation.window = Some(*window);
                judged.violation.at = self.latest(groups, judged.group?).unwrap_or(window.end).min(window.end);
            }
            Some(judged)
        };
        Ok(judged.into_iter().filter_map(of_own_window).collect())
    }

    /// The violations among running sessions, of which `groups` has at most one per key; `windows` are theirs.
    ///
    /// # Errors
    /// The query fails on these values.
    pub fn update_sessions(
        &self,
        groups: &RecordBatch,
        windows: &[TimeWindow],
    ) -> Result<Vec<Judged>, EvaluationError> {
        self.close_sessions(groups, windows, &mut self.empty_history())
    }

    /// The violations among groups of one running window; `groups` may be any of its groups.
    ///
    /// # Errors
    /// The query fails on these values.
    pub fn update(&self, groups: &RecordBatch, window: TimeWindow) -> Result<Vec<Judged>, EvaluationError> {
        self.run(groups, &[window], &mut self.empty_history()).map_err(|e| self.failed(&e))
    }

    /// What groups of a window measure, whether they violate the rule or not; at most `max`, those that come closest
    /// to their thresholds. Nothing is decided by it, and the `history` stays as it is.
    ///
    /// # Errors
    /// The query fails on these values, which it need not do with its filters.
    pub fn observe(
        &self,
        groups: &RecordBatch,
        window: TimeWindow,
        history: &History,
        max: usize,
    ) -> Result<Arc<[Observation]>, EvaluationError> {
        let rows = self.rows_of(groups, &[window], &mut history.clone(), self.unfiltered.as_ref());
        let observed = rows.and_then(|rows| self.columns.observe(&rows));
        observed.map(|observed| closest(observed, max)).map_err(|e| self.failed(&e))
    }

    /// The subject that group `row` of `groups` has.
    ///
    /// # Errors
    /// A key cannot be written as JSON.
    pub fn subject(
        &self,
        groups: &RecordBatch,
        row: GroupRef,
    ) -> Result<lictor_schemas::violation::Subject, EvaluationError> {
        self.columns.subject_of_group(groups, row).map_err(|e| self.failed(&e))
    }

    /// The group expressions that make the subject.
    pub(crate) fn subject_groups(&self) -> Vec<usize> {
        self.columns.subject_groups()
    }

    /// Changes whenever a remembered history has another meaning: 16 hex digits of a hash of what each level looks back
    /// at.
    #[must_use]
    pub fn history_id(&self) -> String {
        let specs: Vec<_> = self.levels.iter().map(|l| (&l.history, l.stage.input_schema())).collect();
        let known = self.gap_fill.as_ref().and_then(|gap_fill| gap_fill.keep_ns).map(|_| "known keys");
        let detecting = (0..).zip(&self.levels).filter_map(|(n, level)| Some((n, level.detecting.as_ref()?)));
        // A state is of the values that it was folded from, so what makes them counts, too.
        let below = |n: usize| self.levels[..n].iter().map(|level| level.stage.explain()).collect::<Vec<_>>();
        let folded: String = detecting.map(|(n, detecting)| format!(" {} {:?}", detecting.id(), below(n))).collect();
        short_hash(&format!("{specs:?}{}{folded}", known.unwrap_or_default()))
    }

    /// How many rows back the window functions look, summed over nested ones; of detectors, which look back to the
    /// beginning, after how many rows they have settled.
    #[must_use]
    pub fn rows_back(&self) -> usize {
        let settled = |level: &Level| level.detecting.as_ref().map_or(0, Detecting::rows_back);
        self.levels.iter().map(|level| level.rows_kept().max(settled(level))).sum()
    }

    /// How many rows of earlier windows are kept of each partition, summed over nested window functions.
    #[must_use]
    pub fn rows_kept(&self) -> usize {
        self.levels.iter().map(Level::rows_kept).sum()
    }

    /// The event time of a group's latest row, if the aggregate knows it.
    #[must_use]
    pub fn latest(&self, groups: &RecordBatch, row: GroupRef) -> Option<EventTime> {
        self.columns.latest_of_group(groups, row)
    }

    /// What is done with finished groups, level by level.
    pub(crate) fn explain(&self) -> Vec<Vec<String>> {
        let detected = |level: &Level| level.detecting.as_ref().map_or_else(Vec::new, Detecting::explain);
        self.levels.iter().map(|level| [detected(level), level.stage.explain()].concat()).collect()
    }

    pub(crate) fn with(mut self, head: &RuleHeader, measures: Measures, gap_fill: Option<GapFill>) -> Self {
        self.columns = self.columns.with_header(head).with_measures(measures);
        self.gap_fill = gap_fill;
        self
    }

    /// Its conditions rise with these sums.
    pub(crate) fn with_rising(self, rising: Option<Vec<usize>>) -> Self {
        Self { rising, ..self }
    }

    /// Judges groups of these windows; with more than one, violations are said to be in the first.
    fn run(&self, groups: &RecordBatch, windows: &[TimeWindow], history: &mut History) -> Result<Vec<Judged>> {
        let Some(first) = windows.first() else { return Ok(Vec::new()) };
        let rows = self.rows_of(groups, windows, history, None)?;
        self.columns.judge(&rows, groups, *first)
    }

    /// The rows of the result, of which `last` may make others than the rule.
    fn rows_of(
        &self,
        groups: &RecordBatch,
        windows: &[TimeWindow],
        history: &mut History,
        last: Option<&Stage>,
    ) -> Result<Vec<RecordBatch>> {
        let mut rows = vec![groups.clone()];
        let top = self.levels.len().saturating_sub(1);
        let (of_levels, mut others) = history.split_at_mut(self.levels.len());
        for (number, (level, remembered)) in self.levels.iter().zip(of_levels).enumerate() {
            let stage = last.filter(|_| number == top).unwrap_or(&level.stage);
            let (states, rest) = others.split_at_mut(level.detecting.as_ref().map_or(0, Detecting::histories));
            rows = level.run(stage, rows, windows, (remembered, states))?;
            others = rest;
        }
        Ok(rows)
    }

    fn failed(&self, error: &DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }
}

impl Level {
    fn rows_kept(&self) -> usize {
        self.history.iter().flat_map(|history| &history.overs).map(|over| over.rows).max().unwrap_or_default()
    }

    fn run(
        &self,
        stage: &Stage,
        rows: Vec<RecordBatch>,
        windows: &[TimeWindow],
        (remembered, states): (&mut Option<RecordBatch>, &mut [Option<RecordBatch>]),
    ) -> Result<Vec<RecordBatch>> {
        let Some(schema) = rows.first().map(RecordBatch::schema) else { return Ok(rows) };
        let now = concat_batches(&schema, &rows)?;
        let past = remembered.take().filter(|_| self.history.is_some());
        if let Some(spec) = &self.history {
            let all = past.as_ref().map(|past| concat_batches(&schema, [past, &now])).transpose()?;
            *remembered = Some(spec.trim(all.as_ref().unwrap_or(&now))?);
        }
        let input = match (&self.detecting, &past) {
            (Some(detecting), past) => detecting.run(past.as_ref(), &now, states)?,
            (None, Some(past)) => concat_batches(&schema, [past, &now])?,
            (None, None) => now,
        };
        let out = stage.run(&input)?;
        let out = match (&self.history, self.bounds) {
            (Some(_), Some(bounds)) => {
                out.iter().map(|b| of_windows(b, bounds, windows)).collect::<Result<Vec<_>>>()?
            }
            _ => out,
        };
        let schema = stage.positional();
        out.into_iter()
            .map(|b| {
                let options = RecordBatchOptions::new().with_row_count(Some(b.num_rows()));
                Ok(RecordBatch::try_new_with_options(Arc::clone(schema), b.columns().to_vec(), &options)?)
            })
            .collect()
    }
}

/// The rows of a level's output that belong to the windows being closed; the others are their past.
fn of_windows(batch: &RecordBatch, bounds: [usize; 2], windows: &[TimeWindow]) -> Result<RecordBatch> {
    let windows: HashSet<(i64, i64)> = windows.iter().map(|window| (window.start.0, window.end.0)).collect();
    let [starts, ends] = bounds.map(|column| batch.column(column).as_primitive::<TimestampNanosecondType>());
    let is_in = |(start, end): (Option<i64>, Option<i64>)| start.zip(end).is_some_and(|own| windows.contains(&own));
    let keep: BooleanArray = starts.iter().zip(ends).map(|own| Some(is_in(own))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

impl HistorySpec {
    /// The rows that some later window will look back at.
    fn trim(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut keep = vec![false; rows.num_rows()];
        self.overs.iter().try_for_each(|over| over.mark(rows, &mut keep))?;
        let kept = filter_record_batch(rows, &BooleanArray::from(keep))?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let columns = kept.columns().iter().cloned().map(compact).collect();
        Ok(RecordBatch::try_new_with_options(kept.schema(), columns, &options)?)
    }
}

impl LookBack {
    /// Marks the last rows of each partition, in the order of this `OVER`.
    fn mark(&self, rows: &RecordBatch, keep: &mut [bool]) -> Result<()> {
        let partition: Vec<_> = self.partition.iter().map(|c| (*c, SortOptions::default())).collect();
        let (keys, order) = (comparable(rows, &partition)?, comparable(rows, &self.order)?);
        let mut latest_first: Vec<usize> = (0..rows.num_rows()).collect();
        latest_first.sort_by(|a, b| order.row(*b).cmp(&order.row(*a)).then(b.cmp(a)));
        let mut taken: HashMap<&[u8], usize> = HashMap::new();
        for row in latest_first {
            let key: &[u8] = if partition.is_empty() { &[] } else { keys.row(row).data() };
            let count = taken.entry(key).or_default();
            if *count < self.rows {
                *count += 1;
                keep[row] = true;
            }
        }
        Ok(())
    }
}

/// The given columns of every row as bytes that compare as the rows do.
fn comparable(rows: &RecordBatch, columns: &[(usize, SortOptions)]) -> Result<Rows> {
    let field = |(c, options): &(usize, SortOptions)| {
        SortField::new_with_options(rows.column(*c).data_type().clone(), *options)
    };
    let converter = RowConverter::new(columns.iter().map(field).collect())?;
    let arrays: Vec<_> = columns.iter().map(|(c, _)| Arc::clone(rows.column(*c))).collect();
    Ok(converter.convert_columns(&arrays)?)
}

/// Plans everything above the aggregate. `groups` has the columns of the evaluated groups.
pub(crate) fn plan_finish(
    session: &Session,
    rule: &str,
    plan: &LogicalPlan,
    windowed: &Windowed,
    groups: &Arc<SlotTable>,
) -> Result<Result<Finish, Refusal>> {
    let checked = |w| refuse_misuse(w, windowed.spec, &windowed.groups).and_then(|()| look_back(w, &windowed.groups));
    let specs = match windowed.levels.iter().map(checked).collect::<Result<Vec<_>, _>>() {
        Ok(specs) => specs,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let columns = match ResultColumns::of_windowed(plan, windowed) {
        Ok(columns) => columns,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut levels: Vec<Level> = Vec::new();
    let mut lower = LogicalPlan::Aggregate(windowed.aggregate.clone());
    let mut table = Arc::clone(groups);
    let mut unfiltered = None;
    for i in 0..=windowed.levels.len() {
        let top = windowed.levels.get(i).map_or(plan, |w| w.input.as_ref());
        let below = i.checked_sub(1).map(|below| &windowed.levels[below]).filter(|window| has_detectors(window));
        let (detecting, piece, input) = match below {
            Some(window) => {
                let parts = cut(session, window, windowed.spec, &table)?;
                let piece = replace(top.clone(), &LogicalPlan::Window(window.clone()), &parts.plan)?;
                (Some(parts.detecting), piece, parts.table)
            }
            None => {
                let piece = replace(top.clone(), &lower, &scan_as("__input", &table, lower.schema())?)?;
                (None, piece, Arc::clone(&table))
            }
        };
        let stage = session.stage(&piece, &input)?;
        if i == windowed.levels.len() {
            let open = without_last_filters(&piece)?;
            unfiltered = open.map(|open| session.stage(&open, &input)).transpose()?;
        }
        let history = i.checked_sub(1).and_then(|below| specs[below].clone());
        let bound = |group| (0..top.schema().fields().len()).find(|c| is_group(origin_at(top, *c), group, windowed));
        let bounds = bound(GroupColumn::WindowStart).zip(bound(GroupColumn::WindowEnd)).map(<[usize; 2]>::from);
        if history.is_some() && bounds.is_none() {
            return Ok(refuse(
                "a query around OVER drops window_start or window_end",
                "select window_start and window_end in it",
                "OVER",
            ));
        }
        table = SlotTable::new(Arc::clone(stage.positional()));
        levels.push(Level { detecting, stage, history, bounds });
        lower = top.clone();
    }
    Ok(Ok(Finish { rule: rule.to_owned(), levels, unfiltered, columns, gap_fill: None, rising: None }))
}

fn is_group(origin: Origin, group: GroupColumn, windowed: &Windowed) -> bool {
    matches!(origin, Origin::Key(k) if windowed.groups.get(k) == Some(&group))
}

/// `plan` with the node equal to `target` replaced.
fn replace(plan: LogicalPlan, target: &LogicalPlan, with: &LogicalPlan) -> Result<LogicalPlan> {
    let replaced = plan.transform_down(|node| {
        if node == *target {
            return Ok(Transformed::new(with.clone(), true, TreeNodeRecursion::Stop));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(replaced.data)
}

/// What a window-function node must remember; none if it stays within one window.
fn look_back(window: &Window, groups: &[GroupColumn]) -> Result<Option<HistorySpec>, Refusal> {
    let mut overs = Vec::new();
    for expr in window.window_expr.iter().filter(|expr| !is_detector(expr)) {
        let expr = match expr {
            Expr::Alias(alias) => alias.expr.as_ref(),
            other => other,
        };
        let Expr::WindowFunction(call) = expr else { continue };
        let params = &call.params;
        if params.partition_by.iter().any(|e| is_window_bound(e, window, groups)) {
            continue;
        }
        if !params.order_by.first().is_some_and(|s| s.asc && is_window_bound(&s.expr, window, groups)) {
            let help = "order by window_end, or partition by it to stay within one window";
            return refuse("OVER must follow the windows in time", help, "OVER");
        }
        let rows = rows_back(&call.fun, &params.args, &params.window_frame)?;
        let partition =
            params.partition_by.iter().map(|e| column_of(e, window, "PARTITION")).collect::<Result<_, _>>()?;
        let order = |s: &Sort| {
            let options = SortOptions { descending: !s.asc, nulls_first: s.nulls_first };
            Ok((column_of(&s.expr, window, "ORDER")?, options))
        };
        let order = params.order_by.iter().map(order).collect::<Result<_, _>>()?;
        overs.push(LookBack { partition, order, rows });
    }
    Ok((!overs.is_empty()).then_some(HistorySpec { overs }))
}

fn is_window_bound(expr: &Expr, window: &Window, groups: &[GroupColumn]) -> bool {
    let Expr::Column(column) = expr else { return false };
    matches!(origin(&window.input, column), Origin::Key(k)
        if groups.get(k).is_some_and(|g| !matches!(g, GroupColumn::Key(_))))
}

fn column_of(expr: &Expr, window: &Window, clause: &'static str) -> Result<usize, Refusal> {
    let index = match expr {
        Expr::Column(column) => window.input.schema().maybe_index_of_column(column),
        _ => None,
    };
    match index {
        Some(index) => Ok(index),
        None => {
            let message = format!("{clause} BY in OVER must name columns");
            refuse(message, "give the expression a name in a subquery", clause)
        }
    }
}

const UNBOUNDED: &str = "the window function looks back to the beginning of time";
const ROWS_HELP: &str = "bound it: ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING, or lag(x, n)";

/// How many rows before the current one a call reads.
fn rows_back(
    fun: &WindowFunctionDefinition,
    args: &[Expr],
    frame: &datafusion::logical_expr::WindowFrame,
) -> Result<usize, Refusal> {
    match fun.name() {
        "lag" => match args.get(1) {
            None => return Ok(1),
            Some(Expr::Literal(n, _)) => return literal_rows(n),
            Some(_) => return refuse("lag's distance must be a number", "write lag(x, 3)", "OVER"),
        },
        "lead" => return refuse("lead looks into the future", "use lag on the later row", "OVER"),
        "row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" => {
            return refuse(UNBOUNDED, "partition by window_end to number the rows of one window", "OVER");
        }
        _ => {}
    }
    if frame.units != WindowFrameUnits::Rows {
        return refuse(UNBOUNDED, ROWS_HELP, "OVER");
    }
    if matches!(frame.end_bound, WindowFrameBound::Following(_)) {
        return refuse("the frame reaches into the future", ROWS_HELP, "OVER");
    }
    match &frame.start_bound {
        WindowFrameBound::Preceding(n) if n.is_null() => refuse(UNBOUNDED, ROWS_HELP, "OVER"),
        WindowFrameBound::Preceding(n) => literal_rows(n),
        WindowFrameBound::CurrentRow => Ok(0),
        WindowFrameBound::Following(_) => refuse("the frame reaches into the future", ROWS_HELP, "OVER"),
    }
}

/// A rule that looks back further than this keeps a history nobody meant.
const ROWS_BACK_MAX: usize = 100_000;

fn literal_rows(value: &ScalarValue) -> Result<usize, Refusal> {
    let rows = match value.cast_to(&arrow::datatypes::DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(n))) => usize::try_from(n).ok(),
        _ => None,
    };
    match rows {
        Some(rows) if rows <= ROWS_BACK_MAX => Ok(rows),
        _ => refuse(format!("the frame looks back {value} rows, at most {ROWS_BACK_MAX} are kept"), ROWS_HELP, "OVER"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn a_history_does_not_keep_the_buffers_of_windows_gone_by() {
        let over = LookBack { partition: vec![0], order: vec![(1, SortOptions::default())], rows: 1 };
        let spec = HistorySpec { overs: vec![over] };
        let mut history: Option<RecordBatch> = None;
        for window in 0..1_000 {
            let key: ArrayRef = Arc::new(StringViewArray::from(vec!["a key of more than twelve bytes"]));
            let end: ArrayRef = Arc::new(Int64Array::from(vec![window]));
            let now = RecordBatch::try_from_iter([("key", key), ("window_end", end)]).unwrap();
            let all = history.as_ref().map_or(now.clone(), |past| concat_batches(&now.schema(), [past, &now]).unwrap());
            history = Some(spec.trim(&all).unwrap());
        }
        let history = history.unwrap();
        assert_eq!(history.num_rows(), 1);
        assert_eq!(history.column(0).as_string_view().data_buffers().len(), 1);
    }
}
