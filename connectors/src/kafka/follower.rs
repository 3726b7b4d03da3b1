//! A compacted topic, read to its end once and then followed.
//!
//! The client assigns itself every partition and joins no group: each reader has the whole topic. It reads what is
//! committed. Where a partition ends for such a reader is asked before anything is read, and the topic is not read to
//! its end before all of that has come.
//!
//! A broker that is away sends nothing, and so does one that has nothing to say. Who must tell them apart probes: asks
//! from time to time where a partition ends. All before that end having come, the reader was current when it asked.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::log::Logged;
use super::properties::{KafkaProperties, Role};
use super::refused;
use super::restore::{LOOK, Patience, ReadCommitted};
use super::source::{as_record, is_recovered_by_the_client};
use crate::error::{ConnectorError, Fault, Retry};
use crate::record::{NextOffset, RecordRef, TopicPartition};

/// How long an answer about partitions and ends is waited for: it is asked again, and the client itself says when no
/// broker is there.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Takes a record over; an error ends the reading.
pub type AbsorbRecord<'a> = dyn FnMut(&RecordRef<'_>) -> Result<(), ConnectorError> + 'a;

/// Reads and follows one topic. Everything blocks for as long as it is told to, so it belongs on a thread of its own.
pub struct KafkaFollower {
    consumer: ReadCommitted,
    topic: String,
    /// What errors say was tried.
    action: &'static str,
    partitions: BTreeMap<i32, Progress>,
    /// How many probes there were: partitions take turns.
    probes: usize,
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    next: NextOffset,
    /// Only marks of transactions and aborted records lie between `next` and here.
    settled: NextOffset,
    /// Whether the client has found the end since the last record, and it was not asked since where that is.
    has_found_end: bool,
    /// When an end was asked for that was not reached yet, and that end.
    pending: Option<(Duration, NextOffset)>,
    /// When everything before the end was last known to have been read.
    current_at: Option<Duration>,
}

impl Progress {
    fn has_reached(&self, end: NextOffset) -> bool {
        self.next.max(self.settled) >= end
    }

    /// A record came.
    fn read(&mut self, next: NextOffset) {
        self.next = next;
        self.has_found_end = false;
        self.settle();
    }

    /// The client has found nothing more.
    fn found_end(&mut self) {
        self.has_found_end = true;
        if let Some((_, end)) = self.pending {
            self.settled = self.settled.max(end);
        }
        self.settle();
    }

    /// At `now` the broker has said where the partition ends.
    ///
    /// The client does not say at which offset it has found the end. What was written between its finding and this
    /// answer is taken for read: it comes within a fetch, or finding the end again is what settles it.
    fn probed(&mut self, now: Duration, end: NextOffset) {
        if self.has_found_end {
            self.has_found_end = false;
            self.settled = self.settled.max(end);
        }
        if self.has_reached(end) {
            (self.pending, self.current_at) = (None, Some(now));
        } else if self.pending.is_none() {
            // The first end that is missing is waited for: under load a later one would never be reached.
            self.pending = Some((now, end));
        }
    }

    fn settle(&mut self) {
        if let Some((asked, end)) = self.pending
            && self.has_reached(end)
        {
            self.pending = None;
            self.current_at = Some(asked);
        }
    }
}

