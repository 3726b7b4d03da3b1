//! The judge stage as an exactly-once task over the shards that this instance serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lictor_connectors::{Consumed, NextOffset, TopicPartition};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::backfiller::Backfilled;
use super::{Batch, Message, Rota, TaskTopics};
use crate::backfill::{Backfill, Warming};
use crate::decision::{Decision, LimitReport};
use crate::exchange::StoreId;
use crate::judge_stage::RuleStatus;
use crate::packed::PackedError;
use crate::pane::PaneError;
use crate::shard::{Changes, JudgeSettings, Shard};
use crate::watermark::Mark;

/// The shards of an instance.
#[derive(Debug)]
pub struct JudgeTask {
    topics: TaskTopics,
    pub(super) shards: BTreeMap<i32, Served>,
    /// Whose turn it is to be looked at.
    pub(super) rota: Rota,
}

#[derive(Debug)]
pub(super) struct Served {
    pub(super) shard: Shard,
    next: Option<NextOffset>,
    decisions: Vec<Decision>,
}

/// An epoch of judging.
#[derive(Debug, Default)]
pub struct JudgeEpoch {
    /// What was decided, in the order in which it is published.
    pub decisions: Vec<Decision>,
    /// State, and everything else that is not a decision.
    pub state: Batch,
    /// Rules that have reached their limit of subjects.
    pub limits: Vec<LimitReport>,
    /// When the broker has got the newest record that it was made of.
    pub newest: Option<EventTime>,
}

impl JudgeTask {
    /// No shard is served yet.
    #[must_use]
    pub fn new(topics: TaskTopics) -> Self {
        Self { topics, shards: BTreeMap::new(), rota: Rota::default() }
    }

    /// This instance serves a shard from now on. Returns where its next parcel is read.
    pub fn serve(&mut self, number: i32, shard: Shard) -> Option<NextOffset> {
        let next = shard.committed();
        self.shards.insert(number, Served { shard, next, decisions: Vec::new() });
        next
    }

    /// Another instance serves the shard now.
    pub fn drop_shard(&mut self, number: i32) {
        self.shards.remove(&number);
    }

    /// Takes a parcel over; one of a shard that is not served is left out.
    ///
    /// # Errors
    /// The parcel cannot be read; it is passed over if the epoch goes on.
    pub fn absorb(&mut self, number: i32, offset: i64, parcel: &[u8]) -> Result<(), PackedError> {
        let Some(served) = self.shards.get_mut(&number) else { return Ok(()) };
        served.next = Some(NextOffset::after(offset));
        served.decisions.extend(served.shard.absorb(parcel)?);
        Ok(())
    }

    /// A piece of history that shards wait for, with the rules that they wait with; none if none does.
    pub(super) fn awaited(&self) -> Option<(Arc<JudgeSettings>, Backfill)> {
        let mut found: Option<(Arc<JudgeSettings>, Backfill)> = None;
        for (number, served) in &self.shards {
            for (store, Warming { read_from, ends, .. }) in served.shard.stage().awaited() {
                let (_, backfill) = found.get_or_insert_with(|| {
                    let backfill =
                        Backfill { shards: Vec::new(), stores: BTreeSet::new(), read_from, ends: ends.clone() };
                    (Arc::clone(served.shard.settings()), backfill)
                });
                // Others have their turn after it.
                if backfill.ends == ends {
                    backfill.stores.insert(store);
                    backfill.read_from = backfill.read_from.min(read_from);
                    if backfill.shards.last() != Some(number) {
                        backfill.shards.push(*number);
                    }
                }
            }
        }
        found
    }

    /// Gives the shards that still wait for it the history that was summed up. Returns whether any did.
    pub(super) fn fill(&mut self, backfilled: Backfilled) -> bool {
        let Backfilled { settings, backfill, mut shipments, since, .. } = backfilled;
        let mut is_used = false;
        for number in &backfill.shards {
            let Some(served) = self.shards.get_mut(number) else { continue };
            if !Arc::ptr_eq(served.shard.settings(), &settings) {
                continue;
            }
            let awaited = served.shard.stage().awaited().filter(|(_, warming)| warming.ends == backfill.ends);
            let stores: BTreeSet<StoreId> =
                awaited.map(|(store, _)| store).filter(|store| backfill.stores.contains(store)).collect();
            if !stores.is_empty() {
                let history = shipments.remove(number).unwrap_or_default();
                served.decisions.extend(served.shard.fill(&stores, history, since));
                is_used = true;
            }
        }
        is_used
    }

