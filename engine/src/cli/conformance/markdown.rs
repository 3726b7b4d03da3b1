//! The report for a comment on a pull request, or a document.

use std::fmt::Write as _;

use lictor_engine::conformance::RuntimeReport;

use super::report::{Report, level_text, open_text, remarks, runtime_text, sent_text, totals, verdict_text};
use crate::cli::backtest::{cut, escaped_markdown as escaped};

/// The report as Markdown that GitHub and GitLab show.
pub(super) fn document(report: &Report, examples: usize) -> String {
    let mut text = String::from("### GenOps conformance\n\n");
    let rows = report.rows();
    let rows = rows.iter().map(|(table, used, late)| format!("{used} {} ({late} too late)", table.name()));
    let _ = write!(text, "{}", rows.collect::<Vec<_>>().join(", "));
    if let Some((first, last)) = report.reading.came {
        let _ = write!(text, " from {first} to {last}");
    }
    text.push_str(".\n\n");
    for note in &report.read.notes {
        let _ = writeln!(text, "> {}\n", escaped(note));
    }
    for runtime in &report.runtimes {
        write_runtime(&mut text, report, runtime, examples);
    }
    if report.runtimes.is_empty() {
        text.push_str("Nothing claims to be governed by GenOps: there is nothing to judge.\n");
    }
    if !report.others.is_empty() {
        let others = report.others.iter().map(|(who, spans)| format!("{} ({spans} spans)", runtime_text(who)));
        let _ = writeln!(text, "Without any claim: {}.", escaped(&others.collect::<Vec<_>>().join(", ")));
    }
    cut(text)
}

fn write_runtime(text: &mut String, report: &Report, runtime: &RuntimeReport, examples: usize) {
    let [passed, failed, unknown] = totals(runtime);
    let _ = writeln!(
        text,
        "#### {}\n\n{}\n\n**It {}**: {passed} clauses passed, {failed} failed, {unknown} not assessable.\n",
        escaped(&runtime_text(&runtime.runtime)),
        escaped(&sent_text(runtime)),
        level_text(runtime.level),
    );
    for line in open_text(runtime).iter().chain(&remarks(runtime)) {
        let _ = writeln!(text, "- {}", escaped(line));
    }
    text.push_str("\n| clause | rule | verdict | |\n|---|---|---|---|\n");
    for clause in &runtime.clauses {
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            escaped(&clause.clause.sections),
            clause.clause.name,
            clause.verdict.as_str(),
            escaped(&verdict_text(clause)),
        );
    }
    text.push('\n');
    for clause in runtime.clauses.iter().filter(|clause| !clause.exemplars.is_empty()) {
        let _ = writeln!(text, "`{}`:\n", clause.clause.name);
        for found in clause.exemplars.iter().take(examples) {
            let awu = format!("{} {}", found.trace_id, found.span_id);
            let _ = writeln!(text, "- {}: {} — {}", escaped(&report.place(found)), awu, escaped(&found.message));
        }
        text.push('\n');
    }
}
