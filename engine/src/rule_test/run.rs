//! Runs rule tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use arrow::array::RecordBatch;
use lictor_connectors::RecordRef;
use lictor_queries::{References, RuleFile, references};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::Value;

use super::compare::{differences, fields_of};
use super::{Row, Step, TestCase, TestFile};
use crate::pipeline::{Pipeline, PipelineSettings};
use crate::rules_dir::{self, LoadedRules, RulesDirError};
use crate::watermark::Tolerances;

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The test file.
    pub file: PathBuf,
    /// The test's name.
    pub name: String,
    /// What was wrong, line by line; empty if it passed.
    pub faults: Vec<String>,
}

/// Why tests could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RuleTestError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A test file is not what it should be.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The rules directory cannot be read.
    #[error(transparent)]
    Rules(#[from] RulesDirError),
}

/// Runs every `*.test.yaml` under `root`, in the order of their names; `root` may be a single test file.
///
/// # Errors
/// [`RuleTestError`] for files that cannot be read; a test that fails, or whose rules do not compile, is an
/// [`Outcome`].
pub fn run_directory(root: &Path) -> Result<Vec<Outcome>, RuleTestError> {
    let mut outcomes = Vec::new();
    for path in test_files(root)? {
        let text = fs::read_to_string(&path).map_err(|source| unreadable(&path, source))?;
        let file: TestFile = serde_saphyr::from_str(&text)
            .map_err(|e| RuleTestError::Malformed { path: path.clone(), message: e.to_string() })?;
        for test in &file.tests {
            let faults = run_test(&path, &file, test)?;
            outcomes.push(Outcome { file: path.clone(), name: test.name.clone(), faults });
        }
    }
    Ok(outcomes)
}

fn unreadable(path: &Path, source: io::Error) -> RuleTestError {
    RuleTestError::Unreadable { path: path.to_owned(), source }
}

fn test_files(root: &Path) -> Result<Vec<PathBuf>, RuleTestError> {
    if root.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(root).map_err(|source| unreadable(root, source))? {
        let path = entry.map_err(|source| unreadable(root, source))?.path();
        if path.is_dir() {
            files.extend(test_files(&path)?);
        } else if path.to_string_lossy().ends_with(".test.yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs one test on a fresh pipeline; the faults, none if it passes.
fn run_test(path: &Path, file: &TestFile, test: &TestCase) -> Result<Vec<String>, RuleTestError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let loaded = match load(folder, file)? {
        Ok(loaded) => loaded,
        Err(faults) => return Ok(faults),
    };
    let tolerances = Tolerances { idle_after_ns: 0, ..Tolerances::default() };
    let settings = PipelineSettings { tolerances, ..PipelineSettings::default() };
    let mut bench = Bench {
        pipeline: Pipeline::new(loaded.rules, Arc::clone(&loaded.prices), &settings),
        lateness_ns: tolerances.lateness_ns,
        offset: 0,
        now: EventTime::MIN,
        events: Vec::new(),
        rules: &file.rules,
    };
    let mut faults = Vec::new();
    for (number, step) in (1..).zip(&test.steps) {
        match bench.step(test, step) {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => {
                faults.push(format!("step {number}: - expected, + found"));
                faults.extend(lines);
            }
            Err(message) => {
                faults.push(format!("step {number}: {message}"));
                break;
            }
        }
    }
    faults.extend(bench.quarantined());
    Ok(faults)
}

/// The rules under test with the test's own reference tables, or why they do not compile.
fn load(folder: &Path, file: &TestFile) -> Result<Result<LoadedRules, Vec<String>>, RuleTestError> {
    let meant = |name: &str| is_under_test(&file.rules, name);
    let as_written = rules_dir::load_with(folder, BTreeMap::new(), &meant)?;
    let mut overrides = BTreeMap::new();
    for decl in references(&as_written.files) {
        let Some(rows) = file.tables.get(&decl.name) else { continue };
        match batch_of(rows, decl.schema.clone().or_else(|| schema_of(&as_written.references, &decl.name))) {
            Ok(batch) => overrides.insert(decl.name, batch),
            Err(message) => return Ok(Err(vec![format!("table {}: {message}", decl.name)])),
        };
    }
    if let Some(name) = file.tables.keys().find(|t| !overrides.contains_key(*t)) {
        return Ok(Err(vec![format!("table {name}: no rule file declares it")]));
    }
    let loaded = if overrides.is_empty() { as_written } else { rules_dir::load_with(folder, overrides, &meant)? };
    let of_test: Vec<_> = loaded.diagnostics.iter().filter(|d| is_under_test(&file.rules, &d.file)).collect();
    if of_test.is_empty() {
        return Ok(Ok(loaded));
    }
    let text_of = |name: &str| loaded.files.iter().find(|f: &&RuleFile| f.file == name).map_or("", |f| &f.text);
    Ok(Err(of_test.iter().map(|d| d.render(text_of(&d.file), false)).collect()))
}

fn is_under_test(rules: &[String], file: &str) -> bool {
    rules.iter().any(|r| file == r || file.ends_with(&format!("/{r}")))
}

fn schema_of(references: &References, name: &str) -> Option<arrow::datatypes::SchemaRef> {
    references.get(name)?.as_ref().ok().map(RecordBatch::schema)
}

/// Rows of a test as a batch with the table's own columns; a column that is left out is null.
fn batch_of(rows: &[Row], schema: Option<arrow::datatypes::SchemaRef>) -> Result<RecordBatch, String> {
    let schema = schema.ok_or("its columns are not known")?;
    if let Some(name) = rows.iter().flat_map(|r| r.keys()).find(|k| schema.index_of(k).is_err()) {
        return Err(format!("it has no column {name}"));
    }
    let reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema)).with_coerce_primitive(true);
    let mut decoder = reader.build_decoder().map_err(|e| e.to_string())?;
    decoder.serialize(rows).map_err(|e| e.to_string())?;
    let batch = decoder.flush().map_err(|e| e.to_string())?;
    Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

/// A pipeline under test and the events that nobody has looked at yet.
struct Bench<'a> {
    pipeline: Pipeline,
    lateness_ns: i64,
    offset: i64,
    now: EventTime,
    events: Vec<EnforcementEvent>,
    rules: &'a [String],
}

