//! Where bytes come from and go to: Kafka, the embedded broker, recorded files, reference tables.
//!
//! The engine's loop sees two traits, [`Source`] and [`Sink`], and no client library: this is the only crate that names
//! `rdkafka`, so that the client can be replaced in one place. Nothing here looks into a payload of telemetry, except
//! for the root key of a recorded JSON line, which says what topic the line would have come from.
//!
//! Invariant: an offset in our code always means "next to read" ([`NextOffset`]); it is made durable by
//! [`Source::commit`] only after everything derived from the records before it has been acknowledged by
//! [`Sink::flush`].

pub mod embedded;
pub mod error;
pub mod failpoint;
pub mod file;
pub mod kafka;
pub mod record;
pub mod recorded;
pub mod reference;
pub mod sink;
pub mod source;

pub use embedded::EmbeddedBroker;
pub use error::{ConnectorError, Fault, Retry};
pub use file::{FileSource, FileTrack, TopicBinding};
pub use kafka::{
    AbortCause, AbsorbRecord, Committed, Consumed, Difference, Followed, KafkaFollower, KafkaProperties, KafkaRestorer,
    KafkaSink, KafkaSource, KafkaTable, KafkaTrack, KafkaTransactions, Membership, OutsideOfGroup, TopicSpec,
    TopicState, TransactionError, count_partitions, ensure_topics, inspect_topics,
};
pub use record::{Header, Headers, NextOffset, Outgoing, RecordRef, TopicPartition};
pub use recorded::{Meter, Recorded, Track};
pub use reference::{ReferenceError, RefusedRecord, TableFormat, load_table, write_table};
pub use sink::Sink;
pub use source::{AssignmentChange, Polled, Source};
