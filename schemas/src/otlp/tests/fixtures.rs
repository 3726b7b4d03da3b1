//! Recorded telemetry of others. It is no part of the project: where it is absent, these tests say so and pass.

use std::fs;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::Int64Type;

use super::*;

/// The sum of `input_tokens` over all spans, and over those that may be summed.
fn input_tokens(spans: &RecordBatch) -> (i64, i64) {
    let tokens = spans.column_by_name("input_tokens").unwrap().as_primitive::<Int64Type>();
    let leaf: &BooleanArray = spans.column_by_name("usage_leaf").unwrap().as_boolean();
    let leaves = tokens.iter().zip(leaf).filter(|(_, leaf)| *leaf == Some(true));
    (tokens.iter().flatten().sum(), leaves.filter_map(|(tokens, _)| tokens).sum())
}

#[test]
fn kagent_trace_counts_its_tokens_once_in_both_encodings() {
    let Some(path) = fixtures() else { return };
    let protobuf = absorb(Signal::Traces, &fs::read(path.join("derived/kagent_trace.otlp.pb")).unwrap());
    let json = absorb(Signal::Traces, &fs::read(path.join("derived/kagent_trace.otlp.json")).unwrap());
    assert_eq!(protobuf, json);
    let spans = &protobuf.1[&Table::Spans];
    assert_eq!(spans.num_rows(), 86);
    assert_eq!(input_tokens(spans), (13_944, 4_648));
}

/// Decodes a file and gives the rows accepted, the items rejected, and the reason.
fn outcome(path: &str, signal: Signal) -> Option<(usize, usize, String)> {
    let payload = fs::read(fixtures()?.join(path)).unwrap();
    Some(outcome_of(signal, &payload))
}

fn outcome_of(signal: Signal, payload: &[u8]) -> (usize, usize, String) {
    match decoder().absorb(signal, payload, META) {
        Ok(Absorbed { rows, rejected: None }) => (rows, 0, String::new()),
        Ok(Absorbed { rows, rejected: Some(rejected) }) => (rows, rejected.items, rejected.reason),
        Err(e) => (0, 0, e.reason().to_owned()),
    }
}

#[track_caller]
fn check(path: &str, signal: Signal, rows: usize, reason: &str) {
    if let Some((accepted, _, why)) = outcome(path, signal) {
        assert_eq!((accepted, why.as_str()), (rows, reason), "{path}");
    }
}

#[test]
fn recorded_files_decode_or_are_refused_with_the_right_reason() {
    check("opentelemetry-proto/trace.json", Signal::Traces, 1, "");
    check("opentelemetry-proto/logs.json", Signal::Logs, 1, "");
    check("opentelemetry-proto/events.json", Signal::Logs, 1, "");
    check("opentelemetry-proto/metrics.json", Signal::Metrics, 4, "");
    check("data-prepper/test-request-both-span-types.json", Signal::Traces, 3, "");
    check("data-prepper/test-request-multiple-metrics.json", Signal::Metrics, 3, "");
    check("data-prepper/test-otel-log.protobuf", Signal::Logs, 1, "");
    check("langwatch/attribution.json", Signal::Traces, 0, "invalid_id");
    check("opentelemetry-proto/logs.json", Signal::Traces, 0, "wrong_signal");
    check("data-prepper/test-otel-log.protobuf", Signal::Traces, 0, "wrong_signal");
    check("data-prepper/test-otel-log.protobuf", Signal::Metrics, 0, "wrong_signal");
    check("derived/kagent_trace.otlp.pb", Signal::Logs, 0, "wrong_signal");
    check("derived/kagent_trace.otlp.pb", Signal::Metrics, 0, "wrong_signal");
    for file in ["chat-parallel-tools", "chat-bad-request", "chat-detailed-usage", "embeddings-basic"] {
        check(&format!("envoy-ai-gateway/{file}.json"), Signal::Traces, 0, "malformed_json");
    }
    check("langwatch/opencode-B.doStream.json", Signal::Traces, 0, "malformed_json");
    check("strands-evals/claude_adot_spans.json", Signal::Traces, 0, "malformed_json");
}

/// Spans that were recorded bare decode once they stand in an envelope with ids and times.
#[test]
fn recorded_openinference_spans_decode_in_an_envelope() {
    let Some(path) = fixtures() else { return };
    let mut recorded: Json =
        serde_json::from_slice(&fs::read(path.join("envoy-ai-gateway/chat-detailed-usage.json")).unwrap()).unwrap();
    recorded["traceId"] = json!(TRACE);
    recorded["spanId"] = json!("0000000000000001");
    recorded["endTimeUnixNano"] = json!(END);
    let expected = [
        ("provider", "openai"),
        ("response_model", "gpt-5-nano-2025-08-07"),
        ("kind", "INTERNAL"),
        ("status_code", "OK"),
        ("input_tokens", "12"),
        ("output_tokens", "100"),
        ("reasoning_tokens", "100"),
        ("cost_source", "priced"),
    ];
    check_row(&rows(Table::Spans, &traces(json!([]), &[recorded])), 0, &expected);
}

#[test]
fn langfuse_payloads_decode_or_miss_ids_or_times() {
    let Some(path) = fixtures() else { return };
    let text = fs::read(path.join("langfuse/otelMapping.extracted.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_slice(&text).unwrap();
    let mut decoded = 0;
    for case in &cases {
        let (rows, rejected, reason) = outcome_of(Signal::Traces, case["payload"].to_string().as_bytes());
        let name = &case["test"];
        match reason.as_str() {
            "" => assert!(rows > 0 && rejected == 0, "{name}"),
            "invalid_id" => assert!(case["payload"].to_string().contains("{}"), "{name}"),
            "no_time" => assert!(!case["payload"].to_string().contains("endTimeUnixNano"), "{name}"),
            other => panic!("{name}: {other}"),
        }
        decoded += usize::from(rows > 0);
    }
    assert_eq!((cases.len(), decoded), (28, 24));
}
