//! Sums over telemetry that was read before their rule was there.
//!
//! The windows of a rule that is new, or of which an edit has changed what it sums up, began before it did. So rows
//! that were read before are read once more:
//!
//! 1. A shard that finds a store it has no sums of leaves the store's windows open as of then ([`Warming`]); its rules
//!    say nothing, and what was said before them holds until its end. A store that was there is begun anew if a rule
//!    comes to it that was waiting elsewhere, while windows ended that the store has let go of.
//! 2. Whoever scans tells from which offset on rows are in its sums
//!    ([`Feeding`](crate::exchange::Feeding)). Rows before that offset are history.
//! 3. Once that is known of every input partition, history is summed up beside ([`BackfillPlan::stage`]), by what sums
//!    up new rows, from where the oldest window that is still open begins. The sums are merged in one commit. Windows
//!    that had ended when a rule began to wait are looked back at and not judged: that was done. All others are
//!    judged now.
//!
//! Sums do not depend on the order of rows, and the log of a topic does not change: until the commit everything can be
//! begun anew, on another instance too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lictor_connectors::{NextOffset, TopicPartition};
use lictor_queries::{EvaluationError, ScanPlan, WindowSpec};
use lictor_schemas::columns::ExtraSource;
use lictor_schemas::otlp::{Decoder, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use crate::exchange::StoreId;
use crate::exchange::route::Routes;
use crate::scan_stage::{ScanStage, Scanner, Scanning};
use crate::segment::Boundaries;
use crate::watermark::{SourceClocks, Tolerances};

/// Windows that are looked back at lie open together until history is summed up, with all of their groups. So many are
/// enough for every default of the detectors to have settled or nearly so, and for frames that people write.
pub const WINDOWS_BACK_MAX: usize = 1_000;

/// How telemetry is summed up for some stores.
#[derive(Debug)]
pub struct BackfillPlan {
    /// How rows become the sums of each store that can be filled: not those of sessions, which have no longest, nor
    /// those of joins, whose rows have met already.
    pub scans: BTreeMap<StoreId, (Table, ScanPlan)>,
    /// The columns to decode.
    pub wanted: Wanted,
    /// In-house attributes that feed columns.
    pub columns: Vec<ExtraSource>,
    /// For what has no cost.
    pub prices: Arc<PriceTable>,
    /// What topics carry.
    pub signals: BTreeMap<String, Signal>,
    /// Which rows count.
    pub tolerances: Tolerances,
    /// How sums are spread over shards.
    pub routes: Routes,
    /// How far before the moment at which a rule comes history is read.
    pub reach_ns: i64,
}

impl BackfillPlan {
    /// What sums up rows for `stores` and for nobody else.
    ///
    /// # Errors
    /// An accumulator cannot be made.
    pub fn stage(&self, stores: &BTreeSet<StoreId>) -> Result<ScanStage, EvaluationError> {
        let mut scannings = Vec::new();
        for store in stores {
            let Some((table, plan)) = self.scans.get(store) else { continue };
            let scanner = Scanner::Windowed(*store, plan.scan()?);
            scannings.push(Scanning::new(*table, scanner, false, Vec::new()));
        }
        let decoder = Decoder::new(&self.wanted, &self.columns, Arc::clone(&self.prices));
        let clocks = SourceClocks::new(self.tolerances);
        Ok(ScanStage::new(decoder, scannings, clocks, Boundaries::default(), self.signals.clone()).replaying())
    }

    /// Records that the broker got before this have no rows from `read_from` on that count.
    #[must_use]
    pub fn first_stamp(&self, read_from: EventTime) -> EventTime {
        let Tolerances { lateness_ns, future_skew_ns, .. } = self.tolerances;
        read_from.plus(-lateness_ns.saturating_add(future_skew_ns))
    }
}

/// A store that waits for sums over what was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warming {
    /// History is read from here on.
    pub read_from: EventTime,
    /// History ends at these offsets: from there on rows are in the sums of feeders.
    pub ends: BTreeMap<TopicPartition, NextOffset>,
    /// Who has told from where on it feeds the store. Sums of others may hold rows that are history: they do not count.
    pub feeders: BTreeSet<u64>,
}

impl Warming {
    /// A store with windows like `spec`, of which those that end by `at` were judged before, by rules that look back at
    /// so many of them; and up to when its windows are closed. History is read for `reach_ns` and [`WINDOWS_BACK_MAX`]
    /// at most.
    pub(crate) fn begin(at: EventTime, spec: WindowSpec, rows_back: usize, reach_ns: i64) -> (Self, EventTime) {
        let first = spec.first_ending_after(at);
        let step_ns = spec.end_after(first).0.saturating_sub(first.end.0);
        let back_ns = i64::try_from(rows_back.min(WINDOWS_BACK_MAX)).unwrap_or(i64::MAX).saturating_mul(step_ns);
        let floor = at.plus(-reach_ns);
        let closed_to = at.plus(-back_ns).max(floor);
        let oldest = spec.windows_at(closed_to).iter().map(|window| window.start).min();
        let read_from = oldest.unwrap_or(closed_to).max(floor);
        (Self { read_from, ends: BTreeMap::new(), feeders: BTreeSet::new() }, closed_to)
    }

