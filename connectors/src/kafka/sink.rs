//! The idempotent, keyed producer.
//!
//! librdkafka retries by itself until `message.timeout.ms`; what it gives up is counted here and reported by the next
//! flush, so that the loop never commits offsets whose events are not on the broker.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::properties::{KafkaProperties, Role};
use super::{judge, log, refused};
use crate::error::{ConnectorError, Retry};
use crate::record::Outgoing;
use crate::sink::Sink;

/// The pause before the next look for acknowledgements, which is the granularity of a flush. We sleep it ourselves: the
/// client's `poll` counts in whole milliseconds, would spin through this, and waits on when everything has arrived.
const ACK_PAUSE: Duration = Duration::from_micros(500);

/// Publishes to Kafka with `enable.idempotence=true` and `acks=all`.
///
/// Dropping it discards what was not flushed.
pub struct KafkaSink {
    producer: BaseProducer<Deliveries>,
}

impl KafkaSink {
    /// Creates the client; it connects in the background. `client_id` shows in the brokers' metrics and quotas.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn try_new(properties: &KafkaProperties, client_id: &str) -> Result<Self, ConnectorError> {
        let producer = properties.create(Role::Producer, &[("client.id", client_id)], Deliveries::default())?;
        Ok(Self { producer })
    }

    fn refusal(&self, error: &KafkaError, message: &Outgoing) -> ConnectorError {
        match (self.producer.client().fatal_error(), error) {
            (Some((_, reason)), _) => ConnectorError::Undelivered {
                failed: 1,
                topic: message.topic.clone(),
                message: reason,
                retry: Retry::Never,
            },
            (None, KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                ConnectorError::TooLarge { topic: message.topic.clone(), bytes: bytes_of(message) }
            }
            (None, other) => refused("publish", other),
        }
    }
}

impl Sink for KafkaSink {
    fn publish(&mut self, message: &Outgoing) -> Result<(), ConnectorError> {
        let mut record = as_record(message);
        // Ends: every queued message is acknowledged or given up after message.timeout.ms at the latest.
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    look_for_acknowledgements(&self.producer);
                }
                Err((error, _)) => return Err(self.refusal(&error, message)),
            }
        }
    }

    fn flush(&mut self) -> Result<(), ConnectorError> {
        while self.producer.in_flight_count() > 0 {
            look_for_acknowledgements(&self.producer);
        }
        let failures = self.producer.context().take();
        let Some(first) = failures.first else { return Ok(()) };
        let is_fatal = self.producer.client().fatal_error().is_some();
        Err(ConnectorError::Undelivered {
            failed: failures.count,
            topic: first.topic,
            message: first.error.to_string(),
            retry: if is_fatal { Retry::Never } else { judge(first.error.rdkafka_error_code()).1 },
        })
    }
}

/// Serves what the brokers have said of messages that are under way; if they have said nothing, it waits a little.
pub(super) fn look_for_acknowledgements(producer: &BaseProducer<Deliveries>) {
    let in_flight = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() >= in_flight {
        thread::park_timeout(ACK_PAUSE);
    }
}

pub(super) fn as_record(message: &Outgoing) -> BaseRecord<'_, [u8], [u8]> {
    let mut record = BaseRecord::to(&message.topic);
    record.key = message.key.as_deref();
    record.payload = message.payload.as_deref();
    if !message.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(message.headers.len());
        let headers =
            message.headers.iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        record.headers = Some(headers);
    }
    record
}

/// Key and payload together, which is what `message.max.bytes` is about.
pub(super) fn bytes_of(message: &Outgoing) -> usize {
    message.key.as_ref().map_or(0, Vec::len) + message.payload.as_ref().map_or(0, Vec::len)
}

/// What became of the messages since the last flush.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    pub(super) first: Option<Failure>,
}

pub(super) struct Failure {
    pub(super) topic: String,
    pub(super) error: KafkaError,
}

/// Hears of every message's fate, inside `poll`.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Failures>);

impl Deliveries {
    /// The failures since the last call.
    pub(super) fn take(&self) -> Failures {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::global_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let Err((error, message)) = result else { return };
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.first.get_or_insert_with(|| Failure { topic: message.topic().to_string(), error: error.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::EmbeddedBroker;
    use crate::error::Fault;

    fn message(topic: &str, payload: &str) -> Outgoing {
        Outgoing {
            topic: topic.to_string(),
            key: Some(b"team-a".to_vec()),
            payload: Some(payload.as_bytes().to_vec()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn flush_reports_what_a_broker_that_is_down_did_not_acknowledge_and_recovers() {
        let broker = EmbeddedBroker::start(&[("events", 1)]).unwrap();
        let properties = broker.properties().with("producer.message.timeout.ms", "2000").unwrap();
        let mut sink = KafkaSink::try_new(&properties, "test").unwrap();
        sink.publish(&message("events", "one")).unwrap();
        sink.flush().unwrap();

        broker.take_down().unwrap();
        sink.publish(&message("events", "two")).unwrap();
        sink.publish(&message("events", "three")).unwrap();
        let error = sink.flush().unwrap_err();
        assert!(matches!(&error, ConnectorError::Undelivered { failed: 2, topic, .. } if topic == "events"), "{error}");
        assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Backoff));

        broker.bring_up().unwrap();
        let mut delivered = false;
        for _ in 0..20 {
            sink.publish(&message("events", "four")).unwrap();
            delivered = sink.flush().is_ok();
            if delivered {
                break;
            }
        }
        assert!(delivered, "the sink did not recover after the broker came back");
        sink.flush().unwrap();
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_and_the_others_go_on() {
        let broker = EmbeddedBroker::start(&[("events", 1)]).unwrap();
        let properties = broker.properties().with("producer.message.max.bytes", "2000").unwrap();
        let mut sink = KafkaSink::try_new(&properties, "test").unwrap();
        let error = sink.publish(&message("events", &"x".repeat(5_000))).unwrap_err();
        assert!(matches!(error, ConnectorError::TooLarge { bytes: 5_006, .. }), "{error}");
        sink.publish(&message("events", "small")).unwrap();
        sink.flush().unwrap();
    }

    #[test]
    fn a_full_queue_waits_instead_of_refusing() {
        let broker = EmbeddedBroker::start(&[("events", 1)]).unwrap();
        let properties = broker.properties().with("producer.queue.buffering.max.messages", "10").unwrap();
        let mut sink = KafkaSink::try_new(&properties, "test").unwrap();
        for i in 0..500 {
            sink.publish(&message("events", &i.to_string())).unwrap();
        }
        sink.flush().unwrap();
    }
}
