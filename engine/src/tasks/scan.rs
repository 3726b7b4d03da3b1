//! The scan stage as an exactly-once task: what an epoch writes, and what is taken back if it is not committed.
//!
//! The stage keeps nothing between two commits but how far each partition was read and its high mark, and both lie in
//! the group's committed offsets: the mark is the offset's metadata. So partitions move between instances at once.
//!
//! One epoch may be on its way to the broker while the next is being read. If the first is not committed, neither is
//! the second: both are read again.

use std::collections::{BTreeMap, BTreeSet};

use lictor_connectors::{Committed, Consumed, NextOffset, Outgoing, RecordRef, TopicPartition};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::reload::ScanRules;
use super::{Batch, Message, TaskTopics};
use crate::exchange::parcel::{self, Names};
use crate::exchange::route::{Hash, Router};
use crate::exchange::{Feeding, Shipment};
use crate::scan_stage::{ScanCounts, ScanStage};
use crate::watermark::Mark;

/// Marks that let no window close are told this often: they keep what runs out by itself in step with the clock.
const MARKS_EVERY_NS: i64 = 1_000_000_000;

/// From where on we feed the stores is told this often: a shard that has learnt of one since waits for it.
const FEEDING_EVERY_NS: i64 = 5_000_000_000;

/// How far a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    next: NextOffset,
    high: Option<EventTime>,
}

#[derive(Clone, Copy, Debug)]
struct Partition {
    committed: Standing,
    /// As of the epoch that is on its way.
    sent: Standing,
    now: Standing,
    /// Rows before this offset are in no sum that is not shipped.
    shipped: NextOffset,
}

impl Partition {
    fn at(standing: Standing) -> Self {
        Self { committed: standing, sent: standing, now: standing, shipped: standing.next }
    }
}

/// The scan stage with what it must remember of its commits.
pub struct ScanTask {
    stage: ScanStage,
    router: Router,
    names: Names,
    topics: TaskTopics,
    application_id: String,
    /// What we are called in shipments.
    feeder: u64,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// All input partitions there are, whoever reads them.
    sources: Vec<(TopicPartition, Signal)>,
    shipped: Shipped,
    /// Who takes no more rows, as of the last commit.
    quarantined: BTreeSet<usize>,
}

/// What the shards were told.
#[derive(Debug, Default)]
struct Shipped {
    has_sources: bool,
    marks: BTreeMap<TopicPartition, Mark>,
    marks_at: Option<EventTime>,
    feeding_at: Option<EventTime>,
}

impl Shipped {
    /// Whether marks that let no window close must be told at `now`: they were not told for a while, or windows must
    /// begin to wait for a partition, or cease to.
    fn is_due(&self, marks: &[Mark], now: EventTime) -> bool {
        let is_old = self.marks_at.is_none_or(|told_at| now.0.saturating_sub(told_at.0) >= MARKS_EVERY_NS);
        let has_turned = |mark: &Mark| self.marks.get(&mark.partition).is_none_or(|told| told.is_idle != mark.is_idle);
        is_old || marks.iter().any(has_turned)
    }

    /// Whether it is time to tell from where on stores are fed.
    fn is_feeding_due(&mut self, now: EventTime) -> bool {
        let is_due = self.feeding_at.is_none_or(|told_at| now.0.saturating_sub(told_at.0) >= FEEDING_EVERY_NS);
        if is_due {
            self.feeding_at = Some(now);
        }
        is_due
    }

    /// Leaves those marks that are news. Who is idle says so again, or windows wait for it.
    fn tell(&mut self, marks: &mut Vec<Mark>, now: EventTime) {
        self.marks_at = Some(now);
        marks.retain(|mark| mark.is_idle || self.marks.get(&mark.partition) != Some(mark));
        self.marks.extend(marks.iter().map(|mark| (mark.partition.clone(), mark.clone())));
    }
}

/// An epoch of scanning.
#[derive(Debug, Default)]
pub struct ScanEpoch {
    /// What is to be written, if anything is.
    pub batch: Batch,
    /// How much left the scan on which way.
    pub counts: ScanCounts,
}

impl ScanTask {
    /// Nothing is read yet. Of the ids the second is that of the instance: no other one that runs has it.
    #[must_use]
    pub fn new(
        stage: ScanStage,
        router: Router,
        names: Names,
        topics: TaskTopics,
        (application_id, instance_id): (&str, &str),
    ) -> Self {
        Self {
            stage,
            router,
            names,
            topics,
            application_id: application_id.to_owned(),
            feeder: Hash::of(instance_id.as_bytes()).value(),
            partitions: BTreeMap::new(),
            sources: Vec::new(),
            shipped: Shipped::default(),
            quarantined: BTreeSet::new(),
        }
    }

