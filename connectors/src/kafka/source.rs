//! The consumer-group source.
//!
//! Rebalances are noted in the client's callback and answered by the loop: partitions that another member wants are
//! held until their offsets are committed ([`Source::release`]), so that a planned rebalance repeats nothing.
//!
//! A source that holds what it is assigned ([`KafkaSource::try_new_held`]) hands over no record of a partition until
//! [`KafkaSource::start_at`] says where it begins: who restores state decides that, and not the group's offsets.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::group::{self, Member, Noted};
use super::headers::Fetched;
use super::membership::Membership;
use super::properties::{KafkaProperties, Role};
use super::refused;
use super::start::{self, Joining, Reset};
use crate::error::ConnectorError;
use crate::record::{Headers, NextOffset, RecordRef, TopicPartition};
use crate::source::{AssignmentChange, Polled, Source};

/// Where a held partition is started before anybody says where. No record of it is handed over, so any number does; a
/// number spares the question where the group has committed, which an open transaction leaves unanswered for seconds.
const HELD_START: Offset = Offset::Offset(0);

/// Reads topics as a member of a consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<Member>,
    topics: Vec<String>,
    reset: Reset,
    /// The assigned partitions. If this source holds what it is assigned, what is next to hand over of them, and `None`
    /// while one waits to be started.
    assigned: BTreeMap<TopicPartition, Option<NextOffset>>,
    /// A revocation that was reported and not answered yet.
    revoked: Option<TopicPartitionList>,
    has_warned_of_return: bool,
}

impl KafkaSource {
    /// Joins `group` for `topics`; the client connects in the background. A topic that does not exist yet is waited
    /// for, with one warning. `client_id` shows in the brokers' metrics and quotas.
    ///
    /// # Errors
    /// librdkafka refuses a property or a topic name.
    pub fn try_new(
        properties: &KafkaProperties,
        group: &str,
        client_id: &str,
        topics: &[String],
    ) -> Result<Self, ConnectorError> {
        let own = [("group.id", group), ("client.id", client_id)];
        Self::subscribe(properties.create(Role::Consumer, &own, Member::default())?, topics)
    }

    /// As [`KafkaSource::try_new`], but no record of a partition is handed over between its assignment and
    /// [`KafkaSource::start_at`], and none twice afterwards, unless it is started again.
    ///
    /// # Errors
    /// librdkafka refuses a property or a topic name.
    pub fn try_new_held(
        properties: &KafkaProperties,
        group: &str,
        client_id: &str,
        topics: &[String],
    ) -> Result<Self, ConnectorError> {
        let own = [("group.id", group), ("client.id", client_id)];
        Self::subscribe(properties.create(Role::Consumer, &own, Member::holding())?, topics)
    }

    fn subscribe(joining: Joining, topics: &[String]) -> Result<Self, ConnectorError> {
        let Joining { consumer, reset } = joining;
        let (topics, assigned) = (topics.to_vec(), BTreeMap::new());
        let source = Self { consumer, topics, reset, assigned, revoked: None, has_warned_of_return: false };
        source.ask_for_topics()?;
        Ok(source)
    }

