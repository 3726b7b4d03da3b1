//! Sums of single records, for rules that emit on update, and where shipments of them are cut.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;

use crate::exchange::{StoreFailure, StoreId};

/// Rows of updates in one shipment: they make about one message on the way to a shard.
const ROWS_MAX: usize = 2_000;

/// What records have come to, each by itself.
#[derive(Debug, Default)]
pub(super) struct Updates {
    /// With the turn of each row.
    stores: BTreeMap<StoreId, RecordBatch>,
    /// By the turn at which they happened.
    failures: BTreeMap<u32, Vec<StoreFailure>>,
}

/// Updates of some records, which follow each other.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Who gets no more rows from the first of these records on.
    pub(super) failures: Vec<StoreFailure>,
    pub(super) updates: Vec<(StoreId, RecordBatch)>,
}

impl Updates {
    pub(super) fn is_empty(&self) -> bool {
        self.stores.is_empty() && self.failures.is_empty()
    }

    /// What the records of a segment have come to for a store, which gets no others before [`Updates::into_pieces`].
    pub(super) fn add(&mut self, store: StoreId, sums: RecordBatch) {
        let before = self.stores.insert(store, sums);
        assert!(before.is_none(), "two updates of store {} in one segment", store.0);
    }

    pub(super) fn fail(&mut self, turn: u32, failure: StoreFailure) {
        self.failures.entry(turn).or_default().push(failure);
    }

    /// In pieces of about [`ROWS_MAX`] rows, cut between records. What was before a failure is judged without it.
    pub(super) fn into_pieces(mut self) -> Vec<Piece> {
        let mut rows_of: BTreeMap<u32, usize> = self.failures.keys().map(|turn| (*turn, 0)).collect();
        for turn in self.stores.values().flat_map(turns) {
            *rows_of.entry(*turn).or_default() += 1;
        }
        let (mut pieces, mut rows, mut cut) = (Vec::new(), 0, None);
        for (turn, of_turn) in rows_of {
            if cut.is_none() || rows >= ROWS_MAX || self.failures.contains_key(&turn) {
                pieces.extend(cut.map(|from| self.piece(from, turn)));
                (rows, cut) = (0, Some(turn));
            }
            rows += of_turn;
        }
        pieces.extend(cut.map(|from| self.piece(from, u32::MAX)));
        pieces
    }

    /// The records from one turn on and before another.
    fn piece(&mut self, from: u32, to: u32) -> Piece {
        let cut = |(store, sums): (&StoreId, &RecordBatch)| {
            let turns = turns(sums);
            let [begin, end] = [from, to].map(|at| turns.partition_point(|turn| *turn < at));
            (begin < end).then(|| (*store, sums.slice(begin, end - begin)))
        };
        let updates = self.stores.iter().filter_map(cut).collect();
        Piece { failures: self.failures.remove(&from).unwrap_or_default(), updates }
    }
}

fn turns(sums: &RecordBatch) -> &[u32] {
    sums.column(sums.num_columns() - 1).as_primitive::<UInt32Type>().values()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt32Array};
    use lictor_queries::TURN;

    use super::*;

    fn of_turns(turns: &[u32]) -> RecordBatch {
        let turns: ArrayRef = Arc::new(UInt32Array::from(turns.to_vec()));
        RecordBatch::try_from_iter([(TURN, turns)]).unwrap()
    }

    /// How many failures a piece has, and of which stores which turns.
    type Cut = (usize, Vec<(usize, Vec<u32>)>);

    fn cut(updates: Updates) -> Vec<Cut> {
        let of_store = |(store, sums): (StoreId, RecordBatch)| (store.0, turns(&sums).to_vec());
        let of_piece = |piece: Piece| (piece.failures.len(), piece.updates.into_iter().map(of_store).collect());
        updates.into_pieces().into_iter().map(of_piece).collect()
    }

    #[test]
    fn what_was_before_a_failure_is_in_a_piece_before_it() {
        let mut updates = Updates::default();
        assert_eq!(cut(Updates::default()), []);
        updates.add(StoreId(0), of_turns(&[1, 3, 3, 8]));
        updates.add(StoreId(1), of_turns(&[1, 2]));
        updates.fail(3, StoreFailure { store: StoreId(1), message: "no".to_owned() });
        assert!(!updates.is_empty());
        let before = vec![(0, vec![1]), (1, vec![1, 2])];
        assert_eq!(cut(updates), [(0, before), (1, vec![(0, vec![3, 3, 8])])]);
    }

    #[test]
    fn a_failure_of_the_first_record_has_nothing_before_it() {
        let mut updates = Updates::default();
        updates.fail(0, StoreFailure { store: StoreId(1), message: "no".to_owned() });
        updates.add(StoreId(0), of_turns(&[1]));
        assert_eq!(cut(updates), [(1, vec![(0, vec![1])])]);
    }

    #[test]
    fn pieces_are_cut_between_records() {
        let mut updates = Updates::default();
        let (long, short) = ([vec![0; 1_999], vec![1; 2], vec![2; 5]].concat(), vec![1, 2]);
        updates.add(StoreId(0), of_turns(&long));
        updates.add(StoreId(1), of_turns(&short));
        let pieces = cut(updates);
        let sizes: Vec<Vec<usize>> =
            pieces.iter().map(|(_, of)| of.iter().map(|(_, rows)| rows.len()).collect()).collect();
        assert_eq!(sizes, [[2_001, 1], [5, 1]]);
    }
}
