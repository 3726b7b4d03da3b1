//! What is put aside: records that cannot be decoded, and rows that came too late.
//!
//! Nothing is lost and nothing stalls: a dead letter carries the original bytes and its coordinates in headers, late
//! rows leave a note that says where they are.

use std::collections::VecDeque;

use lictor_connectors::{Header, Outgoing, RecordRef, TopicPartition};
use lictor_schemas::tables::Table;
use lictor_schemas::time::{EventTime, NANOS_PER_MS};
use serde_json::json;

use crate::scan_stage::ScanCounts;
use crate::watermark::Untimely;

/// A record, or some items of one, that no table can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// A label from a closed set.
    pub reason: &'static str,
    /// The fault in words.
    pub message: String,
    /// Where the record was read.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The original bytes, or OTLP protobuf with just the rejected items.
    pub payload: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<Header>,
}

/// Headers of a dead letter that Kafka Connect's tooling reads, and ours, begin so.
pub(crate) const CONNECT_PREFIX: &str = "__connect.errors.";

/// Stands before the reason in a dead letter's header `class.name`.
pub(crate) const CLASS_PREFIX: &str = "lictor.decode.";

/// The reason of a dead letter that holds some items of a record: the others were used.
pub(crate) const INVALID_ITEMS: &str = "invalid_items";

/// Says how many bytes a payload has that a dead letter goes without.
pub(crate) const PAYLOAD_OMITTED: &str = "lictor-payload-omitted-bytes";

/// Says how many bytes a key has that a dead letter goes without.
pub(crate) const KEY_OMITTED: &str = "lictor-key-omitted-bytes";

/// Says how many bytes the headers have that a dead letter goes without.
pub(crate) const HEADERS_OMITTED: &str = "lictor-headers-omitted-bytes";

/// A dead letter that a topic with Kafka's defaults might refuse (1 MB, headers included) goes without its bytes: its
/// coordinates still find the record, and a transaction with a message that is refused could never be committed.
const LETTER_BYTES_MAX: usize = 900_000;

/// A key that is longer is left out of a dead letter: keys are names, and this one would take the place of the bytes.
const LETTER_KEY_BYTES_MAX: usize = 65_536;

/// Headers that are longer in all are left out of a dead letter, for the same reason.
const LETTER_HEADER_BYTES_MAX: usize = 16_384;

impl DeadLetter {
    pub(crate) fn of_record(record: RecordRef<'_>, reason: &'static str, message: &str) -> Self {
        Self {
            reason,
            message: message.to_owned(),
            partition: TopicPartition::new(record.topic, record.partition),
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            headers: record.headers.to_vec(),
        }
    }

    pub(crate) fn of_items(record: RecordRef<'_>, payload: Vec<u8>, message: &str) -> Self {
        let mut letter = Self::of_record(record, INVALID_ITEMS, message);
        // What the record was written as is not what its items are written as.
        letter.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        Self { payload: Some(payload), ..letter }
    }

    /// The message for the dead-letter topic: the record's own headers, then those that Kafka Connect's tooling reads.
    #[must_use]
    pub fn to_message(&self, topic: &str, application_id: &str) -> Outgoing {
        let bytes_of = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let (payload_bytes, key_bytes) = (bytes_of(&self.payload), bytes_of(&self.key));
        let header_bytes = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let is_key_kept = key_bytes <= LETTER_KEY_BYTES_MAX;
        let are_headers_kept = header_bytes <= LETTER_HEADER_BYTES_MAX;
        let is_payload_kept = payload_bytes + key_bytes <= LETTER_BYTES_MAX;
        let omitted = [
            (PAYLOAD_OMITTED, is_payload_kept, payload_bytes),
            (KEY_OMITTED, is_key_kept, key_bytes),
            (HEADERS_OMITTED, are_headers_kept, header_bytes),
        ];
        let omitted = omitted.into_iter().filter(|(_, is_kept, _)| !is_kept);
        let omitted = omitted.map(|(name, _, bytes)| (name.to_owned(), bytes.to_string().into_bytes()));
        let own = if are_headers_kept { self.headers.clone() } else { Vec::new() };
        Outgoing {
            topic: topic.to_owned(),
            key: if is_key_kept { self.key.clone() } else { None },
            payload: if is_payload_kept { self.payload.clone() } else { Some(Vec::new()) },
            headers: own.into_iter().chain(self.why(application_id)).chain(omitted).collect(),
        }
    }

