//! One value on its way from an attribute to a column.
//!
//! Instrumentations write numbers as strings, lists as JSON text and nothing as `""`. Reading happens here, once per
//! candidate, so that a value that cannot be read counts as absent and the next source gets its turn.

use std::borrow::Cow;
use std::fmt::Write;
use std::mem;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::value::{Nested, Value, elements};
use super::walk::texts;
use crate::columns::vocabulary::{is_placeholder, trimmed};
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
    /// Written as base64.
    Bytes(&'a [u8]),
    /// A list or a map: written as text only when it is appended.
    Nested(Nested<'a>),
}

impl<'a> Cell<'a> {
    /// The text, or nothing if it is empty.
    #[inline]
    pub(super) fn text(text: &'a str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Str(text) }
    }

    #[inline]
    pub(super) fn float(value: Option<f64>) -> Self {
        value.map_or(Self::Null, Self::Float)
    }

    #[inline]
    pub(super) fn int(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Int)
    }

    /// The instant, or nothing if it is zero or beyond the year 2262.
    #[inline]
    pub(super) fn time(unix_nano: u64) -> Self {
        i64::try_from(unix_nano).ok().filter(|ns| *ns > 0).map_or(Self::Null, Self::Time)
    }

    #[inline]
    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    #[inline]
    pub(super) fn as_str(self) -> Option<&'a str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    #[inline]
    pub(super) fn as_int(self) -> Option<i64> {
        if let Self::Int(value) = self { Some(value) } else { None }
    }

    #[inline]
    pub(super) fn as_float(self) -> Option<f64> {
        if let Self::Float(value) = self { Some(value) } else { None }
    }

    #[inline]
    pub(super) fn as_bool(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    #[inline]
    pub(super) fn as_time(self) -> Option<i64> {
        if let Self::Time(ns) = self { Some(ns) } else { None }
    }
}

/// What a source says of a column, if it says anything.
pub(crate) fn read(kind: Kind, reading: Reading, value: Value<'_>) -> Option<Cell<'_>> {
    let mut cell = Cell::Null;
    read_into(&mut cell, kind, reading, value).then_some(cell)
}

/// Puts into `place` what a source says of a column, and whether it says anything.
///
/// The usual values go straight to their place: put together first and then copied, they would be waited for.
#[inline]
pub(super) fn read_into<'a>(place: &mut Cell<'a>, kind: Kind, reading: Reading, value: Value<'a>) -> bool {
    match (reading, kind, value) {
        (
            Reading::Plain,
            Kind::Label | Kind::Lower | Kind::Provider | Kind::OperationType | Kind::ToolName | Kind::PolicyResult,
            Value::Str(text),
        ) => match label(text) {
            Some(text) => *place = Cell::Str(text),
            None => return false,
        },
        (Reading::Plain, Kind::Integer | Kind::Small, Value::Int(n)) => *place = Cell::Int(n),
        (Reading::Plain, Kind::Number, Value::Float(n)) if n.is_finite() => *place = Cell::Float(n),
        _ => match interpret(kind, reading, value) {
            Some(cell) => *place = cell,
            None => return false,
        },
    }
    true
}

fn interpret(kind: Kind, reading: Reading, value: Value<'_>) -> Option<Cell<'_>> {
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

fn plain(kind: Kind, value: Value<'_>) -> Option<Cell<'_>> {
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
                Cell::Str(text) => label(text).map(Cell::Str),
                cell => Some(cell),
            }
        }
    }
}

/// Trimmed text that says something.
#[inline]
fn label(text: &str) -> Option<&str> {
    Some(trimmed(text)).filter(|text| !is_placeholder(text))
}

fn numeric<'a>(kind: Kind, number: f64) -> Option<Cell<'a>> {
    match kind {
        Kind::Integer => whole(number).map(Cell::Int),
        _ => Some(Cell::Float(number)),
    }
}

fn raw(value: Value<'_>) -> Option<Cell<'_>> {
    match value {
        Value::Bytes(bytes) => Some(Cell::Bytes(bytes)),
        Value::Nested(nested) => Some(Cell::Nested(nested)),
        _ => scalar(value),
    }
}

fn scalar(value: Value<'_>) -> Option<Cell<'_>> {
    match value {
        Value::Str(text) => Some(Cell::Str(text)),
        Value::Int(n) => Some(Cell::Int(n)),
        Value::Float(n) => Some(Cell::Float(n)),
        Value::Bool(b) => Some(Cell::Bool(b)),
        Value::Bytes(_) | Value::Nested(_) => None,
    }
}

fn list(value: Value<'_>) -> Option<Cell<'_>> {
    match value {
        Value::Nested(nested) => (nested.is_list() && !nested.is_empty()).then_some(Cell::Nested(nested)),
        Value::Str(text) if matches!(text.trim(), "" | "[]") => None,
        _ => scalar(value),
    }
}

fn string(value: Value<'_>) -> Option<&str> {
    if let Value::Str(text) = value { Some(text) } else { None }
}

fn number(value: Value<'_>) -> Option<f64> {
    let n = match value {
        Value::Int(n) => n as f64,
        Value::Float(n) => n,
        Value::Str(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    n.is_finite().then_some(n)
}

fn integer(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(n) => Some(n),
        Value::Float(n) => whole(n),
        Value::Str(text) => {
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

fn flag(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(b),
        Value::Str(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::Str(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn json_number(value: Value<'_>, field: &str) -> Option<f64> {
    match value {
        Value::Str(text) => {
            let object: Map<String, Json> = serde_json::from_str(text).ok()?;
            let found = object.get(field)?;
            found.as_f64().or_else(|| found.as_str()?.trim().parse().ok()).filter(|n| n.is_finite())
        }
        Value::Nested(nested) => nested.with_member(field, |member| number(member?)),
        _ => None,
    }
}

/// Writes several reasons, given as an array or as its JSON text, joined by commas.
pub(crate) fn write_list(out: &mut String, cell: Cell<'_>) {
    if let Cell::Nested(Nested::List(bytes)) = cell {
        let (before, mut separator) = (out.len(), "");
        let join = |text: &str| {
            out.push_str(mem::replace(&mut separator, ","));
            out.push_str(text);
        };
        if texts(bytes, join).is_some() {
            return;
        }
        out.truncate(before);
    }
    let parts: Vec<Cow<'_, str>> = match cell {
        Cell::Nested(nested) if nested.is_list() => elements(nested).into_iter().map(Cow::Owned).collect(),
        Cell::Str(text) if text.trim_start().starts_with('[') => match serde_json::from_str::<Vec<String>>(text) {
            Ok(parts) => parts.into_iter().map(Cow::Owned).collect(),
            Err(_) => vec![Cow::Borrowed(text)],
        },
        other => return write_text(out, other),
    };
    out.push_str(&parts.join(","));
}

/// Writes a cell as text: numbers in decimal, ids in hex, instants as RFC 3339, lists and maps as JSON.
pub(crate) fn write_text(out: &mut String, cell: Cell<'_>) {
    let written = match cell {
        Cell::Null => Ok(()),
        Cell::Str(text) => out.write_str(text),
        Cell::Id(bytes) => {
            write_hex(out, bytes);
            Ok(())
        }
        Cell::Int(n) => write!(out, "{n}"),
        Cell::Float(n) => write!(out, "{n}"),
        Cell::Bool(b) => write!(out, "{b}"),
        Cell::Time(ns) => write!(out, "{}", EventTime(ns)),
        Cell::Bytes(bytes) => out.write_str(&STANDARD.encode(bytes)),
        Cell::Nested(nested) => write!(out, "{}", nested.to_json()),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// Every row has identifiers, and the formatter is slow.
fn write_hex(out: &mut String, bytes: &[u8]) {
    /// Text that lies so is checked in words from its first byte on.
    #[repr(align(16))]
    struct Digits([u8; 32]);

    for bytes in bytes.chunks(16) {
        let mut digits = Digits([0; 32]);
        for (at, byte) in bytes.iter().enumerate() {
            digits.0[2 * at] = digit(byte >> 4);
            digits.0[2 * at + 1] = digit(byte & 0xf);
        }
        out.push_str(str::from_utf8(&digits.0[..2 * bytes.len()]).unwrap_or_default());
    }
}

#[inline]
fn digit(nibble: u8) -> u8 {
    nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value<'_> {
        Value::Str(value)
    }

    #[test]
    fn numbers_are_read_from_strings_and_nonsense_is_absent() {
        assert_eq!(read(Kind::Integer, Reading::Plain, text(" 12 ")), Some(Cell::Int(12)));
        assert_eq!(read(Kind::Integer, Reading::Plain, text("12.0")), Some(Cell::Int(12)));
        assert_eq!(read(Kind::Integer, Reading::Plain, Value::Float(f64::NAN)), None);
        assert_eq!(read(Kind::Integer, Reading::Plain, Value::Float(1e300)), None);
        assert_eq!(read(Kind::Number, Reading::Plain, text("0.25")), Some(Cell::Float(0.25)));
        assert_eq!(read(Kind::Number, Reading::Plain, text("inf")), None);
        assert_eq!(read(Kind::Number, Reading::Plain, text("free")), None);
        assert_eq!(read(Kind::Flag, Reading::Plain, text("True")), Some(Cell::Bool(true)));
        assert_eq!(read(Kind::Flag, Reading::Plain, text("yes")), None);
    }

    #[test]
    fn placeholders_are_absent_for_labels_only() {
        for word in ["", "  ", "Unknown", "N/A", "default"] {
            assert_eq!(read(Kind::Label, Reading::Plain, text(word)), None, "{word}");
        }
        assert_eq!(read(Kind::Label, Reading::Plain, text(" cx ")), Some(Cell::Str("cx")));
        assert_eq!(read(Kind::Text, Reading::Plain, text("default")), Some(Cell::Str("default")));
        assert_eq!(read(Kind::Raw, Reading::Plain, text("")), Some(Cell::Str("")));
    }

    #[test]
    fn http_status_is_an_error_type_from_400_on() {
        assert_eq!(read(Kind::Label, Reading::HttpError, Value::Int(399)), None);
        assert_eq!(read(Kind::Label, Reading::HttpError, text("429")), Some(Cell::Int(429)));
    }

    #[test]
    fn identifiers_of_any_length_are_written_in_hex() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in [0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 256] {
            let (mut out, expected) = (String::new(), bytes[..len].iter().map(|byte| format!("{byte:02x}")));
            write_text(&mut out, Cell::Id(&bytes[..len]));
            assert_eq!(out, expected.collect::<String>());
        }
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
