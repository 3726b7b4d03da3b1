//! The consumer-group source.
//!
//! Rebalances are noted in the client's callback and answered by the loop: partitions that another member wants are
//! held until their offsets are committed ([`Source::release`]), so that a planned rebalance repeats nothing. The
//! callback itself never waits, because it runs inside `poll`.
//!
//! Invariant: while the client is being dropped every rebalance is answered in the callback; otherwise it would wait
//! for an answer for ever.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::properties::{KafkaProperties, Role};
use super::{log, refused};
use crate::error::ConnectorError;
use crate::record::{NextOffset, RecordRef, TopicPartition};
use crate::source::{AssignmentChange, Polled, Source};
use lictor_schemas::time::EventTime;

/// Reads topics as a member of a consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<Member>,
    assigned: BTreeSet<TopicPartition>,
    /// A revocation that was reported and not answered yet.
    revoked: Option<TopicPartitionList>,
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
        let consumer: BaseConsumer<Member> = properties.create(Role::Consumer, &own, Member::default())?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| refused("subscribe", &error))?;
        Ok(Self { consumer, assigned: BTreeSet::new(), revoked: None })
    }

    /// How many records of each assigned partition lie behind its committed offset, as the client's last statistics
    /// say (every `statistics.interval.ms`, 5 s). Partitions of which nothing was committed yet are left out.
    #[must_use]
    pub fn lag(&self) -> Vec<(TopicPartition, i64)> {
        let known = lock(&self.consumer.context().lag);
        known.iter().filter(|(partition, _)| self.assigned.contains(partition)).cloned().collect()
    }

    /// Answers a noted rebalance, except for the revocation, which waits for [`Source::release`].
    fn answer(&mut self, noted: Noted) -> Result<AssignmentChange, ConnectorError> {
        match noted {
            Noted::Assign(list) => {
                assign(&self.consumer, &list).map_err(|error| refused("take over partitions", &error))?;
                let partitions = partitions_of(&list);
                self.assigned.extend(partitions.iter().cloned());
                Ok(AssignmentChange::Assigned(partitions))
            }
            Noted::Revoke { list, is_lost: true } => {
                let partitions = self.forget(&list);
                unassign(&self.consumer, &list).map_err(|error| refused("give up lost partitions", &error))?;
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

    fn forget(&mut self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let partitions = partitions_of(list);
        for partition in &partitions {
            self.assigned.remove(partition);
        }
        partitions
    }

    fn next_noted(&mut self) -> Result<Option<Polled>, ConnectorError> {
        let noted = lock(&self.consumer.context().noted).pop_front();
        noted.map(|noted| self.answer(noted).map(Polled::Assignment)).transpose()
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
        if let Some(change) = self.next_noted()? {
            return Ok(change);
        }
        match self.consumer.poll(wait) {
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
                unassign(&self.consumer, &list).map_err(|error| refused("release revoked partitions", &error))
            }
            None => Ok(()),
        }
    }

    fn replay(
        &mut self,
        partitions: &[TopicPartition],
        since: EventTime,
    ) -> Result<Vec<(TopicPartition, NextOffset)>, ConnectorError> {
        // A rebalance may leave a member as it is or with nothing; the broker refuses a question about no partition.
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let plan = super::replay::plan(&self.consumer, partitions, since)?;
        if !plan.targets.is_empty() {
            // A partition whose fetcher has not started yet cannot be sought: give it up and take it again elsewhere.
            unassign(&self.consumer, &plan.starts).map_err(|error| refused("replay partitions", &error))?;
            assign(&self.consumer, &plan.starts).map_err(|error| refused("replay partitions", &error))?;
        }
        Ok(plan.targets)
    }

    fn hold(&mut self, partition: &TopicPartition) -> Result<(), ConnectorError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&partition.topic, partition.partition);
        self.consumer.pause(&list).map_err(|error| refused("hold a partition", &error))
    }

    fn resume(&mut self) -> Result<(), ConnectorError> {
        let mut list = TopicPartitionList::with_capacity(self.assigned.len());
        for partition in &self.assigned {
            list.add_partition(&partition.topic, partition.partition);
        }
        self.consumer.resume(&list).map_err(|error| refused("resume partitions", &error))
    }
}

