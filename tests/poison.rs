//! Bad input: nothing stops, every record and every row is accounted for, dead letters say where and why.

use std::collections::BTreeMap;
use std::path::Path;

use lictor_connectors::RecordRef;
use lictor_engine::aside::DeadLetter;
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_engine::rules_dir;
use lictor_engine::watermark::Untimely;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

/// 2026-03-01T10:00:00Z.
const NOON_MS: i64 = 1_772_359_200_000;

fn draft(event_time: EventTime, columns: &[(&str, Value)]) -> RowDraft {
    let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>();
    RowDraft { table: Table::Spans, event_time, columns }
}

fn span(event_time: EventTime, more: &[(&str, Value)]) -> Vec<u8> {
    let plain = [("team", json!("search")), ("input_tokens", json!(10)), ("cost_total", json!(0.01))];
    encode_protobuf(Signal::Traces, &[draft(event_time, &[&plain, more].concat())]).unwrap()
}

fn metric(event_time: EventTime) -> Vec<u8> {
    let columns = BTreeMap::from([
        ("metric_name".to_owned(), json!("gen_ai.client.token.usage")),
        ("value".to_owned(), json!(3.0)),
    ]);
    encode_protobuf(Signal::Metrics, &[RowDraft { table: Table::Metrics, event_time, columns }]).unwrap()
}

/// A thousand good spans with a garbage record in every hundred, and one of each other kind of trouble in the middle.
fn records() -> Vec<Option<Vec<u8>>> {
    let at = |i: i64| EventTime::from_ms(NOON_MS + i * 100);
    let mut records: Vec<Option<Vec<u8>>> = Vec::new();
    for i in 0..1_000 {
        records.push(Some(span(at(i), &[])));
        if i % 100 == 50 {
            records.push(Some(vec![0xff, 0x13, 0x37]));
        }
    }
    let year = |y: i32| EventTime::from_rfc3339(&format!("{y}-01-01T00:00:00Z")).unwrap();
    let zeroed = [draft(at(500), &[("trace_id", json!("0".repeat(32)))]), draft(at(500), &[("team", json!("search"))])];
    let trouble = [
        Some(metric(at(500))),
        Some(span(at(500), &[("attr:gen_ai.input.messages", json!("x".repeat(5_000_000)))])),
        Some(encode_protobuf(Signal::Traces, &zeroed[..1]).unwrap()),
        Some(encode_protobuf(Signal::Traces, &zeroed).unwrap()),
        Some(span(year(2099), &[])),
        Some(span(year(1970).plus(1), &[])),
        None,
    ];
    records.splice(500..500, trouble);
    records
}

fn judge(records: &[Option<Vec<u8>>]) -> Epoch {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    let loaded = rules_dir::load(&rules, None).unwrap();
    let mut pipeline = Pipeline::new(loaded.rules, loaded.prices, &PipelineSettings::default());
    for (offset, payload) in (0..).zip(records) {
        let record = RecordRef {
            topic: "otlp_spans",
            partition: 3,
            offset,
            timestamp_ms: NOON_MS + 100_000,
            key: Some(b"key"),
            payload: payload.as_deref(),
        };
        pipeline.absorb(record, EventTime::from_ms(NOON_MS));
    }
    let epoch = pipeline.end_epoch(EventTime::from_ms(NOON_MS));
    assert!(pipeline.status().iter().all(|rule| rule.quarantined.is_none()));
    epoch
}

fn reasons(dead: &[DeadLetter]) -> BTreeMap<&str, usize> {
    dead.iter().fold(BTreeMap::new(), |mut counts, letter| {
        *counts.entry(letter.reason).or_default() += 1;
        counts
    })
}

#[test]
fn every_record_and_every_row_is_accounted_for() {
    let records = records();
    let epoch = judge(&records);
    let counts = &epoch.counts;
    assert_eq!(counts.records, records.len() as u64);
    assert_eq!((counts.records_dead, counts.records_partly_dead), (13, 1));
    let expected = [("empty", 1), ("invalid_id", 1), ("invalid_items", 1), ("malformed_protobuf", 10), ("wrong_signal", 1)];
    assert_eq!(reasons(&epoch.dead), BTreeMap::from(expected));
    // The 1,000 plain spans, the long one and the good half of a bad pair.
    assert_eq!(counts.rows_used.get(&Table::Spans), Some(&1_002));
    let untimely = [((Table::Spans, Untimely::Late), 1), ((Table::Spans, Untimely::FutureSkew), 1)];
    assert_eq!(counts.rows_untimely, BTreeMap::from(untimely));
}

#[test]
fn dead_letters_carry_the_bytes_the_coordinates_and_the_reason() {
    let records = records();
    let epoch = judge(&records);
    for letter in epoch.dead.iter().filter(|l| l.reason != "invalid_items") {
        let offset = usize::try_from(letter.offset).unwrap();
        assert_eq!(letter.payload, records[offset], "{letter:?}");
        assert_eq!((&*letter.partition.topic, letter.partition.partition), ("otlp_spans", 3));
        assert_eq!(letter.key.as_deref(), Some(&b"key"[..]));
        assert!(!letter.message.is_empty());
    }
}

#[test]
fn of_a_partly_bad_record_only_the_bad_items_are_put_aside() {
    let records = records();
    let epoch = judge(&records);
    let letter = epoch.dead.iter().find(|l| l.reason == "invalid_items").unwrap();
    let again = judge(&[letter.payload.clone()]);
    assert_eq!((again.counts.records_dead, again.counts.rows_used.get(&Table::Spans)), (1, None), "{letter:?}");
}

#[test]
fn late_notes_say_where_the_rows_are_and_by_how_much_they_missed() {
    let epoch = judge(&records());
    let mut notes: Vec<_> = epoch.late.iter().map(|l| (l.reason, l.offset, l.rows)).collect();
    notes.sort();
    assert_eq!(notes, [(Untimely::Late, 505, 1), (Untimely::FutureSkew, 504, 1)]);
    let late = epoch.late.iter().find(|l| l.reason == Untimely::Late).unwrap();
    assert_eq!(late.earliest.to_rfc3339(), "1970-01-01T00:00:00.000000001Z");
    assert!(late.by_ns_max > 50 * 365 * 86_400 * 1_000_000_000, "{late:?}");
}
