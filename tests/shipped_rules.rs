//! The rules that ship pass the tests that ship beside them.

use std::path::Path;

use lictor_engine::rule_test::run_directory;

#[test]
fn the_shipped_rules_pass_their_own_tests() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    let outcomes = run_directory(&rules).unwrap();
    assert!(outcomes.len() >= 6, "{} tests were found", outcomes.len());
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.faults.is_empty()).collect();
    for outcome in &failed {
        eprintln!("{}: {}\n  {}", outcome.file.display(), outcome.name, outcome.faults.join("\n  "));
    }
    assert!(failed.is_empty(), "{} of {} tests failed", failed.len(), outcomes.len());
}
