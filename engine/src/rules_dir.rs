//! A rules directory on disk: rule files, the reference tables that they declare, the price table.
//!
//! What is wrong with a rule or a reference table is a diagnostic and costs only the rules it touches; an unreadable
//! directory or a flawed price table is an error, because every rule would judge by it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use lictor_connectors::{TableFormat, load_table};
use lictor_queries::{Baseline, Diagnostic, ReferenceDecl, ReferenceFormat, References, RuleFile, RuleSet, TextSpan};
use lictor_schemas::prices::PriceTable;
use thiserror::Error;

/// The price table's name in a rules directory, if the configuration names no other.
pub const PRICES_FILE: &str = "llm_prices.csv";

/// A rules directory, read and compiled.
#[derive(Debug)]
pub struct LoadedRules {
    /// The rule files in the order of their names, which are relative to the directory, with `/` between folders.
    pub files: Vec<RuleFile>,
    /// The reference tables, or why they could not be loaded.
    pub references: References,
    /// What tokens cost.
    pub prices: Arc<PriceTable>,
    /// The rules without a fault, their reference tables filled.
    pub rules: RuleSet,
    /// Everything that is wrong, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// What all of this was read from: files, and the directory.
    pub sources: Vec<PathBuf>,
}

impl LoadedRules {
    /// The reference tables that lie in Kafka, in the order of the files.
    #[must_use]
    pub fn topic_tables(&self) -> Vec<ReferenceDecl> {
        let mut declared = lictor_queries::references(&self.files);
        declared.retain(is_topic);
        declared
    }
}

/// Why a rules directory cannot be used at all.
#[derive(Debug, Error)]
pub enum RulesDirError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is nothing to compile.
    #[error("{}: no .sql file is in it", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The price table is flawed.
    #[error("{}", listed(path, faults))]
    Prices {
        /// Its file.
        path: PathBuf,
        /// Every fault, with its line.
        faults: Vec<String>,
    },
    /// A table is to be replaced that no rule file declares.
    #[error("no rule file declares a reference table `{table}`; declared are: {declared}")]
    Undeclared {
        /// The table.
        table: String,
        /// Those that could be replaced.
        declared: String,
    },
}

