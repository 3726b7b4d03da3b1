//! The report for people.

use std::io::{self, Write};

use lictor_engine::backtest::{Difference, RuleDifference, RuleDigest};

use super::report::{Report, episode_text, held_text, peak_text, states_text};
use crate::cli::recorded::range_text;
use crate::cli::terminal::{Paint, Painter, columns, plain};

/// So many sources are named; of more their number is told.
const SOURCES_SHOWN_MAX: usize = 4;

/// Writes the report.
pub(super) fn write(report: &Report, examples: usize, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    write_account(report, to, painter)?;
    writeln!(to)?;
    write_rules(report, to)?;
    if let Some(difference) = &report.difference {
        writeln!(to)?;
        write_difference(difference, examples, to, painter)?;
    }
    Ok(())
}

/// Where every record went.
fn write_account(report: &Report, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    let (reading, counts) = (&report.reading, &report.account.counts);
    let shown = report.sources.iter().take(SOURCES_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = report.sources.len().saturating_sub(SOURCES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    writeln!(to, "telemetry      {}{more}", plain(&shown))?;
    if let Some((first, last)) = reading.came {
        let asked = if report.range.from.is_none() && report.range.to.is_none() {
            String::new()
        } else {
            format!(" (asked for: {})", range_text(&report.range))
        };
        writeln!(to, "came           {first} to {last}{asked}")?;
    }
    let whole = counts.records - counts.records_dead - counts.records_partly_dead;
    let (dead, partly, outside) = (counts.records_dead, counts.records_partly_dead, reading.outside);
    let records = counts.records;
    writeln!(
        to,
        "records        {records}: {whole} used, {dead} dead-lettered, {partly} in part; {outside} out of range"
    )?;
    for table in report.tables() {
        let [used, late, future] = report.rows(table);
        writeln!(to, "{:14} {used} used, {late} late, {future} from the future", table.name())?;
    }
    for letter in &report.account.dead {
        let (at, offset, reason, message) = (&letter.partition, letter.offset, letter.reason, &letter.message);
        writeln!(
            to,
            "{}",
            painter.paint(Paint::Dim, &format!("dead letter    {at}@{offset} {reason}: {}", plain(message)))
        )?;
    }
    let letters: u64 = counts.dead_letters.values().sum();
    let shown = report.account.dead.len() as u64;
    if letters > shown {
        writeln!(to, "dead letter    and {} more", letters - shown)?;
    }
    for note in &report.notes {
        writeln!(to, "{}", painter.paint(Paint::Yellow, &format!("note           {}", plain(note))))?;
    }
    Ok(())
}

fn write_rules(report: &Report, to: &mut impl Write) -> io::Result<()> {
    let head = ["rule", "events", "subjects", "first", "last", "peak", "held"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(report.rules.values().map(cells)).collect();
    for line in columns(&rows) {
        writeln!(to, "{line}")?;
    }
    Ok(())
}

fn cells(rule: &RuleDigest) -> [String; 7] {
    let (first, last) = match rule.span {
        Some((first, last)) => (first.to_rfc3339(), last.to_rfc3339()),
        None => Default::default(),
    };
    let events = if rule.events() == 0 { "none".to_owned() } else { states_text(rule) };
    let peak = rule.peak.as_ref().map(|(subject, peak)| format!("{} ({subject})", peak_text(peak)));
    let subjects = rule.subjects.len().to_string();
    [
        rule.header.name.clone(),
        events,
        subjects,
        first,
        last,
        plain(&peak.unwrap_or_default()).into_owned(),
        held_text(rule),
    ]
}

fn write_difference(difference: &Difference, examples: usize, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    let (added, removed, moved, unchanged) = difference.totals();
    writeln!(to, "The edit adds {added} episodes, removes {removed}, moves {moved}; {unchanged} are the same.")?;
    for (name, rule) in difference.rules.iter().filter(|(_, rule)| !rule.is_empty()) {
        let (added, removed, moved) = (rule.added.len(), rule.removed.len(), rule.moved.len());
        let edit = edit_text(rule);
        let head = format!("{name}: {edit}; {added} added, {removed} removed, {moved} moved, {} same", rule.unchanged);
        writeln!(to, "{}", painter.paint(Paint::Bold, &head))?;
        for episode in rule.added.iter().take(examples) {
            writeln!(to, "{}", painter.paint(Paint::Green, &format!("  + {}", plain(&episode_text(episode)))))?;
        }
        for episode in rule.removed.iter().take(examples) {
            writeln!(to, "{}", painter.paint(Paint::Red, &format!("  - {}", plain(&episode_text(episode)))))?;
        }
        for pair in rule.moved.iter().take(examples) {
            writeln!(to, "  ~ {}", painter.paint(Paint::Yellow, &pair.differs_in().join(", ")))?;
            writeln!(to, "    {}", painter.paint(Paint::Red, &format!("- {}", plain(&episode_text(&pair.before)))))?;
            writeln!(to, "    {}", painter.paint(Paint::Green, &format!("+ {}", plain(&episode_text(&pair.after)))))?;
        }
    }
    Ok(())
}

/// What was done to a rule.
pub(super) fn edit_text(rule: &RuleDifference) -> &'static str {
    match (rule.is_there, rule.is_edited) {
        ((false, _), _) => "new",
        ((_, false), _) => "removed",
        (_, true) => "edited",
        (_, false) => "not edited",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_out_of_the_telemetry_gives_the_terminal_no_orders() {
        assert_eq!(plain("team=docs, 3 / 2 USD — é"), "team=docs, 3 / 2 USD — é");
        assert_eq!(plain("team=\u{1b}[2Jx\r\n\u{9b}1m"), "team=\\u{1b}[2Jx\\r\\n\\u{9b}1m");
    }
}
