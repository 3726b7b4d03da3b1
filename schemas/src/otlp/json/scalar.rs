//! Single values of OTLP/JSON, in every form they are written.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use serde_json::Value as Json;

use super::{Object, get};

/// Some producers write base64 without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The text of a string, number or boolean; empty for anything else.
pub(super) fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        Json::Bool(b) => b.to_string(),
        Json::Null | Json::Array(_) | Json::Object(_) => String::new(),
    }
}

/// An identifier of `len` bytes: hex, base64, an array of bytes or a Node buffer. What is none of these is empty, so
/// that it can never pass for an identifier by its length.
pub(super) fn id(object: &Object, names: &[&str], len: usize) -> Vec<u8> {
    match get(object, names) {
        Some(Json::String(text)) => id_from_text(text.trim(), len),
        Some(Json::Array(array)) => bytes(array),
        Some(Json::Object(buffer)) => buffer.get("data").and_then(Json::as_array).map(|a| bytes(a)).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn id_from_text(text: &str, len: usize) -> Vec<u8> {
    let hex = hex(text);
    if hex.as_ref().is_some_and(|bytes| bytes.len() == len) {
        return hex.unwrap_or_default();
    }
    let base64 = BASE64.decode(text).ok().filter(|bytes| bytes.len() == len);
    base64.or(hex).unwrap_or_default()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.remainder().is_empty().then_some(())?;
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn bytes(array: &[Json]) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = array.iter().map(|b| u8::try_from(b.as_u64()?).ok()).collect();
    bytes.unwrap_or_default()
}

/// An unsigned integer: a number, its text, or `{low, high}`; 0 for anything else.
pub(super) fn unsigned(object: &Object, names: &[&str]) -> u64 {
    get(object, names).and_then(to_unsigned).unwrap_or(0)
}

fn to_unsigned(value: &Json) -> Option<u64> {
    match value {
        Json::Number(number) => number.as_u64().or_else(|| u64::try_from(whole(number.as_f64()?)?).ok()),
        Json::String(text) => text.trim().parse().ok(),
        Json::Object(halves) => from_halves(halves),
        _ => None,
    }
}

/// A signed integer, in the same forms.
pub(super) fn to_signed(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64().or_else(|| i64::try_from(whole(number.as_f64()?)?).ok()),
        Json::String(text) => text.trim().parse().ok(),
        Json::Object(halves) => from_halves(halves).map(u64::cast_signed),
        _ => None,
    }
}

/// `protobuf.js` splits 64 bits into two signed halves.
fn from_halves(halves: &Object) -> Option<u64> {
    let half = |name| {
        let value = halves.get(name)?.as_i64()?;
        u32::try_from(value).ok().or_else(|| i32::try_from(value).ok().map(i32::cast_unsigned)).map(u64::from)
    };
    Some(half("high")? << 32 | half("low")?)
}

/// A float that is a whole number (`1.5e18` is how some writers print a large integer).
fn whole(n: f64) -> Option<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "the fraction is zero and the range is checked")]
    (n.fract() == 0.0 && n.abs() < 2f64.powi(64)).then_some(n as i128)
}

/// A float: a number or its text, `NaN` and `Infinity` included.
pub(super) fn float(object: &Object, names: &[&str]) -> Option<f64> {
    get(object, names).and_then(to_float)
}