/// `file:line: fault`, one per line; the price table's faults begin with `line <number>: `.
fn listed(path: &Path, faults: &[String]) -> String {
    let lines = faults.iter().map(|fault| match fault.strip_prefix("line ") {
        Some(fault) => format!("{}:{fault}", path.display()),
        None => format!("{}: {fault}", path.display()),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Says what a reference table that lies in Kafka holds, or why that is not known.
pub type ReadTopic<'a> = dyn FnMut(&ReferenceDecl) -> Result<RecordBatch, String> + 'a;

/// Reads and compiles `dir`, a rules directory or one rule file; prices are in `prices`, else in [`PRICES_FILE`] if the
/// directory has it. No broker is asked: reference tables that lie in Kafka have their columns and no rows.
///
/// # Errors
/// See [`RulesDirError`]; faults of single rules are in [`LoadedRules::diagnostics`] instead.
pub fn load(dir: &Path, prices: Option<&Path>) -> Result<LoadedRules, RulesDirError> {
    compile(dir, prices, BTreeMap::new(), &|_| true, &mut without_broker)
}

/// As [`load`], with the rows that `read_topic` has for reference tables in Kafka.
///
/// # Errors
/// As [`load`].
pub fn load_with_topics(
    dir: &Path,
    prices: Option<&Path>,
    read_topic: &mut ReadTopic<'_>,
) -> Result<LoadedRules, RulesDirError> {
    compile(dir, prices, BTreeMap::new(), &|_| true, read_topic)
}

/// As [`load`] with the directory's own prices, but with `overrides` in place of what those reference tables hold, and
/// of the rules only those of files that are `meant`.
///
/// # Errors
/// As [`load`]; [`RulesDirError::Undeclared`] if an override replaces nothing.
pub fn load_with(
    dir: &Path,
    overrides: BTreeMap<String, RecordBatch>,
    meant: &dyn Fn(&str) -> bool,
) -> Result<LoadedRules, RulesDirError> {
    compile(dir, None, overrides, meant, &mut without_broker)
}

/// A view that is summed up over recorded telemetry.
#[derive(Debug)]
pub struct LoadedBaseline {
    /// The file that it is in.
    pub file: RuleFile,
    /// The prices that it reckons by.
    pub prices: Arc<PriceTable>,
    /// How it is summed up, or the faults of the file.
    pub planned: Result<Baseline, Vec<Diagnostic>>,
}

/// Plans a view of one rule file, or its last one, to be summed up over recorded telemetry. A table that is read from
/// `output`, where the result will be, may not be there yet.
///
/// # Errors
/// As [`load`]; faults of the file are no error of the call.
pub fn load_baseline(
    file: &Path,
    prices: Option<&Path>,
    (view, output): (Option<&str>, &Path),
    read_topic: &mut ReadTopic<'_>,
) -> Result<LoadedBaseline, RulesDirError> {
    let root = file.parent().unwrap_or(Path::new(""));
    let file = read_rule(root, file)?;
    let prices_path = prices.map_or_else(|| root.join(PRICES_FILE), Path::to_path_buf);
    let prices = Arc::new(load_prices(&prices_path, prices.is_some())?);
    let files = std::slice::from_ref(&file);
    let declared = lictor_queries::references(files);
    let not_yet = declared.iter().filter(|decl| !is_topic(decl) && !output.exists());
    let not_yet = not_yet.filter(|decl| is_same_file(&reference_path(root, decl), output));
    let rows = |decl: &ReferenceDecl| Some((decl.name.clone(), RecordBatch::new_empty(decl.schema.clone()?)));
    let references = load_references(root, &declared, not_yet.filter_map(rows).collect(), read_topic)?;
    let planned = Baseline::try_new(files, &references, &prices, view);
    Ok(LoadedBaseline { file, prices, planned })
}

/// Whether two paths name one file, which may not be there: its folder is.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let of = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some((fs::canonicalize(folder).ok()?, path.file_name()?.to_owned()))
    };
    of(a).is_some_and(|a| of(b) == Some(a))
}

fn without_broker(decl: &ReferenceDecl) -> Result<RecordBatch, String> {
    let schema = decl.schema.clone().ok_or("a table in Kafka declares its columns")?;
    Ok(RecordBatch::new_empty(schema))
}

fn compile(
    dir: &Path,
    prices: Option<&Path>,
    overrides: BTreeMap<String, RecordBatch>,
    meant: &dyn Fn(&str) -> bool,
    read_topic: &mut ReadTopic<'_>,
) -> Result<LoadedRules, RulesDirError> {
    let is_file = fs::metadata(dir).map_err(unreadable(dir))?.is_file();
    let root = if is_file { dir.parent().unwrap_or(Path::new("")) } else { dir };
    let files = rule_files(dir)?;
    if files.is_empty() {
        return Err(RulesDirError::Empty { path: dir.to_path_buf() });
    }
    let prices_path = prices.map_or_else(|| root.join(PRICES_FILE), Path::to_path_buf);
    let prices = Arc::new(load_prices(&prices_path, prices.is_some())?);
    let declared = lictor_queries::references(&files);
    let references = load_references(root, &declared, overrides, read_topic)?;
    let (rules, mut diagnostics) = lictor_queries::compile_some(&files, &references, &prices, meant);
    diagnostics.extend(fill(&rules, &declared, &references));
    let tables = declared.iter().filter(|decl| !is_topic(decl)).map(|decl| reference_path(root, decl));
    let sources = [dir.to_path_buf(), prices_path].into_iter().chain(tables).collect();
    Ok(LoadedRules { files, references, prices, rules, diagnostics, sources })
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> RulesDirError {
    move |source| RulesDirError::Unreadable { path: path.to_path_buf(), source }
}

/// Every rule file below `root`, in the order of their names relative to it; `root` may be a rule file itself.
///
/// # Errors
/// [`RulesDirError::Unreadable`].
pub fn rule_files(root: &Path) -> Result<Vec<RuleFile>, RulesDirError> {
    if root.is_file() {
        return Ok(vec![read_rule(root.parent().unwrap_or(root), root)?]);
    }
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(unreadable(&folder))? {
            let path = entry.map_err(unreadable(&folder))?.path();
            // Mounted ConfigMaps hold everything a second time below `..data`.
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sql") {
                files.push(read_rule(root, &path)?);
            }
        }
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(files)
}

fn read_rule(root: &Path, path: &Path) -> Result<RuleFile, RulesDirError> {
    let text = fs::read_to_string(path).map_err(unreadable(path))?;
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    Ok(RuleFile { file: parts.join("/"), text })
}

fn load_prices(path: &Path, is_named: bool) -> Result<PriceTable, RulesDirError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => return Ok(PriceTable::empty()),
        Err(error) => return Err(unreadable(path)(error)),
    };
    PriceTable::from_csv(&text).map_err(|faults| RulesDirError::Prices { path: path.to_path_buf(), faults })
}

