//! Reads what others left: where the group has committed, and whole partitions that hold state.
//!
//! Two clients, because each sees another end of a partition. The records are read by one with
//! `isolation.level=read_committed`. To it a partition ends where the oldest open transaction begins: after a
//! predecessor that died in the middle of one there would seem to be less state than there is. So the other one, with
//! `isolation.level=read_uncommitted`, says where the partition really ends, and until the first can see that far the
//! broker is waited for, which aborts what its producer left open.
//!
//! Both live as long as their stage: a new client needs half a second for its first answer, a connected one some
//! milliseconds.

use std::ops::{ControlFlow, Range};
use std::thread;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::log::Logged;
use super::membership::OutsideOfGroup;
use super::properties::{KafkaProperties, Role};
use super::refused;
use super::source::{as_record, is_recovered_by_the_client};
use crate::error::{ConnectorError, Fault, Retry};
use crate::record::{NextOffset, RecordRef, TopicPartition};

/// How long one look for records lasts, and the pause between two questions.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long a client may tell us what happened to it: it takes all of that time, whether it has news or not.
const LISTEN: Duration = Duration::from_millis(1);
/// How long a broker may take for one answer before it is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What both clients are, whatever was written for consumers.
const OURS: &[(&str, &str)] = &[
    // The beginning of a partition may move on while we go there.
    ("auto.offset.reset", "earliest"),
    ("enable.partition.eof", "true"),
    // The last fetch of a restore finds nothing, and waits this long for it.
    ("fetch.wait.max.ms", "10"),
    ("statistics.interval.ms", "0"),
];

/// What concerns members of a group only, which these clients never are.
const OF_MEMBERS: &[&str] = &["group.instance.id", "group.protocol", "group.remote.assignor"];

/// Where a group has committed a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What its next holder reads first.
    pub next: NextOffset,
    /// The text that was committed with it.
    pub metadata: String,
}

/// Asks where a group is, and reads partitions to their end.
///
/// Everything blocks, so it belongs on a thread of its own: the member it restores for must go on being polled.
pub struct KafkaRestorer {
    committed: ReadCommitted,
    uncommitted: ReadUncommitted,
}