fn to_float(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A boolean or its text; false for anything else.
pub(super) fn boolean(object: &Object, names: &[&str]) -> bool {
    get(object, names).and_then(to_boolean).unwrap_or(false)
}

fn to_boolean(value: &Json) -> Option<bool> {
    match value {
        Json::Bool(b) => Some(*b),
        Json::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Json::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// An enum: its number, or its name with or without `prefix`; 0, which always means unspecified, for anything else.
pub(super) fn enumeration(object: &Object, names: &[&str], prefix: &str, variants: &[&str]) -> i32 {
    let value = get(object, names);
    if let Some(number) = value.and_then(to_signed) {
        return i32::try_from(number).unwrap_or(0);
    }
    let name = value.and_then(Json::as_str).unwrap_or_default().trim().to_ascii_uppercase();
    let name = name.strip_prefix(prefix).unwrap_or(&name);
    let at = variants.iter().position(|variant| *variant == name);
    at.and_then(|at| i32::try_from(at).ok()).unwrap_or(0)
}

/// The attributes of an item: a list of key and value, or a plain object.
pub(super) fn attributes(object: &Object) -> Vec<KeyValue> {
    match get(object, &["attributes"]) {
        Some(list @ Json::Array(_)) => pairs(list),
        Some(Json::Object(plain)) => plain.iter().map(|(key, value)| pair(key, value)).collect(),
        _ => Vec::new(),
    }
}

fn pairs(list: &Json) -> Vec<KeyValue> {
    let entries = list.as_array().into_iter().flatten().filter_map(Json::as_object);
    let entries = entries.filter_map(|entry| Some((entry.get("key")?.as_str()?, entry.get("value")?)));
    entries.map(|(key, value)| pair(key, value)).collect()
}

fn pair(key: &str, value: &Json) -> KeyValue {
    let value = any_value(value).map(|value| AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A value with its type (`{"intValue": "1"}`), or plain JSON. A type without a readable value (`{"doubleValue": {}}`)
/// is absent.
pub(super) fn any_value(value: &Json) -> Option<Value> {
    match value {
        Json::Null => None,
        Json::Bool(b) => Some(Value::BoolValue(*b)),
        Json::String(text) => Some(Value::StringValue(text.clone())),
        Json::Number(n) => {
            Some(n.as_i64().map_or_else(|| Value::DoubleValue(n.as_f64().unwrap_or(0.0)), Value::IntValue))
        }
        Json::Array(array) => Some(Value::ArrayValue(ArrayValue { values: elements(array) })),
        Json::Object(object) => typed_value(object).unwrap_or_else(|| {
            let values: Vec<_> = object.iter().map(|(key, value)| pair(key, value)).collect();
            (!values.is_empty()).then_some(Value::KvlistValue(KeyValueList { values }))
        }),
    }
}

/// The value of an object that names a type; `None` if it names none.
fn typed_value(object: &Object) -> Option<Option<Value>> {
    let (name, value) = object.iter().next().filter(|_| object.len() == 1)?;
    Some(match name.as_str() {
        "stringValue" | "string_value" => (!value.is_null()).then(|| Value::StringValue(text(value))),
        "boolValue" | "bool_value" => to_boolean(value).map(Value::BoolValue),
        "intValue" | "int_value" => to_signed(value).map(Value::IntValue),
        "doubleValue" | "double_value" => to_float(value).map(Value::DoubleValue),
        "bytesValue" | "bytes_value" => value.as_str().and_then(|t| BASE64.decode(t).ok()).map(Value::BytesValue),
        "arrayValue" | "array_value" => {
            let values = value.get("values").and_then(Json::as_array).map(|a| elements(a)).unwrap_or_default();
            Some(Value::ArrayValue(ArrayValue { values }))
        }
        "kvlistValue" | "kvlist_value" => {
            let values = value.get("values").map(pairs).unwrap_or_default();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
        _ => return None,
    })
}

fn elements(array: &[Json]) -> Vec<AnyValue> {
    array.iter().map(|value| AnyValue { value: any_value(value) }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Json) -> Object {
        value.as_object().unwrap().clone()
    }

    #[track_caller]
    fn check_id(written: Json, expected: &[u8]) {
        assert_eq!(id(&object(json!({ "spanId": written })), &["spanId"], 8), expected);
    }

    #[test]
    fn ids_are_read_in_every_form_and_nonsense_is_empty() {
        let expected = [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74];
        check_id(json!("EEE19B7EC3C1B174"), &expected);
        check_id(json!("eee19b7ec3c1b174"), &expected);
        check_id(json!("7uGbfsPBsXQ="), &expected);
        check_id(json!("7uGbfsPBsXQ"), &expected);
        check_id(json!({"type": "Buffer", "data": expected}), &expected);
        check_id(json!({"data": expected}), &expected);
        check_id(json!(expected), &expected);
        check_id(json!("eee19b"), &[0xee, 0xe1, 0x9b]);
        for nonsense in [json!("zzzzzzzz"), json!(7), json!({"data": [256]}), json!(["a"]), json!("ü")] {
            check_id(nonsense, &[]);
        }
    }

    #[test]
    fn integers_are_read_in_every_form() {
        for written in [
            json!(1_544_712_660_000_000_000_u64),
            json!("1544712660000000000"),
            json!(1.544_712_66e18),
            json!({"low": -480_688_128, "high": 359_656_442, "unsigned": true}),
        ] {
            assert_eq!(unsigned(&object(json!({ "t": written })), &["t"]), 1_544_712_660_000_000_000);
        }
        assert_eq!(to_signed(&json!({"low": -1, "high": -1})), Some(-1));
        assert_eq!(to_signed(&json!("-7")), Some(-7));
        assert_eq!(unsigned(&object(json!({"t": -1})), &["t"]), 0);
        assert_eq!(unsigned(&object(json!({"t": 1.5})), &["t"]), 0);
        assert_eq!(unsigned(&object(json!({"t": {"low": 1}})), &["t"]), 0);
    }

    #[test]
    fn enums_are_read_as_numbers_and_names() {
        let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER"];
        for written in [json!(2), json!("2"), json!("SPAN_KIND_SERVER"), json!("server")] {
            assert_eq!(enumeration(&object(json!({ "kind": written })), &["kind"], "SPAN_KIND_", &kinds), 2);
        }
        assert_eq!(enumeration(&object(json!({"kind": "teapot"})), &["kind"], "SPAN_KIND_", &kinds), 0);
    }

    #[test]
    fn typed_and_plain_values_are_told_apart() {
        assert_eq!(any_value(&json!({"intValue": "5"})), Some(Value::IntValue(5)));
        assert_eq!(any_value(&json!({"int_value": 5})), Some(Value::IntValue(5)));
        assert_eq!(any_value(&json!({"doubleValue": {}})), None);
        assert_eq!(any_value(&json!({})), None);
        assert_eq!(any_value(&json!(5)), Some(Value::IntValue(5)));
        assert_eq!(any_value(&json!(0.5)), Some(Value::DoubleValue(0.5)));
        assert!(
            matches!(any_value(&json!({"a": 1, "b": 2})), Some(Value::KvlistValue(list)) if list.values.len() == 2)
        );
    }

    #[test]
    fn attributes_may_be_a_list_or_an_object_and_nulls_are_skipped() {
        let list = attributes(&object(
            json!({"attributes": [null, {"key": "a", "value": {"stringValue": "1"}}, {"key": "b"}]}),
        ));
        let plain = attributes(&object(json!({"attributes": {"a": "1"}})));
        assert_eq!(list, plain);
    }
}