impl Drop for KafkaSource {
    /// Leaves the group. What was not committed will be read again by somebody.
    fn drop(&mut self) {
        self.consumer.context().is_closing.store(true, Ordering::Release);
        let waiting = mem::take(&mut *lock(&self.consumer.context().noted));
        let revoked = self.revoked.take().map(|list| Noted::Revoke { list, is_lost: false });
        for noted in revoked.into_iter().chain(waiting) {
            if let Err(error) = answer_at_once(&self.consumer, &noted) {
                tracing::warn!(%error, "could not answer a rebalance while leaving the group");
            }
        }
    }
}

/// A rebalance that waits for the loop.
enum Noted {
    Assign(TopicPartitionList),
    Revoke { list: TopicPartitionList, is_lost: bool },
}

/// What the client tells us inside `poll`.
#[derive(Default)]
struct Member {
    noted: Mutex<VecDeque<Noted>>,
    lag: Mutex<Vec<(TopicPartition, i64)>>,
    is_closing: AtomicBool,
    has_warned_of_missing_topic: AtomicBool,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let is_missing = error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition);
        if is_missing && !self.has_warned_of_missing_topic.swap(true, Ordering::Relaxed) {
            tracing::warn!("waiting for a topic to be created: {reason}");
        }
        log::global_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let known = statistics.topics.values().flat_map(|topic| {
            let name = &topic.topic;
            let partitions = topic.partitions.values().filter(|p| p.partition >= 0 && p.consumer_lag >= 0);
            partitions.map(move |p| (TopicPartition::new(name, p.partition), p.consumer_lag))
        });
        *lock(&self.lag) = known.collect();
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let noted = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Noted::Assign(list.clone()),
            _ => Noted::Revoke { list: list.clone(), is_lost: consumer.assignment_lost() },
        };
        if !self.is_closing.load(Ordering::Acquire) {
            lock(&self.noted).push_back(noted);
        } else if let Err(error) = answer_at_once(consumer, &noted) {
            tracing::warn!(%error, "could not answer a rebalance while leaving the group");
        }
    }
}

/// A panic elsewhere leaves these lists as they were before or after one whole change.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer_at_once(consumer: &BaseConsumer<Member>, noted: &Noted) -> KafkaResult<()> {
    match noted {
        Noted::Assign(list) => assign(consumer, list),
        Noted::Revoke { list, .. } => unassign(consumer, list),
    }
}

fn assign(consumer: &BaseConsumer<Member>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(list),
    }
}