    fn ask_for_topics(&self) -> Result<(), ConnectorError> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&names).map_err(|error| refused("subscribe", &error))
    }

    /// Reads `topics` from now on, in place of those before: partitions come and go as in any rebalance. Nothing
    /// happens if they are the same.
    ///
    /// # Errors
    /// librdkafka refuses a topic name.
    pub fn read_topics(&mut self, topics: &[String]) -> Result<(), ConnectorError> {
        if self.topics == topics {
            return Ok(());
        }
        self.topics = topics.to_vec();
        self.ask_for_topics()
    }

    /// Who this member is in its group; `None` while it may not speak for its partitions: it has not joined, it was
    /// thrown out, or a rebalance has come that [`Source::poll`] has not told of yet. Between a revocation and its
    /// release it may: that is when the last of those partitions is committed.
    ///
    /// To be asked for anew for each transaction: the group moves on without telling those whose partitions stay.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        let is_settled = !self.consumer.context().has_noted();
        is_settled.then(|| Membership::fresh(&self.consumer)).flatten()
    }

    /// Hands over those of these partitions that are assigned, from these offsets on (`None`: from where
    /// `auto.offset.reset` says), whether they were held, just assigned or read elsewhere. Nothing that was fetched
    /// before is handed over afterwards. Returns where each of them was started.
    ///
    /// # Errors
    /// The broker cannot be asked where a partition begins, `auto.offset.reset=error`, or the client refuses. Some of
    /// the partitions may have been moved; those that were held still are.
    pub fn start_at(
        &mut self,
        starts: &[(TopicPartition, Option<NextOffset>)],
    ) -> Result<Vec<(TopicPartition, NextOffset)>, ConnectorError> {
        let assigned = starts.iter().filter(|(partition, _)| self.assigned.contains_key(partition));
        let starts = start::located(&self.consumer, self.reset, assigned)?;
        start::seek(&self.consumer, starts.clone())?;
        if self.is_holding() && starts.count() > 0 {
            self.let_go(&starts)?;
        }
        let mut started = Vec::with_capacity(starts.count());
        for element in starts.elements() {
            let Offset::Offset(start) = element.offset() else { continue };
            let partition = partition_of(&element);
            if let Some(next) = self.assigned.get_mut(&partition) {
                *next = Some(NextOffset(start));
            }
            started.push((partition, NextOffset(start)));
        }
        Ok(started)
    }

    /// Begins to fetch held partitions from where they were sent. Those that run already are left as they are.
    fn let_go(&self, starts: &TopicPartitionList) -> Result<(), ConnectorError> {
        // Twice: the client drops a call that crosses one of its own pauses during a rebalance, and does not say so.
        for _ in 0..2 {
            self.consumer.resume(starts).map_err(|error| refused("start partitions", &error))?;
        }
        // Being sent somewhere is what makes the client look for something to fetch; being let go is not, and being
        // sent to the beginning is not either.
        start::seek(&self.consumer, starts.clone())?;
        if self.assigned.values().any(Option::is_some) { Ok(()) } else { start::wake(&self.consumer, starts) }
    }

    /// Stops reading partitions until [`KafkaSource::start_at`].
    ///
    /// # Errors
    /// The client refuses.
    pub fn hold<'p>(&mut self, partitions: impl IntoIterator<Item = &'p TopicPartition>) -> Result<(), ConnectorError> {
        self.consumer.pause(&list_of(partitions)).map_err(|error| refused("hold partitions", &error))
    }

    /// The topics this source reads and their numbers of partitions, as a broker says now; topics that do not exist are
    /// left out. Waits at most `wait` for each topic.
    ///
    /// # Errors
    /// No broker answers, or we may not know.
    pub fn partitions(&self, wait: Duration) -> Result<Vec<(String, i32)>, ConnectorError> {
        let mut known = Vec::with_capacity(self.topics.len());
        for name in &self.topics {
            let asked = |error: KafkaError| refused("ask for the partitions of a topic", &error);
            let metadata = self.consumer.fetch_metadata(Some(name), wait).map_err(asked)?;
            for topic in metadata.topics().iter().filter(|topic| topic.name() == name) {
                match topic.error().map(RDKafkaErrorCode::from) {
                    None => known.push((name.clone(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))),
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
                    Some(code) => return Err(asked(KafkaError::MetadataFetch(code))),
                }
            }
        }
        Ok(known)
    }

    /// The end of what can be read of a partition, as its broker says now: the high watermark, or where the oldest open
    /// transaction begins.
    ///
    /// Where transactions end there are markers, which are never handed over: behind the last record of a partition
    /// that is written in transactions there is always at least one more offset.
    ///
    /// # Errors
    /// The broker does not answer within `wait`.
    pub fn end_of(&self, partition: &TopicPartition, wait: Duration) -> Result<NextOffset, ConnectorError> {
        let watermarks = self.consumer.fetch_watermarks(&partition.topic, partition.partition, wait);
        watermarks.map(|(_, high)| NextOffset(high)).map_err(|error| refused("ask where a partition ends", &error))
    }

    /// How many records of each assigned partition lie behind its committed offset, as the client's last statistics
    /// say (every `statistics.interval.ms`, 5 s). Partitions of which nothing was committed yet are left out.
    ///
    /// The client does not hear of offsets that are committed in a transaction: see [`KafkaSource::backlog`].
    #[must_use]
    pub fn lag(&self) -> Vec<(TopicPartition, i64)> {
        self.running(self.consumer.context().progress(|progress| progress.uncommitted))
    }

    /// How many records of each assigned partition were not handed over yet, as the client's last statistics say (every
    /// `statistics.interval.ms`, 5 s). Held partitions are left out, and those of which nothing is known.
    #[must_use]
    pub fn backlog(&self) -> Vec<(TopicPartition, i64)> {
        self.running(self.consumer.context().progress(|progress| progress.unread))
    }

    fn running(&self, mut figures: Vec<(TopicPartition, i64)>) -> Vec<(TopicPartition, i64)> {
        figures.retain(|(partition, _)| self.assigned.get(partition).is_some_and(Option::is_some));
        figures
    }

    fn is_holding(&self) -> bool {
        self.consumer.context().is_holding
    }

    /// Answers a noted rebalance, except for the revocation, which waits for [`Source::release`].
    fn answer(&mut self, noted: Noted) -> Result<AssignmentChange, ConnectorError> {
        match noted {
            Noted::Assign(list) => {
                self.take_over(&list).map_err(|error| refused("take over partitions", &error))?;
                let partitions = partitions_of(&list);
                let start = (!self.is_holding()).then_some(NextOffset(0));
                self.assigned.extend(partitions.iter().map(|partition| (partition.clone(), start)));
                Ok(AssignmentChange::Assigned(partitions))
            }
            Noted::Revoke { list, is_lost: true } => {
                let partitions = self.forget(&list);
                group::unassign(&self.consumer, &list).map_err(|error| refused("give up lost partitions", &error))?;
                Ok(AssignmentChange::Lost(partitions))
            }
            Noted::Revoke { list, is_lost: false } => {
                let partitions = self.forget(&list);
                assert!(self.revoked.is_none(), "a second revocation came before the first was released");
                self.revoked = Some(list);
                Ok(AssignmentChange::Revoked(partitions))
            }
        }
    }

    fn take_over(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        if !self.is_holding() {
            return group::assign(&self.consumer, list);
        }
        // A copy, which keeps what the client noted in the list besides offsets.
        let held = list.clone();
        for mut element in held.elements() {
            element.set_offset(HELD_START)?;
        }
        group::assign(&self.consumer, &held)?;
        // Whatever was fetched in between is dropped with it.
        self.consumer.pause(&held)
    }

    fn forget(&mut self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let partitions = partitions_of(list);
        for partition in &partitions {
            self.assigned.remove(partition);
        }
        partitions
    }

    fn next_noted(&mut self) -> Result<Option<Polled>, ConnectorError> {
        let noted = self.consumer.context().next_noted();
        noted.map(|noted| self.answer(noted).map(Polled::Assignment)).transpose()
    }
}

