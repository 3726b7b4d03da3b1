//! What only a real broker can show of transactions: what readers see, who is fenced, what a commit costs.
//!
//! Runs against `KAFKA_BOOTSTRAP=host:port` and says so and passes without it; `tests/run` starts a broker and sets it.
//! Every test makes its own topics and groups, so that a cluster can be used again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/fresh.rs"]
mod fresh;

use std::time::Duration;

use fresh::servers_and_name;
use lictor_connectors::{
    AbortCause, AssignmentChange, Committed, ConnectorError, Consumed, KafkaProperties, KafkaRestorer, KafkaSink,
    KafkaSource, KafkaTransactions, Membership, NextOffset, Outgoing, Polled, Sink, Source, TopicPartition, TopicSpec,
    TransactionError, ensure_topics,
};

/// One look of the loop.
const LOOK: Duration = Duration::from_millis(50);
/// 1,200 looks are a minute, for a broker on a busy machine.
const LOOKS_MAX: usize = 1_200;
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster under test, with an input and an output topic of a name nobody else uses.
struct Cluster {
    properties: KafkaProperties,
    input: String,
    output: String,
}

impl Cluster {
    /// `None`, and a line that says so, if no cluster was named.
    fn from_env(test: &str) -> Option<Self> {
        let (servers, name) = servers_and_name(test)?;
        let (input, output) = (format!("{name}-in"), format!("{name}-out"));
        let properties = KafkaProperties::from_bootstrap(&servers);
        let topics = [TopicSpec::new(&input, 1, false), TopicSpec::new(&output, 1, false)];
        ensure_topics(&properties, &topics).unwrap();
        Some(Self { properties, input, output })
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.properties = self.properties.with(name, value).unwrap();
        self
    }

    fn transactions(&self) -> KafkaTransactions {
        let id = format!("{}-0", self.output);
        KafkaTransactions::try_new(&self.properties, &id, "test-out", "scan", PATIENCE).unwrap()
    }

    /// A member of the group that reads the input, and who it is.
    fn join(&self) -> (KafkaSource, Membership) {
        let topics = std::slice::from_ref(&self.input);
        let mut source = KafkaSource::try_new(&self.properties, &self.input, "test-in", topics).unwrap();
        let member = until(|| {
            source.poll(LOOK, &mut |_| ()).unwrap();
            source.membership()
        });
        (source, member)
    }

    /// What the next owner of the input finds committed.
    fn committed(&self) -> Option<Committed> {
        let restorer = KafkaRestorer::try_new(&self.properties, &self.input, "test-restore").unwrap();
        restorer.committed(&[self.consumed(0, "").partition], PATIENCE).unwrap().pop().unwrap().1
    }

    fn message(&self, key: &str) -> Outgoing {
        let (topic, key) = (self.output.clone(), Some(key.as_bytes().to_vec()));
        Outgoing { topic, key, payload: Some(b"x".to_vec()), headers: Vec::new() }
    }

    fn consumed(&self, next: i64, metadata: &str) -> Consumed {
        let (partition, next) = (TopicPartition::new(&self.input, 0), NextOffset(next));
        Consumed { partition, next, metadata: metadata.to_string() }
    }

    /// The keys of the output, as a reader of committed messages sees them, and when they were stamped. A message of
    /// its own, outside of any transaction, says where to stop.
    fn output(&self) -> Vec<(String, i64)> {
        let mut sink = KafkaSink::try_new(&self.properties, "test-end").unwrap();
        sink.publish(&self.message("end")).unwrap();
        sink.flush().unwrap();
        let topics = std::slice::from_ref(&self.output);
        let mut reader = KafkaSource::try_new(&self.properties, &self.output, "test-reader", topics).unwrap();
        let mut seen = Vec::new();
        until(|| {
            let mut is_end = false;
            let polled = reader.poll(LOOK, &mut |record| {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                is_end = key == "end";
                seen.push((key, record.timestamp_ms));
            });
            if let Polled::Assignment(AssignmentChange::Revoked(partitions)) = polled.unwrap() {
                reader.release(&partitions).unwrap();
            }
            is_end.then_some(())
        });
        seen.pop();
        seen
    }

    fn keys(&self) -> Vec<String> {
        self.output().into_iter().map(|(key, _)| key).collect()
    }
}

