//! What the scan stage tells the judge stage at the end of an epoch.
//!
//! The operators on both sides know nothing of the way a shipment takes: in memory it goes as it is; over a Kafka topic
//! it is split by group key ([`route`]) and written as bytes ([`parcel`]).

pub mod parcel;
pub mod route;

use arrow::array::RecordBatch;
use lictor_connectors::{NextOffset, TopicPartition};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Violation;

use crate::watermark::Mark;

/// The number of a rule in its rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub usize);

/// The number of a store in its rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub usize);

/// Everything that one epoch of scanning has found.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// For stores: `[pane_start, key…, state…]`, one row per pane and group, and `pane_end` behind them where it does
    /// not follow from the start.
    pub partials: Vec<(StoreId, RecordBatch)>,
    /// For stores whose rules speak on update, which are judged before all else here: as `partials`, of several
    /// records, with [`TURN`](lictor_queries::TURN) as the last column. Rows of one turn are of one record, turns come
    /// in their order, and a group has at most one row in each.
    pub updates: Vec<(StoreId, RecordBatch)>,
    /// For row-wise rules: violations in the order in which their rows were read.
    pub violations: Vec<(RuleId, Vec<Violation>)>,
    /// Input partitions that there are: windows wait for those that nobody has heard of yet.
    pub sources: Vec<(TopicPartition, Signal)>,
    /// Where input partitions stand; one that is not named stands where it stood.
    pub marks: Vec<Mark>,
    /// Whoever has summed up: one instance is one feeder.
    pub feeder: u64,
    /// From which offsets on rows are in these sums and in those that follow; told from time to time.
    pub feeding: Option<Feeding>,
    /// The tick of the processing clock at the end of the epoch; time goes on with it when all partitions are idle.
    pub now: EventTime,
    /// When the broker has got the newest record of the epoch.
    pub newest: Option<EventTime>,
    /// Rules that failed on this epoch's rows.
    pub failures: Vec<RuleFailure>,
    /// Stores whose sums failed on them: all their rules do.
    pub store_failures: Vec<StoreFailure>,
}

impl Shipment {
    /// Nothing, at `now`.
    #[must_use]
    pub fn empty(now: EventTime) -> Self {
        Self {
            partials: Vec::new(),
            updates: Vec::new(),
            violations: Vec::new(),
            sources: Vec::new(),
            marks: Vec::new(),
            feeder: 0,
            feeding: None,
            now,
            newest: None,
            failures: Vec::new(),
            store_failures: Vec::new(),
        }
    }

    /// Whether it says nothing but the time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let has_rows = !(self.partials.is_empty() && self.updates.is_empty() && self.violations.is_empty());
        let has_failures = !(self.failures.is_empty() && self.store_failures.is_empty());
        let has_places = !(self.sources.is_empty() && self.marks.is_empty()) || self.feeding.is_some();
        !(has_rows || has_failures || has_places)
    }
}

/// From where on a feeder feeds the stores of its rules. Rows before these offsets are not in this shipment and in no
/// later one of that feeder, rows from there on in no earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feeding {
    /// Which stores those are: [`Names::fingerprint`](parcel::Names::fingerprint).
    pub stores: u64,
    /// The input partitions that it reads.
    pub from: Vec<(TopicPartition, NextOffset)>,
}

/// A rule that cannot go on: it is quarantined, the others are not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFailure {
    /// Which rule.
    pub rule: RuleId,
    /// What went wrong.
    pub message: String,
}

/// Sums that cannot go on: every rule that reads them is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    /// Which store.
    pub store: StoreId,
    /// What went wrong.
    pub message: String,
}