impl Source for KafkaSource {
    fn backlog(&self) -> Vec<(TopicPartition, i64)> {
        Self::backlog(self)
    }

    fn poll(&mut self, wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
        if let Some(change) = self.next_noted()? {
            return Ok(change);
        }
        let is_holding = self.is_holding();
        match self.consumer.poll(whole_ms(wait)) {
            Some(Ok(message))
                if is_holding && !is_due(&mut self.assigned, &message, &mut self.has_warned_of_return) => {}
            Some(Ok(message)) => {
                absorb(as_record(&message));
                return Ok(Polled::Record);
            }
            Some(Err(error)) if !is_recovered_by_the_client(&error) => return Err(refused("consume", &error)),
            Some(Err(_)) | None => {}
        }
        // A rebalance may have been noted while we waited; the client returns nothing then.
        Ok(self.next_noted()?.unwrap_or(Polled::Empty))
    }

    fn commit(&mut self, next: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError> {
        if next.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (partition, offset) in next {
            list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset.0))
                .map_err(|error| refused("commit offsets", &error))?;
        }
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| commit_error(&error))
    }

    fn release(&mut self, _partitions: &[TopicPartition]) -> Result<(), ConnectorError> {
        match self.revoked.take() {
            Some(list) => {
                group::unassign(&self.consumer, &list).map_err(|error| refused("release revoked partitions", &error))
            }
            None => Ok(()),
        }
    }
}

impl Drop for KafkaSource {
    /// Leaves the group. What was not committed will be read again by somebody.
    fn drop(&mut self) {
        let waiting = self.consumer.context().close();
        let revoked = self.revoked.take().map(|list| Noted::Revoke { list, is_lost: false });
        for noted in revoked.into_iter().chain(waiting) {
            group::answer_at_once(&self.consumer, &noted);
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(partition_of).collect()
}

fn partition_of(element: &TopicPartitionListElem<'_>) -> TopicPartition {
    TopicPartition::new(element.topic(), element.partition())
}

fn list_of<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Whether a message of a source that holds its partitions may be handed over.
///
/// The client was told by pausing and seeking, but it forgets: it drops a pause that crosses one of its own, and goes
/// back to the beginning of a partition if it learns late that it had looked for records which are deleted.
fn is_due(
    assigned: &mut BTreeMap<TopicPartition, Option<NextOffset>>,
    message: &BorrowedMessage<'_>,
    has_warned: &mut bool,
) -> bool {
    let is_of = |p: &TopicPartition| p.partition == message.partition() && *p.topic == *message.topic();
    let Some((partition, Some(next))) = assigned.iter_mut().find(|(partition, _)| is_of(partition)) else {
        return false;
    };
    let is_due = message.offset() >= next.0;
    if is_due {
        *next = NextOffset::after(message.offset());
    } else if !mem::replace(has_warned, true) {
        let (offset, next) = (message.offset(), next.0);
        tracing::warn!(%partition, offset, next, "the client went back: what was handed over already is skipped");
    }
    is_due
}

/// The client spins through what is less than a millisecond.
fn whole_ms(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

pub(super) fn as_record<'a>(message: &'a BorrowedMessage<'_>) -> RecordRef<'a> {
    RecordRef {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        payload: message.payload(),
        headers: Headers::fetched(Fetched::of(message)),
    }
}

/// Errors that the client reports and then repairs: it reconnects, rejoins and asks again by itself.
pub(super) fn is_recovered_by_the_client(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::PartitionEOF(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::RequestTimedOut
                | Code::NetworkException
                | Code::WaitingForCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotCoordinator
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::PollExceeded
                | Code::ThrottlingQuotaExceeded
        ),
        _ => false,
    }
}

fn commit_error(error: &KafkaError) -> ConnectorError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(
            Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::StaleMemberEpoch
            | Code::FencedMemberEpoch
            | Code::AssignmentLost,
        ) => ConnectorError::Rebalanced { message: error.to_string() },
        _ => refused("commit offsets", error),
    }
}

#[cfg(test)]
mod tests;
