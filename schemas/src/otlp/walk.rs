//! Spans straight from protobuf bytes, without a message in between.
//!
//! Decoding a message copies every text of every attribute into a heap of its own; here nothing is copied and nothing
//! that no column wants is kept. It is the fast way and not the last word: whatever is unusual (a group, a message in
//! two parts, a value of two kinds, a flawed span, malformed bytes) gives none, and the caller decodes the message,
//! which knows how to say what is wrong.
//!
//! Invariant: if it gives spans, prost decodes the same bytes, and they are those of that message. So everything is
//! looked at that prost would look at, also in attributes that nobody wants: whether a record is well-formed must not
//! depend on which rules are loaded.

use std::str::from_utf8;

use super::names::{Name, Names};
use super::screen::span_flaw;
use super::traces::{Event, Scope, Span, Traces};
use super::value::{Attribute, Nested, Value};
use super::wire::{Wire, take, varint, wire_type};

/// The number and wire type of a span's attributes.
const ATTRIBUTE: u8 = 9 << 3 | 2;
/// Those of a list's elements.
const ELEMENT: u8 = 1 << 3 | 2;
/// Those of a value, by its kind.
const TEXT: u8 = 1 << 3 | 2;
const FLAG: u8 = 2 << 3;
const INT: u8 = 3 << 3;
const DOUBLE: u8 = 4 << 3 | 1;
const LIST: u8 = 5 << 3 | 2;

/// Lists in lists: more is unusual.
const DEPTH_MAX: u32 = 16;

