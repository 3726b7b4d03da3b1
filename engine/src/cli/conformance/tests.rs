//! The report of telemetry in a file, in every form.

use std::fs;
use std::path::Path;

use clap::Parser;
use lictor_engine::company::Company;
use lictor_schemas::otlp::encode::{RowDraft, encode_json};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

mod recorded;

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(arguments: &[&str]) -> Arguments {
    CommandLine::try_parse_from(["conformance"].iter().chain(arguments)).unwrap().arguments
}

fn judged(path: &Path) -> Report {
    let arguments = parse(&["--files", path.to_str().unwrap()]);
    let folder = TempDir::new().unwrap();
    shipped::write_conformance_to(folder.path()).unwrap();
    let rules = RulesFolder::prepare(Some(folder.path().to_path_buf()), |_| Ok(())).unwrap();
    let config = arguments.recorded.telemetry().config(rules.path()).unwrap();
    judge(&arguments, &config, (&rules, &BTreeSet::new()), &AtomicBool::new(false)).unwrap().unwrap()
}

/// A unit of work with a result that is none, and no events; and a span that claims nothing.
fn file() -> (TempDir, PathBuf) {
    let at = EventTime::from_rfc3339("2026-03-01T10:00:00Z").unwrap();
    let draft = |columns: Value| RowDraft {
        table: Table::Spans,
        event_time: at,
        columns: columns.as_object().unwrap().clone().into_iter().collect(),
    };
    let awu = draft(json!({
        "service_name": "gate|way", "scope_name": "<b>", "scope_version": "1", "trace_id": "1".repeat(32),
        "span_id": "2".repeat(16), "attr:genops.policy.result": "allowed", "attr:genops.spec.version": "0.1.0",
    }));
    let other = draft(json!({"service_name": "shop", "name": "GET /"}));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    let line = |drafts: &[RowDraft]| encode_json(Signal::Traces, drafts).unwrap();
    fs::write(&path, [line(&[other]), b"\n".to_vec(), line(&[awu]), b"\n".to_vec()].concat()).unwrap();
    (folder, path)
}

#[test]
fn a_violation_is_told_with_its_file_record_and_ids_in_every_form() {
    let (_folder, path) = file();
    let report = judged(&path);
    assert!(report.is_below(Level::Partial));
    let place = format!("{} record 1", path.display());
    let document = json::document(&report, 3);
    let schema: Value =
        serde_json::from_str(include_str!("../../../../schemas/conformance-report.v1.schema.json")).unwrap();
    let faults: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&document).map(|error| error.to_string()).collect();
    assert_eq!(faults, Vec::<String>::new());
    let runtime = &document["runtimes"][0];
    assert_eq!((runtime["level"].as_str(), runtime["awus"].as_u64()), (Some("none"), Some(1)));
    assert_eq!(document["without_claim"][0]["service"], "shop");
    let state = runtime["clauses"].as_array().unwrap().iter();
    let state = state.clone().find(|clause| clause["clause"] == "genops_4_1_decision_state").unwrap();
    assert_eq!((state["verdict"].as_str(), state["found"].as_u64()), (Some("failed"), Some(1)));
    assert_eq!(state["exemplars"][0]["place"], json!(place));
    let mut text = Vec::new();
    text::write(&report, 3, &mut text, Painter { color: false }).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("{place}  {} {}", "1".repeat(32), "2".repeat(16))), "{text}");
    assert!(text.contains("may not claim GenOps (§9.3)") && text.contains("Without any claim: shop"), "{text}");
    let markdown = markdown::document(&report, 3);
    assert!(markdown.contains("#### gate\\|way / \\<b\\> 1") && markdown.contains("| failed | 1 of 1 |"), "{markdown}");
    let html = html::document(&report, 3);
    assert!(html.contains("<h2>gate|way / &lt;b&gt; 1</h2>") && !html.contains("<b> 1"), "{html}");
}

#[test]
fn nobody_who_claims_anything_is_below_every_level() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.pb");
    let start = EventTime::from_rfc3339("2026-03-01T10:00:00Z").unwrap();
    let messages = Company::new(1, start).next_batch(start.plus(1_000_000_000));
    let (_, _, payload) = messages.into_iter().find(|(signal, ..)| *signal == Signal::Traces).unwrap();
    fs::write(&path, payload).unwrap();
    let report = judged(&path);
    assert!(report.runtimes.is_empty() && report.is_below(Level::Partial));
}
