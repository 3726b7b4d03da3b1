//! What only a real broker can show about taking over: transactions that a predecessor left behind, compaction, what a
//! group has committed, partitions that are started again while the group rebalances.
//!
//! Runs against `KAFKA_BOOTSTRAP=host:port` and says so and passes without it; `tests/run` starts a broker and sets it.
//! Every test makes its own topics and groups, so that a cluster can be used again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/fresh.rs"]
mod fresh;

use std::time::Duration;

use fresh::servers_and_name;
use lictor_connectors::{
    AssignmentChange, Committed, ConnectorError, KafkaProperties, KafkaRestorer, KafkaSource, NextOffset, Polled,
    Retry, Source, TopicPartition, TopicSpec, ensure_topics, inspect_topics,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// One look of the loop.
const LOOK: Duration = Duration::from_millis(50);
/// 1,200 looks are a minute, for a broker on a busy machine.
const LOOKS_MAX: usize = 1_200;
/// Far more than a broker needs to abort a transaction that was left open.
const WAIT: Duration = Duration::from_secs(60);

/// The group protocols and strategies that are offered.
const PROTOCOLS: [&[(&str, &str)]; 3] =
    [&[], &[("consumer.partition.assignment.strategy", "range")], &[("consumer.group.protocol", "consumer")]];

/// The cluster under test, and a topic and group that nobody else uses.
struct Cluster {
    servers: String,
    properties: KafkaProperties,
    name: String,
}

impl Cluster {
    /// `None`, and a line that says so, if no cluster was named.
    fn from_env(test: &str) -> Option<Self> {
        let (servers, name) = servers_and_name(test)?;
        Some(Self { properties: KafkaProperties::from_bootstrap(&servers), servers, name })
    }

    fn with(mut self, own: &[(&str, &str)]) -> Self {
        for (name, value) in own {
            self.properties = self.properties.with(name, value).unwrap();
        }
        self
    }

    fn make_topic(&self, partitions: i32, compacted: bool) {
        ensure_topics(&self.properties, &[TopicSpec::new(&self.name, partitions, compacted)]).unwrap();
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(&self.name, partition)
    }

    fn writer(&self, own: &[(&str, &str)]) -> Writer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("linger.ms", "5");
        for (name, value) in own {
            config.set(*name, *value);
        }
        Writer { producer: config.create().unwrap(), topic: self.name.clone() }
    }

    /// A producer whose open transactions the broker aborts after two seconds.
    fn transactional_writer(&self) -> Writer {
        let own = [("transactional.id", self.name.as_str()), ("transaction.timeout.ms", "2000")];
        let writer = self.writer(&own);
        writer.producer.init_transactions(WAIT).unwrap();
        writer
    }

    /// A member to which all partitions were assigned, and which waits to be started.
    fn held_source(&self, partitions: usize) -> KafkaSource {
        let topics = std::slice::from_ref(&self.name);
        let mut source = KafkaSource::try_new_held(&self.properties, &self.name, "test-in", topics).unwrap();
        let mut assigned = 0;
        for _ in 0..LOOKS_MAX {
            let polled = source.poll(LOOK, &mut |r| panic!("offset {} of a held partition", r.offset)).unwrap();
            if let Polled::Assignment(AssignmentChange::Assigned(new)) = polled {
                assigned += new.len();
            }
            if assigned == partitions {
                return source;
            }
        }
        panic!("{assigned} of {partitions} partitions were assigned");
    }

    fn restorer(&self) -> KafkaRestorer {
        KafkaRestorer::try_new(&self.properties, &self.name, "test-restore").unwrap()
    }
}

/// Writes keys `k0`, `k1`, … to partition 0.
struct Writer {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Writer {
    fn write(&self, key: &str, payload: Option<&[u8]>) {
        let mut record = BaseRecord::to(&self.topic).partition(0).key(key);
        record.payload = payload;
        while let Err((_, returned)) = self.producer.send(record) {
            record = returned;
            self.producer.poll(LOOK);
        }
    }