/// The spans of a message, none if it has none that is valid or anything unusual.
///
/// Attributes that nobody wants are left out. The spans go into the lists of `spare`, which are empty.
pub(super) fn traces<'a>(payload: &'a [u8], names: &mut Names, spare: Traces<'static>) -> Option<Traces<'a>> {
    let mut traces: Traces<'a> = spare;
    let mut walk = Walk { traces: &mut traces, names };
    each(payload, |field| match field {
        (1, Body::Bytes(bytes)) => walk.resource_spans(bytes),
        _ => None,
    })?;
    (!traces.spans.is_empty()).then_some(traces)
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Body<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Shows `see` every field of a message, by its number.
#[inline]
fn each<'a>(mut bytes: &'a [u8], mut see: impl FnMut((u32, Body<'a>)) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        see(field(&mut bytes)?)?;
    }
    Some(())
}

/// Takes a field off the front, with its number.
#[inline(always)]
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Body<'a>)> {
    let tag = u32::try_from(varint(bytes)?).ok()?;
    let body = match wire_type(u64::from(tag & 7))? {
        Wire::Varint => Body::Varint(varint(bytes)?),
        Wire::Fixed64 => Body::Fixed64(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        Wire::Fixed32 => take(bytes, 4).map(|_| Body::Fixed32)?,
        Wire::Len => {
            let len = usize::try_from(varint(bytes)?).ok()?;
            Body::Bytes(take(bytes, len)?)
        }
    };
    Some((tag >> 3, body))
}

/// Takes a message of less than 128 bytes off the front, if it begins with this byte for number and wire type. Gives
/// also all that lay before it, the message first.
#[inline(always)]
fn short<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<(&'a [u8], &'a [u8])> {
    match *bytes {
        [first, len @ ..0x80, ahead @ ..] if *first == tag => {
            let (message, rest) = ahead.split_at_checked(usize::from(*len))?;
            *bytes = rest;
            Some((message, ahead))
        }
        _ => None,
    }
}

/// A field that a message has at most once.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Fields of numbers that no version knew when this was written.
fn unknown(number: u32, known: std::ops::RangeInclusive<u32>) -> Option<()> {
    (number > *known.end()).then_some(())
}

struct Walk<'w, 'a> {
    traces: &'w mut Traces<'a>,
    names: &'w mut Names,
}

impl<'a> Walk<'_, 'a> {
    fn resource_spans(&mut self, bytes: &'a [u8]) -> Option<()> {
        let resource = self.traces.resources.len();
        self.traces.resources.push(0..0);
        let mut named = None;
        each(bytes, |field| match field {
            (1, Body::Bytes(bytes)) => once(&mut named, ()).and_then(|()| self.resource(resource, bytes)),
            (2, Body::Bytes(bytes)) => self.scope_spans(resource, bytes),
            (3, Body::Bytes(url)) => from_utf8(url).ok().map(drop),
            (number, _) => unknown(number, 1..=3),
        })
    }

    fn resource(&mut self, resource: usize, bytes: &'a [u8]) -> Option<()> {
        let first = self.traces.attributes.len();
        each(bytes, |field| match field {
            (1, Body::Bytes(pair)) => keep(&mut self.traces.attributes, (pair, pair), self.names),
            (2, Body::Varint(_)) => Some(()),
            (3, Body::Bytes(entity)) => each(entity, |field| match field {
                (1..=4, Body::Bytes(text)) => from_utf8(text).ok().map(drop),
                (number, _) => unknown(number, 1..=4),
            }),
            (number, _) => unknown(number, 1..=3),
        })?;
        self.traces.resources[resource] = first..self.traces.attributes.len();
        Some(())
    }

    fn scope_spans(&mut self, resource: usize, bytes: &'a [u8]) -> Option<()> {
        let scope = self.traces.scopes.len();
        self.traces.scopes.push(Scope { resource, ..Scope::default() });
        let mut named = None;
        each(bytes, |field| match field {
            (1, Body::Bytes(bytes)) => once(&mut named, ()).and_then(|()| self.scope(scope, bytes)),
            (2, Body::Bytes(bytes)) => self.span(scope, bytes),
            (3, Body::Bytes(url)) => from_utf8(url).ok().map(drop),
            (number, _) => unknown(number, 1..=3),
        })
    }

    fn scope(&mut self, at: usize, bytes: &'a [u8]) -> Option<()> {
        let first = self.traces.attributes.len();
        let (mut name, mut version) = ("", "");
        each(bytes, |field| match field {
            (1, Body::Bytes(text)) => text_into(&mut name, text),
            (2, Body::Bytes(text)) => text_into(&mut version, text),
            (3, Body::Bytes(pair)) => keep(&mut self.traces.attributes, (pair, pair), self.names),
            (4, Body::Varint(_)) => Some(()),
            (number, _) => unknown(number, 1..=4),
        })?;
        let attributes = first..self.traces.attributes.len();
        let resource = self.traces.scopes[at].resource;
        self.traces.scopes[at] = Scope { resource, name, version, attributes };
        Some(())
    }

    fn span(&mut self, scope: usize, mut bytes: &'a [u8]) -> Option<()> {
        let (first, first_event) = (self.traces.attributes.len(), self.traces.events.len());
        let mut span = Span { scope, ..Span::default() };
        let mut status = None;
        while !bytes.is_empty() {
            if let Some((pair, ahead)) = short(&mut bytes, ATTRIBUTE) {
                keep(&mut self.traces.attributes, (pair, ahead), self.names)?;
                continue;
            }
            match field(&mut bytes)? {
                (1, Body::Bytes(id)) => span.trace_id = id,
                (2, Body::Bytes(id)) => span.span_id = id,
                (3, Body::Bytes(text)) => text_into(&mut span.trace_state, text)?,
                (4, Body::Bytes(id)) => span.parent_span_id = id,
                (5, Body::Bytes(text)) => text_into(&mut span.name, text)?,
                (6, Body::Varint(kind)) => span.kind = low_bits(kind),
                (7, Body::Fixed64(time)) => span.start_time_unix_nano = time,
                (8, Body::Fixed64(time)) => span.end_time_unix_nano = time,
                (9, Body::Bytes(pair)) => keep(&mut self.traces.attributes, (pair, pair), self.names)?,
                (11, Body::Bytes(event)) => self.event(event)?,
                (13, Body::Bytes(bytes)) => link(bytes)?,
                (15, Body::Bytes(bytes)) => once(&mut status, bytes)?,
                (10 | 12 | 14, Body::Varint(_)) | (16, Body::Fixed32) => {}
                (number, _) => unknown(number, 1..=16)?,
            }
        }
        each(status.unwrap_or_default(), |field| match field {
            // The code of versions before 1.0.
            (1, Body::Varint(_)) => Some(()),
            (2, Body::Bytes(text)) => text_into(&mut span.status_message, text),
            (3, Body::Varint(code)) => {
                span.status_code = low_bits(code);
                Some(())
            }
            (number, _) => unknown(number, 1..=3),
        })?;
        let ids = [span.trace_id, span.span_id, span.parent_span_id];
        if span_flaw(ids, span.start_time_unix_nano, span.end_time_unix_nano).is_some() {
            return None;
        }
        span.attributes = first..self.traces.attributes.len();
        span.events = first_event..self.traces.events.len();
        self.traces.spans.push(span);
        Some(())
    }

    fn event(&mut self, bytes: &'a [u8]) -> Option<()> {
        let first = self.traces.event_attributes.len();
        let mut event = Event::default();
        each(bytes, |field| match field {
            (1, Body::Fixed64(time)) => {
                event.time_unix_nano = time;
                Some(())
            }
            (2, Body::Bytes(text)) => text_into(&mut event.name, text),
            (3, Body::Bytes(pair)) => keep(&mut self.traces.event_attributes, (pair, pair), self.names),
            (4, Body::Varint(_)) => Some(()),
            (number, _) => unknown(number, 1..=4),
        })?;
        event.attributes = first..self.traces.event_attributes.len();
        self.traces.events.push(event);
        Some(())
    }
}

