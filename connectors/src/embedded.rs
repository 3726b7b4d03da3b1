//! A Kafka broker inside the process, for the demo and for fast tests: librdkafka's own mock cluster.
//!
//! It speaks enough of the protocol for producers, consumer groups and other people's clients (`kcat`) on loopback. It
//! is no Kafka: it keeps only the newest 5 MB or 100,000 messages of a partition, does not compact, has no transaction
//! isolation and no administration of topics, and a new group's first assignment takes three seconds.
//!
//! The cluster's handle must stay on the thread that made it, so that thread owns it; we send it closures.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::ConnectorError;
use crate::kafka::KafkaProperties;

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Work = Box<dyn FnOnce(&Cluster) + Send>;

/// Work that waits for the thread; callers wait for the answer, so more than one per caller never queues.
const WAITING_WORK_MAX: usize = 16;

/// A running broker; it ends with the value.
pub struct EmbeddedBroker {
    bootstrap: String,
    /// `None` only while dropping: closing the channel is what ends the thread.
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts one broker on a free loopback port, with `topics` as (name, partitions).
    ///
    /// # Errors
    /// [`ConnectorError::Embedded`] if the thread or the cluster cannot be started, or a topic not be created.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, ConnectorError> {
        let (work, inbox) = sync_channel(WAITING_WORK_MAX);
        let (started, answer) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("embedded-broker".to_string())
            .spawn(move || own_cluster(&started, &inbox))
            .map_err(|error| embedded(&error.to_string()))?;
        let bootstrap = answer.recv().map_err(|_| gone())?.map_err(|error| embedded(&error.to_string()))?;
        let broker = Self { bootstrap, work: Some(work), thread: Some(thread) };
        for (name, partitions) in topics {
            broker.create_topic(name, *partitions)?;
        }
        Ok(broker)
    }

    /// The broker's address, as `host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Properties for clients of this broker: its address, and waiting times that suit its manners.
    #[must_use]
    pub fn properties(&self) -> KafkaProperties {
        let own = [
            // It answers an empty fetch only after the whole wait.
            ("consumer.fetch.wait.max.ms", "10"),
            // It delays a rebalance between two members until just before the session ends.
            ("consumer.session.timeout.ms", "6000"),
            ("consumer.heartbeat.interval.ms", "500"),
            ("consumer.topic.metadata.refresh.interval.ms", "500"),
            ("reconnect.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "200"),
        ];
        KafkaProperties::for_embedded(&self.bootstrap, &own)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`ConnectorError::Embedded`] if it exists, or its name or number of partitions is impossible.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), ConnectorError> {
        let name = name.to_string();
        self.on_thread(move |cluster| {
            cluster.create_topic(&name, partitions, 1).map_err(|error| embedded(&format!("topic `{name}`: {error}")))
        })?
    }

    /// Closes every connection and accepts no new one, as a crashed broker would.
    ///
    /// # Errors
    /// [`ConnectorError::Embedded`] if the broker's thread is gone.
    pub fn take_down(&self) -> Result<(), ConnectorError> {
        self.on_thread(|cluster| cluster.broker_down(ALL_BROKERS))?.map_err(|error| embedded(&error.to_string()))
    }

    /// Accepts connections again, with everything that was stored.
    ///
    /// # Errors
    /// [`ConnectorError::Embedded`] if the broker's thread is gone.
    pub fn bring_up(&self) -> Result<(), ConnectorError> {
        self.on_thread(|cluster| cluster.broker_up(ALL_BROKERS))?.map_err(|error| embedded(&error.to_string()))
    }

    /// Runs `work` on the thread that owns the cluster and returns its answer.
    pub(crate) fn on_thread<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Cluster) -> R + Send + 'static,
    ) -> Result<R, ConnectorError> {
        let (answer, answered) = sync_channel(1);
        let boxed: Work = Box::new(move |cluster| {
            // The caller waits for this answer; if it is gone, nobody misses it.
            answer.send(work(cluster)).ok();
        });
        self.work.as_ref().ok_or_else(gone)?.send(boxed).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded broker's thread panicked");
        }
    }
}

/// The mock cluster's word for "every broker".
const ALL_BROKERS: i32 = -1;

/// The life of the broker's thread: ends when the last sender of work is gone.
fn own_cluster(started: &SyncSender<Result<String, KafkaError>>, inbox: &Receiver<Work>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            started.send(Err(error)).ok();
            return;
        }
    };
    started.send(Ok(cluster.bootstrap_servers())).ok();
    while let Ok(work) = inbox.recv() {
        work(&cluster);
    }
}

fn embedded(message: &str) -> ConnectorError {
    ConnectorError::Embedded { message: message.to_string() }
}

fn gone() -> ConnectorError {
    embedded("its thread is gone")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_broker_listens_on_loopback_until_it_is_dropped() {
        let broker = EmbeddedBroker::start(&[("a", 2)]).unwrap();
        let address = broker.bootstrap().to_string();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        TcpStream::connect(&address).unwrap();
        drop(broker);
        assert!(TcpStream::connect(&address).is_err(), "{address} still accepts connections");
    }

    #[test]
    fn a_topic_cannot_be_created_twice() {
        let broker = EmbeddedBroker::start(&[("a", 1)]).unwrap();
        let message = broker.create_topic("a", 1).unwrap_err().to_string();
        assert!(message.starts_with("embedded broker: topic `a`: "), "{message}");
    }
}
