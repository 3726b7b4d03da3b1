//! Writes a reference table so that it can be loaded.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::TableFormat;

/// Writes the whole table to `path`, in place of what is there, or nothing: whoever follows the file never sees half of
/// it. Null cells of CSV are empty.
///
/// # Errors
/// The file cannot be written, or a column has a type that the format does not know.
pub fn write_table(path: &Path, format: TableFormat, rows: &RecordBatch) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_to(&beside, format, rows).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What went wrong is told; that a part of it stays is no matter beside it.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_to(path: &Path, format: TableFormat, rows: &RecordBatch) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    match format {
        TableFormat::Csv => WriterBuilder::new().with_header(true).build(&mut file).write(rows).map_err(as_io)?,
        TableFormat::Json => {
            let mut lines = LineDelimitedWriter::new(&mut file);
            lines.write(rows).and_then(|()| lines.finish()).map_err(as_io)?;
        }
        TableFormat::Parquet => {
            let packed = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(packed));
            let written = writer.and_then(|mut writer| writer.write(rows).and_then(|()| writer.close()));
            written.map_err(io::Error::other)?;
        }
    }
    file.flush()?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn as_io(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringViewArray};
    use tempfile::TempDir;

    use super::*;
    use crate::load_table;

    #[test]
    fn what_is_written_is_loaded_again_in_every_format() {
        let columns: [(&str, ArrayRef); 4] = [
            ("a_text", Arc::new(StringViewArray::from(vec![Some("{\"sub\":8,\"counts\":[1]}"), Some("x,\ny"), None]))),
            ("b_number", Arc::new(Float64Array::from(vec![Some(0.1), Some(1.0 / 3.0), None]))),
            ("c_count", Arc::new(Int64Array::from(vec![Some(3), None, Some(-1)]))),
            ("d_flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let dir = TempDir::new().unwrap();
        for (name, format) in
            [("t.csv", TableFormat::Csv), ("t.jsonl", TableFormat::Json), ("t.parquet", TableFormat::Parquet)]
        {
            let path = dir.path().join(name);
            fs::write(&path, "what was there before").unwrap();
            write_table(&path, format, &rows).unwrap();
            assert_eq!(load_table(&path, format, Some(rows.schema())).unwrap(), rows, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left beside them");
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is() {
        let dir = TempDir::new().unwrap();
        let rows = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        assert!(write_table(&dir.path().join("gone/t.csv"), TableFormat::Csv, &rows).is_err());
        assert!(write_table(Path::new("/"), TableFormat::Csv, &rows).is_err());
    }
}