#[track_caller]
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    (0..LOOKS_MAX).find_map(|_| look()).expect("the condition did not come true in time")
}

#[track_caller]
fn assert_fenced(result: Result<(), TransactionError>) {
    let Err(TransactionError::Fatal(error)) = result else { panic!("{result:?}") };
    assert!(matches!(error, ConnectorError::Fenced { .. }), "{error}");
}

#[test]
fn messages_and_offsets_become_visible_together() {
    let Some(cluster) = Cluster::from_env("txn-commit") else { return };
    let (_source, member) = cluster.join();
    let mut transactions = cluster.transactions();
    assert_eq!(cluster.committed(), None);
    transactions.publish(&cluster.message("a"), None).unwrap();
    transactions.publish(&cluster.message("b"), Some(0)).unwrap();
    transactions.commit(&[cluster.consumed(7, "mark=12")], &member).unwrap();
    assert_eq!(cluster.keys(), ["a", "b"]);
    assert_eq!(cluster.committed(), Some(Committed { next: NextOffset(7), metadata: "mark=12".to_string() }));
    transactions.commit(&[cluster.consumed(9, "")], &member).unwrap();
    assert_eq!(cluster.committed(), Some(Committed { next: NextOffset(9), metadata: String::new() }));
}

#[test]
fn what_is_aborted_is_never_seen() {
    let Some(cluster) = Cluster::from_env("txn-abort") else { return };
    let (_source, member) = cluster.join();
    let mut transactions = cluster.transactions();
    for i in 0..100 {
        transactions.publish(&cluster.message(&format!("aborted {i}")), None).unwrap();
    }
    transactions.abort().unwrap();
    transactions.publish(&cluster.message("committed"), None).unwrap();
    transactions.commit(&[cluster.consumed(1, "")], &member).unwrap();
    transactions.publish(&cluster.message("aborted at the end"), None).unwrap();
    transactions.abort().unwrap();
    assert_eq!(cluster.keys(), ["committed"]);
    assert_eq!(cluster.committed().unwrap().next, NextOffset(1));
}

#[test]
fn who_takes_the_id_up_fences_the_one_before_and_ends_its_transaction() {
    let Some(cluster) = Cluster::from_env("txn-fence") else { return };
    let (_source, member) = cluster.join();
    let mut first = cluster.transactions();
    first.publish(&cluster.message("first"), None).unwrap();
    let mut second = cluster.transactions();
    second.publish(&cluster.message("second"), None).unwrap();
    second.commit(&[cluster.consumed(1, "")], &member).unwrap();
    assert_fenced(first.commit(&[cluster.consumed(2, "")], &member));
    let error = first.abort().unwrap_err();
    assert!(matches!(error, ConnectorError::Fenced { .. }), "{error}");
    assert_eq!(cluster.keys(), ["second"]);
    assert_eq!(cluster.committed().unwrap().next, NextOffset(1));
}

#[test]
fn a_transaction_that_outlives_its_timeout_is_ended_and_its_owner_fenced() {
    let Some(cluster) = Cluster::from_env("txn-timeout") else { return };
    let cluster = cluster.with("producer.transaction.timeout.ms", "1000");
    let (_source, member) = cluster.join();
    let mut transactions = cluster.transactions();
    transactions.publish(&cluster.message("early"), None).unwrap();
    transactions.commit(&[cluster.consumed(1, "")], &member).unwrap();
    transactions.publish(&cluster.message("late"), None).unwrap();
    // The reader stands still before the open transaction, until the broker has ended it.
    until(|| (cluster.keys() == ["early"]).then_some(()));
    assert_fenced(transactions.commit(&[cluster.consumed(2, "")], &member));
    assert_eq!(cluster.committed().unwrap().next, NextOffset(1));
}

#[test]
fn offsets_of_somebody_who_is_no_longer_a_member_are_refused() {
    let Some(cluster) = Cluster::from_env("txn-zombie") else { return };
    let (source, old) = cluster.join();
    drop(source);
    let (_source, new) = cluster.join();
    let mut transactions = cluster.transactions();
    transactions.publish(&cluster.message("zombie"), None).unwrap();
    let error = transactions.commit(&[cluster.consumed(1, "")], &old).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Rebalanced, .. }), "{error}");
    transactions.abort().unwrap();
    transactions.publish(&cluster.message("member"), None).unwrap();
    transactions.commit(&[cluster.consumed(2, "")], &new).unwrap();
    assert_eq!(cluster.keys(), ["member"]);
    assert_eq!(cluster.committed().unwrap().next, NextOffset(2));
}

