//! Every class of error that a broker can answer a transaction's requests with, and what becomes of it here.
//!
//! The embedded broker answers with what it is told to. It keeps no transactions apart, so that what readers see is
//! tested on a real one (`tests/transactions.rs`).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::types::RDKafkaApiKey::{
    self as Api, AddOffsetsToTxn, AddPartitionsToTxn, EndTxn, InitProducerId, Produce, TxnOffsetCommit,
};
use rdkafka::types::RDKafkaRespErr::{self as Answer, *};

use super::*;
use crate::embedded::EmbeddedBroker;
use crate::error::Fault;

/// Long enough for everything that answers at all.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
/// 300 looks are half a minute: a group's first assignment takes three seconds here.
const LOOKS_MAX: usize = 300;

/// What becomes of a transaction whose requests are answered with errors.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Committed,
    Aborted(AbortCause),
    /// And the next one for [`AbortCause::Delivery`]: the broker misses the sequence numbers of what it had refused,
    /// until the abort bumps the producer's epoch.
    AbortedTwice(AbortCause),
    Fenced,
    Fatal(Fault),
}

use Reaction::{Aborted, AbortedTwice, Committed, Fatal, Fenced};

/// One for all tests: the embedded broker does not ask whose member it is, and becoming one takes three seconds.
static MEMBER: LazyLock<Membership> = LazyLock::new(|| {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    let own = [("group.id", "g"), ("client.id", "test-in")];
    let consumer: BaseConsumer = broker.properties().create(Role::Consumer, &own, DefaultConsumerContext).unwrap();
    consumer.subscribe(&["spans"]).unwrap();
    let member = (0..LOOKS_MAX).find_map(|_| {
        consumer.poll(LOOK);
        Membership::fresh(&consumer)
    });
    member.expect("the consumer did not join")
});

struct Bench {
    broker: EmbeddedBroker,
    ids: AtomicUsize,
}

impl Bench {
    fn start() -> Self {
        let broker = EmbeddedBroker::start(&[("spans", 1), ("events", 2)]).unwrap();
        Self { broker, ids: AtomicUsize::new(0) }
    }