impl Bench<'_> {
    /// Runs a step; the differences from what it expects.
    fn step(&mut self, test: &TestCase, step: &Step) -> Result<Vec<String>, String> {
        match (&step.rows, step.advance, &step.expect) {
            (Some(table), None, None) => self.rows(test, step, table).map(|()| Vec::new()),
            (None, Some(to), None) => {
                self.end_epoch(to.0.plus(self.lateness_ns));
                Ok(Vec::new())
            }
            (None, None, Some(expected)) => {
                let events = std::mem::take(&mut self.events);
                let found: Vec<Row> = events.iter().map(fields_of).collect();
                Ok(differences(expected, &found))
            }
            _ => Err("a step has exactly one of rows, advance and expect".to_owned()),
        }
    }

    fn rows(&mut self, test: &TestCase, step: &Step, table: &str) -> Result<(), String> {
        let table = Table::from_name(table).ok_or_else(|| format!("there is no table {table}"))?;
        let defaults = test.defaults.get(table.name()).cloned().unwrap_or_default();
        let drafts = step.values.iter().map(|row| draft(table, step, &defaults, row)).collect::<Result<Vec<_>, _>>()?;
        let signal = table.signal();
        let payload = encode_protobuf(signal, &drafts)?;
        let latest = drafts.iter().map(|d| d.event_time).max().unwrap_or(self.now);
        let record = RecordRef {
            topic: topic_of(signal),
            partition: step.partition,
            offset: self.offset,
            timestamp_ms: 0,
            key: None,
            payload: Some(&payload),
        };
        self.offset += 1;
        self.pipeline.absorb(record, latest);
        let epoch = self.end_epoch(latest);
        match epoch {
            Some(message) => Err(message),
            None => Ok(()),
        }
    }

    /// Ends an epoch at `now`; a dead letter is a fault of the test.
    fn end_epoch(&mut self, now: EventTime) -> Option<String> {
        self.now = self.now.max(now);
        let epoch = self.pipeline.end_epoch(self.now);
        let events = epoch.decisions.into_iter().map(|d| d.event);
        self.events.extend(events.filter(|e| is_under_test(self.rules, &e.data.rule.file)));
        epoch.dead.first().map(|dead| format!("the rows were refused: {}", dead.message))
    }

    fn quarantined(&self) -> Vec<String> {
        let status = self.pipeline.status().into_iter();
        status.filter_map(|s| s.quarantined.map(|why| format!("rule {} failed: {why}", s.name))).collect()
    }
}

fn topic_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "otlp_spans",
        Signal::Logs => "otlp_logs",
        Signal::Metrics => "otlp_metrics",
    }
}

fn draft(table: Table, step: &Step, defaults: &Row, row: &Row) -> Result<RowDraft, String> {
    let mut columns: BTreeMap<String, Value> = defaults.clone().into_iter().chain(row.clone()).collect();
    let own = match columns.remove("at") {
        Some(Value::String(text)) => Some(EventTime::from_rfc3339(&text)?),
        Some(other) => return Err(format!("at: {other} is no instant")),
        None => None,
    };
    let event_time = own.or(step.at.map(|at| at.0)).ok_or("a row needs a time: `at` in the step or in the row")?;
    Ok(RowDraft { table, event_time, columns })
}
