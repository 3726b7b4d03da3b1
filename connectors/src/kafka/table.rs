//! A compacted topic as a reference table: read to its end once, then followed.
//!
//! The client assigns itself every partition and joins no group: each instance has the whole table. It reads what is
//! committed. Where a partition ends for such a reader is asked before anything is read, and the table is not there
//! before all of that has come.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::log::Logged;
use super::properties::{KafkaProperties, Role};
use super::refused;
use super::restore::{LOOK, Patience, ReadCommitted};
use super::source::{as_record, is_recovered_by_the_client};
use crate::error::{ConnectorError, Fault, Retry};
use crate::record::{NextOffset, RecordRef, TopicPartition};
use crate::reference::{Absorbed, LatestRows, ROWS_MAX, RefusedRecord, TooManyRows};

const ACTION: &str = "read a reference table";
/// How many records are taken over in one look: the rest waits for the next, so that a look ends.
const RECORDS_PER_LOOK: usize = 100_000;
/// How many refused records of one look are told one by one; a program that writes nonsense writes a lot of it.
const REFUSED_TOLD_MAX: usize = 10;
/// How many looks pass before the topic is asked again how many partitions it has.
const LOOKS_PER_COUNT: u32 = 60;
/// How long that answer is waited for: it is asked again, and the client itself says when no broker is there.
const COUNT_WAIT: Duration = Duration::from_secs(1);

/// A topic that is read as a table.
pub struct KafkaTable {
    consumer: ReadCommitted,
    topic: String,
    rows: LatestRows,
    /// What is next to read of each partition.
    next: BTreeMap<i32, NextOffset>,
    looks: u32,
}

/// What one look has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// How many times a row came, went or got other values.
    pub changes: usize,
    /// The first records that were refused.
    pub refused: Vec<RefusedRecord>,
    /// How many more were.
    pub refused_more: usize,
}

impl KafkaTable {
    /// Creates the client, which connects in the background. `group` is a name for quotas and access lists: it is
    /// never joined. Of `declared` a column called `key` is the record's key as text, the others are members of the
    /// value, a JSON object.
    ///
    /// # Errors
    /// librdkafka refuses a property, or a column has a type that JSON has no value for.
    pub fn try_new(
        properties: &KafkaProperties,
        group: &str,
        topic: &str,
        declared: SchemaRef,
    ) -> Result<Self, ConnectorError> {
        let own = [("group.id", group), ("client.id", group)];
        let consumer = properties.create(Role::Consumer, &own, Logged)?;
        let rows = LatestRows::try_new(declared, ROWS_MAX).map_err(|error| not_read(Fault::User, error.to_string()))?;
        Ok(Self { consumer, topic: topic.to_string(), rows, next: BTreeMap::new(), looks: 0 })
    }

    /// Forgets what was read and reads the topic from its beginning to where it ends at the time of the call.
    /// `goes_on` is asked in between; if it says no, reading ends with an error.
    ///
    /// # Errors
    /// The topic does not exist, the broker refuses or has no answer within about `wait`, or the topic has more keys
    /// than a table may have rows ([`ConnectorError::TableTooLarge`]). Nothing was read then.
    pub fn read_to_end(&mut self, wait: Duration, goes_on: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        self.rows.clear();
        self.next.clear();
        self.looks = 0;
        let mut patience = Patience::new(wait);
        let partitions = self.partitions(&mut patience)?;
        let mut ends = BTreeMap::new();
        for partition in 0..partitions {
            let at = TopicPartition::new(&self.topic, partition);
            let (low, end) = patience.ask_for_ends(&self.consumer.0, &at)?;
            self.next.insert(partition, NextOffset(low));
            if low < end {
                ends.insert(partition, NextOffset(end));
            }
        }
        self.assign()?;
        while !ends.is_empty() {
            if !goes_on() {
                return Err(not_read(Fault::External, format!("topic `{}`: stopped while reading", self.topic)));
            }
            match self.poll(LOOK)? {
                Polled::Record(partition, _) => {
                    ends.retain(|at, end| *at != partition || self.next.get(at).is_none_or(|next| next < end));
                }
                // Only markers and aborted records lie behind the last one.
                Polled::End(partition) => drop(ends.remove(&partition)),
                Polled::Nothing if patience.outlasts(LOOK) => {}
                Polled::Nothing => {
                    let left: Vec<String> = ends.keys().map(ToString::to_string).collect();
                    return Err(patience.lost(format!("`{}`: partitions {} not read", self.topic, left.join(", "))));
                }
            }
        }
        Ok(())
    }