    /// With a transactional id that nobody used before.
    fn transactions(&self, said: &[(&str, &str)]) -> Result<KafkaTransactions, ConnectorError> {
        let id = format!("lictor-scan-{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let brokers = self.broker.properties();
        let properties = said.iter().fold(brokers, |all, (name, value)| all.with(name, value).unwrap());
        KafkaTransactions::try_new(&properties, &id, "test-out", "scan", PATIENCE)
    }

    fn answer(&self, api: Api, errors: &'static [Answer]) {
        self.broker.on_thread(move |cluster| cluster.request_errors(api, errors)).unwrap();
    }

    fn forget_answers(&self, api: Api) {
        self.broker.on_thread(move |cluster| cluster.clear_request_errors(api)).unwrap();
    }

    fn commit(&self, transactions: &mut KafkaTransactions) -> Result<(), TransactionError> {
        transactions.publish(&event("one"), None)?;
        transactions.publish(&event("two"), Some(1))?;
        transactions.commit(&consumed(), &MEMBER)
    }

    /// The reaction to `errors` as the next answers to `api`.
    #[track_caller]
    fn reaction(&self, api: Api, errors: &'static [Answer]) -> Reaction {
        self.answer(api, errors);
        let made = self.transactions(&[("producer.retry.backoff.ms", "20")]);
        let reaction = match made {
            Err(error) => Reaction::from(error),
            Ok(mut transactions) => match self.commit(&mut transactions) {
                Ok(()) => Committed,
                Err(TransactionError::Abort { cause, .. }) => {
                    self.forget_answers(api);
                    self.after_abort(&mut transactions, cause)
                }
                Err(TransactionError::Fatal(error)) => {
                    let again = self.commit(&mut transactions);
                    assert!(matches!(again, Err(TransactionError::Fatal(_))), "{again:?}");
                    transactions.abort().expect_err("what is fatal stays fatal");
                    Reaction::from(error)
                }
                Err(error @ TransactionError::TooLarge { .. }) => panic!("{error}"),
            },
        };
        self.forget_answers(api);
        reaction
    }

    /// A transaction commits after the one that failed for `cause` was aborted.
    #[track_caller]
    fn after_abort(&self, transactions: &mut KafkaTransactions, cause: AbortCause) -> Reaction {
        transactions.abort().unwrap();
        assert!(!transactions.in_transaction());
        match self.commit(transactions) {
            Ok(()) => return Aborted(cause),
            Err(TransactionError::Abort { cause: AbortCause::Delivery, .. }) => transactions.abort().unwrap(),
            Err(error) => panic!("{error}"),
        }
        self.commit(transactions).expect("a transaction commits after the epoch was bumped");
        AbortedTwice(cause)
    }

    #[track_caller]
    fn check(&self, api: Api, errors: &'static [Answer], expected: &Reaction) {
        assert_eq!(self.reaction(api, errors), *expected, "{api:?} {errors:?}");
    }
}

impl From<ConnectorError> for Reaction {
    fn from(error: ConnectorError) -> Self {
        assert_eq!(error.retry(), Retry::Never, "{error}");
        if matches!(error, ConnectorError::Fenced { .. }) { Fenced } else { Fatal(error.fault()) }
    }
}

fn event(payload: &str) -> Outgoing {
    Outgoing {
        topic: "events".to_string(),
        key: Some(b"team-a".to_vec()),
        payload: Some(payload.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

fn consumed() -> Vec<Consumed> {
    vec![Consumed { partition: TopicPartition::new("spans", 0), next: NextOffset(1), metadata: String::new() }]
}

const LOADING: Answer = RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
const ELSEWHERE: Answer = RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
const AWAY: Answer = RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE;
const CONCURRENT: Answer = RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
const DISCONNECT: Answer = RD_KAFKA_RESP_ERR__TRANSPORT;
const OLD_EPOCH: Answer = RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
const FENCED: Answer = RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
const ID_DENIED: Answer = RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
const CLUSTER_DENIED: Answer = RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
const TOPIC_DENIED: Answer = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
const GROUP_DENIED: Answer = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
const BAD_STATE: Answer = RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
const UNKNOWN_ID: Answer = RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID;
const UNMAPPED_ID: Answer = RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING;
const UNEXPECTED: Answer = RD_KAFKA_RESP_ERR_UNKNOWN;

#[test]
fn init_is_repeated_until_the_coordinator_serves() {
    let bench = Bench::start();
    bench.check(InitProducerId, &[LOADING, CONCURRENT], &Committed);
    bench.check(InitProducerId, &[ELSEWHERE], &Committed);
    bench.check(InitProducerId, &[AWAY], &Committed);
    bench.check(InitProducerId, &[DISCONNECT], &Committed);
    bench.check(InitProducerId, &[ID_DENIED], &Fatal(Fault::User));
    bench.check(InitProducerId, &[CLUSTER_DENIED], &Fatal(Fault::User));
    bench.check(InitProducerId, &[RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT], &Fatal(Fault::User));
    bench.check(InitProducerId, &[FENCED], &Fenced);
    bench.check(InitProducerId, &[OLD_EPOCH], &Fenced);
}

#[test]
fn registering_partitions_is_repeated_aborted_or_fatal() {
    let bench = Bench::start();
    bench.check(AddPartitionsToTxn, &[CONCURRENT, CONCURRENT, CONCURRENT], &Committed);
    bench.check(AddPartitionsToTxn, &[LOADING], &Committed);
    bench.check(AddPartitionsToTxn, &[ELSEWHERE], &Committed);
    bench.check(AddPartitionsToTxn, &[AWAY], &Committed);
    bench.check(AddPartitionsToTxn, &[RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART], &Committed);
    bench.check(AddPartitionsToTxn, &[DISCONNECT], &Committed);
    bench.check(AddPartitionsToTxn, &[TOPIC_DENIED], &Aborted(AbortCause::Delivery));
    bench.check(AddPartitionsToTxn, &[UNKNOWN_ID], &Aborted(AbortCause::Delivery));
    bench.check(AddPartitionsToTxn, &[UNMAPPED_ID], &Aborted(AbortCause::Delivery));
    bench.check(AddPartitionsToTxn, &[UNEXPECTED], &Aborted(AbortCause::Delivery));
    bench.check(AddPartitionsToTxn, &[OLD_EPOCH], &Fenced);
    bench.check(AddPartitionsToTxn, &[FENCED], &Fenced);
    bench.check(AddPartitionsToTxn, &[ID_DENIED], &Fatal(Fault::User));
    bench.check(AddPartitionsToTxn, &[CLUSTER_DENIED], &Fatal(Fault::User));
    bench.check(AddPartitionsToTxn, &[BAD_STATE], &Fatal(Fault::External));
}

#[test]
fn producing_is_repeated_aborted_or_fatal() {
    let bench = Bench::start();
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS], &Committed);
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND], &Committed);
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION], &Committed);
    bench.check(Produce, &[DISCONNECT, DISCONNECT], &Committed);
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE], &AbortedTwice(AbortCause::Delivery));
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE], &AbortedTwice(AbortCause::Delivery));
    bench.check(Produce, &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER], &Fatal(Fault::External));
    bench.check(Produce, &[UNKNOWN_ID], &Aborted(AbortCause::Delivery));
    bench.check(Produce, &[BAD_STATE], &AbortedTwice(AbortCause::Delivery));
    bench.check(Produce, &[OLD_EPOCH], &Fenced);
}

