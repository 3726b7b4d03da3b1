//! Drafts against the messages they become, and against the columns that decoding them gives back.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde_json::json;

use super::*;
use crate::columns::{self, Derivation, Kind};
use crate::otlp::{Decoder, RecordMeta, Wanted};
use crate::prices::PriceTable;

fn draft(table: Table, columns: Value) -> RowDraft {
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    RowDraft { table, event_time: EventTime::from_ms(1_772_359_201_250), columns }
}

fn traces(drafts: &[RowDraft]) -> TracesData {
    TracesData::decode(encode_protobuf(Signal::Traces, drafts).unwrap().as_slice()).unwrap()
}

#[track_caller]
fn attribute(attributes: &[KeyValue], key: &str) -> Any {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.unwrap_or_else(|| panic!("no attribute {key}")).value.clone().unwrap().value.unwrap()
}

#[test]
fn a_span_has_its_columns_where_the_decoder_looks_first() {
    let data = traces(&[draft(
        Table::Spans,
        json!({
            "team": "search", "service_name": "gateway", "input_tokens": 10.0, "cost_total": 0.5, "ttft_ms": 250,
            "finish_reason": "stop,length", "duration_ms": 1000.5, "status_code": "ERROR", "name": "chat gpt-4o",
            "attr:tags": ["a", 1], "resource_attr:k8s.pod.name": "p-1", "scope_name": "sdk", "project": null,
        }),
    )]);
    let batch = &data.resource_spans[0];
    let resource = &batch.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(resource, "service.name"), Any::StringValue("gateway".to_owned()));
    assert_eq!(attribute(resource, "k8s.pod.name"), Any::StringValue("p-1".to_owned()));
    assert_eq!(batch.scope_spans[0].scope.as_ref().unwrap().name, "sdk");
    let span = &batch.scope_spans[0].spans[0];
    assert_eq!(span.name, "chat gpt-4o");
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_000_500_000);
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert_eq!(attribute(&span.attributes, "genops.team"), Any::StringValue("search".to_owned()));
    assert_eq!(attribute(&span.attributes, "genops.tokens.input"), Any::IntValue(10));
    assert_eq!(attribute(&span.attributes, "genops.cost.total"), Any::DoubleValue(0.5));
    assert_eq!(attribute(&span.attributes, "gen_ai.response.time_to_first_chunk"), Any::DoubleValue(0.25), "seconds");
    assert!(matches!(attribute(&span.attributes, "tags"), Any::ArrayValue(array) if array.values.len() == 2));
    let reasons = attribute(&span.attributes, "gen_ai.response.finish_reasons");
    assert!(matches!(reasons, Any::ArrayValue(array) if array.values.len() == 2));
    assert!(!span.attributes.iter().any(|attribute| attribute.key == "genops.project"), "null is as good as none");
}

#[test]
fn made_up_ids_are_whole_stable_and_distinct() {
    let drafts =
        [draft(Table::Spans, json!({})), draft(Table::Spans, json!({})), draft(Table::Spans, json!({"team": "a"}))];
    let data = traces(&drafts);
    let spans = &data.resource_spans[0].scope_spans[0].spans;
    let mut ids: Vec<_> = spans.iter().map(|span| (span.trace_id.clone(), span.span_id.clone())).collect();
    assert!(ids.iter().all(|(trace, span)| trace.len() == 16 && span.len() == 8));
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert_eq!(data, traces(&drafts));
}

#[test]
fn ids_of_the_draft_are_kept() {
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let columns = json!({"trace_id": trace, "span_id": "b7ad6b7169203331", "parent_span_id": parent});
    let data = traces(&[draft(Table::Spans, columns)]);
    let span = &data.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.trace_id[0], span.span_id[0], span.parent_span_id[7]), (0x4b, 0xb7, 0xb7));
}

#[test]
fn neighbours_share_a_resource_and_the_order_stays() {
    let of = |service: &str, name: &str| draft(Table::Spans, json!({"service_name": service, "name": name}));
    let data = traces(&[of("a", "1"), of("a", "2"), of("b", "3"), of("a", "4")]);
    let names = |batch: &ResourceSpans| batch.scope_spans[0].spans.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let batches: Vec<_> = data.resource_spans.iter().map(names).collect();
    assert_eq!(batches, [vec!["1", "2"], vec!["3"], vec!["4"]]);
}

