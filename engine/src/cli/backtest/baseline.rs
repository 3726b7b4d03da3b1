//! `lictor baseline`: a view over recorded telemetry as a reference table, for drift against a fixed past.
//!
//! Telemetry is found and read as `lictor backtest` does; what is done with it is one sum.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, anyhow, bail};
use arrow::array::RecordBatch;
use clap::Args;
use lictor_connectors::{TableFormat, write_table};
use lictor_engine::backtest::{Reading, Rows, rows};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{Config, LogFormat};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedBaseline};
use lictor_engine::scan_stage::ScanCounts;
use lictor_queries::{Baseline, Diagnostic, ReferenceDecl};
use lictor_schemas::prices::PriceTable;

use crate::cli::recorded::{Bar, Sources, Telemetry, range_text};
use crate::cli::terminal::Painter;
use crate::cli::topic_tables::TopicTables;
use crate::cli::{self, explain, stop_flag};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The rule file with the view: CREATE VIEW usual AS SELECT project, hist_log(latency_ms) AS latency_ms …
    file: PathBuf,
    /// The view's name, if it is not the last of the file.
    #[arg(long)]
    view: Option<String>,
    /// Where the table is written, as the ending says: .csv, .jsonl or .parquet.
    #[arg(short, long, value_parser = parse_output)]
    output: Output,
    #[command(flatten)]
    telemetry: Telemetry,
    /// The price table; by default that of the configuration, else llm_prices.csv beside the file.
    #[arg(long)]
    prices: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Output {
    path: PathBuf,
    format: TableFormat,
}

fn parse_output(text: &str) -> Result<Output, String> {
    let path = PathBuf::from(text);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let format = match ending.as_deref() {
        Some("csv") => TableFormat::Csv,
        Some("json" | "jsonl" | "ndjson") => TableFormat::Json,
        Some("parquet") => TableFormat::Parquet,
        _ => return Err("ends with none of .csv, .jsonl and .parquet".to_owned()),
    };
    Ok(Output { path, format })
}

