//! The current state row of each group, as Arrow batches that are only ever appended to.
//!
//! A changed group gets a new row in a new chunk and its number points there; the old row becomes garbage that a later
//! compaction drops. So what an epoch has changed *is* a batch (a checkpoint's delta), and going back means pointing
//! the numbers at the old rows again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

/// Compaction starts when this many times more rows are held than groups: it then copies less than half of what it
/// frees.
const GARBAGE_FACTOR: usize = 2;
/// Below this many rows compaction is not worth its allocations.
const ROWS_MIN: usize = 4096;
/// More chunks than this make gathering slow, however small they are.
const CHUNKS_MAX: usize = 1024;

/// One current row per group.
#[derive(Debug)]
pub(crate) struct StateRows {
    schema: SchemaRef,
    chunks: Vec<Vec<ArrayRef>>,
    /// Chunk and row of each group.
    at: Vec<(usize, usize)>,
    rows: usize,
}

impl StateRows {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), at: Vec::new(), rows: 0 }
    }

    /// How many groups have a row.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// Row `i` of `columns` becomes the current row of `groups[i]`; new groups must come in the order of their numbers.
    pub(crate) fn put(&mut self, columns: Vec<ArrayRef>, groups: &[usize]) -> Result<(), ArrowError> {
        let chunk = self.chunks.len();
        for (row, &group) in groups.iter().enumerate() {
            if group == self.at.len() {
                self.at.push((chunk, row));
            } else {
                self.at[group] = (chunk, row);
            }
        }
        self.rows += groups.len();
        self.chunks.push(columns);
        if self.rows > ROWS_MIN.max(GARBAGE_FACTOR * self.at.len()) || self.chunks.len() > CHUNKS_MAX {
            self.compact()?;
        }
        Ok(())
    }

    /// The current rows of `groups`, in that order.
    pub(crate) fn gather(&self, groups: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        let places: Vec<_> = groups.iter().map(|g| self.at[*g]).collect();
        self.columns_at(&places)
    }

    /// The current rows of all groups, in the order of their numbers.
    pub(crate) fn gather_all(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns_at(&self.at)
    }

    fn columns_at(&self, places: &[(usize, usize)]) -> Result<Vec<ArrayRef>, ArrowError> {
        if places.is_empty() {
            return Ok(self.schema.fields().iter().map(|f| new_empty_array(f.data_type())).collect());
        }
        let (used, places) = self.narrow(places);
        let columns = (0..self.schema.fields().len()).map(|column| {
            let chunks: Vec<&dyn Array> = used.iter().map(|chunk| self.chunks[*chunk][column].as_ref()).collect();
            interleave(&chunks, &places)
        });
        columns.collect()
    }

    /// The chunks that `places` name, and the places with their chunks numbered among those: a few groups must not cost
    /// a look at every chunk.
    fn narrow(&self, places: &[(usize, usize)]) -> (Vec<usize>, Vec<(usize, usize)>) {
        const UNUSED: usize = usize::MAX;
        let mut number =
            if places.len() * 8 < self.chunks.len() { Vec::new() } else { vec![UNUSED; self.chunks.len()] };
        let mut used = Vec::new();
        let mut narrowed = Vec::with_capacity(places.len());
        for &(chunk, row) in places {
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
        self.at.iter_mut().enumerate().for_each(|(row, place)| *place = (0, row));
        Ok(())
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let chunks = self.chunks.iter().flatten().map(|c| c.get_array_memory_size()).sum::<usize>();
        chunks + self.at.capacity() * size_of::<(usize, usize)>()
    }
}

/// String views point into the buffers of the batches they came from; a copy of just their bytes lets those go.
fn own_buffers(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Int64Type, Schema};

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
        rows.put(column(&[10, 11]), &[0, 1]).unwrap();
        rows.put(column(&[21, 32]), &[1, 2]).unwrap();
        assert_eq!(values(&rows.gather_all().unwrap()), [10, 21, 32]);
        assert_eq!(values(&rows.gather(&[2, 0]).unwrap()), [32, 10]);
    }

    #[test]
    fn compaction_changes_nothing_that_can_be_seen() {
        let mut rows = rows();
        for i in 0..3 * i64::try_from(ROWS_MIN).unwrap() {
            rows.put(column(&[i]), &[usize::try_from(i % 3).unwrap()]).unwrap();
        }
        assert!(rows.chunks.len() <= CHUNKS_MAX + 1, "{}", rows.chunks.len());
        let last = 3 * i64::try_from(ROWS_MIN).unwrap();
        assert_eq!(values(&rows.gather_all().unwrap()), [last - 3, last - 2, last - 1]);
    }

    #[test]
    fn no_rows_is_an_empty_column() {
        assert_eq!(values(&rows().gather_all().unwrap()), [0_i64; 0]);
    }
}
