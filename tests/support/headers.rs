//! Headers of Kafka messages, as Kafka's own console consumer shows them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;

/// Stands in no header.
const SEPARATOR: char = '\u{1f}';

/// The headers of the first `count` messages of one of the cluster's topics.
pub(crate) fn headers(cluster: &Cluster, purpose: &str, count: usize) -> Vec<BTreeMap<String, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka.sh");
    let mut consumer = Command::new(script);
    consumer.args(["console-consumer", "--from-beginning", "--timeout-ms", "30000"]);
    consumer.args(["--topic", &cluster.topic(purpose), "--max-messages", &count.to_string()]);
    for property in ["print.headers=true", "print.value=false", &format!("headers.separator={SEPARATOR}")] {
        consumer.args(["--property", property]);
    }
    let output = consumer.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let header = |pair: &str| pair.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let messages: Vec<_> = text.lines().map(|line| line.split(SEPARATOR).map(header).collect()).collect();
    assert_eq!(messages.len(), count, "{text}");
    messages
}
