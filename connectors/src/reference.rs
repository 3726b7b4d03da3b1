//! Reference tables: budgets, prices, allow-lists, from files and from the records of a topic.
//!
//! A file is loaded whole or not at all: a rule must never judge by half a budget list. Whoever wrote it learns the
//! place of what is wrong. A topic has many writers, so a flawed record costs only itself, see [`LatestRows`].

mod csv;
mod json;
mod latest;
mod parquet;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use thiserror::Error;

use crate::error::Fault;

pub use latest::RefusedRecord;
pub(crate) use latest::{Absorbed, LatestRows, ROWS_MAX, TooManyRows};
pub use write::write_table;

/// How the file of a reference table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Comma-separated, quoted with `"`, the column names in the first line.
    Csv,
    /// One JSON object per line.
    Json,
    /// Parquet, uncompressed or compressed with Snappy or zstd.
    Parquet,
}

/// Why a reference table was not loaded.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The file can be read and its contents are wrong.
    #[error("{}:{line}: {message}", path.display())]
    Flawed {
        /// The file.
        path: PathBuf,
        /// The line where the flawed row begins, from 1.
        line: usize,
        /// What is wrong, with column and value.
        message: String,
    },
    /// A Parquet file is broken, or has other contents than it should.
    #[error("{}: {message}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, with column, row group and row, both from 1, as far as they are known.
        message: String,
    },
}

impl ReferenceError {
    /// Who has to act: the person who wrote the file, unless the disk is at fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { source, .. } if source.kind() != io::ErrorKind::NotFound => Fault::External,
            _ => Fault::User,
        }
    }
}

/// Loads the table at `path`, a row per line or record, in the order of the file.
///
/// With `declared`, the batch has exactly those columns and types, found in the file by name; other columns of the file
/// are ignored. Without, it has the columns of the file (JSON: in the order of their names), each `Int64`, `Float64`,
/// `Boolean` or else `Utf8View`; dates stay text unless they are declared, except in Parquet, whose dates are `Date32`
/// and whose instants are `Timestamp(ns)` in UTC. An empty CSV cell and a missing JSON value are null.
///
/// # Errors
/// The file cannot be read; a row, a cell or the header is wrong; a column that is declared `NOT NULL` has a null.
pub fn load_table(
    path: &Path,
    format: TableFormat,
    declared: Option<SchemaRef>,
) -> Result<RecordBatch, ReferenceError> {
    let parse = match format {
        TableFormat::Csv => csv::parse,
        TableFormat::Json => json::parse,
        TableFormat::Parquet => return load_parquet(path, declared.as_ref()),
    };
    let bytes = fs::read(path).map_err(unreadable(path))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let flawed = |Flaw { line, message }| ReferenceError::Flawed { path: path.to_path_buf(), line, message };
    parse(text, declared.as_ref()).map_err(flawed)
}

fn load_parquet(path: &Path, declared: Option<&SchemaRef>) -> Result<RecordBatch, ReferenceError> {
    let file = File::open(path).map_err(unreadable(path))?;
    parquet::parse_untrusted(file, declared)
        .map_err(|message| ReferenceError::Parquet { path: path.to_path_buf(), message })
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> ReferenceError {
    move |source| ReferenceError::Unreadable { path: path.to_path_buf(), source }
}

/// Something wrong in a file whose name the parsers need not know.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    /// From 1.
    line: usize,
    message: String,
}

/// How many rows are decoded at once.
const BATCH_ROWS: usize = 8192;

/// The type that a column gets whose type was told from its values.
fn inferred_type(found: &DataType) -> DataType {
    match found {
        DataType::Int64 | DataType::Float64 | DataType::Boolean => found.clone(),
        DataType::List(_) | DataType::Struct(_) => found.clone(),
        _ => DataType::Utf8View,
    }
}

/// The same columns, all of them nullable: a null where none may be is reported by us, with its line.
fn nullable(fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    let fields = fields.into_iter().map(|f| Field::new(f.name(), f.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns of `declared` out of `read`, in its order. `line_of` tells the line of a row.
fn conform(read: &RecordBatch, declared: &SchemaRef, line_of: impl Fn(usize) -> usize) -> Result<RecordBatch, Flaw> {
    let mut columns = Vec::with_capacity(declared.fields().len());
    for field in declared.fields() {
        let column = read.column_by_name(field.name()).ok_or_else(|| missing_column(field.name()))?;
        let null = (0..column.len()).find(|row| !field.is_nullable() && column.is_null(*row));
        if let Some(row) = null {
            return Err(Flaw { line: line_of(row), message: format!("column `{}` must not be null", field.name()) });
        }
        columns.push(Arc::clone(column));
    }
    RecordBatch::try_new(Arc::clone(declared), columns).map_err(|e| Flaw { line: 1, message: e.to_string() })
}

fn missing_column(name: &str) -> Flaw {
    Flaw { line: 1, message: format!("column `{name}` is declared and not in the file") }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn errors_name_file_and_line() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("budgets.csv");
        fs::write(&path, "team,daily_usd\na,1\nb,x\n").unwrap();
        let declared = Schema::new(vec![Field::new("daily_usd", DataType::Float64, true)]);
        let error = load_table(&path, TableFormat::Csv, Some(Arc::new(declared))).unwrap_err();
        assert_eq!(error.fault(), Fault::User);
        let message = error.to_string();
        assert!(message.contains("budgets.csv:3: ") && message.contains("`daily_usd`"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_parquet_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("budgets.parquet");
        fs::write(&path, "team,daily_usd\na,1\n").unwrap();
        let error = load_table(&path, TableFormat::Parquet, None).unwrap_err();
        assert_eq!(error.fault(), Fault::User);
        assert!(error.to_string().contains("budgets.parquet: it cannot be read as Parquet: "), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load_table(Path::new("no/budgets.csv"), TableFormat::Csv, None).unwrap_err();
        assert_eq!(error.fault(), Fault::User);
        assert!(error.to_string().starts_with("no/budgets.csv: "), "{error}");
        let error = load_table(Path::new("no/budgets.parquet"), TableFormat::Parquet, None).unwrap_err();
        assert!(error.to_string().starts_with("no/budgets.parquet: "), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_column() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("limits.csv");
        fs::write(&path, "\u{feff}n\n7\n").unwrap();
        let batch = load_table(&path, TableFormat::Csv, None).unwrap();
        assert_eq!(batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0), 7);
    }
}
