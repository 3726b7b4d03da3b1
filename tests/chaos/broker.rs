//! A Kafka node of our own, that we may restart and kill, and what lies in its topics.

use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use lictor_connectors::{KafkaProperties, KafkaRestorer, RecordRef, TopicPartition, TopicSpec, ensure_topics};

use crate::oracle::Record;

/// A coordinator that was killed needs some ten seconds to serve again, an open transaction as long to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// The node; dropping it stops it and deletes its data.
pub(crate) struct Broker {
    name: String,
    pub(crate) properties: KafkaProperties,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let name = format!("chaos-{}", process::id());
        let said = script(&name, &["start"]);
        let servers = said.trim().strip_prefix("KAFKA_BOOTSTRAP=").unwrap();
        Self { properties: KafkaProperties::from_bootstrap(servers), name }
    }

    /// Stops it in order and starts it again.
    pub(crate) fn restart(&self) {
        script(&self.name, &["restart"]);
    }

    /// Ends it with kill -9.
    pub(crate) fn crash(&self) {
        script(&self.name, &["crash"]);
    }

    /// Starts it again after [`Broker::crash`].
    pub(crate) fn resume(&self) {
        script(&self.name, &["resume"]);
    }

    /// Who reads what, and how far, in Kafka's words.
    pub(crate) fn groups(&self) -> String {
        let asked = ["groups", "--describe", "--all-groups"];
        [script(&self.name, &asked), script(&self.name, &[&asked[..], &["--members", "--verbose"]].concat())].concat()
    }

    pub(crate) fn make_topics(&self, topics: &[(&str, i32, bool)]) {
        let topics: Vec<_> = topics.iter().map(|(name, count, kept)| TopicSpec::new(*name, *count, *kept)).collect();
        ensure_topics(&self.properties, &topics).unwrap();
    }

    /// Everything in a topic that was committed, partition by partition.
    pub(crate) fn read(&self, topic: &str, partitions: i32) -> Vec<Record> {
        let mut reader = KafkaRestorer::try_new(&self.properties, "chaos-reader", "chaos-reader").unwrap();
        let mut records = Vec::new();
        for partition in 0..partitions {
            let partition = TopicPartition::new(topic, partition);
            reader.read(&partition, PATIENCE, &mut |record: RecordRef<'_>| records.push(record.into())).unwrap();
        }
        records
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script(&self.name, &["stop"]);
    }
}

/// What `tests/kafka.sh` prints about the node called `name`.
fn script(name: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka.sh");
    let output = Command::new(path)
        .args(arguments)
        .env("LICTOR_KAFKA_NAME", name)
        .env_remove("KAFKA_BOOTSTRAP")
        .output()
        .unwrap();
    assert!(output.status.success(), "kafka.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
