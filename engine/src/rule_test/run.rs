//! Runs rule tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arrow::array::RecordBatch;
use lictor_queries::{Diagnostic, References, RuleFile, references};
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::Table;
use lictor_schemas::time::EventTime;
use serde_json::Value;

use super::bench::{Aside, Bench};
use super::compare::{Comparison, fields_of};
use super::{Row, Step, TestCase, TestFile};
use crate::clock::{Clock, SystemClock};
use crate::pipeline::PipelineSettings;
use crate::rules_dir::{self, LoadedRules, RulesDirError};
use crate::watermark::Tolerances;

/// What became of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The test file.
    pub file: PathBuf,
    /// The test's name.
    pub name: String,
    /// What was wrong, each in one or more lines; empty if it passed.
    pub faults: Vec<String>,
    /// What rules have said.
    pub witnessed: Witnessed,
    /// How long it took.
    pub took: Duration,
    /// Its number in the file.
    pub(super) number: usize,
    /// The expectations that were not met: the number of the step, what it says and what there was.
    pub(super) unmet: Vec<(usize, Vec<Row>, Vec<Row>)>,
}

/// What a test has made the rules under test say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnessed {
    /// Rules that fired, with the results and reason codes that they gave.
    pub said: BTreeMap<String, BTreeSet<String>>,
    /// Rules whose directives have ended.
    pub ended: BTreeSet<String>,
    /// Rules that rows have come for and that said nothing of them.
    pub silent: BTreeSet<String>,
}

impl Witnessed {
    /// Takes over what another test has shown.
    pub fn add(&mut self, other: &Self) {
        for (rule, words) in &other.said {
            self.said.entry(rule.clone()).or_default().extend(words.iter().cloned());
        }
        self.ended.extend(other.ended.iter().cloned());
        self.silent.extend(other.silent.iter().cloned());
    }
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
    run_files(&test_files(root)?, &PipelineSettings::default(), &|_| true, &SystemClock::start())
}

