//! What the demo prints: the story, the events as they fire, and the bill at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;
use lictor_engine::company::Incident;
use lictor_engine::live::{EpochTiming, Observer, Summary};
use lictor_engine::pipeline::{Epoch, Pipeline};
use lictor_engine::rules_dir::LoadedRules;
use lictor_engine::scan_stage::ScanCounts;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use super::tail;
use super::terminal::{Paint, Painter};

/// Latencies are kept from a microsecond to a minute with three digits: 50 kB, whatever the demo's length.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Prints what happens.
pub(super) struct Narrator<W> {
    to: W,
    painter: Painter,
    /// Incidents that have not begun yet, the next one last.
    incidents: Vec<Incident>,
    counts: Totals,
    latency_us: Histogram<u64>,
    /// What the generator has produced in all, and the flag to set when all of it has been judged.
    end: Option<(Arc<AtomicU64>, Arc<AtomicBool>)>,
    /// Why the first line could not be written; the demo goes on without its voice and says so at the end.
    failed: Option<io::Error>,
}

#[derive(Default)]
struct Totals {
    scan: ScanCounts,
    fired: BTreeSet<String>,
    by_state: BTreeMap<&'static str, u64>,
    escalated: u64,
    results: BTreeMap<String, PolicyResult>,
}

impl<W: Write> Narrator<W> {
    pub(super) fn new(to: W, painter: Painter, mut incidents: Vec<Incident>) -> Self {
        incidents.sort_by_key(|i| std::cmp::Reverse(i.at));
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .unwrap_or_else(|e| unreachable!("1 µs to 60 s with three digits are valid bounds: {e}"));
        Self { to, painter, incidents, counts: Totals::default(), latency_us, end: None, failed: None }
    }

    /// Sets `stop` once as many records have been judged as were `produced`.
    pub(super) fn stop_after(&mut self, produced: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
        self.end = Some((produced, stop));
    }

    /// Says what is about to happen and where to look.
    pub(super) fn introduce(
        &mut self,
        loaded: &LoadedRules,
        bootstrap: &str,
        console: Option<SocketAddr>,
    ) -> io::Result<()> {
        writeln!(self.to, "A small company sends telemetry of its AI workloads; about an hour passes per minute.")?;
        writeln!(self.to, "Kafka:  {bootstrap}   (kcat -b {bootstrap} -t lictor.enforcement -C)")?;
        if let Some(address) = console {
            writeln!(self.to, "Console: http://{address}/")?;
        }
        for rule in &loaded.rules.rules {
            writeln!(self.to, "Rule:   {:18} {}", rule.header.name, first_sentence(&rule.header.description))?;
        }
        writeln!(self.to, "Telemetry begins in about three seconds.")?;
        self.to.flush()
    }

    fn narrate(&mut self, epoch: &Epoch, watermark: EventTime) -> io::Result<()> {
        let seen = epoch.decisions.iter().map(|d| d.event.time).max().map_or(watermark, |t| t.max(watermark));
        while self.incidents.last().is_some_and(|i| i.at <= seen) {
            let Some(incident) = self.incidents.pop() else { break };
            let line = format!("{}  ~ {}: {}", incident.at.to_rfc3339(), incident.name, incident.story);
            writeln!(self.to, "{}", self.painter.paint(Paint::Dim, &line))?;
        }
        // A renewal only moves the end of a directive that still holds.
        for decision in epoch.decisions.iter().filter(|d| !self.counts.is_renewal(&d.event)) {
            writeln!(self.to, "{}", tail::line(&decision.event, self.painter))?;
        }
        if epoch.decisions.is_empty() { Ok(()) } else { self.to.flush() }
    }