#[test]
fn a_span_event_brings_its_span() {
    let data = traces(&[draft(Table::SpanEvents, json!({"name": "retry", "span_name": "chat", "team": "search"}))]);
    let span = &data.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.events[0].name.as_str()), ("chat", "retry"));
    assert_eq!(span.events[0].time_unix_nano, span.end_time_unix_nano);
    assert_eq!(attribute(&span.events[0].attributes, "genops.team"), Any::StringValue("search".to_owned()));
}

#[test]
fn a_log_record_and_a_sum_have_their_own_fields() {
    let log =
        draft(Table::Logs, json!({"body": "hello", "severity_number": 9, "event_name": "claude_code.api_request"}));
    let logs = LogsData::decode(encode_protobuf(Signal::Logs, &[log]).unwrap().as_slice()).unwrap();
    let record = &logs.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((record.severity_number, record.event_name.as_str()), (9, "claude_code.api_request"));
    assert!(record.trace_id.is_empty(), "log records have no trace context of their own");
    let sum =
        draft(Table::Metrics, json!({"metric_name": "tokens", "metric_type": "sum", "value": 3, "unit": "{token}"}));
    let metrics = MetricsData::decode(encode_protobuf(Signal::Metrics, &[sum]).unwrap().as_slice()).unwrap();
    let metric = &metrics.resource_metrics[0].scope_metrics[0].metrics[0];
    assert!(matches!(&metric.data, Some(Data::Sum(sum)) if sum.is_monotonic && sum.data_points.len() == 1));
}

#[test]
fn json_says_the_same_in_the_words_of_the_protocol() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let columns = json!({"team": "search", "input_tokens": 10, "attr:flags": {"a": true}, "trace_id": trace_id});
    let bytes = encode_json(Signal::Traces, &[draft(Table::Spans, columns)]).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let span = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], trace_id);
    assert_eq!(span["endTimeUnixNano"], "1772359201250000000");
    let attributes = span["attributes"].as_array().unwrap();
    assert!(attributes.contains(&json!({"key": "genops.tokens.input", "value": {"intValue": "10"}})));
    assert!(attributes.iter().any(|a| a["value"]["kvlistValue"]["values"][0]["value"]["boolValue"] == json!(true)));
}

#[track_caller]
fn refused(table: Table, columns: Value, expected: &str) {
    let error = encode_protobuf(table.signal(), &[draft(table, columns)]).unwrap_err();
    assert!(error.contains(expected), "{error:?} says {expected:?}");
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    refused(
        Table::Spans,
        json!({"teem": "a"}),
        "row 1 of spans: column `teem`: does not exist in `spans`: did you mean `team`?",
    );
    refused(Table::Spans, json!({"usage_leaf": true}), "`usage_leaf`: is computed from other columns");
    refused(Table::Spans, json!({"kafka_offset": 1}), "`kafka_offset`: comes from the record");
    refused(Table::Spans, json!({"input_tokens": "ten"}), "expected a whole number, found \"ten\"");
    refused(Table::Spans, json!({"input_tokens": 1.5}), "expected a whole number");
    refused(Table::Spans, json!({"team": ["a"]}), "expected text");
    refused(Table::Spans, json!({"trace_id": "t1"}), "expected 32 hex digits");
    refused(Table::Spans, json!({"duration_ms": -1}), "negative");
    refused(Table::Spans, json!({"status_code": "EROR"}), "did you mean `ERROR`?");
    refused(Table::Metrics, json!({"metric_type": "guage"}), "did you mean `gauge`?");
    refused(Table::Logs, json!({"parent_span_id": "00f067aa0ba902b7"}), "does not exist in `logs`");
    let before = RowDraft { event_time: EventTime(-1), ..draft(Table::Spans, json!({})) };
    assert!(encode_protobuf(Signal::Traces, &[before]).unwrap_err().contains("before 1970"));
    let foreign = encode_protobuf(Signal::Logs, &[draft(Table::Spans, json!({}))]).unwrap_err();
    assert!(foreign.contains("not a row of logs"), "{foreign}");
}

