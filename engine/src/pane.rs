//! One span of event time of one rule: the state of all its groups.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use lictor_queries::{Aggregation, EvaluationError};
use lictor_schemas::time::Window;

use crate::pane_index::PaneIndex;
use crate::state_rows::StateRows;

/// The groups of a pane (or, for rules that emit on update, of a window).
#[derive(Debug)]
pub(crate) struct Pane {
    index: PaneIndex,
    keys: StateRows,
    states: StateRows,
    /// Groups with a new state since they were last looked at.
    changed: Numbers,
    /// Which rules each group violates now, a bit for each reader of the store; none of those that are not listed.
    violating: Vec<u64>,
    /// Groups with something new since the last commit.
    touched: Numbers,
    /// Which groups began or ceased to violate a rule since the last commit, and what they violated before, in that
    /// order.
    flipped: Vec<(usize, u64)>,
}

/// Numbers of groups in the order in which they came, each once.
#[derive(Debug, Default)]
struct Numbers {
    listed: Vec<u32>,
    is_listed: Vec<bool>,
}

impl Numbers {
    fn add(&mut self, number: usize) {
        if number >= self.is_listed.len() {
            self.is_listed.resize(number + 1, false);
        }
        if !std::mem::replace(&mut self.is_listed[number], true) {
            self.listed.push(to_u32(number));
        }
    }

    fn listed(&self) -> Vec<usize> {
        self.listed.iter().map(|number| *number as usize).collect()
    }

    fn take(&mut self) -> Vec<usize> {
        let taken = self.listed();
        self.clear();
        taken
    }

    fn size_bytes(&self) -> usize {
        self.listed.capacity() * size_of::<u32>() + self.is_listed.capacity()
    }

    fn clear(&mut self) {
        self.listed.iter().for_each(|number| self.is_listed[*number as usize] = false);
        self.listed = Vec::new();
    }
}

/// The number of a group, or its place, in half the room.
pub(crate) fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or_else(|_| unreachable!("{number} groups in one pane do not fit in memory"))
}

/// Rows of a partial batch that fall into one pane.
#[derive(Clone, Debug)]
pub(crate) struct PartialRows {
    /// `[key…]`
    pub keys: Vec<ArrayRef>,
    /// `[state…]`
    pub states: Vec<ArrayRef>,
    /// How many.
    pub rows: usize,
}

impl PartialRows {
    /// The given rows of a partial batch `[pane_start, key…, state…]`, which may have the pane's end behind them.
    pub(crate) fn select(batch: &RecordBatch, rows: &[u64], aggregation: &Aggregation) -> Result<Self, ArrowError> {
        let [key_count, state_count] =
            [aggregation.key_schema(), aggregation.state_schema()].map(|schema| schema.fields().len());
        let all = rows.len() == batch.num_rows();
        let indices = UInt64Array::from(if all { Vec::new() } else { rows.to_vec() });
        let pick = |c: &ArrayRef| if all { Ok(Arc::clone(c)) } else { take(c.as_ref(), &indices, None) };
        let mut keys = batch.columns()[1..=key_count + state_count].iter().map(pick).collect::<Result<Vec<_>, _>>()?;
        let states = keys.split_off(key_count);
        Ok(Self { keys, states, rows: rows.len() })
    }

    pub(crate) fn take(&self, rows: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self { keys: take_rows(&self.keys, rows)?, states: take_rows(&self.states, rows)?, rows: rows.len() })
    }
}

fn take_rows(columns: &[ArrayRef], rows: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
    let is_all = columns.first().is_some_and(|column| column.len() == rows.len()) && rows.is_sorted();
    if is_all {
        return Ok(columns.to_vec());
    }
    let indices: UInt64Array = rows.iter().map(|r| *r as u64).collect();
    columns.iter().map(|column| take(column.as_ref(), &indices, None)).collect()
}

/// Groups as they would be with some more rows.
#[derive(Debug)]
pub(crate) struct Weighed {
    /// Their numbers, each once.
    pub numbers: Vec<usize>,
    /// For each of the rows: the place of its group in `numbers`.
    pub places: Vec<usize>,
    states: Vec<ArrayRef>,
}

impl Pane {
    pub(crate) fn try_new(aggregation: &Aggregation) -> Result<Self, EvaluationError> {
        Ok(Self {
            index: PaneIndex::try_new(aggregation)?,
            keys: StateRows::new(aggregation.key_schema()),
            states: StateRows::new(aggregation.state_schema()),
            changed: Numbers::default(),
            violating: Vec::new(),
            touched: Numbers::default(),
            flipped: Vec::new(),
        })
    }

