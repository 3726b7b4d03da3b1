//! Spans that are walked where they lie are those of the decoded message: prost is the reference, on telemetry that was
//! generated and on telemetry that was then broken.
//!
//! `LICTOR_WALK_RECORDS` sets how many records, `LICTOR_WALK_SEED` from which seed on; a failure names its seed.

use std::env;

use fastrand::Rng;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::*;

const RECORDS: u64 = 1_000;
/// Of each record that was generated.
const MUTANTS: usize = 8;

fn number_from(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn walked_spans_are_those_of_the_message() {
    let (seed, records) = (number_from("LICTOR_WALK_SEED", 1), number_from("LICTOR_WALK_RECORDS", RECORDS));
    let (mut walking, mut reference) = (wide_decoder(), wide_decoder());
    let (mut walked, mut compared) = (0, 0);
    for seed in seed..seed + records {
        let rng = &mut Rng::with_seed(seed);
        let payload = message(rng).encode_to_vec();
        assert!(is_walked(&payload, &mut Names::default()), "seed {seed} is usual and valid");
        walked += usize::from(check_alike(&mut walking, &mut reference, &payload, seed));
        for _ in 0..MUTANTS {
            let mutant = mutated(rng, &payload);
            walked += usize::from(check_alike(&mut walking, &mut reference, &mutant, seed));
        }
        compared += 1 + MUTANTS;
    }
    eprintln!("{compared} records from seed {seed}, {walked} of them walked: as prost decodes them");
    assert!(walked * 4 > compared, "most are not so broken that nothing was compared");
}

/// A decoder for all columns, and for columns of attributes that are lists, maps, bytes and more.
fn wide_decoder() -> Decoder {
    let columns = |table: Table| {
        let own = describe(table).into_iter().map(|column| column.name.to_owned());
        let attributes = KEYS.iter().flat_map(|key| [format!("attr:{key}"), format!("resource_attr:{key}")]);
        (table, own.chain(attributes).collect())
    };
    Decoder::new(&Wanted([Table::Spans, Table::SpanEvents].into_iter().map(columns).collect()), &[], prices())
}

/// Says whether the record was walked.
#[track_caller]
fn check_alike(walking: &mut Decoder, reference: &mut Decoder, payload: &[u8], seed: u64) -> bool {
    let walked = is_walked(payload, &mut Names::default());
    assert_eq!(walked, is_walked(payload, &mut walking.names), "seed {seed}: whatever is wanted: {payload:02x?}");
    let outcomes = [walking.absorb(Signal::Traces, payload, META), reference.decode_traces(payload, META)];
    let [found, expected] = outcomes.map(|outcome| outcome.map_err(|e| e.to_string()));
    assert_eq!(found, expected, "seed {seed}: {payload:02x?}");
    let [found, expected] = [walking.take(), reference.take()].map(|batches| format!("{batches:?}"));
    assert_eq!(found, expected, "seed {seed}: {payload:02x?}");
    walked
}

fn is_walked(payload: &[u8], names: &mut Names) -> bool {
    walk::traces(payload, names, Traces::default()).is_some()
}

fn message(rng: &mut Rng) -> TracesData {
    let resource_spans = (0..rng.usize(1..4)).map(|_| ResourceSpans {
        resource: rng.bool().then(|| Resource {
            attributes: pairs(rng, 0..6),
            dropped_attributes_count: rng.u32(0..2),
            entity_refs: (0..rng.usize(0..2)).map(|_| entity(rng)).collect(),
        }),
        scope_spans: (0..rng.usize(1..4)).map(|_| scope_spans(rng)).collect(),
        schema_url: text(rng),
    });
    TracesData { resource_spans: resource_spans.collect() }
}

fn entity(rng: &mut Rng) -> EntityRef {
    let (id_keys, description_keys) = (vec![text(rng), text(rng)], vec![text(rng)]);
    EntityRef { schema_url: text(rng), r#type: text(rng), id_keys, description_keys }
}

fn scope_spans(rng: &mut Rng) -> ScopeSpans {
    let scope = rng.bool().then(|| InstrumentationScope {
        name: text(rng),
        version: text(rng),
        attributes: pairs(rng, 0..4),
        dropped_attributes_count: rng.u32(0..2),
    });
    ScopeSpans { scope, spans: (0..rng.usize(1..5)).map(|_| one_span(rng)).collect(), schema_url: text(rng) }
}

fn one_span(rng: &mut Rng) -> Span {
    let start = if rng.u8(0..8) == 0 { 0 } else { 1_790_000_000_000_000_000 + rng.u64(0..1_000_000_000) };
    let event = |rng: &mut Rng| Event {
        time_unix_nano: start * rng.u64(0..2),
        name: if rng.bool() { "exception".to_owned() } else { text(rng) },
        attributes: pairs(rng, 0..5),
        dropped_attributes_count: rng.u32(0..2),
    };
    let link = |rng: &mut Rng| Link {
        trace_id: vec![1; rng.usize(0..17)],
        span_id: vec![1; 8],
        trace_state: text(rng),
        attributes: pairs(rng, 0..3),
        dropped_attributes_count: 0,
        flags: rng.u32(..),
    };
    Span {
        trace_id: vec![rng.u8(1..4); 16],
        span_id: vec![rng.u8(1..5); 8],
        trace_state: text(rng),
        parent_span_id: vec![rng.u8(0..5); if rng.bool() { 8 } else { 0 }],
        flags: rng.u32(..),
        name: text(rng),
        kind: rng.i32(-1..8),
        start_time_unix_nano: start,
        end_time_unix_nano: start.max(1) + rng.u64(0..1_000_000),
        attributes: pairs(rng, 0..12),
        dropped_attributes_count: rng.u32(0..2),
        events: (0..rng.usize(0..3)).map(|_| event(rng)).collect(),
        dropped_events_count: rng.u32(0..2),
        links: (0..rng.usize(0..2)).map(|_| link(rng)).collect(),
        dropped_links_count: rng.u32(0..2),
        status: rng.bool().then(|| Status { message: text(rng), code: rng.i32(-1..4) }),
    }
}

/// Attributes that columns read, with and without a meaning, and some that none does.
const KEYS: [&str; 16] = [
    "genops.team",
    "team",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.request.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.provider.name",
    "genops.cost.total",
    "exception.type",
    "error.type",
    "genops.policy.result",
    "x.list",
    "x.map",
    "nobody.wants.this",
    "nobody.wants.this.of.a.name.of.more.bytes",
    "somebody.might.want.this.of.a.name.too.long.to.be.remembered.by.those.who.walk",
];

fn pairs(rng: &mut Rng, count: std::ops::Range<usize>) -> Vec<KeyValue> {
    let pair = |rng: &mut Rng| KeyValue {
        key: if rng.u8(0..9) == 0 { text(rng) } else { KEYS[rng.usize(..KEYS.len())].to_owned() },
        value: (rng.u8(0..9) > 0).then(|| any(rng, 0)),
        ..KeyValue::default()
    };
    (0..rng.usize(count)).map(|_| pair(rng)).collect()
}

fn any(rng: &mut Rng, depth: u8) -> AnyValue {
    let value = match rng.u8(0..if depth < 3 { 10 } else { 6 }) {
        0 => return AnyValue { value: None },
        1 => Value::BoolValue(rng.bool()),
        2 => Value::IntValue(rng.i64(-3..1_000)),
        3 => Value::DoubleValue(if rng.bool() { rng.f64() } else { f64::NAN }),
        4 => Value::BytesValue((0..rng.usize(0..5)).map(|_| rng.u8(..)).collect()),
        5..8 => Value::StringValue(text(rng)),
        8 => Value::ArrayValue(ArrayValue { values: (0..rng.usize(0..4)).map(|_| any(rng, depth + 1)).collect() }),
        _ => {
            let pair =
                |rng: &mut Rng| KeyValue { key: text(rng), value: Some(any(rng, depth + 1)), ..KeyValue::default() };
            Value::KvlistValue(KeyValueList { values: (0..rng.usize(0..4)).map(|_| pair(rng)).collect() })
        }
    };
    AnyValue { value: Some(value) }
}

fn text(rng: &mut Rng) -> String {
    const TEXTS: [&str; 13] = [
        "",
        "cx",
        "default",
        "gpt-4o-mini",
        "[]",
        "[\"stop\",\"length\"]",
        "12",
        "0.5",
        "true",
        "é漢🦀",
        " {",
        "blocked",
        "a text of more bytes than a length of one byte can say, as prompts and answers are, and most of what is asked \
         of models has even more of them",
    ];
    TEXTS[rng.usize(..TEXTS.len())].to_owned()
}

/// A few bytes changed, left out, doubled, or a part put elsewhere.
fn mutated(rng: &mut Rng, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len().max(1));
        let part = at..(at + rng.usize(0..20)).min(bytes.len());
        match rng.u8(0..7) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(part)),
            4 => {
                let doubled = bytes[part].to_vec();
                bytes.splice(at..at, doubled);
            }
            // A number stays a number of as many bytes: nothing moves, so that more than the first error is seen.
            5 => bytes[at] = (bytes[at] & 0x80) | rng.u8(0..0x80),
            _ => bytes.extend_from_slice(payload),
        }
    }
    bytes
}
