//! Everything that is probably not meant in a rules directory: what the rules say themselves, and what can be known
//! only beside their tests and with the limits that they run under.

use std::path::Path;

use lictor_queries::{CompiledRule, Diagnostic, JoinedThen, Lint, RuleFile, RuleKind, RuleSet, Warning, WindowedRule};

use crate::config::duration::format_ns;
use crate::rule_test::{RuleTestError, UnderTestFiles, files_under_test};
use crate::rules_dir::LoadedRules;

/// What is found beside what the rules say themselves.
#[derive(Debug, Default)]
pub struct Found {
    /// The warnings about the rules, by file and place.
    pub warnings: Vec<Warning>,
    /// What is wrong with the test files beside them.
    pub faults: Vec<Diagnostic>,
    /// The text of the test files that have faults.
    pub faulty: Vec<RuleFile>,
}

/// What is to be said of the rules that were loaded from `dir`, a rules directory or one rule file. `history_ns` is how
/// far back telemetry is read once more for a rule (`limits.history`).
///
/// # Errors
/// A folder or a test file beside the rules cannot be read.
pub fn find(dir: &Path, loaded: &LoadedRules, history_ns: i64) -> Result<Found, RuleTestError> {
    let mut warnings = loaded.rules.warnings.clone();
    let UnderTestFiles { named, faults, faulty } = files_under_test(dir)?;
    for rule in &loaded.rules.rules {
        // Which rules a test names that cannot be read is not known.
        let untested = if faults.is_empty() { missing_test(rule, &named) } else { None };
        let found = [untested, long_window(&loaded.rules, rule, history_ns)];
        warnings.extend(found.into_iter().flatten().filter(|warning| !rule.source.allows(warning.lint)));
    }
    warnings.sort_by(|a, b| {
        let place = |w: &Warning| (w.diagnostic.file.clone(), w.diagnostic.span.start, w.lint);
        place(a).cmp(&place(b))
    });
    Ok(Found { warnings, faults, faulty })
}

fn missing_test(rule: &CompiledRule, tested: &[String]) -> Option<Warning> {
    let file = &rule.header.file;
    if tested.contains(file) {
        return None;
    }
    let name = file.rsplit('/').next().unwrap_or(file);
    let message = format!("no test names {name}, the file of rule `{}`", rule.header.name);
    let help = format!("write {} beside it", name.replace(".sql", ".test.yaml"));
    Some(Lint::MissingTest.warn(rule.source.diagnostic(file, &message, &help)))
}

/// A rule that comes, or counts something else than before, is made to know what it would know by reading telemetry
/// once more: what lies further back than that it cannot know.
fn long_window(rules: &RuleSet, rule: &CompiledRule, history_ns: i64) -> Option<Warning> {
    let windowed = windowed(&rule.kind)?;
    let spec = rules.stores[windowed.store].aggregation.spec();
    let rows_back = i64::try_from(windowed.finish.rows_back()).unwrap_or(i64::MAX);
    let back_ns = rows_back.saturating_mul(spec.step_ns_max()?);
    let needed_ns = spec.length_ns_max()?.saturating_add(back_ns);
    if needed_ns <= history_ns {
        return None;
    }
    let [needed, history] = [needed_ns, history_ns].map(format_ns);
    let what = if back_ns > 0 { "the windows and what OVER looks back at" } else { "the windows" };
    let message = format!("{what} are {needed} long, and a rule that is new or changed begins with the last {history}");
    let help = "raise limits.history, and keep the topics for as long; or shorten the window";
    Some(Lint::LongWindow.warn(rule.source.diagnostic(&rule.header.file, &message, help)))
}

fn windowed(kind: &RuleKind) -> Option<&WindowedRule> {
    match kind {
        RuleKind::Windowed(windowed) => Some(windowed),
        RuleKind::Joined(joined) => match &joined.then {
            JoinedThen::Windowed { rule, .. } => Some(rule),
            JoinedThen::Rows(_) => None,
        },
        RuleKind::RowWise(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::rules_dir;

    const DAY_NS: i64 = 86_400_000_000_000;

    fn rule(name: &str, above: &str, from: &str) -> String {
        format!(
            "-- Spends too much.\n{above}CREATE RULE {name}
             WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED', owner = 'finops') AS
             SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed FROM {from} AS s
             GROUP BY s.team, window_start, window_end HAVING sum(s.cost_total) > 5;\n"
        )
    }

    /// The names of what is found in a directory with these files, each with its rule file.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = directory(files);
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        assert_eq!(loaded.diagnostics, []);
        let warnings = find(dir.path(), &loaded, 31 * DAY_NS).unwrap().warnings;
        warnings.iter().map(|w| format!("{} {}", w.diagnostic.summary(), w.lint)).collect()
    }

    #[test]
    fn a_rule_without_a_test_is_found_wherever_it_lies() {
        let hourly = "TUMBLE(spans, event_time, INTERVAL '1 hour')";
        let (a, b) = (rule("a", "", hourly), rule("b", "", hourly));
        let files = [("x/a.sql", a.as_str()), ("x/a.test.yaml", "rules: [a.sql]\ntests: []\n"), ("b.sql", &b)];
        assert_eq!(found(&files), ["b.sql:2:13: no test names b.sql, the file of rule `b` missing_test"]);
    }

    #[test]
    fn windows_longer_than_the_history_are_found() {
        let calendar = |unit: &str| {
            rule("a", "-- lictor: allow(missing_test)\n", &format!("CALENDAR(spans, event_time, '{unit}', 'UTC')"))
        };
        assert_eq!(found(&[("a.sql", &calendar("month"))]), Vec::<String>::new());
        let message = "a.sql:3:13: the windows are 92d long, and a rule that is new or changed begins with the last \
                       31d long_window";
        assert_eq!(found(&[("a.sql", &calendar("quarter"))]), [message]);
        let allowed = calendar("quarter").replace("allow(missing_test)", "allow(missing_test, long_window)");
        assert_eq!(found(&[("a.sql", &allowed)]), Vec::<String>::new());
    }

    /// A directory with these files.
    fn directory(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_test_file_that_is_none_is_a_fault_beside_those_of_the_rules() {
        let a = rule("a", "", "TUMBLE(spans, event_time, INTERVAL '1 hour')");
        let dir = directory(&[("a.sql", &a), ("x/a.test.yaml", "tests: []\nrules: 1\n"), ("x/.b.test.yaml", "no")]);
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        let found = find(dir.path(), &loaded, DAY_NS).unwrap();
        let [fault] = &found.faults[..] else { panic!("{:?}", found.faults) };
        assert!(fault.summary().starts_with("x/a.test.yaml:2:8: "), "{}", fault.summary());
        assert_eq!(found.faulty[0].text, "tests: []\nrules: 1\n");
        assert!(found.warnings.is_empty(), "whether a.sql has a test is not known: {:?}", found.warnings);
    }

    #[test]
    fn of_one_rule_file_only_the_tests_in_its_folder_are_read() {
        let a = rule("a", "", "TUMBLE(spans, event_time, INTERVAL '1 hour')");
        let test = ("a.test.yaml", "rules: [a.sql]\ntests: []\n");
        let below = ("deep/down/b.test.yaml", "rules: 1\n");
        for (files, expected) in [(vec![("a.sql", a.as_str()), test, below], 0), (vec![("a.sql", &a), below], 1)] {
            let dir = directory(&files);
            let file = dir.path().join("a.sql");
            let found = find(&file, &rules_dir::load(&file, None).unwrap(), DAY_NS).unwrap();
            assert_eq!((found.faults, found.warnings.len()), (vec![], expected));
        }
    }
}