    /// A pane as a log had it. The numbers of its groups are those of the log; `readers` says which bit each reader of
    /// then has now, if it still reads.
    pub(crate) fn restored(
        aggregation: &Aggregation,
        rows: RestoredRows,
        readers: &[Option<usize>],
    ) -> Result<Self, PaneError> {
        let (keys, states, mut violating) = rows.placed()?;
        let of_reader = |bits: u64, (then, now): (usize, &Option<usize>)| {
            now.filter(|_| bits >> then & 1 == 1).map_or(0, |now| 1_u64 << now)
        };
        for bits in &mut violating {
            *bits = readers.iter().enumerate().map(|reader| of_reader(*bits, reader)).fold(0, |all, bit| all | bit);
        }
        if violating.iter().all(|bits| *bits == 0) {
            violating = Vec::new();
        }
        let index = PaneIndex::of(&keys, aggregation)?;
        let mut pane = Self { index, keys, states, violating, ..Self::try_new(aggregation)? };
        pane.keys.commit()?;
        pane.states.commit()?;
        Ok(pane)
    }

    /// The keys of the given groups.
    pub(crate) fn keys_of(&self, groups: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.keys.gather(groups)
    }

    /// The states of the given groups.
    pub(crate) fn states_of(&self, groups: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.states.gather(groups)
    }

    /// The times in a state column of the given groups, in nanoseconds.
    pub(crate) fn times(&self, column: usize, groups: &[usize]) -> Result<Vec<i64>, ArrowError> {
        let times = self.states.gather_column(column, groups)?;
        Ok(times.as_primitive::<TimestampNanosecondType>().values().to_vec())
    }

    /// The groups that have these keys.
    pub(crate) fn look_up(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<usize>>, PaneError> {
        self.index.find((keys, rows), &self.keys)
    }

    /// How many groups it has.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let numbers = [&self.changed, &self.touched].map(Numbers::size_bytes).iter().sum::<usize>();
        let violating = self.violating.capacity() * size_of::<u64>();
        self.index.size_bytes() + self.keys.size_bytes() + self.states.size_bytes() + numbers + violating
    }

    /// Merges partial rows; every key occurs at most once in them. Returns the numbers of their groups.
    pub(crate) fn absorb(&mut self, aggregation: &Aggregation, partial: &PartialRows) -> Result<Vec<usize>, PaneError> {
        let groups = self.number(aggregation, partial)?;
        let (old, new): (Vec<usize>, Vec<usize>) = (0..partial.rows).partition(|row| self.states.has(groups[*row]));
        if !new.is_empty() {
            let numbers: Vec<usize> = new.iter().map(|r| groups[*r]).collect();
            self.states.put(take_rows(&partial.states, &new)?, &numbers);
        }
        if !old.is_empty() {
            let numbers: Vec<usize> = old.iter().map(|r| groups[*r]).collect();
            let identity: Vec<usize> = (0..numbers.len()).collect();
            let (before, delta) = (self.states.gather(&numbers)?, take_rows(&partial.states, &old)?);
            let merged = aggregation.merge(&[&before, &delta], &[&identity, &identity], numbers.len())?;
            self.states.put(merged, &numbers);
        }
        groups.iter().for_each(|group| self.touched.add(*group));
        Ok(groups)
    }

    /// These groups have changed: somebody is to look at them.
    pub(crate) fn note_changed(&mut self, groups: &[usize]) {
        groups.iter().for_each(|group| self.changed.add(*group));
    }

    /// The number of each row's group; keys that are new get the next ones.
    fn number(&mut self, aggregation: &Aggregation, partial: &PartialRows) -> Result<Vec<usize>, PaneError> {
        let known = self.keys.len();
        let groups = self.index.number((&partial.keys, partial.rows), &self.keys, aggregation)?;
        let mut first = Vec::new();
        for (row, group) in groups.iter().enumerate() {
            if *group == known + first.len() {
                first.push(row);
            }
        }
        if !first.is_empty() {
            let numbers: Vec<usize> = (known..known + first.len()).collect();
            self.keys.put(take_rows(&partial.keys, &first)?, &numbers);
            self.states.reserve(self.keys.len());
        }
        Ok(groups)
    }