fn unassign(consumer: &BaseConsumer<Member>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

fn as_record<'a>(message: &'a BorrowedMessage<'_>) -> RecordRef<'a> {
    RecordRef {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        payload: message.payload(),
    }
}

/// Errors that the client reports and then repairs: it reconnects, rejoins and asks again by itself.
fn is_recovered_by_the_client(error: &KafkaError) -> bool {
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
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::embedded::EmbeddedBroker;
    use crate::error::Retry;
    use crate::kafka::KafkaSink;
    use crate::record::Outgoing;
    use crate::sink::Sink;

    /// One look of the loop; long enough that a test needs few of them.
    const LOOK: Duration = Duration::from_millis(100);
    /// 300 looks are half a minute: a group's first assignment takes three seconds here.
    const LOOKS_MAX: usize = 300;

    type Copied = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn publish(broker: &EmbeddedBroker, topic: &str, messages: &[(&str, Option<&str>)]) {
        let mut sink = KafkaSink::try_new(&broker.properties(), "test-out").unwrap();
        for (key, payload) in messages {
            let headers = vec![("traceparent".to_string(), b"00-1-2-01".to_vec())];
            let (key, payload) = (Some(key.as_bytes().to_vec()), payload.map(|text| text.as_bytes().to_vec()));
            sink.publish(&Outgoing { topic: topic.to_string(), key, payload, headers }).unwrap();
        }
        sink.flush().unwrap();
    }

    fn source(broker: &EmbeddedBroker, group: &str) -> KafkaSource {
        KafkaSource::try_new(&broker.properties(), group, "test-in", &["spans".to_string()]).unwrap()
    }

    /// Polls until `count` records came, releasing whatever is revoked meanwhile.
    #[track_caller]
    fn read(source: &mut KafkaSource, count: usize) -> Vec<Copied> {
        let mut records = Vec::new();
        for _ in 0..LOOKS_MAX {
            let polled = source.poll(LOOK, &mut |r| {
                records.push((r.partition, r.offset, r.key.map(<[u8]>::to_vec), r.payload.map(<[u8]>::to_vec)));
            });
            if let Polled::Assignment(AssignmentChange::Revoked(partitions)) = polled.unwrap() {
                source.release(&partitions).unwrap();
            }
            if records.len() == count {
                return records;
            }
        }
        panic!("{} of {count} records came", records.len());
    }

    #[track_caller]
    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        (0..LOOKS_MAX).find_map(|_| look()).expect("the condition did not come true in time")
    }

    fn spans() -> TopicPartition {
        TopicPartition::new("spans", 0)
    }

    #[test]
    fn keys_tombstones_and_order_survive_the_way_through_the_broker() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one")), ("a", None), ("b", Some(""))]);
        let records = read(&mut source(&broker, "g"), 3);
        let expected: Vec<Copied> = [("a", Some("one")), ("a", None), ("b", Some(""))]
            .iter()
            .zip(0..)
            .map(|((key, payload), offset)| {
                (0, offset, Some(key.as_bytes().to_vec()), payload.map(|p| p.as_bytes().to_vec()))
            })
            .collect();
        assert_eq!(records, expected);
    }

    #[test]
    fn headers_and_timestamps_arrive() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one"))]);
        let mut source = source(&broker, "g");
        let (headers, stamped_ms) = until(|| {
            source.next_noted().unwrap();
            let polled = source.consumer.poll(LOOK)?;
            let message = polled.ok()?;
            let header = rdkafka::message::Headers::get(message.headers()?, 0);
            Some(((header.key.to_string(), header.value.map(<[u8]>::to_vec)), as_record(&message).timestamp_ms))
        });
        assert_eq!(headers, ("traceparent".to_string(), Some(b"00-1-2-01".to_vec())));
        assert!(stamped_ms > 1_600_000_000_000, "{stamped_ms}");
    }

    #[test]
    fn a_new_member_continues_at_the_committed_offset() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one")), ("a", Some("two")), ("a", Some("three"))]);
        let mut first = source(&broker, "g");
        let offset_of_two = read(&mut first, 3)[1].1;
        first.commit(&[(spans(), NextOffset::after(offset_of_two))]).unwrap();
        drop(first);
        let again = read(&mut source(&broker, "g"), 1);
        assert_eq!(again[0].3.as_deref(), Some(b"three".as_slice()));
    }

    #[test]
    fn a_commit_during_a_rebalance_is_a_typed_error_that_may_be_retried() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one"))]);
        let mut source = source(&broker, "g");
        read(&mut source, 1);
        broker
            .on_thread(|cluster| {
                let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 1];
                cluster.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
            })
            .unwrap();
        let error = source.commit(&[(spans(), NextOffset(1))]).unwrap_err();
        assert!(matches!(error, ConnectorError::Rebalanced { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Backoff);
    }

    #[test]
    fn a_refused_authorisation_is_the_users_fault() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one"))]);
        let mut source = source(&broker, "g");
        read(&mut source, 1);
        broker
            .on_thread(|cluster| {
                let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 1];
                cluster.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
            })
            .unwrap();
        let error = source.commit(&[(spans(), NextOffset(1))]).unwrap_err();
        assert_eq!((error.fault(), error.retry()), (crate::error::Fault::User, Retry::Never), "{error}");
    }

    #[test]
    fn a_topic_that_is_created_later_is_read_from_its_beginning() {
        let broker = EmbeddedBroker::start(&[]).unwrap();
        let mut source = source(&broker, "g");
        for _ in 0..5 {
            assert_eq!(source.poll(LOOK, &mut |_| panic!("nothing was published")).unwrap(), Polled::Empty);
        }
        broker.create_topic("spans", 1).unwrap();
        publish(&broker, "spans", &[("a", Some("one"))]);
        assert_eq!(read(&mut source, 1)[0].1, 0);
    }

    #[test]
    fn a_broker_that_is_away_is_waited_for() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        publish(&broker, "spans", &[("a", Some("one"))]);
        let mut source = source(&broker, "g");
        read(&mut source, 1);
        broker.take_down().unwrap();
        for _ in 0..5 {
            assert_eq!(source.poll(LOOK, &mut |_| panic!("nothing was published")).unwrap(), Polled::Empty);
        }
        broker.bring_up().unwrap();
        publish(&broker, "spans", &[("a", Some("two"))]);
        assert_eq!(read(&mut source, 1)[0].1, 1);
    }

    #[test]
    fn lag_counts_what_is_not_committed_yet() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        let properties = broker.properties().with("consumer.statistics.interval.ms", "50").unwrap();
        publish(&broker, "spans", &[("a", Some("one")), ("a", Some("two")), ("a", Some("three"))]);
        let mut source = KafkaSource::try_new(&properties, "g", "test-in", &["spans".to_string()]).unwrap();
        read(&mut source, 3);
        source.commit(&[(spans(), NextOffset(1))]).unwrap();
        until(|| {
            source.poll(LOOK, &mut |_| panic!("nothing more was published")).unwrap();
            (source.lag() == [(spans(), 2)]).then_some(())
        });
    }

    #[test]
    fn partitions_move_only_after_their_holder_has_released_them() {
        let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
        let mut first = source(&broker, "g");
        until(|| {
            first.poll(LOOK, &mut |_| ()).unwrap();
            (first.assigned.len() == 2).then_some(())
        });
        let mut second = source(&broker, "g");
        let revoked = until(|| {
            second.poll(Duration::ZERO, &mut |_| ()).unwrap();
            match first.poll(LOOK, &mut |_| ()).unwrap() {
                Polled::Assignment(AssignmentChange::Revoked(partitions)) => Some(partitions),
                _ => None,
            }
        });
        assert_eq!(revoked.len(), 1);
        assert!(second.assigned.is_empty());
        first.commit(&[(revoked[0].clone(), NextOffset(0))]).unwrap();
        first.release(&revoked).unwrap();
        until(|| {
            first.poll(Duration::ZERO, &mut |_| ()).unwrap();
            second.poll(LOOK, &mut |_| ()).unwrap();
            (second.assigned.len() == 1).then_some(())
        });
        assert_eq!(second.assigned.iter().collect::<Vec<_>>(), revoked.iter().collect::<Vec<_>>());
        assert_eq!(first.assigned.len(), 1);
    }

    #[test]
    fn a_source_with_an_unanswered_revocation_can_be_dropped() {
        let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
        let mut first = source(&broker, "g");
        until(|| {
            first.poll(LOOK, &mut |_| ()).unwrap();
            (first.assigned.len() == 2).then_some(())
        });
        let mut second = source(&broker, "g");
        until(|| {
            second.poll(Duration::ZERO, &mut |_| ()).unwrap();
            first.poll(LOOK, &mut |_| ()).unwrap();
            first.revoked.is_some().then_some(())
        });
        drop(first);
        until(|| {
            second.poll(LOOK, &mut |_| ()).unwrap();
            (second.assigned.len() == 2).then_some(())
        });
    }
}
