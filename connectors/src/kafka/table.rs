//! A compacted topic as a reference table: read to its end once, then followed (see [`KafkaFollower`]).
//!
//! The table is not there before all of the topic has come.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::follower::KafkaFollower;
use super::properties::KafkaProperties;
use crate::error::{ConnectorError, Fault, Retry};
use crate::record::RecordRef;
use crate::reference::{Absorbed, LatestRows, ROWS_MAX, RefusedRecord, TooManyRows};

const ACTION: &str = "read a reference table";
/// How many records are taken over in one look: the rest waits for the next, so that a look ends.
const RECORDS_PER_LOOK: usize = 100_000;
/// How many refused records of one look are told one by one; a program that writes nonsense writes a lot of it.
const REFUSED_TOLD_MAX: usize = 10;
/// How many looks pass before the topic is asked again how many partitions it has.
const LOOKS_PER_COUNT: u32 = 60;

/// A topic that is read as a table.
pub struct KafkaTable {
    follower: KafkaFollower,
    rows: LatestRows,
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

impl Followed {
    fn note(&mut self, absorbed: Absorbed) {
        match absorbed {
            Absorbed::Changed => self.changes += 1,
            Absorbed::Refused(refused) if self.refused.len() < REFUSED_TOLD_MAX => self.refused.push(refused),
            Absorbed::Refused(_) => self.refused_more += 1,
            Absorbed::Unchanged => {}
        }
    }
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
        let follower = KafkaFollower::for_action(ACTION, properties, group, topic)?;
        let rows = LatestRows::try_new(declared, ROWS_MAX).map_err(|error| {
            let (message, fault, retry) = (error.to_string(), Fault::User, Retry::Never);
            ConnectorError::Kafka { action: ACTION, message, fault, retry }
        })?;
        Ok(Self { follower, rows, looks: 0 })
    }

    /// Forgets what was read and reads the topic from its beginning to where it ends at the time of the call.
    /// `goes_on` is asked in between; if it says no, reading ends with an error.
    ///
    /// # Errors
    /// The topic does not exist, the broker refuses or has no answer within about `wait`, or the topic has more keys
    /// than a table may have rows ([`ConnectorError::TableTooLarge`]). Nothing was read then.
    pub fn read_to_end(&mut self, wait: Duration, goes_on: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        self.rows.clear();
        self.looks = 0;
        let rows = &mut self.rows;
        self.follower.read_to_end(wait, goes_on, &mut |record| absorb(rows, record).map(drop))
    }

    /// Takes over what has come since, without waiting for anything.
    ///
    /// # Errors
    /// As [`KafkaTable::read_to_end`]; or the topic was made anew or has more partitions than before. What was taken
    /// over is a part then: the topic must be read from its beginning.
    pub fn follow(&mut self) -> Result<Followed, ConnectorError> {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS_PER_COUNT) {
            self.follower.check_partitions()?;
        }
        let (rows, mut followed) = (&mut self.rows, Followed::default());
        self.follower.follow(Duration::ZERO, RECORDS_PER_LOOK, &mut |record| {
            followed.note(absorb(rows, record)?);
            Ok(())
        })?;
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
}

fn absorb(rows: &mut LatestRows, record: &RecordRef<'_>) -> Result<Absorbed, ConnectorError> {
    rows.absorb(record).map_err(|TooManyRows { rows_max }| {
        let topic = record.topic.to_string();
        ConnectorError::TableTooLarge { topic, rows_max }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn take(rows: &mut LatestRows, offset: i64, key: &str) -> Result<(), ConnectorError> {
        let (key, payload) = (Some(key.as_bytes()), Some(&b"{}"[..]));
        absorb(
            rows,
            &RecordRef { topic: "t", partition: 1, offset, timestamp_ms: 0, key, payload, ..RecordRef::default() },
        )
        .map(drop)
    }

    #[test]
    fn too_many_keys_are_the_users_mistake_and_name_the_limit() {
        let declared = Schema::new(vec![Field::new("usd", DataType::Float64, true)]);
        let mut rows = LatestRows::try_new(Arc::new(declared), 1).unwrap();
        take(&mut rows, 0, "a").unwrap();
        let error = take(&mut rows, 1, "b").unwrap_err();
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
        let expected = "topic `t` has more than 1 keys, which is the most a reference table may have";
        assert_eq!(error.to_string(), expected);
    }
}
