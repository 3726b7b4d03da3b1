//! The report as one HTML file: nothing is loaded from anywhere, so it can be kept and sent.

use std::fmt::Write as _;

use lictor_engine::conformance::{RuntimeReport, Verdict};

use super::report::{Report, level_text, open_text, remarks, runtime_text, sent_text, totals, verdict_text};
use crate::cli::backtest::{STYLE, escaped_html as escaped};

/// The report as a document.
pub(super) fn document(report: &Report, examples: usize) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>GenOps conformance</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>GenOps conformance</h1>\n<table>\n"
    );
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
    };
    row("telemetry", &report.read.names.join(", "));
    if let Some((first, last)) = report.reading.came {
        row("came", &format!("{first} to {last}"));
    }
    for (table, used, late) in report.rows() {
        row(table.name(), &format!("{used} judged, {late} too late"));
    }
    report.read.notes.iter().for_each(|note| row("note", note));
    for (who, spans) in &report.others {
        row("without any claim", &format!("{} ({spans} spans)", runtime_text(who)));
    }
    if report.runtimes.is_empty() {
        row("", "nothing claims to be governed by GenOps: there is nothing to judge");
    }
    html.push_str("</table>\n");
    report.runtimes.iter().for_each(|runtime| write_runtime(&mut html, report, runtime, examples));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn write_runtime(html: &mut String, report: &Report, runtime: &RuntimeReport, examples: usize) {
    let [passed, failed, unknown] = totals(runtime);
    let _ = writeln!(
        html,
        "<h2>{}</h2>\n<p class=\"facts\">{}</p>\n<p><b>It {}</b>: {passed} clauses passed, {failed} failed, {unknown} \
         not assessable.</p>\n<ul>",
        escaped(&runtime_text(&runtime.runtime)),
        escaped(&sent_text(runtime)),
        escaped(level_text(runtime.level)),
    );
    for line in open_text(runtime).iter().chain(&remarks(runtime)) {
        let _ = writeln!(html, "<li>{}</li>", escaped(line));
    }
    html.push_str("</ul>\n<table>\n");
    for clause in &runtime.clauses {
        let class = match clause.verdict {
            Verdict::Passed { .. } => "added",
            Verdict::Failed { .. } => "removed",
            Verdict::NotAssessable(_) => "facts",
        };
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td title=\"{}\"><code>{}</code></td><td class=\"{class}\">{}</td><td>{}</td></tr>",
            escaped(&clause.clause.sections),
            escaped(&clause.clause.title),
            escaped(&clause.clause.name),
            clause.verdict.as_str(),
            escaped(&verdict_text(clause)),
        );
        for found in clause.exemplars.iter().take(examples) {
            let text = format!("{} {} {}: {}", report.place(found), found.trace_id, found.span_id, found.message);
            let _ = writeln!(html, "<tr><th></th><td colspan=\"3\"><small>{}</small></td></tr>", escaped(&text));
        }
    }
    html.push_str("</table>\n");
}
