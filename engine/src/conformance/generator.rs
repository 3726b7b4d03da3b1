//! Telemetry that keeps to GenOps, and telemetry that breaks one clause only.
//!
//! A runtime's day: units of work that are let through, warned of, blocked before and after they have reserved, limited
//! in rate, and one that fails. Everything that the specification asks for is there, so that every clause has something
//! to judge. A break ([`BREAKS`]) changes one of them so that one clause is broken and no other.

use std::collections::BTreeMap;

use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000_000;

/// How a runtime sends its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    SpanEvents,
    Logs,
}

/// An event of a unit of work.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: &'static str,
    /// When, in seconds after the unit's beginning.
    pub(super) after_s: f64,
    pub(super) attributes: BTreeMap<String, Value>,
}

/// A unit of work: a span, its events, and the spans below it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Awu {
    /// Columns of the span.
    pub(super) columns: BTreeMap<String, Value>,
    pub(super) events: Vec<Event>,
    /// Spans below it that call a model: when they begin, in seconds after the unit's beginning, and their tokens.
    pub(super) calls: Vec<(f64, i64)>,
    pub(super) begins: EventTime,
}

impl Awu {
    pub(super) fn set(&mut self, attribute: &str, value: impl Into<Value>) {
        self.columns.insert(format!("attr:{attribute}"), value.into());
    }

    pub(super) fn event(&mut self, name: &str) -> &mut Event {
        self.events.iter_mut().find(|event| event.name == name).unwrap()
    }

    pub(super) fn drop_event(&mut self, name: &str) {
        self.events.retain(|event| event.name != name);
    }
}

impl Event {
    pub(super) fn set(&mut self, attribute: &str, value: impl Into<Value>) {
        self.attributes.insert(format!("attr:{attribute}"), value.into());
    }
}

pub(super) const DECISION: &str = "genops.policy.evaluated";
pub(super) const RESERVATION: &str = "genops.budget.reservation";
pub(super) const RECONCILIATION: &str = "genops.budget.reconciliation";

const RESERVED: f64 = 0.02;
const ACTUAL: f64 = 0.018;

pub(super) fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T10:00:00Z").unwrap()
}

/// What a unit of work is decided to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Allowed,
    Warned,
    /// Before it has reserved.
    Blocked,
    /// After it has reserved.
    BlockedLate,
    ReservationFailed,
    Limited,
    /// Let through, and ended with an error before it had consumed.
    Erred,
}

const KINDS: [Kind; 7] = [
    Kind::Allowed,
    Kind::Warned,
    Kind::Blocked,
    Kind::BlockedLate,
    Kind::ReservationFailed,
    Kind::Limited,
    Kind::Erred,
];

/// Which unit of [`day`] is which.
pub(super) const ALLOWED: usize = 0;
pub(super) const WARNED: usize = 1;
pub(super) const BLOCKED: usize = 2;
pub(super) const BLOCKED_LATE: usize = 3;

/// A conformant runtime's units of work: `rounds` times one of each kind.
pub(super) fn day(service: &str, rounds: usize) -> Vec<Awu> {
    (0..rounds * KINDS.len()).map(|number| awu(service, number, KINDS[number % KINDS.len()])).collect()
}

