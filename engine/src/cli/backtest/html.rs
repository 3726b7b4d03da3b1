//! The report as one HTML file: nothing is loaded from anywhere, so it can be kept and sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lictor_engine::backtest::{Difference, Episode};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::time::EventTime;

use super::chart::{self, Measures, SUBJECTS_DRAWN_MAX};
use super::report::{Report, episode_text, held_text, peak_text, states_text};
use super::text::edit_text;

pub(in crate::cli) const STYLE: &str = include_str!("report.css");

/// What is drawn of each rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Charts {
    rules: BTreeMap<String, Measures>,
}

impl Charts {
    pub(super) fn add(&mut self, event: &EnforcementEvent) {
        if let Some(known) = self.rules.get_mut(&event.data.rule.name) {
            return known.add(event);
        }
        self.rules.entry(event.data.rule.name.clone()).or_default().add(event);
    }
}

/// The report as a document.
pub(super) fn document(report: &Report, examples: usize) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>lictor backtest</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Backtest</h1>\n"
    );
    write_account(&mut html, report);
    if let Some(difference) = &report.difference {
        write_difference(&mut html, difference, examples);
    }
    write_rules(&mut html, report);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn write_account(html: &mut String, report: &Report) {
    let counts = &report.account.counts;
    html.push_str("<table>\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
    };
    row("telemetry", &report.sources.join(", "));
    if let Some((first, last)) = report.reading.came {
        row("came", &format!("{first} to {last}"));
    }
    let (records, dead, partly) = (counts.records, counts.records_dead, counts.records_partly_dead);
    let outside = report.reading.outside;
    row("records", &format!("{records}; {dead} dead-lettered, {partly} in part; {outside} out of range"));
    for table in report.tables() {
        let [used, late, future] = report.rows(table);
        row(table.name(), &format!("{used} used, {late} late, {future} from the future"));
    }
    for letter in &report.account.dead {
        let text = format!("{}@{} {}: {}", letter.partition, letter.offset, letter.reason, letter.message);
        row("dead letter", &text);
    }
    report.notes.iter().for_each(|note| row("note", note));
    html.push_str("</table>\n");
}

fn write_difference(html: &mut String, difference: &Difference, examples: usize) {
    let (added, removed, moved, unchanged) = difference.totals();
    let _ = writeln!(
        html,
        "<h2>What the edit changes</h2>\n<p>It adds {added} episodes, removes {removed}, moves {moved}; {unchanged} \
         are the same.</p>"
    );
    for (name, rule) in difference.rules.iter().filter(|(_, rule)| !rule.is_empty()) {
        let _ = writeln!(
            html,
            "<h3><code>{}</code> <small>{}, {} the same</small></h3>\n<ul class=\"changes\">",
            escaped(name),
            edit_text(rule),
            rule.unchanged
        );
        let mut item = |class: &str, sign: char, episode: &Episode| {
            let _ = writeln!(html, "<li class=\"{class}\">{sign} {}</li>", escaped(&episode_text(episode)));
        };
        rule.added.iter().take(examples).for_each(|episode| item("added", '+', episode));
        rule.removed.iter().take(examples).for_each(|episode| item("removed", '−', episode));
        for pair in rule.moved.iter().take(examples) {
            item("removed", '−', &pair.before);
            item("added", '+', &pair.after);
        }
        let left = |count: usize| count.saturating_sub(examples);
        let left = left(rule.added.len()) + left(rule.removed.len()) + left(rule.moved.len());
        if left > 0 {
            let _ = writeln!(html, "<li>and {left} more</li>");
        }
        html.push_str("</ul>\n");
    }
}

/// The event time that charts show, the same for all: telemetry may have come long after it happened.
fn shown_time(report: &Report) -> Option<(EventTime, EventTime)> {
    let spans = || report.rules.values().filter_map(|rule| rule.span);
    let (came, newest) = (report.reading.came?.0, report.account.newest?);
    let from = spans().map(|span| span.0).chain((came < newest).then_some(came)).min()?;
    let to = spans().map(|span| span.1).chain([newest]).max()?;
    Some((from, to))
}

fn write_rules(html: &mut String, report: &Report) {
    let time = shown_time(report);
    html.push_str("<h2>What the rules say</h2>\n");
    for rule in report.rules.values() {
        let name = escaped(&rule.header.name);
        let said = if rule.events() == 0 { "nothing".to_owned() } else { states_text(rule) };
        let _ = writeln!(html, "<section>\n<h3><code>{name}</code> <small>{said}</small></h3>");
        let first = rule.header.description.split('.').next().unwrap_or_default();
        if !first.trim().is_empty() {
            let _ = writeln!(html, "<p>{}.</p>", escaped(first.trim()));
        }
        let (subjects, held) = (rule.subjects.len(), held_text(rule));
        if rule.events() > 0 || !held.is_empty() {
            let peak = rule.peak.as_ref().map(|(subject, peak)| format!("; peak {} ({subject})", peak_text(peak)));
            let held = if held.is_empty() { String::new() } else { format!("; held: {held}") };
            let shown = if subjects > SUBJECTS_DRAWN_MAX {
                format!("; the {SUBJECTS_DRAWN_MAX} that came farthest are drawn")
            } else {
                String::new()
            };
            let text = format!("{subjects} subjects{}{held}{shown}", peak.unwrap_or_default());
            let _ = writeln!(html, "<p class=\"facts\">{}</p>", escaped(&text));
        }
        let measures = report.charts.as_ref().and_then(|charts| charts.rules.get(&rule.header.name));
        if let Some(svg) = time.and_then(|time| chart::svg(rule, measures, time)) {
            html.push_str(&svg);
        }
        html.push_str("</section>\n");
    }
}

/// Text as text, in an element or in an attribute.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_out_of_the_telemetry_is_no_markup() {
        assert_eq!(escaped("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
    }

    #[test]
    fn the_style_loads_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && STYLE.contains("prefers-color-scheme: dark"));
    }
}
