//! `lictor test`: runs the tests that lie beside the rules.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use lictor_engine::clock::SystemClock;
use lictor_engine::config::Config;
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rule_test::{Coverage, Outcome, RuleCoverage, Updated, junit, run_files, test_files, update};
use lictor_engine::rules_dir;

use super::terminal::{Paint, Painter, columns};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, whose `*.test.yaml` files are run, or one such file.
    rules: PathBuf,
    /// A configuration whose lateness, columns and limits the tests run under.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Run only tests whose names contain this text.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["coverage", "min_coverage"])]
    filter: Option<String>,
    /// Rewrite expectations that are not met to what was found, in the test files; everything else stays as it is.
    #[arg(long)]
    update: bool,
    /// Write the outcomes to this file as JUnit XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Say which rules, results and reason codes no test sees.
    #[arg(long)]
    coverage: bool,
    /// Fail if less than this share of it is seen.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
}

/// Prints a line per test and what went wrong; ends with 1 if a test failed, if there was none, or if too little was
/// covered.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = match &arguments.config {
        Some(path) => Config::load(path)?.pipeline_settings(),
        None => PipelineSettings::default(),
    };
    let files = test_files(&arguments.rules)?;
    let chosen = |name: &str| arguments.filter.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let run = || run_files(&files, &settings, &chosen, &SystemClock::start());
    let mut outcomes = run()?;
    let mut stdout = io::stdout().lock();
    if arguments.update {
        let updated = update(&outcomes)?;
        report_updates(&updated, &mut stdout)?;
        if updated.iter().any(|updated| updated.rewritten > 0) {
            outcomes = run()?;
        }
    }
    let painter = Painter::for_stream(&io::stdout());
    let failed = report(&outcomes, &mut stdout, painter)?;
    if let Some(path) = &arguments.junit {
        fs::write(path, junit(&outcomes)).with_context(|| path.display().to_string())?;
    }
    let mut is_covered = true;
    if arguments.coverage || arguments.min_coverage.is_some() {
        let coverage = coverage(&arguments.rules, &outcomes)?;
        report_coverage(&coverage, arguments.coverage, &mut stdout)?;
        is_covered = arguments.min_coverage.is_none_or(|least| coverage.percent() >= usize::from(least));
    }
    stdout.flush()?;
    Ok(if failed > 0 || outcomes.is_empty() || !is_covered { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes the outcomes; how many tests failed.
fn report(outcomes: &[Outcome], to: &mut impl Write, painter: Painter) -> io::Result<usize> {
    for Outcome { file, name, faults, .. } in outcomes {
        let verdict =
            if faults.is_empty() { painter.paint(Paint::Green, "ok    ") } else { painter.paint(Paint::Red, "FAILED") };
        writeln!(to, "{verdict} {}: {name}", file.display())?;
        for line in faults.iter().flat_map(|fault| fault.lines()) {
            let paint = match line.chars().next() {
                Some('-') => Paint::Red,
                Some('+') => Paint::Green,
                _ => Paint::Dim,
            };
            writeln!(to, "       {}", painter.paint(paint, line))?;
        }
    }
    let failed = outcomes.iter().filter(|o| !o.faults.is_empty()).count();
    writeln!(to, "{} passed, {failed} failed", outcomes.len() - failed)?;
    Ok(failed)
}

fn report_updates(updated: &[Updated], to: &mut impl Write) -> io::Result<()> {
    for Updated { file, rewritten, refused } in updated {
        match refused {
            None => writeln!(to, "{}: {rewritten} expectations rewritten", file.display())?,
            Some(why) => writeln!(to, "{}: nothing was rewritten: {why}", file.display())?,
        }
    }
    Ok(())
}

/// What the tests have seen of the rules that lie beside them.
fn coverage(rules: &Path, outcomes: &[Outcome]) -> anyhow::Result<Coverage> {
    let folder = if rules.is_file() { rules.parent().unwrap_or(Path::new("")) } else { rules };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let loaded = rules_dir::load(folder, None)?;
    Ok(Coverage::new(&loaded.rules.rules, outcomes))
}

fn report_coverage(coverage: &Coverage, with_rules: bool, to: &mut impl Write) -> io::Result<()> {
    if with_rules {
        let head = ["rule", "seen", "not seen"].map(str::to_owned);
        let line = |RuleCoverage { rule, seen, missing, .. }: &RuleCoverage| {
            let listed = |points: &[String]| if points.is_empty() { "-".to_owned() } else { points.join(", ") };
            [rule.clone(), listed(seen), listed(missing)]
        };
        let rows: Vec<_> = [head].into_iter().chain(coverage.rules.iter().map(line)).collect();
        writeln!(to)?;
        for line in columns(&rows) {
            writeln!(to, "{line}")?;
        }
        writeln!(to)?;
    }
    let (seen, all) = coverage.points();
    writeln!(to, "coverage {} % ({seen} of {all})", coverage.percent())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const RULE: &str = "CREATE RULE costly WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, s.cost_total AS observed, CASE WHEN s.cost_total > 9 THEN 'BLOCKED' ELSE 'WARNING' END AS result
FROM spans AS s WHERE s.cost_total > 5;";
    const TEST: &str = "# who pays
rules: [costly.sql]
tests:
  - name: it fires  # above 5
    steps:
      - {rows: spans, at: 2026-03-01T10:00:00Z, values: [{team: docs, cost_total: 6}]}
      - expect: [{rule: costly, result: BLOCKED, observed: 6}]  # first
";

    fn directory() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("costly.sql"), RULE).unwrap();
        fs::write(dir.path().join("costly.test.yaml"), TEST).unwrap();
        dir
    }

    fn arguments(dir: &TempDir) -> Arguments {
        Arguments {
            rules: dir.path().to_path_buf(),
            config: None,
            filter: None,
            update: false,
            junit: None,
            coverage: false,
            min_coverage: None,
        }
    }

    #[track_caller]
    fn ends_with(arguments: &Arguments, code: ExitCode) {
        assert_eq!(format!("{:?}", run(arguments).unwrap()), format!("{code:?}"));
    }

    fn outcomes(dir: &TempDir) -> Vec<Outcome> {
        lictor_engine::rule_test::run_directory(dir.path()).unwrap()
    }

    fn reported(outcomes: &[Outcome], color: bool) -> String {
        let mut text = Vec::new();
        report(outcomes, &mut text, Painter { color }).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_failure_shows_field_by_field_what_was_expected_and_what_was_found() {
        let dir = directory();
        let outcomes = outcomes(&dir);
        let text = reported(&outcomes, false);
        let difference = "       step 2: expected -, found +
         another event than expected:
         rule: costly
       - result: BLOCKED
       + result: WARNING
         observed: 6
0 passed, 1 failed
";
        assert!(text.starts_with("FAILED ") && text.contains(": it fires\n") && text.ends_with(difference), "{text}");
        let colored = reported(&outcomes, true);
        assert!(colored.contains("\u{1b}[1;31m- result: BLOCKED\u{1b}[0m"), "{colored}");
        assert!(colored.contains("\u{1b}[32m+ result: WARNING\u{1b}[0m"), "{colored}");
    }

    #[test]
    fn update_rewrites_what_was_not_met_and_nothing_else() {
        let dir = directory();
        ends_with(&arguments(&dir), ExitCode::FAILURE);
        ends_with(&Arguments { update: true, ..arguments(&dir) }, ExitCode::SUCCESS);
        let text = fs::read_to_string(dir.path().join("costly.test.yaml")).unwrap();
        assert_eq!(text, TEST.replace("BLOCKED", "WARNING"));
        ends_with(&arguments(&dir), ExitCode::SUCCESS);
    }

    #[test]
    fn coverage_names_what_no_test_sees_and_may_fail() {
        let dir = directory();
        let text = TEST.replace("BLOCKED", "WARNING");
        fs::write(dir.path().join("costly.test.yaml"), text).unwrap();
        fs::write(dir.path().join("other.sql"), RULE.replace("costly", "other")).unwrap();
        let coverage = coverage(dir.path(), &outcomes(&dir)).unwrap();
        let mut text = Vec::new();
        report_coverage(&coverage, true, &mut text).unwrap();
        let lines = [
            "",
            "rule    seen            not seen",
            "costly  fires, WARNING  silent, BLOCKED",
            "other   -               fires, silent, BLOCKED, WARNING",
            "",
            "coverage 25 % (2 of 8)",
            "",
        ];
        assert_eq!(String::from_utf8(text).unwrap(), lines.join("\n"));
        ends_with(&Arguments { min_coverage: Some(25), ..arguments(&dir) }, ExitCode::SUCCESS);
        ends_with(&Arguments { min_coverage: Some(26), ..arguments(&dir) }, ExitCode::FAILURE);
    }

    #[test]
    fn outcomes_are_written_as_junit_and_a_filter_chooses_tests() {
        let dir = directory();
        let junit = dir.path().join("junit.xml");
        ends_with(&Arguments { junit: Some(junit.clone()), ..arguments(&dir) }, ExitCode::FAILURE);
        let text = fs::read_to_string(&junit).unwrap();
        assert!(text.contains("tests=\"1\" failures=\"1\"") && text.contains("+ result: WARNING"), "{text}");
        let filter = Some("no such test".to_owned());
        ends_with(&Arguments { filter, ..arguments(&dir) }, ExitCode::FAILURE);
        let nowhere = dir.path().join("no/such/folder.xml");
        let error = run(&Arguments { junit: Some(nowhere), ..arguments(&dir) }).unwrap_err();
        assert!(format!("{error:#}").contains("folder.xml"), "{error:#}");
    }

    #[test]
    fn tests_run_under_the_lateness_and_columns_of_a_configuration() {
        let dir = directory();
        let test = "rules: [costly.sql]
tests:
  - name: a late row, and a team in an attribute of ours
    steps:
      - {rows: spans, at: 2026-03-01T10:00:00Z, values: [{cost_total: 1}]}
      - {rows: spans, at: 2026-03-01T09:59:30Z, values: [{cost_total: 6, 'attr:acme.team': docs}]}
      - expect: [{subject: {team: docs}}]
";
        fs::write(dir.path().join("costly.test.yaml"), test).unwrap();
        ends_with(&arguments(&dir), ExitCode::FAILURE);
        let config = dir.path().join("lictor.yaml");
        let yaml = "kafka: {bootstrap.servers: b:1}
rules: .
time: {lateness: 1m}
columns: [{column: team, attribute: acme.team}]
";
        fs::write(&config, yaml).unwrap();
        ends_with(&Arguments { config: Some(config), ..arguments(&dir) }, ExitCode::SUCCESS);
    }
}
