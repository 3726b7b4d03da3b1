//! Which number a key has, of keys that are kept elsewhere.
//!
//! DataFusion's index keeps every key once more, and a hash and a number beside it. Whoever has the keys already needs
//! only where to look: eight bytes a slot, of which at most three in four are taken.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, TimeUnit, TimestampNanosecondType};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::aggregation::Aggregation;

/// A slot of the table: half of a key's hash, and its number.
type Slot = (u32, u32);

const FREE: Slot = (0, u32::MAX);

/// The numbers of distinct keys: 0, 1, 2, … in order of appearance. The keys themselves are kept by the caller.
#[derive(Debug)]
pub struct KeyTable {
    slots: Vec<Slot>,
    len: usize,
}

/// Where the key of a number is: its columns and its row in them.
pub type Stored<'a> = dyn Fn(usize) -> (&'a [ArrayRef], usize) + 'a;

impl Aggregation {
    /// An empty table of this aggregate's keys; none if they have a type of which DataFusion alone knows what is equal,
    /// as numbers with a point that floats: then a [`KeyIndex`](crate::KeyIndex) does.
    #[must_use]
    pub fn key_table(&self) -> Option<KeyTable> {
        is_plain(&self.key_schema()).then(KeyTable::default)
    }
}

fn is_plain(keys: &Schema) -> bool {
    let is_plain = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Utf8View
                | DataType::Boolean
                | DataType::Int32
                | DataType::Int64
                | DataType::Timestamp(TimeUnit::Nanosecond, _)
        )
    };
    !keys.fields().is_empty() && keys.fields().iter().all(|field| is_plain(field.data_type()))
}

impl Default for KeyTable {
    fn default() -> Self {
        Self { slots: vec![FREE; 16], len: 0 }
    }
}

impl KeyTable {
    /// The number of each row's key; unseen keys get the next numbers, and are the caller's to keep.
    pub fn number(&mut self, keys: &[ArrayRef], stored: &Stored<'_>) -> Vec<usize> {
        let known = self.len;
        let hashes = hashes(keys);
        let likely = self.likely(keys, &hashes, stored);
        let mut first = Vec::new();
        let mut number = |row: usize| {
            let is_it = |number: usize| match number.checked_sub(known) {
                Some(new) => is_same((keys, row), (keys, first[new])),
                None => is_same((keys, row), stored(number)),
            };
            match self.place(hashes[row], is_it) {
                Ok(number) => number,
                Err(free) => {
                    self.slots[free] = (hashes[row], to_u32(self.len));
                    self.len += 1;
                    first.push(row);
                    self.grow();
                    self.len - 1
                }
            }
        };
        likely.into_iter().enumerate().map(|(row, likely)| likely.unwrap_or_else(|| number(row))).collect()
    }

    /// The number of each row's key, if it has one.
    #[must_use]
    pub fn find(&self, keys: &[ArrayRef], stored: &Stored<'_>) -> Vec<Option<usize>> {
        let hashes = hashes(keys);
        let search = |row: usize| self.place(hashes[row], |number| is_same((keys, row), stored(number))).ok();
        let likely = self.likely(keys, &hashes, stored);
        likely.into_iter().enumerate().map(|(row, likely)| likely.or_else(|| search(row))).collect()
    }

    /// Forgets all keys but the first ones.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.rebuild(self.slots.len());
        }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// The number of each row's key, if the first with its hash has that key. Hardly ever another has it, and step by
    /// step for all rows memory is waited for many times at once instead of one by one.
    fn likely(&self, keys: &[ArrayRef], hashes: &[u32], stored: &Stored<'_>) -> Vec<Option<usize>> {
        let first: Vec<Option<usize>> = hashes.iter().map(|hash| self.place(*hash, |_| true).ok()).collect();
        let places: Vec<Place<'_>> = first.iter().map(|number| number.map(stored)).collect();
        let mut is_it = vec![true; places.len()];
        for (column, key) in keys.iter().enumerate() {
            let stored = (column, places.as_slice());
            match key.data_type() {
                DataType::Utf8View => {
                    keep_same(key.as_string_view(), stored, &mut is_it, |a, i, b, j| a.value(i) == b.value(j));
                }
                DataType::Int64 => {
                    let keys = key.as_primitive::<Int64Type>();
                    keep_same(keys, stored, &mut is_it, |a, i, b, j| a.value(i) == b.value(j));
                }
                _ => {
                    let is_same = |row: usize| places[row].is_some_and(|place| is_same((keys, row), place));
                    (0..).zip(&mut is_it).for_each(|(row, is_it)| *is_it &= is_same(row));
                }
            }
        }
        first.into_iter().zip(is_it).map(|(number, is_it)| number.filter(|_| is_it)).collect()
    }

    /// The number with this hash that is the one; else the slot where it would be.
    fn place(&self, hash: u32, is_it: impl Fn(usize) -> bool) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (of_slot, number) = self.slots[at];
            if number == FREE.1 {
                return Err(at);
            }
            if of_slot == hash && is_it(number as usize) {
                return Ok(number as usize);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        if self.len * 4 > self.slots.len() * 3 {
            self.rebuild(self.slots.len() * 2);
        }
    }

    fn rebuild(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        for (hash, number) in before.into_iter().filter(|(_, number)| (*number as usize) < self.len) {
            if let Err(free) = self.place(hash, |_| false) {
                self.slots[free] = (hash, number);
            }
        }
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or_else(|_| unreachable!("{number} keys do not fit in memory"))
}

