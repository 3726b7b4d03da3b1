//! Telemetry with as many keys as are asked for.
//!
//! A record is encoded once, with a key, ids and times that stand out; what a span is about is then written over them.
//! So records cost next to nothing beside what is measured, and none is kept.

use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::json;

/// Spans of a record: a full batch of a collector.
pub(crate) const SPANS_PER_RECORD: usize = 500;

/// The start of every window of ours: 2026-03-01T00:00:00Z.
pub(crate) const START: EventTime = EventTime(1_772_323_200_000_000_000);

pub(crate) const MINUTE_NS: i64 = 60_000_000_000;

/// What a span that crosses the line has produced; all others are far below.
pub(crate) const MANY_TOKENS: i64 = 1_000;

const KEY: &str = "customer-########";
const KEY_DIGITS: usize = 8;
/// The half of a trace id that is written over.
const TRACE_HALF: u64 = 0xa1a2_a3a4_a5a6_a7a8;
const SPAN_ID: u64 = 0xb1b2_b3b4_b5b6_b7b8;
const TIME: EventTime = EventTime(0x1f2e_3d4c_5b6a_7988);

/// A record that is written over and over.
pub(crate) struct Record {
    payload: Vec<u8>,
    keys: Vec<usize>,
    trace_ids: Vec<usize>,
    span_ids: Vec<usize>,
    /// A start and an end of each span.
    times: Vec<usize>,
    written: u64,
}

impl Record {
    /// Spans like any other.
    pub(crate) fn usual() -> Self {
        Self::of(&(0..SPANS_PER_RECORD).map(tokens_at).collect::<Vec<_>>())
    }

    /// One span that does not cross the line.
    pub(crate) fn single() -> Self {
        Self::of(&[tokens_at(0)])
    }

    /// One span that crosses the line.
    pub(crate) fn crossing() -> Self {
        Self::of(&[MANY_TOKENS])
    }

    fn of(tokens: &[i64]) -> Self {
        let drafts: Vec<RowDraft> = tokens.iter().map(|tokens| draft(*tokens)).collect();
        let payload = encode_protobuf(Signal::Traces, &drafts).unwrap();
        let places = |needle: &[u8], of_span: usize| {
            let found = payload.windows(needle.len()).enumerate().filter(|(_, bytes)| *bytes == needle);
            let found: Vec<usize> = found.map(|(at, _)| at).collect();
            assert_eq!(found.len(), of_span * tokens.len());
            found
        };
        let keys = places(KEY.as_bytes(), 1);
        let [trace_ids, span_ids] = [TRACE_HALF, SPAN_ID].map(|id| places(&id.to_be_bytes(), 1));
        let times = places(&TIME.0.to_le_bytes(), 2);
        Self { payload, keys, trace_ids, span_ids, times, written: 0 }
    }

    /// The bytes, with these keys and times in place of those before.
    pub(crate) fn write(&mut self, spans: impl Iterator<Item = (usize, EventTime)>) -> &[u8] {
        let mut count = 0;
        for (at, (key, time)) in spans.enumerate() {
            self.written += 1;
            let digits = self.keys[at] + KEY.len() - KEY_DIGITS;
            put_digits(&mut self.payload[digits..digits + KEY_DIGITS], key);
            for id in [self.trace_ids[at], self.span_ids[at]] {
                self.payload[id..id + 8].copy_from_slice(&self.written.to_be_bytes());
            }
            for bound in &self.times[2 * at..2 * at + 2] {
                self.payload[*bound..bound + 8].copy_from_slice(&time.0.to_le_bytes());
            }
            count += 1;
        }
        assert_eq!(count, self.keys.len(), "a record is written whole");
        &self.payload
    }
}

fn draft(tokens: i64) -> RowDraft {
    let columns = json!({
        "customer_id": KEY, "output_tokens": tokens, "span_id": format!("{SPAN_ID:016x}"),
        "trace_id": format!("{:016x}{TRACE_HALF:016x}", 1),
    });
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    RowDraft { table: Table::Spans, event_time: TIME, columns }
}

fn put_digits(digits: &mut [u8], mut number: usize) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap();
        number /= 10;
    }
}

/// What the span at a place of a usual record has produced.
pub(crate) fn tokens_at(place: usize) -> i64 {
    i64::try_from(place % 100).unwrap() + 1
}

/// One span of each key, spread evenly over a span of time.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) keys: usize,
    /// Each comes in another order; the first span is always of key 0.
    pub(crate) number: usize,
    pub(crate) from: EventTime,
    pub(crate) length_ns: i64,
}

/// Numbers that have no divisor in common with a power of ten, far apart: multiples of one, modulo the number of keys,
/// are all keys in an order that seems random.
const ORDERS: [usize; 4] = [7_368_787, 3_141_593, 5_771_977, 9_973_331];

impl Pass {
    /// How many records.
    pub(crate) fn records(self) -> usize {
        assert_eq!(self.keys % SPANS_PER_RECORD, 0);
        self.keys / SPANS_PER_RECORD
    }

    /// The spans of a record.
    pub(crate) fn spans(self, record: usize) -> impl Iterator<Item = (usize, EventTime)> {
        let (order, step_ns) = (ORDERS[self.number % ORDERS.len()], self.length_ns / i64::try_from(self.keys).unwrap());
        (record * SPANS_PER_RECORD..(record + 1) * SPANS_PER_RECORD).map(move |span| {
            let at = self.from.plus(i64::try_from(span).unwrap() * step_ns);
            (span * order % self.keys, at)
        })
    }
}
