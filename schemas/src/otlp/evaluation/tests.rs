//! The records as others read them: with the official OTLP types, and with our own decoder.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::{Finding, Revision, State};
use crate::genops::{Action, ReasonCode, SPEC_VERSION, Severity};
use crate::otlp::{Decoder, RecordMeta, Wanted};
use crate::prices::PriceTable;
use crate::rule::{RuleHeader, RuleVersion};
use crate::time::Window;
use crate::violation::{Exemplar, Subject, Violation};

const AT: EventTime = EventTime(1_772_359_201_250_000_000);
const DETECTED: EventTime = EventTime(1_772_359_202_000_000_000);

fn rule(mode: Mode) -> RuleHeader {
    RuleHeader {
        severity: Severity::Critical,
        owner: "finops".to_owned(),
        mode,
        file: "budget.sql".to_owned(),
        version: RuleVersion("0123456789abcdef".to_owned()),
        ..RuleHeader::new("team_daily_budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    }
}

fn violation(code: &str) -> Violation {
    Violation {
        subject: Subject(Map::new()),
        result: PolicyResult::Blocked,
        reason_code: ReasonCode::parse(code).unwrap(),
        observed: Some(140.0),
        threshold: Some(100.0),
        unit: Some("USD".to_owned()),
        message: Some("search has spent 140 of 100 USD".to_owned()),
        valid_until: None,
        params: None,
        window: Some(Window { start: EventTime(0), end: EventTime(86_400_000_000_000) }),
        window_kind: None,
        sample_count: Some(2),
        evidence: Map::new(),
        exemplars: vec![Exemplar {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span_id: "00f067aa0ba902b7".to_owned(),
            value: 79.0,
            partition: 3,
            offset: 118,
        }],
        at: AT,
    }
}

fn event(mode: Mode, state: State, finding: Finding) -> EnforcementEvent {
    let subject = Subject(Map::from_iter([
        ("team".to_owned(), json!("search")),
        ("project".to_owned(), json!("chat")),
        ("request_model".to_owned(), json!("gpt-4o")),
    ]));
    let (directive_id, valid_until) = ("00112233445566778899aabbccddeeff", AT.plus(60_000_000_000));
    let started_at = Some(AT);
    let revision = Revision {
        directive_id,
        revision: 2,
        state,
        subject: &subject,
        finding,
        mode,
        started_at,
        at: AT,
        valid_until,
    };
    let mut event = EnforcementEvent::new("prod-eu", &rule(mode), revision);
    event.data.detected_at = Some(DETECTED);
    event
}

fn blocked(mode: Mode) -> EnforcementEvent {
    event(mode, State::Updated, Finding::from(&violation("BUDGET_EXCEEDED")))
}

/// The log records as the official types read them; every message has one.
fn log_records(event: &EnforcementEvent) -> Vec<LogRecord> {
    let read = |message: Vec<u8>| {
        let request = ExportLogsServiceRequest::decode(message.as_slice()).unwrap();
        let [resource] = request.resource_logs.try_into().unwrap();
        let service = attribute(&resource.resource.unwrap().attributes, "service.name").unwrap();
        assert_eq!(service, text("lictor"));
        let [scope] = resource.scope_logs.try_into().unwrap();
        let [record] = scope.log_records.try_into().unwrap();
        record
    };
    messages(event, Encoding::Protobuf).into_iter().map(read).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<Any> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

/// The rows that our decoder makes of the messages, with these columns.
fn rows(event: &EnforcementEvent, encoding: Encoding, columns: &[&str]) -> Vec<Vec<String>> {
    let wanted = columns.iter().map(|column| (*column).to_owned()).collect();
    let mut decoder = Decoder::new(&Wanted([(Table::Logs, wanted)].into()), &[], Arc::new(PriceTable::empty()));
    for message in messages(event, encoding) {
        let meta = RecordMeta { topic: "lictor.otlp", partition: 0, offset: 0, timestamp_ms: 0 };
        assert_eq!(decoder.absorb(Signal::Logs, &message, meta).unwrap().rejected, None);
    }
    let batches: Vec<RecordBatch> = decoder.take().into_iter().map(|(_, batch)| batch).collect();
    let cell = |batch: &RecordBatch, row: usize, column: &str| {
        let array: &Arc<dyn Array> = batch.column_by_name(column).unwrap();
        array_value_to_string(array, row).unwrap()
    };
    let of_batch = |batch: &RecordBatch| {
        let row = |row| columns.iter().map(|column| cell(batch, row, column)).collect();
        (0..batch.num_rows()).map(row).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}

#[test]
fn the_official_types_read_a_decision_with_the_attributes_of_the_specification() {
    let event = blocked(Mode::Enforce);
    let records = log_records(&event);
    let [decision, _] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(decision.event_name, "genops.policy.evaluated");
    assert_eq!((decision.severity_number, decision.severity_text.as_str()), (21, "FATAL"));
    assert_eq!(decision.time_unix_nano, AT.0.unsigned_abs());
    assert_eq!(decision.observed_time_unix_nano, DETECTED.0.unsigned_abs());
    assert_eq!(hex(&decision.trace_id), event.id, "the evaluation is a unit of its own, named by its event");
    assert_eq!(hex(&decision.span_id), event.id[..16]);
    let found = |key| attribute(&decision.attributes, key);
    for (key, value) in [
        ("genops.policy.name", "team_daily_budget"),
        ("genops.policy.result", "BLOCKED"),
        ("genops.policy.reason_code", "BUDGET_EXCEEDED"),
        ("genops.policy.reason", "search has spent 140 of 100 USD"),
        ("genops.team", "search"),
        ("genops.project", "chat"),
        ("genops.spec.version", SPEC_VERSION),
        ("lictor.selector.request_model", "gpt-4o"),
        ("lictor.directive_id", "00112233445566778899aabbccddeeff"),
        ("lictor.state", "updated"),
        ("lictor.mode", "enforce"),
        ("lictor.action", "block"),
        ("lictor.unit", "USD"),
        ("lictor.valid_until", &event.data.valid_until.to_rfc3339()),
        ("lictor.rule.version", "0123456789abcdef"),
        ("lictor.exemplar.trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(found(key), Some(text(value)), "{key}");
    }
    assert_eq!(found("lictor.revision"), Some(Any::IntValue(2)));
    assert_eq!(found("lictor.observed"), Some(Any::DoubleValue(140.0)));
}

/// Names under `genops.` belong to the specification; what it does not have must not be there.
#[test]
fn no_attribute_takes_a_name_of_the_specification_for_something_else() {
    const OURS: [&str; 11] = [
        "genops.policy.name",
        "genops.policy.result",
        "genops.policy.reason_code",
        "genops.policy.reason",
        "genops.budget.name",
        "genops.budget.consumed",
        "genops.budget.allocated",
        "genops.team",
        "genops.project",
        "genops.spec.version",
        "genops.environment",
    ];
    for record in log_records(&blocked(Mode::Enforce)) {
        let keys: Vec<String> = record.attributes.into_iter().map(|attribute| attribute.key).collect();
        let strange = keys.iter().find(|key| !key.starts_with("lictor.") && !OURS.contains(&key.as_str()));
        assert_eq!(strange, None, "{keys:?}");
    }
}

#[test]
fn a_budget_says_what_is_consumed_of_what_and_nothing_else_does() {
    let records = log_records(&blocked(Mode::Enforce));
    let [_, alert] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(alert.event_name, "genops.budget.alert");
    let found = |key| attribute(&alert.attributes, key);
    assert_eq!(found("genops.budget.name"), Some(text("team_daily_budget")));
    assert_eq!(found("genops.budget.consumed"), Some(Any::DoubleValue(140.0)));
    assert_eq!(found("genops.budget.allocated"), Some(Any::DoubleValue(100.0)));
    assert_eq!(found("genops.team"), Some(text("search")));
    assert_eq!(found("genops.policy.result"), None, "the decision is told once");

    let other = event(Mode::Enforce, State::Firing, Finding::from(&violation("RATE_LIMITED")));
    assert_eq!(log_records(&other).len(), 1);
    let unmeasured = Violation { threshold: None, ..violation("BUDGET_EXCEEDED") };
    assert_eq!(log_records(&event(Mode::Enforce, State::Firing, Finding::from(&unmeasured))).len(), 1);
}

#[test]
fn an_end_is_allowed_and_has_no_reason_code() {
    let records = log_records(&event(Mode::Enforce, State::Resolved, Finding::cleared(None)));
    let [decision] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(attribute(&decision.attributes, "genops.policy.result"), Some(text("ALLOWED")));
    assert_eq!(attribute(&decision.attributes, "genops.policy.reason_code"), None);
    let body = decision.body.clone().unwrap().value;
    let said = "team_daily_budget resolved: project=chat,request_model=gpt-4o,team=search";
    assert_eq!(body, Some(text(said)));
}

#[test]
fn what_is_only_looked_at_blocks_nothing() {
    let records = log_records(&blocked(Mode::Shadow));
    let found = |key| attribute(&records[0].attributes, key);
    assert_eq!(found("genops.policy.result"), Some(text("WARNING")));
    assert_eq!(found("lictor.result"), Some(text("BLOCKED")));
    assert_eq!(found("lictor.mode"), Some(text("shadow")));
}

#[test]
fn our_own_decoder_reads_both_encodings_as_rows_of_logs() {
    let columns = [
        "event_name",
        "policy_name",
        "policy_result",
        "policy_reason_code",
        "policy_reason",
        "team",
        "spec_version",
        "severity_number",
        "budget_name",
        "budget_consumed",
        "budget_allocated",
        "attr:lictor.state",
    ];
    let event = blocked(Mode::Enforce);
    let found = rows(&event, Encoding::Protobuf, &columns);
    let message = "search has spent 140 of 100 USD";
    let name = "team_daily_budget";
    let expected = [
        vec![POLICY_EVALUATED, name, "BLOCKED", "BUDGET_EXCEEDED", message, "search", SPEC_VERSION, "21", "", "", ""],
        vec![BUDGET_ALERT, "", "", "", "", "search", SPEC_VERSION, "21", name, "140.0", "100.0"],
    ];
    let expected: Vec<Vec<&str>> = expected.into_iter().map(|row| [row, vec!["updated"]].concat()).collect();
    assert_eq!(found, expected);
    assert_eq!(rows(&event, Encoding::Json, &columns), found);
}

#[test]
fn times_that_otlp_cannot_write_are_its_first() {
    let mut early = blocked(Mode::Enforce);
    early.time = EventTime(-1);
    early.data.detected_at = None;
    assert_eq!(log_records(&early)[0].time_unix_nano, 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value that JSON has no number for is absent, not a fault.
#[test]
fn a_null_in_the_selector_is_left_out() {
    let mut event = blocked(Mode::Enforce);
    event.data.selector.matches.insert("environment".to_owned(), Value::Null);
    assert_eq!(attribute(&log_records(&event)[0].attributes, "genops.environment"), None);
}
