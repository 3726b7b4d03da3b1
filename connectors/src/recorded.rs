//! Recorded telemetry, read once more: each partition by itself, from a beginning to an end.
//!
//! A [`Track`] is one partition of a topic or one recorded file. Tracks are independent of each other, so that whoever
//! replays them decides in which order they meet: that must not depend on which broker or disk answers first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ConnectorError;
use crate::record::{RecordRef, TopicPartition};

/// A record that was read again, and is kept until its turn comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Where it was read.
    pub partition: TopicPartition,
    /// Its own offset; for recorded files, the ordinal of the line or frame in its file.
    pub offset: i64,
    /// When the broker got it, in milliseconds since the Unix epoch, UTC; 0 if it carries no stamp.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
}

impl Recorded {
    /// A copy of a record that was lent.
    #[must_use]
    pub fn copy_of(record: RecordRef<'_>, partition: &TopicPartition) -> Self {
        Self {
            partition: partition.clone(),
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
        }
    }

    /// Lends it.
    #[must_use]
    pub fn lend(&self) -> RecordRef<'_> {
        RecordRef {
            topic: &self.partition.topic,
            partition: self.partition.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            ..RecordRef::default()
        }
    }
}

/// The records of one partition, in their order.
pub trait Track: Send {
    /// The next record; none at the end, and for ever after.
    ///
    /// # Errors
    /// The broker refuses or does not answer, a file breaks off or cannot be read: what is missing is missing.
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError>;
}

/// How much of all tracks has been read: records of topics, bytes of files.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// So much more was read.
    pub fn add(&self, much: u64) {
        self.0.fetch_add(much, Ordering::Relaxed);
    }

    /// How much was read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
