//! One span of event time of one rule: the state of all its groups.

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use lictor_queries::{Aggregation, EvaluationError, KeyIndex};
use lictor_schemas::time::Window;

use crate::state_rows::StateRows;

/// The groups of a pane (or, for rules that emit on update, of a window).
#[derive(Debug)]
pub(crate) struct Pane {
    index: KeyIndex,
    keys: StateRows,
    states: StateRows,
    /// Groups with a new state since they were last looked at, each once.
    changed: Vec<usize>,
    is_changed: Vec<bool>,
    /// Groups that violate the rule now (update rules only).
    violating: Vec<bool>,
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
    /// The given rows of a partial batch `[pane_start, key…, state…]` with `key_count` keys.
    pub(crate) fn select(batch: &RecordBatch, rows: &[u64], key_count: usize) -> Result<Self, ArrowError> {
        let all = rows.len() == batch.num_rows();
        let indices = UInt64Array::from(if all { Vec::new() } else { rows.to_vec() });
        let pick = |c: &ArrayRef| if all { Ok(std::sync::Arc::clone(c)) } else { take(c.as_ref(), &indices, None) };
        let mut keys = batch.columns()[1..].iter().map(pick).collect::<Result<Vec<_>, _>>()?;
        let states = keys.split_off(key_count);
        Ok(Self { keys, states, rows: rows.len() })
    }

    fn take(&self, rows: &[usize]) -> Result<Self, ArrowError> {
        let indices: UInt64Array = rows.iter().map(|r| *r as u64).collect();
        let pick = |c: &ArrayRef| take(c.as_ref(), &indices, None);
        let keys = self.keys.iter().map(pick).collect::<Result<_, _>>()?;
        let states = self.states.iter().map(pick).collect::<Result<_, _>>()?;
        Ok(Self { keys, states, rows: rows.len() })
    }
}

impl Pane {
    pub(crate) fn try_new(aggregation: &Aggregation) -> Result<Self, EvaluationError> {
        Ok(Self {
            index: aggregation.key_index()?,
            keys: StateRows::new(aggregation.key_schema()),
            states: StateRows::new(aggregation.state_schema()),
            changed: Vec::new(),
            is_changed: Vec::new(),
            violating: Vec::new(),
        })
    }

    /// How many groups it has.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.index.size_bytes() + self.keys.size_bytes() + self.states.size_bytes()
    }

    /// Merges partial rows; every key occurs at most once in them.
    pub(crate) fn absorb(&mut self, aggregation: &Aggregation, partial: &PartialRows) -> Result<(), PaneError> {
        let known = self.states.len();
        let groups = self.index.intern(&partial.keys, partial.rows)?;
        let (old, new): (Vec<usize>, Vec<usize>) = (0..partial.rows).partition(|row| groups[*row] < known);
        if !new.is_empty() {
            let rows = partial.take(&new)?;
            let numbers: Vec<usize> = new.iter().map(|r| groups[*r]).collect();
            self.keys.put(rows.keys, &numbers)?;
            self.states.put(rows.states, &numbers)?;
        }
        if !old.is_empty() {
            let numbers: Vec<usize> = old.iter().map(|r| groups[*r]).collect();
            let identity: Vec<usize> = (0..numbers.len()).collect();
            let (before, delta) = (self.states.gather(&numbers)?, partial.take(&old)?.states);
            let merged = aggregation.merge(&[&before, &delta], &[&identity, &identity], numbers.len())?;
            self.states.put(merged, &numbers)?;
        }
        self.is_changed.resize(self.states.len(), false);
        self.violating.resize(self.states.len(), false);
        for group in groups {
            if !std::mem::replace(&mut self.is_changed[group], true) {
                self.changed.push(group);
            }
        }
        Ok(())
    }

    /// The groups changed since the last call, in the order in which they changed first.
    pub(crate) fn take_changed(&mut self) -> Vec<usize> {
        self.changed.iter().for_each(|g| self.is_changed[*g] = false);
        std::mem::take(&mut self.changed)
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

    /// Records whether a group violates the rule; returns whether it did before.
    pub(crate) fn set_violating(&mut self, group: usize, violates: bool) -> bool {
        std::mem::replace(&mut self.violating[group], violates)
    }

    /// Finishes all groups of a window that is made of `panes`.
    pub(crate) fn close(panes: &[&Self], aggregation: &Aggregation, window: Window) -> Result<RecordBatch, PaneError> {
        if let [pane] = panes {
            return Ok(aggregation.evaluate(&pane.keys.gather_all()?, &pane.states.gather_all()?, window)?);
        }
        let mut whole = Self::try_new(aggregation)?;
        for pane in panes {
            let (keys, states) = (pane.keys.gather_all()?, pane.states.gather_all()?);
            whole.absorb(aggregation, &PartialRows { keys, states, rows: pane.len() })?;
        }
        let (keys, states) = (whole.keys.gather_all()?, whole.states.gather_all()?);
        Ok(aggregation.evaluate(&keys, &states, window)?)
    }
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
}
