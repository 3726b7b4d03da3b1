//! A record on its way in, a message on its way out, and the coordinates of both.

use std::fmt;
use std::sync::Arc;

use crate::kafka::Fetched;

/// One record, lent for the time of a call: key and payload lie in the client's fetch buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The headers; recorded files have none.
    pub headers: Headers<'a>,
}

/// A header: its name and its value.
pub type Header = (String, Vec<u8>);

/// The headers of a record, which are not looked at before somebody asks: hardly anybody does.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(Lent<'a>);

#[derive(Clone, Copy, Default)]
enum Lent<'a> {
    #[default]
    Nothing,
    Said(&'a [Header]),
    Fetched(Fetched<'a>),
}

impl<'a> Headers<'a> {
    /// These headers.
    #[must_use]
    pub fn of(said: &'a [Header]) -> Self {
        Self(Lent::Said(said))
    }

    pub(crate) fn fetched(fetched: Fetched<'a>) -> Self {
        Self(Lent::Fetched(fetched))
    }

    /// All of them in their order. A name that is not UTF-8 has replacement characters in it, a value that is null is
    /// empty.
    #[must_use]
    pub fn to_vec(self) -> Vec<Header> {
        match self.0 {
            Lent::Nothing => Vec::new(),
            Lent::Said(said) => said.to_vec(),
            Lent::Fetched(fetched) => fetched.headers(),
        }
    }
}

impl fmt::Debug for Headers<'_> {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.to_vec().iter().map(|(name, _)| name)).finish()
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for Headers<'_> {}

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
    pub headers: Vec<Header>,
}