fn hashes(keys: &[ArrayRef]) -> Vec<u32> {
    let mut hashes = vec![0; keys.first().map_or(0, |key| key.len())];
    create_hashes(keys, &RandomState::default(), &mut hashes)
        .unwrap_or_else(|error| unreachable!("plain columns of one length are hashed: {error}"));
    let half = |hash: &u64| u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or_default();
    hashes.iter().map(half).collect()
}

/// Where the key of a row is kept, if it is.
type Place<'a> = Option<(&'a [ArrayRef], usize)>;

/// Keeps those rows of which this column is the same as that column where they are kept.
fn keep_same<A: Array + 'static>(
    keys: &A,
    (column, places): (usize, &[Place<'_>]),
    keep: &mut [bool],
    is_same: impl Fn(&A, usize, &A, usize) -> bool,
) {
    for (row, (keep, place)) in keep.iter_mut().zip(places).enumerate() {
        let stored =
            place.filter(|_| *keep).and_then(|(keys, at)| Some((keys[column].as_any().downcast_ref::<A>()?, at)));
        *keep = stored.is_some_and(|(stored, at)| match (keys.is_null(row), stored.is_null(at)) {
            (false, false) => is_same(keys, row, stored, at),
            (a, b) => a && b,
        });
    }
}

/// Whether two keys are the same; nothing is the same as nothing.
fn is_same((a, row_a): (&[ArrayRef], usize), (b, row_b): (&[ArrayRef], usize)) -> bool {
    a.iter().zip(b).all(|(a, b)| match (a.is_null(row_a), b.is_null(row_b)) {
        (false, false) => match a.data_type() {
            DataType::Utf8View => a.as_string_view().value(row_a) == b.as_string_view().value(row_b),
            DataType::Boolean => a.as_boolean().value(row_a) == b.as_boolean().value(row_b),
            DataType::Int32 => a.as_primitive::<Int32Type>().value(row_a) == b.as_primitive::<Int32Type>().value(row_b),
            DataType::Int64 => a.as_primitive::<Int64Type>().value(row_a) == b.as_primitive::<Int64Type>().value(row_b),
            _ => {
                let times = |keys: &ArrayRef, row| keys.as_primitive::<TimestampNanosecondType>().value(row);
                times(a, row_a) == times(b, row_b)
            }
        },
        (a, b) => a && b,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use fastrand::Rng;

    use super::*;

    fn keys(rows: &[(Option<String>, i64)]) -> Vec<ArrayRef> {
        let texts: StringViewArray = rows.iter().map(|row| row.0.as_deref()).collect();
        let numbers: Int64Array = rows.iter().map(|row| Some(row.1)).collect();
        vec![Arc::new(texts), Arc::new(numbers)]
    }

    /// Whatever comes, also after some keys were forgotten: numbers are those of the first appearance.
    #[test]
    fn keys_are_numbered_in_the_order_of_their_appearance() {
        let mut random = Rng::with_seed(7);
        let mut table = KeyTable::default();
        let mut known: Vec<(Option<String>, i64)> = Vec::new();
        for round in 0..60 {
            let text = |n: i64| (n % 7 > 0).then(|| format!("{n}, a text of more than twelve bytes"));
            let rows: Vec<_> = (0..40).map(|_| (text(random.i64(0..30)), random.i64(0..10))).collect();
            let stored = keys(&known);
            let found = table.find(&keys(&rows), &|number| (&stored, number));
            let numbers = table.number(&keys(&rows), &|number| (&stored, number));
            for ((row, found), number) in rows.iter().zip(found).zip(numbers) {
                let before = known.iter().position(|key| key == row);
                assert_eq!(found, before.filter(|number| *number < stored[0].len()));
                assert_eq!(number, before.unwrap_or(known.len()));
                if before.is_none() {
                    known.push(row.clone());
                }
            }
            if round % 5 == 0 {
                known.truncate(stored[0].len());
                table.truncate(known.len());
            }
        }
        assert!(known.len() > 200, "{}", known.len());
    }
}
