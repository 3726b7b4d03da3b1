//! Two streams joined under a time bound, as pure functions over rows.
//!
//! A side of a join is summed up like a windowed aggregate whose groups are its rows: `[key…, column…, event_time,
//! kafka_partition, kafka_offset, trace_id, span_id]`, each with how many there are of it. So rows are shipped, kept,
//! checkpointed and restored as all groups are. What is here says which of them belong together, and what comes of it.

mod family;
mod plan;
mod shape;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::array::{RecordBatchOptions, new_null_array};
use arrow::compute::{and, prep_null_mask_filter};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;

use crate::EvaluationError;

pub use family::Leaves;
pub(crate) use family::{Family, Kin, KinColumns, instants};
pub(crate) use plan::{JOINED, PlannedJoin, SidePlan, plan_join};
pub use shape::{JoinKind, TimeBounds};
pub(crate) use shape::{find, with_conditions_in_place};

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinSide {
    /// The one whose rows decide.
    Left,
    /// The one that they are looked up in.
    Right,
}

impl JoinSide {
    /// Both, the left one first.
    pub const BOTH: [Self; 2] = [Self::Left, Self::Right];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// Where the keys of a side's rows have what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideLayout {
    /// So many are compared for equality; they come first.
    pub keys: usize,
    /// So many columns that are looked at come behind them, then the carried ones, the event time first.
    pub columns: usize,
}

/// A join of two streams, planned.
#[derive(Debug)]
pub struct StreamJoin {
    pub(crate) rule: String,
    pub(crate) kind: JoinKind,
    pub(crate) bounds: TimeBounds,
    pub(crate) pane_ns: i64,
    pub(crate) is_distinct: bool,
    pub(crate) layouts: [SideLayout; 2],
    /// Of spans that are joined with those below them.
    pub(crate) kin: Option<KinColumns>,
    /// All conditions, over joined rows.
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
    /// `[left column…, right column…, event_time, kafka_partition, kafka_offset, trace_id, span_id]`, the last five
    /// carried by every row; the event time is when the row came to be.
    pub(crate) schema: SchemaRef,
}

impl StreamJoin {
    /// What comes out.
    #[must_use]
    pub fn kind(&self) -> JoinKind {
        self.kind
    }

    /// Whether left rows that may have had a partner nobody has seen are told all the same: of two rows that say the
    /// same one too many is better than one too few.
    #[must_use]
    pub fn is_distinct(&self) -> bool {
        self.is_distinct
    }

    /// How many times each left row counts, from the states of their groups.
    #[must_use]
    pub fn left_times(&self, states: &[ArrayRef]) -> Vec<i64> {
        let counts = multiplicities(states);
        if self.is_distinct { vec![1; counts.len()] } else { counts.values().to_vec() }
    }

    /// How far apart two rows may be.
    #[must_use]
    pub fn bounds(&self) -> TimeBounds {
        self.bounds
    }

    /// The length of the panes in which rows are kept, in nanoseconds: rows without a partner are known at the end of
    /// theirs.
    #[must_use]
    pub fn pane_ns(&self) -> i64 {
        self.pane_ns
    }

    /// A hash of what is compared for equality, for each row of a side.
    ///
    /// # Errors
    /// A key has a type without a hash.
    pub fn key_hashes(&self, side: JoinSide, rows: &[ArrayRef]) -> Result<Vec<u64>, EvaluationError> {
        let keys = &rows[..self.layouts[side as usize].keys];
        let mut hashes = vec![0; keys.first().map_or(0, |key| key.len())];
        create_hashes(keys, &RandomState::default(), &mut hashes).map_err(|e| self.failed(&e))?;
        Ok(hashes)
    }

    /// The event time of each row of a side, in nanoseconds.
    #[must_use]
    pub fn times<'a>(&self, side: JoinSide, rows: &'a [ArrayRef]) -> &'a [i64] {
        let SideLayout { keys, columns } = self.layouts[side as usize];
        rows[keys + columns].as_primitive::<TimestampNanosecondType>().values()
    }

    /// Pairs of rows, and which of them meet the conditions.
    ///
    /// # Errors
    /// A condition fails on a pair.
    pub fn pairs(&self, left: &[ArrayRef], right: &[ArrayRef]) -> Result<(RecordBatch, BooleanArray), EvaluationError> {
        let (left_at, right_at) = (self.times(JoinSide::Left, left), self.times(JoinSide::Right, right));
        let at = left_at.iter().zip(right_at).map(|(left, right)| *left.max(right)).collect();
        // Days and nanoseconds do not compare as lengths of time everywhere: the bounds hold whatever is said.
        let TimeBounds { from_ns, to_ns } = self.bounds;
        let apart = left_at.iter().zip(right_at).map(|(left, right)| right.saturating_sub(*left));
        let is_near: BooleanArray = apart.map(|apart| Some((from_ns..=to_ns).contains(&apart))).collect();
        let pairs = self.joined(left, Some(right), at)?;
        let meets = self.predicate.evaluate(&pairs).and_then(|meets| meets.into_array(pairs.num_rows()));
        let meets = meets.map_err(|e| self.failed(&e))?;
        let meets = match meets.as_boolean() {
            meets if meets.null_count() > 0 => prep_null_mask_filter(meets),
            meets => meets.clone(),
        };
        let meets = and(&meets, &is_near).map_err(|e| self.failed(&e.into()))?;
        Ok((pairs, meets))
    }

    /// Rows of the left side with no partner beside them, as of when it is known: when the bound has passed.
    ///
    /// # Errors
    /// None that the columns of the side do not have.
    pub fn alone(&self, left: &[ArrayRef]) -> Result<RecordBatch, EvaluationError> {
        let known_at = |at: &i64| at.saturating_add(self.bounds.to_ns.max(0));
        self.joined(left, None, self.times(JoinSide::Left, left).iter().map(known_at).collect())
    }

    fn joined(
        &self,
        left: &[ArrayRef],
        right: Option<&[ArrayRef]>,
        at: Vec<i64>,
    ) -> Result<RecordBatch, EvaluationError> {
        let rows = at.len();
        let [of_left, of_right] = self.layouts;
        let mut columns: Vec<ArrayRef> = left[of_left.keys..of_left.keys + of_left.columns].to_vec();
        match right {
            Some(right) => columns.extend_from_slice(&right[of_right.keys..of_right.keys + of_right.columns]),
            None => {
                let nulls = self.schema.fields()[of_left.columns..].iter().take(of_right.columns);
                columns.extend(nulls.map(|field| new_null_array(field.data_type(), rows)));
            }
        }
        columns.push(Arc::new(TimestampNanosecondArray::from(at)));
        columns.extend_from_slice(&left[of_left.keys + of_left.columns + 1..]);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| self.failed(&e.into()))
    }

    fn failed(&self, error: &DataFusionError) -> EvaluationError {
        EvaluationError { rule: self.rule.clone(), message: error.strip_backtrace() }
    }
}

/// How many times each row of a side is there, from the states of its groups.
#[must_use]
pub fn multiplicities(states: &[ArrayRef]) -> &Int64Array {
    states[0].as_primitive()
}