/// Sums up and writes; ends with 1 if the file has faults, or if it was stopped before the telemetry's end.
pub(in crate::cli) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::run::start_log(LogFormat::Text)?;
    let folder = arguments.file.parent().unwrap_or(Path::new(""));
    let config = arguments.telemetry.config(folder)?;
    answer(arguments, &config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn answer(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    arguments.telemetry.check()?;
    let stop = stop_flag()?;
    let clock = SystemClock::start();
    let Some((baseline, prices)) = load(arguments, config, &stop)? else { return Ok(ExitCode::FAILURE) };
    let range = arguments.telemetry.range(clock.now())?;
    let settings = config.pipeline_settings();
    let what = (&settings.signals, &[baseline.table().signal()][..]);
    let Sources { tracks, meter, total, unit, names, notes, .. } =
        arguments.telemetry.open(config, what, &range, &[])?;
    let of = |settings: &PipelineSettings| -> anyhow::Result<(RecordBatch, Reading, ScanCounts)> {
        let (table, wanted) = (baseline.table(), baseline.wanted());
        let of = Rows { tracks, range, table, wanted, prices, settings };
        let (summed, reading, counts) = rows(of, |batches| baseline.run(batches.into_iter()), &stop)?;
        Ok((summed?, reading, counts))
    };
    let (table, reading, counts) = Bar::new(meter, total, unit).during(clock, || of(&settings))?;
    if reading.is_stopped {
        eprintln!("lictor: stopped before the end of the telemetry: nothing was written");
        return Ok(ExitCode::FAILURE);
    }
    if reading.records == 0 {
        bail!("there is no telemetry {}: {}", range_text(&range), names.join(", "));
    }
    let Output { path, format } = &arguments.output;
    write_table(path, *format, &table).with_context(|| format!("cannot write {}", path.display()))?;
    tell(&baseline, &table, (&reading, &counts), path);
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    Ok(ExitCode::SUCCESS)
}

fn tell(baseline: &Baseline, table: &RecordBatch, (reading, counts): (&Reading, &ScanCounts), path: &Path) {
    let rows: u64 = counts.rows_used.values().sum();
    let (summed, of, records) = (table.num_rows(), baseline.table().name(), reading.records);
    eprintln!("{}: {summed} rows of `{}`, from {rows} {of} in {records} records", path.display(), baseline.name());
    if counts.records_dead + counts.records_partly_dead > 0 {
        let (dead, partly) = (counts.records_dead, counts.records_partly_dead);
        eprintln!("note: {dead} records could not be decoded, and {partly} only in part");
    }
    if table.num_rows() == 0 {
        eprintln!("note: no group was found: does the view's WHERE or HAVING leave anything?");
    }
}

/// The view, planned; none if the file has faults: they were reported.
fn load(
    arguments: &Arguments,
    config: &Config,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Option<(Baseline, Arc<PriceTable>)>> {
    let prices = arguments.prices.as_deref().or(config.prices.as_deref());
    let mut topics = TopicTables::new(config, Arc::new(Metrics::new()), Arc::clone(stop));
    let mut read_topic = |decl: &ReferenceDecl| topics.rows(decl);
    let of = (arguments.view.as_deref(), arguments.output.path.as_path());
    let LoadedBaseline { file, prices, planned } =
        rules_dir::load_baseline(&arguments.file, prices, of, &mut read_topic)?;
    if let Some(why) = topics.unanswered() {
        bail!(why);
    }
    match planned {
        Ok(baseline) => Ok(Some((baseline, prices))),
        Err(faults) => {
            report_faults(&faults, &file.text);
            Ok(None)
        }
    }
}

fn report_faults(faults: &[Diagnostic], text: &str) {
    let is_colored = Painter::for_stream(&io::stderr()).color;
    faults.iter().for_each(|fault| eprintln!("{}", fault.render(text, is_colored)));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use lictor_schemas::otlp::encode::{RowDraft, encode_json};
    use lictor_schemas::tables::{Signal, Table};
    use lictor_schemas::time::EventTime;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    const RULES: &str = "CREATE EXTERNAL TABLE usual (team VARCHAR, shape VARCHAR, calls BIGINT)
            STORED AS CSV LOCATION 'usual.csv';
        CREATE VIEW shapes AS SELECT team, hist_log(output_tokens) AS shape, count(*) AS calls
            FROM spans WHERE usage_leaf GROUP BY team;
        CREATE RULE other WITH (action = 'warn', reason_code = 'x_other') AS
            SELECT s.team, ks_stat(hist_parse(u.shape), s.shape) AS observed, window_start, window_end
            FROM (SELECT team, hist_log(output_tokens) AS shape, window_start, window_end
                  FROM TUMBLE(spans, event_time, INTERVAL '1 hour') GROUP BY team, window_start, window_end) AS s
            JOIN usual AS u ON u.team = s.team WHERE ks_stat(hist_parse(u.shape), s.shape) > 0.5 EMIT ON CLOSE;";

    /// A folder with the rules and an hour of recorded spans, one a minute.
    fn folder(rules: &str) -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("rules.sql"), rules).unwrap();
        let start = EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap();
        let line = |minute: i64| {
            let team = if minute % 3 == 0 { "b" } else { "a" };
            let columns = json!({"team": team, "output_tokens": 200}).as_object().unwrap().clone();
            let event_time = start.plus(minute * 60_000_000_000);
            let span = RowDraft { table: Table::Spans, event_time, columns: columns.into_iter().collect() };
            String::from_utf8(encode_json(Signal::Traces, &[span]).unwrap()).unwrap() + "\n"
        };
        fs::write(dir.path().join("spans.jsonl"), (0..60).map(line).collect::<String>()).unwrap();
        dir
    }

    fn baseline(dir: &TempDir, more: &[&str]) -> anyhow::Result<ExitCode> {
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (rules, files, output) = (path("rules.sql"), path("spans.jsonl"), path("usual.csv"));
        let words = ["baseline", &rules, "--files", &files, "-o", &output];
        let arguments = CommandLine::try_parse_from(words.iter().chain(more))?.arguments;
        answer(&arguments, &arguments.telemetry.config(dir.path())?)
    }

    #[test]
    fn the_table_that_is_written_is_the_one_that_the_rule_beside_the_view_reads() {
        let dir = folder(RULES);
        assert_eq!(baseline(&dir, &[]).unwrap(), ExitCode::SUCCESS);
        let written = fs::read_to_string(dir.path().join("usual.csv")).unwrap();
        let shape = |count: u32| format!("\"{{\"\"buckets\"\":[302],\"\"counts\"\":[{count}],\"\"sub\"\":8}}\"");
        assert_eq!(written, format!("team,shape,calls\na,{},40\nb,{},20\n", shape(40), shape(20)));
        let loaded = rules_dir::load(&dir.path().join("rules.sql"), None).unwrap();
        assert_eq!((loaded.diagnostics, loaded.rules.rules.len()), (vec![], 1));
    }

    #[test]
    fn only_what_came_between_counts_and_nothing_is_an_error() {
        let dir = folder(RULES);
        baseline(&dir, &["--from", "2026-03-01T08:10Z", "--to", "2026-03-01T08:20Z"]).unwrap();
        let written = fs::read_to_string(dir.path().join("usual.csv")).unwrap();
        let calls: Vec<_> = written.lines().skip(1).filter_map(|line| line.rsplit(',').next()).collect();
        assert_eq!(calls, ["7", "3"]);
        let error = baseline(&dir, &["--from", "2027-01-01"]).unwrap_err().to_string();
        assert!(error.starts_with("there is no telemetry from 2027-01-01"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("usual.csv")).unwrap(), written, "the old one stays");
    }

    #[test]
    fn faults_of_the_file_end_it_with_one() {
        let dir = folder("CREATE VIEW v AS SELECT temm, count(*) AS n FROM spans GROUP BY temm;");
        assert_eq!(baseline(&dir, &[]).unwrap(), ExitCode::FAILURE);
        let dir = folder(RULES);
        assert_eq!(baseline(&dir, &["--view", "gone"]).unwrap(), ExitCode::FAILURE);
        assert!(!dir.path().join("usual.csv").exists());
    }

    #[test]
    fn the_ending_says_how_a_table_is_written() {
        let format = |text: &str| parse_output(text).map(|output| output.format);
        assert_eq!(format("a/b.CSV"), Ok(TableFormat::Csv));
        assert_eq!(format("b.jsonl"), Ok(TableFormat::Json));
        assert_eq!(format("b.parquet"), Ok(TableFormat::Parquet));
        assert!(format("b.xlsx").is_err() && format("b").is_err());
    }
}