impl KafkaFollower {
    /// Creates the client, which connects in the background. `group` is a name for quotas and access lists: it is
    /// never joined.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn try_new(properties: &KafkaProperties, group: &str, topic: &str) -> Result<Self, ConnectorError> {
        Self::for_action("follow a topic", properties, group, topic)
    }

    pub(super) fn for_action(
        action: &'static str,
        properties: &KafkaProperties,
        group: &str,
        topic: &str,
    ) -> Result<Self, ConnectorError> {
        let own = [("group.id", group), ("client.id", group)];
        let consumer = properties.create(Role::Consumer, &own, Logged::default())?;
        Ok(Self { consumer, topic: topic.to_string(), action, partitions: BTreeMap::new(), probes: 0 })
    }

    /// The topic that is followed.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Reads the topic from its beginning to where it ends at the time of the call, each partition in its order.
    /// `goes_on` is asked in between; if it says no, reading ends with an error.
    ///
    /// # Errors
    /// The topic does not exist, the broker refuses or has no answer within about `wait`, or `absorb` has an error.
    /// What was handed over is a part then.
    pub fn read_to_end(
        &mut self,
        wait: Duration,
        goes_on: &dyn Fn() -> bool,
        absorb: &mut AbsorbRecord<'_>,
    ) -> Result<(), ConnectorError> {
        let mut patience = Patience::new(wait);
        let mut ends = self.find_ends(&mut patience)?;
        self.assign()?;
        while !ends.is_empty() {
            if !goes_on() {
                return Err(self.not_read(Fault::External, format!("topic `{}`: stopped while reading", self.topic)));
            }
            match self.poll(LOOK, absorb)? {
                Polled::Record(partition) => {
                    let progress = self.partitions.get(&partition);
                    ends.retain(|at, end| *at != partition || progress.is_none_or(|p| p.next < *end));
                }
                // Only markers and aborted records lie behind the last one.
                Polled::End(partition) => {
                    if let (Some(end), Some(at)) = (ends.remove(&partition), self.partitions.get_mut(&partition)) {
                        at.settled = at.settled.max(end);
                    }
                }
                Polled::Nothing if patience.outlasts(LOOK) => {}
                Polled::Nothing => {
                    let left: Vec<String> = ends.keys().map(ToString::to_string).collect();
                    return Err(patience.lost(format!("`{}`: partitions {} not read", self.topic, left.join(", "))));
                }
            }
        }
        Ok(())
    }

    /// Hands over what has come since, at most `records_max`, and returns how many that were. If nothing is there, the
    /// first record is waited for, but not longer than `wait`.
    ///
    /// # Errors
    /// As [`KafkaFollower::read_to_end`], or the topic was made anew: it must be read from its beginning.
    pub fn follow(
        &mut self,
        wait: Duration,
        records_max: usize,
        absorb: &mut AbsorbRecord<'_>,
    ) -> Result<usize, ConnectorError> {
        let (mut records, mut wait) = (0, wait);
        while records < records_max {
            match self.poll(wait, absorb)? {
                Polled::Record(_) => records += 1,
                Polled::End(_) => {}
                Polled::Nothing => break,
            }
            wait = Duration::ZERO;
        }
        Ok(records)
    }

    /// Asks whether the topic has as many partitions as when it was read. No answer is no difference.
    ///
    /// # Errors
    /// It has not: it must be read from its beginning.
    pub fn check_partitions(&self) -> Result<(), ConnectorError> {
        match self.count_partitions(ANSWER_WAIT) {
            Ok(count) if usize::try_from(count).is_ok_and(|count| count == self.partitions.len()) => Ok(()),
            Ok(count) => {
                let had = self.partitions.len();
                let message = format!("topic `{}` has {count} partitions and had {had}", self.topic);
                Err(self.not_read(Fault::External, message))
            }
            Err(_) => Ok(()),
        }
    }

    /// Asks where one partition ends, each in its turn, and waits a second at most for the answer. `now` is monotonic.
    /// Returns whether there was one.
    pub fn probe(&mut self, now: Duration) -> bool {
        let turn = self.probes % self.partitions.len().max(1);
        self.probes = self.probes.wrapping_add(1);
        let Some((partition, progress)) = self.partitions.iter_mut().nth(turn) else { return false };
        match self.consumer.0.fetch_watermarks(&self.topic, *partition, ANSWER_WAIT) {
            Ok((_, end)) => {
                progress.probed(now, NextOffset(end));
                true
            }
            Err(_) => false,
        }
    }

    /// The latest time at which everything that was there is known to have been handed over, in all partitions; none
    /// before each was probed.
    #[must_use]
    pub fn current_at(&self) -> Option<Duration> {
        let times = self.partitions.values().map(|progress| progress.current_at);
        times.min().flatten()
    }

    /// How many partitions the topic had when it was read.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Where the partitions that hold something end; all are next to be read from their beginning.
    fn find_ends(&mut self, patience: &mut Patience) -> Result<BTreeMap<i32, NextOffset>, ConnectorError> {
        self.partitions.clear();
        let count = patience.ask("list topics", |wait| self.count_partitions(wait))?;
        if count == 0 {
            let message = format!("topic `{}` does not exist, or may not be read", self.topic);
            return Err(self.not_read(Fault::User, message));
        }
        let mut ends = BTreeMap::new();
        for partition in 0..count {
            let at = TopicPartition::new(&self.topic, partition);
            let (low, end) = patience.ask_for_ends(&self.consumer.0, &at)?;
            self.partitions.insert(partition, Progress { next: NextOffset(low), ..Progress::default() });
            if low < end {
                ends.insert(partition, NextOffset(end));
            }
        }
        Ok(ends)
    }

    /// 0 if the topic does not exist.
    fn count_partitions(&self, wait: Duration) -> Result<i32, KafkaError> {
        // All topics and not this one: asking for a topic by name makes some brokers create it.
        let metadata = self.consumer.0.fetch_metadata(None, wait)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        Ok(found.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
    }

    fn assign(&self) -> Result<(), ConnectorError> {
        let mut start = TopicPartitionList::with_capacity(self.partitions.len());
        let all = self.partitions.iter().try_for_each(|(partition, progress)| {
            // By number, which needs no further question.
            start.add_partition_offset(&self.topic, *partition, Offset::Offset(progress.next.0))
        });
        all.and_then(|()| self.consumer.0.assign(&start)).map_err(|error| refused(self.action, &error))
    }

    fn poll(&mut self, wait: Duration, absorb: &mut AbsorbRecord<'_>) -> Result<Polled, ConnectorError> {
        let message = match self.consumer.0.poll(wait) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(progress) = self.partitions.get_mut(&partition) {
                    progress.found_end();
                }
                return Ok(Polled::End(partition));
            }
            Some(Err(error)) if !is_recovered_by_the_client(&error) => return Err(refused(self.action, &error)),
            Some(Err(_)) | None => return Ok(Polled::Nothing),
        };
        let record = as_record(&message);
        advance(&mut self.partitions, &record).map_err(|message| not_read(self.action, Fault::External, message))?;
        absorb(&record)?;
        Ok(Polled::Record(record.partition))
    }

    fn not_read(&self, fault: Fault, message: String) -> ConnectorError {
        not_read(self.action, fault, message)
    }
}

