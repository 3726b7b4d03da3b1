//! Telemetry that others have made is judged: what lies beside the project, and what emitters of GenOps wrote here.
//!
//! `recorded/genops_sdk.json` was written by the core of the GenOps Python SDK (koshihq/genops-spec at 6b9809a) through
//! OpenTelemetry's SDK; a stack trace in it was shortened. docs/conformance-report.md works it through by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

const SDK: &str = include_str!("../recorded/genops_sdk.json");

/// The recorded telemetry of others, which is no part of the project.
fn fixtures() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures"));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no recorded telemetry at {}", path.display());
    None
}

/// The report of telemetry in a file of this name.
fn judged_text(name: &str, text: &str) -> (TempDir, Report) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let report = judged(&path);
    (folder, report)
}

/// The clauses of the only runtime, by their verdict.
fn verdicts(report: &Report) -> BTreeMap<&str, Vec<(&str, String)>> {
    let [runtime] = report.runtimes.as_slice() else { panic!("{:?}", report.runtimes) };
    let mut verdicts = BTreeMap::<_, Vec<_>>::new();
    for clause in &runtime.clauses {
        let (name, said) = (clause.clause.name.as_str(), report::verdict_text(clause));
        verdicts.entry(clause.verdict.as_str()).or_default().push((name, said));
    }
    verdicts
}

/// None of it bears an attribute or an event of GenOps, so that nobody is accused of anything.
#[test]
fn recorded_fixtures_claim_nothing_and_are_told_so() {
    let Some(fixtures) = fixtures() else { return };
    let report = judged(&fixtures);
    assert!(report.runtimes.is_empty(), "{:?}", report.runtimes);
    assert!(report.is_below(Level::Partial));
    let silent = report.others.iter().map(|(who, spans)| (who.service.as_str(), *spans));
    let silent = silent.fold(BTreeMap::<_, u64>::new(), |mut by_service, (service, spans)| {
        *by_service.entry(service).or_default() += spans;
        by_service
    });
    // The trace of kagent is there twice, as protobuf and as JSON.
    let expected = [("analytics-service", 3), ("helm_agent", 134), ("kagent-controller", 38), ("my.service", 1)];
    assert_eq!(silent, BTreeMap::from(expected));
    // Bare spans, maps of attributes and lists of cases are no OTLP; the span of langwatch has no valid id.
    assert_eq!(report.account.counts.dead_letters.values().sum::<u64>(), 4 + 2 + 1 + 1 + 1);
    let rows: Vec<_> = report.rows().into_iter().map(|(table, used, late)| (table.name(), used, late)).collect();
    assert_eq!(rows, [("spans", 176, 0), ("span_events", 10, 0), ("logs", 3, 0)]);
}

#[test]
fn recorded_spans_that_are_no_otlp_alone_claim_nothing_in_an_envelope() {
    let Some(fixtures) = fixtures() else { return };
    let read = |file: &str| -> Value { serde_json::from_slice(&fs::read(fixtures.join(file)).unwrap()).unwrap() };
    let mut lines = Vec::new();
    for (number, file) in ["bad-request", "detailed-usage", "parallel-tools"].into_iter().enumerate() {
        let mut span = read(&format!("envoy-ai-gateway/chat-{file}.json"));
        span["traceId"] = json!("1".repeat(32));
        span["spanId"] = json!(format!("{:016x}", number + 1));
        span["endTimeUnixNano"] = json!("1772359200000000000");
        lines.push(json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}));
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (_folder, report) = judged_text("a.jsonl", &text);
    assert!(report.runtimes.is_empty() && report.account.counts.dead_letters.is_empty());
    assert_eq!(report.others.iter().map(|(_, spans)| spans).sum::<u64>(), 3);
}