fn load_references(
    root: &Path,
    declared: &[ReferenceDecl],
    overrides: BTreeMap<String, RecordBatch>,
    read_topic: &mut ReadTopic<'_>,
) -> Result<References, RulesDirError> {
    if let Some(table) = overrides.keys().find(|table| declared.iter().all(|decl| decl.name != **table)) {
        let declared: Vec<&str> = declared.iter().map(|decl| decl.name.as_str()).collect();
        return Err(RulesDirError::Undeclared { table: table.clone(), declared: declared.join(", ") });
    }
    let mut references: References = overrides.into_iter().map(|(name, rows)| (name, Ok(rows))).collect();
    for decl in declared {
        // A second declaration of a name is a fault that the compiler reports; the first one counts.
        references.entry(decl.name.clone()).or_insert_with(|| load_reference(root, decl, read_topic));
    }
    Ok(references)
}

fn is_topic(decl: &ReferenceDecl) -> bool {
    decl.format == ReferenceFormat::Kafka
}

fn reference_path(root: &Path, decl: &ReferenceDecl) -> PathBuf {
    root.join(&decl.file).parent().unwrap_or(root).join(&decl.location)
}

fn load_reference(root: &Path, decl: &ReferenceDecl, read_topic: &mut ReadTopic<'_>) -> Result<RecordBatch, String> {
    let path = reference_path(root, decl);
    let format = match decl.format {
        ReferenceFormat::Csv => TableFormat::Csv,
        ReferenceFormat::Json => TableFormat::Json,
        ReferenceFormat::Parquet => TableFormat::Parquet,
        ReferenceFormat::Kafka => return read_topic(decl),
    };
    load_table(&path, format, decl.schema.clone()).map_err(|error| error.to_string())
}