    /// One transaction's records, not ended yet.
    fn begin(&self, records: usize) {
        self.producer.begin_transaction().unwrap();
        self.fill(records);
    }

    fn fill(&self, records: usize) {
        for record in 0..records {
            self.write(&format!("k{record}"), Some(b"x"));
        }
        self.producer.flush(WAIT).unwrap();
    }

    fn commit(&self) {
        self.producer.commit_transaction(Timeout::Never).unwrap();
    }

    fn abort(&self) {
        self.producer.abort_transaction(Timeout::Never).unwrap();
    }
}

/// Offsets of the next `count` records.
#[track_caller]
fn read(source: &mut KafkaSource, count: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    for _ in 0..LOOKS_MAX {
        if offsets.len() == count {
            return offsets;
        }
        source.poll(LOOK, &mut |record| offsets.push(record.offset)).unwrap();
    }
    panic!("{} of {count} records came", offsets.len());
}

#[track_caller]
fn read_nothing(source: &mut KafkaSource) {
    for _ in 0..20 {
        assert_eq!(source.poll(LOOK, &mut |r| panic!("offset {}", r.offset)).unwrap(), Polled::Empty);
    }
}

type Restored = Vec<(i64, String, Option<Vec<u8>>)>;

fn restore(
    restorer: &mut KafkaRestorer,
    partition: &TopicPartition,
    wait: Duration,
) -> Result<Restored, ConnectorError> {
    let mut records = Vec::new();
    let count = restorer.read(partition, wait, &mut |r| {
        let key = String::from_utf8(r.key.unwrap().to_vec()).unwrap();
        records.push((r.offset, key, r.payload.map(<[u8]>::to_vec)));
    })?;
    assert_eq!(count, records.len() as u64);
    Ok(records)
}

#[test]
fn a_held_partition_starts_where_it_is_told_in_every_protocol() {
    for protocol in PROTOCOLS {
        let Some(cluster) = Cluster::from_env("held").map(|cluster| cluster.with(protocol)) else { return };
        cluster.make_topic(1, false);
        cluster.writer(&[]).fill(100);
        let mut source = cluster.held_source(1);
        read_nothing(&mut source);
        for (start, count) in [(97, 3), (40, 10), (5, 30), (99, 1), (0, 100)] {
            source.start_at(&[(cluster.partition(0), Some(NextOffset(start)))]).unwrap();
            assert_eq!(read(&mut source, count), (start..).take(count).collect::<Vec<_>>(), "{protocol:?}");
        }
        read_nothing(&mut source);
        source.start_at(&[(cluster.partition(0), None)]).unwrap();
        assert_eq!(read(&mut source, 2), [0, 1], "{protocol:?}");
    }
}

#[test]
fn a_partition_that_is_started_at_once_starts_nowhere_else() {
    let Some(cluster) = Cluster::from_env("at-once") else { return };
    cluster.make_topic(1, false);
    cluster.writer(&[]).fill(100);
    for _ in 0..5 {
        let mut source = cluster.held_source(1);
        source.start_at(&[(cluster.partition(0), Some(NextOffset(97)))]).unwrap();
        assert_eq!(read(&mut source, 3), [97, 98, 99]);
        read_nothing(&mut source);
    }
}

#[test]
fn a_start_is_no_answer_to_a_revocation_that_was_not_heard_yet() {
    for protocol in PROTOCOLS {
        let Some(cluster) = Cluster::from_env("unheard").map(|cluster| cluster.with(protocol)) else { return };
        cluster.make_topic(2, false);
        let mut first = cluster.held_source(2);
        let topics = std::slice::from_ref(&cluster.name);
        let mut second = KafkaSource::try_new(&cluster.properties, &cluster.name, "test-in", topics).unwrap();
        let mut taken_over = 0;
        let mut look = |second: &mut KafkaSource| {
            if let Polled::Assignment(AssignmentChange::Assigned(new)) = second.poll(LOOK, &mut |_| ()).unwrap() {
                taken_over += new.len();
            }
            taken_over
        };
        // The first is not polled: its client hears of the rebalance, and we do not.
        for _ in 0..80 {
            let starts = [0, 1].map(|partition| (cluster.partition(partition), Some(NextOffset(0))));
            first.start_at(&starts).unwrap();
            assert_eq!(look(&mut second), 0, "{protocol:?}: taken over before it was released");
        }
        let has_moved = (0..LOOKS_MAX).any(|_| {
            first.poll(LOOK, &mut |_| ()).unwrap();
            first.release(&[]).unwrap();
            look(&mut second) > 0
        });
        assert!(has_moved, "{protocol:?}");
    }
}

#[test]
fn the_end_of_a_partition_counts_the_markers_and_no_open_transaction() {
    let Some(cluster) = Cluster::from_env("end") else { return };
    cluster.make_topic(1, false);
    let source =
        KafkaSource::try_new(&cluster.properties, &cluster.name, "test-in", std::slice::from_ref(&cluster.name));
    let source = source.unwrap();
    let writer = cluster.transactional_writer();
    writer.begin(3);
    assert_eq!(source.end_of(&cluster.partition(0), WAIT).unwrap(), NextOffset(0));
    writer.commit();
    // The broker writes the marker after it has accepted the commit.
    let has_ended = (0..LOOKS_MAX).any(|_| source.end_of(&cluster.partition(0), WAIT).unwrap() == NextOffset(4));
    assert!(has_ended);
    assert_eq!(source.partitions(WAIT).unwrap(), [(cluster.name.clone(), 1)]);
}

#[test]
fn markers_behind_the_last_record_are_no_backlog() {
    let Some(cluster) = Cluster::from_env("backlog") else { return };
    let cluster = cluster.with(&[("consumer.statistics.interval.ms", "100")]);
    cluster.make_topic(1, false);
    let writer = cluster.transactional_writer();
    writer.begin(3);
    writer.commit();
    let mut source = cluster.held_source(1);
    source.start_at(&[(cluster.partition(0), None)]).unwrap();
    assert_eq!(read(&mut source, 3), [0, 1, 2]);
    let is_known = (0..LOOKS_MAX).any(|_| {
        source.poll(LOOK, &mut |_| ()).unwrap();
        source.backlog() == [(cluster.partition(0), 0)]
    });
    assert!(is_known, "{:?}", source.backlog());
}

/// Commits an offset for the group, as one who is no member.
fn commit(cluster: &Cluster, partition: i32, next: i64, metadata: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.servers).set("group.id", &cluster.name);
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.commit(&offsets(cluster, partition, next, metadata), CommitMode::Sync).unwrap();
}

