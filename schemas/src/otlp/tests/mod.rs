//! The decoder as its callers see it: bytes in, columns out.

mod dialects;
mod faults;
mod fixtures;
mod forms;
mod koshi;
mod walked;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value as Json, json};

use super::*;
use crate::tables::describe;

const META: RecordMeta<'static> =
    RecordMeta { topic: "otlp_spans", partition: 3, offset: 42, timestamp_ms: 1_790_000_000_000 };

/// 2026-09-21T14:13:20Z, one second long.
const START: &str = "1790000000000000000";
const END: &str = "1790000001000000000";
const TRACE: &str = "0102030405060708090a0b0c0d0e0f10";

fn prices() -> Arc<PriceTable> {
    let csv = include_str!("../../../../queries/rules/llm_prices.csv");
    Arc::new(PriceTable::from_csv(csv).unwrap())
}

/// A decoder for every column of every table.
fn decoder() -> Decoder {
    let all = |table| (table, describe(table).into_iter().map(|c| c.name.to_owned()).collect());
    Decoder::new(&Wanted(Table::ALL.into_iter().map(all).collect()), &[], prices())
}

#[track_caller]
fn absorb(signal: Signal, payload: &[u8]) -> (Absorbed, BTreeMap<Table, RecordBatch>) {
    let mut decoder = decoder();
    let absorbed = decoder.absorb(signal, payload, META).unwrap();
    (absorbed, decoder.take().into_iter().collect())
}

/// The rows of `table` in a JSON record.
#[track_caller]
fn rows(table: Table, record: &Json) -> RecordBatch {
    absorb(table.signal(), record.to_string().as_bytes()).1.remove(&table).unwrap()
}

/// A record with these spans, on a resource with these attributes.
fn traces(resource: Json, spans: &[Json]) -> Json {
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"spans": spans}]}]})
}

/// A span with these attributes; `id` tells it from others.
fn span(id: u8, parent: u8, attributes: Json) -> Json {
    let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
    json!({
        "traceId": TRACE, "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": "work", "kind": 3,
        "startTimeUnixNano": START, "endTimeUnixNano": END, "attributes": attributes,
    })
}

/// A value as text; empty for null.
fn cell(batch: &RecordBatch, row: usize, column: &str) -> String {
    let array = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).unwrap().value(row).to_string()
}

#[track_caller]
fn check_row(batch: &RecordBatch, row: usize, expected: &[(&str, &str)]) {
    for (column, value) in expected {
        assert_eq!(cell(batch, row, column), *value, "{column} of row {row}");
    }
}

/// Checks what becomes of the attributes of a single span.
#[track_caller]
fn check_span(attributes: Json, expected: &[(&str, &str)]) {
    check_row(&rows(Table::Spans, &traces(json!({}), &[span(1, 0, attributes)])), 0, expected);
}

/// The recorded telemetry, which is no part of the project.
fn fixtures() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures"));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no recorded telemetry at {}", path.display());
    None
}
