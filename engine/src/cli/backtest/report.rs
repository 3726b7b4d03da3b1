//! What a backtest has found, whatever it is written as.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use lictor_engine::backtest::{
    Account, Difference, EPISODES_MAX, Episode, Outcome, Peak, Range, Reading, RuleDigest, difference,
};
use lictor_engine::join::LeafCounts;
use lictor_engine::watermark::Untimely;
use lictor_schemas::event::Instruction;
use lictor_schemas::tables::Table;

use super::FailOn;
use super::html::Charts;
use super::witness::Listener;
use crate::cli::tail::measured;

/// What came of a backtest.
pub(super) struct Report {
    /// What was read.
    pub(super) sources: Vec<String>,
    /// What a reader has to know besides.
    pub(super) notes: Vec<String>,
    pub(super) range: Range,
    pub(super) reading: Reading,
    pub(super) account: Account,
    /// What the rules have said, by name.
    pub(super) rules: BTreeMap<String, RuleDigest>,
    pub(super) charts: Option<Charts>,
    /// What the edit changes, if there is something to compare with.
    pub(super) difference: Option<Difference>,
}

impl Report {
    /// Puts together what was found; events are on the disk then.
    pub(super) fn new(
        outcome: Outcome,
        listeners: Vec<Listener>,
        (sources, mut notes): (Vec<String>, Vec<String>),
        range: Range,
    ) -> anyhow::Result<Self> {
        let Outcome { reading, accounts } = outcome;
        let mut sides = Vec::new();
        let is_compared = listeners.len() > 1;
        if reading.ahead > 0 {
            notes.push(format!(
                "{} records were stamped far ahead of those behind them: a clock is wrong",
                reading.ahead
            ));
        }
        for (mut listener, account) in listeners.into_iter().zip(accounts) {
            listener.finish()?;
            if listener.digest.is_cut() {
                let message = format!("there were more than {EPISODES_MAX} episodes, which is the most that are kept");
                if is_compared {
                    bail!("{message}: compare a shorter time");
                }
                notes.push(message);
            }
            sides.push((listener.digest.conclude(account.newest), listener.charts, account));
        }
        let mut sides = sides.into_iter();
        let Some((rules, charts, account)) = sides.next() else { bail!("no rule set was replayed") };
        notes.extend(notes_of("", &account));
        let before = sides.next();
        notes.extend(before.iter().flat_map(|(_, _, account)| notes_of("before the edit: ", account)));
        let difference = before.map(|(before, ..)| difference(&before, &rules));
        Ok(Self { sources, notes, range, reading, account, rules, charts, difference })
    }

    /// Whether something has happened that somebody wants to fail on.
    pub(super) fn has(&self, what: FailOn) -> bool {
        let totals = self.difference.as_ref().map(Difference::totals).unwrap_or_default();
        match what {
            FailOn::Events => self.rules.values().any(|rule| rule.events() > 0),
            FailOn::Blocks => self.rules.values().any(|rule| rule.held_ns.contains_key(&Instruction::Block)),
            FailOn::Added => totals.0 > 0,
            FailOn::Changes => totals.0 + totals.1 + totals.2 > 0,
            FailOn::DeadLetters => !self.account.counts.dead_letters.is_empty(),
        }
    }

    /// Rows of a table that rules have seen, that came too late, and that came from the future.
    pub(super) fn rows(&self, table: Table) -> [u64; 3] {
        let counts = &self.account.counts;
        let untimely = |reason| counts.rows_untimely.get(&(table, reason)).copied().unwrap_or_default();
        let used = counts.rows_used.get(&table).copied().unwrap_or_default();
        [used, untimely(Untimely::Late), untimely(Untimely::FutureSkew)]
    }

    /// Tables of which there were rows.
    pub(super) fn tables(&self) -> impl Iterator<Item = Table> {
        Table::ALL.into_iter().filter(|table| self.rows(*table) != [0; 3])
    }

    /// How fast it went.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(super) fn speed(&self, took: Duration) -> String {
        let rows: u64 = self.tables().map(|table| self.rows(table).iter().sum::<u64>()).sum();
        let (seconds, mib) = (took.as_secs_f64().max(1e-9), self.reading.bytes as f64 / (1 << 20) as f64);
        let per_second = rows as f64 / seconds;
        format!("{rows} rows, {mib:.1} MiB in {seconds:.1} s: {per_second:.0} rows/s")
    }
}

fn notes_of(side: &str, account: &Account) -> Vec<String> {
    let mut notes = Vec::new();
    for rule in &account.rules {
        if let Some(why) = &rule.quarantined {
            notes.push(format!("{side}rule {} failed and said nothing more: {why}", rule.name));
        }
        if rule.dropped > 0 {
            notes.push(format!("{side}rule {}: {} groups came for windows that had ended", rule.name, rule.dropped));
        }
        let LeafCounts { late, unsearched } = rule.leaves;
        if late + unsearched > 0 {
            notes.push(format!(
                "{side}rule {}: {} spans counted though another of their trace may repeat their usage",
                rule.name,
                late + unsearched
            ));
        }
    }
    for limit in &account.limits {
        notes.push(format!("{side}rule {} has reached its limit of {} subjects", limit.rule, limit.subjects_max));
    }
    if account.events_before > 0 {
        notes.push(format!("{side}{} events came before the beginning and are left out", account.events_before));
    }
    if account.events_after > 0 {
        let after = account.events_after;
        notes.push(format!("{side}{after} events about what comes after the last telemetry are left out"));
    }
    notes
}

/// A measure in words: `140.1 / 140 USD`.
pub(super) fn peak_text(peak: &Peak) -> String {
    measured(Some(peak.observed), peak.threshold, peak.unit.as_deref()).unwrap_or_default()
}

/// Nanoseconds as a person says them: `2d 3h`, `4h 12m`, `12s`.
pub(super) fn length_text(ns: i64) -> String {
    let seconds = ns / 1_000_000_000;
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// For how long directives held that asked for something: `block 4h 12m, warn 1d 2h`.
pub(super) fn held_text(rule: &RuleDigest) -> String {
    let asked = rule.held_ns.iter().rev().filter(|(action, ns)| **action != Instruction::Allow && **ns > 0);
    asked.map(|(action, ns)| format!("{} {}", action.as_str(), length_text(*ns))).collect::<Vec<_>>().join(", ")
}

/// How often each state was said: `3 firing, 1 resolved`.
pub(super) fn states_text(rule: &RuleDigest) -> String {
    let states = rule.by_state.iter().map(|(state, count)| format!("{count} {state}"));
    states.collect::<Vec<_>>().join(", ")
}

/// An episode in words: when, whom, what, how much.
pub(super) fn episode_text(episode: &Episode) -> String {
    let end = match episode.ended {
        Some((state, at)) => format!("{} {at}", state.as_str()),
        None => "still held at the end".to_owned(),
    };
    let peak = episode.peak.as_ref().map(|peak| format!(", {}", peak_text(peak))).unwrap_or_default();
    format!("{}  {}  {}{peak}, {end}", episode.started, episode.strongest.as_str(), episode.subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn lengths_have_two_units_at_most() {
        let lengths = [12, 75, 3_700, 90_000].map(|seconds| length_text(seconds * SECOND));
        assert_eq!(lengths, ["12s", "1m 15s", "1h 1m", "1d 1h"]);
    }
}
