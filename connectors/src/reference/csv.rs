//! CSV with a header.
//!
//! Arrow's reader does the work. It takes columns by position and counts records instead of lines, so the header is
//! matched by name here, and a flawed row is looked for again, alone, to tell its line.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::{BATCH_ROWS, Flaw, conform, inferred_type, missing_column, nullable};

/// Parses a whole file.
pub(super) fn parse(text: &[u8], declared: Option<&SchemaRef>) -> Result<RecordBatch, Flaw> {
    let header = header(text)?;
    let schema = match declared {
        Some(declared) => in_order_of_header(&header, declared)?,
        None => infer(text, &header)?,
    };
    let read = read(text, &schema, BATCH_ROWS).map_err(|error| locate(text, &schema, &error))?;
    // The header is record 0.
    conform(&read, declared.unwrap_or(&schema), |row| line_of_record(text, row + 1))
}

fn format() -> Format {
    Format::default().with_header(true)
}

fn header(text: &[u8]) -> Result<Vec<String>, Flaw> {
    let flaw = |message: String| Flaw { line: 1, message };
    let (schema, _) = format().infer_schema(text, Some(0)).map_err(|error| flaw(error.to_string()))?;
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().trim().to_string()).collect();
    if names.is_empty() {
        return Err(flaw("the file is empty: its first line must name the columns".to_string()));
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        if name.is_empty() || !seen.insert(name) {
            return Err(flaw(format!("column name `{name}` is empty or stands twice in the header")));
        }
    }
    Ok(names)
}

/// The declared types for the columns of the file; text for those that nobody declared.
fn in_order_of_header(header: &[String], declared: &SchemaRef) -> Result<SchemaRef, Flaw> {
    if let Some(field) = declared.fields().iter().find(|field| !header.contains(field.name())) {
        return Err(missing_column(field.name()));
    }
    let fields = header.iter().map(|name| {
        let declared = declared.field_with_name(name).map(|field| field.data_type().clone());
        Arc::new(Field::new(name, declared.unwrap_or(DataType::Utf8View), true))
    });
    Ok(nullable(fields))
}

fn infer(text: &[u8], header: &[String]) -> Result<SchemaRef, Flaw> {
    let as_text = nullable(header.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8View, true))));
    let (found, _) = format().infer_schema(text, None).map_err(|error| locate(text, &as_text, &error))?;
    let types = found.fields().iter().map(|field| inferred_type(field.data_type()));
    Ok(nullable(header.iter().zip(types).map(|(name, found)| Arc::new(Field::new(name, found, true)))))
}

fn read(text: &[u8], schema: &SchemaRef, batch_rows: usize) -> Result<RecordBatch, ArrowError> {
    let reader = ReaderBuilder::new(Arc::clone(schema)).with_format(format()).with_batch_size(batch_rows);
    let batches = reader.build_buffered(text)?.collect::<Result<Vec<_>, _>>()?;
    concat_batches(schema, &batches)
}

/// Reads row by row until one fails, to tell its line.
fn locate(text: &[u8], schema: &SchemaRef, error: &ArrowError) -> Flaw {
    let one_by_one = ReaderBuilder::new(Arc::clone(schema)).with_format(format()).with_batch_size(1);
    let failed = one_by_one.build_buffered(text).ok().and_then(|reader| {
        let mut rows = reader.enumerate();
        rows.find_map(|(row, batch)| batch.err().map(|error| (row, error)))
    });
    match failed {
        Some((row, error)) => Flaw { line: line_of_record(text, row + 1), message: explain(&error, schema) },
        None => Flaw { line: 1, message: explain(error, schema) },
    }
}

