//! Both encodings, and the many ways to write JSON, give the same rows.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};

use super::*;

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn string(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: vec![pair("service.name", string("bot"))], ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..Default::default() })
}

fn list(values: &[&str]) -> Value {
    let any = |text: &&str| AnyValue { value: Some(string(text)) };
    Value::ArrayValue(ArrayValue { values: values.iter().map(any).collect() })
}

pub(super) fn traces_message() -> TracesData {
    let span = Span {
        trace_id: (1..=16).collect(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, 2],
        parent_span_id: vec![0, 0, 0, 0, 0, 0, 0, 1],
        name: "chat gpt-4o".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_790_000_000_000_000_000,
        end_time_unix_nano: 1_790_000_001_500_000_000,
        attributes: vec![
            pair("genops.team", string("cx")),
            pair("genops.team", string("duplicate")),
            pair("gen_ai.system", string("openai")),
            pair("gen_ai.request.model", string("gpt-4o")),
            pair("gen_ai.usage.input_tokens", Value::IntValue(1000)),
            pair("gen_ai.usage.output_tokens", Value::DoubleValue(500.0)),
            pair("gen_ai.response.finish_reasons", list(&["stop", "length"])),
            pair("shape", Value::KvlistValue(KeyValueList { values: vec![pair("sides", Value::IntValue(3))] })),
            pair("raw", Value::BytesValue(vec![1, 2, 3])),
            pair("ok", Value::BoolValue(true)),
        ],
        events: vec![Event {
            time_unix_nano: 1_790_000_001_000_000_000,
            name: "genops.policy.evaluated".to_owned(),
            attributes: vec![pair("genops.policy.result", string("ALLOWED"))],
            ..Event::default()
        }],
        status: Some(Status { message: "fine".to_owned(), code: 1 }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { scope: scope(), spans: vec![span], ..Default::default() }];
    TracesData { resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, ..Default::default() }] }
}

const TRACES_JSON: &str = r#"
    {"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "bot"}}]},
      "scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": [{
        "traceId": "0102030405060708090A0B0C0D0E0F10", "spanId": "0000000000000002", "parentSpanId": "AAAAAAAAAAE=",
        "name": "chat gpt-4o", "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": "1790000000000000000", "end_time_unix_nano": 1790000001500000000,
        "attributes": [
          {"key": "genops.team", "value": {"stringValue": "cx"}},
          {"key": "genops.team", "value": {"stringValue": "duplicate"}},
          {"key": "gen_ai.system", "value": {"stringValue": "openai"}},
          {"key": "gen_ai.request.model", "value": {"string_value": "gpt-4o"}},
          {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1000"}},
          {"key": "gen_ai.usage.output_tokens", "value": {"doubleValue": 500}},
          {"key": "cost_usd", "value": {"doubleValue": {}}},
          {"key": "gen_ai.response.finish_reasons",
           "value": {"arrayValue": {"values": [{"stringValue": "stop"}, {"stringValue": "length"}]}}},
          {"key": "shape", "value": {"kvlistValue": {"values": [{"key": "sides", "value": {"intValue": 3}}]}}},
          {"key": "raw", "value": {"bytesValue": "AQID"}},
          {"key": "ok", "value": {"boolValue": "true"}}, null],
        "events": [{"timeUnixNano": 1790000001000000000, "name": "genops.policy.evaluated",
          "attributes": {"genops.policy.result": "ALLOWED"}}],
        "status": {"code": "STATUS_CODE_OK", "message": "fine"}, "unheardOf": [1]}]}]}]}"#;

pub(super) fn logs_message() -> LogsData {
    let log = LogRecord {
        time_unix_nano: 0,
        observed_time_unix_nano: 1_790_000_000_000_000_000,
        severity_number: 13,
        severity_text: "warn".to_owned(),
        body: Some(AnyValue { value: Some(string("a sentence")) }),
        attributes: vec![pair("team", string("cx")), pair("event.name", string("ignored"))],
        trace_id: vec![0; 16],
        event_name: "genops.policy.evaluated".to_owned(),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records: vec![log], ..Default::default() }];
    LogsData { resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, ..Default::default() }] }
}

const LOGS_JSON: &str = r#"{"resource_logs": [{"resource": {"attributes": {"service.name": "bot"}},
    "scope_logs": [{"scope": {"name": "lib", "version": 1}, "log_records": [{
      "time_unix_nano": "0", "observed_time_unix_nano": {"low": 603127808, "high": 416766852, "unsigned": true},
      "severity_number": 13, "severity_text": "warn", "body": {"stringValue": "a sentence"},
      "attributes": {"team": "cx", "event.name": "ignored"}, "eventName": "genops.policy.evaluated"}, null]}]}]}"#;