    /// Takes over what has come since, without waiting for anything.
    ///
    /// # Errors
    /// As [`KafkaTable::read_to_end`]; or the topic was made anew or has more partitions than before. What was taken
    /// over is a part then: the topic must be read from its beginning.
    pub fn follow(&mut self) -> Result<Followed, ConnectorError> {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS_PER_COUNT) {
            self.check_partitions()?;
        }
        let mut followed = Followed::default();
        for _ in 0..RECORDS_PER_LOOK {
            match self.poll(Duration::ZERO)? {
                Polled::Record(_, Absorbed::Changed) => followed.changes += 1,
                Polled::Record(_, Absorbed::Refused(refused)) if followed.refused.len() < REFUSED_TOLD_MAX => {
                    followed.refused.push(refused);
                }
                Polled::Record(_, Absorbed::Refused(_)) => followed.refused_more += 1,
                Polled::Record(_, Absorbed::Unchanged) | Polled::End(_) => {}
                Polled::Nothing => break,
            }
        }
        Ok(followed)
    }

    /// The table as far as the topic was read: a row per key, in the order of the keys.
    ///
    /// # Errors
    /// A row does not fit after all.
    pub fn rows(&self) -> Result<RecordBatch, ArrowError> {
        self.rows.rows()
    }

    /// The records that are the latest of their keys and were refused: their rows are older than they should be.
    pub fn refused(&self) -> impl ExactSizeIterator<Item = &RefusedRecord> {
        self.rows.refused()
    }

    fn partitions(&self, patience: &mut Patience) -> Result<i32, ConnectorError> {
        let count = patience.ask("list topics", |wait| self.count_partitions(wait))?;
        match count {
            0 => Err(not_read(Fault::User, format!("topic `{}` does not exist, or may not be read", self.topic))),
            count => Ok(count),
        }
    }

    /// 0 if the topic does not exist.
    fn count_partitions(&self, wait: Duration) -> Result<i32, KafkaError> {
        // All topics and not this one: asking for a topic by name makes some brokers create it.
        let metadata = self.consumer.0.fetch_metadata(None, wait)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        Ok(found.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
    }

    fn check_partitions(&self) -> Result<(), ConnectorError> {
        match self.count_partitions(COUNT_WAIT) {
            Ok(count) if usize::try_from(count).is_ok_and(|count| count == self.next.len()) => Ok(()),
            Ok(count) => {
                let message = format!("topic `{}` has {count} partitions and had {}", self.topic, self.next.len());
                Err(not_read(Fault::External, message))
            }
            Err(_) => Ok(()),
        }
    }

    fn assign(&self) -> Result<(), ConnectorError> {
        let mut start = TopicPartitionList::with_capacity(self.next.len());
        let all = self.next.iter().try_for_each(|(partition, next)| {
            // By number, which needs no further question.
            start.add_partition_offset(&self.topic, *partition, Offset::Offset(next.0))
        });
        all.and_then(|()| self.consumer.0.assign(&start)).map_err(|error| refused(ACTION, &error))
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled, ConnectorError> {
        let message = match self.consumer.0.poll(wait) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(partition))) => return Ok(Polled::End(partition)),
            Some(Err(error)) if !is_recovered_by_the_client(&error) => return Err(refused(ACTION, &error)),
            Some(Err(_)) | None => return Ok(Polled::Nothing),
        };
        let record = as_record(&message);
        absorb(&mut self.rows, &mut self.next, &record)
    }
}

/// What one look at the client has found.
enum Polled {
    /// A record of this partition.
    Record(i32, Absorbed),
    /// The end of this partition, for now.
    End(i32),
    Nothing,
}

fn absorb(
    rows: &mut LatestRows,
    next: &mut BTreeMap<i32, NextOffset>,
    record: &RecordRef<'_>,
) -> Result<Polled, ConnectorError> {
    let RecordRef { topic, partition, offset, .. } = *record;
    let after = NextOffset::after(offset);
    if next.insert(partition, after).is_some_and(|expected| offset < expected.0) {
        let message = format!("{topic}[{partition}] begins anew at offset {offset}: the topic was made again");
        return Err(not_read(Fault::External, message));
    }
    match rows.absorb(record) {
        Ok(absorbed) => Ok(Polled::Record(partition, absorbed)),
        Err(TooManyRows { rows_max }) => Err(ConnectorError::TableTooLarge { topic: topic.to_string(), rows_max }),
    }
}

fn not_read(fault: Fault, message: String) -> ConnectorError {
    let retry = if fault == Fault::User { Retry::Never } else { Retry::Backoff };
    ConnectorError::Kafka { action: ACTION, message, fault, retry }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn take(
        rows: &mut LatestRows,
        next: &mut BTreeMap<i32, NextOffset>,
        offset: i64,
        key: &str,
    ) -> Result<(), ConnectorError> {
        let (key, payload) = (Some(key.as_bytes()), Some(&b"{}"[..]));
        absorb(rows, next, &RecordRef { topic: "t", partition: 1, offset, timestamp_ms: 0, key, payload }).map(|_| ())
    }

    fn one_row() -> LatestRows {
        let declared = Schema::new(vec![Field::new("usd", DataType::Float64, true)]);
        LatestRows::try_new(Arc::new(declared), 1).unwrap()
    }

    #[test]
    fn a_partition_that_begins_anew_is_no_continuation() {
        let (mut rows, mut next) = (one_row(), BTreeMap::from([(1, NextOffset(5))]));
        take(&mut rows, &mut next, 7, "a").unwrap();
        let error = take(&mut rows, &mut next, 0, "a").unwrap_err();
        assert_eq!(error.retry(), Retry::Backoff);
        assert!(error.to_string().contains("t[1] begins anew at offset 0"), "{error}");
    }

    #[test]
    fn too_many_keys_are_the_users_mistake_and_name_the_limit() {
        let (mut rows, mut next) = (one_row(), BTreeMap::new());
        take(&mut rows, &mut next, 0, "a").unwrap();
        let error = take(&mut rows, &mut next, 1, "b").unwrap_err();
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
        let expected = "topic `t` has more than 1 keys, which is the most a reference table may have";
        assert_eq!(error.to_string(), expected);
    }
}
