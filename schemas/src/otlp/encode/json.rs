//! OTLP messages as OTLP/JSON: hex ids, enums as numbers, 64-bit integers as text, as the protocol asks for.
//!
//! Only the fields that drafts can fill are written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, MetricsData, NumberDataPoint, ScopeMetrics, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, TracesData};
use serde_json::{Value, json};

/// A traces message.
pub(super) fn traces(data: &TracesData) -> Value {
    let in_scope = |s: &ScopeSpans| json!({"scope": scope(s.scope.as_ref()), "spans": list(&s.spans, span)});
    json!({"resourceSpans": list(&data.resource_spans, |batch| {
        json!({"resource": resource(batch.resource.as_ref()), "scopeSpans": list(&batch.scope_spans, in_scope)})
    })})
}

/// A logs message.
pub(super) fn logs(data: &LogsData) -> Value {
    let in_scope =
        |s: &ScopeLogs| json!({"scope": scope(s.scope.as_ref()), "logRecords": list(&s.log_records, log_record)});
    json!({"resourceLogs": list(&data.resource_logs, |batch| {
        json!({"resource": resource(batch.resource.as_ref()), "scopeLogs": list(&batch.scope_logs, in_scope)})
    })})
}

/// A metrics message.
pub(super) fn metrics(data: &MetricsData) -> Value {
    let in_scope = |s: &ScopeMetrics| json!({"scope": scope(s.scope.as_ref()), "metrics": list(&s.metrics, metric)});
    json!({"resourceMetrics": list(&data.resource_metrics, |batch| {
        json!({"resource": resource(batch.resource.as_ref()), "scopeMetrics": list(&batch.scope_metrics, in_scope)})
    })})
}

fn span(span: &Span) -> Value {
    let status = span.status.as_ref();
    let mut value = json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "events": list(&span.events, |event| json!({
            "timeUnixNano": event.time_unix_nano.to_string(),
            "name": event.name,
            "attributes": attributes(&event.attributes),
        })),
        "status": {
            "message": status.map(|s| s.message.as_str()).unwrap_or_default(),
            "code": status.map_or(0, |s| s.code),
        },
    });
    if !span.trace_state.is_empty() {
        value["traceState"] = json!(span.trace_state);
    }
    value
}

fn log_record(record: &LogRecord) -> Value {
    let mut value = json!({
        "timeUnixNano": record.time_unix_nano.to_string(),
        "observedTimeUnixNano": record.observed_time_unix_nano.to_string(),
        "severityNumber": record.severity_number,
        "severityText": record.severity_text,
        "attributes": attributes(&record.attributes),
        "traceId": hex(&record.trace_id),
        "spanId": hex(&record.span_id),
        "eventName": record.event_name,
    });
    if let Some(body) = &record.body {
        value["body"] = any_value(body);
    }
    value
}

fn metric(metric: &Metric) -> Value {
    let mut value = json!({"name": metric.name, "unit": metric.unit});
    match &metric.data {
        Some(Data::Gauge(gauge)) => value["gauge"] = json!({"dataPoints": list(&gauge.data_points, number_point)}),
        Some(Data::Sum(sum)) => {
            value["sum"] = json!({
                "dataPoints": list(&sum.data_points, number_point),
                "aggregationTemporality": sum.aggregation_temporality,
                "isMonotonic": sum.is_monotonic,
            });
        }
        Some(Data::Histogram(histogram)) => {
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano);
                distribution_point(&p.attributes, times, p.count, [("sum", p.sum), ("min", p.min), ("max", p.max)])
            };
            let temporality = histogram.aggregation_temporality;
            value["histogram"] =
                json!({"dataPoints": list(&histogram.data_points, point), "aggregationTemporality": temporality});
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano);
                distribution_point(&p.attributes, times, p.count, [("sum", p.sum), ("min", p.min), ("max", p.max)])
            };
            let temporality = histogram.aggregation_temporality;
            value["exponentialHistogram"] =
                json!({"dataPoints": list(&histogram.data_points, point), "aggregationTemporality": temporality});
        }
        Some(Data::Summary(summary)) => {
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::SummaryDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano);
                distribution_point(&p.attributes, times, p.count, [("sum", Some(p.sum)), ("min", None), ("max", None)])
            };
            value["summary"] = json!({"dataPoints": list(&summary.data_points, point)});
        }
        None => {}
    }
    value
}

fn number_point(point: &NumberDataPoint) -> Value {
    let mut value = json!({
        "attributes": attributes(&point.attributes),
        "startTimeUnixNano": point.start_time_unix_nano.to_string(),
        "timeUnixNano": point.time_unix_nano.to_string(),
    });
    match point.value {
        Some(number_data_point::Value::AsDouble(number)) => value["asDouble"] = json!(number),
        Some(number_data_point::Value::AsInt(number)) => value["asInt"] = json!(number.to_string()),
        None => {}
    }
    value
}

fn distribution_point(
    of_point: &[KeyValue],
    (start, time): (u64, u64),
    count: u64,
    numbers: [(&str, Option<f64>); 3],
) -> Value {
    let mut value = json!({
        "attributes": attributes(of_point),
        "startTimeUnixNano": start.to_string(),
        "timeUnixNano": time.to_string(),
        "count": count.to_string(),
    });
    for (name, number) in numbers {
        if let Some(number) = number {
            value[name] = json!(number);
        }
    }
    value
}

fn resource(resource: Option<&Resource>) -> Value {
    json!({"attributes": attributes(resource.map(|r| r.attributes.as_slice()).unwrap_or_default())})
}

fn scope(scope: Option<&InstrumentationScope>) -> Value {
    json!({
        "name": scope.map(|s| s.name.as_str()).unwrap_or_default(),
        "version": scope.map(|s| s.version.as_str()).unwrap_or_default(),
    })
}

fn attributes(attributes: &[KeyValue]) -> Value {
    list(attributes, |attribute| {
        let value = attribute.value.as_ref().map_or_else(|| json!({}), any_value);
        json!({"key": attribute.key, "value": value})
    })
}

fn any_value(value: &AnyValue) -> Value {
    match &value.value {
        Some(Any::StringValue(text)) => json!({"stringValue": text}),
        Some(Any::BoolValue(flag)) => json!({"boolValue": flag}),
        Some(Any::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Any::DoubleValue(number)) => json!({"doubleValue": number}),
        Some(Any::BytesValue(bytes)) => json!({"bytesValue": STANDARD.encode(bytes)}),
        Some(Any::ArrayValue(array)) => json!({"arrayValue": {"values": list(&array.values, any_value)}}),
        Some(Any::KvlistValue(fields)) => json!({"kvlistValue": {"values": attributes(&fields.values)}}),
        Some(Any::StringValueStrindex(_)) | None => json!({}),
    }
}

fn list<T>(items: &[T], to_value: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(to_value).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
