//! Telemetry as the messages of two topics, written while they are read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lictor_connectors::{ConnectorError, Recorded, TopicPartition, Track};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use super::DAY_NS;
use super::traffic::Traffic;

/// What telemetry there is, and where it lies.
const TOPICS: [(&str, Signal); 2] = [("otlp_spans", Signal::Traces), ("otlp_logs", Signal::Logs)];

/// Topics that end somewhere.
pub(crate) struct Topics {
    pub(crate) traffic: Traffic,
    end: EventTime,
    /// Who is told on stderr when another day has been written.
    name: String,
    /// Messages of each topic that nobody has read yet, with the times at which they came.
    waiting: [VecDeque<(EventTime, Vec<u8>)>; TOPICS.len()],
}

impl Topics {
    pub(crate) fn new(name: String, traffic: Traffic, end: EventTime) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { traffic, end, name, waiting: [VecDeque::new(), VecDeque::new()] }))
    }

    /// The next message of a topic; none at the end.
    fn next(&mut self, number: usize) -> Option<(EventTime, Vec<u8>)> {
        while self.waiting[number].is_empty() {
            let (rows, at) = self.traffic.next_chunk();
            if at > self.end {
                return None;
            }
            if at.0 % DAY_NS == 0 {
                eprintln!("{} is at {at}", self.name);
            }
            let (spans, logs): (Vec<RowDraft>, Vec<_>) = rows.into_iter().partition(|row| row.table == Table::Spans);
            for (((_, signal), drafts), waiting) in TOPICS.iter().zip([spans, logs]).zip(&mut self.waiting) {
                if !drafts.is_empty() {
                    waiting.push_back((at, encode_protobuf(*signal, &drafts).unwrap()));
                }
            }
        }
        self.waiting[number].pop_front()
    }
}

/// All topics, to be read once.
pub(crate) fn tracks(topics: &Arc<Mutex<Topics>>) -> Vec<Box<dyn Track>> {
    let topic = |number| Box::new(Topic { topics: Arc::clone(topics), number, offset: 0 }) as Box<dyn Track>;
    (0..TOPICS.len()).map(topic).collect()
}

/// One of them.
struct Topic {
    topics: Arc<Mutex<Topics>>,
    number: usize,
    offset: i64,
}

impl Track for Topic {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        let Some((at, payload)) = self.topics.lock().unwrap().next(self.number) else { return Ok(None) };
        let (partition, offset) = (TopicPartition::new(TOPICS[self.number].0, 0), self.offset);
        self.offset += 1;
        Ok(Some(Recorded { partition, offset, timestamp_ms: at.to_ms(), key: None, payload: Some(payload) }))
    }
}