/// No column is built from links.
fn link(bytes: &[u8]) -> Option<()> {
    each(bytes, |field| match field {
        (1 | 2, Body::Bytes(_)) | (5, Body::Varint(_)) | (6, Body::Fixed32) => Some(()),
        (3, Body::Bytes(state)) => from_utf8(state).ok().map(drop),
        (4, Body::Bytes(pair)) => key_value(pair, 0).map(drop),
        (number, _) => unknown(number, 1..=6),
    })
}

fn text_into<'a>(place: &mut &'a str, bytes: &'a [u8]) -> Option<()> {
    *place = from_utf8(bytes).ok()?;
    Some(())
}

/// As protobuf narrows a varint to 32 bits.
fn low_bits(varint: u64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "what is above is cut off, as prost does")]
    (varint as i32)
}

/// Keeps an attribute if somebody wants it.
#[inline(always)]
fn keep<'a>(kept: &mut Vec<Attribute<'a>>, (pair, ahead): (&'a [u8], &'a [u8]), names: &mut Names) -> Option<()> {
    let Some((name, [len @ ..0x80, value @ ..])) = names.meet(pair, ahead) else {
        return keep_unusual(kept, pair, names);
    };
    if value.len() != usize::from(*len) {
        return keep_unusual(kept, pair, names);
    }
    let Some(name) = name else { return if is_plain(value) { Some(()) } else { any_value(value, 0).map(drop) } };
    keep_value(kept, name, value)
}

/// A name that was not met, a value of more bytes, or more than the two fields.
#[cold]
fn keep_unusual<'a>(kept: &mut Vec<Attribute<'a>>, pair: &'a [u8], names: &mut Names) -> Option<()> {
    let (key, value) = key_value(pair, 0)?;
    let name = names.introduce(key);
    kept.extend(name.zip(value).map(|(name, value)| Attribute { name, value }));
    Some(())
}

/// Each kind of value that is one field of less than 128 bytes goes straight to its place: put together first and then
/// copied, it would be waited for.
#[inline]
fn keep_value<'a>(kept: &mut Vec<Attribute<'a>>, name: Name, bytes: &'a [u8]) -> Option<()> {
    match bytes {
        [TEXT, len @ ..0x80, text @ ..] if text.len() == usize::from(*len) => {
            kept.push(Attribute { name, value: Value::Str(from_utf8(text).ok()?) });
        }
        [INT, n @ ..] => {
            let mut rest = n;
            let n = varint(&mut rest)?;
            if !rest.is_empty() {
                return None;
            }
            kept.push(Attribute { name, value: Value::Int(n.cast_signed()) });
        }
        [DOUBLE, a, b, c, d, e, f, g, h] => {
            let bits = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            kept.push(Attribute { name, value: Value::Float(f64::from_bits(bits)) });
        }
        [LIST, len @ ..0x80, list @ ..] if list.len() == usize::from(*len) && is_plain_list(list) => {
            kept.push(Attribute { name, value: Value::Nested(Nested::List(list)) });
        }
        _ => kept.extend(any_value(bytes, 0)?.map(|value| Attribute { name, value })),
    }
    Some(())
}

