//! `lictor check`: compiles rules and reports everything that is wrong with them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use lictor_engine::config::{Config, Limits};
use lictor_engine::lints::{self, Found};
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::verdict::{RuleOutline, Verdict, verdicts};
use lictor_queries::{CompiledRule, Diagnostic, Emission, JoinedThen, Lint, RuleKind, RuleSet, Warning};
use lictor_schemas::genops::closest;
use serde_json::json;

use super::reload::to_text;
use super::terminal::{Painter, columns};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, or one rule file.
    rules: PathBuf,
    /// How faults are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The price table; by default llm_prices.csv in the rules directory.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// Another rules directory: says of each rule what becomes of its state when these rules take the place of those.
    #[arg(long)]
    against: Option<PathBuf>,
    /// A configuration, for `limits.history`.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Let warnings of this lint fail the check; `warnings` stands for all.
    #[arg(long, value_name = "LINT", value_parser = lint_named)]
    deny: Vec<Denied>,
}

/// Warnings that are as bad as faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    All,
    Only(Lint),
}

fn lint_named(name: &str) -> Result<Denied, String> {
    if name == "warnings" {
        return Ok(Denied::All);
    }
    let known: Vec<&str> = Lint::ALL.iter().map(|lint| lint.name()).collect();
    let hint = || match closest(name, &known) {
        Some(near) => format!("there is no such lint: did you mean `{near}`?"),
        None => format!("there is no such lint, only warnings, {}", known.join(", ")),
    };
    Lint::parse(name).map(Denied::Only).ok_or_else(hint)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, with the source underlined.
    Text,
    /// One JSON document.
    Json,
    /// Annotations of GitHub Actions.
    Github,
}

/// Checks and reports; the exit code is 1 if there is a fault, or a warning that is denied.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut loaded = rules_dir::load(&arguments.rules, arguments.prices.as_deref())?;
    let history_ns = match &arguments.config {
        Some(path) => Config::load(path)?.limits.history_ns,
        None => Limits::default().history_ns,
    };
    let Found { warnings, faults, faulty } = lints::find(&arguments.rules, &loaded, history_ns)?;
    loaded.diagnostics.extend(faults);
    loaded.files.extend(faulty);
    let edits = arguments.against.as_deref().map(|before| edits(before, &loaded)).transpose()?.unwrap_or_default();
    let mut stdout = io::stdout().lock();
    match arguments.format {
        Format::Text => {
            let painter = Painter::for_stream(&io::stderr());
            report_warnings(&loaded, &warnings, &mut io::stderr().lock(), painter)?;
            report_faults(&loaded, &mut io::stderr().lock(), painter)?;
            report_rules(&loaded, &warnings, &mut stdout)?;
            for (rule, verdict) in &edits {
                writeln!(stdout, "{rule}: {verdict}")?;
            }
        }
        Format::Json => {
            let mut json = as_json(&loaded, &warnings);
            let edits = edits.iter().map(|(rule, verdict)| json!({"rule": rule, "verdict": verdict.to_string()}));
            if arguments.against.is_some() {
                json["edits"] = edits.collect();
            }
            writeln!(stdout, "{json:#}")?;
        }
        Format::Github => {
            for diagnostic in &loaded.diagnostics {
                writeln!(stdout, "{}", as_annotation(&arguments.rules, "error", diagnostic))?;
            }
            for Warning { lint, diagnostic } in &warnings {
                let level = format!("warning title=lictor({lint}),");
                writeln!(stdout, "{}", as_annotation(&arguments.rules, &level, diagnostic))?;
            }
            writeln!(stdout, "{}", summary(&loaded, &warnings))?;
        }
    }
    stdout.flush()?;
    let is_denied = |warning: &Warning| {
        arguments.deny.iter().any(|denied| [Denied::All, Denied::Only(warning.lint)].contains(denied))
    };
    let is_good = loaded.diagnostics.is_empty() && !warnings.iter().any(is_denied);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What becomes of each rule if `after` takes the place of the rules in `before`.
