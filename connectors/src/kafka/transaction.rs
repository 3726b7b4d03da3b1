//! The transactional, keyed producer: messages and the offsets they were derived from become visible together or not
//! at all.
//!
//! A transaction opens with its first message and ends with the offsets: they are its last write, so that the broker's
//! check of the member that sends them covers everything before. A process that was stopped and whose partitions went
//! to somebody else is refused there, and an older process with the same transactional id is refused everywhere.
//!
//! What an error means is decided by librdkafka and only passed on here. A retriable one is answered inside the call;
//! [`TransactionError::Abort`] asks the caller to abort, to go back to what is committed and to begin anew;
//! [`TransactionError::Fatal`] ends the process.
//!
//! Invariant: no transaction is committed without offsets, and none after the delivery of one of its messages failed.

use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

use super::membership::{Membership, OutsideOfGroup};
use super::properties::{KafkaProperties, Role};
use super::sink::{Deliveries, as_record, bytes_of, look_for_acknowledgements};
use super::{judge, refused};
use crate::error::{ConnectorError, Retry};
use crate::failpoint;
use crate::record::{NextOffset, Outgoing, TopicPartition};

/// How often the broker is asked for the transactional id before patience ends; the client's own log lines are served
/// in between.
const INIT_ASKS: u32 = 10;
/// How long the group's coordinator may take to accept offsets. librdkafka repeats what can be repeated meanwhile.
const OFFSETS_WAIT: Duration = Duration::from_secs(10);
/// How long one call of an abort waits. Long against librdkafka's inner steps, which must not time out on a busy
/// machine, and short enough that delivery reports are served in between.
const ABORT_WAIT: Duration = Duration::from_secs(1);
/// How long an abort waits for messages that are under way before librdkafka purges those that wait for a broker: 200
/// looks in vain are 100 ms.
const ABORT_LOOKS_MAX: usize = 200;
/// The pause before a retriable call is made again; without it a coordinator that is away is asked in a tight loop.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Publishes in transactions. One value has at most one open transaction.
///
/// Every call blocks: milliseconds as a rule, until the brokers are back if they are away. Dropping it with an open
/// transaction leaves it to the next owner of the transactional id, or to the broker after `transaction.timeout.ms`.
pub struct KafkaTransactions {
    producer: BaseProducer<Deliveries>,
    transactional_id: String,
    /// Names the failpoints.
    stage: &'static str,
    is_open: bool,
}

/// What of one partition a transaction has used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The partition, of a topic that the group reads.
    pub partition: TopicPartition,
    /// Where the next owner of the partition goes on.
    pub next: NextOffset,
    /// Committed beside the offset and handed to the next owner, at most 4,096 bytes (`offset.metadata.max.bytes` of
    /// the broker); may be empty.
    pub metadata: String,
}

/// Why a message or a transaction did not go through.
#[derive(Debug, Error)]
pub enum TransactionError {
    /// The message is larger than `message.max.bytes` allows. It was not taken; the transaction goes on without it.
    #[error("a message of {bytes} bytes to topic `{topic}` is larger than the producer's message.max.bytes")]
    TooLarge {
        /// Where it should have gone.
        topic: String,
        /// Key and payload together.
        bytes: usize,
    },
    /// The transaction cannot be committed: call [`KafkaTransactions::abort`] and go on from what is committed.
    #[error("the transaction must be aborted ({}): {message}", cause.as_str())]
    Abort {
        /// What kind of trouble it was.
        cause: AbortCause,
        /// librdkafka's own words.
        message: String,
    },
    /// No transaction will ever go through again; the process must end.
    #[error(transparent)]
    Fatal(ConnectorError),
}

/// The kinds of trouble that end in an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AbortCause {
    /// A message was not taken by the client.
    Produce,
    /// A message was not acknowledged by its broker.
    Delivery,
    /// The offsets were refused.
    Offsets,
    /// The commit was refused.
    Commit,
    /// The group moved on: the offsets came from somebody who is no longer a member of its generation.
    Rebalanced,
    /// A broker did not answer in time.
    Timeout,
}

impl AbortCause {
    /// All of them, for metrics that count by cause.
    pub const ALL: [Self; 6] =
        [Self::Produce, Self::Delivery, Self::Offsets, Self::Commit, Self::Rebalanced, Self::Timeout];

    /// A metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Delivery => "delivery",
            Self::Offsets => "offsets",
            Self::Commit => "commit",
            Self::Rebalanced => "rebalanced",
            Self::Timeout => "timeout",
        }
    }

    /// The cause of an error in `step`: the code's own, if it has one wherever it comes up.
    fn of(step: Self, code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::RebalanceInProgress
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch => Self::Rebalanced,
            Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut => Self::Timeout,
            _ => step,
        }
    }
}

