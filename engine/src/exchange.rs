//! What the scan stage tells the judge stage at the end of an epoch.
//!
//! The operators on both sides know nothing of the way a shipment takes: in memory here, over a Kafka topic partitioned
//! by group key when several instances share the work.

use arrow::array::RecordBatch;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Violation;

use crate::watermark::Mark;

/// The number of a rule in its rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub usize);

/// Everything that one epoch of scanning has found.
#[derive(Debug)]
pub struct Shipment {
    /// For windowed rules: `[pane_start, key…, state…]`, one row per pane and group.
    pub partials: Vec<(RuleId, RecordBatch)>,
    /// For row-wise rules: violations in the order in which their rows were read.
    pub violations: Vec<(RuleId, Vec<Violation>)>,
    /// Where the input partitions stand.
    pub marks: Vec<Mark>,
    /// The tick of the processing clock at the end of the epoch; time goes on with it when all partitions are idle.
    pub now: EventTime,
    /// Rules that failed on this epoch's rows.
    pub failures: Vec<RuleFailure>,
}

/// A rule that cannot go on: it is quarantined, the others are not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFailure {
    /// Which rule.
    pub rule: RuleId,
    /// What went wrong.
    pub message: String,
}
