//! A real Kafka cluster, seen from outside: topics of one test, what is written to them, what is read from them.

use std::cell::Cell;
use std::env;
use std::time::Duration;

use lictor_connectors::{
    ConnectorError, KafkaProperties, KafkaSink, KafkaSource, Outgoing, Sink, Source, TopicSpec, ensure_topics,
};
use lictor_engine::clock::{Clock, SystemClock};

/// Far more than a slow machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// The cluster under test, and a name nobody else uses.
pub(crate) struct Cluster {
    pub(crate) properties: KafkaProperties,
    pub(crate) name: String,
    readers: Cell<u32>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
}

impl Cluster {
    /// `None`, and a line that says so, if no cluster was named.
    pub(crate) fn from_env(test: &str) -> Option<Self> {
        let Ok(servers) = env::var("KAFKA_BOOTSTRAP") else {
            eprintln!("{test}: skipped: KAFKA_BOOTSTRAP is not set (see tests/kafka.sh)");
            return None;
        };
        let unique = SystemClock::start().now().0;
        let properties = KafkaProperties::from_bootstrap(&servers);
        Some(Self { properties, name: format!("{test}-{unique}"), readers: Cell::default() })
    }

    /// The name of one of this test's topics.
    pub(crate) fn topic(&self, purpose: &str) -> String {
        format!("{}.{purpose}", self.name)
    }

    /// Makes a topic unless it exists, else checks that it is compacted or not.
    pub(crate) fn make_topic(&self, purpose: &str, partitions: i32, compacted: bool) {
        let topic = TopicSpec::new(self.topic(purpose), partitions, compacted);
        ensure_topics(&self.properties, &[topic]).unwrap();
    }

    /// Writes payloads to a topic in their order and waits until the cluster has them.
    pub(crate) fn produce(&self, purpose: &str, payloads: Vec<Option<Vec<u8>>>) -> Result<(), ConnectorError> {
        let properties = self.properties.clone().with("producer.message.max.bytes", "9000000")?;
        let mut sink = KafkaSink::try_new(&properties, "test-out")?;
        for payload in payloads {
            sink.publish(&Outgoing { topic: self.topic(purpose), key: None, payload, headers: Vec::new() })?;
        }
        sink.flush()
    }

    /// Reads a topic from its beginning until it holds enough.
    pub(crate) fn read(&self, purpose: &str, is_enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let (clock, topic) = (SystemClock::start(), self.topic(purpose));
        self.readers.set(self.readers.get() + 1);
        let group = format!("{topic}.reader{}", self.readers.get());
        let properties = self.properties.clone().with("consumer.fetch.message.max.bytes", "9000000").unwrap();
        let mut source = KafkaSource::try_new(&properties, &group, "test-in", std::slice::from_ref(&topic)).unwrap();
        let mut messages: Vec<Message> = Vec::new();
        while !is_enough(&messages) {
            assert!(clock.monotonic() < PATIENCE, "{topic}: {} messages after {PATIENCE:?}", messages.len());
            let take = &mut |record: lictor_connectors::RecordRef<'_>| {
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                let (key, payload) = (owned(record.key), owned(record.payload));
                messages.push(Message { offset: record.offset, key, payload });
            };
            source.poll(LOOK, take).unwrap();
        }
        messages
    }
}