impl KafkaTransactions {
    /// Takes the transactional id up: whoever had it before is fenced, and what that one left open is aborted. Waits
    /// at most `patience` for the brokers. `client_id` shows in their metrics and quotas; `stage` names the failpoints.
    ///
    /// # Errors
    /// librdkafka refuses a property; the id may not be used by this user; the brokers did not answer (worth another
    /// try).
    pub fn try_new(
        properties: &KafkaProperties,
        transactional_id: &str,
        client_id: &str,
        stage: &'static str,
        patience: Duration,
    ) -> Result<Self, ConnectorError> {
        let timeout_ms = properties.transaction_timeout_ms();
        let own = [
            ("client.id", client_id),
            ("transactional.id", transactional_id),
            ("transaction.timeout.ms", timeout_ms),
            // A message that is given up must be known as such while its transaction can still be aborted.
            ("message.timeout.ms", timeout_ms),
            // A partition's share of a transaction goes out in one batch, as large as the broker's default takes.
            ("batch.size", "1000000"),
            // State and evidence may be larger than the default of 1 MB; the broker's topics have the last word.
            ("message.max.bytes", "8388608"),
        ];
        let producer = properties.create(Role::Producer, &own, Deliveries::default())?;
        let this = Self { producer, transactional_id: transactional_id.to_string(), stage, is_open: false };
        this.init(patience)?;
        Ok(this)
    }

