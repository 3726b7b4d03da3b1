//! What test files can say, and what becomes of it.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::pipeline::PipelineSettings;

/// Calls per minute of a team against a reference table: above its limit it is stopped until the minute ends.
const RULE: &str = "
CREATE EXTERNAL TABLE limits (team VARCHAR, calls BIGINT) STORED AS CSV LOCATION 'limits.csv';
CREATE RULE too_many WITH (action = 'throttle', reason_code = 'RATE_LIMITED', owner = 'platform') AS
SELECT c.team, c.window_start, c.window_end, c.calls AS observed, l.calls AS threshold
FROM (SELECT team, window_start, window_end, count(*) AS calls
      FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c
JOIN limits AS l ON l.team = c.team
WHERE c.calls >= l.calls
EMIT ON UPDATE;";

/// The outcome of a test with these steps.
fn outcome(steps: &str) -> Outcome {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("r.sql"), RULE).unwrap();
    fs::write(dir.path().join("limits.csv"), "team,calls\na,2\nb,2\n").unwrap();
    let head = "rules: [r.sql]\ntests:\n  - name: t\n    defaults: {spans: {team: a}}\n    steps:\n";
    let steps: String = steps.trim().lines().map(|line| format!("      {}\n", line.trim())).collect();
    fs::write(dir.path().join("r.test.yaml"), format!("{head}{steps}")).unwrap();
    run_directory(dir.path()).unwrap().remove(0)
}

#[track_caller]
fn passes(steps: &str) -> Outcome {
    let outcome = outcome(steps);
    assert!(outcome.faults.is_empty(), "{}", outcome.faults.join("\n"));
    outcome
}

#[track_caller]
fn fails(steps: &str, fault: &str) {
    let faults = outcome(steps).faults;
    assert!(faults.len() == 1 && faults[0].contains(fault), "{faults:?}");
}

#[test]
fn state_survives_a_restart_and_nothing_is_said_twice() {
    passes(
        "- {rows: spans, at: 2026-03-01T10:00:01Z, values: [{}]}
         - restart: true
         - {rows: spans, at: 2026-03-01T10:00:02Z, values: [{}]}
         - expect: [{state: firing, observed: 2, at: 2026-03-01T10:00:02Z}]
         - restart: true
         - expect: none
         - {rows: spans, at: 2026-03-01T10:00:03Z, values: [{}]}
         - expect: none
         - advance: 2026-03-01T10:01:00Z
         - expect: [{state: resolved, at: 2026-03-01T10:01:00Z}]",
    );
}

#[test]
fn a_restart_before_anything_has_happened_changes_nothing() {
    passes(
        "- restart: true
         - {rows: spans, at: 2026-03-01T10:00:01Z, values: [{}, {}]}
         - expect: [{state: firing}]",
    );
}

#[test]
fn what_is_late_is_late_after_a_restart_too() {
    passes(
        "- {rows: spans, at: 2026-03-01T10:00:30Z, values: [{}]}
         - restart: true
         - {rows: spans, at: 2026-03-01T10:00:10Z, late: 1, values: [{}, {at: 2026-03-01T10:00:31Z}]}
         - expect: [{state: firing, observed: 2}]",
    );
}

#[test]
fn reference_tables_change_in_the_middle_and_the_others_stay() {
    passes(
        "- {rows: spans, at: 2026-03-01T10:00:01Z, values: [{}]}
         - expect: none
         - tables: {limits: [{team: a, calls: 4}]}
         - {rows: spans, at: 2026-03-01T10:00:02Z, values: [{}, {}]}
         - expect: []
         - {rows: spans, at: 2026-03-01T10:00:03Z, values: [{}]}
         - expect: [{state: firing, observed: 4, threshold: 4}]",
    );
    fails("- tables: {budgets: []}", "table budgets: no rule file declares it");
    fails("- tables: {limits: [{team: a, kalls: 4}]}", "table limits: it has no column kalls");
}

#[test]
fn a_row_that_is_late_and_not_said_to_be_is_a_fault() {
    let late = "- {rows: spans, at: 2026-03-01T10:00:30Z, values: [{}]}
                - {rows: spans, at: 2026-03-01T10:00:19Z, values: [{}]}";
    fails(late, "step 2: 1 of 1 rows came too late to count, 0 were said to");
    fails("- {rows: spans, at: 2026-03-01T10:00:30Z, late: 1, values: [{}]}", "0 of 1 rows came too late to count");
    passes(
        "- {rows: spans, at: 2026-03-01T10:00:30Z, values: [{}]}
         - {rows: spans, at: 2026-03-01T10:00:19Z, late: 1, values: [{}]}
         - {rows: spans, at: 2026-03-01T10:00:19Z, partition: 1, values: [{}]}",
    );
}

#[test]
fn time_goes_on_while_nothing_comes() {
    passes(
        "- {rows: spans, at: 2026-03-01T10:00:30Z, values: [{}, {}]}
         - expect: [{state: firing}]
         - idle: 39s  # as far as 10:00:59, less the lateness of 10 s
         - expect: none
         - idle: 1s
         - expect: [{state: resolved, at: 2026-03-01T10:01:00Z}]",
    );
    fails("- idle: 10m", "time begins with the first rows");
}

#[test]
fn a_step_is_one_thing() {
    fails("- {restart: true, idle: 1m}", "a step has exactly one of rows, advance, idle, tables, restart and expect");
    fails("- {partition: 1}", "a step has exactly one of");
    fails("- {restart: true, late: 1}", "at, late and values belong to a step with rows");
}