fn offsets(cluster: &Cluster, partition: i32, next: i64, metadata: &str) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&cluster.name, partition);
    element.set_offset(Offset::Offset(next)).unwrap();
    element.set_metadata(metadata);
    list
}

#[test]
fn what_the_group_committed_is_found_with_its_metadata() {
    for protocol in PROTOCOLS {
        let Some(cluster) = Cluster::from_env("committed").map(|cluster| cluster.with(protocol)) else { return };
        cluster.make_topic(3, false);
        commit(&cluster, 2, 7, "epoch 12");
        commit(&cluster, 0, 9, "");
        let restorer = cluster.restorer();
        let partitions = [2, 1, 0].map(|partition| cluster.partition(partition));
        let committed = restorer.committed(&partitions, WAIT).unwrap();
        let next = |next, text: &str| Some(Committed { next: NextOffset(next), metadata: text.to_string() });
        let expected = [next(7, "epoch 12"), None, next(9, "")];
        assert_eq!(committed, partitions.into_iter().zip(expected).collect::<Vec<_>>());
        assert_eq!(restorer.committed(&[], WAIT).unwrap(), []);
    }
}

#[test]
fn a_group_with_members_can_be_asked_in_every_protocol() {
    for protocol in PROTOCOLS {
        let Some(cluster) = Cluster::from_env("members").map(|cluster| cluster.with(protocol)) else { return };
        cluster.make_topic(1, false);
        let mut source = cluster.held_source(1);
        source.commit(&[(cluster.partition(0), NextOffset(4))]).unwrap();
        let committed = cluster.restorer().committed(&[cluster.partition(0)], WAIT).unwrap();
        assert_eq!(committed[0].1.as_ref().unwrap().next, NextOffset(4), "{protocol:?}");
        // Nobody joined: the member is still alone and was not disturbed.
        read_nothing(&mut source);
    }
}

