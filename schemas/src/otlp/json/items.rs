//! Spans and log records of OTLP/JSON.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event};
use serde_json::Value as Json;

use super::scalar::{any_value, attributes, enumeration, id, unsigned};
use super::{Object, get, objects, text_of};

const TRACE_ID: &[&str] = &["traceId", "trace_id"];
const SPAN_ID: &[&str] = &["spanId", "span_id"];
const PARENT_SPAN_ID: &[&str] = &["parentSpanId", "parent_span_id"];
const TIME: &[&str] = &["timeUnixNano", "time_unix_nano"];
const KINDS: &[&str] = &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const STATUS_CODES: &[&str] = &["UNSET", "OK", "ERROR"];
const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

pub(super) fn span(object: &Object) -> Span {
    Span {
        trace_id: id(object, TRACE_ID, TRACE_ID_BYTES),
        span_id: id(object, SPAN_ID, SPAN_ID_BYTES),
        parent_span_id: id(object, PARENT_SPAN_ID, SPAN_ID_BYTES),
        trace_state: text_of(object, &["traceState", "trace_state"]),
        name: text_of(object, &["name"]),
        kind: enumeration(object, &["kind"], "SPAN_KIND_", KINDS),
        start_time_unix_nano: unsigned(object, &["startTimeUnixNano", "start_time_unix_nano"]),
        end_time_unix_nano: unsigned(object, &["endTimeUnixNano", "end_time_unix_nano"]),
        attributes: attributes(object),
        events: objects(object, &["events"]).map(event).collect(),
        status: get(object, &["status"]).and_then(Json::as_object).map(status),
        ..Span::default()
    }
}

fn event(object: &Object) -> Event {
    Event {
        time_unix_nano: unsigned(object, TIME),
        name: text_of(object, &["name"]),
        attributes: attributes(object),
        dropped_attributes_count: 0,
    }
}

fn status(object: &Object) -> Status {
    Status {
        message: text_of(object, &["message"]),
        code: enumeration(object, &["code"], "STATUS_CODE_", STATUS_CODES),
    }
}

pub(super) fn log(object: &Object) -> LogRecord {
    LogRecord {
        time_unix_nano: unsigned(object, TIME),
        observed_time_unix_nano: unsigned(object, &["observedTimeUnixNano", "observed_time_unix_nano"]),
        severity_number: severity(object),
        severity_text: text_of(object, &["severityText", "severity_text"]),
        body: get(object, &["body"]).map(|body| AnyValue { value: any_value(body) }),
        attributes: attributes(object),
        trace_id: id(object, TRACE_ID, TRACE_ID_BYTES),
        span_id: id(object, SPAN_ID, SPAN_ID_BYTES),
        event_name: text_of(object, &["eventName", "event_name"]),
        ..LogRecord::default()
    }
}

fn severity(object: &Object) -> i32 {
    let names = &["severityNumber", "severity_number"];
    let named = get(object, names).and_then(Json::as_str).and_then(SeverityNumber::from_str_name);
    named.map_or_else(|| enumeration(object, names, "", &[]), |severity| severity as i32)
}
