//! The rules that ship pass the tests that ship beside them, and what the rule language can say does what it says:
//! `language/` has a rule and its tests, as users write them, for constructs that no shipped rule needs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

use lictor_engine::rule_test::run_directory;

#[track_caller]
fn check(directory: &str, at_least: usize) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let outcomes = run_directory(&rules).unwrap();
    assert!(outcomes.len() >= at_least, "{} tests were found", outcomes.len());
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.faults.is_empty()).collect();
    for outcome in &failed {
        eprintln!("{}: {}\n  {}", outcome.file.display(), outcome.name, outcome.faults.join("\n  "));
    }
    assert!(failed.is_empty(), "{} of {} tests failed", failed.len(), outcomes.len());
}

#[test]
fn the_shipped_rules_pass_their_own_tests() {
    check("queries/rules", 6);
}

#[test]
fn the_language_does_what_its_tests_say() {
    check("tests/language", 12);
}
