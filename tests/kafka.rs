//! The real binary beside a real Kafka: OTLP in, enforcement events and directives out, as their readers see them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "kafka/backtest.rs"]
mod backtest;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "kafka/conformance.rs"]
mod conformance;
#[path = "support/headers.rs"]
mod headers;
#[path = "support/instance.rs"]
mod instance;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use cluster::{Cluster, Message, PATIENCE};
use headers::headers;
use instance::Instance;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::shipped;
use lictor_schemas::event::{CONTENT_TYPE, EVENT_TYPE, EnforcementEvent, JSON_SCHEMA};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use tempfile::TempDir;

const SECOND_NS: i64 = 1_000_000_000;
const WINDOW_NS: i64 = 5 * 60 * SECOND_NS;

/// The beginning of a five-minute window in the past, with an hour of its UTC day left.
fn past_window() -> EventTime {
    const HOUR_NS: i64 = 3_600 * SECOND_NS;
    const DAY_NS: i64 = 24 * HOUR_NS;
    let begin = SystemClock::start().now().0 - 2 * HOUR_NS;
    let begin = if begin.rem_euclid(DAY_NS) < DAY_NS - HOUR_NS { begin } else { begin - HOUR_NS };
    EventTime(begin - begin.rem_euclid(WINDOW_NS))
}

fn span(at: EventTime, columns: Value) -> RowDraft {
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    RowDraft { table: Table::Spans, event_time: at, columns }
}

/// A call that costs a team something and breaks no rule.
fn costly(at: EventTime, team: &str, cost: f64) -> RowDraft {
    let model = json!({"provider": "openai", "request_model": "gpt-4o", "response_model": "gpt-4o"});
    let mut draft = span(at, model);
    draft.columns.extend([("team".to_owned(), json!(team)), ("cost_total".to_owned(), json!(cost))]);
    draft
}

/// Calls of a project that all take so long, within one window.
fn calls(window: EventTime, duration_ms: i64) -> Vec<RowDraft> {
    let call = |i: i64| {
        let columns = json!({"team": "checkout", "project": "cart-assistant", "duration_ms": duration_ms,
            "input_tokens": 10, "provider": "openai", "request_model": "gpt-4o", "response_model": "gpt-4o"});
        span(window.plus(10 * i * SECOND_NS), columns)
    };
    (0..25).map(call).collect()
}