    /// Goes over to other rules; to be called when nothing is read that is not committed.
    pub(super) fn replace_rules(&mut self, rules: ScanRules) {
        let ScanRules { mut stage, router, names, inputs: _ } = rules;
        stage.inherit(&mut self.stage);
        (self.stage, self.router, self.names) = (stage, router, names);
        (self.shipped, self.quarantined) = (Shipped::default(), BTreeSet::new());
    }

    /// Which input partitions there are, as (topic, number of partitions): windows wait for all of them, whoever reads
    /// them.
    pub fn expect(&mut self, topics: &[(String, i32)]) {
        let of_topic = |(topic, count): &(String, i32)| {
            let signal = self.stage.signal_of(topic)?;
            Some((0..*count).map(|p| (TopicPartition::new(topic, p), signal)).collect::<Vec<_>>())
        };
        self.sources = topics.iter().filter_map(of_topic).flatten().collect();
        self.shipped.has_sources = false;
    }

    /// This instance reads `partition` from `now` on, by the processing clock, from where the group has committed.
    pub fn assign(&mut self, partition: &TopicPartition, committed: &Committed, now: EventTime) {
        let standing = Standing { next: committed.next, high: high_from_metadata(&committed.metadata) };
        self.shipped.feeding_at = None;
        self.partitions.insert(partition.clone(), Partition::at(standing));
        self.stage.resume(partition.clone(), standing.high, now);
    }

