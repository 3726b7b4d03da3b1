//! The current state row of each group, as Arrow batches that are only ever appended to.
//!
//! A changed group gets a new row in a new chunk and its number points there; the old row becomes garbage that a later
//! compaction drops. So going back to the last commit means pointing the numbers at the old rows again.
//!
//! Invariant: between two calls of [`StateRows::commit`] no chunk moves, so places noted in between stay good.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::ipc::own_buffers;
use crate::pane::to_u32;

/// Compaction starts when this many times more rows are held than groups: it then copies less than half of what it
/// frees.
const GARBAGE_FACTOR: usize = 2;
/// Below this many rows compaction is not worth its allocations.
const ROWS_MIN: usize = 4096;
/// More chunks than this make gathering slow, however small they are.
const CHUNKS_MAX: usize = 1024;
/// A chunk of one row takes kilobytes; with fewer chunks than this they are not worth a copy.
const CHUNKS_MIN: usize = 64;
/// Copying so many groups costs about as much as having one more chunk.
const GROUPS_PER_CHUNK: usize = 64;

/// One current row per group.
#[derive(Debug)]
pub(crate) struct StateRows {
    schema: SchemaRef,
    chunks: Vec<Vec<ArrayRef>>,
    /// Chunk and row of each group.
    at: Vec<Place>,
    rows: usize,
    committed: Committed,
}

/// Chunk, and row in it.
type Place = (u32, u32);

/// A group that has not got a row yet.
const NOWHERE: Place = (u32::MAX, u32::MAX);

/// What was there at the last commit.
#[derive(Debug, Default)]
struct Committed {
    groups: usize,
    chunks: usize,
    rows: usize,
    /// Where groups of then had their rows that have others now.
    moved: Vec<(u32, Place)>,
}

