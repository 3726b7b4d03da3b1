//! Whether bytes have the shape of a signal: a walk over the protobuf envelope, checking field numbers and wire types.
//!
//! The messages of the three signals nest alike, and unknown fields are skipped, so a protobuf decoder takes metrics
//! for logs without an error. What tells them apart are the wire types inside an item: field 1 of a span is bytes (its
//! trace id), of a log record a fixed64 (its time), and field 7 is a fixed64, a varint or a message.
//!
//! Invariant: well-formed OTLP of a signal always fits that signal, whatever fields later versions add. Only the
//! envelope and the items are walked, never attributes or bodies.

use crate::tables::Signal;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Len,
    Fixed32,
}

use Wire::{Fixed32, Fixed64, Len, Varint};

/// The fields of a message: number, wire type, and for those worth walking into their own shape.
struct Shape {
    fields: &'static [(u64, Wire, Option<&'static Shape>)],
    /// Whether fields that are not listed may occur.
    open: bool,
}

const fn open(fields: &'static [(u64, Wire, Option<&'static Shape>)]) -> Shape {
    Shape { fields, open: true }
}

static RESOURCE: Shape = open(&[(1, Len, None), (2, Varint, None), (3, Len, None)]);
static SCOPE: Shape = open(&[(1, Len, None), (2, Len, None), (3, Len, None), (4, Varint, None)]);

static TRACES: Shape = Shape { fields: &[(1, Len, Some(&RESOURCE_SPANS))], open: false };
static RESOURCE_SPANS: Shape = open(&[(1, Len, Some(&RESOURCE)), (2, Len, Some(&SCOPE_SPANS)), (3, Len, None)]);
static SCOPE_SPANS: Shape = open(&[(1, Len, Some(&SCOPE)), (2, Len, Some(&SPAN)), (3, Len, None)]);
static SPAN: Shape = open(&[
    (1, Len, None),
    (2, Len, None),
    (3, Len, None),
    (4, Len, None),
    (5, Len, None),
    (6, Varint, None),
    (7, Fixed64, None),
    (8, Fixed64, None),
    (9, Len, None),
    (10, Varint, None),
    (11, Len, None),
    (12, Varint, None),
    (13, Len, None),
    (14, Varint, None),
    (15, Len, None),
    (16, Fixed32, None),
]);

static LOGS: Shape = Shape { fields: &[(1, Len, Some(&RESOURCE_LOGS))], open: false };
static RESOURCE_LOGS: Shape = open(&[(1, Len, Some(&RESOURCE)), (2, Len, Some(&SCOPE_LOGS)), (3, Len, None)]);
static SCOPE_LOGS: Shape = open(&[(1, Len, Some(&SCOPE)), (2, Len, Some(&LOG_RECORD)), (3, Len, None)]);
static LOG_RECORD: Shape = open(&[
    (1, Fixed64, None),
    (2, Varint, None),
    (3, Len, None),
    (5, Len, None),
    (6, Len, None),
    (7, Varint, None),
    (8, Fixed32, None),
    (9, Len, None),
    (10, Len, None),
    (11, Fixed64, None),
    (12, Len, None),
]);

static METRICS: Shape = Shape { fields: &[(1, Len, Some(&RESOURCE_METRICS))], open: false };
static RESOURCE_METRICS: Shape = open(&[(1, Len, Some(&RESOURCE)), (2, Len, Some(&SCOPE_METRICS)), (3, Len, None)]);
static SCOPE_METRICS: Shape = open(&[(1, Len, Some(&SCOPE)), (2, Len, Some(&METRIC)), (3, Len, None)]);
static METRIC: Shape = open(&[
    (1, Len, None),
    (2, Len, None),
    (3, Len, None),
    (5, Len, Some(&POINTS)),
    (7, Len, Some(&POINTS)),
    (9, Len, Some(&POINTS)),
    (10, Len, Some(&POINTS)),
    (11, Len, Some(&POINTS)),
    (12, Len, None),
]);
/// Gauge, sum, histogram, exponential histogram and summary.
static POINTS: Shape = open(&[(1, Len, None), (2, Varint, None), (3, Varint, None)]);

/// Whether `payload` is well-formed protobuf with the shape of `signal`.
pub(super) fn fits(signal: Signal, payload: &[u8]) -> bool {
    let shape = match signal {
        Signal::Traces => &TRACES,
        Signal::Logs => &LOGS,
        Signal::Metrics => &METRICS,
    };
    walk(shape, payload).is_some()
}

/// The signal other than `expected` that `payload` has the shape of.
pub(super) fn other_signal(expected: Signal, payload: &[u8]) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| *signal != expected && fits(*signal, payload))
}

/// Walks one message; the depth is bounded by that of the shapes.
fn walk(shape: &Shape, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let (number, wire) = (tag >> 3, wire_type(tag & 7)?);
        let body = match wire {
            Varint => {
                varint(&mut bytes)?;
                &[][..]
            }
            Fixed64 => take(&mut bytes, 8)?,
            Fixed32 => take(&mut bytes, 4)?,
            Len => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                take(&mut bytes, len)?
            }
        };
        match shape.fields.iter().find(|field| field.0 == number) {
            Some((_, expected, _)) if *expected != wire => return None,
            Some((_, _, Some(inner))) => walk(inner, body)?,
            Some(_) => {}
            None if shape.open && number > 0 => {}
            None => return None,
        }
    }
    Some(())
}

/// Groups (3 and 4) are deprecated and occur in no OTLP message.
#[inline]
pub(super) fn wire_type(code: u64) -> Option<Wire> {
    match code {
        0 => Some(Varint),
        1 => Some(Fixed64),
        2 => Some(Len),
        5 => Some(Fixed32),
        _ => None,
    }
}

#[inline]
pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[inline]
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            // The tenth byte has room for one bit.
            return (at < 9 || *byte < 2).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_later_versions_fit_but_groups_and_cut_messages_do_not() {
        // ResourceSpans { unknown field 99: varint 1 }
        assert!(fits(Signal::Traces, &[0x0a, 0x03, 0x98, 0x06, 0x01]));
        assert!(!fits(Signal::Traces, &[0x0b, 0x0c]));
        assert!(!fits(Signal::Traces, &[0x0a, 0x7f, 0x00]));
        assert!(!fits(Signal::Traces, &[0x10, 0x01]), "the outermost message has one field only");
    }

    #[test]
    fn varint_of_more_than_ten_bytes_is_refused() {
        let mut endless: &[u8] = &[0xff; 20];
        assert_eq!(varint(&mut endless), None);
        let mut largest: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(varint(&mut largest), Some(u64::MAX));
        let mut too_large: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(varint(&mut too_large), None);
    }
}