    /// Prints the bill.
    pub(super) fn conclude(mut self, produced: u64, summary: Summary) -> io::Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (scan, events) = (&self.counts.scan, self.counts.by_state.values().sum::<u64>());
        let rows = |table: Table| scan.rows_used.get(&table).copied().unwrap_or_default();
        let states = self.counts.by_state.iter().map(|(s, n)| format!("{n} {s}")).collect::<Vec<_>>().join(", ");
        let late: u64 = scan.rows_untimely.values().sum();
        let dead = scan.records_dead + scan.records_partly_dead;
        writeln!(self.to)?;
        writeln!(self.to, "records in     {} of {produced} produced ({} spans)", summary.records, rows(Table::Spans))?;
        writeln!(self.to, "events out     {events} ({states}; {} escalated)", self.counts.escalated)?;
        writeln!(self.to, "rules fired    {}", self.counts.fired.iter().cloned().collect::<Vec<_>>().join(", "))?;
        writeln!(self.to, "late rows      {late}")?;
        writeln!(self.to, "dead-lettered  {dead}")?;
        let ms = |q: f64| {
            #[expect(clippy::cast_precision_loss, reason = "at most 60 million microseconds")]
            let us = self.latency_us.value_at_quantile(q) as f64;
            us / 1_000.0
        };
        writeln!(
            self.to,
            "latency        p50 {:.1} ms, p99 {:.1} ms (stamped by the producer → event acknowledged; {} epochs)",
            ms(0.5),
            ms(0.99),
            self.latency_us.len()
        )?;
        self.to.flush()
    }
}

impl<W: Write> Observer for Narrator<W> {
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, pipeline: &Pipeline) {
        if self.failed.is_none() {
            self.failed = self.narrate(epoch, pipeline.watermark(Signal::Traces)).err();
        }
        self.counts.add(epoch);
        if let Some((produced, stop)) = &self.end
            && self.counts.scan.records >= produced.load(Ordering::Relaxed)
        {
            stop.store(true, Ordering::Relaxed);
        }
        if let Some(latency) = timing.latency.filter(|_| !epoch.decisions.is_empty()) {
            let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
            self.latency_us.saturating_record(us.clamp(1, LATENCY_MAX_US));
        }
    }
}

impl Totals {
    fn add(&mut self, epoch: &Epoch) {
        let counts = &epoch.counts;
        self.scan.records += counts.records;
        self.scan.records_dead += counts.records_dead;
        self.scan.records_partly_dead += counts.records_partly_dead;
        for (table, rows) in &counts.rows_used {
            *self.scan.rows_used.entry(*table).or_default() += rows;
        }
        for (key, rows) in &counts.rows_untimely {
            *self.scan.rows_untimely.entry(*key).or_default() += rows;
        }
        epoch.decisions.iter().for_each(|d| self.add_event(&d.event));
    }

    /// Whether an event says no more than that a directive still holds.
    fn is_renewal(&self, event: &EnforcementEvent) -> bool {
        let before = self.results.get(&event.data.directive_id);
        event.data.state == State::Updated && before == Some(&event.data.finding.result)
    }

    fn add_event(&mut self, event: &EnforcementEvent) {
        let directive = &event.data;
        let state = if self.is_renewal(event) { "renewed" } else { directive.state.as_str() };
        *self.by_state.entry(state).or_default() += 1;
        if directive.state == State::Firing {
            self.fired.insert(directive.rule.name.clone());
        }
        let result = directive.finding.result;
        let before = if directive.state.is_ended() {
            self.results.remove(&directive.directive_id)
        } else {
            self.results.insert(directive.directive_id.clone(), result)
        };
        self.escalated += u64::from(before.is_some_and(|before| result > before));
    }
}

/// The first sentence of a description on one line, with its full stop: a number like `0.8` has none.
fn first_sentence(description: &str) -> String {
    let line = description.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = line.split(". ").next().unwrap_or_default();
    format!("{}.", sentence.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_with_a_full_stop_and_not_in_a_number() {
        assert_eq!(first_sentence("Above 0.8 of a\nbudget. Then more."), "Above 0.8 of a budget.");
        assert_eq!(first_sentence("Reads gen_ai.usage"), "Reads gen_ai.usage.");
    }
}
