//! `lictor conformance`, as people call it, over topics: telemetry that keeps to GenOps, telemetry that does not, and
//! the calls that the guard has stopped.

use std::path::Path;
use std::process::{Command, Output};

use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::company::Company;
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::otlp::stopped::StoppedCall;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::SECOND_NS;
use crate::cluster::Cluster;

fn conformance(config: &Path, arguments: &[&str]) -> Output {
    let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
    lictor.arg("conformance").arg("-c").arg(config).args(arguments).output().unwrap()
}

/// The report as JSON, of telemetry for which the command ends with `code`.
#[track_caller]
fn report(config: &Path, level: &str, code: i32) -> Value {
    let output = conformance(config, &["--format", "json", "--level", level]);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn runtime<'a>(report: &'a Value, service: &str) -> &'a Value {
    let mut runtimes = report["runtimes"].as_array().unwrap().iter();
    runtimes.find(|runtime| runtime["service"] == service).unwrap_or_else(|| panic!("{service} is not in the report"))
}

fn failed(runtime: &Value) -> Vec<&str> {
    let clauses = runtime["clauses"].as_array().unwrap().iter();
    clauses.filter(|clause| clause["verdict"] == "failed").map(|clause| clause["clause"].as_str().unwrap()).collect()
}

/// A minute of the demo's company, as it is sent: topic, payload.
fn company(start: EventTime) -> Vec<(&'static str, Vec<u8>)> {
    let sent = Company::new(1, start).governed().next_batch(start.plus(60 * SECOND_NS)).into_iter();
    let topic = |signal| match signal {
        Signal::Traces => Some("spans"),
        Signal::Logs => Some("logs"),
        Signal::Metrics => None,
    };
    sent.filter_map(|(signal, _, payload)| Some((topic(signal)?, payload))).collect()
}

/// A unit of work whose result is no decision state, and that has none of what it should have.
fn careless(at: EventTime) -> Vec<u8> {
    let columns = json!({
        "service_name": "careless", "trace_id": "1".repeat(32), "span_id": "2".repeat(16),
        "attr:genops.policy.result": "allowed",
    });
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    encode_protobuf(Signal::Traces, &[RowDraft { table: Table::Spans, event_time: at, columns }]).unwrap()
}

/// As the guard writes it.
fn stopped(at: EventTime) -> Vec<u8> {
    let said = vec![("team", "docs"), ("project", "answers"), ("environment", "production")];
    let call = StoppedCall {
        at,
        trace_id: 7,
        span_id: 8,
        parent_span_id: None,
        said,
        result: PolicyResult::Blocked,
        reason_code: Some("BUDGET_EXCEEDED"),
        rule: Some("budget"),
        message: None,
        directive_id: Some("d1"),
    };
    call.to_message()
}

#[test]
fn conformance_over_topics_tells_who_keeps_to_genops_and_ends_with_three_if_somebody_does_not() {
    let Some(cluster) = Cluster::from_env("conformance") else { return };
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("lictor.yaml");
    let text = format!(
        "application_id: {name}.app\nrules: .\nkafka: {{bootstrap.servers: \"{servers}\"}}\n\
         topics: {{traces: [{name}.spans], logs: [{name}.logs], metrics: []}}\n",
        name = cluster.name,
        servers = cluster.properties.bootstrap_servers(),
    );
    std::fs::write(&config, text).unwrap();
    ["spans", "logs"].into_iter().for_each(|topic| cluster.make_topic(topic, 1, false));
    // Reports take a while: what comes after one must not be older than what a silence of so long lets pass.
    let start = SystemClock::start().now().plus(-60 * SECOND_NS);
    let empty = conformance(&config, &[]);
    assert_eq!(empty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is no telemetry"), "{empty:?}");

    for topic in ["spans", "logs"] {
        let payloads = company(start).into_iter().filter(|(of, _)| *of == topic).map(|(_, payload)| Some(payload));
        cluster.produce(topic, payloads.collect()).unwrap();
    }
    let conformant = report(&config, "full", 0);
    let levels = conformant["runtimes"].as_array().unwrap().iter().map(|runtime| runtime["level"].as_str().unwrap());
    let levels: Vec<&str> = levels.collect();
    assert!(levels.len() >= 6 && levels.iter().all(|level| *level == "full"), "{levels:?}");

    cluster.produce("spans", vec![Some(stopped(start.plus(60 * SECOND_NS)))]).unwrap();
    let partial = report(&config, "partial", 0);
    assert_eq!(runtime(&partial, "lictor-guard")["level"], "partial");
    assert_eq!(failed(runtime(&partial, "lictor-guard")), Vec::<&str>::new());
    assert_eq!(conformance(&config, &["--level", "full"]).status.code(), Some(3));

    cluster.produce("spans", vec![Some(careless(start.plus(60 * SECOND_NS)))]).unwrap();
    let broken = report(&config, "partial", 3);
    let careless = runtime(&broken, "careless");
    let expected = ["genops_4_1_decision_state", "genops_7_1_required_attributes", "genops_7_2_decision_event"];
    assert_eq!((failed(careless), careless["level"].as_str()), (expected.to_vec(), Some("none")));
    let state = careless["clauses"].as_array().unwrap().iter();
    let state = state.clone().find(|clause| clause["clause"] == "genops_4_1_decision_state").unwrap();
    let place = state["exemplars"][0]["place"].as_str().unwrap();
    assert!(place.starts_with(&format!("{}[0]@", cluster.topic("spans"))), "{place}");
    // The others are who they were.
    assert_eq!(broken["runtimes"].as_array().unwrap().len(), levels.len() + 2);
}