/// What a reader of the specification finds in that file: docs/conformance-report.md says why.
#[test]
fn the_sdks_telemetry_is_judged_as_by_hand() {
    let (_folder, report) = judged_text("genops_sdk.json", SDK);
    let verdicts = verdicts(&report);
    let of = |word: &str| -> Vec<(&str, &str)> {
        verdicts[word].iter().map(|(name, said)| (*name, said.as_str())).collect()
    };
    let failed = [
        ("genops_4_1_decision_state", "3 of 3"),
        ("genops_7_1_required_attributes", "4 of 4"),
        ("genops_7_2_decision_event", "3 of 3"),
        ("genops_9_1_8_meaningful_values", "1 of 4"),
    ];
    let passed = [
        ("genops_2_2_identifier_reused", "4 judged"),
        ("genops_2_3_attribution_immutable", "4 judged"),
        ("genops_7_1_attribute_types", "4 judged"),
    ];
    assert_eq!((of("failed"), of("passed")), (failed.to_vec(), passed.to_vec()));
    assert!(of("not assessable").iter().all(|(_, why)| *why == "nothing to which it applies"));
    assert_eq!((report.runtimes[0].level, report.runtimes[0].awus()), (Level::None, 4));
}

/// Words in lower case are no decision states, and what depends on one is not judged: written right, more is missing.
#[test]
fn what_the_sdks_words_hide_shows_once_they_are_in_upper_case() {
    let text = ["allowed", "blocked", "warning"].into_iter().fold(SDK.to_owned(), |text, word| {
        text.replace(&format!("\"{word}\""), &format!("\"{}\"", word.to_uppercase()))
    });
    let (_folder, report) = judged_text("upper.json", &text);
    let failed: Vec<_> = verdicts(&report).remove("failed").unwrap();
    let failed: Vec<_> = failed.iter().map(|(name, said)| (*name, said.as_str())).collect();
    let expected = [
        ("genops_3_3_reconciliation_event", "2 of 2"),
        ("genops_3_3_reservation_event", "2 of 2"),
        ("genops_5_3_reason_code_required", "2 of 2"),
        ("genops_7_1_actual_attribute", "2 of 2"),
        ("genops_7_1_required_attributes", "4 of 4"),
        ("genops_7_1_reservation_attributes", "2 of 2"),
        ("genops_7_2_decision_event", "3 of 3"),
        ("genops_9_1_8_meaningful_values", "1 of 4"),
    ];
    assert_eq!(failed, expected);
}

#[test]
fn the_report_in_the_docs_is_the_one_that_is_printed() {
    let (folder, report) = judged_text("genops_sdk.json", SDK);
    let printed = markdown::document(&report, 10).replace(&format!("{}/", folder.path().display()), "");
    let docs = include_str!("../../../../../docs/conformance-report.md");
    assert!(docs.contains(&printed), "{printed}");
}

/// Lines that koshi-runtime has written, as a collector sends them: they mean events of GenOps, in other words.
#[test]
fn koshis_events_are_those_of_genops_and_lack_its_attributes() {
    let lines = include_str!("../../../../../schemas/src/otlp/tests/koshi.jsonl").lines();
    let body = |line| json!({"observedTimeUnixNano": "1795908180000000000", "body": {"stringValue": line}});
    let records: Vec<Value> = lines.map(body).collect();
    let service = json!([{"key": "service.name", "value": {"stringValue": "koshi"}}]);
    let sent = json!({"resourceLogs": [{
        "resource": {"attributes": service}, "scopeLogs": [{"logRecords": records}],
    }]});
    let (_folder, report) = judged_text("koshi.json", &sent.to_string());
    let mut verdicts = verdicts(&report);
    let said =
        |of: Vec<(&str, String)>| of.into_iter().map(|(name, said)| format!("{name}: {said}")).collect::<Vec<_>>();
    let failed = [
        // No record of its says of which unit of work it is: they are one subject, and one violation.
        "genops_8_1_policy_evaluated: 1 of 5",
        "genops_8_2_budget_reservation: 1 of 1",
        "genops_8_3_budget_reconciliation: 1 of 1",
    ];
    assert_eq!(said(verdicts.remove("failed").unwrap()), failed);
    assert_eq!(verdicts.remove("passed").map(said), None);
    let parent = verdicts["not assessable"].iter().find(|(name, _)| *name == "genops_4_4_parent_awu").unwrap();
    assert_eq!(parent.1, "no traces were read");
    assert_eq!((report.runtimes[0].level, report.runtimes[0].events()), (Level::None, [0, 7]));
}
