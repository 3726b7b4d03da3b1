//! Events of koshi-runtime: JSON lines on its standard output.
//!
//! A collector that follows them sends log records whose body is the line, or the map that was parsed from it. The
//! members become attributes of the record, behind its own, so that columns and `attr()` read them as they read
//! attributes; the body stays as it is. Whatever else has a body is left alone after a look at its beginning.
//!
//! Which members are which columns is in the catalogue, as it is for everybody's attributes: records whose members are
//! attributes already are read there without this.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData};
use serde_json::{Map, Value as Json};

use crate::time::EventTime;

/// What `msg` says in each of them.
const EVENT: &str = "koshi event";

/// `msg` is the third member, and lines without a stack trace have some 300 bytes: beyond this it is not looked for.
const HEAD_BYTES_MAX: usize = 1024;

/// `level` as `log/slog` writes it, and OpenTelemetry's severity.
const LEVELS: [(&str, i32); 3] = [("INFO", 9), ("WARN", 13), ("ERROR", 17)];

/// Gives log records the attributes that their bodies are, where these are koshi's events.
pub(super) fn unfold(data: &mut LogsData) {
    let scopes = data.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
    for log in scopes.flat_map(|scope| &mut scope.log_records) {
        if let Some(members) = log.body.as_ref().and_then(|body| members(body.value.as_ref()?)) {
            take_over(log, members);
        }
    }
}

/// The members of a body that is an event; none if it is anything else.
fn members(body: &Value) -> Option<Vec<KeyValue>> {
    let members: Vec<KeyValue> = match body {
        Value::StringValue(line) if may_be_event(line) => {
            let object: Map<String, Json> = serde_json::from_str(line).ok()?;
            object.into_iter().filter_map(|(key, value)| pair(key, value)).collect()
        }
        Value::KvlistValue(map) if text(&map.values, "msg") == Some(EVENT) => map.values.clone(),
        _ => return None,
    };
    (text(&members, "msg") == Some(EVENT)).then_some(members)
}

fn may_be_event(line: &str) -> bool {
    line.starts_with('{') && line[..line.floor_char_boundary(HEAD_BYTES_MAX)].contains(EVENT)
}

/// Members that are lists, objects or null have no attribute; koshi writes none.
fn pair(key: String, value: Json) -> Option<KeyValue> {
    let value = match value {
        Json::String(text) => Value::StringValue(text),
        Json::Bool(flag) => Value::BoolValue(flag),
        Json::Number(n) => n.as_i64().map(Value::IntValue).or_else(|| n.as_f64().map(Value::DoubleValue))?,
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    };
    Some(KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() })
}

fn text<'a>(members: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let member = members.iter().find(|member| member.key == key)?;
    match member.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// What the record says itself counts for more.
fn take_over(log: &mut LogRecord, members: Vec<KeyValue>) {
    if log.time_unix_nano == 0
        && let Some(at) = text(&members, "time").and_then(|time| EventTime::from_rfc3339(time).ok())
    {
        log.time_unix_nano = u64::try_from(at.0).unwrap_or_default();
    }
    let level = text(&members, "level").and_then(|level| LEVELS.iter().find(|(word, _)| *word == level));
    if log.severity_number == 0
        && log.severity_text.is_empty()
        && let Some((word, number)) = level
    {
        (log.severity_text, log.severity_number) = ((*word).to_owned(), *number);
    }
    for member in members {
        if log.attributes.iter().all(|own| own.key != member.key) {
            log.attributes.push(member);
        }
    }
}
