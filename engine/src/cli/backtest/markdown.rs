//! The report for a comment on a pull request.

use std::fmt::Write as _;

use lictor_engine::backtest::{Difference, Episode, RuleDifference};

use super::report::{Report, episode_text, held_text, peak_text, states_text};
use super::text::edit_text;

/// GitHub takes 65,536 characters of a comment; what is said first matters most.
const CHARACTERS_MAX: usize = 60_000;

/// The report as Markdown that GitHub and GitLab show.
pub(super) fn document(report: &Report, examples: usize) -> String {
    let mut text = String::from("### Backtest\n\n");
    let counts = &report.account.counts;
    let _ = write!(text, "{} records", counts.records);
    if let Some((first, last)) = report.reading.came {
        let _ = write!(text, " from {first} to {last}");
    }
    for table in report.tables() {
        let [used, late, future] = report.rows(table);
        let _ = write!(text, ", {} {} ({late} late, {future} from the future)", used, table.name());
    }
    let _ = writeln!(text, ", {} records dead-lettered.\n", counts.records_dead + counts.records_partly_dead);
    if let Some(difference) = &report.difference {
        write_difference(&mut text, difference, examples);
    }
    write_rules(&mut text, report);
    for note in &report.notes {
        let _ = writeln!(text, "> {}", escaped(note));
    }
    cut(text)
}

fn write_difference(text: &mut String, difference: &Difference, examples: usize) {
    let (added, removed, moved, unchanged) = difference.totals();
    if difference.is_empty() {
        let _ = writeln!(text, "**The edit changes nothing in what the rules say** ({unchanged} episodes).\n");
        return;
    }
    let _ = writeln!(
        text,
        "**The edit adds {added} episodes, removes {removed}, moves {moved}**; {unchanged} are the same.\n\n\
         | rule | edit | added | removed | moved | same |\n|---|---|--:|--:|--:|--:|"
    );
    for (name, rule) in difference.rules.iter().filter(|(_, rule)| !rule.is_empty()) {
        let (added, removed, moved) = (rule.added.len(), rule.removed.len(), rule.moved.len());
        let _ =
            writeln!(text, "| `{name}` | {} | {added} | {removed} | {moved} | {} |", edit_text(rule), rule.unchanged);
    }
    text.push('\n');
    for (name, rule) in difference.rules.iter().filter(|(_, rule)| !rule.is_empty()) {
        let _ = writeln!(text, "<details><summary><code>{name}</code></summary>\n\n```diff");
        write_examples(text, rule, examples);
        text.push_str("```\n\n</details>\n\n");
    }
}

fn write_examples(text: &mut String, rule: &RuleDifference, examples: usize) {
    let mut line = |sign: char, episode: &Episode| {
        // Whatever a subject says, the block goes on behind it.
        let _ = writeln!(text, "{sign} {}", episode_text(episode).replace(['`', '\n'], " "));
    };
    rule.added.iter().take(examples).for_each(|episode| line('+', episode));
    rule.removed.iter().take(examples).for_each(|episode| line('-', episode));
    for pair in rule.moved.iter().take(examples) {
        line('-', &pair.before);
        line('+', &pair.after);
    }
    let left = |count: usize| count.saturating_sub(examples);
    let left = left(rule.added.len()) + left(rule.removed.len()) + left(rule.moved.len());
    if left > 0 {
        let _ = writeln!(text, "  and {left} more");
    }
}

fn write_rules(text: &mut String, report: &Report) {
    text.push_str("| rule | events | subjects | peak | held |\n|---|---|--:|---|---|\n");
    for rule in report.rules.values() {
        let events = if rule.events() == 0 { "none".to_owned() } else { states_text(rule) };
        let peak = rule.peak.as_ref().map(|(subject, peak)| format!("{} ({subject})", peak_text(peak)));
        let peak = escaped(&peak.unwrap_or_default());
        let (name, subjects, held) = (&rule.header.name, rule.subjects.len(), held_text(rule));
        let _ = writeln!(text, "| `{name}` | {events} | {subjects} | {peak} | {held} |");
    }
    text.push('\n');
}

/// Text out of the telemetry as text: no column ends in it, and nothing in it is markup.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '@' | '#' | '!' => {
                escaped.extend(['\\', character]);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

pub(in crate::cli) fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(CHARACTERS_MAX) {
        text.truncate(at);
        text.push_str("\n\n(cut: the rest is in the report as text)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_out_of_the_telemetry_is_no_markup() {
        assert_eq!(escaped("a|b\n[x](y) <img> @all"), "a\\|b \\[x\\](y) \\<img\\> \\@all");
    }

    #[test]
    fn a_comment_is_no_longer_than_can_be_posted() {
        let long = cut("ä".repeat(CHARACTERS_MAX + 1));
        assert!(long.ends_with("text)\n") && long.chars().count() < 61_000);
        assert_eq!(cut("short".to_owned()), "short");
    }
}