/// Arrow's message with the column's name instead of its number and without its count of lines.
fn explain(error: &ArrowError, schema: &Schema) -> String {
    let (ArrowError::ParseError(text) | ArrowError::CsvError(text)) = error else { return error.to_string() };
    let text = text.split(" at line ").next().unwrap_or(text);
    let text = match text.split_once(" for line ") {
        Some((what, rest)) => format!("{what}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text.to_string(),
    };
    let text = match text.split_once(" for column ") {
        Some((what, number)) => match number.parse().ok().and_then(|i: usize| schema.fields().get(i)) {
            Some(field) => format!("{what} for column `{}`", field.name()),
            None => text,
        },
        None => text,
    };
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The line on which record `record` begins (0 is the header): quoted cells may span lines, empty lines do not count.
fn line_of_record(text: &[u8], record: usize) -> usize {
    let (mut line, mut begun, mut is_between, mut is_quoted) = (1, 0, true, false);
    for byte in text {
        let ends_line = matches!(byte, b'\n' | b'\r');
        if is_between && !ends_line {
            if begun == record {
                return line;
            }
            begun += 1;
            is_between = false;
        }
        is_quoted ^= *byte == b'"';
        is_between |= ends_line && !is_quoted;
        line += usize::from(*byte == b'\n');
    }
    line
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Date32Type, Float64Type, Int64Type};

    use super::*;

    fn types(text: &str) -> Vec<(String, DataType)> {
        let batch = parse(text.as_bytes(), None).unwrap();
        batch.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
    }

    fn declare(columns: &[(&str, DataType, bool)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>()))
    }

    #[track_caller]
    fn check_flaw(text: &str, declared: Option<&SchemaRef>, line: usize, expected: &str) {
        let flaw = parse(text.as_bytes(), declared).unwrap_err();
        assert_eq!((flaw.line, flaw.message.as_str()), (line, expected));
    }

    #[test]
    fn types_are_told_from_the_values() {
        let expected = [
            ("i", DataType::Int64),
            ("f", DataType::Float64),
            ("b", DataType::Boolean),
            ("s", DataType::Utf8View),
            ("day", DataType::Utf8View),
            ("none", DataType::Utf8View),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        assert_eq!(types("i,f,b,s,day,none\n1,2,true,x,2026-11-22,\n,2.5,false,,2026-11-23,\n"), expected);
    }

    #[test]
    fn an_empty_cell_is_null() {
        let batch = parse(b"team,usd\na,\n,2.5\n", None).unwrap();
        assert!(batch.column(1).is_null(0) && batch.column(0).is_null(1));
        assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(1), 2.5);
    }

    #[test]
    fn declared_columns_are_found_by_name_and_others_ignored() {
        let declared = declare(&[("since", DataType::Date32, true), ("n", DataType::Int64, false)]);
        let batch = parse(b"n,note,since\n7,x,2026-01-01\n", Some(&declared)).unwrap();
        assert_eq!(batch.schema(), declared);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(batch.column(0).as_primitive::<Date32Type>().value(0), 20_454);
    }

    #[test]
    fn a_bad_cell_is_named_with_line_column_and_value() {
        let declared = declare(&[("n", DataType::Int64, true)]);
        let text = "s,n\n\"two\nlines\",1\n\nx,12x\n";
        check_flaw(text, Some(&declared), 5, "error while parsing value '12x' as type 'Int64' for column `n`");
    }

    #[test]
    fn a_row_with_too_few_or_too_many_cells_is_named() {
        check_flaw("a,b\n1,2\n3\n", None, 3, "incorrect number of fields, expected 2 got 1");
        check_flaw("a,b\n1,2,3\n", None, 2, "incorrect number of fields, expected 2 got more than 2");
    }

    #[test]
    fn a_null_where_none_may_be_is_named() {
        let declared = declare(&[("team", DataType::Utf8View, false)]);
        check_flaw("team,n\na,1\n,2\n", Some(&declared), 3, "column `team` must not be null");
    }

    #[test]
    fn the_header_must_name_each_column_once_and_every_declared_one() {
        check_flaw("a,a\n1,2\n", None, 1, "column name `a` is empty or stands twice in the header");
        check_flaw("", None, 1, "the file is empty: its first line must name the columns");
        let declared = declare(&[("usd", DataType::Float64, true)]);
        check_flaw("team\nx\n", Some(&declared), 1, "column `usd` is declared and not in the file");
    }

    #[test]
    fn a_header_without_rows_is_an_empty_table() {
        let batch = parse(b"team,usd\n", None).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (0, 2));
    }

    #[test]
    fn many_batches_become_one() {
        let rows = BATCH_ROWS * 2 + 1;
        let text: String = std::iter::once("n\n".to_string()).chain((0..rows).map(|i| format!("{i}\n"))).collect();
        let batch = parse(text.as_bytes(), None).unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(rows - 1), i64::try_from(rows).unwrap() - 1);
    }
}
