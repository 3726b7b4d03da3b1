//! Rules over recorded telemetry: what they would have said of it, and what an edit of them changes.
//!
//! The stages are those that judge live telemetry; what differs is where records and time come from:
//!
//! ```text
//! tracks ──► merge ──► chunks ──► decode ──► replay of the rules ──► events
//! (topics,   by when   bounded    several    one for each rule set,
//!  files)    it came              at once    a thread of its own
//! ```
//!
//! **Time** goes on with the telemetry. A record has *come* when the broker got it, or, where nobody stamped it, when
//! its first item happened; within a partition never before the one in front of it. One whose stamp is far ahead of
//! most of those behind it has come with them: a single wrong clock does not put off a partition.
//! Partitions are merged by that, and it is what falls silent: so a partition without records leaves the minimum as it
//! does live, and when all of them are silent time goes on to when the next record came. After the last record it goes
//! on to the end of the windows that have begun by then, unless they are to be left open.
//!
//! Invariant: the same records give the same events in the same order. Neither how fast a broker answers nor how many
//! threads decode makes a difference, and no clock is read.

mod diff;
mod digest;
mod merge;
mod replay;
mod rows;
mod threads;

use std::sync::Arc;

use lictor_connectors::{ConnectorError, Track};
use lictor_queries::RuleSet;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::time::EventTime;

use crate::aside::DeadLetter;
use crate::decision::LimitReport;
use crate::judge_stage::RuleStatus;
use crate::pipeline::PipelineSettings;
use crate::scan_stage::ScanCounts;

pub use diff::{Difference, Move, RuleDifference, difference};
pub use digest::{Digest, EPISODES_MAX, Episode, Peak, RuleDigest};
pub use rows::{Rows, rows};
pub use threads::run;

/// What is to be replayed, and how.
pub struct Backtest {
    /// The telemetry.
    pub tracks: Vec<Box<dyn Track>>,
    /// Of which records that came before `from`, or at `to` or later, are left out.
    pub range: Range,
    /// The rules with the prices that they reckon by; each set says by itself what it finds.
    pub sets: Vec<(RuleSet, Arc<PriceTable>)>,
    /// What both are told besides.
    pub settings: PipelineSettings,
    /// Windows that have not ended with the telemetry say nothing.
    pub leaves_open: bool,
    /// How many threads decode; at least one.
    pub decoders: usize,
}

/// A stretch of time, half open; a bound that is not there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Records are read from here on: what came a while before the first event that counts fills windows that have
    /// begun by then.
    pub read_from: Option<EventTime>,
    /// Events count from here on.
    pub from: Option<EventTime>,
    /// And up to here.
    pub to: Option<EventTime>,
}

/// Sees the events of one rule set, in the order in which they would have been published.
pub trait Witness: Send {
    /// An event that counts.
    fn see(&mut self, event: &EnforcementEvent);

    /// An event that came before those that count: what it has begun may still hold when they begin.
    fn recall(&mut self, _event: &EnforcementEvent) {}
}

/// What became of the telemetry under one rule set.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// How much left the scan on which way.
    pub counts: ScanCounts,
    /// The first records and items that could not be decoded.
    pub dead: Vec<DeadLetter>,
    /// Events that came before those that count.
    pub events_before: u64,
    /// Events about what would have come after the telemetry.
    pub events_after: u64,
    /// How every rule was doing at the end.
    pub rules: Vec<RuleStatus>,
    /// Rules that have reached their limit of subjects.
    pub limits: Vec<LimitReport>,
    /// The newest row.
    pub newest: Option<EventTime>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Records that were judged.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were read and came outside of the range.
    pub outside: u64,
    /// Records whose stamp was too far ahead of those behind them: they came with these.
    pub ahead: u64,
    /// When the first and the last of those judged came, as far as anybody has said so.
    pub came: Option<(EventTime, EventTime)>,
    /// Somebody stopped it before the end.
    pub is_stopped: bool,
}

/// So many dead letters are kept to be shown; all are counted.
const DEAD_KEPT_MAX: usize = 20;

/// What came of a backtest.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was read.
    pub reading: Reading,
    /// One for each rule set, in their order.
    pub accounts: Vec<Account>,
}

/// Why there is no outcome: telemetry that could not be read would be missing in it.
pub type Failure = ConnectorError;

#[cfg(test)]
mod tests;
