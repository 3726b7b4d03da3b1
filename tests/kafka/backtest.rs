//! `lictor backtest`, as people call it: over topics that `lictor run` has judged, and over recorded files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lictor_engine::company::Company;
use lictor_engine::shipped;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{encode_json, encode_protobuf};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::{COUNTED, SECOND_NS, costly, events, past_window, span};

/// The demo's rules, in a folder: what they say does not change with every rule that ships.
fn demo_rules(folder: &Path) -> PathBuf {
    let rules = folder.join("demo");
    shipped::write_to(&rules).unwrap();
    rules
}

fn lictor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lictor")).arg("backtest").args(arguments).output().unwrap()
}

/// What it has printed; it must have ended with `code`.
#[track_caller]
fn printed(arguments: &[&str], code: i32) -> String {
    let output = lictor(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it has said of an error.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = lictor(arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The events of a file, without when they were detected, by id.
fn by_id(events: Vec<EnforcementEvent>) -> BTreeMap<String, Value> {
    let entry = |mut event: EnforcementEvent| {
        event.data.detected_at = None;
        (event.id.clone(), serde_json::from_slice(&event.to_json()).unwrap())
    };
    events.into_iter().map(entry).collect()
}

fn written(path: &Path) -> Vec<EnforcementEvent> {
    let lines = fs::read_to_string(path).unwrap();
    lines.lines().map(|line| EnforcementEvent::from_json(line.as_bytes()).unwrap()).collect()
}

/// The company's traces, half a minute in a record.
fn company(start: EventTime, minutes: i64) -> Vec<Option<Vec<u8>>> {
    let mut company = Company::new(1, start).with_traces_per_s(1.0);
    let bundle = |number: i64| {
        let messages = company.next_batch(start.plus(number * 30 * SECOND_NS)).into_iter();
        let traces = messages.filter(|(signal, _, payload)| *signal == Signal::Traces && payload.len() > 100);
        Some(traces.flat_map(|(.., payload)| payload).collect::<Vec<u8>>())
    };
    (1..=2 * minutes).map(bundle).collect()
}

/// The configuration of the application that judges the cluster's spans.
fn configuration(cluster: &Cluster, folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("lictor.yaml");
    let text = format!(
        "application_id: {name}.judge\nkafka: {{bootstrap.servers: \"{servers}\"}}\n\
         topics: {{traces: [{spans}]}}\n{more}\n",
        name = cluster.name,
        servers = cluster.properties.bootstrap_servers(),
        spans = cluster.topic("spans"),
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_backtest_of_a_topic_finds_the_events_that_run_has_published() {
    let Some(cluster) = Cluster::from_env("backtest-run") else { return };
    cluster.make_topic("spans", 1, false);
    let mut payloads = company(past_window(), 30);
    payloads.insert(7, Some(b"\xff this is no telemetry".to_vec()));
    payloads.insert(9, None);
    cluster.produce("spans", payloads.clone()).unwrap();

    let folder = TempDir::new().unwrap();
    let config = configuration(&cluster, folder.path(), &format!("rules: {}", demo_rules(folder.path()).display()));
    let file = folder.path().join("events.jsonl");
    let report = printed(
        &[
            "-c",
            text(&config),
            "--leave-open",
            "--events",
            text(&file),
            "--format",
            "json",
            "--fail-on",
            "dead-letters",
        ],
        3,
    );
    let found = by_id(written(&file));
    assert!(found.len() >= 6, "{}", found.len());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["records"]["read"], json!(payloads.len()));
    assert_eq!(report["dead_letters"]["by_reason"], json!({"empty": 1, "malformed_protobuf": 1}));
    assert_eq!(report["dead_letters"]["first"][0]["offset"], json!(7));
    assert_eq!(report["sources"], json!([format!("{}[0] 0..{}", cluster.topic("spans"), payloads.len())]));

    let _running = Instance::start(&cluster, "judge", "http: off\ntime: {idle_after: 1h}");
    let published = by_id(events(&cluster.read("judge.enforcement", |read| read.len() >= found.len())));
    assert_eq!(published, found);

    // Offsets and times say which of it.
    let partition = format!("{}[0]=0..7", cluster.topic("spans"));
    let report = printed(&["-c", text(&config), "--offsets", &partition, "--format", "json"], 0);
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["records"]["read"], json!(7));
    let report = printed(&["-c", text(&config), "--last", "1h", "--lead", "10m", "--format", "json"], 0);
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["records"]["read"], json!(payloads.len()));
    let error = refused(&["-c", text(&config), "--to", "2026-01-01"]);
    assert!(error.contains("there is no telemetry until 2026-01-01T00:00:00Z"), "{error}");
}

#[test]
fn partitions_that_are_read_in_any_order_give_the_events_that_run_has_published() {
    let Some(cluster) = Cluster::from_env("backtest-partitions") else { return };
    cluster.make_topic("spans", 3, false);
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("counted.sql"), COUNTED).unwrap();
    let start = past_window();
    // Every partition has some: the producer deals records without a key out in batches.
    for second in 0..30 {
        let rows: Vec<_> =
            (0..20).map(|i| costly(start.plus(second * SECOND_NS), &format!("team{}", i % 5), 0.1)).collect();
        cluster.produce("spans", vec![Some(encode_protobuf(Signal::Traces, &rows).unwrap())]).unwrap();
    }
    let rules = format!("rules: {}", folder.path().display());
    let config = configuration(&cluster, folder.path(), &format!("{rules}\ntime: {{lateness: 1h}}"));
    let run = |decoders: &str| {
        let file = folder.path().join(format!("events{decoders}.jsonl"));
        printed(&["-c", text(&config), "--events", text(&file), "--decoders", decoders], 0);
        fs::read(file).unwrap()
    };
    let first = run("1");
    assert_eq!((run("3"), run("2")), (first.clone(), first), "not even their order differs");
    let mut found = by_id(written(&folder.path().join("events1.jsonl")));

    let more = format!("http: off\n{rules}\ntime: {{lateness: 1h, idle_after: 2s}}");
    let _running = Instance::start(&cluster, "judge", &more);
    let published = events(&cluster.read("judge.enforcement", |read| {
        let ids: std::collections::BTreeSet<String> = events(read).into_iter().map(|event| event.id).collect();
        found.keys().all(|id| ids.contains(id))
    }));
    let mut published = by_id(published);
    published.retain(|id, _| found.contains_key(id));
    for events in [&mut published, &mut found] {
        events.values_mut().for_each(|event| drop(event["data"]["exemplars"].take()));
    }
    assert_eq!(published, found);
}

/// A folder of recorded telemetry: of two collectors, one of which writes JSON and one protobuf.
fn recorded(folder: &Path) -> PathBuf {
    let recorded = folder.join("recorded");
    fs::create_dir(&recorded).unwrap();
    let start = EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap();
    let row = |second: i64, team: &str| {
        encode_json(Signal::Traces, &[costly(start.plus(second * SECOND_NS), team, 5.0)]).unwrap()
    };
    let lines: Vec<Vec<u8>> = (0..20).map(|i| row(60 * i, "docs")).collect();
    fs::write(recorded.join("a.jsonl"), lines.join(&b'\n')).unwrap();
    let denied = json!({"team": "legal", "provider": "deepseek", "request_model": "deepseek-chat"});
    let frame = |second: i64| {
        let payload = encode_protobuf(Signal::Traces, &[span(start.plus(second * SECOND_NS), denied.clone())]).unwrap();
        [u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec(), payload].concat()
    };
    fs::write(recorded.join("b.pb"), [frame(90), frame(5_000)].concat()).unwrap();
    recorded
}

/// The shipped rules with another budget for team docs, which has 60.
fn edited(folder: &Path, budget: u32) -> PathBuf {
    let rules = folder.join(format!("rules{budget}"));
    shipped::write_to(&rules).unwrap();
    let budgets = rules.join("cost/budgets.csv");
    let text = fs::read_to_string(&budgets).unwrap();
    assert!(text.contains("docs,60"), "{text}");
    fs::write(&budgets, text.replace("docs,60", &format!("docs,{budget}"))).unwrap();
    rules
}

#[test]
fn recorded_files_are_replayed_and_an_edit_is_told_as_what_it_adds_removes_and_moves() {
    let folder = TempDir::new().unwrap();
    let recorded = recorded(folder.path());
    let rules = demo_rules(folder.path());
    let all = |more: &[&'static str]| -> Vec<String> {
        let own = [text(&rules), "--files", text(&recorded)].map(str::to_owned);
        own.into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    let call = |more: &[&'static str], code: i32| {
        let arguments = all(more);
        printed(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), code)
    };
    let report = call(&["--fail-on", "events"], 3);
    assert!(report.contains("records        22: 22 used, 0 dead-lettered"), "{report}");
    let budget = report.lines().find(|line| line.starts_with("team_daily_budget")).unwrap();
    assert!(budget.contains("60 / 60 USD (team=docs)") && budget.contains("block "), "{report}");
    assert!(call(&["--leave-open", "--fail-on", "dead-letters"], 0).contains("model_allow_list"));

    let (same, higher) = (edited(folder.path(), 60), edited(folder.path(), 80));
    let against = |rules: &Path, more: &[&str], code: i32| {
        let own = [text(rules), "--files", text(&recorded), "--against", text(&same)];
        printed(&[&own[..], more].concat(), code)
    };
    assert!(against(&same, &["--fail-on", "changes"], 0).contains("adds 0 episodes, removes 0, moves 0"));
    let moved = against(&higher, &["--fail-on", "changes"], 3);
    assert!(moved.contains("The edit adds 0 episodes, removes 0, moves 1"), "{moved}");
    assert!(moved.contains("  ~ start\n"), "{moved}");
    let report: Value =
        serde_json::from_str(&against(&higher, &["--format", "json", "--fail-on", "added"], 0)).unwrap();
    let budget = &report["difference"]["rules"].as_array().unwrap().iter().find(|r| r["rule"] == "team_daily_budget");
    assert_eq!(budget.unwrap()["moved"][0]["in"], json!(["start"]));
    let lower = edited(folder.path(), 1_000);
    let page = folder.path().join("report.html");
    let markdown = against(&lower, &["--format", "markdown", "--html", text(&page)], 0);
    assert!(markdown.contains("| `team_daily_budget` | not edited | 0 | 1 | 0 | 0 |"), "{markdown}");
    assert!(markdown.contains("```diff\n- 2026-03-01T08:"), "{markdown}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.matches("<svg").count() >= 1 && page.contains("team=docs"), "{page}");
    let outside = ["<script", "<link", "<img", "href=", "src=", "url("];
    assert_eq!(outside.into_iter().filter(|word| page.contains(word)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn what_cannot_be_replayed_is_refused_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let recorded = recorded(folder.path());
    let rules = demo_rules(folder.path());
    let broken = folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("r.sql"), COUNTED.replace("GROUP BY team,", "GROUP BY")).unwrap();
    let error = refused(&[text(&broken), "--files", text(&recorded)]);
    assert!(error.contains("r.sql") && error.contains("rules have faults: nothing was replayed"), "{error}");
    let error = refused(&[text(&rules), "--files", text(&recorded), "--against", text(&broken)]);
    assert!(error.contains("nothing was replayed"), "{error}");
    let error = refused(&[text(&rules), "--files", text(&folder.path().join("gone"))]);
    assert!(error.contains("gone"), "{error}");
    let error = refused(&[text(&rules), "--files", text(&recorded), "--from", "2027-01-01T00:00Z"]);
    assert!(error.contains("there is no telemetry from 2027-01-01T00:00:00Z on"), "{error}");
    let error = refused(&[text(&rules), "--files", text(&recorded), "--from", "2027-01-01", "--to", "2026-01-01"]);
    assert!(error.contains("is not before --to"), "{error}");
    let error = refused(&[text(&rules), "--files", text(&recorded), "--against", "no-such-revision"]);
    assert!(error.contains("is no rules directory, and no revision"), "{error}");
    assert!(refused(&[text(&rules)]).contains("nothing says where telemetry is"));
    let cut = folder.path().join("cut.jsonl");
    let whole = fs::read(recorded.join("a.jsonl")).unwrap();
    fs::write(&cut, &whole[..whole.len() - 20]).unwrap();
    let error = refused(&[text(&rules), "--files", text(&cut)]);
    assert!(error.contains("cut.jsonl: byte") && error.contains("is not closed"), "{error}");
}
