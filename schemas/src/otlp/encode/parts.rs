//! One draft taken apart: what OTLP has a field for, what is an attribute, what belongs to the resource or scope.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use serde_json::Value;

use super::RowDraft;
use crate::columns::{self, ColumnSpec, Derivation, Kind, Reading, Source};
use crate::genops::closest;
use crate::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX, Table, describe};
use crate::time::{EventTime, NANOS_PER_MS};

/// A draft's columns, by the place they have in OTLP.
pub(super) struct Parts<'a> {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) resource: Vec<KeyValue>,
    pub(super) scope: InstrumentationScope,
    fields: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(draft: &'a RowDraft) -> Result<Self, String> {
        let mut parts = Self {
            attributes: Vec::new(),
            resource: Vec::new(),
            scope: InstrumentationScope::default(),
            fields: BTreeMap::new(),
        };
        for (name, value) in draft.columns.iter().filter(|(_, value)| !value.is_null()) {
            parts.place(draft.table, name, value).map_err(|error| format!("column `{name}`: {error}"))?;
        }
        parts.scope.name = parts.text("scope_name")?.unwrap_or_default();
        parts.scope.version = parts.text("scope_version")?.unwrap_or_default();
        Ok(parts)
    }

    fn place(&mut self, table: Table, name: &'a str, value: &'a Value) -> Result<(), String> {
        if let Some(attribute) = name.strip_prefix(RESOURCE_ATTR_PREFIX) {
            self.resource.push(key_value(attribute, any(value)));
        } else if let Some(attribute) = name.strip_prefix(ATTR_PREFIX) {
            self.attributes.push(key_value(attribute, any(value)));
        } else if let Some(spec) = columns::of(table).find(|spec| spec.name == name) {
            self.place_canonical(table, spec, value)?;
        } else if name.starts_with("kafka_") || name == "event_time" {
            return Err("comes from the record, not from the row".to_owned());
        } else if table.own_columns().any(|column| column.name == name) {
            self.fields.insert(name, value);
        } else {
            return Err(unknown(table, name));
        }
        Ok(())
    }

    fn place_canonical(&mut self, table: Table, spec: &'static ColumnSpec, value: &'a Value) -> Result<(), String> {
        // OTLP has a field for these, and the decoder looks there first.
        let has_field = match spec.derivation {
            Derivation::StatusCode | Derivation::EventName => true,
            Derivation::LatencyMs => table == Table::Spans,
            _ => false,
        };
        if has_field {
            self.fields.insert(spec.name, value);
            return Ok(());
        }
        let is_writable = |source: &&Source| matches!(source.reading, Reading::Plain | Reading::Scaled(_));
        let source = spec.sources.iter().find(is_writable);
        let source = source.ok_or_else(|| "is computed from other columns and cannot be set".to_owned())?;
        let attribute = key_value(source.attribute, canonical(spec.kind, source.reading, value)?);
        if source.resource_only {
            self.resource.push(attribute)
        } else {
            self.attributes.push(attribute)
        }
        Ok(())
    }

    /// The field `name` as text; numbers are written out.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        text(value).map(Some).ok_or_else(|| wrong(name, "text", value))
    }

    /// The field `name` as a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| wrong(name, "a number", value))
    }

    /// The field `name` as a whole number that is not negative.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| wrong(name, "a whole number", value))
    }

    /// The field `name` as a boolean.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(name, "true or false", value))
    }

    /// The field `name` as an instant, in nanoseconds since the Unix epoch.
    pub(super) fn instant(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        let at = instant(value).ok_or_else(|| wrong(name, "an RFC 3339 instant or nanoseconds", value))?;
        unix_nanos(at).map(Some)
    }

    /// The field `name` as an id of `bytes` bytes.
    pub(super) fn id(&self, name: &str, bytes: usize) -> Result<Option<Vec<u8>>, String> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        let hex = value.as_str().filter(|hex| hex.len() == 2 * bytes && hex.bytes().all(|c| c.is_ascii_hexdigit()));
        let hex = hex.ok_or_else(|| wrong(name, &format!("{} hex digits", 2 * bytes), value))?;
        Ok(Some((0..bytes).filter_map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect()))
    }
}

/// An instant as OTLP writes it.
pub(super) fn unix_nanos(at: EventTime) -> Result<u64, String> {
    u64::try_from(at.0).map_err(|_| format!("{at} is before 1970, which OTLP cannot write"))
}

fn key_value(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A JSON value as an attribute of the same type.
pub(super) fn any(value: &Value) -> Any {
    let nested = |value: &Value| AnyValue { value: (!value.is_null()).then(|| any(value)) };
    match value {
        Value::Null => Any::StringValue(String::new()),
        Value::Bool(flag) => Any::BoolValue(*flag),
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Any::IntValue(whole),
            None => Any::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Array(values) => Any::ArrayValue(ArrayValue { values: values.iter().map(nested).collect() }),
        Value::Object(fields) => Any::KvlistValue(KeyValueList {
            values: fields
                .iter()
                .map(|(key, value)| KeyValue { key: key.clone(), value: Some(nested(value)), ..KeyValue::default() })
                .collect(),
        }),
    }
}

/// The attribute value from which the decoder reads `value` back.
fn canonical(kind: Kind, reading: Reading, value: &Value) -> Result<Any, String> {
    let expected = |what: &str| format!("expected {what}, found {value}");
    Ok(match kind {
        Kind::Integer | Kind::Small => Any::IntValue(whole(value).ok_or_else(|| expected("a whole number"))?),
        Kind::Number => {
            let number = value.as_f64().ok_or_else(|| expected("a number"))?;
            Any::DoubleValue(if let Reading::Scaled(factor) = reading { number / factor } else { number })
        }
        Kind::Flag => Any::BoolValue(value.as_bool().ok_or_else(|| expected("true or false"))?),
        Kind::Instant => {
            let at = instant(value).ok_or_else(|| expected("an RFC 3339 instant or nanoseconds"))?;
            Any::IntValue(at.0.div_euclid(NANOS_PER_MS))
        }
        Kind::List => {
            let text = text(value).ok_or_else(|| expected("text"))?;
            let values = text.split(',').map(|part| AnyValue { value: Some(Any::StringValue(part.to_owned())) });
            Any::ArrayValue(ArrayValue { values: values.collect() })
        }
        _ => Any::StringValue(text(value).ok_or_else(|| expected("text"))?),
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number, also where YAML or a computation has made a float of it.
fn whole(value: &Value) -> Option<i64> {
    // 2^53: beyond it a float does not say which whole number it was.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let of_float = |number: f64| (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number);
    value.as_i64().or_else(|| of_float(value.as_f64()?).and_then(|number| format!("{number:.0}").parse().ok()))
}

fn instant(value: &Value) -> Option<EventTime> {
    match value {
        Value::String(text) => EventTime::from_rfc3339(text).ok(),
        _ => value.as_i64().map(EventTime),
    }
}

fn wrong(name: &str, expected: &str, found: &Value) -> String {
    format!("column `{name}`: expected {expected}, found {found}")
}

fn unknown(table: Table, name: &str) -> String {
    let names: Vec<&str> = describe(table).iter().map(|column| column.name).collect();
    let hint = closest(name, &names).map_or_else(
        || format!("write `{ATTR_PREFIX}{name}` for an attribute of that name"),
        |near| format!("did you mean `{near}`? (an attribute is written `{ATTR_PREFIX}{name}`)"),
    );
    format!("does not exist in `{}`: {hint}", table.name())
}
