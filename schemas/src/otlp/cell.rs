//! One value on its way from an attribute to a column.
//!
//! Instrumentations write numbers as strings, lists as JSON text and nothing as `""`. Reading happens here, once per
//! candidate, so that a value that cannot be read counts as absent and the next source gets its turn.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde_json::{Map, Value as Json};

use crate::columns::vocabulary::is_placeholder;
use crate::columns::{Kind, Reading};
use crate::time::EventTime;

/// A value that borrows from the decoded record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Cell<'a> {
    #[default]
    Null,
    Str(&'a str),
    Id(&'a [u8]),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds since the Unix epoch, UTC.
    Time(i64),
    /// A list, a map or bytes: written as text only when it is appended.
    Any(&'a Value),
}

impl<'a> Cell<'a> {
    /// The text, or nothing if it is empty.
    pub(super) fn text(text: &'a str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Str(text) }
    }

    pub(super) fn float(value: Option<f64>) -> Self {
        value.map_or(Self::Null, Self::Float)
    }

    pub(super) fn int(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Int)
    }

    /// The instant, or nothing if it is zero or beyond the year 2262.
    pub(super) fn time(unix_nano: u64) -> Self {
        i64::try_from(unix_nano).ok().filter(|ns| *ns > 0).map_or(Self::Null, Self::Time)
    }

    pub(super) fn is_null(self) -> bool {
        self == Self::Null
    }

    pub(super) fn as_str(self) -> Option<&'a str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_int(self) -> Option<i64> {
        if let Self::Int(value) = self { Some(value) } else { None }
    }

    pub(super) fn as_float(self) -> Option<f64> {
        if let Self::Float(value) = self { Some(value) } else { None }
    }

    pub(super) fn as_time(self) -> Option<i64> {
        if let Self::Time(ns) = self { Some(ns) } else { None }
    }
}

/// What a source says of a column, if it says anything.
pub(crate) fn read<'a>(kind: Kind, reading: Reading, value: &'a Value) -> Option<Cell<'a>> {
    match reading {
        Reading::Plain | Reading::OfAgent => plain(kind, value),
        Reading::Scaled(factor) => number(value).map(|n| Cell::Float(n * factor)),
        Reading::JsonField(field) => json_number(value, field).and_then(|n| numeric(kind, n)),
        Reading::Mapped(function) => string(value).and_then(function).map(Cell::Str),
        Reading::HttpError => integer(value).filter(|status| *status >= 400).map(Cell::Int),
        Reading::FalseIsError => flag(value).filter(|succeeded| !succeeded).map(|_| Cell::Str("ERROR")),
        Reading::Rfc3339 => {
            let text = string(value)?.trim_matches('"');
            EventTime::from_rfc3339(text).ok().map(|at| Cell::Time(at.0))
        }
    }
}

fn plain(kind: Kind, value: &Value) -> Option<Cell<'_>> {
    match kind {
        Kind::Raw => raw(value),
        Kind::Text => scalar(value).filter(|cell| *cell != Cell::Str("")),
        Kind::List => list(value),
        Kind::Integer | Kind::Small => integer(value).map(Cell::Int),
        Kind::Number => number(value).map(Cell::Float),
        Kind::Flag => flag(value).map(Cell::Bool),
        Kind::Instant => integer(value).map(|ms| Cell::Time(EventTime::from_ms(ms).0)),
        Kind::Id => None,
        Kind::Label | Kind::Lower | Kind::Provider | Kind::OperationType | Kind::ToolName | Kind::PolicyResult => {
            match scalar(value)? {
                Cell::Str(text) => Some(text.trim()).filter(|text| !is_placeholder(text)).map(Cell::Str),
                cell => Some(cell),
            }
        }
    }
}

fn numeric<'a>(kind: Kind, number: f64) -> Option<Cell<'a>> {
    match kind {
        Kind::Integer => whole(number).map(Cell::Int),
        _ => Some(Cell::Float(number)),
    }
}

/// References into a profile's string table have no meaning in these signals and count as absent.
fn raw(value: &Value) -> Option<Cell<'_>> {
    match value {
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) => Some(Cell::Any(value)),
        _ => scalar(value),
    }
}

fn scalar(value: &Value) -> Option<Cell<'_>> {
    match value {
        Value::StringValue(text) => Some(Cell::Str(text)),
        Value::IntValue(n) => Some(Cell::Int(*n)),
        Value::DoubleValue(n) => Some(Cell::Float(*n)),
        Value::BoolValue(b) => Some(Cell::Bool(*b)),
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) | Value::StringValueStrindex(_) => None,
    }
}

fn list(value: &Value) -> Option<Cell<'_>> {
    match value {
        Value::ArrayValue(array) if array.values.is_empty() => None,
        Value::ArrayValue(_) => Some(Cell::Any(value)),
        Value::StringValue(text) if matches!(text.trim(), "" | "[]") => None,
        _ => scalar(value),
    }
}

