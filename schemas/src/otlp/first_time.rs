//! The time of the first item of a message, without decoding the message.
//!
//! Whoever reads recorded telemetry of several files has to know which record comes next before it is decoded. The
//! first item says it well enough: a record holds what a collector had at one moment.

use super::wire::{Wire, take, varint, wire_type};
use crate::tables::Signal;
use crate::time::EventTime;

/// When the first item of a message happened that has a time: a span's end, a log record's or a data point's time. None
/// if there is none, or the bytes are no message of `signal`.
#[must_use]
pub fn first_time(signal: Signal, payload: &[u8]) -> Option<EventTime> {
    let text = payload.trim_ascii_start();
    let ns = if text.first() == Some(&b'{') { in_json(signal, text) } else { in_protobuf(signal, payload) };
    i64::try_from(ns?).ok().filter(|ns| *ns > 0).map(EventTime)
}

/// The fields on the way from a message to its items, of which each may go by several numbers, and those of the item
/// that hold its time.
struct Way {
    messages: &'static [&'static [u64]],
    times: &'static [u64],
}

const TRACES: Way = Way { messages: &[&[1], &[2], &[2]], times: &[8] };
const LOGS: Way = Way { messages: &[&[1], &[2], &[2]], times: &[1, 11] };
/// Through gauges, sums, histograms, exponential histograms and summaries.
const METRICS: Way = Way { messages: &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]], times: &[3] };

fn in_protobuf(signal: Signal, payload: &[u8]) -> Option<u64> {
    let way = match signal {
        Signal::Traces => TRACES,
        Signal::Logs => LOGS,
        Signal::Metrics => METRICS,
    };
    first(way.messages, way.times, payload)
}

/// The depth is bounded by the way's length.
fn first(way: &[&[u64]], times: &[u64], mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = tag >> 3;
        let found = match (wire_type(tag & 7)?, way.split_first()) {
            (Wire::Varint, _) => varint(&mut bytes).map(|_| None)?,
            (Wire::Fixed32, _) => take(&mut bytes, 4).map(|_| None)?,
            (Wire::Fixed64, rest) => {
                let value = <[u8; 8]>::try_from(take(&mut bytes, 8)?).ok().map(u64::from_le_bytes);
                value.filter(|ns| rest.is_none() && times.contains(&number) && *ns > 0)
            }
            (Wire::Len, rest) => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let inside = take(&mut bytes, len)?;
                rest.filter(|(here, _)| here.contains(&number)).and_then(|(_, rest)| first(rest, times, inside))
            }
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The number behind the first member of that name. A text that looks like one misleads nobody for longer than a
/// record.
fn in_json(signal: Signal, text: &[u8]) -> Option<u64> {
    let names: &[&[u8]] = match signal {
        Signal::Traces => &[b"\"endTimeUnixNano\"", b"\"end_time_unix_nano\""],
        Signal::Logs => &[b"\"timeUnixNano\"", b"\"time_unix_nano\"", b"\"observedTimeUnixNano\""],
        Signal::Metrics => &[b"\"timeUnixNano\"", b"\"time_unix_nano\""],
    };
    names.iter().find_map(|name| number_behind(name, text))
}

fn number_behind(name: &[u8], text: &[u8]) -> Option<u64> {
    let mut rest = text;
    while let Some(quote) = rest.iter().position(|byte| *byte == b'"') {
        rest = &rest[quote..];
        if let Some(value) = rest.strip_prefix(name) {
            let value = value.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let mut digits = value.iter().take_while(|byte| byte.is_ascii_digit());
            let number =
                digits.try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            if number.is_some_and(|ns| ns > 0) {
                return number;
            }
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::otlp::encode::{RowDraft, encode_json, encode_protobuf};
    use crate::otlp::signal_of_protobuf;
    use crate::tables::Table;

    const AT: EventTime = EventTime(1_772_355_600_123_456_789);

    fn draft(table: Table, at: EventTime) -> RowDraft {
        let metric = [("metric_name", json!("m")), ("metric_type", json!("sum")), ("value", json!(1))];
        let columns = metric.map(|(name, value)| (name.to_owned(), value));
        let columns = if table == Table::Metrics { BTreeMap::from(columns) } else { BTreeMap::new() };
        RowDraft { table, event_time: at, columns }
    }

    #[test]
    fn both_encodings_of_every_signal_say_when_their_first_item_happened() {
        for table in [Table::Spans, Table::Logs, Table::Metrics] {
            let (signal, drafts) = (table.signal(), [draft(table, AT), draft(table, AT.plus(5))]);
            assert_eq!(first_time(signal, &encode_protobuf(signal, &drafts).unwrap()), Some(AT), "{table:?}");
            assert_eq!(first_time(signal, &encode_json(signal, &drafts).unwrap()), Some(AT), "{table:?}");
        }
    }

    #[test]
    fn a_message_tells_its_signal_by_its_shape() {
        for table in [Table::Spans, Table::Logs, Table::Metrics] {
            let payload = encode_protobuf(table.signal(), &[draft(table, AT)]).unwrap();
            assert_eq!(signal_of_protobuf(&payload), Some(table.signal()));
        }
        assert_eq!(signal_of_protobuf(b"\x0a\x00"), None, "an empty one could be any");
        assert_eq!(signal_of_protobuf(b"\xff\xff"), None);
    }

    #[test]
    fn what_is_no_message_has_no_time_and_no_input_panics() {
        let whole = encode_protobuf(Signal::Traces, &[draft(Table::Spans, AT)]).unwrap();
        for end in 0..whole.len() {
            let _ = first_time(Signal::Traces, &whole[..end]);
        }
        for payload in [&b""[..], b"{", b"{\"endTimeUnixNano\"", b"{\"endTimeUnixNano\":\"x\"}", b"\xff\xfe\x0a\x99"] {
            assert_eq!(first_time(Signal::Traces, payload), None, "{payload:?}");
        }
        let zero = b"{\"endTimeUnixNano\":\"0\", \"endTimeUnixNano\" : 12}";
        assert_eq!(first_time(Signal::Traces, zero), Some(EventTime(12)), "an item without a time is no item");
        let huge = b"{\"endTimeUnixNano\":\"99999999999999999999\"}";
        assert_eq!(first_time(Signal::Traces, huge), None);
    }
}