fn awu(service: &str, number: usize, kind: Kind) -> Awu {
    let (result, reason) = match kind {
        Kind::Allowed | Kind::Erred => ("ALLOWED", None),
        Kind::Warned => ("WARNING", Some("x_near_budget")),
        Kind::Blocked | Kind::BlockedLate => ("BLOCKED", Some("BUDGET_EXCEEDED")),
        Kind::ReservationFailed => ("BLOCKED", Some("BUDGET_RESERVATION_FAILED")),
        Kind::Limited => ("RATE_LIMITED", Some("RATE_LIMITED")),
    };
    let executes = matches!(kind, Kind::Allowed | Kind::Warned);
    let reserves = executes || matches!(kind, Kind::BlockedLate | Kind::Erred);
    let begins = start().plus(i64::try_from(number).unwrap() * 20 * SECOND);
    let mut awu = Awu {
        columns: BTreeMap::from([
            ("service_name".to_owned(), json!(service)),
            ("trace_id".to_owned(), json!(trace_id(service, number))),
            ("span_id".to_owned(), json!(format!("{:016x}", number + 1))),
            ("parent_span_id".to_owned(), json!("00000000000000ff")),
            ("kind".to_owned(), json!("INTERNAL")),
            ("name".to_owned(), json!("answer")),
            ("duration_ms".to_owned(), json!(3000)),
            ("status_code".to_owned(), json!(if kind == Kind::Erred { "ERROR" } else { "OK" })),
        ]),
        events: Vec::new(),
        calls: if executes { vec![(0.5, 100)] } else { Vec::new() },
        begins,
    };
    for (attribute, value) in [
        ("genops.team", json!("search")),
        ("genops.project", json!("answers")),
        ("genops.environment", json!("production")),
        ("genops.operation.name", json!("answer a question")),
        ("genops.operation.type", json!("inference")),
        ("genops.spec.version", json!("0.1.0")),
        ("genops.policy.result", json!(result)),
        ("genops.policy.reason_code", json!(reason)),
        ("genops.accounting.reserved", json!(reserves.then_some(RESERVED))),
        ("genops.accounting.unit", json!(reserves.then_some("USD"))),
        ("genops.accounting.actual", json!(executes.then_some(ACTUAL))),
    ] {
        awu.set(attribute, value);
    }
    if kind == Kind::Allowed {
        awu.set("genops.sla.tier", "gold");
        awu.set("genops.sla.latency_target_ms", 4000);
        awu.set("genops.sla.actual_latency_ms", 3000);
        awu.set("genops.sla.met", true);
    }
    awu.events = events(result, reason, reserves, executes);
    awu
}

/// Another one for each unit of work of each service.
fn trace_id(service: &str, number: usize) -> String {
    let hash = service.bytes().fold(5381_u64, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte));
    format!("{hash:016x}{:016x}", number + 1)
}

fn events(result: &str, reason: Option<&str>, reserves: bool, executes: bool) -> Vec<Event> {
    let event = |name, after_s, attributes: &[(&str, Value)]| Event {
        name,
        after_s,
        attributes: attributes.iter().map(|(name, value)| (format!("attr:{name}"), value.clone())).collect(),
    };
    let decision = [
        ("genops.policy.result", json!(result)),
        ("genops.policy.reason_code", json!(reason)),
        ("genops.team", json!("search")),
    ];
    let reserved = [("genops.accounting.reserved", json!(RESERVED)), ("genops.accounting.unit", json!("USD"))];
    let mut reconciled = reserved.to_vec();
    reconciled.push(("genops.accounting.actual", json!(ACTUAL)));
    reconciled.push(("genops.accounting.reconciliation_delta", json!(ACTUAL - RESERVED)));
    let cost = [("genops.cost.total", json!(ACTUAL)), ("genops.cost.currency", json!("USD"))];
    let mut events = vec![event(DECISION, 0.1, &decision)];
    if reserves {
        events.push(event(RESERVATION, 0.2, &reserved));
    }
    if executes {
        events.push(event("genops.cost.calculated", 2.8, &cost));
        events.push(event(RECONCILIATION, 2.9, &reconciled));
    }
    events
}

/// Which spans and log records a sampler keeps; it may mark them.
pub(super) type Keep<'a> = &'a mut dyn FnMut(&mut RowDraft) -> bool;

/// A message: when it is sent, what it carries, its bytes.
pub(super) type Message = (EventTime, Signal, Vec<u8>);

/// The messages of a runtime, in the order in which they are sent.
pub(super) fn messages(awus: &[Awu], carrier: Carrier, keep: Keep<'_>) -> Vec<Message> {
    let mut messages = Vec::new();
    for awu in awus {
        let (mut spans, mut events) = drafts(awu);
        if carrier == Carrier::Logs {
            events.iter_mut().for_each(to_log);
            events.retain_mut(&mut *keep);
            if !events.is_empty() {
                messages.push((awu.begins, Signal::Logs, encode_protobuf(Signal::Logs, &events).unwrap()));
            }
            events.clear();
        }
        spans.retain_mut(&mut *keep);
        if !spans.is_empty() {
            messages.push((awu.begins, Signal::Traces, with_events(&spans, &events)));
        }
    }
    messages
}

