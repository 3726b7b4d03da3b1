//! Rules that are in the log and not in the rule set, which is not whole: their files may be faulty at the moment.
//!
//! Nothing is known of their columns, so their rows are kept as the bytes they are, and written again with the buckets
//! of the snapshot: whoever mends the rule finds its state as it was.

use std::collections::HashSet;

use super::log::BUCKETS;
use super::record::{RowsSaid, RuleSaid, StoreSaid};
use crate::exchange::route::Hash;

/// What is kept of such rules.
#[derive(Debug, Default)]
pub(super) struct Dormant {
    rules: Vec<RuleSaid>,
    stores: Vec<StoreSaid>,
    /// In the order in which they were written: of two rows of a group the later one counts.
    rows: Vec<(RowsSaid, Vec<u8>)>,
}

impl Dormant {
    /// Of all rows, those of these rules' stores; each batch once, where it was written last.
    pub(super) fn new(rules: Vec<RuleSaid>, stores: Vec<StoreSaid>, mut rows: Vec<(RowsSaid, Vec<u8>)>) -> Self {
        let is_of =
            |said: &RowsSaid, store: &StoreSaid| store.state == said.state && store.incarnation == said.incarnation;
        rows.retain(|(said, _)| stores.iter().any(|store| is_of(said, store)));
        let mut seen = HashSet::new();
        let mut is_last: Vec<bool> =
            rows.iter().rev().map(|(said, bytes)| seen.insert((&said.state, said.span, bytes))).collect();
        is_last.reverse();
        let mut is_last = is_last.into_iter();
        rows.retain(|_| is_last.next().unwrap_or(true));
        let rules = rules.into_iter().map(|rule| RuleSaid { is_dormant: true, ..rule }).collect();
        Self { rules, stores, rows }
    }

    /// The rules, as the manifest has them.
    pub(super) fn rules(&self) -> &[RuleSaid] {
        &self.rules
    }

    /// Their stores that no other rule reads, as the manifest has them.
    pub(super) fn stores(&self) -> &[StoreSaid] {
        &self.stores
    }

    /// The rows that lie in a bucket, in their order.
    pub(super) fn rows_of(&self, bucket: u32) -> impl Iterator<Item = &(RowsSaid, Vec<u8>)> {
        self.rows.iter().filter(move |(said, _)| Hash::of_span(&said.state, said.span).bucket(BUCKETS) == bucket)
    }
}