pub(super) fn metrics_message() -> MetricsData {
    let attributes = || vec![pair("gen_ai.request.model", string("m"))];
    let number = |value| NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1_790_000_000_000_000_000,
        time_unix_nano: 1_790_000_001_000_000_000,
        value: Some(value),
        ..Default::default()
    };
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        unit: "1".to_owned(),
        data: Some(data),
        ..Default::default()
    };
    let histogram = HistogramDataPoint {
        attributes: attributes(),
        time_unix_nano: 1_790_000_001_000_000_000,
        count: 4,
        sum: Some(10.0),
        min: Some(1.0),
        max: Some(4.0),
        ..Default::default()
    };
    let metrics = vec![
        metric("g", Data::Gauge(Gauge { data_points: vec![number(Number::AsInt(7))] })),
        metric(
            "s",
            Data::Sum(Sum {
                data_points: vec![number(Number::AsDouble(0.5))],
                aggregation_temporality: 1,
                is_monotonic: true,
            }),
        ),
        metric("h", Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 })),
    ];
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..Default::default() }];
    MetricsData {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() }],
    }
}

const METRICS_JSON: &str = r#"{"resourceMetrics": [{"resource": {"attributes": {"service.name": "bot"}},
    "scopeMetrics": [null, {"scope": {"name": "lib", "version": "1"}, "metrics": [
      {"name": "g", "unit": 1, "gauge": {"dataPoints": [{"attributes": {"gen_ai.request.model": "m"}, "asInt": "7",
        "startTimeUnixNano": "1790000000000000000", "timeUnixNano": "1790000001000000000"}]}},
      {"name": "s", "unit": "1", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
        "isMonotonic": true, "dataPoints": [{"attributes": {"gen_ai.request.model": "m"}, "asDouble": 0.5,
        "startTimeUnixNano": "1790000000000000000", "timeUnixNano": "1790000001000000000"}]}},
      {"name": "h", "unit": "1", "histogram": {"aggregation_temporality": 2, "data_points": [{
        "attributes": {"gen_ai.request.model": "m"}, "time_unix_nano": 1790000001000000000,
        "count": "4", "sum": 10, "min": 1, "max": 4.0}]}}]}]}]}"#;

#[track_caller]
fn check_equal(signal: Signal, protobuf: &[u8], json: &str) -> BTreeMap<Table, RecordBatch> {
    let (from_protobuf, from_json) = (absorb(signal, protobuf), absorb(signal, json.as_bytes()));
    for (table, batch) in &from_protobuf.1 {
        for column in batch.schema().fields() {
            let read = |batch: &RecordBatch| -> Vec<String> {
                (0..batch.num_rows()).map(|row| cell(batch, row, column.name())).collect()
            };
            assert_eq!(read(batch), read(&from_json.1[table]), "{} of {}", column.name(), table.name());
        }
    }
    assert_eq!(from_protobuf, from_json);
    from_protobuf.1
}

#[test]
fn traces_are_equal_in_both_encodings() {
    let batches = check_equal(Signal::Traces, &traces_message().encode_to_vec(), TRACES_JSON);
    check_row(
        &batches[&Table::Spans],
        0,
        &[
            ("event_time", "2026-09-21T14:13:21.500"),
            ("start_time", "2026-09-21T14:13:20"),
            ("trace_id", TRACE),
            ("span_id", "0000000000000002"),
            ("parent_span_id", "0000000000000001"),
            ("name", "chat gpt-4o"),
            ("kind", "CLIENT"),
            ("status_code", "OK"),
            ("status_message", "fine"),
            ("duration_ms", "1500.0"),
            ("latency_ms", "1500.0"),
            ("service_name", "bot"),
            ("scope_name", "lib"),
            ("team", "cx"),
            ("finish_reason", "stop,length"),
            ("cost_total", "0.0075"),
        ],
    );
    let event = [
        ("name", "genops.policy.evaluated"),
        ("event_time", "2026-09-21T14:13:21"),
        ("policy_result", "ALLOWED"),
        ("team", "cx"),
        ("input_tokens", ""),
    ];
    check_row(&batches[&Table::SpanEvents], 0, &event);
}

#[test]
fn logs_are_equal_in_both_encodings() {
    let batches = check_equal(Signal::Logs, &logs_message().encode_to_vec(), LOGS_JSON);
    let expected = [
        ("event_time", "2026-09-21T14:13:20"),
        ("body", "a sentence"),
        ("event_name", "genops.policy.evaluated"),
        ("trace_id", ""),
        ("team", "cx"),
    ];
    check_row(&batches[&Table::Logs], 0, &expected);
}