    /// Where the record was read, and what is wrong with it.
    fn why(&self, application_id: &str) -> [Header; 7] {
        let header = |name: &str, value: String| (format!("{CONNECT_PREFIX}{name}"), value.into_bytes());
        [
            header("topic", self.partition.topic.to_string()),
            header("partition", self.partition.partition.to_string()),
            header("offset", self.offset.to_string()),
            header("connector.name", application_id.to_owned()),
            header("stage", "VALUE_CONVERTER".to_owned()),
            header("class.name", format!("{CLASS_PREFIX}{}", self.reason)),
            header("exception.message", self.message.clone()),
        ]
    }
}

/// A fault in words without what it quotes of the record, which may be of a prompt.
#[must_use]
pub fn without_quoted(message: &str) -> String {
    let (mut shown, mut is_quoted, mut is_escaped) = (String::with_capacity(message.len()), false, false);
    for c in message.chars() {
        let is_quote = c == '"' && !(is_quoted && is_escaped);
        is_escaped = c == '\\' && !is_escaped;
        match (is_quote, is_quoted) {
            (true, false) => shown.push_str("\"…"),
            (true, true) => shown.push('"'),
            (false, true) => {}
            (false, false) => shown.push(c),
        }
        is_quoted ^= is_quote;
    }
    shown
}

/// What was put aside of an input partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsideCounts {
    /// Rows that came too late or from the future.
    pub late_rows: u64,
    /// Dead letters.
    pub dead: u64,
}

impl AsideCounts {
    /// Adds what was counted later.
    pub fn add(&mut self, other: Self) {
        self.late_rows += other.late_rows;
        self.dead += other.dead;
    }
}

/// That a dead letter was written, for people who look: everything but its bytes, which may be somebody's prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadNote {
    /// A label from a closed set.
    pub reason: &'static str,
    /// The fault in words.
    pub message: String,
    /// Where the record was read.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// How many bytes it has, or those of its items that were rejected.
    pub bytes: usize,
    /// The broker's timestamp of the record; none if it has none.
    pub stamped: Option<EventTime>,
}

impl DeadNote {
    pub(crate) fn of(letter: &DeadLetter, timestamp_ms: i64) -> Self {
        let DeadLetter { reason, message, partition, offset, payload, .. } = letter;
        let stamped = (timestamp_ms > 0).then(|| EventTime::from_ms(timestamp_ms));
        let bytes = payload.as_ref().map_or(0, Vec::len);
        Self { reason, message: message.clone(), partition: partition.clone(), offset: *offset, bytes, stamped }
    }
}

/// The last dead letters, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastDead(VecDeque<DeadNote>);

/// Dead letters that are remembered: what is wrong with a producer is seen in a few of them. About 200 bytes each.
const LAST_DEAD_MAX: usize = 100;

impl LastDead {
    pub(crate) fn push(&mut self, note: DeadNote) {
        if self.0.len() == LAST_DEAD_MAX {
            self.0.pop_front();
        }
        self.0.push_back(note);
    }

    /// Adds later ones.
    pub fn append(&mut self, later: Self) {
        later.0.into_iter().for_each(|note| self.push(note));
    }

    /// The newest first.
    pub fn iter(&self) -> impl Iterator<Item = &DeadNote> {
        self.0.iter().rev()
    }
}

/// Rows of one record and table that came too late or from the future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRows {
    /// Their table.
    pub table: Table,
    /// What was wrong with their time.
    pub reason: Untimely,
    /// Where the record was read.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// How many rows.
    pub rows: u64,
    /// The earliest of their times.
    pub earliest: EventTime,
    /// The latest of their times.
    pub latest: EventTime,
    /// By how much the worst of them missed, in nanoseconds.
    pub by_ns_max: i64,
}

impl LateRows {
    pub(crate) fn new(table: Table, reason: Untimely, partition: &TopicPartition, offset: i64) -> Self {
        let (earliest, latest) = (EventTime::MAX, EventTime::MIN);
        Self { table, reason, partition: partition.clone(), offset, rows: 0, earliest, latest, by_ns_max: 0 }
    }

    pub(crate) fn add(&mut self, at: EventTime, by_ns: i64) {
        self.rows += 1;
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
        self.by_ns_max = self.by_ns_max.max(by_ns);
    }

