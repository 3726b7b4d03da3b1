//! One rule set over the telemetry, with time that the telemetry brings along.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lictor_connectors::TopicPartition;
use lictor_queries::{RuleKind, RuleSet, WindowSpec};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::time::EventTime;

use super::{Account, DEAD_KEPT_MAX, Range, Witness};
use crate::decoding::Decoded;
use crate::pipeline::{Epoch, Pipeline, PipelineSettings};
use crate::watermark::Tolerances;

/// In one step time goes on by this much at most: gaps are filled in a thousand windows of a step, live ones come
/// every quarter of a second.
const STEP_NS: i64 = 10 * 60 * 1_000_000_000;

/// When so long nobody has said anything and nothing is open, nothing will be said before the next record: more than a
/// week, for what is only said on some of its days.
const QUIET_NS: i64 = 8 * 24 * 60 * 60 * 1_000_000_000;

/// Decoded records in a row, and when the first and the last of them came.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub decoded: Decoded,
    pub came: (EventTime, EventTime),
}

/// Judges telemetry that was recorded.
pub(super) struct Replay<'a> {
    pipeline: Pipeline,
    tolerances: Tolerances,
    /// What windows the rules have.
    specs: Vec<WindowSpec>,
    /// How long a row of a joined stream is waited for.
    reach_ns: i64,
    range: Range,
    /// The virtual clock.
    now: EventTime,
    /// Set once there is no more telemetry: the newest row.
    end: Option<EventTime>,
    witness: &'a mut dyn Witness,
    /// Set when nobody waits for the end any more: what time is left passes at once.
    stop: &'a AtomicBool,
    account: Account,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        (rules, prices): (RuleSet, Arc<PriceTable>),
        settings: &PipelineSettings,
        range: Range,
        (witness, stop): (&'a mut dyn Witness, &'a AtomicBool),
    ) -> Self {
        let specs = rules.stores.iter().map(|store| store.aggregation.spec()).collect();
        let reach = |kind: &RuleKind| match kind {
            RuleKind::Joined(joined) => {
                let bounds = joined.join.bounds();
                bounds.from_ns.abs().max(bounds.to_ns.abs()).saturating_add(joined.join.pane_ns())
            }
            RuleKind::RowWise(_) | RuleKind::Windowed(_) => 0,
        };
        let reach_ns = rules.rules.iter().map(|rule| reach(&rule.kind)).max().unwrap_or_default();
        Self {
            pipeline: Pipeline::new(rules, prices, settings),
            tolerances: settings.tolerances,
            specs,
            reach_ns,
            range,
            now: EventTime::MIN,
            end: None,
            witness,
            stop,
            account: Account::default(),
        }
    }

    /// Windows wait for these partitions from the beginning.
    pub(super) fn expect(&mut self, partitions: &BTreeSet<TopicPartition>, began: EventTime) {
        partitions.iter().for_each(|partition| self.pipeline.assign(partition.clone(), began));
    }

    /// Judges records; what came between them and those before is silence.
    pub(super) fn take(&mut self, batch: Batch) {
        let (first, last) = batch.came;
        if first.0.saturating_sub(self.now.0) >= self.tolerances.idle_after_ns {
            self.pass_to(first);
        }
        self.now = self.now.max(last);
        let epoch = self.pipeline.take_over(batch.decoded, self.now);
        self.note(epoch);
    }

    /// There is no more telemetry. Unless windows are to be left open, time goes on until those have ended that had
    /// begun by the newest row, and what they say counts; what only the silence behind it says does not.
    pub(super) fn conclude(mut self, leaves_open: bool) -> Account {
        let newest = self.pipeline.newest();
        self.account.newest = newest;
        if let Some(newest) = newest.filter(|_| !leaves_open) {
            self.end = Some(newest);
            let Tolerances { idle_after_ns, lateness_ns, .. } = self.tolerances;
            let ends = self.specs.iter().map(|spec| spec.last_end_of(spec.pane_at(newest)));
            // A window over joined rows waits for what may still join them.
            let last = ends.max().unwrap_or(newest).max(newest).plus(self.reach_ns);
            self.pass_to(last.plus(lateness_ns).max(self.now.plus(idle_after_ns)));
        }
        self.account.rules = self.pipeline.status();
        self.account
    }

    /// Nothing comes until then.
    fn pass_to(&mut self, to: EventTime) {
        // Before the first record there is no time that could pass.
        if self.now == EventTime::MIN {
            return;
        }
        let mut quiet_since = self.now;
        while self.now < to {
            let is_over = self.stop.load(Ordering::Relaxed);
            self.now = if is_over { to } else { self.now.plus(STEP_NS).min(to) };
            let epoch = self.pipeline.end_epoch(self.now);
            if !epoch.decisions.is_empty() {
                quiet_since = self.now;
            }
            self.note(epoch);
            if self.now.0.saturating_sub(quiet_since.0) > QUIET_NS.max(self.reach_ns) {
                if self.is_nothing_open() {
                    // One step for the years: a clock that counts seconds for milliseconds begins in 1970.
                    self.now = self.now.max(to.plus(-STEP_NS));
                }
                quiet_since = self.now;
            }
        }
    }

    /// Whether no rule waits for the end of anything.
    fn is_nothing_open(&self) -> bool {
        self.pipeline.status().iter().all(|rule| rule.groups == 0 && rule.firing == 0 && rule.pending == 0)
    }

    fn note(&mut self, epoch: Epoch) {
        let Epoch { decisions, dead, late: _, counts, limits } = epoch;
        self.account.counts.add(counts);
        self.account.limits.extend(limits);
        let room = DEAD_KEPT_MAX.saturating_sub(self.account.dead.len());
        self.account.dead.extend(dead.into_iter().take(room));
        for decision in decisions {
            self.show(&decision.event);
        }
    }

    fn show(&mut self, event: &EnforcementEvent) {
        if self.range.from.is_some_and(|from| event.time < from) {
            self.account.events_before += 1;
            self.witness.recall(event);
        } else if self.end.is_some_and(|end| is_after(event, end)) {
            self.account.events_after += 1;
        } else {
            self.witness.see(event);
        }
    }
}

/// Whether an event is about what happened after `end`: a window that had not begun, or the end of something that
/// nothing was heard of any more.
fn is_after(event: &EnforcementEvent, end: EventTime) -> bool {
    let is_begun = event.data.finding.window.is_none_or(|window| window.start <= end);
    event.time > end && (event.data.state.is_ended() || !is_begun)
}