#[test]
fn the_new_group_protocol_moves_the_epoch_of_members_that_keep_everything() {
    let Some(cluster) = Cluster::from_env("txn-epoch") else { return };
    let cluster = cluster.with("consumer.group.protocol", "consumer");
    let (mut source, old) = cluster.join();
    let mut transactions = cluster.transactions();
    transactions.commit(&[cluster.consumed(1, "")], &old).unwrap();
    let topics = std::slice::from_ref(&cluster.input);
    let mut other = KafkaSource::try_new(&cluster.properties, &cluster.input, "test-in-2", topics).unwrap();
    let new = until(|| {
        other.poll(LOOK, &mut |_| ()).unwrap();
        let polled = source.poll(LOOK, &mut |_| ()).unwrap();
        assert_eq!(polled, Polled::Empty, "the one partition stays where it is");
        source.membership().filter(|member| format!("{member:?}") != format!("{old:?}"))
    });
    let error = transactions.commit(&[cluster.consumed(2, "")], &old).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Rebalanced, .. }), "{error}");
    transactions.abort().unwrap();
    transactions.commit(&[cluster.consumed(3, "")], &new).unwrap();
    assert_eq!(cluster.committed().unwrap().next, NextOffset(3));
}

#[test]
fn a_message_that_only_the_broker_finds_too_large_aborts() {
    let Some(cluster) = Cluster::from_env("txn-large") else { return };
    let cluster = cluster.with("producer.message.max.bytes", "20000000").with("compression.codec", "none");
    let (_source, member) = cluster.join();
    let mut transactions = cluster.transactions();
    let large = Outgoing { payload: Some(vec![b'x'; 12_000_000]), ..cluster.message("large") };
    transactions.publish(&large, None).unwrap();
    let error = transactions.commit(&[cluster.consumed(1, "")], &member).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Delivery, .. }), "{error}");
    transactions.abort().unwrap();
    // The broker misses the sequence number of what it refused, until the second abort bumps the producer's epoch.
    transactions.publish(&cluster.message("small"), None).unwrap();
    let error = transactions.commit(&[cluster.consumed(1, "")], &member).unwrap_err();
    assert!(matches!(error, TransactionError::Abort { cause: AbortCause::Delivery, .. }), "{error}");
    transactions.abort().unwrap();
    transactions.publish(&cluster.message("small again"), None).unwrap();
    transactions.commit(&[cluster.consumed(1, "")], &member).unwrap();
    assert_eq!(cluster.keys(), ["small again"]);
}

#[test]
fn a_commit_takes_milliseconds_and_not_the_clients_steps_of_a_hundred() {
    let Some(cluster) = Cluster::from_env("txn-latency") else { return };
    let (mut source, member) = cluster.join();
    let mut transactions = cluster.transactions();
    let mut sink = KafkaSink::try_new(&cluster.properties, "test-after").unwrap();
    for i in 0..50 {
        transactions.publish(&cluster.message("before"), None).unwrap();
        transactions.commit(&[cluster.consumed(i, "")], &member).unwrap();
        sink.publish(&cluster.message("after")).unwrap();
        sink.flush().unwrap();
        // As in the loop: right after a commit the broker is not ready for the next one.
        source.poll(LOOK, &mut |_| ()).unwrap();
    }
    // The client stamps a message when it is published: from one stamp to the next is one commit.
    let seen = cluster.output();
    let mut commits_ms: Vec<i64> = seen.chunks(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(seen.chunks(2).all(|pair| pair[0].0 == "before" && pair[1].0 == "after") && seen.len() == 100, "{seen:?}");
    commits_ms.sort_unstable();
    let (p50, p95) = (commits_ms[25], commits_ms[47]);
    eprintln!("50 commits: p50 {p50} ms, p95 {p95} ms, longest {} ms", commits_ms[49]);
    assert!(p50 < 50, "p50 is {p50} ms: {commits_ms:?}");
}