fn edits(before: &Path, after: &LoadedRules) -> anyhow::Result<Vec<(String, Verdict)>> {
    let before = rules_dir::load(before, None)?;
    Ok(verdicts(&RuleOutline::of_set(&before.rules), &RuleOutline::of_set(&after.rules)))
}

/// Renders every fault with its source.
pub(super) fn report_faults(loaded: &LoadedRules, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    for diagnostic in &loaded.diagnostics {
        writeln!(to, "{}", diagnostic.render(source_of(loaded, diagnostic), painter.color))?;
    }
    Ok(())
}

fn report_warnings(
    loaded: &LoadedRules,
    warnings: &[Warning],
    to: &mut impl Write,
    painter: Painter,
) -> io::Result<()> {
    for warning in warnings {
        writeln!(to, "{}", warning.render(source_of(loaded, &warning.diagnostic), painter.color))?;
    }
    Ok(())
}

fn source_of<'a>(loaded: &'a LoadedRules, diagnostic: &Diagnostic) -> &'a str {
    loaded.files.iter().find(|file| file.file == diagnostic.file).map_or("", |file| &file.text)
}

/// Every fault with its source, without colours.
pub(super) fn render_faults(loaded: &LoadedRules) -> String {
    to_text(|to| report_faults(loaded, to, Painter { color: false }))
}

fn report_rules(loaded: &LoadedRules, warnings: &[Warning], to: &mut impl Write) -> io::Result<()> {
    if loaded.diagnostics.is_empty() {
        let head = ["rule", "table", "window", "speaks", "action", "file"].map(str::to_owned);
        let rows: Vec<_> =
            [head].into_iter().chain(loaded.rules.rules.iter().map(|rule| cells(&loaded.rules, rule))).collect();
        for line in columns(&rows) {
            writeln!(to, "{line}")?;
        }
        writeln!(to)?;
    }
    writeln!(to, "{}", summary(loaded, warnings))
}

fn summary(loaded: &LoadedRules, warnings: &[Warning]) -> String {
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let [rules, faults] = [loaded.rules.rules.len(), loaded.diagnostics.len()];
    let all = [counted(rules, "rule"), counted(faults, "fault"), counted(warnings.len(), "warning")];
    all.join(", ")
}

fn cells(rules: &RuleSet, rule: &CompiledRule) -> [String; 6] {
    let RuleText { window, emission } = describe(rules, rule);
    let words = [
        rule.header.name.as_str(),
        rule.table.name(),
        &window,
        emission,
        rule.header.action.as_str(),
        &rule.header.file,
    ];
    words.map(str::to_owned)
}

/// How a rule runs, in words.
pub(super) struct RuleText {
    pub(super) window: String,
    pub(super) emission: &'static str,
}

pub(super) fn describe(rules: &RuleSet, rule: &CompiledRule) -> RuleText {
    let windowed = match &rule.kind {
        RuleKind::Windowed(windowed) => windowed,
        RuleKind::Joined(joined) => match &joined.then {
            JoinedThen::Windowed { rule: windowed, .. } => windowed,
            JoinedThen::Rows(_) => return RuleText { window: "none".to_owned(), emission: "per joined row" },
        },
        RuleKind::RowWise(_) => return RuleText { window: "none".to_owned(), emission: "per row" },
    };
    let window = rules.stores[windowed.store].aggregation.spec().to_string();
    let emission = match windowed.emission {
        Emission::OnClose => "on close",
        Emission::OnUpdate => "on update",
    };
    RuleText { window, emission }
}