/// Puts the tables' rows where the rules read them; a table that does not fit is a fault of its declaration.
fn fill(rules: &RuleSet, declared: &[ReferenceDecl], references: &References) -> Vec<Diagnostic> {
    let refused = |(name, rows): (&String, &Result<RecordBatch, String>)| {
        let message = rules.fill_reference(name, rows.as_ref().ok()?).err()?;
        let file = declared.iter().find(|decl| decl.name == *name).map(|decl| decl.file.clone()).unwrap_or_default();
        Some(Diagnostic { file, span: TextSpan::START, message, notes: Vec::new(), help: None })
    };
    references.iter().filter_map(refused).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use lictor_schemas::time::EventTime;
    use tempfile::TempDir;

    use super::*;

    const BUDGETS: &str = "CREATE EXTERNAL TABLE budgets (team VARCHAR, usd DOUBLE) STORED AS CSV LOCATION '../b.csv';
        CREATE RULE over_budget WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
        SELECT s.team, s.cost_total AS observed FROM spans AS s JOIN budgets AS b ON b.team = s.team
        WHERE s.cost_total > b.usd;";
    const COSTLY: &str = "CREATE RULE costly WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
        SELECT s.team, s.cost_total AS observed FROM spans AS s WHERE s.cost_total > 5;";

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn names(loaded: &LoadedRules) -> Vec<&str> {
        loaded.rules.rules.iter().map(|rule| rule.header.name.as_str()).collect()
    }

    #[test]
    fn rule_files_are_found_in_all_folders_in_the_order_of_their_names() {
        let other = COSTLY.replace("costly", "other");
        let hidden = COSTLY.replace("costly", "hidden");
        let dir = directory(&[("b.sql", COSTLY), ("a/z.sql", &other), (".git/x.sql", &hidden), ("a/notes.txt", "")]);
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!(loaded.files.iter().map(|f| f.file.as_str()).collect::<Vec<_>>(), ["a/z.sql", "b.sql"]);
        assert_eq!(loaded.diagnostics, []);
        assert_eq!(names(&loaded), ["other", "costly"]);
    }

    /// As kubelet mounts a ConfigMap: every file is a link through `..data`, and so are reference tables.
    #[cfg(unix)]
    #[test]
    fn links_of_a_mounted_config_map_are_followed_once() {
        use std::os::unix::fs::symlink;

        let budgets = BUDGETS.replace("../b.csv", "b.csv");
        let dir = directory(&[("..1/r.sql", &budgets), ("..1/b.csv", "team,usd\nsearch,5\n"), ("..2/r.sql", COSTLY)]);
        symlink("..1", dir.path().join("..data")).unwrap();
        for name in ["r.sql", "b.csv"] {
            symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
        }
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!((names(&loaded), loaded.diagnostics.len()), (vec!["over_budget"], 0));
        symlink("..2", dir.path().join("..next")).unwrap();
        fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
        assert_eq!(names(&load(dir.path(), None).unwrap()), ["costly"], "a table that is gone is nobody's");
    }

    #[test]
    fn one_file_can_be_loaded_alone() {
        let dir = directory(&[("a/one.sql", COSTLY), ("a/two.sql", "nonsense")]);
        let loaded = load(&dir.path().join("a/one.sql"), None).unwrap();
        assert_eq!((loaded.files[0].file.as_str(), names(&loaded)), ("one.sql", vec!["costly"]));
    }

    #[test]
    fn reference_tables_lie_relative_to_the_file_that_declares_them() {
        let dir = directory(&[("cost/budget.sql", BUDGETS), ("b.csv", "team,usd\nsearch,10\n")]);
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!((loaded.diagnostics.as_slice(), names(&loaded)), ([].as_slice(), vec!["over_budget"]));
        assert_eq!(loaded.references["budgets"].as_ref().unwrap().num_rows(), 1);
    }

    #[test]
    fn a_reference_table_that_cannot_be_loaded_costs_only_its_rules() {
        let dir = directory(&[("cost/budget.sql", BUDGETS), ("costly.sql", COSTLY), ("b.csv", "team,usd\nsearch,x\n")]);
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!(names(&loaded), ["costly"]);
        let notes: Vec<&String> = loaded.diagnostics.iter().flat_map(|d| &d.notes).collect();
        assert!(notes.iter().any(|note| note.contains("b.csv:2: ")), "{notes:?}");
    }

    #[test]
    fn a_parquet_file_is_read_as_one_and_watched() {
        let declared = BUDGETS.replace("CSV LOCATION '../b.csv'", "PARQUET LOCATION 'b.parquet'");
        let dir = directory(&[("budget.sql", &declared), ("costly.sql", COSTLY), ("b.parquet", "team,usd\n")]);
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!(names(&loaded), ["costly"]);
        let note = loaded.diagnostics.iter().find_map(|d| d.notes.first()).unwrap();
        assert!(note.contains("b.parquet: it cannot be read as Parquet"), "{note}");
        assert!(loaded.sources.contains(&dir.path().join("b.parquet")));
    }

    #[test]
    fn a_table_in_kafka_is_empty_without_a_broker_and_no_file_to_watch() {
        let declared = BUDGETS.replace("STORED AS CSV LOCATION '../b.csv'", "STORED AS KAFKA LOCATION 'budgets'");
        let dir = directory(&[("cost/budget.sql", &declared)]);
        let loaded = load(dir.path(), None).unwrap();
        assert_eq!((loaded.diagnostics.as_slice(), names(&loaded)), ([].as_slice(), vec!["over_budget"]));
        assert_eq!(loaded.references["budgets"].as_ref().unwrap().num_rows(), 0);
        assert_eq!(loaded.sources, [dir.path().to_path_buf(), dir.path().join(PRICES_FILE)]);
        let topics: Vec<_> = loaded.topic_tables().into_iter().map(|decl| (decl.name, decl.location)).collect();
        assert_eq!(topics, [("budgets".to_owned(), "budgets".to_owned())]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringViewArray::from(vec!["a"])), Arc::new(Float64Array::from(vec![1.0]))];
        let rows = RecordBatch::try_new(loaded.references["budgets"].as_ref().unwrap().schema(), columns).unwrap();
        let loaded = load_with(dir.path(), BTreeMap::from([("budgets".to_owned(), rows)]), &|_| true).unwrap();
        assert_eq!(loaded.references["budgets"].as_ref().unwrap().num_rows(), 1, "a test's rows");
    }

    #[test]
    fn a_topic_that_cannot_be_read_costs_only_its_rules() {
        let declared = BUDGETS.replace("STORED AS CSV LOCATION '../b.csv'", "STORED AS KAFKA LOCATION 'budgets'");
        let dir = directory(&[("budget.sql", &declared), ("costly.sql", COSTLY)]);
        let mut refuse = |decl: &ReferenceDecl| Err(format!("topic `{}` does not exist", decl.location));
        let loaded = load_with_topics(dir.path(), None, &mut refuse).unwrap();
        assert_eq!(names(&loaded), ["costly"]);
        let notes: Vec<&String> = loaded.diagnostics.iter().flat_map(|d| &d.notes).collect();
        assert_eq!(notes.first().map(|note| note.as_str()), Some("topic `budgets` does not exist"));
    }

    #[test]
    fn overrides_stand_in_for_files() {
        let dir = directory(&[("cost/budget.sql", BUDGETS)]);
        let schema =
            Schema::new(vec![Field::new("team", DataType::Utf8View, true), Field::new("usd", DataType::Float64, true)]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringViewArray::from(vec!["a", "b"])), Arc::new(Float64Array::from(vec![1.0, 2.0]))];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let loaded = load_with(dir.path(), BTreeMap::from([("budgets".to_owned(), rows.clone())]), &|_| true).unwrap();
        assert_eq!((loaded.diagnostics.as_slice(), names(&loaded)), ([].as_slice(), vec!["over_budget"]));
        assert_eq!(loaded.references["budgets"].as_ref().unwrap().num_rows(), 2);
        let error = load_with(dir.path(), BTreeMap::from([("budget".to_owned(), rows)]), &|_| true).unwrap_err();
        let expected = "no rule file declares a reference table `budget`; declared are: budgets";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn prices_are_the_named_ones_else_those_of_the_directory_else_none() {
        let usage = lictor_schemas::prices::Usage { input_tokens: 1_000_000, ..Default::default() };
        let at = EventTime::from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let header = lictor_schemas::prices::PRICE_COLUMNS.join(",");
        let prices = |usd: u32| format!("{header}\np,m,2025-01-01,{usd},0,,,https://a\n");
        let dir = directory(&[("a.sql", COSTLY), (PRICES_FILE, &prices(1)), ("x/other.csv", &prices(2))]);
        let cost = |named: Option<&Path>| load(dir.path(), named).unwrap().prices.cost_usd(None, "m", at, &usage);
        assert_eq!(cost(None), Some(1.0));
        assert_eq!(cost(Some(&dir.path().join("x/other.csv"))), Some(2.0));
        fs::remove_file(dir.path().join(PRICES_FILE)).unwrap();
        assert_eq!(cost(None), None);
        let error = load(dir.path(), Some(&dir.path().join("gone.csv"))).unwrap_err();
        assert!(error.to_string().contains("gone.csv: "), "{error}");
    }

    #[test]
    fn every_fault_of_the_price_table_is_named_with_file_and_line() {
        let header = lictor_schemas::prices::PRICE_COLUMNS.join(",");
        let dir = directory(&[("a.sql", COSTLY), (PRICES_FILE, &format!("{header}\np,m\nq,n\n"))]);
        let message = load(dir.path(), None).unwrap_err().to_string();
        let lines: Vec<&str> = message.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("llm_prices.csv:2: ") && lines[1].contains(":3: "), "{message}");
    }

    #[test]
    fn nothing_to_compile_is_an_error() {
        let dir = directory(&[("notes.txt", "")]);
        assert!(matches!(load(dir.path(), None), Err(RulesDirError::Empty { .. })));
        let error = load(&dir.path().join("gone"), None).unwrap_err();
        assert!(error.to_string().contains("gone: "), "{error}");
    }
}