impl KafkaRestorer {
    /// Creates the clients; they connect in the background and never join `group`.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn try_new(properties: &KafkaProperties, group: &str, client_id: &str) -> Result<Self, ConnectorError> {
        let own = [("group.id", group), ("client.id", client_id)];
        let committed = properties.create(Role::Consumer, &own, Logged::default())?;
        let uncommitted = properties.create(Role::Consumer, &own, Logged::default())?;
        Ok(Self { committed, uncommitted })
    }

    /// The group as one that nobody joins, to commit its offsets.
    ///
    /// # Errors
    /// The client has none; it always has.
    pub fn outside_of_group(&self) -> Result<OutsideOfGroup, ConnectorError> {
        OutsideOfGroup::of(&self.committed.0).ok_or_else(|| ConnectorError::Kafka {
            action: "commit offsets of a group that nobody joins",
            message: "the client knows no group".to_owned(),
            fault: Fault::Internal,
            retry: Retry::Never,
        })
    }

    /// Where the group has committed, in the order of `partitions`; `None` where it never has.
    ///
    /// If offsets are part of an open transaction, its end is waited for.
    ///
    /// # Errors
    /// The broker refuses, or has no answer within about `wait`.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<Vec<(TopicPartition, Option<Committed>)>, ConnectorError> {
        // The broker refuses a question about no partition.
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut patience = Patience::new(wait);
        patience.ask("ask for committed offsets", |wait| committed(&self.committed.0, partitions, wait))
    }

    /// The first offset that a partition still has.
    ///
    /// # Errors
    /// The broker refuses, or has no answer within about `wait`.
    pub fn begin_of(&self, partition: &TopicPartition, wait: Duration) -> Result<NextOffset, ConnectorError> {
        let mut patience = Patience::new(wait);
        patience.ask_for_ends(&self.uncommitted.0, partition).map(|(low, _)| NextOffset(low))
    }

    /// Where a partition ends for readers of committed records.
    ///
    /// # Errors
    /// The broker refuses, or has no answer within about `wait`.
    pub fn end_of(&self, partition: &TopicPartition, wait: Duration) -> Result<NextOffset, ConnectorError> {
        let mut patience = Patience::new(wait);
        patience.ask_for_ends(&self.committed.0, partition).map(|(_, high)| NextOffset(high))
    }

    /// Hands over every record of a partition that is not part of an aborted transaction, tombstones too, from its
    /// beginning to where it ends at the time of the call, and returns their number. The ends of open transactions are
    /// waited for.
    ///
    /// # Errors
    /// The broker refuses, or the end was not reached within about `wait`. The error names partition and offset; what
    /// was handed over is only a part then.
    pub fn read(
        &mut self,
        partition: &TopicPartition,
        wait: Duration,
        absorb: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<u64, ConnectorError> {
        let mut patience = Patience::new(wait);
        let (low, high) = patience.ask_for_ends(&self.uncommitted.0, partition)?;
        if low == high {
            return Ok(0);
        }
        self.wait_until_settled(partition, high, &mut patience)?;
        self.read_assigned(partition, low..high, &mut patience, &mut |record| {
            absorb(record);
            ControlFlow::Continue(())
        })
    }

    /// Hands over the records of a partition between two offsets, the second exclusive, until it is told to break;
    /// returns their number. The end must have been read by a reader of committed records before; what lies before the
    /// beginning of the partition was deleted.
    ///
    /// # Errors
    /// The broker refuses, or has nothing to hand over for about `wait`.
    pub fn read_between(
        &mut self,
        partition: &TopicPartition,
        offsets: Range<NextOffset>,
        wait: Duration,
        absorb: &mut dyn FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ConnectorError> {
        if offsets.is_empty() {
            return Ok(0);
        }
        self.read_assigned(partition, offsets.start.0..offsets.end.0, &mut Patience::new(wait), absorb)
    }

    /// The first offset whose record, and all that follow, the broker got at `at_ms` (milliseconds since the epoch) or
    /// later; none if there is no such record.
    ///
    /// # Errors
    /// The broker refuses, or has no answer within about `wait`.
    pub fn offset_at(
        &self,
        partition: &TopicPartition,
        at_ms: i64,
        wait: Duration,
    ) -> Result<Option<NextOffset>, ConnectorError> {
        let mut asked = TopicPartitionList::with_capacity(1);
        asked
            .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(at_ms.max(0)))
            .map_err(|error| not_read(&error))?;
        let mut patience = Patience::new(wait);
        let answered = patience
            .ask("ask for an offset by time", |wait| self.committed.0.offsets_for_times(asked.clone(), wait))?;
        let found = answered.find_partition(&partition.topic, partition.partition);
        Ok(found.and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(NextOffset(offset)),
            _ => None,
        }))
    }

    fn read_assigned(
        &mut self,
        partition: &TopicPartition,
        offsets: Range<i64>,
        patience: &mut Patience,
        absorb: &mut dyn FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ConnectorError> {
        // By number, which needs no further question.
        let mut start = TopicPartitionList::with_capacity(1);
        start
            .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offsets.start))
            .and_then(|()| self.committed.0.assign(&start))
            .map_err(|error| not_read(&error))?;
        let read = self.read_to(partition, offsets, patience, absorb);
        self.committed.0.unassign().map_err(|error| not_read(&error))?;
        read
    }

    /// Returns when no open transaction begins before `high`.
    fn wait_until_settled(
        &self,
        partition: &TopicPartition,
        high: i64,
        patience: &mut Patience,
    ) -> Result<(), ConnectorError> {
        loop {
            let (_, settled) = patience.ask_for_ends(&self.committed.0, partition)?;
            if settled >= high {
                return Ok(());
            }
            if !patience.outlasts(LOOK) {
                let message = format!("{partition} is {high} long, but a transaction is open since offset {settled}");
                return Err(patience.lost(message));
            }
            thread::sleep(LOOK);
        }
    }

    /// Reads the partition that is assigned.
    fn read_to(
        &self,
        partition: &TopicPartition,
        offsets: Range<i64>,
        patience: &mut Patience,
        absorb: &mut dyn FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ConnectorError> {
        let (mut next, mut records) = (offsets.start, 0);
        while next < offsets.end {
            match self.committed.0.poll(LOOK) {
                Some(Ok(message)) => {
                    // Written since we asked for the end.
                    if message.offset() >= offsets.end {
                        break;
                    }
                    next = NextOffset::after(message.offset()).0;
                    records += 1;
                    if absorb(as_record(&message)).is_break() {
                        break;
                    }
                }
                // Only markers and aborted records lie behind the last one: the end is settled, so this is it.
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) if !is_recovered_by_the_client(&error) => return Err(not_read(&error)),
                Some(Err(_)) => {}
                None if patience.outlasts(LOOK) => {}
                None => {
                    let message = format!("{partition} was read to offset {next} of {}", offsets.end);
                    return Err(patience.lost(message));
                }
            }
        }
        Ok(records)
    }
}