#[test]
fn metrics_are_equal_in_both_encodings() {
    let batches = check_equal(Signal::Metrics, &metrics_message().encode_to_vec(), METRICS_JSON);
    let batch = &batches[&Table::Metrics];
    assert_eq!(batch.num_rows(), 3);
    check_row(batch, 0, &[("metric_name", "g"), ("metric_type", "gauge"), ("value", "7.0"), ("unit", "1")]);
    check_row(batch, 0, &[("temporality", ""), ("is_monotonic", ""), ("request_model", "m")]);
    check_row(batch, 1, &[("value", "0.5"), ("temporality", "delta"), ("is_monotonic", "true"), ("count", "")]);
    check_row(batch, 2, &[("metric_type", "histogram"), ("value", ""), ("count", "4"), ("sum", "10.0")]);
    check_row(batch, 2, &[("min", "1.0"), ("max", "4.0"), ("temporality", "cumulative"), ("start_time", "")]);
}

#[test]
fn attribute_columns_hold_any_value_as_text() {
    let names = [
        "attr:shape",
        "attr:raw",
        "attr:ok",
        "attr:gen_ai.usage.output_tokens",
        "attr:service.name",
        "resource_attr:service.name",
        "resource_attr:ok",
        "attr:absent",
    ];
    let wanted = Wanted([(Table::Spans, names.map(str::to_owned).into())].into());
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::empty()));
    decoder.absorb(Signal::Traces, &traces_message().encode_to_vec(), META).unwrap();
    let (table, batch) = decoder.take().remove(0);
    assert_eq!(table, Table::Spans);
    let expected = [
        ("attr:shape", r#"{"sides":3}"#),
        ("attr:raw", "AQID"),
        ("attr:ok", "true"),
        ("attr:gen_ai.usage.output_tokens", "500"),
        ("attr:service.name", "bot"),
        ("resource_attr:service.name", "bot"),
        ("resource_attr:ok", ""),
        ("attr:absent", ""),
    ];
    check_row(&batch, 0, &expected);
}

#[test]
fn schema_is_that_of_the_table_restricted_to_the_wanted_columns() {
    let wanted = Wanted([(Table::Logs, ["team", "attr:x", "body"].map(str::to_owned).into())].into());
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::empty()));
    let schema = decoder.schema(Table::Logs).unwrap();
    let full = crate::tables::table_schema(Table::Logs, &["attr:x".to_owned()]);
    let kept: Vec<_> = full.fields().iter().filter(|f| schema.field_with_name(f.name()).is_ok()).cloned().collect();
    assert_eq!(schema.fields().to_vec(), kept);
    assert_eq!(schema.fields().len(), 9);
    assert!(decoder.schema(Table::Spans).is_none());
    decoder.absorb(Signal::Logs, &logs_message().encode_to_vec(), META).unwrap();
    assert_eq!(decoder.rows(Table::Logs), 1);
    assert_eq!(decoder.take()[0].1.schema(), schema);
    assert_eq!((decoder.rows(Table::Logs), decoder.take().len()), (0, 0));
}

#[test]
fn full_schema_equals_the_described_table() {
    let decoder = decoder();
    for table in Table::ALL {
        assert_eq!(decoder.schema(table).unwrap(), crate::tables::table_schema(table, &[]));
    }
}

#[test]
fn records_of_several_signals_fill_their_tables_side_by_side() {
    let mut decoder = decoder();
    decoder.absorb(Signal::Traces, &traces_message().encode_to_vec(), META).unwrap();
    decoder.absorb(Signal::Logs, &logs_message().encode_to_vec(), META).unwrap();
    decoder.absorb(Signal::Traces, TRACES_JSON.as_bytes(), META).unwrap();
    let rows: Vec<_> = decoder.take().into_iter().map(|(table, batch)| (table, batch.num_rows())).collect();
    assert_eq!(rows, [(Table::Spans, 2), (Table::SpanEvents, 2), (Table::Logs, 1)]);
}

#[test]
fn legacy_envelopes_are_read() {
    let record = json!({"batches": [null, {"instrumentationLibrarySpans": [null, {
        "instrumentationLibrary": {"name": "old"}, "spans": [null, span(1, 0, json!({}))]}]}]});
    check_row(&rows(Table::Spans, &record), 0, &[("scope_name", "old"), ("parent_span_id", "")]);
}
