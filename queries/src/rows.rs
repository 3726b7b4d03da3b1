//! From rows of a rule's result to violations.
//!
//! Columns with a known name carry the verdict (`result`, `reason_code`, `observed`, `threshold`, `unit`, `message`,
//! `valid_until`, `params`). Of the others, group keys (row-wise: text and boolean columns) are the subject, the rest
//! is evidence.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Exemplar, Subject, Violation, WindowKind};
use serde_json::{Map, Number, Value};

use crate::aggregation::GroupColumn;
use crate::lineage::{Origin, origin, origin_at};
use crate::observe::{Numbers, Observation};
use crate::shape::{Refusal, Windowed, refuse};

/// The row number of a group in a batch of evaluated groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupRef(pub usize);

/// A violation and the group it was found in; none where later aggregates have folded several groups into one row.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was found.
    pub violation: Violation,
    /// The heaviest group behind it.
    pub group: Option<GroupRef>,
}

const MEANINGFUL: [&str; 8] =
    ["result", "reason_code", "observed", "threshold", "unit", "message", "valid_until", "params"];

/// Which column of a result is what.
#[derive(Debug, Default)]
pub(crate) struct ResultColumns {
    verdict: HashMap<&'static str, usize>,
    subject: Vec<(usize, String)>,
    evidence: Vec<(usize, String)>,
    /// For each subject column that is a group key: its position in the evaluated groups.
    group_of_subject: Vec<Option<usize>>,
    /// Where the evaluated groups have `count`, `latest` and, if known, `exemplar` and `last`.
    measures: Measures,
    window_kind: Option<WindowKind>,
    defaults: Defaults,
}

/// Positions of the columns that lictor adds to every aggregate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measures {
    pub count: usize,
    pub latest: Option<usize>,
    pub exemplar: Option<usize>,
    pub last: Option<usize>,
}

#[derive(Debug)]
struct Defaults {
    result: PolicyResult,
    reason_code: Option<ReasonCode>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { result: PolicyResult::Warning, reason_code: None }
    }
}

/// What a row says that says no result.
pub(crate) fn implied_result(action: Action) -> PolicyResult {
    match action {
        Action::Block => PolicyResult::Blocked,
        Action::Throttle => PolicyResult::RateLimited,
        Action::Warn | Action::Notify => PolicyResult::Warning,
    }
}

impl ResultColumns {
    /// Takes over what a row does not say itself.
    pub(crate) fn with_header(mut self, header: &RuleHeader) -> Self {
        let result = implied_result(header.action);
        self.defaults = Defaults { result, reason_code: Some(header.reason_code.clone()) };
        self
    }

    pub(crate) fn with_measures(mut self, measures: Measures) -> Self {
        self.measures = measures;
        self
    }

    /// The columns of a windowed rule's result.
    pub(crate) fn of_windowed(plan: &LogicalPlan, windowed: &Windowed) -> Result<Self, Refusal> {
        let mut columns = Self { window_kind: Some(windowed.spec.kind()), ..Self::default() };
        let mut bounds = (false, false);
        let mut selected = Vec::new();
        for (i, field) in plan.schema().fields().iter().enumerate() {
            let key = match origin_at(plan, i) {
                Origin::Key(k) => windowed.groups.get(k).map(|g| (k, *g)),
                Origin::Window { .. } | Origin::Other => None,
            };
            selected.extend(key.map(|(k, _)| k));
            match key {
                Some((_, GroupColumn::WindowStart)) => bounds.0 = true,
                Some((_, GroupColumn::WindowEnd)) => bounds.1 = true,
                _ if columns.take_verdict(i, field.name()) => {}
                Some((k, GroupColumn::Key(_))) => {
                    columns.subject.push((i, field.name().clone()));
                    columns.group_of_subject.push(Some(k));
                }
                None => columns.evidence.push((i, field.name().clone())),
            }
        }
        if bounds != (true, true) {
            return refuse(
                "the rule does not say which window a row belongs to",
                "select window_start and window_end",
                "SELECT",
            );
        }
        columns.check_subject(plan, windowed, &selected)?;
        Ok(columns)
    }