fn committed(
    consumer: &BaseConsumer<Logged>,
    partitions: &[TopicPartition],
    wait: Duration,
) -> KafkaResult<Vec<(TopicPartition, Option<Committed>)>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition(&partition.topic, partition.partition);
    }
    let answered = consumer.committed_offsets(asked, wait)?;
    let committed = |partition: &TopicPartition| -> KafkaResult<Option<Committed>> {
        let Some(element) = answered.find_partition(&partition.topic, partition.partition) else { return Ok(None) };
        element.error()?;
        let Offset::Offset(next) = element.offset() else { return Ok(None) };
        Ok(Some(Committed { next: NextOffset(next), metadata: element.metadata().to_string() }))
    };
    partitions.iter().map(|partition| Ok((partition.clone(), committed(partition)?))).collect()
}

/// What is left of the caller's wait, counted in what was waited for: time is the engine's to measure.
pub(super) struct Patience {
    whole: Duration,
    left: Duration,
}

impl Patience {
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, left: whole }
    }

    /// Whether something is left after waiting so long.
    pub(super) fn outlasts(&mut self, waited: Duration) -> bool {
        self.left = self.left.saturating_sub(waited);
        !self.left.is_zero()
    }

    pub(super) fn lost(&self, message: String) -> ConnectorError {
        let message = format!("{message} after {:?}", self.whole);
        ConnectorError::Kafka { action: "read a partition", message, fault: Fault::External, retry: Retry::Backoff }
    }

    /// First and next offset of a partition as this client is allowed to see it.
    pub(super) fn ask_for_ends(
        &mut self,
        consumer: &BaseConsumer<Logged>,
        partition: &TopicPartition,
    ) -> Result<(i64, i64), ConnectorError> {
        // Log lines and errors wait in a client until somebody polls it, and one of ours never reads anything.
        consumer.poll(LISTEN);
        self.ask("ask where a partition ends", |wait| {
            consumer.fetch_watermarks(&partition.topic, partition.partition, wait)
        })
    }

    /// Asks until there is an answer, or a refusal that asking again does not change.
    pub(super) fn ask<A>(
        &mut self,
        action: &'static str,
        question: impl Fn(Duration) -> KafkaResult<A>,
    ) -> Result<A, ConnectorError> {
        loop {
            let wait = self.left.min(ANSWER_MAX);
            let error = match question(wait) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (waited, pause) = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::OperationTimedOut) => (wait, Duration::ZERO),
                _ => (Duration::ZERO, LOOK),
            };
            let refusal = refused(action, &error);
            if refusal.retry() == Retry::Never || !self.outlasts(waited + pause) {
                return Err(refusal);
            }
            thread::sleep(pause);
        }
    }
}

fn not_read(error: &KafkaError) -> ConnectorError {
    refused("read a partition", error)
}

/// Sees what was committed.
pub(super) struct ReadCommitted(pub(super) BaseConsumer<Logged>);

/// Sees everything, and belongs to no group.
struct ReadUncommitted(BaseConsumer<Logged>);

impl FromClientConfigAndContext<Logged> for ReadCommitted {
    fn from_config_and_context(config: &ClientConfig, context: Logged) -> KafkaResult<Self> {
        let mut config = outside_of_groups(config);
        config.set("isolation.level", "read_committed");
        BaseConsumer::from_config_and_context(&config, context).map(Self)
    }
}

impl FromClientConfigAndContext<Logged> for ReadUncommitted {
    fn from_config_and_context(config: &ClientConfig, context: Logged) -> KafkaResult<Self> {
        let mut config = outside_of_groups(config);
        config.set("isolation.level", "read_uncommitted");
        config.remove("group.id");
        BaseConsumer::from_config_and_context(&config, context).map(Self)
    }
}

fn outside_of_groups(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    for name in OF_MEMBERS {
        config.remove(name);
    }
    for (name, value) in OURS {
        config.set(*name, *value);
    }
    config
}
