//! `lictor conformance`: of each runtime, whether its recorded telemetry keeps to GenOps, clause by clause.
//!
//! It is a backtest of the conformance rules, and a report of what they find. Which services send their events as log
//! records is a matter of the rules' table `event_carriers`; telemetry that tells it by itself is read a second time.

mod html;
mod json;
mod markdown;
mod report;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use lictor_engine::backtest::{self, Backtest, Witness};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{Config, LogFormat};
use lictor_engine::conformance::{Census, EVENT_CARRIERS, Level, clauses, with_log_services};
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::shipped;
use lictor_engine::verify::signals;

use self::report::{Read, Report};
use super::recorded::{Bar, Recorded, Sources, range_text};
use super::rules_folder::RulesFolder;
use super::terminal::Painter;
use super::{check, explain};

/// The exit code if a runtime is below `--level`.
const BELOW: u8 = 3;

/// Nobody waits for an answer here, and what comes too late is not judged: exporters retry for five minutes.
const LATENESS_NS_MIN: i64 = 10 * 60 * 1_000_000_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Conformance rules to judge by instead of the shipped ones.
    rules: Option<PathBuf>,
    #[command(flatten)]
    recorded: Recorded,
    /// Services whose GenOps events are log records; telemetry that has no span events tells it by itself.
    #[arg(long, value_name = "SERVICE")]
    log_events: Vec<String>,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Violations shown of each clause; of all of them only their number is told.
    #[arg(long, default_value_t = 3)]
    examples: usize,
    /// Ends with 3 if a runtime that claims to be governed may not claim this level, or if none claims it.
    #[arg(long, value_enum)]
    level: Option<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// For a comment on a pull request.
    Markdown,
    /// One file that loads nothing.
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// All of §9.1.
    Full,
    /// All but accounting and required events (§9.2).
    Partial,
}

/// Judges and reports; ends with 1 if rules have faults or telemetry is missing, with 3 if `--level` says so.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::run::start_log(LogFormat::Text)?;
    let folder = RulesFolder::prepare(arguments.rules.clone(), shipped::write_conformance_to)?;
    let config = arguments.recorded.telemetry().config(folder.path())?;
    answer(arguments, &config, &folder).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn answer(arguments: &Arguments, config: &Config, folder: &RulesFolder) -> anyhow::Result<ExitCode> {
    arguments.recorded.telemetry().check()?;
    let stop = super::stop_flag()?;
    let mut of_logs: BTreeSet<String> = arguments.log_events.iter().cloned().collect();
    let Some(mut report) = judge(arguments, config, (folder, &of_logs), &stop)? else { return Ok(ExitCode::FAILURE) };
    let unsaid = report.unsaid_carriers();
    if !unsaid.is_empty() && !report.is_stopped() {
        of_logs.extend(unsaid);
        match judge(arguments, config, (folder, &of_logs), &stop)? {
            Some(again) => report = again,
            None => return Ok(ExitCode::FAILURE),
        }
    }
    write(arguments, &report)?;
    if report.is_stopped() {
        return Ok(ExitCode::FAILURE);
    }
    let least = arguments.level.map(|wanted| match wanted {
        Wanted::Full => Level::Full,
        Wanted::Partial => Level::Partial,
    });
    Ok(if least.is_some_and(|least| report.is_below(least)) { ExitCode::from(BELOW) } else { ExitCode::SUCCESS })
}

/// Judges the telemetry, with the events of some services in log records; none if the rules have faults.
fn judge(
    arguments: &Arguments,
    config: &Config,
    (folder, of_logs): (&RulesFolder, &BTreeSet<String>),
    stop: &AtomicBool,
) -> anyhow::Result<Option<Report>> {
    let loaded = load(folder, of_logs)?;
    check::report_faults(&loaded, &mut io::stderr().lock(), Painter::for_stream(&io::stderr()))?;
    if !loaded.diagnostics.is_empty() {
        eprintln!("lictor: rules have faults: nothing was judged");
        return Ok(None);
    }
    let clauses = clauses(loaded.rules.rules.iter().map(|rule| &rule.header))?;
    if clauses.is_empty() {
        bail!("{}: no rule in it says which clause it judges", folder.path().display());
    }
    let clock = SystemClock::start();
    let range = arguments.recorded.range(clock.now())?;
    let mut settings = PipelineSettings { reach_ns: 0, ..config.pipeline_settings() };
    settings.tolerances.lateness_ns = settings.tolerances.lateness_ns.max(LATENESS_NS_MIN);
    let mut wanted: Vec<_> = loaded.rules.rules.iter().flat_map(signals).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let topics = settings.signals.clone();
    let sources = arguments.recorded.open(config, (&topics, &wanted), &range)?;
    let Sources { tracks, expected, meter, total, unit, names, notes } = sources;
    let (sets, decoders) = (vec![(loaded.rules, loaded.prices)], arguments.recorded.decoders());
    let backtest = Backtest { tracks, range, sets, settings, leaves_open: false, decoders };
    let mut census = Census::new(&clauses);
    let outcome = Bar::new(meter, total, unit).during(clock, || {
        let witnesses: Vec<&mut dyn Witness> = vec![&mut census];
        backtest::run(backtest, &expected, witnesses, stop)
    })?;
    if outcome.reading.records == 0 {
        bail!("there is no telemetry {}: {}", range_text(&range), names.join(", "));
    }
    let is_files = arguments.recorded.telemetry().is_files();
    let read = Read { names, notes, is_files, topics, of_logs: of_logs.iter().cloned().collect() };
    Ok(Some(Report::new(outcome, &census, &clauses, read)))
}

fn load(folder: &RulesFolder, of_logs: &BTreeSet<String>) -> anyhow::Result<LoadedRules> {
    let loaded = rules_dir::load(folder.path(), None)?;
    if of_logs.is_empty() {
        return Ok(loaded);
    }
    let carriers = loaded.references.get(EVENT_CARRIERS).and_then(|table| table.as_ref().ok());
    let carriers = carriers.with_context(|| format!("the rules have no table {EVENT_CARRIERS} to say it in"))?;
    let carriers = with_log_services(carriers, of_logs.iter().map(String::as_str))?;
    Ok(rules_dir::load_with(folder.path(), BTreeMap::from([(EVENT_CARRIERS.to_owned(), carriers)]), &|_| true)?)
}

fn write(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Text => text::write(report, arguments.examples, &mut out, Painter::for_stream(&io::stdout()))?,
        Format::Json => writeln!(out, "{:#}", json::document(report, arguments.examples))?,
        Format::Markdown => out.write_all(markdown::document(report, arguments.examples).as_bytes())?,
        Format::Html => out.write_all(html::document(report, arguments.examples).as_bytes())?,
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests;