    /// Every group key that still distinguishes rows must be selected, else two violations would have one subject.
    fn check_subject(&self, plan: &LogicalPlan, windowed: &Windowed, selected: &[usize]) -> Result<(), Refusal> {
        let folded = crate::lineage::top_aggregate(plan).filter(|top| **top != windowed.aggregate);
        // The planner adds columns that follow from the keys; they distinguish nothing.
        let follows = |top: &Aggregate, expr: &Expr| match expr {
            Expr::Column(column) => origin(&top.input, column) == Origin::Other,
            _ => false,
        };
        let said = |top: &Aggregate| top.group_expr.iter().filter(|expr| !follows(top, expr)).count();
        if folded.is_some_and(|top| said(top) > self.subject.len() + 2) {
            let help = "select every column of the second GROUP BY";
            return refuse("a key of the second GROUP BY is not selected", help, "SELECT");
        }
        let missing = windowed
            .groups
            .iter()
            .zip(&windowed.aggregate.group_expr)
            .enumerate()
            .find(|(k, (g, _))| matches!(g, GroupColumn::Key(_)) && !selected.contains(k));
        if let (Some((_, (_, expr))), None) = (missing, folded) {
            let message =
                format!("group key `{}` is not selected, so a violation would not say whom it is about", name_of(expr));
            return refuse(message, format!("add {} to the SELECT", name_of(expr)), "SELECT");
        }
        if self.subject.is_empty() {
            let help = "group by what a controller can act on (team, session_id, …) and select it";
            return refuse(
                "the rule has no subject: a directive with an empty selector would hit everybody",
                help,
                "SELECT",
            );
        }
        Ok(())
    }

    /// The columns of a row-wise rule's result, of which the first `visible` are the author's.
    pub(crate) fn of_rows(plan: &LogicalPlan, visible: usize) -> Result<Self, Refusal> {
        let mut columns = Self::default();
        for (i, field) in plan.schema().fields().iter().take(visible).enumerate() {
            if columns.take_verdict(i, field.name()) {
                continue;
            }
            let names = matches!(field.data_type(), DataType::Utf8View | DataType::Utf8 | DataType::Boolean);
            let list = if names { &mut columns.subject } else { &mut columns.evidence };
            list.push((i, field.name().clone()));
        }
        if columns.subject.is_empty() {
            let help = "select a text column that a controller can act on: team, request_model, session_id, …";
            return refuse(
                "the rule has no subject: a directive with an empty selector would hit everybody",
                help,
                "SELECT",
            );
        }
        Ok(columns)
    }

    fn take_verdict(&mut self, index: usize, name: &str) -> bool {
        let known = MEANINGFUL.iter().find(|m| **m == name);
        self.verdict.extend(known.map(|m| (*m, index)));
        known.is_some()
    }

    /// The violations in the rows of a windowed result.
    pub(crate) fn judge(&self, rows: &[RecordBatch], groups: &RecordBatch, window: Window) -> Result<Vec<Judged>> {
        let mut judged = Vec::new();
        for batch in rows.iter().filter(|b| b.num_rows() > 0) {
            let heaviest = self.groups_of(batch, groups)?;
            for (row, heaviest) in heaviest.into_iter().enumerate() {
                let Some(mut violation) = self.violation(batch, row)? else { continue };
                violation.window = Some(window);
                violation.at = window.end;
                if let Some(found) = heaviest {
                    violation.sample_count = Some(found.count);
                    violation.at = found.latest.map_or(window.end, |l| l.min(window.end));
                    violation.exemplars = self.exemplars(groups, found.group);
                }
                judged.push(Judged { violation, group: heaviest.map(|f| f.group) });
            }
        }
        Ok(judged)
    }

