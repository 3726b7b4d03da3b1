//! `lictor backtest`: what rules would have said of recorded telemetry, and what an edit of them changes.

pub(super) mod baseline;
mod chart;
mod html;
mod json;
mod markdown;
mod progress;
mod report;
mod revision;
mod sources;
mod text;
mod witness;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use lictor_engine::backtest::{self, Backtest, Range};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{Config, LogFormat, Outside, duration};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_queries::ReferenceDecl;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use self::report::Report;
use self::sources::{Offsets, Sources};
use self::witness::Listener;
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
    /// The configuration of the deployment whose telemetry is read: brokers, topics, columns, tolerances.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// The brokers, as host:port,host:port, if there is no configuration: otlp_spans, otlp_logs, otlp_metrics are read.
    #[arg(long, conflicts_with_all = ["config", "files"])]
    bootstrap: Option<String>,
    /// Recorded OTLP in place of topics: files and folders of JSON lines, JSON documents, protobuf; also .gz and .zst.
    #[arg(long, num_args = 1.., value_name = "PATH", conflicts_with = "offsets")]
    files: Vec<PathBuf>,
    /// What protobuf files hold, if their bytes do not tell: traces, logs or metrics.
    #[arg(long, value_parser = parse_signal, requires = "files", conflicts_with = "bootstrap")]
    signal: Option<Signal>,
    /// From when telemetry is judged, by when the brokers got it (of files: when it happened): 2026-03-01T08:00Z.
    #[arg(long, value_parser = parse_time)]
    from: Option<EventTime>,
    /// Until when.
    #[arg(long, value_parser = parse_time)]
    to: Option<EventTime>,
    /// The last so long until now, as in 7d or 12h.
    #[arg(long, value_parser = duration::parse_ns, conflicts_with_all = ["from", "to"])]
    last: Option<i64>,
    /// Only these records, as in otlp_spans[0]=100..200; may be repeated.
    #[arg(long, value_name = "TOPIC[PARTITION]=FROM..TO")]
    offsets: Vec<Offsets>,
    /// How much telemetry before the beginning is read, so that windows are whole and rules can look back.
    #[arg(long, value_parser = duration::parse_ns, default_value = "0s")]
    lead: i64,
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
    /// Threads that decode; by default one less than the machine has cores.
    #[arg(long)]
    decoders: Option<usize>,
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

fn parse_signal(text: &str) -> Result<Signal, String> {
    Signal::parse(text).ok_or_else(|| "is none of traces, logs and metrics".to_owned())
}

/// RFC 3339, also without seconds, or a date: its midnight in UTC.
pub(super) fn parse_time(text: &str) -> Result<EventTime, String> {
    let whole = match (text.len(), text.get(16..)) {
        (10, _) => format!("{text}T00:00:00Z"),
        (_, Some(zone)) if !zone.starts_with(':') => format!("{}:00{zone}", &text[..16]),
        _ => text.to_owned(),
    };
    EventTime::from_rfc3339(&whole)
        .map_err(|_| "is no instant: write 2026-03-01, 2026-03-01T08:00Z or 2026-03-01T08:00:00+01:00".to_owned())
}

/// Replays and reports; ends with 1 if rules have faults or telemetry is missing, with 3 if `--fail-on` says so.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::run::start_log(LogFormat::Text)?;
    let config = config_of(arguments)?;
    answer(arguments, &config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

/// The configuration that was named, else the defaults.
fn config_of(arguments: &Arguments) -> anyhow::Result<Config> {
    let rules = arguments.rules.as_deref().unwrap_or(Path::new(""));
    config_or_default(arguments.config.as_deref(), rules, arguments.bootstrap.as_deref())
}

fn config_or_default(config: Option<&Path>, rules: &Path, bootstrap: Option<&str>) -> anyhow::Result<Config> {
    if let Some(path) = config {
        return Ok(Config::load(path)?);
    }
    let servers = bootstrap.unwrap_or("127.0.0.1:9092");
    // JSON is YAML.
    let text = serde_json::json!({"kafka": {"bootstrap.servers": servers}, "rules": rules});
    let outside = Outside { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
    Ok(Config::from_yaml(Path::new("--bootstrap"), &text.to_string(), &outside)?)
}

fn answer(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    if arguments.config.is_none() && arguments.bootstrap.is_none() && arguments.files.is_empty() {
        bail!("nothing says where telemetry is: name a configuration (-c), --bootstrap or --files");
    }
    let stop = super::stop_flag()?;
    let clock = SystemClock::start();
    let Some(sets) = RuleSets::load(arguments, config, &stop)? else { return Ok(ExitCode::FAILURE) };
    let range = range_of(arguments, clock.now())?;
    let settings = PipelineSettings { reach_ns: 0, ..config.pipeline_settings() };
    let sources = if arguments.files.is_empty() {
        sources::topics(config, &sets.signals(), &range, &arguments.offsets)?
    } else {
        sources::files(&arguments.files, &settings.signals, arguments.signal)?
    };
    let Sources { tracks, expected, meter, total, unit, names, notes } = sources;
    let decoders = arguments.decoders.unwrap_or_else(|| thread::available_parallelism().map_or(1, |n| n.get() - 1));
    let mut listeners = sets.listeners(arguments, range.from)?;
    let compiled = sets.compiled();
    let backtest = Backtest { tracks, range, sets: compiled, settings, leaves_open: arguments.leave_open, decoders };
    let bar = progress::Bar::new(meter, total, unit);
    let outcome = bar.during(clock, || {
        let witnesses = listeners.iter_mut().map(|listener| listener as &mut dyn backtest::Witness).collect();
        backtest::run(backtest, &expected, witnesses, &stop)
    })?;
    let took = clock.monotonic();
    let report = Report::new(outcome, listeners, (names, notes), range)?;
    if report.reading.records == 0 {
        bail!("there is no telemetry {}: {}", report::range_text(&range), report.sources.join(", "));
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

/// From when until when, if `last_ns` does not say how long until `now`.
fn bounds_of(
    last_ns: Option<i64>,
    (from, to): (Option<EventTime>, Option<EventTime>),
    now: EventTime,
) -> anyhow::Result<(Option<EventTime>, Option<EventTime>)> {
    let (from, to) = match last_ns {
        Some(last_ns) => (Some(now.plus(-last_ns)), Some(now)),
        None => (from, to),
    };
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        bail!("--from {from} is not before --to {to}");
    }
    Ok((from, to))
}

fn range_of(arguments: &Arguments, now: EventTime) -> anyhow::Result<Range> {
    let (from, to) = bounds_of(arguments.last, (arguments.from, arguments.to), now)?;
    if from.is_none() && arguments.lead > 0 {
        bail!("--lead says how much is read before --from or --last, and neither is there");
    }
    Ok(Range { read_from: from.map(|from| from.plus(-arguments.lead)), from, to })
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
    if !arguments.files.is_empty() {
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
