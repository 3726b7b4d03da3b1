//! What koshi-runtime writes on its standard output, as a collector brings it. The lines were written by koshi-runtime
//! at 4243d97 (`koshi.jsonl`), but for `enforcement`, which is made by its source (`internal/proxy/proxy.go`).

use super::*;

const ALLOWED: usize = 0;
const RECONCILED: usize = 1;
const GUARD: usize = 2;
const IDENTITY: usize = 3;
const SHADOW: usize = 4;
const SHADOW_ALLOWED: usize = 5;
const TIMEOUT: usize = 6;
const KILLED: usize = 7;
const RUNTIME: usize = 8;

/// One of the lines.
fn line(number: usize) -> &'static str {
    include_str!("koshi.jsonl").lines().nth(number).unwrap()
}

/// A record of the Collector's filelog receiver: it knows when it has seen the line, and no more.
fn log(body: Json, attributes: Json) -> Json {
    let record = json!({"observedTimeUnixNano": END, "body": body, "attributes": attributes});
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
}

/// The line as OTLP's map of values.
fn map(line: &str) -> Json {
    let members: serde_json::Map<String, Json> = serde_json::from_str(line).unwrap();
    let any = |value: &Json| match value {
        Json::String(text) => json!({"stringValue": text}),
        number => json!({"intValue": number}),
    };
    let values: Vec<Json> = members.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect();
    json!({"kvlistValue": {"values": values}})
}

/// Checks what becomes of a line, as text, as a map, and as attributes beside its text or alone.
#[track_caller]
fn check(number: usize, expected: &[(&str, &str)]) {
    let line = line(number);
    let members: Json = serde_json::from_str(line).unwrap();
    let parsed: serde_json::Map<String, Json> = members.as_object().unwrap().clone();
    let text = json!({"stringValue": line});
    for record in [log(text.clone(), json!({})), log(map(line), json!({})), log(text, members.clone())] {
        check_row(&rows(Table::Logs, &record), 0, expected);
    }
    let alone = rows(Table::Logs, &log(Json::Null, Json::Object(parsed)));
    let of_record = ["event_time", "severity_text", "severity_number", "body"];
    for (column, value) in expected.iter().filter(|(column, _)| !of_record.contains(column)) {
        assert_eq!(cell(&alone, 0, column), *value, "{column}, as attributes alone");
    }
}

#[test]
fn a_request_that_is_let_through_is_a_reservation_and_an_allowed_decision() {
    check(
        ALLOWED,
        &[
            ("event_name", "genops.budget.reservation"),
            ("policy_result", "ALLOWED"),
            ("policy_result_raw", "request_allowed"),
            ("policy_reason_code", ""),
            ("accounting_reserved", "500.0"),
            ("accounting_unit", "tokens"),
            ("spec_version", "0.1.0"),
            ("event_time", "2026-11-28T23:22:58.888565890"),
            ("severity_text", "INFO"),
            ("severity_number", "9"),
        ],
    );
}

#[test]
fn what_is_reconciled_has_reserved_actual_and_delta() {
    check(
        RECONCILED,
        &[
            ("event_name", "genops.budget.reconciliation"),
            ("policy_result", ""),
            ("accounting_reserved", "500.0"),
            ("accounting_actual", "100.0"),
            ("accounting_delta", "-400.0"),
            ("accounting_unit", "tokens"),
        ],
    );
}

#[test]
fn rejections_are_decisions_with_a_reason_code_of_the_specification() {
    let decision = ("event_name", "genops.policy.evaluated");
    check(
        GUARD,
        &[
            decision,
            ("policy_result", "RATE_LIMITED"),
            ("policy_result_raw", "guard_rejected"),
            ("policy_reason_code", "x_guard_max_tokens"),
            ("policy_reason", "max_tokens exceeds per-request guard"),
            ("severity_number", "13"),
        ],
    );
    check(IDENTITY, &[decision, ("policy_result", "BLOCKED"), ("policy_reason_code", "x_identity_missing")]);
    check(
        KILLED,
        &[
            decision,
            ("policy_result", "BLOCKED"),
            ("policy_result_raw", "kill"),
            ("policy_reason_code", "BUDGET_EXCEEDED"),
            ("accounting_reserved", "900.0"),
        ],
    );
}

#[test]
fn what_its_listener_would_have_done_is_a_warning() {
    let decision = ("event_name", "genops.policy.evaluated");
    check(SHADOW, &[decision, ("policy_result", "WARNING"), ("policy_result_raw", "would_throttle")]);
    check(SHADOW_ALLOWED, &[decision, ("policy_result", "ALLOWED"), ("policy_reason_code", "")]);
}

#[test]
fn its_other_events_keep_their_type_as_name() {
    check(TIMEOUT, &[("event_name", "upstream_timeout"), ("policy_result", ""), ("severity_number", "17")]);
}

#[test]
fn the_line_stays_as_it_is_and_every_member_can_be_read_by_its_name() {
    let names = ["body", "attr:event_type", "attr:workload_id", "attr:reason_code", "attr:tokens_limit"];
    let wanted = BTreeMap::from([(Table::Logs, names.map(ToOwned::to_owned).into())]);
    let mut decoder = Decoder::new(&Wanted(wanted), &[], prices());
    let record = log(json!({"stringValue": line(KILLED)}), json!({})).to_string();
    decoder.absorb(Signal::Logs, record.as_bytes(), META).unwrap();
    let batch = decoder.take().remove(0).1;
    let expected = [line(KILLED), "enforcement", "batch-job", "budget_exhausted_kill", "600"];
    check_row(&batch, 0, &names.into_iter().zip(expected).collect::<Vec<_>>());
}

#[test]
fn what_the_record_says_itself_counts_for_more() {
    let mut record = log(json!({"stringValue": line(GUARD)}), json!({"reason_code": "POLICY_DENY_MODEL"}));
    let said = &mut record["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    said["timeUnixNano"] = json!(START);
    said["severityNumber"] = json!(5);
    let expected = [
        ("event_time", "2026-09-21T14:13:20"),
        ("severity_number", "5"),
        ("severity_text", ""),
        ("policy_reason_code", "POLICY_DENY_MODEL"),
    ];
    check_row(&rows(Table::Logs, &record), 0, &expected);
}

/// Neither koshi's own log, nor text that speaks of its events, nor a line that was cut off, nor other people's JSON.
#[test]
fn other_bodies_are_left_alone() {
    let late = format!("{{\"pad\":\"{}\",\"msg\":\"koshi event\",\"event_type\":\"enforcement\"}}", "é".repeat(1024));
    let quoted = r#"{"msg":"a koshi event","event_type":"enforcement"}"#;
    let lines = [line(RUNTIME), "koshi event", &line(GUARD)[..200], &late, quoted, "{}", "{", ""];
    let bodies = lines.map(|line| json!({"stringValue": line}));
    for body in bodies.into_iter().chain([map(line(RUNTIME)), map(quoted), json!({"intValue": 7})]) {
        let batch = rows(Table::Logs, &log(body.clone(), json!({})));
        let nothing = [("event_name", ""), ("policy_result", ""), ("severity_text", ""), ("spec_version", "")];
        check_row(&batch, 0, &nothing);
        check_row(&batch, 0, &[("event_time", "2026-09-21T14:13:21")]);
    }
}
