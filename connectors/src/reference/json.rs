//! JSON lines: one object per line, a column per key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use serde_json::Value;

use super::{BATCH_ROWS, Flaw, conform, inferred_type, nullable};

/// Parses a whole file.
pub(super) fn parse(text: &[u8], declared: Option<&SchemaRef>) -> Result<RecordBatch, Flaw> {
    let schema = match declared {
        Some(declared) => nullable(declared.fields().iter().cloned()),
        None => infer(text)?,
    };
    let read = read(text, &schema).map_err(|error| locate(text, &schema, &error))?;
    conform(&read, declared.unwrap_or(&schema), |row| lines(text).nth(row).map_or(1, |(line, _)| line))
}

fn infer(text: &[u8]) -> Result<SchemaRef, Flaw> {
    for (line, object) in lines(text) {
        check_object(line, object)?;
    }
    let (found, _) = infer_json_schema(text, None).map_err(|e| Flaw { line: 1, message: e.to_string() })?;
    if found.fields().is_empty() {
        return Err(Flaw { line: 1, message: "no row has a column, and none is declared".to_string() });
    }
    let typed = |field: &FieldRef| Arc::new(Field::new(field.name(), inferred_type(field.data_type()), true));
    let mut fields: Vec<FieldRef> = found.fields().iter().map(typed).collect();
    // Arrow returns them in the order of a hash map, which differs from run to run.
    fields.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(nullable(fields))
}

/// Reads objects that have been checked, or that are checked if this fails.
pub(super) fn read(text: &[u8], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let reader = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH_ROWS).build(text)?;
    concat_batches(schema, &reader.collect::<Result<Vec<_>, _>>()?)
}

/// Reads line by line until one fails, to tell which.
fn locate(text: &[u8], schema: &SchemaRef, error: &ArrowError) -> Flaw {
    let mut flaws = lines(text).filter_map(|(line, object)| {
        let checked = check_object(line, object);
        checked.err().or_else(|| read(object, schema).err().map(|error| Flaw { line, message: error.to_string() }))
    });
    flaws.next().unwrap_or_else(|| Flaw { line: 1, message: error.to_string() })
}

fn check_object(line: usize, text: &[u8]) -> Result<(), Flaw> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(_)) => Ok(()),
        Ok(_) => Err(Flaw { line, message: "each line must be one JSON object".to_string() }),
        Err(error) => Err(Flaw { line, message: format!("the line is no JSON object: {error}") }),
    }
}

/// The lines that are not empty, with their numbers from 1.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let numbered = text.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Float64Type, Schema};

    use super::*;

    #[track_caller]
    fn check_flaw(text: &str, declared: Option<&SchemaRef>, line: usize, expected: &str) {
        let flaw = parse(text.as_bytes(), declared).unwrap_err();
        assert_eq!(flaw.line, line, "{}", flaw.message);
        assert!(flaw.message.contains(expected), "{}", flaw.message);
    }

    #[test]
    fn columns_come_in_the_order_of_their_names_and_absent_values_are_null() {
        let batch = parse(b"{\"usd\":1,\"team\":\"a\"}\n\n{\"on\":true,\"usd\":2.5}\n", None).unwrap();
        let schema = batch.schema();
        let types: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
        let expected = [("on", &DataType::Boolean), ("team", &DataType::Utf8View), ("usd", &DataType::Float64)];
        assert_eq!(types, expected);
        assert!(batch.column(0).is_null(0) && batch.column(1).is_null(1));
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(1), 2.5);
    }

    #[test]
    fn a_bad_line_is_named() {
        check_flaw("{\"a\":1}\n\n{\"a\":\n", None, 3, "the line is no JSON object");
        check_flaw("{\"a\":1}\n[1]\n", None, 2, "one JSON object");
        check_flaw("", None, 1, "no row has a column");
    }

    #[test]
    fn a_value_of_another_type_than_declared_is_named() {
        let declared: SchemaRef = Arc::new(Schema::new(vec![Field::new("usd", DataType::Float64, true)]));
        check_flaw("{\"usd\":1}\n{\"usd\":\"lots\"}\n", Some(&declared), 2, "lots");
        let declared: SchemaRef = Arc::new(Schema::new(vec![Field::new("usd", DataType::Float64, false)]));
        check_flaw("{\"usd\":1}\n\n{\"team\":\"a\"}\n", Some(&declared), 3, "column `usd` must not be null");
    }

    #[test]
    fn undeclared_keys_are_ignored() {
        let declared: SchemaRef = Arc::new(Schema::new(vec![Field::new("usd", DataType::Float64, true)]));
        let batch = parse(b"{\"team\":\"a\",\"usd\":\"3.5\"}\n", Some(&declared)).unwrap();
        assert_eq!(batch.schema(), declared);
        assert_eq!(batch.column(0).as_primitive::<Float64Type>().value(0), 3.5);
    }
}