#[test]
fn offsets_in_an_open_transaction_are_waited_for() {
    let Some(cluster) = Cluster::from_env("open-offsets") else { return };
    cluster.make_topic(1, false);
    commit(&cluster, 0, 5, "before");
    let writer = cluster.transactional_writer();
    writer.begin(1);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.servers).set("group.id", &cluster.name);
    let nobody: BaseConsumer = config.create().unwrap();
    let group = nobody.group_metadata().unwrap();
    writer.producer.send_offsets_to_transaction(&offsets(&cluster, 0, 6, "never"), &group, WAIT).unwrap();
    drop(writer);
    let restorer = cluster.restorer();
    let error = restorer.committed(&[cluster.partition(0)], Duration::from_millis(600)).unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    let committed = restorer.committed(&[cluster.partition(0)], WAIT).unwrap();
    assert_eq!(committed[0].1, Some(Committed { next: NextOffset(5), metadata: "before".to_string() }));
}

#[test]
fn a_partition_is_read_from_its_beginning_to_its_end_tombstones_included() {
    let Some(cluster) = Cluster::from_env("tombstones") else { return };
    cluster.make_topic(1, true);
    let mut restorer = cluster.restorer();
    assert_eq!(restore(&mut restorer, &cluster.partition(0), WAIT).unwrap(), []);
    let writer = cluster.writer(&[]);
    writer.write("a", Some(b"1"));
    writer.write("b", Some(b""));
    writer.write("a", None);
    writer.producer.flush(WAIT).unwrap();
    let expected: Restored = vec![
        (0, "a".to_string(), Some(b"1".to_vec())),
        (1, "b".to_string(), Some(Vec::new())),
        (2, "a".to_string(), None),
    ];
    // Twice: nothing of one read is left over for the next.
    for _ in 0..2 {
        assert_eq!(restore(&mut restorer, &cluster.partition(0), WAIT).unwrap(), expected);
    }
}

#[test]
fn holes_of_compaction_do_not_end_a_read() {
    let Some(cluster) = Cluster::from_env("compacted") else { return };
    let configs = vec![("segment.ms", "200".to_string()), ("min.cleanable.dirty.ratio", "0.01".to_string())];
    ensure_topics(&cluster.properties, &[TopicSpec { configs, ..TopicSpec::new(&cluster.name, 1, true) }]).unwrap();
    let writer = cluster.writer(&[]);
    let mut restorer = cluster.restorer();
    let mut written = 0;
    for _ in 0..LOOKS_MAX {
        // The segment that is written to is never compacted: only a later record closes it.
        writer.fill(3);
        written += 3;
        let restored = restore(&mut restorer, &cluster.partition(0), WAIT).unwrap();
        let last = restored.last().unwrap();
        assert_eq!((last.0, last.1.as_str()), (written - 1, "k2"));
        if restored.len() < usize::try_from(written).unwrap() && restored[0].0 > 0 {
            return;
        }
    }
    panic!("nothing was compacted");
}

#[test]
fn a_hundred_megabytes_are_read_whole() {
    const RECORDS: usize = 10_000;
    const RECORD_BYTES: usize = 10_000;
    let Some(cluster) = Cluster::from_env("large") else { return };
    cluster.make_topic(1, true);
    let writer = cluster.writer(&[]);
    for record in 0..RECORDS {
        writer.write(&format!("k{record}"), Some(&[b'x'; RECORD_BYTES]));
    }
    writer.producer.flush(WAIT).unwrap();
    let (mut next, mut bytes) = (0, 0);
    let count = cluster.restorer().read(&cluster.partition(0), WAIT, &mut |record| {
        assert_eq!(record.offset, next);
        (next, bytes) = (next + 1, bytes + record.payload.unwrap().len());
    });
    assert_eq!((count.unwrap(), bytes), (RECORDS as u64, RECORDS * RECORD_BYTES));
}

