//! The type against its JSON Schema, and the ids.

use super::*;
use crate::rule::RuleVersion;

pub(super) fn rule() -> RuleHeader {
    RuleHeader {
        description: "Blocks a team that has spent its day.".to_owned(),
        severity: Severity::Critical,
        owner: "finops".to_owned(),
        ttl_ns: 600_000_000_000,
        file: "cost/team_daily_budget.sql".to_owned(),
        version: RuleVersion("0123456789abcdef".to_owned()),
        ..RuleHeader::new("team_daily_budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    }
}

fn subject() -> Subject {
    Subject(Map::from_iter([("project".to_owned(), json!("chat")), ("team".to_owned(), json!("search"))]))
}

fn violation(result: PolicyResult) -> Violation {
    let at = EventTime::from_rfc3339("2026-03-01T10:00:01.25Z").unwrap();
    Violation {
        subject: subject(),
        result,
        reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
        observed: Some(81.5),
        threshold: Some(100.0),
        unit: Some("USD".to_owned()),
        message: Some("search has spent 81.50 of 100 USD".to_owned()),
        valid_until: None,
        params: Some(json!({"retry_after_ms": 60_000})),
        window: Some(Window { start: EventTime(0), end: EventTime(86_400_000_000_000) }),
        window_kind: None,
        sample_count: Some(2),
        evidence: Map::from_iter([("calls".to_owned(), json!(2))]),
        exemplars: vec![Exemplar {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span_id: "00f067aa0ba902b7".to_owned(),
            value: 79.0,
            partition: 3,
            offset: 118,
        }],
        at,
    }
}

fn event(state: State, finding: Finding) -> EnforcementEvent {
    let subject = subject();
    let id = directive_id(("team_daily_budget", Mode::Enforce), &subject.to_key(), EventTime(0), 0);
    let revision = Revision {
        directive_id: &id,
        revision: 1,
        state,
        subject: &subject,
        finding,
        mode: Mode::Enforce,
        started_at: Some(EventTime::from_ms(1_772_359_201_250)),
        at: EventTime::from_ms(1_772_359_201_250),
        valid_until: EventTime::from_ms(1_772_409_600_000),
    };
    EnforcementEvent::new("prod-eu", &rule(), revision)
}

pub(super) fn schema_errors(message: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(message).map(|error| format!("{} at {}", error, error.instance_path())).collect()
}

fn to_value(event: &EnforcementEvent) -> Value {
    serde_json::from_slice(&event.to_json()).unwrap()
}

fn firing() -> EnforcementEvent {
    event(State::Firing, Finding::from(&violation(PolicyResult::Warning)))
}

#[test]
fn every_state_satisfies_the_schema_and_reads_back() {
    let mut detected = firing();
    detected.data.detected_at = Some(EventTime::from_ms(1_772_359_202_000));
    let ended = Finding::cleared(firing().data.finding.window);
    for event in [
        firing(),
        detected,
        event(State::Updated, Finding::from(&violation(PolicyResult::Blocked))),
        event(State::Resolved, ended.clone()),
        event(State::Expired, ended.clone()),
        event(State::Superseded, ended),
    ] {
        assert_eq!(schema_errors(&to_value(&event)), Vec::<String>::new(), "{}", event.data.state.as_str());
        assert_eq!(EnforcementEvent::from_json(&event.to_json()).unwrap(), event);
    }
}

#[test]
fn the_envelope_repeats_what_routers_look_at() {
    let message = to_value(&firing());
    assert_eq!(message["type"], EVENT_TYPE);
    assert_eq!(message["source"], "/lictor/prod-eu/rules/team_daily_budget");
    assert_eq!(message["subject"], "project=chat,team=search");
    assert_eq!(message["time"], "2026-03-01T10:00:01.250Z");
    assert_eq!(message["partitionkey"], message["data"]["directive_id"]);
    assert_eq!(message["expirytime"], message["data"]["valid_until"]);
    assert_eq!(message["severitytext"], "FATAL");
    assert_eq!(message["sequence"], "0000000001");
    assert_eq!(message["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let headers = firing().headers();
    assert_eq!(headers["content-type"], "application/cloudevents+json; charset=UTF-8");
    assert_eq!(Value::from(headers["ce_id"].clone()), message["id"]);
}

#[test]
fn broken_messages_do_not_satisfy_the_schema() {
    #[track_caller]
    fn refused(pointer: &str, value: Value) {
        let mut message = to_value(&firing());
        *message.pointer_mut(pointer).unwrap() = value.clone();
        assert!(!schema_errors(&message).is_empty(), "{pointer} = {value} is refused");
    }
    refused("/type", json!("io.lictor.enforcement.v2"));
    refused("/id", json!("1"));
    refused("/time", json!("2026-03-01T10:00:01+01:00"));
    refused("/sequence", json!(1));
    refused("/severitynumber", json!(10));
    refused("/data/selector/match", json!({}));
    refused("/data/result", json!("warning"));
    refused("/data/result", json!("ALLOWED"));
    refused("/data/reason_code", json!("because"));
    refused("/data/action", json!("allow"));
    refused("/data/state", json!("resolved"));
    refused("/data/revision", json!(0));
    refused("/data/observed", json!(null));
    refused("/data/exemplars/0/trace_id", json!("4bf9"));
}

#[test]
fn every_required_field_is_required() {
    let whole = to_value(&firing());
    for field in ["id", "source", "time", "subject", "expirytime", "data"] {
        let mut message = whole.clone();
        message.as_object_mut().unwrap().remove(field);
        assert!(!schema_errors(&message).is_empty(), "without {field}");
    }
    for field in ["directive_id", "state", "reason_code", "valid_until", "selector", "rule", "spec_version"] {
        let mut message = whole.clone();
        message["data"].as_object_mut().unwrap().remove(field);
        assert!(!schema_errors(&message).is_empty(), "without data.{field}");
        if field != "reason_code" {
            assert!(EnforcementEvent::from_json(message.to_string().as_bytes()).is_err(), "without data.{field}");
        }
    }
}

#[test]
fn an_ended_directive_has_no_reason_code_and_allows() {
    let event = event(State::Resolved, Finding::cleared(None));
    let message = to_value(&event);
    assert_eq!(message["data"]["action"], "allow");
    assert_eq!(message["data"]["result"], "ALLOWED");
    assert_eq!(message["data"].get("reason_code"), None);
}

#[test]
fn a_directive_is_never_stronger_than_its_row_or_its_rule() {
    assert_eq!(Instruction::of(Action::Block, PolicyResult::Warning), Instruction::Warn);
    assert_eq!(Instruction::of(Action::Block, PolicyResult::RateLimited), Instruction::Throttle);
    assert_eq!(Instruction::of(Action::Block, PolicyResult::Blocked), Instruction::Block);
    assert_eq!(Instruction::of(Action::Notify, PolicyResult::Blocked), Instruction::Notify);
    assert_eq!(Instruction::of(Action::Warn, PolicyResult::Allowed), Instruction::Allow);
}

#[test]
fn ids_depend_on_everything_that_tells_events_apart_and_not_on_the_clock() {
    let first = firing();
    let mut detected = firing();
    detected.data.detected_at = Some(EventTime(1));
    assert_eq!(first.id, detected.id);
    let blocked = event(State::Firing, Finding::from(&violation(PolicyResult::Blocked)));
    let updated = event(State::Updated, Finding::from(&violation(PolicyResult::Warning)));
    assert_ne!(first.id, blocked.id);
    assert_ne!(first.id, updated.id);
    let directive = |key: &str, at: i64, nth: u32| directive_id(("r", Mode::Enforce), key, EventTime(at), nth);
    assert_eq!(directive("a", 1, 0), directive("a", 1, 0));
    assert_ne!(directive("a", 1, 0), directive("b", 1, 0));
    assert_ne!(directive("a", 1, 0), directive("a", 2, 0));
    assert_ne!(directive("a", 1, 0), directive("a", 1, 1));
    let shadow = directive_id(("r", Mode::Shadow), "a", EventTime(1), 0);
    assert_ne!(directive("a", 1, 0), shadow, "what was only looked at is not what is applied");
    assert_eq!(directive("a", 1, 0), "efba31c96ce8f493df6e600b2e4930f7", "ids are for ever");
    assert_eq!(shadow, "b6b0ff7a0f857c5f89a37a82046ae67f");
}

#[test]
fn numbers_and_exemplars_that_json_cannot_carry_are_left_out() {
    let mut odd = violation(PolicyResult::Warning);
    odd.observed = Some(f64::INFINITY);
    odd.threshold = Some(f64::NAN);
    odd.exemplars[0].trace_id = "0".repeat(32);
    let event = event(State::Firing, Finding::from(&odd));
    let message = to_value(&event);
    assert_eq!(message["data"].get("observed"), None);
    assert_eq!(message["data"]["exemplars"], json!([]));
    assert_eq!(message.get("traceparent"), None);
    assert_eq!(schema_errors(&message), Vec::<String>::new());
}

#[test]
fn foreign_messages_are_named_as_such() {
    let foreign = json!({"specversion": "1.0", "type": "com.example.other", "id": "1", "source": "/x"});
    let error = EnforcementEvent::from_json(foreign.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("com.example.other"), "{error}");
    assert!(matches!(EnforcementEvent::from_json(b"\0\0"), Err(EventError::Json(_))));
}
