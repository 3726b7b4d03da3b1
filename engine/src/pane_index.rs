//! Which number a key has in a pane.

use arrow::array::ArrayRef;
use lictor_queries::{Aggregation, EvaluationError, KeyIndex, KeyTable};

use crate::pane::PaneError;
use crate::state_rows::StateRows;

/// The numbers of the keys that a pane keeps, in the order in which they came.
#[derive(Debug)]
pub(crate) enum PaneIndex {
    /// It looks at the keys where the pane keeps them.
    Table(KeyTable),
    /// It has keys of its own, for types of which DataFusion alone knows what is equal. Keys that were looked up in
    /// vain have numbers in it, too, behind those of the pane.
    Apart(KeyIndex),
}

impl PaneIndex {
    pub(crate) fn try_new(aggregation: &Aggregation) -> Result<Self, EvaluationError> {
        Ok(match aggregation.key_table() {
            Some(table) => Self::Table(table),
            None => Self::Apart(aggregation.key_index()?),
        })
    }

    /// Of the keys that are kept; the number of each must be that of its row.
    pub(crate) fn of(stored: &StateRows, aggregation: &Aggregation) -> Result<Self, PaneError> {
        let mut index = Self::try_new(aggregation)?;
        let (keys, rows) = (stored.gather_all()?, stored.len());
        let numbers = match &mut index {
            Self::Table(table) => table.number(&keys, &|number| stored.row(number)),
            Self::Apart(index) => index.intern(&keys, rows)?,
        };
        let is_in_order = numbers.iter().enumerate().all(|(row, number)| row == *number);
        if is_in_order { Ok(index) } else { Err(PaneError::Incomplete) }
    }

    /// The number of each row's key. Keys that are not kept yet get the next ones, and must then be kept.
    pub(crate) fn number(
        &mut self,
        (keys, rows): (&[ArrayRef], usize),
        stored: &StateRows,
        aggregation: &Aggregation,
    ) -> Result<Vec<usize>, PaneError> {
        let index = match self {
            Self::Table(table) => return Ok(table.number(keys, &|number| stored.row(number))),
            Self::Apart(index) => index,
        };
        let was_searched = index.len() > stored.len();
        let numbers = index.intern(keys, rows)?;
        if was_searched && numbers.iter().any(|number| *number >= stored.len()) {
            *self = Self::of(stored, aggregation)?;
            return self.number((keys, rows), stored, aggregation);
        }
        Ok(numbers)
    }

    /// The number of each row's key, if it is kept.
    pub(crate) fn find(
        &mut self,
        (keys, rows): (&[ArrayRef], usize),
        stored: &StateRows,
    ) -> Result<Vec<Option<usize>>, PaneError> {
        Ok(match self {
            Self::Table(table) => table.find(keys, &|number| stored.row(number)),
            Self::Apart(index) => {
                let numbers = index.intern(keys, rows)?.into_iter();
                numbers.map(|number| Some(number).filter(|number| *number < stored.len())).collect()
            }
        })
    }

    /// Only these keys are kept any more; they are the first that were.
    pub(crate) fn undo(&mut self, stored: &StateRows, aggregation: &Aggregation) -> Result<(), PaneError> {
        match self {
            Self::Table(table) => table.truncate(stored.len()),
            Self::Apart(index) if index.len() > stored.len() => *self = Self::of(stored, aggregation)?,
            Self::Apart(_) => {}
        }
        Ok(())
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Table(table) => table.size_bytes(),
            Self::Apart(index) => index.size_bytes(),
        }
    }
}