#[test]
fn tests_say_what_they_have_seen() {
    let Witnessed { said, ended, silent } = passes(
        "- {rows: spans, at: 2026-03-01T10:00:01Z, values: [{}]}
         - expect: none
         - {rows: spans, at: 2026-03-01T10:00:02Z, values: [{}]}
         - expect: [{state: firing}]",
    )
    .witnessed;
    let words: Vec<&str> = said["too_many"].iter().map(String::as_str).collect();
    assert_eq!((words, ended.len(), silent.contains("too_many")), (vec!["RATE_LIMITED"], 0, true));
    let fires_at_once = passes(
        "- {rows: spans, at: 2026-03-01T10:00:01Z, values: [{}, {}]}
         - expect: [{}]
         - advance: 2026-03-01T10:02:00Z
         - expect: [{}]",
    );
    assert!(fires_at_once.witnessed.silent.is_empty() && fires_at_once.witnessed.ended.contains("too_many"));
}

#[test]
fn a_rule_file_that_is_not_there_is_a_fault() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("r.sql"), RULE).unwrap();
    fs::write(dir.path().join("r.test.yaml"), "rules: [gone.sql]\ntests: [{name: t, steps: []}]\n").unwrap();
    let outcomes = run_directory(dir.path()).unwrap();
    assert_eq!(outcomes[0].faults, ["rules: there is no file gone.sql beside this one"]);
}

#[test]
fn the_shape_of_a_file_is_checked() {
    let refused = |text: &str| parse(text).unwrap_err();
    let step = |step: &str| refused(&format!("rules: []\ntests: [{{name: t, steps: [{step}]}}]\n"));
    assert!(step("{expect: nothing}").contains("a list of events, or none"));
    assert!(step("{idle: soon}").contains("is not a duration"));
    assert!(step("{rowz: spans}").contains("rowz"));
    assert!(refused("rules: []").contains("tests"));
}

#[test]
fn tests_are_chosen_by_name_and_timed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("r.sql"), RULE).unwrap();
    fs::write(dir.path().join("limits.csv"), "team,calls\n").unwrap();
    let text = "rules: [r.sql]\ntests: [{name: one, steps: []}, {name: two, steps: []}]\n";
    fs::write(dir.path().join("r.test.yaml"), text).unwrap();
    let files = test_files(dir.path()).unwrap();
    let clock = ManualClock::at(EventTime(0));
    let outcomes = run_files(&files, &PipelineSettings::default(), &|name| name == "two", &clock).unwrap();
    let found: Vec<_> = outcomes.iter().map(|o| (o.name.as_str(), o.number, o.took.as_nanos())).collect();
    assert_eq!(found, [("two", 1, 0)]);
}

#[test]
fn hidden_folders_are_not_looked_into_and_a_bare_name_lies_here() {
    let dir = TempDir::new().unwrap();
    for folder in ["..data", "x"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("r.test.yaml"), "").unwrap();
    }
    assert_eq!(test_files(dir.path()).unwrap(), [dir.path().join("x/r.test.yaml")]);
    assert_eq!(run::folder_of(Path::new("r.test.yaml")), Path::new("."));
    assert_eq!(run::folder_of(Path::new("x/r.test.yaml")), Path::new("x"));
}

/// Every test file of ours, as a value.
fn test_files_of_ours() -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let of = |folder: &str| test_files(&root.join(folder)).unwrap();
    let files: Vec<_> = ["queries/rules", "tests/language"].into_iter().flat_map(of).collect();
    assert!(files.len() > 40, "only {} test files", files.len());
    let read = |path: &std::path::PathBuf| serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    files.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

#[test]
fn the_schema_takes_every_test_file_of_ours() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    for (file, value) in test_files_of_ours() {
        let faults: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{file}: {faults:#?}");
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let file = |step: Value| json!({"rules": ["r.sql"], "tests": [{"name": "t", "steps": [step]}]});
    let good = [
        json!({"expect": "none"}),
        json!({"restart": true}),
        json!({"idle": "10m"}),
        json!({"tables": {"t": [{"a": 1}]}}),
        json!({"rows": "spans", "late": 1, "values": [{"attr:x": 1, "at": "2026-03-01T10:00:00Z", "team": "a"}]}),
    ];
    for step in good {
        assert!(schema.is_valid(&file(step.clone())), "{step}");
    }
    let bad = [
        json!({}),
        json!({"expect": "nothing"}),
        json!({"expect": [{"rulle": "r"}]}),
        json!({"expect": [{"state": "fires"}]}),
        json!({"restart": true, "idle": "10m"}),
        json!({"restart": true, "values": []}),
        json!({"rows": "spanns"}),
        json!({"rows": "spans", "values": [{"taem": "a"}]}),
        json!({"rows": "logs", "values": [{"duration_ms": 1}]}),
        json!({"idle": "soon"}),
    ];
    for step in bad {
        assert!(!schema.is_valid(&file(step.clone())), "{step}");
    }
}

#[test]
fn the_schema_has_the_keys_that_the_reader_takes() {
    let keys_of = |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let read = |text: &str| {
        let message = parse(text).unwrap_err();
        let (_, known) = message.split_once("expected one of").unwrap_or_else(|| panic!("no keys in: {message}"));
        let known = known.lines().next().unwrap_or_default();
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        let mut keys: Vec<String> =
            known.split(|c| !is_part(c)).filter(|key| !key.is_empty()).map(str::to_owned).collect();
        keys.sort();
        keys
    };
    let schema = json_schema();
    assert_eq!(keys_of(&schema), read("no_such_key: 1"));
    assert_eq!(keys_of(&schema["$defs"]["test"]), read("rules: []\ntests: [{no_such_key: 1}]"));
    assert_eq!(keys_of(&schema["$defs"]["step"]), read("rules: []\ntests: [{name: t, steps: [{no_such_key: 1}]}]"));
}