    /// What the states of groups would be with these rows, in which keys may occur more than once: they are merged in
    /// their order.
    pub(crate) fn weigh(&mut self, aggregation: &Aggregation, partial: &PartialRows) -> Result<Weighed, PaneError> {
        let groups = self.number(aggregation, partial)?;
        let (mut numbers, mut place_of) = (Vec::new(), HashMap::new());
        let mut place = |group: &usize| {
            *place_of.entry(*group).or_insert_with(|| {
                numbers.push(*group);
                numbers.len() - 1
            })
        };
        let places: Vec<usize> = groups.iter().map(&mut place).collect();
        let old: Vec<usize> = (0..numbers.len()).filter(|place| self.states.has(numbers[*place])).collect();
        let of_old: Vec<usize> = old.iter().map(|place| numbers[*place]).collect();
        let before = self.states.gather(&of_old)?;
        let states = aggregation.merge(&[&before, &partial.states], &[&old, &places], numbers.len())?;
        Ok(Weighed { numbers, places, states })
    }

    /// Finishes groups as they would be.
    pub(crate) fn evaluate_weighed(
        &self,
        aggregation: &Aggregation,
        weighed: &Weighed,
        window: Window,
    ) -> Result<RecordBatch, PaneError> {
        Ok(aggregation.evaluate(&self.keys.gather(&weighed.numbers)?, &weighed.states, window)?)
    }

    /// The chosen ones of the weighed groups are from now on what they would be. They do not count as changed: nobody
    /// needs to look at them.
    pub(crate) fn settle(&mut self, weighed: Weighed, is_chosen: &[bool]) -> Result<(), PaneError> {
        let Weighed { numbers, states, .. } = weighed;
        let chosen: Vec<usize> = (0..numbers.len()).filter(|place| is_chosen[*place]).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let states = if chosen.len() == numbers.len() { states } else { take_rows(&states, &chosen)? };
        let numbers: Vec<usize> = chosen.into_iter().map(|place| numbers[place]).collect();
        numbers.iter().for_each(|group| self.touched.add(*group));
        self.states.put(states, &numbers);
        Ok(())
    }

    /// Whether a group violates the rule of any reader, as was recorded last.
    pub(crate) fn is_violating_any(&self, group: usize) -> bool {
        self.violated_by(group) != 0
    }

    fn violated_by(&self, group: usize) -> u64 {
        self.violating.get(group).copied().unwrap_or_default()
    }

    /// The groups changed since the last call, in the order in which they changed first.
    pub(crate) fn take_changed(&mut self) -> Vec<usize> {
        self.changed.take()
    }

    /// The groups with something new since the last commit.
    pub(crate) fn touched(&self) -> Vec<usize> {
        self.touched.listed()
    }

    /// What is there now stays.
    pub(crate) fn commit(&mut self) -> Result<(), PaneError> {
        self.touched.clear();
        self.flipped.clear();
        self.keys.commit()?;
        Ok(self.states.commit()?)
    }

    /// Goes back to the last commit.
    pub(crate) fn undo(&mut self, aggregation: &Aggregation) -> Result<(), PaneError> {
        self.changed.clear();
        self.touched.clear();
        for (group, was_violating) in std::mem::take(&mut self.flipped).into_iter().rev() {
            self.violating[group] = was_violating;
        }
        self.keys.undo();
        self.states.undo();
        self.violating.truncate(self.keys.len());
        self.index.undo(&self.keys, aggregation)
    }

