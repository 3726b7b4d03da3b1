//! `GAP FILL`: keys that a window has no rows of are in it all the same, with empty aggregates.
//!
//! So silence can be judged: `HAVING count(*) = 0`. Which keys there ought to be is said by a reference table
//! (`GAP FILL FROM teams`), or by the past (`GAP FILL FOR INTERVAL '1 day'`: those that had rows since). What is known
//! of the past is remembered as one more history: `[key…, last_seen]`, one row per key, the end of the last window with
//! rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::compute::{cast, concat, filter, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use lictor_schemas::time::Window;

use crate::EvaluationError;
use crate::aggregation::{Aggregation, GroupColumn, KeyIndex};
use crate::compact::compact;
use crate::frame::Emission;
use crate::shape::{Refusal, Windowed, refuse};
use crate::slot::Slot;
use crate::window_spec::WindowSpec;

/// Which keys there ought to be.
#[derive(Debug)]
pub struct GapFill {
    /// Rows of a reference table, whose columns are the keys in their order.
    pub(crate) expected: Option<Slot>,
    /// How long a key is kept that has no rows any more.
    pub(crate) keep_ns: Option<i64>,
}

/// Which rows of key columns are judged here, of as many as there are: the others are another shard's.
pub type IsOurs<'a> = &'a dyn Fn(&[ArrayRef], usize) -> Result<BooleanArray, arrow::error::ArrowError>;

impl GapFill {
    /// Whether there may be keys without rows, given what is remembered.
    #[must_use]
    pub fn may_fill(&self, known: Option<&RecordBatch>) -> bool {
        self.expected.is_some() || known.is_some_and(|known| known.num_rows() > 0)
    }

    /// The key columns of a window, those without rows behind the `rows` that are `present`, unless the window is not
    /// whole; `known` is remembered from earlier windows and updated.
    ///
    /// # Errors
    /// A reference table's column does not become the key's type.
    pub fn fill(
        &self,
        aggregation: &Aggregation,
        (present, rows): (&[ArrayRef], usize),
        (window, is_whole): (Window, bool),
        known: &mut Option<RecordBatch>,
        is_ours: IsOurs<'_>,
    ) -> Result<Vec<ArrayRef>, EvaluationError> {
        let failed = |error: DataFusionError| EvaluationError {
            rule: aggregation.rule.clone(),
            message: format!("GAP FILL: {}", error.strip_backtrace()),
        };
        let mut index = aggregation.key_index()?;
        index.intern(present, rows)?;
        let mut keys = present.to_vec();
        let all = [self.of_the_past(aggregation, known.as_ref(), window), self.expected(aggregation, is_ours)];
        for missing in all.into_iter().filter(|_| is_whole) {
            if let Some((missing, count)) = missing.map_err(failed)? {
                keys = with_unseen(&mut index, keys, &missing, count).map_err(failed)?;
            }
        }
        if self.keep_ns.is_some() {
            *known = self.remember(aggregation, (present, rows), window, known.as_ref()).map_err(failed)?;
        }
        Ok(keys)
    }

    /// The remembered keys that are still kept when `window` closes.
    fn of_the_past(
        &self,
        aggregation: &Aggregation,
        known: Option<&RecordBatch>,
        window: Window,
    ) -> Result<Option<(Vec<ArrayRef>, usize)>> {
        let (Some(known), Some(keep_ns)) = (known, self.keep_ns) else { return Ok(None) };
        let width = aggregation.key_schema().fields().len();
        let seen = known.column(width).as_primitive::<TimestampNanosecondType>();
        let is_kept: BooleanArray =
            seen.values().iter().map(|seen| Some(seen.saturating_add(keep_ns) >= window.end.0)).collect();
        let kept = known.columns()[..width].iter().map(|column| filter(column, &is_kept)).collect::<Result<_, _>>()?;
        Ok(Some((kept, is_kept.true_count())))
    }

    /// The keys of the reference table that are judged here.
    fn expected(&self, aggregation: &Aggregation, is_ours: IsOurs<'_>) -> Result<Option<(Vec<ArrayRef>, usize)>> {
        let Some(rows) = self.expected.as_ref().and_then(Slot::rows) else { return Ok(None) };
        let schema = aggregation.key_schema();
        let typed = rows.columns().iter().zip(schema.fields()).map(|(column, key)| cast(column, key.data_type()));
        let typed: Vec<ArrayRef> = typed.collect::<Result<_, _>>()?;
        let ours = is_ours(&typed, rows.num_rows())?;
        let typed = typed.iter().map(|column| filter(column, &ours)).collect::<Result<_, _>>()?;
        Ok(Some((typed, ours.true_count())))
    }

