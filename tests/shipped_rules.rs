//! The rules that ship pass the tests that ship beside them, and what the rule language can say does what it says:
//! `language/` has a rule and its tests, as users write them, for constructs that no shipped rule needs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;

use lictor_engine::config::Limits;
use lictor_engine::rule_test::{Coverage, Outcome, run_directory};
use lictor_engine::{lints, rules_dir};
use tempfile::TempDir;

#[track_caller]
fn check(directory: &str, at_least: usize) -> Vec<Outcome> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let outcomes = run_directory(&rules).unwrap();
    assert!(outcomes.len() >= at_least, "{} tests were found", outcomes.len());
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.faults.is_empty()).collect();
    for outcome in &failed {
        eprintln!("{}: {}\n  {}", outcome.file.display(), outcome.name, outcome.faults.join("\n  "));
    }
    assert!(failed.is_empty(), "{} of {} tests failed", failed.len(), outcomes.len());
    outcomes
}

#[test]
fn the_language_does_what_its_tests_say() {
    check("tests/language", 46);
}

/// What `lictor test --coverage` and `lictor check --deny warnings` ask of anybody's rules.
#[test]
fn the_shipped_rules_pass_their_tests_which_see_them_speak_and_be_silent_and_have_no_warnings() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    let loaded = rules_dir::load(&rules, None).unwrap();
    let warnings = lints::find(&rules, &loaded, Limits::default().history_ns).unwrap().warnings;
    assert_eq!(warnings, []);
    let coverage = Coverage::new(&loaded.rules.rules, &check("queries/rules", 90));
    for rule in &coverage.rules {
        let is_missing = |point: &str| rule.missing.iter().any(|missing| missing == point);
        assert!(!is_missing("fires") && !is_missing("silent"), "{rule:#?}");
    }
}

#[test]
fn a_rule_that_fails_does_not_fail_the_tests_of_the_others() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let rule = |name: &str, result: &str| {
        format!(
            "CREATE RULE {name} WITH (action = 'warn', reason_code = 'x_test') AS
             SELECT s.team, {result} AS result FROM spans AS s;"
        )
    };
    write("sound.sql", &rule("sound", "'WARNING'"));
    write("failing.sql", &rule("failing", "concat(s.team, ' is no result')"));
    let test = "rules: [sound.sql]
tests:
  - name: the other rule is not looked at
    steps:
      - {rows: spans, at: 2026-03-01T10:00:00Z, values: [{team: docs}]}
      - expect: [{rule: sound, subject: {team: docs}}]
";
    write("sound.test.yaml", test);
    let outcomes = run_directory(folder.path()).unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.faults.clone()).collect::<Vec<_>>(), [Vec::<String>::new()]);
}