    /// The given groups as a log keeps them: `[group, violating, key…, state…]`.
    pub(crate) fn logged(&self, groups: &[usize]) -> Result<RecordBatch, PaneError> {
        let number = |group: &usize| u32::try_from(*group).unwrap_or(u32::MAX);
        let numbers: UInt32Array = groups.iter().map(number).collect();
        let violating: UInt64Array = groups.iter().map(|g| self.violated_by(*g)).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(violating)];
        columns.extend(self.keys.gather(groups)?);
        columns.extend(self.states.gather(groups)?);
        Ok(RecordBatch::try_new(logged_schema(self.keys.schema(), self.states.schema()), columns)?)
    }

    /// Finishes the given groups.
    pub(crate) fn evaluate(
        &self,
        aggregation: &Aggregation,
        groups: &[usize],
        window: Window,
    ) -> Result<RecordBatch, PaneError> {
        Ok(aggregation.evaluate(&self.keys.gather(groups)?, &self.states.gather(groups)?, window)?)
    }

    /// Keys and states of the given groups.
    pub(crate) fn rows(&self, groups: &[usize]) -> Result<PartialRows, PaneError> {
        Ok(PartialRows { keys: self.keys.gather(groups)?, states: self.states.gather(groups)?, rows: groups.len() })
    }

    /// Whether a group violates the rule of a reader, as was recorded last.
    pub(crate) fn is_violating(&self, group: usize, reader: usize) -> bool {
        self.violated_by(group) >> reader & 1 == 1
    }

    /// Records whether a group violates the rule of a reader; returns whether it did before.
    pub(crate) fn set_violating(&mut self, group: usize, reader: usize, violates: bool) -> bool {
        let before = self.is_violating(group, reader);
        if before != violates {
            self.touched.add(group);
            self.flipped.push((group, self.violated_by(group)));
            self.violating.resize(self.keys.len(), 0);
            self.violating[group] ^= 1 << reader;
        }
        before
    }

    /// All its groups.
    pub(crate) fn all(&self) -> Result<PartialRows, PaneError> {
        let (keys, states) = (self.keys.gather_all()?, self.states.gather_all()?);
        Ok(PartialRows { keys, states, rows: self.len() })
    }
}

/// The columns of a pane's rows in a log: `[group, violating, key…, state…]`.
pub(crate) fn logged_schema(keys: &Schema, states: &Schema) -> SchemaRef {
    let own = [Field::new("group", DataType::UInt32, false), Field::new("violating", DataType::UInt64, false)];
    let rule = keys.fields().iter().chain(states.fields()).map(Arc::clone);
    Arc::new(Schema::new(own.into_iter().map(Arc::new).chain(rule).collect::<Vec<_>>()))
}

/// Why a pane could not take or finish rows; the rule is quarantined.
#[derive(Debug, thiserror::Error)]
pub enum PaneError {
    /// The rule's own expressions fail.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// Columns that do not fit each other.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// A restored log does not have every group of a pane exactly once.
    #[error("the state log does not have every group exactly once")]
    Incomplete,
    /// One group's state fits no message.
    #[error("the state of one group has {bytes} bytes, at most {max} fit into the state log")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What fits.
        max: usize,
    },
}

/// The rows of a pane while they are read back from a log, as they come: a number that is not a group's must not cost
/// room for all below it.
#[derive(Debug)]
pub(crate) struct RestoredRows {
    keys: StateRows,
    states: StateRows,
    batches: Vec<Vec<ArrayRef>>,
}

impl RestoredRows {
    pub(crate) fn new(aggregation: &Aggregation) -> Self {
        let (keys, states) = (StateRows::new(aggregation.key_schema()), StateRows::new(aggregation.state_schema()));
        Self { keys, states, batches: Vec::new() }
    }

    /// Adds rows as [`Pane::logged`] gave them; the last row of a group counts.
    pub(crate) fn put(&mut self, columns: &[ArrayRef]) {
        self.batches.push(columns.to_vec());
    }

    /// Keys, states, and the violated rules of each group.
    ///
    /// # Errors
    /// A group is missing.
    fn placed(self) -> Result<(StateRows, StateRows, Vec<u64>), PaneError> {
        let Self { mut keys, mut states, batches } = self;
        let rows: usize = batches.iter().map(|columns| columns[0].len()).sum();
        let mut violating = Vec::new();
        for columns in batches {
            let (head, rest) = columns.split_at(2);
            let (of_keys, of_states) = rest.split_at(keys.width());
            let numbers = head[0].as_primitive::<UInt32Type>().values();
            let numbers: Vec<usize> = numbers.iter().map(|n| *n as usize).collect();
            if numbers.iter().any(|number| *number >= rows) {
                return Err(PaneError::Incomplete);
            }
            for (number, violates) in numbers.iter().zip(head[1].as_primitive::<UInt64Type>().values()) {
                if *number >= violating.len() {
                    violating.resize(number + 1, 0);
                }
                violating[*number] = *violates;
            }
            keys.put_restored(of_keys.to_vec(), &numbers);
            states.put_restored(of_states.to_vec(), &numbers);
        }
        let is_complete = keys.is_complete() && states.is_complete();
        if is_complete { Ok((keys, states, violating)) } else { Err(PaneError::Incomplete) }
    }
}