#[test]
fn adding_the_group_is_repeated_aborted_or_fatal() {
    let bench = Bench::start();
    bench.check(AddOffsetsToTxn, &[CONCURRENT], &Committed);
    bench.check(AddOffsetsToTxn, &[LOADING], &Committed);
    bench.check(AddOffsetsToTxn, &[ELSEWHERE], &Committed);
    bench.check(AddOffsetsToTxn, &[AWAY], &Committed);
    bench.check(AddOffsetsToTxn, &[DISCONNECT], &Committed);
    bench.check(AddOffsetsToTxn, &[GROUP_DENIED], &Aborted(AbortCause::Offsets));
    bench.check(AddOffsetsToTxn, &[UNMAPPED_ID], &Aborted(AbortCause::Offsets));
    bench.check(AddOffsetsToTxn, &[UNEXPECTED], &Aborted(AbortCause::Offsets));
    bench.check(AddOffsetsToTxn, &[OLD_EPOCH], &Fenced);
    bench.check(AddOffsetsToTxn, &[ID_DENIED], &Fatal(Fault::User));
    bench.check(AddOffsetsToTxn, &[BAD_STATE], &Fatal(Fault::External));
}

#[test]
fn committing_offsets_is_repeated_aborted_or_fatal() {
    let bench = Bench::start();
    bench.check(TxnOffsetCommit, &[LOADING], &Committed);
    bench.check(TxnOffsetCommit, &[ELSEWHERE], &Committed);
    bench.check(TxnOffsetCommit, &[AWAY], &Committed);
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT], &Committed);
    bench.check(TxnOffsetCommit, &[CONCURRENT], &Committed);
    bench.check(TxnOffsetCommit, &[DISCONNECT], &Committed);
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION], &Aborted(AbortCause::Rebalanced));
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID], &Aborted(AbortCause::Rebalanced));
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID], &Aborted(AbortCause::Rebalanced));
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS], &Aborted(AbortCause::Rebalanced));
    bench.check(TxnOffsetCommit, &[GROUP_DENIED], &Aborted(AbortCause::Offsets));
    bench.check(TxnOffsetCommit, &[TOPIC_DENIED], &Aborted(AbortCause::Offsets));
    bench.check(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE], &Aborted(AbortCause::Offsets));
    bench.check(TxnOffsetCommit, &[OLD_EPOCH], &Fenced);
    bench.check(TxnOffsetCommit, &[ID_DENIED], &Fatal(Fault::User));
    bench.check(TxnOffsetCommit, &[UNMAPPED_ID], &Fatal(Fault::External));
    bench.check(TxnOffsetCommit, &[BAD_STATE], &Fatal(Fault::External));
}

