//! Telemetry at a steady rate.
//!
//! Records are encoded once, with an event time that stands out; when one is sent, the time of sending is written over
//! it. So the load costs little beside what it is a load for.

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use lictor_connectors::{KafkaSink, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use crate::site::Site;

/// `LICTOR_SPANS_PER_S`, 20,000 if it is not set.
pub(crate) fn spans_per_s() -> u32 {
    env::var("LICTOR_SPANS_PER_S").map_or(20_000, |text| text.parse().unwrap())
}

const MARKS_PER_S: u32 = 20;
const SPANS_PER_RECORD: u32 = 50;
/// Different records; they are sent over and over.
const RECORDS: usize = 512;
const TICK: Duration = Duration::from_millis(2);
/// Input tokens of a marked span; no other has so many.
pub(crate) const MARK_TOKENS: u32 = 1_000_000;

/// Eight bytes that occur in no name or number of ours.
const PLACEHOLDER: EventTime = EventTime(0x1f2e_3d4c_5b6a_7988);

/// A record, and where in it event times stand.
struct Record {
    payload: Vec<u8>,
    times: Vec<usize>,
}

impl Record {
    fn new(random: &mut Rng) -> Self {
        let spans: Vec<RowDraft> = (0..SPANS_PER_RECORD).map(|_| span(PLACEHOLDER, &columns(random))).collect();
        let payload = encode_protobuf(Signal::Traces, &spans).unwrap();
        let (placeholder, mut times) = (PLACEHOLDER.0.to_le_bytes(), Vec::new());
        for (at, bytes) in payload.windows(placeholder.len()).enumerate() {
            if bytes == placeholder {
                times.push(at);
            }
        }
        assert_eq!(times.len(), 2 * spans.len(), "a span has a start and an end");
        Self { payload, times }
    }

    fn at(&mut self, now: EventTime) -> Vec<u8> {
        for time in &self.times {
            self.payload[*time..*time + 8].copy_from_slice(&now.0.to_le_bytes());
        }
        self.payload.clone()
    }
}

/// A call of a model, as a company of some size makes them.
fn columns(random: &mut Rng) -> Value {
    let tokens = random.u32(1..4_000);
    json!({
        "team": format!("team-{}", random.u32(0..40)), "project": format!("project-{}", random.u32(0..200)),
        "customer_id": format!("customer-{}", random.u32(0..5_000)),
        "provider": (["openai", "anthropic", "gcp.vertex_ai", "mistral_ai"][random.usize(0..4)]),
        "request_model": format!("model-{}", random.u32(0..12)), "session_id": format!("session-{}", random.u64(..)),
        "input_tokens": tokens, "output_tokens": random.u32(1..1_000), "cost_total": f64::from(tokens) * 1e-5,
    })
}

fn span(event_time: EventTime, columns: &Value) -> RowDraft {
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    RowDraft { table: Table::Spans, event_time, columns }
}

/// Each marked span, by its number.
pub(crate) type Marks = Mutex<Vec<Sent>>;

/// When something was sent: monotonic, and by the wall clock.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) now: EventTime,
}

/// Sends until it is told to stop; returns the spans that were sent, and how late the latest record was sent.
pub(crate) fn send(site: &Site, clock: SystemClock, marks: &Marks, stop: &AtomicBool) -> (u64, Duration) {
    let mut random = Rng::with_seed(1);
    let mut records: Vec<Record> = (0..RECORDS).map(|_| Record::new(&mut random)).collect();
    let mut sink = KafkaSink::try_new(&site.properties, "bench-load").unwrap();
    let mut publish = |payload: Vec<u8>| {
        let (topic, payload) = (site.input(), Some(payload));
        sink.publish(&Outgoing { topic, key: None, payload, headers: Vec::new() }).unwrap();
    };
    let records_per_s = spans_per_s() / SPANS_PER_RECORD;
    let (began, mut sent, mut latest) = (clock.monotonic(), 0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let elapsed = clock.monotonic().saturating_sub(began);
        while due_at(sent, records_per_s) <= elapsed {
            latest = latest.max(elapsed.saturating_sub(due_at(sent, records_per_s)));
            let place = sent as usize % RECORDS;
            publish(records[place].at(clock.now()));
            sent += 1;
        }
        let number = marks.lock().unwrap().len();
        if due_at(u32::try_from(number).unwrap(), MARKS_PER_S) <= elapsed {
            let columns = json!({"session_id": number.to_string(), "input_tokens": MARK_TOKENS});
            let payload = encode_protobuf(Signal::Traces, &[span(clock.now(), &columns)]).unwrap();
            marks.lock().unwrap().push(Sent { at: clock.monotonic(), now: clock.now() });
            publish(payload);
        }
        thread::park_timeout(TICK);
    }
    sink.flush().unwrap();
    (u64::from(sent) * u64::from(SPANS_PER_RECORD), latest)
}

/// When the thing of this number is due, if so many are sent per second.
fn due_at(number: u32, per_s: u32) -> Duration {
    Duration::from_secs(1) * number / per_s
}