/// What one look at the client has found.
enum Polled {
    /// A record of this partition.
    Record(i32),
    /// The end of this partition, for now.
    End(i32),
    Nothing,
}

/// Notes that a record was read; the error says that its partition begins anew.
fn advance(partitions: &mut BTreeMap<i32, Progress>, record: &RecordRef<'_>) -> Result<(), String> {
    let RecordRef { topic, partition, offset, .. } = *record;
    let progress = partitions.entry(partition).or_default();
    if offset < progress.next.0 {
        return Err(format!("{topic}[{partition}] begins anew at offset {offset}: the topic was made again"));
    }
    progress.read(NextOffset::after(offset));
    Ok(())
}

fn not_read(action: &'static str, fault: Fault, message: String) -> ConnectorError {
    let retry = if fault == Fault::User { Retry::Never } else { Retry::Backoff };
    ConnectorError::Kafka { action, message, fault, retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> RecordRef<'static> {
        RecordRef {
            topic: "t",
            partition: 1,
            offset,
            timestamp_ms: 0,
            key: None,
            payload: None,
            ..RecordRef::default()
        }
    }

    #[test]
    fn a_partition_that_begins_anew_is_no_continuation() {
        let mut partitions = BTreeMap::from([(1, Progress { next: NextOffset(5), ..Progress::default() })]);
        assert_eq!(advance(&mut partitions, &record(7)), Ok(()));
        let message = advance(&mut partitions, &record(0)).unwrap_err();
        assert!(message.contains("t[1] begins anew at offset 0"), "{message}");
    }

    #[test]
    fn a_reader_was_current_when_it_asked_for_an_end_that_it_reaches() {
        let (first, second) = (Duration::from_secs(1), Duration::from_secs(2));
        let mut progress = Progress { next: NextOffset(5), ..Progress::default() };
        progress.probed(first, NextOffset(5));
        assert_eq!(progress.current_at, Some(first));
        progress.probed(second, NextOffset(8));
        assert_eq!(progress.current_at, Some(first), "three records are missing");
        progress.read(NextOffset(7));
        progress.probed(Duration::from_secs(3), NextOffset(9));
        progress.read(NextOffset(8));
        assert_eq!(progress.current_at, Some(second), "the older question is answered first");
    }

    #[test]
    fn marks_of_transactions_are_no_records_that_are_missing() {
        let mut progress = Progress { next: NextOffset(5), ..Progress::default() };
        progress.read(NextOffset(6));
        progress.found_end();
        progress.probed(Duration::from_secs(1), NextOffset(7));
        assert_eq!(progress.current_at, Some(Duration::from_secs(1)), "the end was found before it was asked for");
        progress.probed(Duration::from_secs(2), NextOffset(8));
        assert_eq!(progress.current_at, Some(Duration::from_secs(1)), "and not found again since");
    }

    #[test]
    fn an_end_that_is_found_after_it_was_asked_for_is_reached() {
        let mut progress = Progress { next: NextOffset(5), ..Progress::default() };
        progress.probed(Duration::from_secs(1), NextOffset(6));
        progress.found_end();
        assert_eq!(progress.current_at, Some(Duration::from_secs(1)));
        progress.probed(Duration::from_secs(2), NextOffset(6));
        assert_eq!(progress.current_at, Some(Duration::from_secs(2)), "nothing has come since");
    }
}