    /// Whether a transaction is open: something was published since the last commit or abort.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.is_open
    }

    /// Hands one message over, to `partition` or to the one its key chooses. The first message after a commit or an
    /// abort opens a transaction.
    ///
    /// # Errors
    /// [`TransactionError`]; the message was not taken.
    pub fn publish(&mut self, message: &Outgoing, partition: Option<i32>) -> Result<(), TransactionError> {
        self.begin()?;
        let mut record = as_record(message);
        record.partition = partition;
        // Ends: every queued message is acknowledged or given up after message.timeout.ms at the latest.
        loop {
            let (error, returned) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => look_for_acknowledgements(&self.producer),
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(TransactionError::TooLarge { topic: message.topic.clone(), bytes: bytes_of(message) });
                }
                other => return Err(self.failed(AbortCause::Produce, &other)),
            }
            record = returned;
        }
    }

    /// Makes everything published since the last commit visible, together with the offsets; the offsets alone, if
    /// nothing was published. Does not return before the outcome is known.
    ///
    /// # Errors
    /// [`TransactionError::Abort`] or [`TransactionError::Fatal`].
    ///
    /// # Panics
    /// `consumed` is empty: the broker would commit without asking whether we may.
    pub fn commit(&mut self, consumed: &[Consumed], member: &Membership) -> Result<(), TransactionError> {
        self.commit_for(consumed, member.metadata())
    }

    /// As [`KafkaTransactions::commit`], for a group that nobody joins: whoever takes the same transactional id up
    /// later is the only one that can still commit.
    ///
    /// # Errors
    /// As [`KafkaTransactions::commit`]; or the group has members.
    ///
    /// # Panics
    /// As [`KafkaTransactions::commit`].
    pub fn commit_outside_of_group(
        &mut self,
        consumed: &[Consumed],
        group: &OutsideOfGroup,
    ) -> Result<(), TransactionError> {
        self.commit_for(consumed, group.metadata())
    }

    fn commit_for(&mut self, consumed: &[Consumed], group: &ConsumerGroupMetadata) -> Result<(), TransactionError> {
        assert!(!consumed.is_empty(), "a transaction without offsets is not fenced by the group");
        self.begin()?;
        self.failpoint("produced");
        self.await_deliveries()?;
        self.failpoint("flushed");
        self.send_offsets(consumed, group)?;
        self.failpoint("offsets");
        self.end()?;
        self.is_open = false;
        self.failpoint("committed");
        Ok(())
    }

    /// Makes sure that nothing published since the last commit is ever seen. Does nothing if no transaction is open.
    ///
    /// # Errors
    /// The producer is fenced or otherwise of no more use.
    pub fn abort(&mut self) -> Result<(), ConnectorError> {
        if !self.is_open {
            return Ok(());
        }
        loop {
            // Nothing is purged by us. librdkafka purges what was not sent yet in a way that leaves no gap in the
            // sequence numbers, and waits for what was: a message that arrived after the abort would be taken for a
            // part of the next transaction.
            self.serve_deliveries(ABORT_LOOKS_MAX);
            match self.producer.abort_transaction(Timeout::After(ABORT_WAIT)) {
                Ok(()) => break,
                Err(error) if is_retriable(&error) => self.producer.poll(RETRY_PAUSE),
                Err(error) => return Err(self.fatal("abort a transaction", &error)),
            }
        }
        // Their messages are aborted like the others.
        self.producer.context().take();
        self.is_open = false;
        Ok(())
    }

    fn init(&self, patience: Duration) -> Result<(), ConnectorError> {
        let mut asks = 0..INIT_ASKS;
        loop {
            asks.next();
            match self.producer.init_transactions(Timeout::After(patience / INIT_ASKS)) {
                Ok(()) => return Ok(()),
                Err(error) if !is_retriable(&error) => return Err(self.fatal("take up a transactional id", &error)),
                Err(error) if asks.is_empty() => return Err(refused("take up a transactional id", &error)),
                Err(_) => self.producer.poll(RETRY_PAUSE),
            }
        }
    }

    fn begin(&mut self) -> Result<(), TransactionError> {
        if self.is_open {
            return Ok(());
        }
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| TransactionError::Fatal(self.fatal("begin a transaction", &error)))?;
        self.is_open = true;
        self.failpoint("begin");
        Ok(())
    }

    /// Returns when every message is acknowledged. The client's own flush inside the commit would do it in steps of
    /// 100 ms.
    fn await_deliveries(&self) -> Result<(), TransactionError> {
        self.serve_deliveries(usize::MAX);
        let failures = self.producer.context().take();
        match failures.first {
            None => Ok(()),
            Some(first) => Err(self.failed(AbortCause::Delivery, &first.error)),
        }
    }

    /// Serves delivery reports until none is missing, for `looks_max` looks at most.
    fn serve_deliveries(&self, looks_max: usize) {
        let mut looks = 0;
        // Ends: every message is acknowledged or given up after message.timeout.ms at the latest.
        while self.producer.in_flight_count() > 0 && looks < looks_max {
            look_for_acknowledgements(&self.producer);
            looks += 1;
        }
    }

    fn send_offsets(&self, consumed: &[Consumed], group: &ConsumerGroupMetadata) -> Result<(), TransactionError> {
        let offsets = offsets_of(consumed).map_err(|error| self.failed(AbortCause::Offsets, &error))?;
        let sent = self.producer.send_offsets_to_transaction(&offsets, group, OFFSETS_WAIT);
        sent.map_err(|error| self.failed(AbortCause::Offsets, &error))
    }

    /// Ends the transaction with a commit. A retriable error leaves the commit under way, so it is waited for with the
    /// same call: whoever began anew would publish the same things twice.
    fn end(&self) -> Result<(), TransactionError> {
        loop {
            match self.producer.commit_transaction(Timeout::Never) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) => self.producer.poll(RETRY_PAUSE),
                Err(error) => return Err(self.failed(AbortCause::Commit, &error)),
            }
        }
    }

    /// What an error inside the open transaction means.
    fn failed(&self, step: AbortCause, error: &KafkaError) -> TransactionError {
        assert!(self.is_open, "asked for the reason of a failure outside of a transaction");
        if self.producer.client().fatal_error().is_some() || is_fatal(error) {
            return TransactionError::Fatal(self.fatal("transaction", error));
        }
        // Messages that are purged because of an earlier error only say so. A second beginning is always refused, and
        // if the transaction has failed then with the first reason.
        let first = match self.producer.begin_transaction() {
            Err(first) if requires_abort(&first) => first,
            _ => error.clone(),
        };
        let cause = first.rdkafka_error_code().map_or(step, |code| AbortCause::of(step, code));
        TransactionError::Abort { cause, message: first.to_string() }
    }

    /// An error after which the producer is of no more use.
    fn fatal(&self, action: &'static str, error: &KafkaError) -> ConnectorError {
        let known = self.producer.client().fatal_error();
        let (code, message) =
            known.map_or_else(|| (error.rdkafka_error_code(), error.to_string()), |(code, why)| (Some(code), why));
        if code == Some(RDKafkaErrorCode::Fenced) {
            return ConnectorError::Fenced { transactional_id: self.transactional_id.clone(), message };
        }
        ConnectorError::Kafka { action, message, fault: judge(code).0, retry: Retry::Never }
    }

    fn failpoint(&self, step: &str) {
        if cfg!(debug_assertions) {
            failpoint::hit(&format!("{}.{step}", self.stage));
        }
    }
}

fn offsets_of(consumed: &[Consumed]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(consumed.len());
    for Consumed { partition, next, metadata } in consumed {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(next.0))?;
        element.set_metadata(metadata);
    }
    Ok(list)
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_fatal())
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

#[cfg(test)]
mod tests;