impl StateRows {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), at: Vec::new(), rows: 0, committed: Committed::default() }
    }

    /// How many groups have a row.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// Row `i` of `columns` becomes the current row of `groups[i]`; new groups must come in the order of their numbers.
    pub(crate) fn put(&mut self, columns: Vec<ArrayRef>, groups: &[usize]) {
        let chunk = to_u32(self.chunks.len());
        for (row, &group) in (0..).zip(groups) {
            if group == self.at.len() {
                self.at.push((chunk, row));
                continue;
            }
            let before = std::mem::replace(&mut self.at[group], (chunk, row));
            if group < self.committed.groups && (before.0 as usize) < self.committed.chunks {
                self.committed.moved.push((to_u32(group), before));
            }
        }
        self.rows += groups.len();
        self.chunks.push(columns);
    }

    /// Makes room for groups that will get their first rows in any order.
    pub(crate) fn reserve(&mut self, groups: usize) {
        self.at.resize(groups.max(self.at.len()), NOWHERE);
    }

    /// Whether a group has got a row.
    pub(crate) fn has(&self, group: usize) -> bool {
        self.at.get(group).is_some_and(|place| *place != NOWHERE)
    }

    /// As [`StateRows::put`], for rows read back from a log: in any order of groups, with gaps until all is read.
    pub(crate) fn put_restored(&mut self, columns: Vec<ArrayRef>, groups: &[usize]) {
        self.reserve(groups.iter().max().map_or(0, |last| last + 1));
        self.put(columns, groups);
    }

    /// Whether a restored log has given every group a row.
    pub(crate) fn is_complete(&self) -> bool {
        !self.at.contains(&NOWHERE)
    }

    /// What is there now stays.
    pub(crate) fn commit(&mut self) -> Result<(), ArrowError> {
        let chunks_max = (self.at.len() / GROUPS_PER_CHUNK).clamp(CHUNKS_MIN, CHUNKS_MAX);
        if self.rows > ROWS_MIN.max(GARBAGE_FACTOR * self.at.len()) || self.chunks.len() > chunks_max {
            self.compact()?;
        }
        let (groups, chunks, rows) = (self.at.len(), self.chunks.len(), self.rows);
        self.committed = Committed { groups, chunks, rows, moved: Vec::new() };
        Ok(())
    }

    /// Goes back to the last commit.
    pub(crate) fn undo(&mut self) {
        for (group, place) in std::mem::take(&mut self.committed.moved) {
            self.at[group as usize] = place;
        }
        self.at.truncate(self.committed.groups);
        self.chunks.truncate(self.committed.chunks);
        self.rows = self.committed.rows;
    }

    /// The columns of a row.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many columns a row has.
    pub(crate) fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// The columns of a chunk, and in it the current row of a group.
    pub(crate) fn row(&self, group: usize) -> (&[ArrayRef], usize) {
        let (chunk, row) = self.at[group];
        (&self.chunks[chunk as usize], row as usize)
    }

    /// The current rows of `groups`, in that order.
    pub(crate) fn gather(&self, groups: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        let places: Vec<_> = groups.iter().map(|g| self.at[*g]).collect();
        self.columns_at(&places, 0..self.width())
    }

    /// One column of the current rows of `groups`, in that order.
    pub(crate) fn gather_column(&self, column: usize, groups: &[usize]) -> Result<ArrayRef, ArrowError> {
        let places: Vec<_> = groups.iter().map(|g| self.at[*g]).collect();
        Ok(self.columns_at(&places, column..column + 1)?.swap_remove(0))
    }

    /// The current rows of all groups, in the order of their numbers.
    pub(crate) fn gather_all(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        match self.chunks.as_slice() {
            [only] if self.rows == self.at.len() && (0..).zip(&self.at).all(|(row, at)| *at == (0, row)) => {
                Ok(only.clone())
            }
            _ => self.columns_at(&self.at, 0..self.width()),
        }
    }

    fn columns_at(&self, places: &[Place], columns: Range<usize>) -> Result<Vec<ArrayRef>, ArrowError> {
        if places.is_empty() {
            return Ok(self.schema.fields()[columns].iter().map(|f| new_empty_array(f.data_type())).collect());
        }
        let (used, places) = self.narrow(places);
        let columns = columns.map(|column| {
            let chunks: Vec<&dyn Array> = used.iter().map(|chunk| self.chunks[*chunk][column].as_ref()).collect();
            interleave(&chunks, &places)
        });
        columns.collect()
    }

    /// The chunks that `places` name, and the places with their chunks numbered among those: a few groups must not cost
    /// a look at every chunk.
    fn narrow(&self, places: &[Place]) -> (Vec<usize>, Vec<(usize, usize)>) {
        const UNUSED: usize = usize::MAX;
        let mut number =
            if places.len() * 8 < self.chunks.len() { Vec::new() } else { vec![UNUSED; self.chunks.len()] };
        let mut used = Vec::new();
        let mut narrowed = Vec::with_capacity(places.len());
        for (chunk, row) in places.iter().map(|(chunk, row)| (*chunk as usize, *row as usize)) {
            let known = match number.get(chunk) {
                Some(&n) => Some(n).filter(|n| *n != UNUSED),
                None => used.iter().position(|u| *u == chunk),
            };
            let n = known.unwrap_or(used.len());
            if n == used.len() {
                used.push(chunk);
                if let Some(slot) = number.get_mut(chunk) {
                    *slot = n;
                }
            }
            narrowed.push((n, row));
        }
        (used, narrowed)
    }

    fn compact(&mut self) -> Result<(), ArrowError> {
        let columns = self.gather_all()?;
        self.chunks = vec![columns.iter().map(own_buffers).collect()];
        self.rows = self.at.len();
        (0..).zip(&mut self.at).for_each(|(row, place)| *place = (0, row));
        Ok(())
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let chunks = self.chunks.iter().flatten().map(|c| c.get_array_memory_size()).sum::<usize>();
        chunks + self.at.capacity() * size_of::<Place>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    fn rows() -> StateRows {
        StateRows::new(Arc::new(Schema::new(vec![Field::new("s0", DataType::Int64, true)])))
    }

    fn column(values: &[i64]) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from(values.to_vec()))]
    }

    fn values(columns: &[ArrayRef]) -> Vec<i64> {
        columns[0].as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn the_last_row_put_is_the_current_one() {
        let mut rows = rows();
        rows.put(column(&[10, 11]), &[0, 1]);
        rows.put(column(&[21, 32]), &[1, 2]);
        assert_eq!(values(&rows.gather_all().unwrap()), [10, 21, 32]);
        assert_eq!(values(&rows.gather(&[2, 0]).unwrap()), [32, 10]);
    }

    #[test]
    fn compaction_changes_nothing_that_can_be_seen() {
        let mut rows = rows();
        for i in 0..3 * i64::try_from(ROWS_MIN).unwrap() {
            rows.put(column(&[i]), &[usize::try_from(i % 3).unwrap()]);
        }
        rows.commit().unwrap();
        assert!(rows.chunks.len() <= CHUNKS_MAX + 1, "{}", rows.chunks.len());
        let last = 3 * i64::try_from(ROWS_MIN).unwrap();
        assert_eq!(values(&rows.gather_all().unwrap()), [last - 3, last - 2, last - 1]);
    }

    #[test]
    fn undo_goes_back_to_the_last_commit_and_not_further() {
        let mut rows = rows();
        rows.put(column(&[10, 11]), &[0, 1]);
        rows.commit().unwrap();
        rows.put(column(&[20, 22]), &[0, 2]);
        rows.put(column(&[30]), &[0]);
        rows.undo();
        assert_eq!(values(&rows.gather_all().unwrap()), [10, 11]);
        rows.put(column(&[41, 42]), &[1, 2]);
        rows.commit().unwrap();
        rows.undo();
        assert_eq!(values(&rows.gather_all().unwrap()), [10, 41, 42]);
    }

    #[test]
    fn restored_rows_may_come_in_any_order() {
        let mut rows = rows();
        rows.put_restored(column(&[12]), &[2]);
        assert!(!rows.is_complete());
        rows.put_restored(column(&[10, 11]), &[0, 1]);
        rows.put_restored(column(&[22]), &[2]);
        assert!(rows.is_complete());
        assert_eq!(values(&rows.gather_all().unwrap()), [10, 11, 22]);
    }

    #[test]
    fn no_rows_is_an_empty_column() {
        assert_eq!(values(&rows().gather_all().unwrap()), [0_i64; 0]);
    }
}