/// What decoding gives for one column of a draft; none if it is null.
fn decoded(draft: &RowDraft, column: &str, payload: &[u8]) -> Option<String> {
    let wanted = Wanted(BTreeMap::from([(draft.table, BTreeSet::from([column.to_owned()]))]));
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::default()));
    let meta = RecordMeta { topic: "t", partition: 0, offset: 0, timestamp_ms: 0 };
    decoder.absorb(draft.table.signal(), payload, meta).unwrap();
    let (_, batch) = decoder.take().pop().unwrap();
    let values = batch.column_by_name(column).unwrap();
    (!values.is_null(0)).then(|| array_value_to_string(values, 0).unwrap())
}

#[track_caller]
fn comes_back(table: Table, column: &str, value: Value, expected: &str) {
    let mut columns = match table {
        Table::Metrics => {
            json!({"metric_name": "m", "metric_type": if column == "temporality" { "sum" } else { "gauge" }})
        }
        Table::Spans | Table::SpanEvents | Table::Logs => json!({}),
    };
    columns[column] = value;
    let draft = draft(table, columns);
    for encode in [encode_protobuf, encode_json] {
        let payload = encode(table.signal(), std::slice::from_ref(&draft)).unwrap();
        assert_eq!(decoded(&draft, column, &payload).as_deref(), Some(expected), "{} of {}", column, table.name());
    }
}

#[test]
fn every_canonical_column_comes_back_from_both_encodings() {
    for table in Table::ALL {
        for spec in
            columns::of(table).filter(|s| !matches!(s.derivation, Derivation::UsageLeaf | Derivation::CostSource))
        {
            let (value, expected) = match (spec.name, spec.kind) {
                ("status_code", _) => (json!("ERROR"), "ERROR"),
                (_, Kind::Integer | Kind::Small) => (json!(12), "12"),
                (_, Kind::Number) => (json!(0.5), "0.5"),
                (_, Kind::Flag) => (json!(true), "true"),
                (_, Kind::Instant) => (json!("2026-03-01T10:00:00Z"), "2026-03-01T10:00:00"),
                (_, Kind::List) => (json!("stop,length"), "stop,length"),
                (_, Kind::PolicyResult) => (json!("BLOCKED"), "BLOCKED"),
                _ => (json!("openai"), "openai"),
            };
            comes_back(table, spec.name, value, expected);
        }
    }
}

#[test]
fn columns_of_otlp_itself_and_attributes_come_back_too() {
    comes_back(Table::Spans, "trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736"), "4bf92f3577b34da6a3ce929d0e0e4736");
    comes_back(Table::Spans, "parent_span_id", json!("00f067aa0ba902b7"), "00f067aa0ba902b7");
    comes_back(Table::Spans, "trace_state", json!("ot=th:8"), "ot=th:8");
    comes_back(Table::Spans, "name", json!("chat"), "chat");
    comes_back(Table::Spans, "kind", json!("SERVER"), "SERVER");
    comes_back(Table::Spans, "duration_ms", json!(12.5), "12.5");
    comes_back(Table::Spans, "start_time", json!("2026-03-01T09:00:00Z"), "2026-03-01T09:00:00");
    comes_back(Table::Spans, "scope_version", json!("1.2"), "1.2");
    comes_back(Table::Spans, "attr:in.house", json!("x"), "x");
    comes_back(Table::Spans, "resource_attr:k8s.pod.name", json!("p"), "p");
    comes_back(Table::SpanEvents, "name", json!("retry"), "retry");
    comes_back(Table::SpanEvents, "span_name", json!("chat"), "chat");
    comes_back(Table::Logs, "body", json!("hello"), "hello");
    comes_back(Table::Logs, "severity_number", json!(17), "17");
    comes_back(Table::Metrics, "value", json!(2.5), "2.5");
    comes_back(Table::Metrics, "metric_type", json!("exponential_histogram"), "exponential_histogram");
    comes_back(Table::Metrics, "temporality", json!("cumulative"), "cumulative");
}