    /// One row of a result; none if it says ALLOWED.
    pub(crate) fn violation(&self, batch: &RecordBatch, row: usize) -> Result<Option<Violation>> {
        let mut evidence = object(batch, &self.evidence, row)?;
        let mut leave_out = |name: &str, what: String| drop(evidence.insert(format!("{name}_left_out"), what.into()));
        // The text may come from the telemetry: it is no word to publish, and no reason to stop the rule.
        let result = self.text(batch, "result", row)?.and_then(|text| {
            PolicyResult::parse(&text).or_else(|| {
                leave_out("result", cut(text));
                None
            })
        });
        let result = result.unwrap_or(self.defaults.result);
        if result == PolicyResult::Allowed {
            return Ok(None);
        }
        let reason_code = self.text(batch, "reason_code", row)?.and_then(|text| {
            let code = ReasonCode::parse(&text).ok();
            code.or_else(|| {
                leave_out("reason_code", cut(text));
                None
            })
        });
        let Some(reason_code) = reason_code.or_else(|| self.defaults.reason_code.clone()) else {
            return exec_err!("the row has no reason code");
        };
        let valid_until = match self.verdict.get("valid_until") {
            Some(column) => instant(batch.column(*column), row)?,
            None => None,
        };
        let params = self.text(batch, "params", row)?.and_then(|text| {
            let params = params(&text);
            params.map_err(|why| leave_out("params", why)).ok()
        });
        Ok(Some(Violation {
            subject: Subject(object(batch, &self.subject, row)?),
            result,
            reason_code,
            observed: self.number(batch, "observed", row)?,
            threshold: self.number(batch, "threshold", row)?,
            unit: self.text(batch, "unit", row)?.map(cut),
            message: self.text(batch, "message", row)?.map(cut),
            valid_until,
            params,
            window: None,
            window_kind: self.window_kind,
            sample_count: None,
            evidence,
            exemplars: Vec::new(),
            at: EventTime::MIN,
        }))
    }

    /// What the rows of a result measure; nothing of those that measure nothing.
    pub(crate) fn observe(&self, rows: &[RecordBatch]) -> Result<Vec<Observation>> {
        let mut all = Vec::new();
        for batch in rows {
            let numbers = |name| self.verdict.get(name).map(|column| Numbers::of(batch, *column)).transpose();
            let Some(observed) = numbers("observed")? else { break };
            let threshold = numbers("threshold")?;
            for row in 0..batch.num_rows() {
                let Some(observed) = observed.at(row) else { continue };
                let threshold = threshold.as_ref().and_then(|threshold| threshold.at(row));
                let unit = self.text(batch, "unit", row)?.map(cut);
                let subject = Subject(object(batch, &self.subject, row)?);
                all.push(Observation { subject, observed, threshold, unit });
            }
        }
        Ok(all)
    }

    /// The columns of the result that make the subject.
    pub(crate) fn subject_columns(&self) -> Vec<usize> {
        self.subject.iter().map(|(column, _)| *column).collect()
    }

    /// The group expressions among the subject columns.
    pub(crate) fn subject_groups(&self) -> Vec<usize> {
        self.group_of_subject.iter().flatten().copied().collect()
    }

    /// The subject of a group, as a row of the result would name it.
    pub(crate) fn subject_of_group(&self, groups: &RecordBatch, row: GroupRef) -> Result<Subject> {
        let keys = self.subject.iter().zip(&self.group_of_subject);
        let keys = keys.filter_map(|((_, name), group)| group.map(|g| (g, name.clone())));
        Ok(Subject(object(groups, &keys.collect::<Vec<_>>(), row.0)?))
    }

    /// The event time of a group's latest row.
    pub(crate) fn latest_of_group(&self, groups: &RecordBatch, row: GroupRef) -> Option<EventTime> {
        let times = groups.column(self.measures.latest?).as_primitive::<TimestampNanosecondType>();
        (!times.is_null(row.0)).then(|| EventTime(times.value(row.0)))
    }

    fn text(&self, batch: &RecordBatch, name: &str, row: usize) -> Result<Option<String>> {
        let Some(column) = self.verdict.get(name).map(|c| batch.column(*c)) else { return Ok(None) };
        if column.is_null(row) {
            return Ok(None);
        }
        Ok(Some(array_value_to_string(column, row)?))
    }