#[test]
fn ending_is_repeated_aborted_or_fatal() {
    let bench = Bench::start();
    bench.check(EndTxn, &[LOADING, CONCURRENT], &Committed);
    bench.check(EndTxn, &[ELSEWHERE], &Committed);
    bench.check(EndTxn, &[AWAY], &Committed);
    bench.check(EndTxn, &[DISCONNECT, DISCONNECT], &Committed);
    bench.check(EndTxn, &[UNKNOWN_ID], &Aborted(AbortCause::Commit));
    bench.check(EndTxn, &[UNMAPPED_ID], &Aborted(AbortCause::Commit));
    bench.check(EndTxn, &[UNEXPECTED], &Aborted(AbortCause::Commit));
    bench.check(EndTxn, &[OLD_EPOCH], &Fenced);
    bench.check(EndTxn, &[FENCED], &Fenced);
    bench.check(EndTxn, &[ID_DENIED], &Fatal(Fault::User));
    bench.check(EndTxn, &[BAD_STATE], &Fatal(Fault::External));
}

#[test]
fn an_abort_says_the_first_reason_and_not_that_the_rest_was_purged() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[]).unwrap();
    bench.answer(AddPartitionsToTxn, &[TOPIC_DENIED]);
    let message = bench.commit(&mut transactions).unwrap_err().to_string();
    assert!(message.starts_with("the transaction must be aborted (delivery): "), "{message}");
    assert!(message.contains("Topic authorization failed"), "{message}");
    let message = transactions.publish(&event("three"), None).unwrap_err().to_string();
    assert!(message.starts_with("the transaction must be aborted (produce): "), "{message}");
    assert!(message.contains("Topic authorization failed"), "{message}");
    transactions.abort().unwrap();
    bench.commit(&mut transactions).unwrap();
}

#[test]
fn a_topic_that_is_denied_aborts_until_the_client_hears_that_it_is_allowed_again() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.topic.metadata.refresh.interval.ms", "200")]).unwrap();
    bench.answer(Produce, &[TOPIC_DENIED]);
    let mut aborts = 0;
    while let Err(error) = bench.commit(&mut transactions) {
        assert!(matches!(error, TransactionError::Abort { .. }) && aborts < LOOKS_MAX, "{error}");
        aborts += 1;
        transactions.abort().unwrap();
        transactions.producer.poll(LOOK);
    }
    assert!(aborts > 0);
}

#[test]
fn an_abort_is_repeated_until_it_went_through() {
    let bench = Bench::start();
    for errors in [&[LOADING, CONCURRENT], &[ELSEWHERE, AWAY], &[DISCONNECT, UNKNOWN_ID]] {
        let mut transactions = bench.transactions(&[]).unwrap();
        transactions.publish(&event("one"), None).unwrap();
        transactions.await_deliveries().unwrap();
        bench.answer(EndTxn, errors);
        transactions.abort().unwrap();
        bench.forget_answers(EndTxn);
        bench.commit(&mut transactions).unwrap();
    }
}

#[test]
fn an_abort_needs_nobody_to_have_waited_for_the_messages() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.linger.ms", "2000")]).unwrap();
    transactions.abort().unwrap();
    for i in 0..1_000 {
        transactions.publish(&event(&i.to_string()), None).unwrap();
    }
    assert!(transactions.in_transaction());
    transactions.abort().unwrap();
    assert!(!transactions.in_transaction());
    bench.commit(&mut transactions).unwrap();
}

#[test]
fn offsets_alone_are_a_transaction() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[]).unwrap();
    transactions.commit(&consumed(), &MEMBER).unwrap();
    bench.answer(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION]);
    let error = transactions.commit(&consumed(), &MEMBER).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Rebalanced, .. }), "{error}");
    transactions.abort().unwrap();
    transactions.commit(&consumed(), &MEMBER).unwrap();
}