    /// The note for the late topic: JSON, keyed by the input partition.
    #[must_use]
    pub fn to_message(&self, topic: &str) -> Outgoing {
        let note = json!({
            "table": self.table.name(),
            "reason": self.reason.as_str(),
            "topic": *self.partition.topic,
            "partition": self.partition.partition,
            "offset": self.offset,
            "rows": self.rows,
            "earliest": self.earliest.to_rfc3339(),
            "latest": self.latest.to_rfc3339(),
            "late_by_ms": self.by_ns_max / NANOS_PER_MS,
        });
        Outgoing {
            topic: topic.to_owned(),
            key: Some(self.partition.to_string().into_bytes()),
            payload: Some(note.to_string().into_bytes()),
            headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
        }
    }
}

/// A topic holds something else than what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{dead} of the last {records} records could not be decoded (limits.decode_error_ratio_max = {ratio_max})")]
pub struct Undecodable {
    /// How many.
    pub dead: u64,
    /// Of how many.
    pub records: u64,
    /// The limit.
    pub ratio_max: f64,
}

/// The last records, for the share of undecodable ones: a topic must not be drained into the dead letters.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecodeErrors {
    records: u64,
    dead: u64,
}

/// Fewer records than this say nothing about a topic.
const RECENT_RECORDS: u64 = 1_000;

impl DecodeErrors {
    /// Adds the records of an epoch.
    ///
    /// # Errors
    /// [`Undecodable`] if too many could not be decoded.
    pub fn add(&mut self, counts: &ScanCounts, ratio_max: f64) -> Result<(), Undecodable> {
        self.records += counts.records;
        self.dead += counts.records_dead;
        if self.records < RECENT_RECORDS {
            return Ok(());
        }
        let Self { records, dead } = std::mem::take(self);
        #[expect(clippy::cast_precision_loss, reason = "a share of a few thousand records")]
        let ratio = dead as f64 / records as f64;
        if ratio > ratio_max { Err(Undecodable { dead, records, ratio_max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_carries_bytes_coordinates_and_reason() {
        let record = RecordRef {
            topic: "otlp_spans",
            partition: 3,
            offset: 42,
            timestamp_ms: 0,
            key: Some(b"k"),
            payload: Some(b"garbage"),
            ..RecordRef::default()
        };
        let message = DeadLetter::of_record(record, "malformed_protobuf", "bad tag").to_message("dead", "app");
        assert_eq!((message.key.as_deref(), message.payload.as_deref()), (Some(&b"k"[..]), Some(&b"garbage"[..])));
        let header = |name: &str| {
            let found = message.headers.iter().find(|h| h.0 == format!("__connect.errors.{name}"));
            String::from_utf8(found.unwrap().1.clone()).unwrap()
        };
        assert_eq!(
            (header("topic"), header("partition"), header("offset")),
            ("otlp_spans".into(), "3".into(), "42".into())
        );
        assert_eq!(header("class.name"), "lictor.decode.malformed_protobuf");
    }

    #[test]
    fn what_a_message_quotes_is_left_out() {
        let message = r#"invalid type: string "tell me a secret", expected u64 at line 1, "and so on""#;
        assert_eq!(without_quoted(message), r#"invalid type: string "…", expected u64 at line 1, "…""#);
        assert_eq!(
            without_quoted(r#"string "tell \" me", at 1"#),
            r#"string "…", at 1"#,
            "a quote of the record's own"
        );
        assert_eq!(without_quoted(r#"string "C:\\", at 1"#), r#"string "…", at 1"#);
        assert_eq!(without_quoted("invalid wire type"), "invalid wire type");
        assert_eq!(without_quoted(r#"cut off: "tell me"#), r#"cut off: "…"#);
    }

    #[test]
    fn late_rows_say_how_many_and_by_how_much() {
        let mut rows = LateRows::new(Table::Spans, Untimely::Late, &TopicPartition::new("t", 0), 7);
        rows.add(EventTime::from_ms(5_000), 2 * NANOS_PER_MS);
        rows.add(EventTime::from_ms(4_000), 1_002 * NANOS_PER_MS);
        let note: serde_json::Value = serde_json::from_slice(&rows.to_message("late").payload.unwrap()).unwrap();
        assert_eq!((&note["rows"], &note["late_by_ms"], &note["offset"]), (&json!(2), &json!(1002), &json!(7)));
        assert_eq!(note["earliest"], "1970-01-01T00:00:04Z");
    }
}
