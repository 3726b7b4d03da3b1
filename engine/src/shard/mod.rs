//! One shard of the judge stage: its state, and the log that the state survives in.
//!
//! A shard is a partition of the shuffle topic. What it remembers is written to the partition of the same number of the
//! state topic, in the transaction that consumes the parcels: state, output and position can never disagree.
//!
//! Invariant: whatever a shard has absorbed since the last commit can be undone, and what [`Shard::changes`] returns
//! for it is exactly what a restored shard needs to go on the same.

mod dormant;
mod log;
mod record;
mod restore;

use std::collections::BTreeSet;
use std::sync::Arc;

use lictor_connectors::NextOffset;
use lictor_schemas::rule::Mode;
use lictor_schemas::time::EventTime;

pub use record::{Key, StateRecord};
pub use restore::{RestoreError, Restoring};

use crate::backfill::BackfillPlan;
use crate::decision::{Decision, Decisions};
use crate::exchange::parcel::{self, Names};
use crate::exchange::route::Place;
use crate::exchange::{Shipment, StoreId};
use crate::judge_stage::{JudgeStage, Judging, RuleStatus};
use crate::packed::PackedError;
use crate::pane::PaneError;
use crate::watermark::Watermarks;
use log::{Culprit, Log, LogError};

/// What the shards of an instance have in common.
#[derive(Debug)]
pub struct JudgeSettings {
    /// The rules and what they sum up.
    pub judging: Judging,
    /// What they are called in parcels and logs.
    pub names: Names,
    /// Whether a rule that is not among them was removed. If not it may be faulty, and its state is kept for when it is
    /// mended.
    pub is_whole: bool,
    /// Names this deployment in event sources.
    pub application_id: String,
    /// In shadow mode no directive is to be applied.
    pub mode: Mode,
    /// How late rows may be.
    pub lateness_ns: i64,
    /// Directives of one rule that hold at a time, per shard.
    pub subjects_max: usize,
    /// How sums of what was read before a rule was there are made; none if rules that come begin at nothing.
    pub backfill: Option<BackfillPlan>,
}

impl JudgeSettings {
    /// A judge stage at `place` that remembers nothing.
    #[must_use]
    pub fn stage(&self, place: Place) -> JudgeStage {
        let decisions = Decisions::new(&self.application_id, self.subjects_max);
        let watermarks = Watermarks::new(self.lateness_ns);
        JudgeStage::new(self.judging.clone(), place, decisions, watermarks)
    }
}

/// A shard that is served by this instance.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<JudgeSettings>,
    stage: JudgeStage,
    log: Log,
    /// The ends of directives whose rules are no more; published with the next commit.
    orphans: Vec<Decision>,
    /// Whether anything was absorbed since the last commit.
    is_dirty: bool,
    newest: Option<EventTime>,
}

/// What one commit of a shard writes.
#[derive(Debug, Default)]
pub struct Changes {
    /// For the state topic, in their order.
    pub records: Vec<StateRecord>,
    /// The ends of directives whose rule was removed.
    pub orphans: Vec<Decision>,
}

impl Shard {
    /// A shard nothing was ever written for.
    #[must_use]
    pub fn empty(settings: &Arc<JudgeSettings>, place: Place) -> Self {
        let stage = settings.stage(place);
        let log = Log::new(settings);
        Self { settings: Arc::clone(settings), stage, log, orphans: Vec::new(), is_dirty: false, newest: None }
    }

    /// Takes a parcel over and decides; events come in the order of rules, and within a rule in that of event time.
    ///
    /// # Errors
    /// The parcel cannot be read. The state is as it was before this parcel.
    pub fn absorb(&mut self, parcel: &[u8]) -> Result<Vec<Decision>, PackedError> {
        let shipments = parcel::decode(parcel, &self.settings.names)?;
        self.is_dirty = true;
        self.newest = shipments.iter().filter_map(|shipment| shipment.newest).max().max(self.newest);
        Ok(shipments.into_iter().flat_map(|shipment| self.stage.absorb(shipment)).collect())
    }

    /// What the shard was made with.
    #[must_use]
    pub fn settings(&self) -> &Arc<JudgeSettings> {
        &self.settings
    }

    /// Takes over sums of what was read before stores were there, and decides what they make rules say.
    pub(crate) fn fill(
        &mut self,
        filled: &BTreeSet<StoreId>,
        history: Vec<Shipment>,
        since: Option<EventTime>,
    ) -> Vec<Decision> {
        self.is_dirty = true;
        // Nothing of these stores was written while they waited.
        self.log.rewrite();
        self.stage.fill(filled, history, since)
    }

    /// When the broker has got the newest record that was absorbed since the last call.
    pub fn take_newest(&mut self) -> Option<EventTime> {
        self.newest.take()
    }

    /// Whether there is something to commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.is_dirty || !self.orphans.is_empty()
    }

    /// What has changed since the last commit; `next` is the first parcel that is not absorbed yet.
    ///
    /// To be called once per commit, followed by [`Shard::commit`] or [`Shard::undo`]. A rule whose state cannot be
    /// written is quarantined, which empties it.
    pub fn changes(&mut self, next: NextOffset) -> Changes {
        loop {
            match self.log.changes(&self.stage, next) {
                Ok(records) => return Changes { records, orphans: self.orphans.clone() },
                Err(LogError { culprit, error }) => {
                    self.log.undo();
                    match culprit {
                        Culprit::Rule(rule) => self.stage.quarantine(rule, error.to_string()),
                        Culprit::Store(store) => self.stage.quarantine_readers(store, &error.to_string()),
                    }
                }
            }
        }
    }

    /// The changes are durable.
    ///
    /// # Errors
    /// States cannot be copied together; the shard is no good any more.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        self.is_dirty = false;
        self.orphans.clear();
        self.log.commit();
        self.stage.commit()
    }

    /// Nothing of what was absorbed since the last commit has happened.
    ///
    /// # Errors
    /// A key that was there cannot be indexed again; the shard is no good any more.
    pub fn undo(&mut self) -> Result<(), PaneError> {
        self.is_dirty = false;
        self.log.undo();
        self.stage.undo()
    }

    /// Where the next parcel is read, as of the last commit; none if there was no commit yet.
    #[must_use]
    pub fn committed(&self) -> Option<NextOffset> {
        self.log.committed_next()
    }

    /// How every rule is doing, in the order of the rule set.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.stage.status()
    }

    /// The watermark of a signal.
    #[must_use]
    pub fn watermark(&self, signal: lictor_schemas::tables::Signal) -> EventTime {
        self.stage.watermark(signal)
    }

    /// The judging state, for those who look.
    #[must_use]
    pub fn stage(&self) -> &JudgeStage {
        &self.stage
    }

    /// The judging state, for reports that are taken out.
    pub fn stage_mut(&mut self) -> &mut JudgeStage {
        &mut self.stage
    }
}

#[cfg(test)]
mod tests;
