//! A record on its way in, a message on its way out, and the coordinates of both.

use std::fmt;
use std::sync::Arc;

/// One record, lent for the time of a call: key and payload lie in the client's fetch buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The topic it was read from; for a recorded file, the topic it is bound to.
    pub topic: &'a str,
    /// The partition; for recorded files, the ordinal of the file.
    pub partition: i32,
    /// Its own offset (not the next one); for recorded files, the ordinal of the line or frame in its file.
    pub offset: i64,
    /// When the broker (or the producer, as the topic says) stamped it, in milliseconds since the Unix epoch, UTC;
    /// 0 if it carries no stamp, as recorded files never do.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: Arc::from(topic), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// An offset that always means "next to read".
///
/// Kafka's consumers, its commits and its lag use that meaning, its records carry their own offset; adding one is done
/// in [`NextOffset::after`] and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

impl NextOffset {
    /// What is next to read once the record at `offset` has been read.
    #[must_use]
    pub fn after(offset: i64) -> Self {
        Self(offset + 1)
    }
}

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: String,
    /// Messages of one key keep their order: the key chooses the partition as Java's producer does.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone, which removes the key from a compacted topic.
    pub payload: Option<Vec<u8>>,
    /// Headers in the order in which they are sent.
    pub headers: Vec<(String, Vec<u8>)>,
}
