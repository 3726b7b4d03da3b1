//! Partitions of topics, read from one offset to another, all at once and each at its own pace.
//!
//! One client fetches for all of them, on its brokers' threads, and each partition has a queue of its own: nobody's
//! records lie in front of another's. A queue that is full is not fetched for, so what waits in memory has a bound
//! however far partitions are apart.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::log::Logged;
use super::properties::{KafkaProperties, Role};
use super::refused;
use super::restore::{LOOK, Patience, ReadCommitted};
use super::source::{as_record, is_recovered_by_the_client};
use crate::error::ConnectorError;
use crate::record::{NextOffset, TopicPartition};
use crate::recorded::{Meter, Recorded, Track};

/// What all queues together may hold, in kilobytes: half a second of what a fast disk gives.
const QUEUED_KBYTES_MAX: usize = 256 * 1024;
/// What one queue may hold at least: a few fetches of a broker's default size.
const QUEUED_KBYTES_MIN: usize = 1024;
/// And at most: a single partition gains nothing by more.
const QUEUED_KBYTES_OF_ONE_MAX: usize = 64 * 1024;

/// A partition of a topic, between two offsets.
pub struct KafkaTrack {
    consumer: Arc<BaseConsumer<Logged>>,
    queue: PartitionQueue<Logged>,
    partition: TopicPartition,
    next: NextOffset,
    end: NextOffset,
    patience: Duration,
    meter: Meter,
}

impl KafkaTrack {
    /// The committed records of these partitions between two offsets, the second exclusive. The client never joins
    /// `group`. A broker that says nothing for `patience` is an error.
    ///
    /// # Errors
    /// librdkafka refuses a property or a partition.
    pub fn open(
        properties: &KafkaProperties,
        (group, client_id): (&str, &str),
        ranges: &[(TopicPartition, Range<NextOffset>)],
        (patience, meter): (Duration, &Meter),
    ) -> Result<Vec<Self>, ConnectorError> {
        let of_one = QUEUED_KBYTES_MAX / ranges.len().max(1);
        let kbytes = of_one.clamp(QUEUED_KBYTES_MIN, QUEUED_KBYTES_OF_ONE_MAX).to_string();
        let own = [("group.id", group), ("client.id", client_id), ("queued.max.messages.kbytes", &kbytes)];
        let ReadCommitted(consumer) = properties.create(Role::Consumer, &own, Logged::default())?;
        let consumer = Arc::new(consumer);
        let mut start = TopicPartitionList::with_capacity(ranges.len());
        for (partition, range) in ranges {
            start
                .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(range.start.0))
                .map_err(|error| refused("read a partition", &error))?;
        }
        let track = |(partition, range): &(TopicPartition, Range<NextOffset>)| {
            let queue = consumer.split_partition_queue(&partition.topic, partition.partition);
            let queue = queue.ok_or_else(|| refused("read a partition", &KafkaError::Canceled))?;
            let (consumer, partition, meter) = (Arc::clone(&consumer), partition.clone(), meter.clone());
            Ok(Self { consumer, queue, partition, next: range.start, end: range.end, patience, meter })
        };
        // Before the client begins to fetch: what it fetches first is in the right queue, too.
        let tracks = ranges.iter().map(track).collect::<Result<Vec<_>, _>>()?;
        consumer.assign(&start).map_err(|error| refused("read a partition", &error))?;
        Ok(tracks)
    }

    /// Everything up to `next` was read, or is not there any more.
    fn come_to(&mut self, next: NextOffset) {
        self.meter.add(u64::try_from(next.0.min(self.end.0) - self.next.0).unwrap_or_default());
        self.next = next;
    }
}

impl Track for KafkaTrack {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        let mut patience = Patience::new(self.patience);
        while self.next < self.end {
            let polled = match self.queue.poll(LOOK) {
                Some(Ok(message)) => Some(Ok(Recorded::copy_of(as_record(&message), &self.partition))),
                Some(Err(error)) => Some(Err(error)),
                None => None,
            };
            match polled {
                // Written since somebody asked for the end.
                Some(Ok(record)) if record.offset >= self.end.0 => self.come_to(self.end),
                Some(Ok(record)) => {
                    self.come_to(NextOffset::after(record.offset));
                    return Ok(Some(record));
                }
                // Only markers and aborted records lie behind the last one.
                Some(Err(KafkaError::PartitionEOF(_))) => self.come_to(self.end),
                Some(Err(error)) if !is_recovered_by_the_client(&error) => {
                    return Err(refused("read a partition", &error));
                }
                Some(Err(_)) => {}
                None => {
                    // Log lines and errors wait in the client until somebody polls it.
                    self.consumer.poll(Duration::ZERO);
                    if !patience.outlasts(LOOK) {
                        let (partition, next, end) = (&self.partition, self.next.0, self.end.0);
                        return Err(patience.lost(format!("{partition} was read to offset {next} of {end}")));
                    }
                }
            }
        }
        Ok(None)
    }
}