    fn number(&self, batch: &RecordBatch, name: &str, row: usize) -> Result<Option<f64>> {
        let Some(column) = self.verdict.get(name).map(|c| batch.column(*c)) else { return Ok(None) };
        if column.data_type() == &DataType::Float64 {
            return Ok((!column.is_null(row)).then(|| column.as_primitive::<Float64Type>().value(row)));
        }
        let numbers = cast(&column.slice(row, 1), &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        Ok((!numbers.is_null(0)).then(|| numbers.value(0)))
    }

    /// The row of a group that came last, if the rule speaks on update, and the one that weighs most.
    fn exemplars(&self, groups: &RecordBatch, group: GroupRef) -> Vec<Exemplar> {
        let columns = [self.measures.last, self.measures.exemplar];
        let mut exemplars: Vec<Exemplar> =
            columns.into_iter().flatten().filter_map(|column| exemplar(groups.column(column), group)).collect();
        exemplars.dedup();
        exemplars
    }
}

fn exemplar(column: &ArrayRef, group: GroupRef) -> Option<Exemplar> {
    let rows = column.as_struct();
    let (row, traces) = (group.0, rows.column(1).as_string_view());
    if rows.is_null(row) || traces.is_null(row) {
        return None;
    }
    Some(Exemplar {
        trace_id: traces.value(row).to_owned(),
        span_id: rows.column(2).as_string_view().value(row).to_owned(),
        value: rows.column(0).as_primitive::<Float64Type>().value(row),
        partition: rows.column(3).as_primitive::<Int32Type>().value(row),
        offset: rows.column(4).as_primitive::<Int64Type>().value(row),
    })
}

/// What is known of the groups that share a subject.
#[derive(Clone, Copy)]
struct Found {
    group: GroupRef,
    weight: f64,
    count: u64,
    latest: Option<EventTime>,
}

impl ResultColumns {
    /// The groups that rows of a result are about, found by the subject columns that are group keys.
    fn groups_of(&self, batch: &RecordBatch, groups: &RecordBatch) -> Result<Vec<Option<Found>>> {
        let keyed = self.subject.iter().zip(&self.group_of_subject).filter_map(|((c, _), g)| Some((*c, (*g)?)));
        let columns = |of: &RecordBatch, numbers: Vec<usize>| -> Vec<ArrayRef> {
            numbers.into_iter().map(|column| Arc::clone(of.column(column))).collect()
        };
        let (of_rows, of_groups): (Vec<usize>, Vec<usize>) = keyed.unzip();
        let (of_rows, of_groups) = (columns(batch, of_rows), columns(groups, of_groups));
        if of_groups.is_empty() {
            let all = (0..groups.num_rows()).map(|row| self.found(groups, row)).reduce(Found::with);
            return Ok(vec![all; batch.num_rows()]);
        }
        let converter = RowConverter::new(of_groups.iter().map(|k| SortField::new(k.data_type().clone())).collect())?;
        let rows = converter.convert_columns(&of_rows)?;
        let near = near(&of_rows, &of_groups)?;
        let numbers: UInt64Array = near.iter().map(|row| *row as u64).collect();
        let of_near = of_groups.iter().map(|key| take(key, &numbers, None)).collect::<Result<Vec<_>, _>>()?;
        let keys = converter.convert_columns(&of_near)?;
        let mut found: HashMap<&[u8], Found> = HashMap::new();
        for (key, row) in keys.iter().zip(near) {
            let one = self.found(groups, row);
            found.entry(key.data()).and_modify(|known| *known = known.with(one)).or_insert(one);
        }
        Ok(rows.iter().map(|row| found.get(row.data()).copied()).collect())
    }

    /// What is known of one group.
    fn found(&self, groups: &RecordBatch, row: usize) -> Found {
        let count = groups.column(self.measures.count).as_primitive::<Int64Type>().value(row);
        let weight =
            |column: usize| groups.column(column).as_struct().column(0).as_primitive::<Float64Type>().value(row);
        Found {
            group: GroupRef(row),
            weight: self.measures.exemplar.map_or(0.0, weight),
            count: u64::try_from(count).unwrap_or_default(),
            latest: self.latest_of_group(groups, GroupRef(row)),
        }
    }
}

/// The numbers of the groups whose keys have the hash of some row's keys, in their order: all that rows are about, and
/// hardly others. Most rows of a window say nothing, and its groups are many.
fn near(of_rows: &[ArrayRef], of_groups: &[ArrayRef]) -> Result<Vec<usize>> {
    let random = RandomState::default();
    let hashes = |columns: &[ArrayRef]| {
        let mut hashes = vec![0; columns.first().map_or(0, |column| column.len())];
        create_hashes(columns, &random, &mut hashes)?;
        Ok::<_, DataFusionError>(hashes)
    };
    let wanted: HashSet<u64> = hashes(of_rows)?.into_iter().collect();
    // A glance at one bit of a few kilobytes tells nearly all others.
    let mut is_wanted = vec![false; (wanted.len() * 64).next_power_of_two()];
    let bits = is_wanted.len() as u64 - 1;
    let place = |hash: &u64| usize::try_from(hash & bits).unwrap_or_default();
    wanted.iter().for_each(|hash| is_wanted[place(hash)] = true);
    let hashes = hashes(of_groups)?;
    let near = hashes.iter().enumerate().filter(|(_, hash)| is_wanted[place(hash)] && wanted.contains(hash));
    Ok(near.map(|(row, _)| row).collect())
}

impl Found {
    /// Both together, of which `other` comes later in the window.
    fn with(self, other: Self) -> Self {
        let heavier = if other.weight > self.weight { other } else { self };
        Self { count: self.count + other.count, latest: self.latest.max(other.latest), ..heavier }
    }
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(c) => c.name.clone(),
        other => other.to_string(),
    }
}