    /// Another instance reads `partition` now.
    pub fn revoke(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
        self.shipped.marks.remove(partition);
        self.stage.revoke(partition);
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// What is next to read of each partition.
    pub fn standings(&self) -> impl Iterator<Item = (TopicPartition, Option<NextOffset>)> {
        self.partitions.iter().map(|(partition, read)| (partition.clone(), Some(read.now.next)))
    }

    /// Whether records of `partition` are wanted.
    #[must_use]
    pub fn reads(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// Takes one record, read at `now` by the processing clock; one of a partition that is not ours is left out.
    pub fn absorb(&mut self, record: RecordRef<'_>, now: EventTime) {
        let is_it = |p: &TopicPartition| p.partition == record.partition && *p.topic == *record.topic;
        let Some((_, partition)) = self.partitions.iter_mut().find(|(p, _)| is_it(p)) else { return };
        partition.now.next = NextOffset::after(record.offset);
        self.stage.absorb(record, now);
    }

    /// Rows taken since the last epoch ended.
    #[must_use]
    pub fn rows_pending(&self) -> usize {
        self.stage.rows_pending()
    }

    /// The stage, for those who look.
    #[must_use]
    pub fn stage(&self) -> &ScanStage {
        &self.stage
    }

    /// The stage, for what concerns silence.
    pub fn stage_mut(&mut self) -> &mut ScanStage {
        &mut self.stage
    }

    /// Ends an epoch at `now`, by the processing clock. The batch names every partition that was read since the last
    /// one. Unless it `is_due`, a batch without anything urgent is held back: the next one has it then.
    pub fn end_epoch(&mut self, now: EventTime, is_due: bool) -> ScanEpoch {
        // Who reads nothing has nothing to say, and no offsets to say it with.
        if self.partitions.is_empty() {
            return ScanEpoch::default();
        }
        let mut messages = Vec::new();
        for (shard, shipments) in (0..).zip(self.ship(now, !is_due)) {
            for parcel in parcel::encode(&shipments, &self.names) {
                messages.push(Message::to_partition(&self.topics.shuffle, shard, parcel));
            }
        }
        let (dead, late) = self.stage.take_aside();
        let dead = dead.iter().map(|d| d.to_message(&self.topics.outputs.dead_letter, &self.application_id));
        let late = late.iter().map(|l| l.to_message(&self.topics.outputs.late));
        messages.extend(dead.chain(late).map(|outgoing: Outgoing| Message { outgoing, partition: None }));
        let counts = self.stage.take_counts();
        if messages.is_empty() && !is_due {
            return ScanEpoch { batch: Batch::default(), counts };
        }
        let consumed = self.send(!messages.is_empty());
        ScanEpoch { batch: Batch { messages, consumed }, counts }
    }

    /// What every shard is told.
    fn ship(&mut self, now: EventTime, may_hold: bool) -> Vec<Vec<Shipment>> {
        let mut shipments = self.stage.flush(now, may_hold);
        let last = shipments.len().saturating_sub(1);
        for (i, shipment) in shipments.iter_mut().enumerate() {
            if !std::mem::replace(&mut self.shipped.has_sources, true) {
                shipment.sources.clone_from(&self.sources);
            }
            // Marks before the last let a window close.
            let is_boundary = i < last;
            if !shipment.marks.is_empty() && (is_boundary || self.shipped.is_due(&shipment.marks, now)) {
                self.shipped.tell(&mut shipment.marks, now);
            } else {
                shipment.marks.clear();
            }
        }
        if let Some(first) = shipments.first_mut() {
            if self.shipped.is_feeding_due(now) {
                first.feeding = Some(self.feeding());
            }
            // No sum is left behind.
            self.partitions.values_mut().for_each(|read| read.shipped = read.now.next);
        }
        shipments.iter_mut().for_each(|shipment| shipment.feeder = self.feeder);
        let mut by_shard: Vec<Vec<Shipment>> = Vec::new();
        for shipment in shipments.into_iter().filter(|shipment| !shipment.is_empty()) {
            let split = self.router.split(shipment);
            by_shard.resize_with(split.len(), Vec::new);
            by_shard.iter_mut().zip(split).for_each(|(of_shard, shipment)| of_shard.push(shipment));
        }
        by_shard
    }

    fn feeding(&self) -> Feeding {
        let from = self.partitions.iter().map(|(partition, read)| (partition.clone(), read.shipped));
        Feeding { stores: self.names.fingerprint(), from: from.collect() }
    }

    /// How far partitions were read that were read further than what was sent before. If there `are_messages` and no
    /// such partition, all of them: a transaction that names none would not be fenced by the group.
    fn send(&mut self, are_messages: bool) -> Vec<Consumed> {
        let mut consumed = Vec::new();
        for (partition, read) in &mut self.partitions {
            read.now.high = self.stage.high(partition);
        }
        let is_any_read = self.partitions.values().any(|read| read.now != read.sent);
        for (partition, read) in &mut self.partitions {
            let is_named = read.now != read.sent || (are_messages && !is_any_read);
            if is_named {
                read.sent = read.now;
                let (next, metadata) = (read.now.next, high_to_metadata(read.now.high));
                consumed.push(Consumed { partition: partition.clone(), next, metadata });
            }
        }
        consumed
    }

    /// The batch that was sent is durable.
    pub fn commit(&mut self) {
        self.partitions.values_mut().for_each(|partition| partition.committed = partition.sent);
        self.quarantined = self.stage.quarantined();
    }

    /// Nothing since the last commit has happened. Returns from where every partition must be read again.
    pub fn undo(&mut self, now: EventTime) -> Vec<(TopicPartition, Option<NextOffset>)> {
        self.stage.discard(&self.quarantined);
        self.shipped = Shipped::default();
        let mut starts = Vec::new();
        for (partition, read) in &mut self.partitions {
            *read = Partition::at(read.committed);
            self.stage.resume(partition.clone(), read.committed.high, now);
            starts.push((partition.clone(), Some(read.committed.next)));
        }
        starts
    }
}

const HIGH: &str = "high=";

/// The metadata of a committed offset: the partition's high mark.
fn high_to_metadata(high: Option<EventTime>) -> String {
    high.map_or_else(String::new, |high| format!("{HIGH}{}", high.0))
}

/// Offsets that a person has reset have no metadata of ours: the partition's time begins anew.
fn high_from_metadata(metadata: &str) -> Option<EventTime> {
    metadata.strip_prefix(HIGH)?.parse().ok().map(EventTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> EventTime {
        EventTime::from_ms(ms)
    }

    fn mark(partition: i32, high: i64, is_idle: bool) -> Mark {
        let partition = TopicPartition::new("spans", partition);
        Mark { partition, signal: Signal::Traces, high: Some(at(high)), is_idle }
    }

    #[test]
    fn marks_are_told_at_first_every_second_and_when_windows_must_wait_for_somebody() {
        let mut shipped = Shipped::default();
        let (mut first, still) = (vec![mark(0, 5, true), mark(1, 5, false)], vec![mark(0, 5, true), mark(1, 6, false)]);
        assert!(shipped.is_due(&first, at(0)), "nobody knows yet that partition 1 is read");
        shipped.tell(&mut first, at(0));
        assert!(!shipped.is_due(&still, at(999)) && shipped.is_due(&still, at(1_000)));
        assert!(shipped.is_due(&[mark(0, 5, false), mark(1, 5, false)], at(10)), "partition 0 is read again");
        assert!(shipped.is_due(&[mark(2, 5, false)], at(10)), "partition 2 is new");
    }

    #[test]
    fn who_is_idle_says_so_again_and_who_has_not_moved_does_not() {
        let mut shipped = Shipped::default();
        let all = vec![mark(0, 5, true), mark(1, 5, false)];
        shipped.tell(&mut all.clone(), at(0));
        let mut again = all;
        shipped.tell(&mut again, at(1_000));
        assert_eq!(again, [mark(0, 5, true)]);
    }

    #[test]
    fn a_high_mark_survives_in_the_metadata_of_an_offset() {
        for high in [None, Some(EventTime(0)), Some(EventTime(1_790_000_000_123_456_789)), Some(EventTime::MIN)] {
            assert_eq!(high_from_metadata(&high_to_metadata(high)), high);
        }
        assert_eq!(high_from_metadata("set by hand"), None);
    }
}