    /// A feeder has told from where on it feeds `our` stores, or others. Returns whether the sums that have come until
    /// now are to be let go, because some rows may be missing: who reads a partition now did not say so when it began,
    /// or has other stores.
    pub(crate) fn feed(&mut self, feeder: u64, from: &[(TopicPartition, NextOffset)], are_ours: bool) -> bool {
        let is_going_on = are_ours && self.feeders.contains(&feeder);
        let is_broken = !is_going_on && from.iter().any(|(partition, _)| self.ends.contains_key(partition));
        if is_broken {
            self.ends.clear();
            self.feeders.clear();
        }
        if are_ours {
            self.feeders.insert(feeder);
            for (partition, next) in from {
                self.ends.entry(partition.clone()).or_insert(*next);
            }
        }
        is_broken
    }
}

/// History that is to be summed up: of the same partitions, up to the same offsets, for some shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The shards.
    pub shards: Vec<i32>,
    /// Their stores that wait for it.
    pub stores: BTreeSet<StoreId>,
    /// The oldest row that any of them needs.
    pub read_from: EventTime,
    /// Up to where partitions are read.
    pub ends: BTreeMap<TopicPartition, NextOffset>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn begin(spec: WindowSpec, rows_back: usize, reach_minutes: i64) -> (i64, i64) {
        let (warming, closed_to) = Warming::begin(EventTime(100 * MINUTE), spec, rows_back, reach_minutes * MINUTE);
        (warming.read_from.0 / MINUTE, closed_to.0 / MINUTE)
    }

    #[test]
    fn history_is_read_from_where_the_oldest_open_window_begins() {
        assert_eq!(begin(WindowSpec::tumbling(60 * MINUTE, 0), 0, 1_000), (60, 100));
        let hop = WindowSpec::Hop { size_ns: 30 * MINUTE, slide_ns: 10 * MINUTE, offset_ns: 0 };
        assert_eq!(begin(hop, 0, 1_000), (80, 100), "the window from 70 on has ended");
        assert_eq!(begin(hop, 3, 1_000), (50, 70), "three windows are looked back at");
        let cumulate = WindowSpec::Cumulate { size_ns: 60 * MINUTE, step_ns: 10 * MINUTE, offset_ns: 0 };
        assert_eq!(begin(cumulate, 0, 1_000), (60, 100));
    }

    #[test]
    fn it_is_not_read_further_back_than_it_may_be() {
        assert_eq!(begin(WindowSpec::tumbling(60 * MINUTE, 0), 0, 15), (85, 100));
        assert_eq!(begin(WindowSpec::tumbling(MINUTE, 0), 100_000, 15), (85, 85));
        assert_eq!(begin(WindowSpec::tumbling(MINUTE, 0), 100_000, 10_000), (-900, -900), "a thousand windows");
    }

    fn from(partitions: &[(i32, i64)]) -> Vec<(TopicPartition, NextOffset)> {
        partitions.iter().map(|(number, next)| (TopicPartition::new("spans", *number), NextOffset(*next))).collect()
    }

    #[test]
    fn history_ends_where_a_feeder_says_first_that_it_begins() {
        let (mut warming, _) = Warming::begin(EventTime(0), WindowSpec::tumbling(MINUTE, 0), 0, MINUTE);
        assert!(!warming.feed(1, &from(&[(0, 5)]), false), "nothing is known of it yet");
        assert!(!warming.feed(1, &from(&[(0, 9), (1, 1)]), true));
        assert!(!warming.feed(2, &from(&[(2, 3)]), true));
        assert!(!warming.feed(1, &from(&[(0, 12), (1, 2)]), true), "it goes on");
        assert!(!warming.feed(2, &from(&[(2, 4), (1, 2)]), true), "a partition goes from one feeder to another");
        let ends: Vec<_> = warming.ends.into_iter().collect();
        assert_eq!(ends, from(&[(0, 9), (1, 1), (2, 3)]), "from the first time on rows are in the sums");
    }

    #[test]
    fn rows_that_may_be_in_nobodys_sums_make_it_begin_anew() {
        let (mut warming, _) = Warming::begin(EventTime(0), WindowSpec::tumbling(MINUTE, 0), 0, MINUTE);
        assert!(!warming.feed(1, &from(&[(0, 9), (1, 1)]), true));
        assert!(warming.feed(2, &from(&[(1, 7)]), false), "who has other stores reads it now");
        assert_eq!((warming.ends.len(), warming.feeders.len()), (0, 0));
        assert!(!warming.feed(1, &from(&[(0, 20)]), true));
        assert!(warming.feed(3, &from(&[(0, 25)]), true), "it may have read some before it told us");
        assert_eq!(warming.ends.into_iter().collect::<Vec<_>>(), from(&[(0, 25)]));
        assert_eq!(warming.feeders, BTreeSet::from([3]));
    }
}