    /// Whether there is anything to commit at once; that time has passed can wait.
    #[must_use]
    pub fn has_decisions(&self) -> bool {
        self.shards.values().any(|served| !served.decisions.is_empty())
    }

    /// Whether anything was absorbed since the last commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.shards.values().any(|served| served.shard.is_dirty())
    }

    /// Ends an epoch at `now`, by the processing clock, which is when its violations were detected.
    pub fn end_epoch(&mut self, now: EventTime) -> JudgeEpoch {
        let mut epoch = JudgeEpoch::default();
        for (number, served) in self.shards.iter_mut().filter(|(_, served)| served.shard.is_dirty()) {
            epoch.newest = epoch.newest.max(served.shard.take_newest());
            epoch.limits.extend(served.shard.stage_mut().take_limit_reports());
            // A shard that only ends directives of removed rules begins where its log does.
            let next = served.next.unwrap_or(NextOffset(0));
            let Changes { records, orphans } = served.shard.changes(next);
            for mut decision in orphans.into_iter().chain(std::mem::take(&mut served.decisions)) {
                decision.event.data.detected_at = Some(now);
                epoch.decisions.push(decision);
            }
            for record in records {
                let mut message = Message::to_partition(&self.topics.state, *number, Vec::new());
                message.outgoing.key = Some(record.key.to_string().into_bytes());
                message.outgoing.payload = record.value;
                epoch.state.messages.push(message);
            }
            let partition = TopicPartition::new(&self.topics.shuffle, *number);
            epoch.state.consumed.push(Consumed { partition, next, metadata: String::new() });
        }
        epoch
    }

    /// The messages of an epoch's decisions.
    #[must_use]
    pub fn messages_of(&self, decisions: &[Decision]) -> Vec<Message> {
        let messages = decisions.iter().flat_map(|decision| self.topics.outputs.messages_of(decision));
        messages.map(|outgoing| Message { outgoing, partition: None }).collect()
    }

    /// The epoch is durable.
    ///
    /// # Errors
    /// A state cannot be copied together; the instance must not go on.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        let mut dirty = self.shards.values_mut().filter(|served| served.shard.is_dirty());
        dirty.try_for_each(|served| served.shard.commit())
    }

    /// Nothing since the last commit has happened. Returns from where every shard must be read again.
    ///
    /// # Errors
    /// A state cannot be set back; the instance must not go on.
    pub fn undo(&mut self) -> Result<Vec<(TopicPartition, Option<NextOffset>)>, PaneError> {
        let mut starts = Vec::new();
        for (number, served) in &mut self.shards {
            served.shard.undo()?;
            served.decisions.clear();
            served.next = served.shard.committed();
            starts.push((TopicPartition::new(&self.topics.shuffle, *number), served.next));
        }
        Ok(starts)
    }

    /// How every rule is doing, over all shards served.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        let mut shards = self.shards.values().map(|served| served.shard.status());
        let Some(mut total) = shards.next() else { return Vec::new() };
        for of_shard in shards {
            total.iter_mut().zip(of_shard).for_each(|(sum, status)| sum.add(status));
        }
        total
    }

    /// The watermark of a signal: of the shard that is furthest behind.
    #[must_use]
    pub fn watermark(&self, signal: Signal) -> EventTime {
        self.furthest_behind(signal).map_or(EventTime::MIN, |shard| shard.watermark(signal))
    }

    /// The input partition that holds a signal's time back there; none if all are idle.
    #[must_use]
    pub fn slowest(&self, signal: Signal) -> Option<&Mark> {
        self.furthest_behind(signal)?.stage().slowest(signal)
    }

    fn furthest_behind(&self, signal: Signal) -> Option<&Shard> {
        self.shards.values().map(|served| &served.shard).min_by_key(|shard| shard.watermark(signal))
    }

    /// The shards that are served.
    pub fn served(&self) -> impl Iterator<Item = TopicPartition> {
        self.shards.keys().map(|number| TopicPartition::new(&self.topics.shuffle, *number))
    }

    /// Whether a shard is served.
    #[must_use]
    pub fn serves(&self, number: i32) -> bool {
        self.shards.contains_key(&number)
    }

    /// How many shards are served.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}
