//! What can go wrong between the loop and the world, and whose fault it is.
//!
//! The errors carry text instead of the client library's types: the loop decides on [`ConnectorError::retry`] alone.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The person who wrote the config or the file.
    User,
    /// A broker, the network, a disk.
    External,
    /// We: this is a bug.
    Internal,
}

/// Whether the same call can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No; something has to change first.
    Never,
    /// Yes, after a pause in which the source goes on being polled.
    Backoff,
}

/// Why a source, a sink or the administration of topics could not do what it was asked to.
#[derive(Debug, Error)]
pub enum ConnectorError {
    /// A Kafka property that must not be set, must be set, or that librdkafka does not take.
    #[error("kafka property `{name}` {reason}")]
    Property {
        /// The property as it was written.
        name: String,
        /// What is wrong, and what to write instead; never the value of a secret.
        reason: String,
    },
    /// A call to Kafka did not succeed.
    #[error("kafka {action}: {message}")]
    Kafka {
        /// What was tried: `commit offsets`, `create topics`, …
        action: &'static str,
        /// librdkafka's own words.
        message: String,
        /// Who has to act.
        fault: Fault,
        /// Whether the same call can succeed later.
        retry: Retry,
    },
    /// The group moved on while offsets were on their way: they were not made durable.
    ///
    /// The source must be polled, so that the member rejoins; what it still owns then can be committed.
    #[error("the consumer group rebalanced during the commit: {message}")]
    Rebalanced {
        /// librdkafka's own words.
        message: String,
    },
    /// The broker takes no more transactions of this producer. The process must end: what it holds in memory may
    /// already be somebody else's, and only a new one may take the id up again.
    #[error(
        "transactional id `{transactional_id}` was taken over: another instance with the same `instance_id` runs, or \
         this one was stopped in the middle of a transaction for longer than transaction.timeout.ms: {message}"
    )]
    Fenced {
        /// The id, which is derived from `application_id` and `instance_id`.
        transactional_id: String,
        /// librdkafka's own words.
        message: String,
    },
    /// Messages that were published are not on the broker.
    #[error("{failed} published messages were not acknowledged; the first, to topic `{topic}`: {message}")]
    Undelivered {
        /// How many since the last flush.
        failed: u64,
        /// Where the first of them should have gone.
        topic: String,
        /// librdkafka's own words about the first of them.
        message: String,
        /// Whether the same call can succeed later.
        retry: Retry,
    },
    /// A message is larger than `message.max.bytes` allows; it was not published.
    #[error("a message of {bytes} bytes to topic `{topic}` is larger than the producer's message.max.bytes")]
    TooLarge {
        /// Where it should have gone.
        topic: String,
        /// Key and payload together.
        bytes: usize,
    },
    /// A topic does not exist and could not be created.
    #[error("topic `{topic}` is missing and could not be created: {message}")]
    TopicMissing {
        /// The topic.
        topic: String,
        /// librdkafka's own words.
        message: String,
        /// Whether the same call can succeed later.
        retry: Retry,
    },
    /// A topic holds more keys than a reference table may have rows.
    #[error("topic `{topic}` has more than {rows_max} keys, which is the most a reference table may have")]
    TableTooLarge {
        /// The topic.
        topic: String,
        /// The most that is taken.
        rows_max: usize,
    },
    /// The embedded broker could not be started, or its thread is gone.
    #[error("embedded broker: {message}")]
    Embedded {
        /// What happened.
        message: String,
    },
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A recorded file breaks off, or is not what its name says.
    #[error("{}: byte {position}: {reason}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// Where the record begins that could not be read, in bytes from the beginning of the file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A topic exists and differs in something that cannot be lived with.
    #[error("topic `{topic}` has {name}={found}, but {wanted} is needed: {reason}")]
    TopicConfig {
        /// The topic.
        topic: String,
        /// What differs: `partitions`, or a topic config.
        name: String,
        /// As it is.
        found: String,
        /// As it must be.
        wanted: String,
        /// What would go wrong.
        reason: &'static str,
    },
}

impl ConnectorError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Property { .. } | Self::TopicConfig { .. } | Self::Recording { .. } | Self::TableTooLarge { .. } => {
                Fault::User
            }
            Self::Kafka { fault, .. } => *fault,
            Self::Rebalanced { .. }
            | Self::Fenced { .. }
            | Self::Undelivered { .. }
            | Self::TopicMissing { .. }
            | Self::TooLarge { .. } => Fault::External,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Fault::User,
            Self::File { .. } => Fault::External,
            Self::Embedded { .. } => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Kafka { retry, .. } | Self::Undelivered { retry, .. } | Self::TopicMissing { retry, .. } => *retry,
            Self::Rebalanced { .. } => Retry::Backoff,
            Self::Property { .. }
            | Self::Fenced { .. }
            | Self::TooLarge { .. }
            | Self::TableTooLarge { .. }
            | Self::TopicConfig { .. }
            | Self::Embedded { .. }
            | Self::File { .. }
            | Self::Recording { .. } => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebalance_is_retried_and_is_nobodys_mistake() {
        let error = ConnectorError::Rebalanced { message: "Broker: Rebalance in progress".to_string() };
        assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Backoff));
    }

    #[test]
    fn being_fenced_is_final_and_names_who_to_look_for() {
        let (transactional_id, message) = ("lictor-scan-0".to_string(), "Producer fenced".to_string());
        let error = ConnectorError::Fenced { transactional_id, message };
        assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Never));
        assert!(error.to_string().starts_with("transactional id `lictor-scan-0` was taken over: another instance"));
    }

    #[test]
    fn a_file_that_is_not_there_is_the_users_mistake() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let error = ConnectorError::File { path: PathBuf::from("spans.jsonl"), source };
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
        assert_eq!(error.to_string(), "spans.jsonl: entity not found");
    }

    #[test]
    fn a_recording_error_names_file_and_byte() {
        let error = ConnectorError::Recording {
            path: PathBuf::from("spans.binpb"),
            position: 17,
            reason: "the frame says 40 bytes, the file ends after 12".to_string(),
        };
        assert_eq!(error.to_string(), "spans.binpb: byte 17: the frame says 40 bytes, the file ends after 12");
    }
}
