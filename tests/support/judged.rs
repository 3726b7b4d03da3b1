//! When everything is judged: what the groups of both stages have committed, held against what their topics hold.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use lictor_connectors::{KafkaProperties, KafkaRestorer, NextOffset, TopicPartition};
use lictor_engine::clock::{Clock, SystemClock};

const LOOK: Duration = Duration::from_millis(20);

/// Returns once all telemetry that lies in `input` now (a topic and its number of partitions) is scanned, and all that
/// the scan has made of it is judged.
///
/// The scan commits an offset together with everything it has made of the records before it. So when the offsets are
/// there, so are the parcels.
pub(crate) fn wait_until_judged(
    properties: &KafkaProperties,
    application_id: &str,
    (input, partitions): (&str, i32),
    shards: i32,
    patience: Duration,
) {
    wait_until_consumed(properties, &format!("{application_id}-scan"), (input, partitions), patience);
    let shuffle = format!("{application_id}.shuffle");
    wait_until_consumed(properties, &format!("{application_id}-judge"), (&shuffle, shards), patience);
}

/// Returns once `group` has committed what lies in a topic now.
fn wait_until_consumed(
    properties: &KafkaProperties,
    group: &str,
    (topic, partitions): (&str, i32),
    patience: Duration,
) {
    let clock = SystemClock::start();
    let mut log = KafkaRestorer::try_new(properties, group, "test-judged").unwrap();
    let partitions: Vec<_> = (0..partitions).map(|number| TopicPartition::new(topic, number)).collect();
    // The marks of transactions take offsets too, so where a partition ends does not say where its last record is.
    let mut ends: BTreeMap<&TopicPartition, NextOffset> = BTreeMap::new();
    for partition in &partitions {
        let note = &mut |record: lictor_connectors::RecordRef<'_>| {
            ends.insert(partition, NextOffset::after(record.offset));
        };
        log.read(partition, patience, note).unwrap();
    }
    loop {
        let committed = log.committed(&partitions, patience).unwrap();
        let committed: BTreeMap<_, _> = committed.into_iter().filter_map(|(p, c)| Some((p, c?.next))).collect();
        let is_behind = |(partition, end): &(&&TopicPartition, &NextOffset)| committed.get(**partition) < Some(*end);
        let behind: Vec<_> = ends.iter().filter(is_behind).collect();
        if behind.is_empty() {
            return;
        }
        assert!(clock.monotonic() < patience, "{group} has not committed {behind:?} after {patience:?}: {committed:?}");
        thread::park_timeout(LOOK);
    }
}
