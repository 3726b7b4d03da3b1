//! What only a real broker can show: topics and their policies, offsets that survive, partitions that move.
//!
//! Runs against `KAFKA_BOOTSTRAP=host:port` and says so and passes without it; `tests/run` starts a broker and sets it.
//! Every test makes its own topics and groups, so that a cluster can be used again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/fresh.rs"]
mod fresh;

use std::time::Duration;

use fresh::servers_and_name;
use lictor_connectors::{
    AssignmentChange, ConnectorError, KafkaProperties, KafkaSink, KafkaSource, NextOffset, Outgoing, Polled, Sink,
    Source, TopicPartition, TopicSpec, ensure_topics,
};

/// One look of the loop.
const LOOK: Duration = Duration::from_millis(50);
/// 1,200 looks are a minute, for a broker on a busy machine.
const LOOKS_MAX: usize = 1_200;

/// The cluster under test, and a name nobody else uses.
struct Cluster {
    properties: KafkaProperties,
    name: String,
}

impl Cluster {
    /// `None`, and a line that says so, if no cluster was named.
    fn from_env(test: &str) -> Option<Self> {
        let (servers, name) = servers_and_name(test)?;
        Some(Self { properties: KafkaProperties::from_bootstrap(&servers), name })
    }

    fn make_topic(&self, partitions: i32, compacted: bool) -> Result<Vec<String>, ConnectorError> {
        ensure_topics(&self.properties, &[TopicSpec::new(&self.name, partitions, compacted)])
    }

    fn source(&self) -> KafkaSource {
        KafkaSource::try_new(&self.properties, &self.name, "test-in", std::slice::from_ref(&self.name)).unwrap()
    }

    fn publish(&self, keys: &[&str]) {
        let mut sink = KafkaSink::try_new(&self.properties, "test-out").unwrap();
        for key in keys {
            let (topic, key) = (self.name.clone(), Some(key.as_bytes().to_vec()));
            sink.publish(&Outgoing { topic, key, payload: Some(b"x".to_vec()), headers: Vec::new() }).unwrap();
        }
        sink.flush().unwrap();
    }
}

/// Polls until `count` records came; releases what is revoked. Partition, offset and key of each.
#[track_caller]
fn read(source: &mut KafkaSource, count: usize) -> Vec<(i32, i64, String)> {
    let mut records = Vec::new();
    for _ in 0..LOOKS_MAX {
        let polled = source.poll(LOOK, &mut |r| {
            records.push((r.partition, r.offset, String::from_utf8(r.key.unwrap().to_vec()).unwrap()));
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

#[test]
fn topics_are_made_once_and_a_wrong_policy_is_refused() {
    let Some(cluster) = Cluster::from_env("topics") else { return };
    assert_eq!(cluster.make_topic(2, true).unwrap(), std::slice::from_ref(&cluster.name));
    assert_eq!(cluster.make_topic(2, true).unwrap(), Vec::<String>::new());
    let error = cluster.make_topic(2, false).unwrap_err();
    assert!(matches!(&error, ConnectorError::TopicConfig { found, .. } if found == "compact"), "{error}");
}

#[test]
fn an_impossible_topic_is_named() {
    let Some(cluster) = Cluster::from_env("impossible") else { return };
    let topic = TopicSpec::new("no spaces allowed", 1, false);
    let error = ensure_topics(&cluster.properties, &[topic]).unwrap_err();
    assert!(matches!(&error, ConnectorError::TopicMissing { topic, .. } if topic == "no spaces allowed"), "{error}");
}

#[test]
fn a_new_member_continues_at_the_committed_offset() {
    let Some(cluster) = Cluster::from_env("resume") else { return };
    cluster.make_topic(1, false).unwrap();
    cluster.publish(&["a", "b", "c"]);
    let mut first = cluster.source();
    let (partition, offset, _) = read(&mut first, 3)[1].clone();
    first.commit(&[(TopicPartition::new(&cluster.name, partition), NextOffset::after(offset))]).unwrap();
    drop(first);
    assert_eq!(read(&mut cluster.source(), 1), [(0, 2, "c".to_string())]);
}

#[test]
fn a_topic_that_is_made_after_the_member_joined_is_read_from_its_beginning() {
    let Some(mut cluster) = Cluster::from_env("later") else { return };
    cluster.properties = cluster.properties.with("consumer.topic.metadata.refresh.interval.ms", "500").unwrap();
    let mut source = cluster.source();
    for _ in 0..20 {
        assert_eq!(source.poll(LOOK, &mut |_| panic!("nothing was published")).unwrap(), Polled::Empty);
    }
    cluster.make_topic(1, false).unwrap();
    cluster.publish(&["a"]);
    assert_eq!(read(&mut source, 1), [(0, 0, "a".to_string())]);
}

#[test]
fn a_second_member_takes_over_what_the_first_committed_and_nothing_twice() {
    let Some(cluster) = Cluster::from_env("rebalance") else { return };
    cluster.make_topic(2, false).unwrap();
    cluster.publish(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let mut first = cluster.source();
    let mut seen = read(&mut first, 8);
    let mut second = cluster.source();
    let mut taken_over = 0;
    for _ in 0..LOOKS_MAX {
        if let Polled::Assignment(AssignmentChange::Revoked(partitions)) = first.poll(LOOK, &mut |_| ()).unwrap() {
            let next: Vec<_> = partitions.iter().map(|p| (p.clone(), next_of(&seen, p.partition))).collect();
            first.commit(&next).unwrap();
            first.release(&partitions).unwrap();
        }
        let polled = second.poll(Duration::ZERO, &mut |r| panic!("offset {} came twice", r.offset));
        if let Polled::Assignment(AssignmentChange::Assigned(partitions)) = polled.unwrap() {
            taken_over += partitions.len();
        }
        if taken_over == 1 {
            break;
        }
    }
    assert_eq!(taken_over, 1);
    cluster.publish(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    for _ in 0..LOOKS_MAX {
        for member in [&mut first, &mut second] {
            let record = &mut |r: lictor_connectors::RecordRef<'_>| seen.push((r.partition, r.offset, String::new()));
            member.poll(LOOK, record).unwrap();
        }
        if seen.len() == 16 {
            break;
        }
    }
    let mut coordinates: Vec<_> = seen.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
    coordinates.sort_unstable();
    coordinates.dedup();
    assert_eq!((seen.len(), coordinates.len()), (16, 16));
}

fn next_of(seen: &[(i32, i64, String)], partition: i32) -> NextOffset {
    let last = seen.iter().filter(|(p, ..)| *p == partition).map(|(_, offset, _)| *offset).max();
    last.map_or(NextOffset(0), NextOffset::after)
}