/// The spans of a unit of work, its own last but for the request that it is part of, and its events.
fn drafts(awu: &Awu) -> (Vec<RowDraft>, Vec<RowDraft>) {
    let ids = ["trace_id", "span_id"].map(|name| (name.to_owned(), awu.columns[name].clone()));
    let after = |seconds: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
        let ns = (seconds * 1e9) as i64;
        awu.begins.plus(ns)
    };
    let mut spans = Vec::new();
    for (number, (begins_s, tokens)) in awu.calls.iter().enumerate() {
        let columns = json!({
            "trace_id": ids[0].1, "span_id": format!("c{number:015x}"), "parent_span_id": ids[1].1, "kind": "CLIENT",
            "name": "chat", "start_time": after(*begins_s).0, "input_tokens": tokens, "output_tokens": 10,
        });
        spans.push(draft(Table::Spans, after(2.5), columns));
    }
    spans.push(RowDraft { table: Table::Spans, event_time: after(3.0), columns: awu.columns.clone() });
    let request = json!({
        "trace_id": ids[0].1, "span_id": awu.columns["parent_span_id"], "kind": "SERVER", "name": "POST /answer",
        "duration_ms": 3100,
    });
    spans.push(draft(Table::Spans, after(3.1), request));
    let events = awu.events.iter().map(|event| {
        let mut columns = event.attributes.clone();
        columns.extend(ids.clone());
        columns.insert("name".to_owned(), json!(event.name));
        RowDraft { table: Table::SpanEvents, event_time: after(event.after_s), columns }
    });
    let mut events: Vec<_> = events.collect();
    for draft in spans.iter_mut().chain(&mut events) {
        draft.columns.insert("service_name".to_owned(), awu.columns["service_name"].clone());
        sign(draft);
    }
    (spans, events)
}

fn draft(table: Table, event_time: EventTime, columns: Value) -> RowDraft {
    RowDraft { table, event_time, columns: columns.as_object().unwrap().clone().into_iter().collect() }
}

/// Who sends it.
fn sign(draft: &mut RowDraft) {
    for (column, value) in [
        ("scope_name", "genops"),
        ("scope_version", "1.4"),
        ("resource_attr:service.instance.id", "gateway-1"),
        ("resource_attr:telemetry.sdk.name", "opentelemetry"),
    ] {
        draft.columns.entry(column.to_owned()).or_insert_with(|| json!(value));
    }
}

fn to_log(event: &mut RowDraft) {
    event.table = Table::Logs;
    let name = event.columns.remove("name").unwrap();
    event.columns.insert("event_name".to_owned(), name);
}

/// Spans with their events on them, as OTLP/JSON: a draft of an event would bring a span of its own.
fn with_events(spans: &[RowDraft], events: &[RowDraft]) -> Vec<u8> {
    let encoded = |drafts: &[RowDraft]| -> Value {
        serde_json::from_slice(&encode_json(Signal::Traces, drafts).unwrap()).unwrap()
    };
    let (mut message, mut carriers) = (encoded(spans), encoded(events));
    let mut carried = Vec::new();
    for_each_span(&mut carriers, &mut |span| carried.push(span.clone()));
    for_each_span(&mut message, &mut |span| {
        let of_it = carried.iter().filter(|carrier| carrier["spanId"] == span["spanId"]);
        span["events"] = of_it.map(|carrier| carrier["events"][0].clone()).collect();
    });
    message.to_string().into_bytes()
}

fn for_each_span(message: &mut Value, see: &mut dyn FnMut(&mut Value)) {
    for resource in message["resourceSpans"].as_array_mut().into_iter().flatten() {
        for scope in resource["scopeSpans"].as_array_mut().into_iter().flatten() {
            scope["spans"].as_array_mut().into_iter().flatten().for_each(&mut *see);
        }
    }
}

/// Breaks one clause.
pub(super) type Break = fn(&mut Vec<Awu>);