fn string(value: &Value) -> Option<&str> {
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

fn number(value: &Value) -> Option<f64> {
    let n = match value {
        Value::IntValue(n) => *n as f64,
        Value::DoubleValue(n) => *n,
        Value::StringValue(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    n.is_finite().then_some(n)
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::IntValue(n) => Some(*n),
        Value::DoubleValue(n) => whole(*n),
        Value::StringValue(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| whole(text.parse().ok()?))
        }
        _ => None,
    }
}

/// The whole part of a float that has one in the range of `i64`.
fn whole(n: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked, the fraction is meant to go")]
    (n.is_finite() && n.abs() < 9.2e18).then_some(n as i64)
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::BoolValue(b) => Some(*b),
        Value::StringValue(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::StringValue(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn json_number(value: &Value, field: &str) -> Option<f64> {
    match value {
        Value::StringValue(text) => {
            let object: Map<String, Json> = serde_json::from_str(text).ok()?;
            let found = object.get(field)?;
            found.as_f64().or_else(|| found.as_str()?.trim().parse().ok()).filter(|n| n.is_finite())
        }
        Value::KvlistValue(pairs) => {
            let pair = pairs.values.iter().find(|pair| pair.key == field)?;
            number(pair.value.as_ref()?.value.as_ref()?)
        }
        _ => None,
    }
}

/// Writes several reasons, given as an array or as its JSON text, joined by commas.
pub(crate) fn write_list(out: &mut String, cell: Cell<'_>) {
    let parts: Vec<Cow<'_, str>> = match cell {
        Cell::Any(Value::ArrayValue(array)) => array.values.iter().filter_map(element).collect(),
        Cell::Str(text) if text.trim_start().starts_with('[') => match serde_json::from_str::<Vec<String>>(text) {
            Ok(parts) => parts.into_iter().map(Cow::Owned).collect(),
            Err(_) => vec![Cow::Borrowed(text)],
        },
        other => return write_text(out, other),
    };
    out.push_str(&parts.join(","));
}

fn element(value: &AnyValue) -> Option<Cow<'_, str>> {
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(to_json(other).to_string())),
    }
}

/// Writes a cell as text: numbers in decimal, ids in hex, instants as RFC 3339, lists and maps as JSON.
pub(crate) fn write_text(out: &mut String, cell: Cell<'_>) {
    let written = match cell {
        Cell::Null => Ok(()),
        Cell::Str(text) => out.write_str(text),
        Cell::Id(bytes) => bytes.iter().try_for_each(|b| write!(out, "{b:02x}")),
        Cell::Int(n) => write!(out, "{n}"),
        Cell::Float(n) => write!(out, "{n}"),
        Cell::Bool(b) => write!(out, "{b}"),
        Cell::Time(ns) => write!(out, "{}", EventTime(ns)),
        Cell::Any(Value::BytesValue(bytes)) => out.write_str(&STANDARD.encode(bytes)),
        Cell::Any(value) => write!(out, "{}", to_json(value)),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::StringValue(text) => Json::from(text.as_str()),
        Value::BoolValue(b) => Json::from(*b),
        Value::IntValue(n) => Json::from(*n),
        Value::DoubleValue(n) => Json::from(*n),
        Value::BytesValue(bytes) => Json::from(STANDARD.encode(bytes)),
        Value::ArrayValue(array) => array.values.iter().map(any_to_json).collect(),
        Value::KvlistValue(pairs) => Json::Object(pairs.values.iter().map(pair_to_json).collect()),
        Value::StringValueStrindex(_) => Json::Null,
    }
}

fn pair_to_json(pair: &KeyValue) -> (String, Json) {
    (pair.key.clone(), pair.value.as_ref().map_or(Json::Null, any_to_json))
}

fn any_to_json(value: &AnyValue) -> Json {
    value.value.as_ref().map_or(Json::Null, to_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::StringValue(value.to_owned())
    }

    #[test]
    fn numbers_are_read_from_strings_and_nonsense_is_absent() {
        assert_eq!(read(Kind::Integer, Reading::Plain, &text(" 12 ")), Some(Cell::Int(12)));
        assert_eq!(read(Kind::Integer, Reading::Plain, &text("12.0")), Some(Cell::Int(12)));
        assert_eq!(read(Kind::Integer, Reading::Plain, &Value::DoubleValue(f64::NAN)), None);
        assert_eq!(read(Kind::Integer, Reading::Plain, &Value::DoubleValue(1e300)), None);
        assert_eq!(read(Kind::Number, Reading::Plain, &text("0.25")), Some(Cell::Float(0.25)));
        assert_eq!(read(Kind::Number, Reading::Plain, &text("inf")), None);
        assert_eq!(read(Kind::Number, Reading::Plain, &text("free")), None);
        assert_eq!(read(Kind::Flag, Reading::Plain, &text("True")), Some(Cell::Bool(true)));
        assert_eq!(read(Kind::Flag, Reading::Plain, &text("yes")), None);
    }

    #[test]
    fn placeholders_are_absent_for_labels_only() {
        for word in ["", "  ", "Unknown", "N/A", "default"] {
            assert_eq!(read(Kind::Label, Reading::Plain, &text(word)), None, "{word}");
        }
        assert_eq!(read(Kind::Label, Reading::Plain, &text(" cx ")), Some(Cell::Str("cx")));
        assert_eq!(read(Kind::Text, Reading::Plain, &text("default")), Some(Cell::Str("default")));
        assert_eq!(read(Kind::Raw, Reading::Plain, &text("")), Some(Cell::Str("")));
    }

    #[test]
    fn http_status_is_an_error_type_from_400_on() {
        assert_eq!(read(Kind::Label, Reading::HttpError, &Value::IntValue(399)), None);
        assert_eq!(read(Kind::Label, Reading::HttpError, &text("429")), Some(Cell::Int(429)));
    }

    #[test]
    fn lists_are_joined_whatever_their_form() {
        let joined = |cell| {
            let mut out = String::new();
            write_list(&mut out, cell);
            out
        };
        assert_eq!(joined(Cell::Str(r#"["stop","length"]"#)), "stop,length");
        assert_eq!(joined(Cell::Str("stop")), "stop");
        assert_eq!(joined(Cell::Str("[broken")), "[broken");
    }
}