#[test]
fn aborted_records_at_the_end_are_left_out_and_do_not_hang() {
    let Some(cluster) = Cluster::from_env("aborted") else { return };
    cluster.make_topic(1, true);
    let writer = cluster.transactional_writer();
    let mut restorer = cluster.restorer();
    writer.begin(2);
    writer.abort();
    assert_eq!(restore(&mut restorer, &cluster.partition(0), WAIT).unwrap(), []);
    writer.begin(3);
    writer.commit();
    writer.begin(5);
    writer.abort();
    let restored = restore(&mut restorer, &cluster.partition(0), WAIT).unwrap();
    assert_eq!(restored.iter().map(|record| record.0).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn an_open_transaction_at_the_end_is_waited_for() {
    let Some(cluster) = Cluster::from_env("open") else { return };
    cluster.make_topic(1, true);
    let writer = cluster.transactional_writer();
    writer.begin(3);
    writer.commit();
    writer.begin(5);
    drop(writer);
    let mut restorer = cluster.restorer();
    let partition = cluster.partition(0);
    let error = restore(&mut restorer, &partition, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff);
    let text = error.to_string();
    assert!(text.contains(&format!("{partition} is 9 long, but a transaction is open since offset 4")), "{text}");
    let restored = restore(&mut restorer, &partition, WAIT).unwrap();
    assert_eq!(restored.iter().map(|record| record.0).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_partition_that_does_not_exist_is_an_error_that_names_the_question() {
    let Some(cluster) = Cluster::from_env("absent") else { return };
    let mut restorer = cluster.restorer();
    let error = restore(&mut restorer, &cluster.partition(0), Duration::from_millis(500)).unwrap_err();
    assert!(error.to_string().starts_with("kafka ask where a partition ends: "), "{error}");
}

#[test]
fn a_topic_with_another_number_of_partitions_is_refused_and_other_differences_are_shown() {
    let Some(cluster) = Cluster::from_env("inspect") else { return };
    let configs =
        |segment_ms: &str| vec![("segment.ms", segment_ms.to_string()), ("retention.ms", "86400000".to_string())];
    let spec = |partitions, segment_ms| TopicSpec {
        partitions_fixed: true,
        configs: configs(segment_ms),
        ..TopicSpec::new(&cluster.name, partitions, true)
    };
    let inspect = |spec: TopicSpec| inspect_topics(&cluster.properties, &[spec]).unwrap().remove(0);
    let before = inspect(spec(3, "600000"));
    assert_eq!((before.exists, before.partitions, before.replication), (false, None, None));
    assert!(before.differences.is_empty());
    let created = ensure_topics(&cluster.properties, &[spec(3, "600000")]).unwrap();
    assert_eq!(created, std::slice::from_ref(&cluster.name));
    let same = inspect(spec(3, "600000"));
    assert_eq!((same.exists, same.partitions, same.replication), (true, Some(3), Some(1)));
    assert!(same.differences.is_empty(), "{same:?}");
    let error = ensure_topics(&cluster.properties, &[spec(4, "600000")]).unwrap_err().to_string();
    assert!(error.contains("has partitions=3, but 4 is needed"), "{error}");
    // Lived with.
    assert_eq!(ensure_topics(&cluster.properties, &[spec(3, "1000")]).unwrap(), Vec::<String>::new());
    let other = inspect(spec(4, "1000"));
    let shown: Vec<_> = other
        .differences
        .iter()
        .map(|d| (d.name.as_str(), d.found.as_str(), d.wanted.as_str(), d.is_fatal()))
        .collect();
    assert_eq!(shown, [("partitions", "3", "4", true), ("segment.ms", "600000", "1000", false)]);
}
