//! The two tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lictor_schemas::time::EventTime;

use super::DAY_NS;
use super::incidents::{Calendar, KINDS};
use super::measure::{Alarm, Delays, add_delays, judged};

/// Figures of all seeds.
#[derive(Default)]
pub(crate) struct Report {
    days: i64,
    seeds: i64,
    /// By rule: alarms of the first day, and of the others.
    quiet: BTreeMap<String, [u64; 2]>,
    delays: BTreeMap<(usize, &'static str), Delays>,
}

impl Report {
    /// Takes over what one seed has shown of these rules; nothing goes wrong within `quiet`.
    pub(crate) fn add(
        &mut self,
        rules: &[String],
        alarms: &[Alarm],
        calendar: &Calendar,
        quiet: (EventTime, EventTime),
    ) {
        self.days = (quiet.1.0 - quiet.0.0) / DAY_NS;
        self.seeds += 1;
        for rule in rules {
            self.quiet.entry(rule.clone()).or_default();
        }
        for alarm in alarms.iter().filter(|alarm| alarm.at < quiet.1) {
            let is_later = alarm.at >= quiet.0.plus(DAY_NS);
            self.quiet.entry(alarm.rule.clone()).or_default()[usize::from(is_later)] += 1;
        }
        add_delays(alarms, calendar, &mut self.delays);
    }

    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::new();
        let _ = self.write_quiet(&mut text);
        text.push('\n');
        let _ = self.write_delays(&mut text);
        text
    }

    fn write_quiet(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| rule | keys | directives on day 1 | on days 2 to {} | per key-day, days 2 on |", self.days)?;
        writeln!(text, "|---|---|---|---|---|")?;
        for (rule, [first, later]) in &self.quiet {
            let keys = judged(rule);
            let key_days = keys as f64 * (self.seeds * (self.days - 1)) as f64;
            let rate = *later as f64 / key_days;
            let rate = if *later == 0 { "0".to_owned() } else { format!("{rate:.4}") };
            writeln!(text, "| `{rule}` | {keys} | {first} | {later} | {rate} |")?;
        }
        Ok(())
    }

    fn write_delays(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| incident | rule | seen | median delay | 90 % within |")?;
        writeln!(text, "|---|---|---|---|---|")?;
        for ((kind, rule), delays) in self.delays.iter().filter(|((_, rule), _)| self.quiet.contains_key(*rule)) {
            let mut seen: Vec<i64> = delays.iter().copied().flatten().collect();
            seen.sort_unstable();
            // What is missed is seen after all that is seen.
            let at = |percent: usize| {
                let rank = (delays.len() * percent).div_ceil(100).max(1);
                seen.get(rank - 1).map_or("–".to_owned(), |ns| to_text(*ns))
            };
            let name = KINDS[*kind].name;
            writeln!(text, "| {name} | `{rule}` | {} of {} | {} | {} |", seen.len(), delays.len(), at(50), at(90))?;
        }
        Ok(())
    }
}

/// A length of time as people say it.
fn to_text(ns: i64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}