#[test]
#[should_panic(expected = "a transaction without offsets is not fenced")]
fn a_commit_without_offsets_is_a_bug() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[]).unwrap();
    transactions.publish(&event("one"), None).unwrap();
    transactions.commit(&[], &MEMBER).ok();
}

#[test]
fn a_message_that_is_too_large_is_left_out_and_the_transaction_goes_on() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.message.max.bytes", "2000")]).unwrap();
    let error = transactions.publish(&event(&"x".repeat(5_000)), None).unwrap_err();
    assert!(matches!(error, TransactionError::TooLarge { bytes: 5_006, .. }), "{error}");
    bench.commit(&mut transactions).unwrap();
}

#[test]
fn a_full_queue_waits_instead_of_refusing() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.queue.buffering.max.messages", "10")]).unwrap();
    for i in 0..500 {
        transactions.publish(&event(&i.to_string()), None).unwrap();
    }
    transactions.commit(&consumed(), &MEMBER).unwrap();
}

#[test]
fn brokers_that_are_away_for_longer_than_the_transaction_abort_it() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.transaction.timeout.ms", "1000")]).unwrap();
    bench.commit(&mut transactions).unwrap();
    bench.broker.take_down().unwrap();
    let error = bench.commit(&mut transactions).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Timeout, .. }), "{error}");
    bench.broker.bring_up().unwrap();
    transactions.abort().unwrap();
    bench.commit(&mut transactions).unwrap();
}

#[test]
fn a_group_coordinator_that_stays_away_for_longer_than_the_transaction_aborts_it() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[("producer.transaction.timeout.ms", "1000")]).unwrap();
    bench.answer(TxnOffsetCommit, &[RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 10]);
    let error = bench.commit(&mut transactions).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Timeout, .. }), "{error}");
    bench.forget_answers(TxnOffsetCommit);
    transactions.abort().unwrap();
    bench.commit(&mut transactions).unwrap();
}

#[test]
fn a_commit_waits_for_a_coordinator_that_is_away() {
    let bench = Bench::start();
    let mut transactions = bench.transactions(&[]).unwrap();
    transactions.publish(&event("one"), None).unwrap();
    transactions.await_deliveries().unwrap();
    transactions.send_offsets(&consumed(), MEMBER.metadata()).unwrap();
    bench.broker.take_down().unwrap();
    thread::scope(|scope| {
        let ending = scope.spawn(|| transactions.end());
        let other =
            bench.broker.properties().create::<_, BaseProducer<Deliveries>>(Role::Producer, &[], Deliveries::default());
        // Ten looks are a second in which nothing comes.
        other.unwrap().poll(LOOK * 10);
        assert!(!ending.is_finished(), "a commit ended while the broker was down");
        bench.broker.bring_up().unwrap();
        ending.join().unwrap().unwrap();
    });
}

#[test]
fn brokers_that_do_not_answer_are_worth_another_try() {
    let broker = EmbeddedBroker::start(&[]).unwrap();
    broker.take_down().unwrap();
    let patience = Duration::from_millis(500);
    let made = KafkaTransactions::try_new(&broker.properties(), "lictor-scan-0", "test-out", "scan", patience);
    let error = made.err().unwrap();
    assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Backoff), "{error}");
}

#[test]
fn timeouts_that_contradict_each_other_are_refused_by_name() {
    let broker = EmbeddedBroker::start(&[]).unwrap();
    let properties = broker.properties().with("message.timeout.ms", "20000").unwrap();
    let made = KafkaTransactions::try_new(&properties, "lictor-scan-0", "test-out", "scan", PATIENCE);
    let message = made.err().unwrap().to_string();
    assert!(message.contains("message.timeout.ms") && message.contains("transaction.timeout.ms"), "{message}");
}

#[test]
fn transactions_and_memberships_can_live_on_a_thread_of_their_own() {
    fn assert_send<T: Send>() {}
    assert_send::<KafkaTransactions>();
    assert_send::<Membership>();
}