fn object(batch: &RecordBatch, columns: &[(usize, String)], row: usize) -> Result<Map<String, Value>> {
    columns.iter().map(|(c, name)| Ok((name.clone(), json(batch.column(*c), row)?))).collect()
}

fn instant(column: &ArrayRef, row: usize) -> Result<Option<EventTime>> {
    let times = cast(&column.slice(row, 1), &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let times = times.as_primitive::<TimestampNanosecondType>();
    Ok((!times.is_null(0)).then(|| EventTime(times.value(0))))
}

/// The parameters of a row. What is wrong with them may come from the telemetry, so it must not stop the rule.
fn params(text: &str) -> Result<Value, String> {
    if text.len() > EVENT_TEXT_BYTES_MAX {
        return Err(format!("{} bytes, at most {EVENT_TEXT_BYTES_MAX} fit in an event", text.len()));
    }
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

/// A cell as JSON: numbers and booleans as such, instants as RFC 3339, everything else as text.
fn json(column: &ArrayRef, row: usize) -> Result<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Int64 => Value::Number(column.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float64 => real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8View => Value::String(cut(column.as_string_view().value(row).to_owned())),
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Timestamp(..) => instant(column, row)?.map_or(Value::Null, |t| Value::String(t.to_rfc3339())),
        t if t.is_integer() => {
            let whole = cast(&column.slice(row, 1), &DataType::Int64)?;
            Value::Number(whole.as_primitive::<Int64Type>().value(0).into())
        }
        t if t.is_floating() || t.is_decimal() => {
            let cell = cast(&column.slice(row, 1), &DataType::Float64)?;
            real(cell.as_primitive::<Float64Type>().value(0))
        }
        _ => Value::String(cut(array_value_to_string(column, row)?)),
    })
}

fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// A text in an event, in bytes of UTF-8; what is longer is cut. Telemetry is other people's: one attribute of a
/// megabyte would make an event that no topic takes, and a selector is a name.
const EVENT_TEXT_BYTES_MAX: usize = 2_048;

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(EVENT_TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringViewArray;

    use super::*;

    #[test]
    fn a_text_that_fits_no_event_is_cut_between_characters() {
        let long = format!("a{}", "é".repeat(EVENT_TEXT_BYTES_MAX));
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![long.as_str(), "short"]));
        let Value::String(cut) = json(&column, 0).unwrap() else { panic!("no text") };
        assert_eq!((cut.len(), long.starts_with(&cut)), (EVENT_TEXT_BYTES_MAX - 1, true));
        assert_eq!(json(&column, 1).unwrap(), Value::String("short".to_owned()));
    }

    #[test]
    fn params_that_a_sender_could_spoil_are_left_out_with_the_reason() {
        assert_eq!(params(r#"{"retry_after_ms": 2000}"#).unwrap()["retry_after_ms"], 2000);
        assert!(params(r#"{"retry_after_ms": }"#).unwrap_err().starts_with("no JSON: "));
        let long = format!("\"{}\"", "x".repeat(EVENT_TEXT_BYTES_MAX));
        assert_eq!(params(&long).unwrap_err(), "2050 bytes, at most 2048 fit in an event");
    }
}