/// For every clause, in their order, what breaks only it.
pub(super) const BREAKS: &[(&str, Break)] = &[
    ("genops_2_2_identifier_reused", |day| {
        let mut again = day[ALLOWED].clone();
        again.columns.insert("name".to_owned(), json!("answer once more"));
        day.push(again);
    }),
    ("genops_2_3_attribution_immutable", |day| day[ALLOWED].event(DECISION).set("genops.team", "ads")),
    ("genops_2_4_consumption_order", |day| day[ALLOWED].calls[0].0 = -2.0),
    ("genops_2_4_event_order", |day| {
        day[ALLOWED].calls.clear();
        day[ALLOWED].event(RESERVATION).after_s = 2.95;
    }),
    ("genops_3_3_reconciliation_event", |day| day[ALLOWED].drop_event(RECONCILIATION)),
    ("genops_3_3_reservation_event", |day| day[ALLOWED].drop_event(RESERVATION)),
    ("genops_3_5_failed_reservation", |day| {
        day[WARNED].set("genops.policy.reason_code", "BUDGET_RESERVATION_FAILED");
    }),
    ("genops_4_1_blocked_child_proceeds", |day| day[BLOCKED].calls.push((0.5, 100))),
    ("genops_4_1_blocked_proceeds", |day| {
        day[BLOCKED].columns.insert("output_tokens".to_owned(), json!(10));
    }),
    ("genops_4_1_decision_state", |day| day[ALLOWED].set("genops.policy.result", "allowed")),
    ("genops_4_3_decision_modified", |day| {
        let decision = day[ALLOWED].event(DECISION);
        decision.set("genops.policy.result", "WARNING");
        decision.set("genops.policy.reason_code", "x_near_budget");
    }),
    ("genops_4_4_parent_awu", |day| day[BLOCKED].columns.retain(|column, _| !column.starts_with("attr:genops."))),
    ("genops_5_3_reason_code_required", |day| day[BLOCKED].set("genops.policy.reason_code", Value::Null)),
    ("genops_5_3_reason_code_with_allowed", |day| day[ALLOWED].set("genops.policy.reason_code", "x_fine")),
    ("genops_5_4_reason_code_taxonomy", |day| day[BLOCKED].set("genops.policy.reason_code", "too expensive")),
    ("genops_6_3_sla_attributes", |day| day[ALLOWED].set("genops.sla.tier", Value::Null)),
    ("genops_6_3_sla_met", |day| day[ALLOWED].set("genops.sla.met", false)),
    ("genops_7_1_actual_attribute", |day| day[ALLOWED].set("genops.accounting.actual", Value::Null)),
    ("genops_7_1_attribute_types", |day| day[ALLOWED].set("genops.tokens.input", "many")),
    ("genops_7_1_required_attributes", |day| day[ALLOWED].set("genops.project", Value::Null)),
    ("genops_7_1_reservation_attributes", |day| day[ALLOWED].set("genops.accounting.unit", Value::Null)),
    ("genops_7_2_decision_event", |day| day[WARNED].drop_event(DECISION)),
    ("genops_7_2_1_reconciliation_without_execution", |day| {
        let reconciliation = day[ALLOWED].event(RECONCILIATION).clone();
        day[BLOCKED_LATE].events.push(reconciliation);
    }),
    ("genops_8_1_policy_evaluated", |day| {
        day[BLOCKED].event(DECISION).set("genops.policy.reason_code", Value::Null);
    }),
    ("genops_8_2_budget_reservation", |day| {
        day[ALLOWED].event(RESERVATION).set("genops.accounting.unit", Value::Null);
    }),
    ("genops_8_3_budget_reconciliation", |day| {
        day[ALLOWED].event(RECONCILIATION).set("genops.accounting.unit", Value::Null);
    }),
    ("genops_8_3_reconciliation_delta", |day| {
        day[ALLOWED].event(RECONCILIATION).set("genops.accounting.reconciliation_delta", 0.5);
    }),
    ("genops_8_3_reconciliation_matches", |day| {
        let reconciliation = day[ALLOWED].event(RECONCILIATION);
        reconciliation.set("genops.accounting.reserved", 0.03);
        reconciliation.set("genops.accounting.reconciliation_delta", ACTUAL - 0.03);
    }),
    ("genops_8_4_optional_events", |day| {
        day[ALLOWED].event("genops.cost.calculated").set("genops.cost.currency", Value::Null);
    }),
    ("genops_9_1_8_meaningful_values", |day| day[ALLOWED].set("genops.project", "default")),
    ("genops_11_1_one_version", |day| day[ALLOWED].set("genops.spec.version", "0.1.1")),
    ("genops_11_3_version_format", |day| {
        day.iter_mut().for_each(|awu| awu.set("genops.spec.version", "0.1"));
    }),
];
