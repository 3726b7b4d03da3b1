//! `lictor backtest`: what rules would have said of recorded telemetry, and what an edit of them changes.

pub(super) mod baseline;
mod chart;
mod html;
mod json;
mod markdown;
mod report;
mod revision;
mod text;
mod witness;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use lictor_engine::backtest::{self, Backtest};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{Config, LogFormat};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_queries::ReferenceDecl;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

pub(super) use self::html::{STYLE, escaped as escaped_html};
pub(super) use self::markdown::{cut, escaped as escaped_markdown};
use self::report::Report;
use self::witness::Listener;
use super::recorded::{Bar, Recorded, Sources, range_text};
use super::terminal::Painter;
use super::topic_tables::TopicTables;
use super::{check, explain};

/// The exit code if something has happened that `--fail-on` names.
const FOUND: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, or one rule file; by default that of the configuration.
    #[arg(required_unless_present = "config")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    recorded: Recorded,
    /// Windows that have not ended with the telemetry say nothing; without it time goes on to their end.
    #[arg(long)]
    leave_open: bool,
    /// What the rules are compared with: another rules directory, or a git revision of this one.
    #[arg(long, value_name = "RULES|REVISION")]
    against: Option<String>,
    /// The price table; by default that of the configuration, else llm_prices.csv in each rules directory.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Episodes shown of each kind and rule; of all of them only their number is told.
    #[arg(long, default_value_t = 5)]
    examples: usize,
    /// Writes the events as `run` would publish them, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Writes the report with charts as one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Ends with 3 if this has happened; what an edit adds or changes needs --against.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        requires_ifs = [("added", "against"), ("changes", "against")]
    )]
    fail_on: Vec<FailOn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Any rule has said something.
    Events,
    /// A controller would have been asked to block, whatever the mode.
    Blocks,
    /// The edit adds something that is said.
    Added,
    /// The edit changes anything that is said.
    Changes,
    /// A record could not be decoded.
    DeadLetters,
}

/// Replays and reports; ends with 1 if rules have faults or telemetry is missing, with 3 if `--fail-on` says so.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::run::start_log(LogFormat::Text)?;
    let config = arguments.recorded.telemetry().config(arguments.rules.as_deref().unwrap_or(Path::new("")))?;
    answer(arguments, &config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn answer(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    arguments.recorded.telemetry().check()?;
    let stop = super::stop_flag()?;
    let clock = SystemClock::start();
    let Some(sets) = RuleSets::load(arguments, config, &stop)? else { return Ok(ExitCode::FAILURE) };
    let range = arguments.recorded.range(clock.now())?;
    let settings = PipelineSettings { reach_ns: 0, ..config.pipeline_settings() };
    let sources = arguments.recorded.open(config, (&settings.signals, &sets.signals()), &range)?;
    let Sources { tracks, expected, meter, total, unit, names, notes } = sources;
    let decoders = arguments.recorded.decoders();
    let mut listeners = sets.listeners(arguments, range.from)?;
    let compiled = sets.compiled();
    let backtest = Backtest { tracks, range, sets: compiled, settings, leaves_open: arguments.leave_open, decoders };
    let bar = Bar::new(meter, total, unit);
    let outcome = bar.during(clock, || {
        let witnesses = listeners.iter_mut().map(|listener| listener as &mut dyn backtest::Witness).collect();
        backtest::run(backtest, &expected, witnesses, &stop)
    })?;
    let took = clock.monotonic();
    let report = Report::new(outcome, listeners, (names, notes), range)?;
    if report.reading.records == 0 {
        bail!("there is no telemetry {}: {}", range_text(&range), report.sources.join(", "));
    }
    write_report(arguments, &report)?;
    eprintln!("{}", report.speed(took));
    let is_found = arguments.fail_on.iter().any(|what| report.has(*what));
    Ok(match (report.reading.is_stopped, is_found) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(FOUND),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn write_report(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Text => text::write(report, arguments.examples, &mut out, Painter::for_stream(&io::stdout()))?,
        Format::Json => writeln!(out, "{:#}", json::document(report))?,
        Format::Markdown => out.write_all(markdown::document(report, arguments.examples).as_bytes())?,
    }
    out.flush()?;
    if let Some(path) = &arguments.html {
        let document = html::document(report, arguments.examples);
        fs::write(path, document).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The rules, and those that they are compared with.
struct RuleSets {
    /// As they are now, then as they were.
    sets: Vec<LoadedRules>,
}

impl RuleSets {
    /// None if a rule has a fault: it was reported.
    fn load(arguments: &Arguments, config: &Config, stop: &Arc<AtomicBool>) -> anyhow::Result<Option<Self>> {
        let rules = arguments.rules.as_ref().unwrap_or(&config.rules);
        let prices = arguments.prices.as_deref().or(config.prices.as_deref());
        let mut sets = vec![load(arguments, config, (rules, prices), stop)?];
        if let Some(against) = &arguments.against {
            let before = revision::Folder::of(against, rules)?;
            sets.push(load(arguments, config, (before.path(), prices), stop)?);
        }
        let is_good = sets.iter().all(|set| set.diagnostics.is_empty());
        for set in &sets {
            check::report_faults(set, &mut io::stderr().lock(), Painter::for_stream(&io::stderr()))?;
        }
        if !is_good {
            eprintln!("lictor: rules have faults: nothing was replayed");
        }
        Ok(is_good.then_some(Self { sets }))
    }

    fn signals(&self) -> Vec<Signal> {
        let rules = self.sets.iter().flat_map(|set| &set.rules.rules);
        let mut signals: Vec<Signal> = rules.flat_map(lictor_engine::verify::signals).collect();
        signals.sort_unstable();
        signals.dedup();
        signals
    }

    /// Who listens to each set; the events that are written are those of the rules as they are now.
    fn listeners(&self, arguments: &Arguments, from: Option<EventTime>) -> anyhow::Result<Vec<Listener>> {
        let listener = |(number, set): (usize, &LoadedRules)| {
            let headers: Vec<_> = set.rules.rules.iter().map(|rule| &rule.header).collect();
            let events = arguments.events.as_deref().filter(|_| number == 0);
            Listener::new(&headers, from, events, arguments.html.is_some())
        };
        self.sets.iter().enumerate().map(listener).collect()
    }

    fn compiled(self) -> Vec<(lictor_queries::RuleSet, Arc<lictor_schemas::prices::PriceTable>)> {
        self.sets.into_iter().map(|set| (set.rules, set.prices)).collect()
    }
}

/// The rules with the reference tables as they are now.
fn load(
    arguments: &Arguments,
    config: &Config,
    (rules, prices): (&Path, Option<&Path>),
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<LoadedRules> {
    if arguments.recorded.telemetry().is_files() {
        return Ok(rules_dir::load(rules, prices)?);
    }
    let mut topics = TopicTables::new(config, Arc::new(Metrics::new()), Arc::clone(stop));
    let mut read_topic = |decl: &ReferenceDecl| topics.rows(decl);
    let loaded = rules_dir::load_with_topics(rules, prices, &mut read_topic)?;
    if let Some(why) = topics.unanswered() {
        bail!(why);
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests;