/// Whether a value is one well-formed field and no list or map, of less than 128 bytes.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    match bytes {
        [TEXT, len @ ..0x80, text @ ..] => {
            text.len() == usize::from(*len) && (text.is_ascii() || from_utf8(text).is_ok())
        }
        [FLAG | INT, ..0x80] => true,
        [INT, n @ ..] => {
            let mut rest = n;
            varint(&mut rest).is_some() && rest.is_empty()
        }
        [DOUBLE, bits @ ..] => bits.len() == 8,
        _ => false,
    }
}

#[inline]
fn key_value(pair: &[u8], depth: u32) -> Option<(&str, Option<Value<'_>>)> {
    let (mut key, mut value) = ("", None);
    each(pair, |field| match field {
        (1, Body::Bytes(text)) => text_into(&mut key, text),
        (2, Body::Bytes(bytes)) => once(&mut value, bytes),
        (number, _) => unknown(number, 1..=3),
    })?;
    let value = match value {
        Some(bytes) => any_value(bytes, depth)?,
        None => None,
    };
    Some((key, value))
}

/// A value of one kind, or of none.
#[inline]
fn any_value(bytes: &[u8], depth: u32) -> Option<Option<Value<'_>>> {
    let mut value = None;
    each(bytes, |field| {
        let found = match field {
            (1, Body::Bytes(text)) => Value::Str(from_utf8(text).ok()?),
            (2, Body::Varint(flag)) => Value::Bool(flag != 0),
            (3, Body::Varint(n)) => Value::Int(n.cast_signed()),
            (4, Body::Fixed64(bits)) => Value::Float(f64::from_bits(bits)),
            (5, Body::Bytes(list)) => {
                elements(list, depth + 1)?;
                Value::Nested(Nested::List(list))
            }
            (6, Body::Bytes(map)) => {
                members(map, depth + 1)?;
                Value::Nested(Nested::Map(map))
            }
            (7, Body::Bytes(bytes)) => Value::Bytes(bytes),
            (number, _) => return unknown(number, 1..=8),
        };
        once(&mut value, found)
    })?;
    Some(value)
}

/// Whether all elements of a list are plain.
fn is_plain_list(mut list: &[u8]) -> bool {
    while let Some((element, _)) = short(&mut list, ELEMENT) {
        if !is_plain(element) {
            return false;
        }
    }
    list.is_empty()
}

/// Shows `see` the elements of a list if they are nothing but short texts; if not, it may have seen some.
pub(super) fn texts<'a>(mut list: &'a [u8], mut see: impl FnMut(&'a str)) -> Option<()> {
    while !list.is_empty() {
        let (element, _) = short(&mut list, ELEMENT)?;
        let [TEXT, _, text @ ..] = element else { return None };
        see(from_utf8(text).ok().filter(|_| usize::from(element[1]) == text.len())?);
    }
    Some(())
}

/// Whether a list is nothing but well-formed values.
fn elements(list: &[u8], depth: u32) -> Option<()> {
    each(list, |field| match field {
        (1, Body::Bytes(value)) if depth < DEPTH_MAX => any_value(value, depth).map(drop),
        _ => None,
    })
}

/// Whether a map is nothing but well-formed pairs.
fn members(map: &[u8], depth: u32) -> Option<()> {
    each(map, |field| match field {
        (1, Body::Bytes(pair)) if depth < DEPTH_MAX => key_value(pair, depth).map(drop),
        _ => None,
    })
}