    fn remember(
        &self,
        aggregation: &Aggregation,
        (present, rows): (&[ArrayRef], usize),
        window: Window,
        known: Option<&RecordBatch>,
    ) -> Result<Option<RecordBatch>> {
        let schema = known_schema(aggregation);
        let mut columns = present.to_vec();
        columns.push(Arc::new(TimestampNanosecondArray::from(vec![window.end.0; rows])));
        let Some(known) = known else { return Ok(Some(RecordBatch::try_new(schema, columns)?)) };
        let width = present.len();
        let mut index = aggregation.key_index().map_err(|e| DataFusionError::Execution(e.to_string()))?;
        let failed = |error: EvaluationError| DataFusionError::Execution(error.to_string());
        index.intern(present, rows).map_err(failed)?;
        let numbers = index.intern(&known.columns()[..width], known.num_rows()).map_err(failed)?;
        let seen = known.column(width).as_primitive::<TimestampNanosecondType>();
        let keep_ns = self.keep_ns.unwrap_or_default();
        let is_kept =
            |(number, seen): (&usize, &i64)| Some(*number >= rows && seen.saturating_add(keep_ns) >= window.end.0);
        let is_kept: BooleanArray = numbers.iter().zip(seen.values()).map(is_kept).collect();
        let columns = columns.iter().zip(known.columns()).map(|(new, old)| {
            let kept = filter(old, &is_kept)?;
            concat(&[new.as_ref(), kept.as_ref()]).map(compact)
        });
        Ok(Some(RecordBatch::try_new(schema, columns.collect::<Result<_, _>>()?)?))
    }
}

/// `[key…, last_seen]`
fn known_schema(aggregation: &Aggregation) -> SchemaRef {
    let keys = aggregation.key_schema();
    let seen = Arc::new(Field::new("last_seen", DataType::Timestamp(TimeUnit::Nanosecond, None), false));
    Arc::new(Schema::new(keys.fields().iter().cloned().chain([seen]).collect::<Vec<_>>()))
}

/// `keys`, which `index` has numbered, and behind them those of `more` that are not among them.
fn with_unseen(index: &mut KeyIndex, keys: Vec<ArrayRef>, more: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>> {
    let mut next = index.len();
    let numbers = index.intern(more, count).map_err(|error| DataFusionError::Execution(error.to_string()))?;
    let mut unseen = Vec::new();
    for (row, number) in (0_u64..).zip(numbers) {
        if number == next {
            next += 1;
            unseen.push(row);
        }
    }
    let unseen = UInt64Array::from(unseen);
    let column = |(old, new): (&ArrayRef, &ArrayRef)| {
        let new = take(new, &unseen, None)?;
        Ok(concat(&[old.as_ref(), new.as_ref()])?)
    };
    keys.iter().zip(more).map(column).collect()
}

/// The columns of a reference table that are a rule's group keys, in their order.
pub(crate) fn key_columns(name: &str, table: &Schema, windowed: &Windowed) -> Result<Vec<usize>, Refusal> {
    let mut columns = Vec::new();
    let keys = windowed.groups.iter().zip(&windowed.aggregate.group_expr).zip(windowed.aggregate.schema.fields());
    for ((_, key), field) in keys.filter(|((group, _), _)| matches!(group, GroupColumn::Key(_))) {
        let key = match key {
            Expr::Column(column) => column.name.clone(),
            other => other.schema_name().to_string(),
        };
        let Ok(column) = table.index_of(&key) else {
            let message = format!("reference table `{name}` has no column `{key}`, which the rule groups by");
            return refuse(message, "let the table have a column of every group key", "GAP");
        };
        let (has, wants) = (table.field(column).data_type(), field.data_type());
        if !same_type(has, wants) {
            let message = format!("column `{key}` of `{name}` is {has}, and the rule groups by {wants}");
            return refuse(message, "declare the column's type in CREATE EXTERNAL TABLE", "GAP");
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Whether values of two types are the same key.
fn same_type(a: &DataType, b: &DataType) -> bool {
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    a == b || (is_text(a) && is_text(b))
}

/// Gaps are filled in windows that have ended.
pub(crate) fn refuse_misplaced(is_said: bool, windowed: Option<&Windowed>, emission: Emission) -> Option<Refusal> {
    if !is_said {
        return None;
    }
    let refused: Result<(), Refusal> = match (windowed.map(|windowed| windowed.spec), emission) {
        (None, _) => refuse("GAP FILL has no meaning for a rule without a window", "leave it out", "GAP"),
        (Some(WindowSpec::Session { .. }), _) => {
            let help = "use TUMBLE: a session without rows does not exist";
            refuse("GAP FILL does not go with SESSION", help, "GAP")
        }
        (Some(WindowSpec::ZonedCalendar { .. }), _) => {
            let help = "write one rule per zone, with the zone in single quotes";
            refuse("GAP FILL cannot know the zone of a key without rows", help, "GAP")
        }
        (Some(_), Emission::OnUpdate) => {
            let help = "write EMIT ON CLOSE: that a key has no rows is known when its window has ended";
            refuse("GAP FILL does not go with EMIT ON UPDATE", help, "GAP")
        }
        (Some(_), Emission::OnClose) => Ok(()),
    };
    refused.err()
}
