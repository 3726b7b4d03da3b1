//! Writes the story to its topic.

use std::thread;
use std::time::Duration;

use lictor_connectors::{KafkaProperties, KafkaSink, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};

use crate::story::{Story, Told};

/// Often against an epoch of the instances.
const TICK: Duration = Duration::from_millis(20);

/// A machine that has more to do takes longer for everything; it need not get more to do for that.
const OVERTIME_FACTOR: u64 = 8;

/// An idempotent producer and what it tells.
pub(crate) struct Feed {
    properties: KafkaProperties,
    topic: String,
    sink: KafkaSink,
    pub(crate) story: Story,
    /// Spans that were written.
    pub(crate) spans: u64,
    /// Batches of which the producer did not hear whether they arrived. Whatever became of them: what is expected is
    /// made of what lies in the topic.
    pub(crate) doubtful: u32,
}

impl Feed {
    pub(crate) fn new(properties: &KafkaProperties, topic: &str, story: Story) -> Self {
        let (properties, topic) = (properties.clone(), topic.to_owned());
        let sink = KafkaSink::try_new(&properties, "chaos-feed").unwrap();
        Self { properties, topic, sink, story, spans: 0, doubtful: 0 }
    }

    /// Tells `spans` in so many seconds, and goes on much slower while `goes_on`; what was missed while the broker was
    /// away is made up for.
    pub(crate) fn steadily(&mut self, spans: u64, seconds: u64, goes_on: impl Fn() -> bool) {
        let clock = SystemClock::start();
        while goes_on() {
            let elapsed_ms = u64::try_from(clock.monotonic().as_millis()).unwrap();
            let overtime_ms = elapsed_ms.saturating_sub(seconds * 1_000);
            self.up_to(spans * (elapsed_ms - overtime_ms + overtime_ms / OVERTIME_FACTOR) / (seconds * 1_000).max(1));
            thread::park_timeout(TICK);
        }
    }

    /// Tells until so many spans were written altogether.
    pub(crate) fn up_to(&mut self, spans: u64) {
        while self.spans < spans {
            let told = self.story.next();
            self.write(&told);
        }
        self.flush();
    }

    /// Writes something of its own.
    pub(crate) fn write(&mut self, told: &Told) {
        let Told { key, payload, spans } = told.clone();
        let (topic, headers) = (self.topic.clone(), Vec::new());
        self.sink.publish(&Outgoing { topic, key: Some(key), payload: Some(payload), headers }).unwrap();
        self.spans += spans;
    }

    /// Returns when the broker has everything.
    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.sink.flush() {
            eprintln!("chaos: feed: {error}");
            self.doubtful += 1;
            self.sink = KafkaSink::try_new(&self.properties, "chaos-feed").unwrap();
        }
    }
}
