//! What the client tells a member of a consumer group, noted until the loop has time for it.
//!
//! The client speaks inside `poll`, and only there. Its callback never waits and never answers: what to do about a
//! rebalance is decided by the loop, which may want to commit first.
//!
//! Invariant: while the client is being dropped every rebalance is answered in the callback; otherwise it would wait
//! for an answer for ever.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::log;
use crate::record::TopicPartition;

/// A rebalance that waits for the loop.
pub(super) enum Noted {
    Assign(TopicPartitionList),
    Revoke { list: TopicPartitionList, is_lost: bool },
}

/// How far a partition has been read, as the client's last statistics say; `None` where they say nothing.
pub(super) struct Progress {
    /// Records behind the offset that this client committed or found committed.
    pub(super) uncommitted: Option<i64>,
    /// Records that were not handed over yet.
    pub(super) unread: Option<i64>,
}

impl Progress {
    fn from_statistics(partition: &Partition) -> Self {
        // Behind the last record handed over there may be nothing but the markers of transactions, which are never
        // handed over. The client has fetched to the end then, and holds nothing ready.
        let position = if partition.fetchq_cnt == 0 { partition.next_offset } else { partition.app_offset };
        let is_known = position >= 0 && partition.ls_offset >= position;
        Self {
            uncommitted: (partition.consumer_lag >= 0).then_some(partition.consumer_lag),
            unread: is_known.then_some(partition.ls_offset - position),
        }
    }
}

/// What the client tells us inside `poll`.
#[derive(Default)]
pub(super) struct Member {
    /// Whether partitions are started by the loop, and never by the client.
    pub(super) is_holding: bool,
    noted: Mutex<VecDeque<Noted>>,
    progress: Mutex<Vec<(TopicPartition, Progress)>>,
    is_closing: AtomicBool,
    has_warned_of_missing_topic: AtomicBool,
}

impl Member {
    /// A member whose partitions are started by the loop.
    pub(super) fn holding() -> Self {
        Self { is_holding: true, ..Self::default() }
    }

    /// The oldest rebalance that is not answered yet. It must be answered before the next one is asked for.
    pub(super) fn next_noted(&self) -> Option<Noted> {
        lock(&self.noted).pop_front()
    }

    pub(super) fn has_noted(&self) -> bool {
        !lock(&self.noted).is_empty()
    }

    /// One figure of each partition that has it.
    pub(super) fn progress(&self, figure: impl Fn(&Progress) -> Option<i64>) -> Vec<(TopicPartition, i64)> {
        let known = lock(&self.progress);
        known.iter().filter_map(|(partition, progress)| Some((partition.clone(), figure(progress)?))).collect()
    }

    /// From now on rebalances are answered at once. Returns those that wait.
    pub(super) fn close(&self) -> VecDeque<Noted> {
        self.is_closing.store(true, Ordering::Release);
        mem::take(&mut *lock(&self.noted))
    }
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
            // -1 stands for "no partition yet", which is of interest to producers.
            let partitions = topic.partitions.values().filter(|p| p.partition >= 0);
            partitions.map(move |p| (TopicPartition::new(name, p.partition), Progress::from_statistics(p)))
        });
        *lock(&self.progress) = known.collect();
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let noted = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Noted::Assign(list.clone()),
            _ => Noted::Revoke { list: list.clone(), is_lost: consumer.assignment_lost() },
        };
        if self.is_closing.load(Ordering::Acquire) {
            answer_at_once(consumer, &noted);
        } else {
            lock(&self.noted).push_back(noted);
        }
    }
}

/// A panic elsewhere leaves these lists as they were before or after one whole change.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers while the group is being left: nothing can be done about a refusal any more.
pub(super) fn answer_at_once(consumer: &BaseConsumer<Member>, noted: &Noted) {
    let answered = match noted {
        Noted::Assign(list) => assign(consumer, list),
        Noted::Revoke { list, .. } => unassign(consumer, list),
    };
    if let Err(error) = answered {
        tracing::warn!(%error, "could not answer a rebalance while leaving the group");
    }
}

/// Takes `list` over. Only to be called as the answer to an assignment.
pub(super) fn assign(consumer: &BaseConsumer<Member>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(list),
    }
}

/// Gives `list` up. Only to be called as the answer to a revocation: to the client, whatever is given up while a
/// revocation waits is the answer to it.
pub(super) fn unassign(consumer: &BaseConsumer<Member>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
