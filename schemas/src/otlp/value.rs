//! An attribute as the decoder sees it: a name and a value that borrows from the record.
//!
//! JSON is decoded into prost's messages and protobuf is walked where it lies; both become these values, so that
//! everything behind them is written once. Lists and maps stay as they are until a column asks for one.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Decoded;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use prost::Message;
use serde_json::Value as Json;

use super::names::Name;

/// An attribute that has a value, and a name that a column is built from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Attribute<'a> {
    pub(super) name: Name,
    pub(super) value: Value<'a>,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Str(&'a str),
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(&'a [u8]),
    Nested(Nested<'a>),
}

/// A list or a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Nested<'a> {
    Decoded(&'a Decoded),
    /// A well-formed `ArrayValue` message.
    List(&'a [u8]),
    /// A well-formed `KeyValueList` message.
    Map(&'a [u8]),
}

impl<'a> Value<'a> {
    /// References into a profile's string table have no meaning in these signals and count as absent.
    pub(crate) fn of(decoded: &'a Decoded) -> Option<Self> {
        match decoded {
            Decoded::StringValue(text) => Some(Self::Str(text)),
            Decoded::BoolValue(b) => Some(Self::Bool(*b)),
            Decoded::IntValue(n) => Some(Self::Int(*n)),
            Decoded::DoubleValue(n) => Some(Self::Float(*n)),
            Decoded::BytesValue(bytes) => Some(Self::Bytes(bytes)),
            Decoded::ArrayValue(_) | Decoded::KvlistValue(_) => Some(Self::Nested(Nested::Decoded(decoded))),
            Decoded::StringValueStrindex(_) => None,
        }
    }
}

impl<'a> Nested<'a> {
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Self::List(_) | Self::Decoded(Decoded::ArrayValue(_)))
    }

    pub(crate) fn is_empty(self) -> bool {
        match self {
            Self::List(bytes) | Self::Map(bytes) => bytes.is_empty(),
            Self::Decoded(Decoded::ArrayValue(list)) => list.values.is_empty(),
            Self::Decoded(Decoded::KvlistValue(map)) => map.values.is_empty(),
            Self::Decoded(_) => false,
        }
    }

    /// Shows `see` a member of a map; of several with that name the first.
    pub(crate) fn with_member<T>(self, name: &str, see: impl FnOnce(Option<Value<'_>>) -> T) -> T {
        match self.decode().as_ref() {
            Decoded::KvlistValue(map) => {
                let pair = map.values.iter().find(|pair| pair.key == name);
                see(pair.and_then(|pair| Value::of(pair.value.as_ref()?.value.as_ref()?)))
            }
            _ => see(None),
        }
    }

    pub(crate) fn to_json(self) -> Json {
        to_json(&self.decode())
    }

    /// What was found well-formed is well-formed; if it were not it would be empty.
    fn decode(self) -> Cow<'a, Decoded> {
        match self {
            Self::Decoded(decoded) => Cow::Borrowed(decoded),
            Self::List(bytes) => Cow::Owned(Decoded::ArrayValue(ArrayValue::decode(bytes).unwrap_or_default())),
            Self::Map(bytes) => Cow::Owned(Decoded::KvlistValue(KeyValueList::decode(bytes).unwrap_or_default())),
        }
    }
}

/// The elements of a list as text: strings as they are, everything else as JSON.
pub(crate) fn elements(list: Nested<'_>) -> Vec<String> {
    let text = |value: &AnyValue| match value.value.as_ref()? {
        Decoded::StringValue(text) => Some(text.clone()),
        other => Some(to_json(other).to_string()),
    };
    match list.decode().as_ref() {
        Decoded::ArrayValue(list) => list.values.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

fn to_json(value: &Decoded) -> Json {
    match value {
        Decoded::StringValue(text) => Json::from(text.as_str()),
        Decoded::BoolValue(b) => Json::from(*b),
        Decoded::IntValue(n) => Json::from(*n),
        Decoded::DoubleValue(n) => Json::from(*n),
        Decoded::BytesValue(bytes) => Json::from(STANDARD.encode(bytes)),
        Decoded::ArrayValue(list) => list.values.iter().map(any_to_json).collect(),
        Decoded::KvlistValue(map) => Json::Object(map.values.iter().map(pair_to_json).collect()),
        Decoded::StringValueStrindex(_) => Json::Null,
    }
}

fn pair_to_json(pair: &KeyValue) -> (String, Json) {
    (pair.key.clone(), pair.value.as_ref().map_or(Json::Null, any_to_json))
}

fn any_to_json(value: &AnyValue) -> Json {
    value.value.as_ref().map_or(Json::Null, to_json)
}