fn as_json(loaded: &LoadedRules, warnings: &[Warning]) -> serde_json::Value {
    let finding = |severity: &str, d: &Diagnostic| {
        json!({
            "severity": severity,
            "file": d.file,
            "line": d.span.start.line,
            "column": d.span.start.column,
            "end_line": d.span.end.line,
            "end_column": d.span.end.column,
            "message": d.message,
            "notes": d.notes,
            "help": d.help,
        })
    };
    let faults = loaded.diagnostics.iter().map(|diagnostic| finding("error", diagnostic));
    let warnings = warnings.iter().map(|Warning { lint, diagnostic }| {
        let mut warning = finding("warning", diagnostic);
        warning["lint"] = json!(lint.name());
        warning
    });
    let rules = loaded.rules.rules.iter().map(|rule| {
        let RuleText { window, emission } = describe(&loaded.rules, rule);
        json!({
            "name": rule.header.name,
            "version": rule.header.version.0,
            "file": rule.header.file,
            "table": rule.table.name(),
            "window": window,
            "emission": emission,
            "action": rule.header.action.as_str(),
            "description": rule.header.description,
        })
    });
    json!({
        "rules": rules.collect::<Vec<_>>(),
        "faults": faults.collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
    })
}

/// A workflow command that shows the fault beside its line; `level` is `error` or `warning`, and properties of it.
fn as_annotation(rules: &Path, level: &str, diagnostic: &Diagnostic) -> String {
    let root = if rules.extension().is_some_and(|e| e == "sql") { rules.parent().unwrap_or(rules) } else { rules };
    let file = root.join(&diagnostic.file);
    let (start, end) = (diagnostic.span.start, diagnostic.span.end);
    let notes = diagnostic.notes.iter().map(|note| format!("note: {note}"));
    let help = diagnostic.help.iter().map(|help| format!("help: {help}"));
    let lines = [diagnostic.message.clone()].into_iter().chain(notes).chain(help).collect::<Vec<_>>().join("\n");
    let escaped = lines.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let file = file.display().to_string().replace('%', "%25").replace(':', "%3A").replace(',', "%2C");
    let (line, column, end_line, end_column) = (start.line, start.column, end.line, end.column);
    let separator = if level.ends_with(',') { "" } else { " " };
    format!(
        "::{level}{separator}file={file},line={line},col={column},endLine={end_line},endColumn={end_column}::{escaped}"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const GOOD: &str = "-- Too dear.
CREATE RULE costly WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, s.cost_total AS observed FROM spans AS s WHERE s.cost_total > 5;
CREATE RULE hourly WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
FROM HOP(spans, event_time, INTERVAL '10 minutes', INTERVAL '1 hour') AS s
GROUP BY s.team, window_start, window_end HAVING sum(s.cost_total) > 5;";

    fn load(text: &str) -> (TempDir, LoadedRules) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("a.sql"), text).unwrap();
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        (dir, loaded)
    }

    #[test]
    fn good_rules_are_listed_with_how_they_run() {
        let (_dir, loaded) = load(GOOD);
        let mut text = Vec::new();
        report_rules(&loaded, &[], &mut text).unwrap();
        let lines = [
            "rule    table  window        speaks    action  file",
            "costly  spans  none          per row   warn    a.sql",
            "hourly  spans  1h every 10m  on close  block   a.sql",
            "",
            "2 rules, 0 faults, 0 warnings",
            "",
        ];
        assert_eq!(String::from_utf8(text).unwrap(), lines.join("\n"));
    }

    #[test]
    fn faults_are_rendered_with_their_source() {
        let (_dir, loaded) = load(&GOOD.replace("action = 'warn'", "action = 'wern'"));
        let mut text = Vec::new();
        report_faults(&loaded, &mut text, Painter { color: false }).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("a.sql:2:35") && text.contains("'wern'") && text.contains("^^^^"), "{text}");
        assert_eq!(summary(&loaded, &[]), "1 rule, 1 fault, 0 warnings");
        let json = as_json(&loaded, &[]);
        assert_eq!((&json["faults"][0]["file"], &json["faults"][0]["line"]), (&json!("a.sql"), &json!(2)));
        assert_eq!(json["rules"][0]["name"], "hourly");
    }

    #[test]
    fn annotations_name_the_file_from_where_the_command_was_called() {
        let (_dir, loaded) = load(&GOOD.replace("action = 'warn'", "action = 'wern'"));
        let line = as_annotation(Path::new("queries/rules"), "error", &loaded.diagnostics[0]);
        assert!(line.starts_with("::error file=queries/rules/a.sql,line=2,col="), "{line}");
        let one = as_annotation(Path::new("rules/x/a.sql"), "error", &loaded.diagnostics[0]);
        assert!(one.starts_with("::error file=rules/x/a.sql,line=2,"), "{one}");
        assert!(!line.contains('\n'));
    }

    fn arguments(dir: &TempDir) -> Arguments {
        Arguments {
            rules: dir.path().to_path_buf(),
            format: Format::Json,
            prices: None,
            against: None,
            config: None,
            deny: Vec::new(),
        }
    }

    #[track_caller]
    fn ends_with(arguments: &Arguments, code: ExitCode) {
        assert_eq!(format!("{:?}", run(arguments).unwrap()), format!("{code:?}"));
    }

    #[test]
    fn the_exit_code_tells_whether_there_are_faults() {
        for (text, code) in [(GOOD, ExitCode::SUCCESS), ("SELECT 1", ExitCode::FAILURE)] {
            let (dir, _) = load(text);
            ends_with(&arguments(&dir), code);
        }
    }

    #[test]
    fn a_test_file_that_is_none_does_not_hide_the_faults_of_rules() {
        let (dir, _) = load(GOOD);
        ends_with(&arguments(&dir), ExitCode::SUCCESS);
        fs::write(dir.path().join("a.test.yaml"), "rules: 1\n").unwrap();
        ends_with(&arguments(&dir), ExitCode::FAILURE);
    }

    #[test]
    fn warnings_fail_only_if_they_are_denied() {
        let (dir, _) = load(GOOD);
        let denying = |deny: Vec<Denied>| Arguments { deny, ..arguments(&dir) };
        ends_with(&denying(vec![Denied::All]), ExitCode::FAILURE);
        ends_with(&denying(vec![Denied::Only(Lint::MissingDescription)]), ExitCode::FAILURE);
        ends_with(&denying(vec![Denied::Only(Lint::FloatEquality)]), ExitCode::SUCCESS);
        assert_eq!(lint_named("warnings"), Ok(Denied::All));
        assert_eq!(lint_named("float_equality"), Ok(Denied::Only(Lint::FloatEquality)));
        assert!(lint_named("float_equalty").unwrap_err().ends_with("did you mean `float_equality`?"));
        assert!(lint_named("xyz").unwrap_err().contains("missing_owner"));
    }

    #[test]
    fn warnings_are_written_with_the_name_of_their_lint() {
        let (dir, loaded) = load(GOOD);
        let warnings = lints::find(dir.path(), &loaded, Limits::default().history_ns).unwrap().warnings;
        let lints: Vec<&str> = warnings.iter().map(|warning| warning.lint.name()).collect();
        assert_eq!(lints, ["missing_owner", "missing_test", "missing_description", "missing_owner", "missing_test"]);
        let mut text = Vec::new();
        report_warnings(&loaded, &warnings[..1], &mut text, Painter { color: false }).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("warning[missing_owner]: rule `costly` has no owner\n --> a.sql:2:13"), "{text}");
        let json = as_json(&loaded, &warnings);
        let first = &json["warnings"][0];
        assert_eq!((&first["lint"], &first["severity"]), (&json!("missing_owner"), &json!("warning")));
        let line = as_annotation(Path::new("r"), "warning title=lictor(x),", &warnings[0].diagnostic);
        assert!(line.starts_with("::warning title=lictor(x),file=r/a.sql,line=2,col=13,"), "{line}");
    }
}
