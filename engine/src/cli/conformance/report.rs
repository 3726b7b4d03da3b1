//! What was found of all runtimes, whatever it is written as.

use std::collections::BTreeMap;

use lictor_engine::backtest::{Account, Outcome, Reading};
use lictor_engine::conformance::{
    Census, Clause, ClauseReport, Evidence, Found, Level, REQUIREMENTS, RUNTIMES_MAX, Runtime, RuntimeReport, Standing,
    Verdict, report,
};
use lictor_engine::watermark::Untimely;
use lictor_schemas::tables::{Signal, Table};

/// What was read.
pub(super) struct Read {
    /// Files, or ranges of topics.
    pub(super) names: Vec<String>,
    /// What a reader of the report has to know.
    pub(super) notes: Vec<String>,
    /// Files were read: a partition is the number of one.
    pub(super) is_files: bool,
    /// What topics carry.
    pub(super) topics: BTreeMap<String, Signal>,
    /// Services whose events were looked for in log records.
    pub(super) of_logs: Vec<String>,
}

/// Everything that is reported.
pub(super) struct Report {
    pub(super) read: Read,
    pub(super) reading: Reading,
    pub(super) account: Account,
    /// Runtimes that claim to be governed.
    pub(super) runtimes: Vec<RuntimeReport>,
    /// Of those that claim nothing: who, and how many spans.
    pub(super) others: Vec<(Runtime, u64)>,
}

impl Report {
    pub(super) fn new(outcome: Outcome, census: &Census, clauses: &[Clause], mut read: Read) -> Self {
        let Outcome { reading, accounts } = outcome;
        let account = accounts.into_iter().next().unwrap_or_default();
        let evidence = Evidence::of(&account);
        let all = census.runtimes().iter().map(|(runtime, tally)| report(runtime, tally, clauses, &evidence));
        let (runtimes, others): (Vec<_>, Vec<_>) = all.partition(RuntimeReport::claims);
        let others = others.into_iter().map(|other| (other.runtime.clone(), other.spans())).collect();
        read.notes.extend(notes(&reading, &account, census));
        read.notes.extend((!read.of_logs.is_empty()).then(|| {
            format!("events of {} were looked for in log records, of others on spans", read.of_logs.join(", "))
        }));
        Self { read, reading, account, runtimes, others }
    }

    /// Services whose events are log records, which were looked for on spans.
    pub(super) fn unsaid_carriers(&self) -> Vec<String> {
        let unsaid = self.runtimes.iter().filter(|runtime| runtime.is_carrier_unsaid());
        let services = unsaid.map(|runtime| runtime.runtime.service.clone());
        services.filter(|service| !service.is_empty() && !self.read.of_logs.contains(service)).collect()
    }

    /// Somebody stopped it before the end.
    pub(super) fn is_stopped(&self) -> bool {
        self.reading.is_stopped
    }

    /// Whether a runtime may not claim `least`, or nobody claims anything.
    pub(super) fn is_below(&self, least: Level) -> bool {
        self.runtimes.is_empty() || self.runtimes.iter().any(|runtime| runtime.level < least)
    }

    /// Where a violation is: `a.jsonl record 7`, `otlp_spans[0]@7`.
    pub(super) fn place(&self, found: &Found) -> String {
        let Some((partition, offset)) = found.place else { return String::new() };
        if self.read.is_files {
            let name = usize::try_from(partition).ok().and_then(|number| self.read.names.get(number));
            return format!("{} record {offset}", name.map_or("?", String::as_str));
        }
        let signal = if found.rule.ends_with("_log") { Signal::Logs } else { Signal::Traces };
        let topics = self.read.topics.iter().filter(|(_, carried)| **carried == signal);
        let topics: Vec<&str> = topics.map(|(topic, _)| topic.as_str()).collect();
        format!("{}[{partition}]@{offset}", topics.join("|"))
    }

