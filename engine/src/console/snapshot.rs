//! One second of an instance, as it does not change any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::TopicPartition;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::rates::Second;
use super::series::{Lines, Look};
use crate::aside::{AsideCounts, LastDead};
use crate::decision::AllStanding;
use crate::http::SignalTime;
use crate::judge_stage::RuleStatus;
use crate::scan_stage::ScanCounts;
use crate::watermark::Mark;

/// What the console shows; what is large is shared with the snapshot before.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub(super) number: u64,
    pub(super) at: EventTime,
    pub(super) totals: Totals,
    pub(super) seconds: Arc<[Second]>,
    pub(super) rules: Vec<RuleStatus>,
    /// Of each of the rules.
    pub(super) figures: Vec<RuleFigures>,
    pub(super) standing: Arc<AllStanding>,
    pub(super) events: VecDeque<(u64, Arc<EnforcementEvent>)>,
    pub(super) marks: Vec<Mark>,
    pub(super) times: BTreeMap<Signal, SignalTime>,
    pub(super) lag: BTreeMap<TopicPartition, i64>,
    pub(super) aside: BTreeMap<TopicPartition, AsideCounts>,
    pub(super) letters: LastDead,
    pub(super) series: BTreeMap<String, Lines>,
    pub(super) partitions: usize,
    pub(super) shards: usize,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub records: u64,
    pub rows: u64,
    pub late_rows: u64,
    pub dead_letters: u64,
    pub events: u64,
    /// From the broker timestamp of the newest record behind the last events to when they were durable.
    pub latency: Option<Duration>,
}

impl Totals {
    pub(super) fn add(&mut self, counts: &ScanCounts) {
        self.records += counts.records;
        self.rows += counts.rows_used.values().sum::<u64>();
        self.late_rows += counts.rows_untimely.values().sum::<u64>();
        self.dead_letters += counts.dead_letters.values().sum::<u64>();
    }
}

/// What is counted of a rule besides its status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RuleFigures {
    pub events: u64,
    pub last_event: Option<EventTime>,
    /// How long scanning and judging have taken.
    pub spent: Duration,
    /// The same lately, as a share of one core.
    pub share: f64,
    pub look: Option<Look>,
}