/// SIGTERM, and how the process ends then.
fn stop(instance: &mut Instance) -> ExitStatus {
    let status = Command::new("kill").args(["-TERM", &instance.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let clock = SystemClock::start();
    while clock.monotonic() < PATIENCE {
        if let Some(status) = instance.child.try_wait().unwrap() {
            return status;
        }
        thread::yield_now();
    }
    panic!("still running {PATIENCE:?} after SIGTERM");
}

/// What an event says, in a line.
fn line(event: &EnforcementEvent) -> String {
    let data = &event.data;
    let (state, result) = (data.state.as_str(), data.finding.result.as_str());
    format!("{} {} {state} {result} {}", data.rule.name, event.to_subject_text(), data.revision)
}

fn events(messages: &[Message]) -> Vec<EnforcementEvent> {
    messages.iter().map(|m| EnforcementEvent::from_json(m.payload.as_ref().unwrap()).unwrap()).collect()
}

/// The payload that a reader of a compacted topic ends up with, by key.
fn newest(messages: &[Message]) -> BTreeMap<String, Option<Vec<u8>>> {
    let entry = |m: &Message| (String::from_utf8(m.key.clone().unwrap()).unwrap(), m.payload.clone());
    messages.iter().map(entry).collect()
}

#[test]
fn otlp_of_both_encodings_becomes_events_and_directives() {
    let Some(cluster) = Cluster::from_env("kafka-events") else { return };
    cluster.make_topic("spans", 1, false);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _running = Instance::start(&cluster, "judge", &format!("http: 127.0.0.1:{port}"));
    let window = past_window();
    let denied = span(window, json!({"team": "legal", "provider": "deepseek", "request_model": "deepseek-chat"}));
    let protobuf = |drafts: &[RowDraft]| Some(encode_protobuf(Signal::Traces, drafts).unwrap());
    let json = |drafts: &[RowDraft]| Some(encode_json(Signal::Traces, drafts).unwrap());
    let next = |n: i64| window.plus(n * WINDOW_NS);
    let payloads = vec![
        protobuf(&[denied, costly(window, "docs", 50.0)]),
        json(&[costly(window.plus(SECOND_NS), "docs", 20.0)]),
        protobuf(&calls(window, 9_000)),
        json(&calls(next(1), 900)),
        json(&[costly(next(2).plus(60 * SECOND_NS), "docs", 0.1)]),
    ];
    cluster.produce("spans", payloads).unwrap();

    let messages = cluster.read("judge.enforcement", |read| read.len() >= 5);
    let found = events(&messages);
    let denied_model = "provider=deepseek,request_model=deepseek-chat,team=legal";
    let mut lines: Vec<String> = found.iter().map(line).collect();
    lines.sort();
    let expected = [
        "latency_p95 project=cart-assistant firing WARNING 1".to_owned(),
        "latency_p95 project=cart-assistant resolved ALLOWED 2".to_owned(),
        format!("model_allow_list {denied_model} firing BLOCKED 1"),
        "team_daily_budget team=docs firing WARNING 1".to_owned(),
        "team_daily_budget team=docs updated BLOCKED 2".to_owned(),
    ];
    assert_eq!(lines, expected);

    let schema = serde_json::from_str(JSON_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for (message, event) in messages.iter().zip(&found) {
        let value: Value = serde_json::from_slice(message.payload.as_ref().unwrap()).unwrap();
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{value}");
        assert_eq!(message.key.as_deref(), Some(event.data.directive_id.as_bytes()));
        assert!(event.data.detected_at.is_some());
    }

    // Everything that holds now, and a tombstone for what holds no more.
    let directives = cluster.read("judge.directives", |read| read.len() >= 5);
    cluster.make_topic("judge.directives", 1, true);
    let newest = newest(&directives);
    assert_eq!(newest.len(), 3);
    for (message, event) in messages.iter().zip(&found) {
        let holds = &newest[&event.data.directive_id];
        match line(event).as_str() {
            "latency_p95 project=cart-assistant firing WARNING 1" => assert_eq!(*holds, None),
            "team_daily_budget team=docs firing WARNING 1" => assert_ne!(*holds, message.payload),
            text if text.contains("resolved") => assert_eq!(*holds, None),
            _ => assert_eq!(*holds, message.payload),
        }
    }
    assert_headers(&cluster, &found);
    assert_metrics(port);
    assert_verified(&cluster, &found);
}

/// What `lictor verify` says of an event, and its exit code.
fn verified(config: &Path, event: &EnforcementEvent) -> (String, Option<i32>) {
    let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
    let lictor = lictor.args(["verify", "-", "-c"]).arg(config).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = lictor.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&event.to_json()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// Every event follows from the telemetry, and none that says something else.
#[track_caller]
fn assert_verified(cluster: &Cluster, events: &[EnforcementEvent]) {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("verify.yaml");
    let rules = folder.path().join("rules");
    shipped::write_to(&rules).unwrap();
    let text = format!(
        "kafka: {{bootstrap.servers: \"{}\"}}\nrules: {}\ntopics: {{traces: [{}]}}\n",
        cluster.properties.bootstrap_servers(),
        rules.display(),
        cluster.topic("spans"),
    );
    fs::write(&config, text).unwrap();
    for event in events {
        let (said, code) = verified(&config, event);
        assert!(code == Some(0) && said.contains("it follows from the telemetry"), "{}: {said}", line(event));
    }
    let latency = events.iter().find(|event| line(event).starts_with("latency_p95") && !event.data.state.is_ended());
    let tampered = |change: &dyn Fn(&mut EnforcementEvent)| {
        let mut event = latency.unwrap().clone();
        change(&mut event);
        verified(&config, &event)
    };
    let (said, code) = tampered(&|event| event.data.finding.result = PolicyResult::RateLimited);
    assert!(code == Some(1) && said.contains("it does not follow: the telemetry says WARNING, 9000"), "{said}");
    let (said, code) = tampered(&|event| event.data.selector.matches["project"] = json!("another"));
    assert!(code == Some(1) && said.contains("nothing of the kind"), "{said}");
    let (said, code) = tampered(&|event| event.data.rule.version = "0123456789abcdef".to_owned());
    assert!(code == Some(3) && said.contains("the event is of version 0123456789abcdef"), "{said}");
}

/// The headers say what a router wants to know, on both topics, tombstones included.
#[track_caller]
fn assert_headers(cluster: &Cluster, events: &[EnforcementEvent]) {
    for topic in ["judge.enforcement", "judge.directives"] {
        let mut found = headers(cluster, topic, events.len());
        let mut expected: Vec<BTreeMap<String, String>> = events
            .iter()
            .map(|e| e.headers().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            .collect();
        for side in [&mut found, &mut expected] {
            side.sort_by_key(|h| h["ce_id"].clone());
        }
        assert_eq!(found, expected, "{topic}");
        assert!(found.iter().all(|h| h["content-type"] == CONTENT_TYPE && h["ce_type"] == EVENT_TYPE));
    }
}

/// What was read and published is counted, and the engine says that it is ready.
#[track_caller]
fn assert_metrics(port: u16) {
    let ready = get(port, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let expected = [
        "lictor_records_total{outcome=\"used\"} 5",
        "lictor_records_total{outcome=\"dead\"} 0",
        "lictor_rows_total{table=\"spans\",outcome=\"used\"} 54",
        "lictor_events_total{rule=\"latency_p95\",state=\"resolved\",mode=\"enforce\"} 1",
        "lictor_directives_active{rule=\"team_daily_budget\",mode=\"enforce\"} 1",
    ];
    // What is read off the state is up to a second old.
    let clock = SystemClock::start();
    loop {
        let metrics = get(port, "/metrics");
        let missing: Vec<_> = expected.iter().filter(|line| !metrics.lines().any(|found| found == **line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(clock.monotonic() < PATIENCE, "{missing:?} are not in\n{metrics}");
    }
}

fn get(port: u16, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_stopped_instance_goes_on_where_it_was_and_repeats_nothing() {
    let Some(cluster) = Cluster::from_env("kafka-restart") else { return };
    cluster.make_topic("spans", 1, false);
    let at = past_window();
    let payload = |draft: RowDraft| Some(encode_protobuf(Signal::Traces, &[draft]).unwrap());
    let mut first = Instance::start(&cluster, "judge", "http: off");
    cluster.produce("spans", vec![payload(costly(at, "docs", 50.0))]).unwrap();
    cluster.read("judge.enforcement", |read| read.len() == 1);
    let status = stop(&mut first);
    assert!(status.success(), "{status}");

    // Twelve more are too little by themselves; together with what was spent before the stop they block.
    let later = at.plus(10 * SECOND_NS);
    cluster.produce("spans", vec![payload(costly(later, "docs", 12.0))]).unwrap();
    let _second = Instance::start(&cluster, "judge", "http: off");
    cluster.read("judge.enforcement", |read| read.len() >= 2);
    cluster.produce("spans", vec![payload(costly(later, "people", 55.0))]).unwrap();
    let found = events(&cluster.read("judge.enforcement", |read| read.len() >= 3));
    let lines: Vec<String> = found.iter().map(line).collect();
    let expected = [
        "team_daily_budget team=docs firing WARNING 1",
        "team_daily_budget team=docs updated BLOCKED 2",
        "team_daily_budget team=people firing WARNING 1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(found[0].data.directive_id, found[1].data.directive_id);
    assert_eq!(found[1].data.finding.observed, Some(62.0));
}

#[test]
fn a_partition_without_telemetry_does_not_hold_windows_open_for_ever() {
    let Some(cluster) = Cluster::from_env("kafka-idle") else { return };
    cluster.make_topic("spans", 3, false);
    let _running = Instance::start(&cluster, "judge", "http: off\ntime: {idle_after: 2s}");
    let slow = encode_protobuf(Signal::Traces, &calls(past_window(), 9_000)).unwrap();
    cluster.produce("spans", vec![Some(slow)]).unwrap();
    // All partitions are silent soon, so time goes on with the clock: the window closes, and then the next one, in
    // which nothing is slow.
    let found = events(&cluster.read("judge.enforcement", |read| read.len() >= 2));
    let lines: Vec<String> = found.iter().map(line).collect();
    let expected = [
        "latency_p95 project=cart-assistant firing WARNING 1",
        "latency_p95 project=cart-assistant resolved ALLOWED 2",
    ];
    assert_eq!(lines, expected);
}

const COUNTED: &str = "CREATE RULE counted WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed
    FROM TUMBLE(spans, event_time, INTERVAL '100 milliseconds') GROUP BY team, window_start, window_end;";

#[test]
fn telemetry_that_came_while_nobody_read_counts_although_all_was_silent_before() {
    let Some(cluster) = Cluster::from_env("kafka-backlog") else { return };
    let rules = TempDir::new().unwrap();
    fs::write(rules.path().join("counted.sql"), COUNTED).unwrap();
    cluster.make_topic("spans", 2, false);
    let config = format!("http: off\nrules: {}\ntime: {{idle_after: 1s, lateness: 0s}}", rules.path().display());
    let say = |team: &str| {
        let now = SystemClock::start().now();
        let payload = encode_protobuf(Signal::Traces, &[span(now, json!({"team": team}))]).unwrap();
        cluster.produce("spans", vec![Some(payload)]).unwrap();
    };
    let wait_for = |team: &str| {
        let says =
            |m: &Message| line(&events(std::slice::from_ref(m))[0]).starts_with(&format!("counted team={team} "));
        cluster.read("judge.enforcement", |read| read.iter().any(says));
    };
    let first = Instance::start(&cluster, "judge", &config);
    say("before");
    // Nothing else comes: the window closes because all partitions are idle, and time goes on with the clock.
    wait_for("before");
    drop(first);
    // By the time somebody reads this, its window is long over.
    say("meanwhile");
    let _second = Instance::start(&cluster, "judge", &config);
    wait_for("meanwhile");
}