    /// Rows of each table that there were: used, and too late.
    pub(super) fn rows(&self) -> Vec<(Table, u64, u64)> {
        let counts = &self.account.counts;
        let rows = Table::ALL.into_iter().map(|table| {
            let late = counts.rows_untimely.get(&(table, Untimely::Late)).copied().unwrap_or_default();
            (table, counts.rows_used.get(&table).copied().unwrap_or_default(), late)
        });
        rows.filter(|(_, used, late)| used + late > 0).collect()
    }
}

fn notes(reading: &Reading, account: &Account, census: &Census) -> Vec<String> {
    let mut notes = Vec::new();
    if reading.is_stopped {
        notes.push("stopped before the end: what follows is about what was read until then".to_owned());
    }
    for limit in &account.limits {
        let (rule, most) = (&limit.rule, limit.subjects_max);
        notes.push(format!("rule {rule} has found more than the {most} that are kept at a time: there are more"));
    }
    if census.left_out() > 0 {
        let left_out = census.left_out();
        notes.push(format!("{left_out} events were about more runtimes than the {RUNTIMES_MAX} that are kept"));
    }
    let letters: u64 = account.counts.dead_letters.values().sum();
    if letters > 0 {
        notes.push(format!("{letters} records or items are no OTLP, or spans without valid ids (§1.3, §2.1)"));
    }
    notes
}

/// Who, in words: `gateway / genops 1.4`.
pub(super) fn runtime_text(runtime: &Runtime) -> String {
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let (service, scope) = (or(&runtime.service, "(no service)"), or(&runtime.scope, "(no scope)"));
    format!("{service} / {scope} {}", runtime.scope_version).trim_end().to_owned()
}

/// What a runtime sent, in words.
pub(super) fn sent_text(report: &RuntimeReport) -> String {
    let [span_events, logs] = report.events();
    let words = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let or = |text: String| if text.is_empty() { "not said".to_owned() } else { text };
    format!(
        "{} spans, {} AWUs, {span_events} span events, {logs} log records of GenOps; version {}; SDK {}",
        report.spans(),
        report.awus(),
        or(words(&report.tally.versions)),
        or(words(&report.tally.sdks)),
    )
}

/// What one has to know to read the clauses.
pub(super) fn remarks(report: &RuntimeReport) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(how) = &report.sampled {
        remarks.push(format!("telemetry was sampled: {how}; what is missing proves nothing"));
    }
    if report.too_long() > 0 {
        remarks.push(format!("{} AWUs lasted too long for their events to be missed", report.too_long()));
    }
    remarks
}

/// A level as §9 has it.
pub(super) fn level_text(level: Level) -> &'static str {
    match level {
        Level::Full => "may claim GenOps v0.1 (full, §9.1)",
        Level::Partial => "may claim \"GenOps v0.1 — partial\" (§9.2)",
        Level::None => "may not claim GenOps (§9.3)",
    }
}

/// Requirements that stand between a runtime and the full level, in words.
pub(super) fn open_text(report: &RuntimeReport) -> Vec<String> {
    let name = |number: u8| REQUIREMENTS.iter().find(|(n, _)| *n == number).map_or("", |(_, name)| *name);
    let open = report.standings.iter().filter_map(|(number, standing)| match standing {
        Standing::Shown => None,
        Standing::NotShown(why) => Some(format!("§9.1 ({number}) {}: not shown; {why}", name(*number))),
        Standing::Broken(clauses) => Some(format!("§9.1 ({number}) {}: broken; {}", name(*number), clauses.join(", "))),
    });
    open.collect()
}

/// A verdict in words: `3 of 40`.
pub(super) fn verdict_text(report: &ClauseReport) -> String {
    match &report.verdict {
        Verdict::Passed { judged } => format!("{judged} judged"),
        Verdict::Failed { found, judged } => format!("{found} of {judged}"),
        Verdict::NotAssessable(why) => why.to_string(),
    }
}

/// Passed, failed, not assessable.
pub(super) fn totals(report: &RuntimeReport) -> [usize; 3] {
    let count = |word| report.clauses.iter().filter(|clause| clause.verdict.as_str() == word).count();
    ["passed", "failed", "not assessable"].map(count)
}
