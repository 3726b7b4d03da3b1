//! The report for people.

use std::io::{self, Write};

use lictor_engine::conformance::{ClauseReport, RuntimeReport, Verdict};

use super::report::{Report, level_text, open_text, remarks, runtime_text, sent_text, totals, verdict_text};
use crate::cli::terminal::plain;
use crate::cli::terminal::{Paint, Painter, columns};

/// So many names of files or topics are shown, and of runtimes that claim nothing.
const SHOWN_MAX: usize = 6;

/// Writes the report.
pub(super) fn write(report: &Report, examples: usize, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    writeln!(to, "telemetry      {}", plain(&some(&report.read.names)))?;
    if let Some((first, last)) = report.reading.came {
        writeln!(to, "came           {first} to {last}")?;
    }
    for (table, used, late) in report.rows() {
        writeln!(to, "{:14} {used} judged, {late} too late", table.name())?;
    }
    for note in &report.read.notes {
        writeln!(to, "{}", painter.paint(Paint::Yellow, &format!("note           {}", plain(note))))?;
    }
    for runtime in &report.runtimes {
        write_runtime(report, runtime, examples, to, painter)?;
    }
    if report.runtimes.is_empty() {
        writeln!(to, "\nNothing claims to be governed by GenOps: there is nothing to judge.")?;
    }
    if !report.others.is_empty() {
        let others: Vec<String> =
            report.others.iter().map(|(who, spans)| format!("{} ({spans} spans)", runtime_text(who))).collect();
        writeln!(to, "\nWithout any claim: {}", plain(&some(&others)))?;
    }
    Ok(())
}

fn write_runtime(
    report: &Report,
    runtime: &RuntimeReport,
    examples: usize,
    to: &mut impl Write,
    painter: Painter,
) -> io::Result<()> {
    let [passed, failed, unknown] = totals(runtime);
    writeln!(to, "\n{}", painter.paint(Paint::Bold, &plain(&runtime_text(&runtime.runtime))))?;
    writeln!(to, "  {}", plain(&sent_text(runtime)))?;
    writeln!(to, "  {}; {passed} passed, {failed} failed, {unknown} not assessable", level_text(runtime.level))?;
    for line in open_text(runtime).iter().chain(&remarks(runtime)) {
        writeln!(to, "  - {}", plain(line))?;
    }
    let rows: Vec<[String; 4]> = runtime.clauses.iter().map(cells).collect();
    for (line, clause) in columns(&rows).into_iter().zip(&runtime.clauses) {
        let paint = match clause.verdict {
            Verdict::Passed { .. } => Paint::Green,
            Verdict::Failed { .. } => Paint::Red,
            Verdict::NotAssessable(_) => Paint::Dim,
        };
        writeln!(to, "  {}", painter.paint(paint, &line))?;
        for found in clause.exemplars.iter().take(examples) {
            let (place, awu) = (report.place(found), format!("{} {}", found.trace_id, found.span_id));
            writeln!(to, "      {}", plain(&format!("{place}  {awu}  {}", found.message)))?;
        }
    }
    Ok(())
}

fn cells(clause: &ClauseReport) -> [String; 4] {
    [
        clause.verdict.as_str().to_owned(),
        clause.clause.name.clone(),
        clause.clause.sections.clone(),
        plain(&verdict_text(clause)).into_owned(),
    ]
}

/// The first of them, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