/// Runs those tests of these files whose names are `chosen`. Of the settings the lateness, the columns and the limits
/// count; a test has its own topics, and its clock stands still between two steps.
///
/// # Errors
/// As [`run_directory`].
pub fn run_files(
    files: &[PathBuf],
    settings: &PipelineSettings,
    chosen: &dyn Fn(&str) -> bool,
    clock: &dyn Clock,
) -> Result<Vec<Outcome>, RuleTestError> {
    let PipelineSettings { tolerances, columns, groups_max, subjects_max, .. } = settings.clone();
    let tolerances = Tolerances { idle_after_ns: 0, ..tolerances };
    let settings = PipelineSettings { tolerances, columns, groups_max, subjects_max, ..PipelineSettings::default() };
    let mut outcomes = Vec::new();
    for path in files {
        let file = read(path)?;
        for (number, test) in file.tests.iter().enumerate().filter(|(_, test)| chosen(&test.name)) {
            let started = clock.monotonic();
            let mut outcome = run_test(path, &file, test, &settings)?;
            (outcome.number, outcome.took) = (number, clock.monotonic().saturating_sub(started));
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn read(path: &Path) -> Result<TestFile, RuleTestError> {
    let text = fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
    super::parse(&text).map_err(|message| RuleTestError::Malformed { path: path.to_owned(), message })
}

fn unreadable(path: &Path, source: io::Error) -> RuleTestError {
    RuleTestError::Unreadable { path: path.to_owned(), source }
}

/// Every `*.test.yaml` under `root`, in the order of their names; `root` itself if it is a file. Of names that begin
/// with a dot nothing is read, as of rules.
///
/// # Errors
/// A folder cannot be read.
pub fn test_files(root: &Path) -> Result<Vec<PathBuf>, RuleTestError> {
    if root.is_file() { Ok(vec![root.to_owned()]) } else { files_in(root, true) }
}

/// The test files in a folder, and in those below it if it `is_deep`.
fn files_in(folder: &Path, is_deep: bool) -> Result<Vec<PathBuf>, RuleTestError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        // Mounted ConfigMaps hold everything a second time below `..data`.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if is_deep {
                files.extend(files_in(&path, true)?);
            }
        } else if name.ends_with(".test.yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The folder that a file lies in: the current one if it is only a name.
pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What tests say of the rule files that they are about.
#[derive(Debug, Default)]
pub(crate) struct UnderTestFiles {
    /// The rule files that some test names, relative to the folder with `/` between folders.
    pub(crate) named: Vec<String>,
    /// What is wrong with test files.
    pub(crate) faults: Vec<Diagnostic>,
    /// The text of the test files that have faults.
    pub(crate) faulty: Vec<RuleFile>,
}

/// Which rule files the tests beside `rules` name: those below it if it is a folder, else those in its folder.
///
/// # Errors
/// A folder or a test file cannot be read; one that is not what it should be is a fault.
pub(crate) fn files_under_test(rules: &Path) -> Result<UnderTestFiles, RuleTestError> {
    let (root, is_deep) = if rules.is_file() { (folder_of(rules), false) } else { (rules, true) };
    let mut found = UnderTestFiles::default();
    for path in files_in(root, is_deep)? {
        let text = fs::read_to_string(&path).map_err(|source| unreadable(&path, source))?;
        match super::parse_placed(&text) {
            Ok(file) => {
                let folder = folder_of(&path);
                found.named.extend(file.rules.iter().map(|rules| name_below(root, &folder.join(rules))));
            }
            Err((message, span)) => {
                let file = name_below(root, &path);
                let diagnostic = Diagnostic { file: file.clone(), span, message, notes: Vec::new(), help: None };
                found.faults.push(diagnostic);
                found.faulty.push(RuleFile { file, text });
            }
        }
    }
    Ok(found)
}

/// A path relative to `root`, with `/` between folders.
fn name_below(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The rules of a test file and the reference tables that it says.
struct UnderTest<'a> {
    folder: &'a Path,
    rules: &'a [String],
    tables: BTreeMap<String, Vec<Row>>,
}

/// Runs one test on a fresh pipeline.
fn run_test(
    path: &Path,
    file: &TestFile,
    test: &TestCase,
    settings: &PipelineSettings,
) -> Result<Outcome, RuleTestError> {
    let folder = folder_of(path);
    let under_test = UnderTest { folder, rules: &file.rules, tables: file.tables.clone() };
    let mut outcome = Outcome {
        file: path.to_owned(),
        name: test.name.clone(),
        faults: Vec::new(),
        witnessed: Witnessed::default(),
        took: Duration::ZERO,
        number: 0,
        unmet: Vec::new(),
    };
    let loaded = match load(&under_test)? {
        Ok(loaded) => loaded,
        Err(faults) => return Ok(Outcome { faults, ..outcome }),
    };
    let headers = loaded.rules.rules.iter().map(|rule| &rule.header);
    let names = headers.filter(|head| is_under_test(&file.rules, &head.file)).map(|head| head.name.clone()).collect();
    let bench = Bench::new(loaded, settings.clone());
    let mut running = Running { bench, under_test, test, names, has_rows: false, outcome: &mut outcome };
    for number in 0..test.steps.len() {
        if let Err(message) = running.step(number) {
            running.outcome.faults.push(format!("step {}: {message}", number + 1));
            break;
        }
    }
    running.look();
    let failed = running.bench.status().into_iter();
    let failed: Vec<_> =
        failed.filter_map(|s| s.quarantined.map(|why| format!("rule {} failed: {why}", s.name))).collect();
    outcome.faults.extend(failed);
    Ok(outcome)
}

/// The rules under test with the test's own reference tables, or why they do not compile.
fn load(under_test: &UnderTest<'_>) -> Result<Result<LoadedRules, Vec<String>>, RuleTestError> {
    let UnderTest { folder, rules, tables } = under_test;
    let meant = |name: &str| is_under_test(rules, name);
    let as_written = rules_dir::load_with(folder, BTreeMap::new(), &meant)?;
    let mut overrides = BTreeMap::new();
    for decl in references(&as_written.files) {
        let Some(rows) = tables.get(&decl.name) else { continue };
        match batch_of(rows, decl.schema.clone().or_else(|| schema_of(&as_written.references, &decl.name))) {
            Ok(batch) => overrides.insert(decl.name, batch),
            Err(message) => return Ok(Err(vec![format!("table {}: {message}", decl.name)])),
        };
    }
    if let Some(name) = tables.keys().find(|t| !overrides.contains_key(*t)) {
        return Ok(Err(vec![format!("table {name}: no rule file declares it")]));
    }
    let loaded = if overrides.is_empty() { as_written } else { rules_dir::load_with(folder, overrides, &meant)? };
    if let Some(name) = rules.iter().find(|r| !loaded.files.iter().any(|f| is_it(r, &f.file))) {
        return Ok(Err(vec![format!("rules: there is no file {name} beside this one")]));
    }
    let of_test: Vec<_> = loaded.diagnostics.iter().filter(|d| is_under_test(rules, &d.file)).collect();
    if of_test.is_empty() {
        return Ok(Ok(loaded));
    }
    let text_of = |name: &str| loaded.files.iter().find(|f: &&RuleFile| f.file == name).map_or("", |f| &f.text);
    Ok(Err(of_test.iter().map(|d| d.render(text_of(&d.file), false)).collect()))
}

fn is_under_test(rules: &[String], file: &str) -> bool {
    rules.iter().any(|rules| is_it(rules, file))
}

fn is_it(rules: &str, file: &str) -> bool {
    file == rules || file.ends_with(&format!("/{rules}"))
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

/// A test that is being run.
struct Running<'a> {
    bench: Bench,
    under_test: UnderTest<'a>,
    test: &'a TestCase,
    /// The rules under test.
    names: Vec<String>,
    /// Whether rows have come since anybody looked at the events.
    has_rows: bool,
    outcome: &'a mut Outcome,
}

impl Running<'_> {
    /// Runs a step; what is not as it expects is noted.
    ///
    /// # Errors
    /// The test cannot go on.
    fn step(&mut self, number: usize) -> Result<(), String> {
        let test = self.test;
        let step = &test.steps[number];
        match kind_of(step)? {
            Kind::Rows(table) => self.rows(step, table),
            Kind::Advance(to) => self.bench.advance(to),
            Kind::Idle(_) if self.bench.now() == EventTime::MIN => {
                Err("idle: time begins with the first rows".to_owned())
            }
            Kind::Idle(ns) => self.bench.advance(self.bench.reached().plus(ns)),
            Kind::Tables(tables) => {
                self.under_test.tables.extend(tables.clone());
                self.restart(true)
            }
            Kind::Restart => self.restart(false),
            Kind::Expect(expected) => {
                let found = self.look();
                let comparison = Comparison::new(expected, &found);
                if !comparison.is_equal() {
                    let lines = comparison.lines(expected, &found).join("\n");
                    self.outcome.faults.push(format!("step {}: expected -, found +\n{lines}", number + 1));
                    self.outcome.unmet.push((number, expected.clone(), found));
                }
                Ok(())
            }
        }
    }

    fn restart(&mut self, is_reload: bool) -> Result<(), String> {
        let loaded = load(&self.under_test).map_err(|e| e.to_string())?.map_err(|faults| faults.join("\n"))?;
        self.bench.restart(loaded, is_reload)
    }

    fn rows(&mut self, step: &Step, table: &str) -> Result<(), String> {
        let table = Table::from_name(table).ok_or_else(|| format!("there is no table {table}"))?;
        let defaults = self.test.defaults.get(table.name()).cloned().unwrap_or_default();
        let drafts = step.values.iter().map(|row| draft(table, step, &defaults, row)).collect::<Result<Vec<_>, _>>()?;
        let payload = encode_protobuf(table.signal(), &drafts)?;
        let latest = drafts.iter().map(|d| d.event_time).max().unwrap_or(self.bench.now());
        let Aside { late, refused } = self.bench.record(table.signal(), step.partition, &payload, latest)?;
        self.has_rows |= late < drafts.len() as u64;
        if let Some(why) = refused {
            return Err(format!("the rows were refused: {why}"));
        }
        if late != step.late {
            let of = drafts.len();
            return Err(format!(
                "{late} of {of} rows came too late to count, {} were said to: a row is late if it is older than the \
                 newest before it on its partition by more than the lateness; write `late: {late}` if that is meant",
                step.late
            ));
        }
        Ok(())
    }

    /// The events that nobody has looked at yet, those of the rules under test.
    fn look(&mut self) -> Vec<Row> {
        let rules = self.under_test.rules;
        let events = self.bench.take_events().into_iter().filter(|e| is_under_test(rules, &e.data.rule.file));
        let events: Vec<EnforcementEvent> = events.collect();
        let witnessed = &mut self.outcome.witnessed;
        for event in &events {
            let name = &event.data.rule.name;
            match event.data.state {
                State::Firing | State::Updated => {
                    let words = witnessed.said.entry(name.clone()).or_default();
                    words.insert(event.data.finding.result.as_str().to_owned());
                    words.extend(event.data.finding.reason_code.as_ref().map(|code| code.as_str().to_owned()));
                }
                State::Resolved | State::Expired | State::Superseded => drop(witnessed.ended.insert(name.clone())),
            }
        }
        if std::mem::take(&mut self.has_rows) {
            let speaks = |name: &&String| events.iter().any(|event| event.data.rule.name == **name);
            witnessed.silent.extend(self.names.iter().filter(|name| !speaks(name)).cloned());
        }
        events.iter().map(fields_of).collect()
    }
}

/// What a step is.
enum Kind<'a> {
    Rows(&'a str),
    Advance(EventTime),
    Idle(i64),
    Tables(&'a BTreeMap<String, Vec<Row>>),
    Restart,
    Expect(&'a Vec<Row>),
}

fn kind_of(step: &Step) -> Result<Kind<'_>, String> {
    let kinds = [
        step.rows.as_deref().map(Kind::Rows),
        step.advance.map(|to| Kind::Advance(to.0)),
        step.idle.map(|length| Kind::Idle(length.0)),
        step.tables.as_ref().map(Kind::Tables),
        step.restart.then_some(Kind::Restart),
        step.expect.as_ref().map(Kind::Expect),
    ];
    let mut said = kinds.into_iter().flatten();
    let (Some(kind), None) = (said.next(), said.next()) else {
        return Err("a step has exactly one of rows, advance, idle, tables, restart and expect".to_owned());
    };
    let has_rows = matches!(kind, Kind::Rows(_));
    if !has_rows && (step.at.is_some() || step.late > 0 || !step.values.is_empty()) {
        return Err("at, late and values belong to a step with rows".to_owned());
    }
    Ok(kind)
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
