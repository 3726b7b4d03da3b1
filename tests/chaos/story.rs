//! The telemetry: sessions of a few teams, a hundred spans in ten seconds of event time.
//!
//! A record has spans of one session and is keyed by it, so that a session lies in one partition. Spans come up to five
//! seconds out of order, some much too late; now and then comes a record that is no telemetry.
//!
//! Invariant: seed and start determine every byte.

use fastrand::Rng;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

pub(crate) const SECOND_NS: i64 = 1_000_000_000;
/// The windows of most rules in `rules/slots.sql`.
const SLOT_NS: i64 = 10 * SECOND_NS;

const TEAMS: u64 = 8;
/// Sessions at a time.
const SESSIONS: usize = 40;
const SPANS_PER_SLOT: i64 = 100;
const SPANS_PER_RECORD_MAX: i64 = 6;
/// Between two records, on average.
const STEP_NS: i64 = SLOT_NS / SPANS_PER_SLOT * (1 + SPANS_PER_RECORD_MAX) / 2;
/// Less than the lateness that lictor allows by default.
const DISORDER_NS: i64 = 5 * SECOND_NS;
/// More than that.
const TOO_LATE_NS: i64 = 60 * SECOND_NS;
/// After the last span of the story every window closes; half of the rules' `ttl` is not over.
const AFTERWARDS_NS: i64 = 3_600 * SECOND_NS;

const TOKENS_MAX: u64 = 1_000;

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) spans: u64,
}

/// What happens, for as long as anybody asks.
pub(crate) struct Story {
    random: Rng,
    at: EventTime,
    sessions: Vec<u64>,
    sessions_begun: u64,
    undecodable: u64,
}

impl Story {
    pub(crate) fn new(seed: u64, start: EventTime) -> Self {
        let random = Rng::with_seed(seed);
        let sessions_begun = SESSIONS as u64;
        Self { random, at: start, sessions: (0..sessions_begun).collect(), sessions_begun, undecodable: 0 }
    }

    /// Where the story stands, in event time.
    pub(crate) fn at(&self) -> EventTime {
        self.at
    }

    /// What comes next.
    pub(crate) fn next(&mut self) -> Told {
        if self.random.u32(0..100) == 0 {
            return self.undecodable();
        }
        self.at = self.at.plus(self.random.i64(0..2 * STEP_NS));
        let place = self.random.usize(0..SESSIONS);
        let session = self.sessions[place];
        if self.random.u32(0..8) == 0 {
            self.sessions[place] = self.sessions_begun;
            self.sessions_begun += 1;
        }
        let count = self.random.i64(1..=SPANS_PER_RECORD_MAX);
        let mut spans: Vec<RowDraft> = (0..count).map(|_| self.span(session, DISORDER_NS)).collect();
        if self.random.u32(0..150) == 0 {
            let mut late = self.span(session, DISORDER_NS);
            late.event_time = late.event_time.plus(-TOO_LATE_NS);
            spans.push(late);
        }
        told(&key_of(session), &spans)
    }

    /// A record that nobody can decode, unlike all others.
    pub(crate) fn undecodable(&mut self) -> Told {
        self.undecodable += 1;
        let payload = format!("\u{fffd}undecodable {}", self.undecodable).into_bytes();
        Told { key: key_of(self.random.u64(..)).into_bytes(), payload, spans: 0 }
    }

    /// A span that lets all windows close and that no rule counts, under a key that leads to the right partition.
    pub(crate) fn afterwards(&self, key: &[u8]) -> Told {
        let columns = [("request_model".to_owned(), json!("none"))].into();
        let span = RowDraft { table: Table::Spans, event_time: self.at.plus(AFTERWARDS_NS), columns };
        Told { key: key.to_vec(), ..told("", &[span]) }
    }

    fn span(&mut self, session: u64, disorder_ns: i64) -> RowDraft {
        let event_time = self.at.plus(-self.random.i64(0..disorder_ns));
        let columns: [(&str, Value); 4] = [
            ("team", json!(format!("team-{}", session % TEAMS))),
            ("session_id", json!(key_of(session))),
            ("feature", json!(format!("slot-{}", event_time.0.div_euclid(SLOT_NS)))),
            ("input_tokens", json!(self.random.u64(1..=TOKENS_MAX))),
        ];
        let columns = columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        RowDraft { table: Table::Spans, event_time, columns }
    }
}

fn key_of(session: u64) -> String {
    format!("session-{session}")
}

fn told(key: &str, spans: &[RowDraft]) -> Told {
    let payload = encode_protobuf(Signal::Traces, spans).unwrap();
    Told { key: key.as_bytes().to_vec(), payload, spans: spans.len() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: EventTime = EventTime(1_790_000_000 * SECOND_NS);

    #[test]
    fn a_seed_tells_the_same_story_again_and_another_seed_another_one() {
        let tell = |seed| {
            let mut story = Story::new(seed, START);
            (0..300).map(|_| story.next()).collect::<Vec<_>>()
        };
        assert_eq!(tell(1), tell(1));
        assert_ne!(tell(1), tell(2));
    }

    #[test]
    fn a_slot_has_about_a_hundred_spans() {
        let mut story = Story::new(1, START);
        let spans: u64 = (0..3_000).map(|_| story.next().spans).sum();
        let slots = (story.at().0 - START.0) / SLOT_NS;
        assert!((80..120).contains(&(i64::try_from(spans).unwrap() / slots)), "{spans} spans in {slots} slots");
    }
}
