//! librdkafka's own log lines and errors, as tracing events.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The end of the warning about a consumer's property on a producer and the other way round. Our users write one list
/// for all clients, so it is no news.
const OTHER_CLIENT: &str = "property and will be ignored by this";

fn is_error(level: RDKafkaLogLevel) -> bool {
    use RDKafkaLogLevel as Level;
    matches!(level, Level::Emerg | Level::Alert | Level::Critical | Level::Error)
}

/// Writes one line of librdkafka's log.
pub(super) fn line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        _ if is_error(level) => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning if !message.contains(OTHER_CLIENT) => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Writes an error that belongs to no call: librdkafka goes on trying by itself.
pub(super) fn global_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // Reported by whoever asked for the topic, with its name, once; and by whoever reads a partition to its end.
        // That a client has no broker at all is said by each of its connections already, with the reason.
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::PartitionEOF
            | RDKafkaErrorCode::AllBrokersDown,
        ) => {
            tracing::debug!(target: "librdkafka", "{reason}")
        }
        _ => tracing::warn!(target: "librdkafka", %error, "{reason}"),
    }
}

/// The context of a client that has nothing else to tell: it lets librdkafka's log through to ours.
#[derive(Default)]
pub(super) struct Logged {
    trouble: Mutex<Option<String>>,
}

impl Logged {
    /// The last error that librdkafka has told of by itself: why a connection came to nothing, where a call only says
    /// that there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if is_error(level) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        }
        line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        global_error(&error, reason);
    }
}

impl ConsumerContext for Logged {}
