//! A topic as a table: the latest row of each key.
//!
//! A record's value is a JSON object with the columns of one row; a tombstone deletes its key's row. Many write to a
//! topic, so one flawed record must not take the table away from everybody: it is refused, and the row that its key had
//! before stays. A key's records are expected in one partition, where Kafka's producers put them.
//!
//! Rows are kept as text, which takes a fraction of an Arrow array's memory per row, and come out in the order of their
//! keys: who read the same records has the same table, in whatever order the partitions came.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use serde_json::{Map, Value};

use super::{BATCH_ROWS, conform, json, nullable};
use crate::record::{RecordRef, TopicPartition};

/// How many keys a table may have. Every instance holds all of them in memory, at this number 250 MB of text and 60 MB
/// of columns if rows are as short as `{"usd":5,"since":"2026-01-01T00:00:00"}` (measured), and a change builds all the
/// columns anew; more is telemetry, not reference.
pub(crate) const ROWS_MAX: usize = 1_000_000;
/// How much is told of what is wrong with a record, in characters: the library repeats the value, however long it is.
const REASON_CHARS_MAX: usize = 200;
/// The column that is the record's key, if it is declared.
const KEY_COLUMN: &str = "key";

/// A record that is no row of the table, and that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Where it lies.
    pub partition: TopicPartition,
    /// Its own offset.
    pub offset: i64,
    /// What is wrong, with column and value.
    pub reason: String,
}

impl fmt::Display for RefusedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}: {}", self.partition, self.offset, self.reason)
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Absorbed {
    /// A row came, went, or has other values.
    Changed,
    /// The table is as it was.
    Unchanged,
    /// It is no row of the table.
    Refused(RefusedRecord),
}

/// The table would have more keys than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyRows {
    pub(crate) rows_max: usize,
}

/// The rows of a topic that has been read so far.
pub(crate) struct LatestRows {
    declared: SchemaRef,
    check: RowCheck,
    /// A JSON object of the declared columns by the record's key.
    rows: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// The keys whose latest record was refused; `None` stands for all records without a key.
    refused: BTreeMap<Option<Box<[u8]>>, RefusedRecord>,
    rows_max: usize,
}

impl LatestRows {
    /// No row yet. `declared` are the columns; one that is called `key` is the record's key as text.
    ///
    /// # Errors
    /// A column has a type that JSON has no value for.
    pub(crate) fn try_new(declared: SchemaRef, rows_max: usize) -> Result<Self, ArrowError> {
        let check = RowCheck::try_new(nullable(declared.fields().iter().cloned()))?;
        Ok(Self { declared, check, rows: BTreeMap::new(), refused: BTreeMap::new(), rows_max })
    }

    /// Forgets everything that was read.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.refused.clear();
    }

    /// Takes over a record that is newer than those of its key before.
    ///
    /// # Errors
    /// The table would have more keys than it may; it is as before then, and no more the topic's.
    pub(crate) fn absorb(&mut self, record: &RecordRef<'_>) -> Result<Absorbed, TooManyRows> {
        let Some(key) = record.key else { return self.refuse(record, "it has no key".to_string()) };
        let Some(payload) = record.payload else {
            self.refused.remove(&Some(Box::from(key)));
            return Ok(if self.rows.remove(key).is_some() { Absorbed::Changed } else { Absorbed::Unchanged });
        };
        match self.row(key, payload) {
            Ok(row) => self.put(key, row),
            Err(reason) => self.refuse(record, reason),
        }
    }

    /// The table: a row per key, in the order of the keys.
    ///
    /// # Errors
    /// A row that was checked does not fit.
    pub(crate) fn rows(&self) -> Result<RecordBatch, ArrowError> {
        let mut rows = self.rows.values().peekable();
        let mut batches = Vec::new();
        while rows.peek().is_some() {
            let text = rows.by_ref().take(BATCH_ROWS).map(AsRef::as_ref).collect::<Vec<&[u8]>>().join(&b'\n');
            batches.push(json::read(&text, &self.check.schema)?);
        }
        let read = concat_batches(&self.check.schema, &batches)?;
        RecordBatch::try_new(SchemaRef::clone(&self.declared), read.columns().to_vec())
    }

    /// The latest records of keys, and of none, that were refused.
    pub(crate) fn refused(&self) -> impl ExactSizeIterator<Item = &RefusedRecord> {
        self.refused.values()
    }

    fn put(&mut self, key: &[u8], row: Box<[u8]>) -> Result<Absorbed, TooManyRows> {
        self.refused.remove(&Some(Box::from(key)));
        if let Some(before) = self.rows.get_mut(key) {
            if *before == row {
                return Ok(Absorbed::Unchanged);
            }
            *before = row;
            return Ok(Absorbed::Changed);
        }
        self.make_room()?;
        self.rows.insert(Box::from(key), row);
        Ok(Absorbed::Changed)
    }

    fn refuse(&mut self, record: &RecordRef<'_>, reason: String) -> Result<Absorbed, TooManyRows> {
        let reason = match reason.char_indices().nth(REASON_CHARS_MAX) {
            Some((end, _)) => format!("{} …", &reason[..end]),
            None => reason,
        };
        let partition = TopicPartition::new(record.topic, record.partition);
        let refused = RefusedRecord { partition, offset: record.offset, reason };
        let key = record.key.map(Box::from);
        if !self.refused.contains_key(&key) {
            self.make_room()?;
        }
        self.refused.insert(key, refused.clone());
        Ok(Absorbed::Refused(refused))
    }

    fn make_room(&self) -> Result<(), TooManyRows> {
        let Self { rows, refused, rows_max, .. } = self;
        if rows.len() + refused.len() < *rows_max { Ok(()) } else { Err(TooManyRows { rows_max: *rows_max }) }
    }

    /// The declared columns of a record as one JSON object that is known to fit.
    fn row(&mut self, key: &[u8], payload: &[u8]) -> Result<Box<[u8]>, String> {
        let mut object: Map<String, Value> = match serde_json::from_slice(payload) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err("its value is JSON but no object".to_string()),
            Err(error) => return Err(format!("its value is no JSON object: {error}")),
        };
        object.retain(|name, _| self.declared.field_with_name(name).is_ok());
        if self.declared.field_with_name(KEY_COLUMN).is_ok() {
            let key = std::str::from_utf8(key).map_err(|_| "its key is no UTF-8 text".to_string())?;
            object.insert(KEY_COLUMN.to_string(), Value::from(key));
        }
        let row = serde_json::to_vec(&object).map_err(|error| error.to_string())?;
        let read = self.check.read(&row).map_err(|error| self.explain(&object, &error))?;
        conform(&read, &self.declared, |_| 1).map_err(|flaw| flaw.message)?;
        Ok(row.into_boxed_slice())
    }

    /// Reads column by column until one fails, to tell which.
    fn explain(&self, object: &Map<String, Value>, error: &ArrowError) -> String {
        let failed = self.check.schema.fields().iter().find_map(|field: &FieldRef| {
            let value = object.get(field.name())?;
            let alone = serde_json::to_vec(&BTreeMap::from([(field.name(), value)])).ok()?;
            let error = json::read(&alone, &nullable([FieldRef::clone(field)])).err()?;
            let reason = words(&error);
            let reason = reason.trim_start_matches(&format!("whilst decoding field '{}': ", field.name()));
            Some(format!("column `{}`: {reason}", field.name()))
        });
        failed.unwrap_or_else(|| words(error))
    }
}

fn words(error: &ArrowError) -> String {
    match error {
        ArrowError::JsonError(text) | ArrowError::ParseError(text) | ArrowError::CastError(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads single rows; a decoder is dearer than a row and serves until one fails.
struct RowCheck {
    schema: SchemaRef,
    decoder: Decoder,
}

impl RowCheck {
    fn try_new(schema: SchemaRef) -> Result<Self, ArrowError> {
        let decoder = decoder(&schema)?;
        Ok(Self { schema, decoder })
    }

    fn read(&mut self, row: &[u8]) -> Result<RecordBatch, ArrowError> {
        let read = self.decoder.decode(row).and_then(|_| self.decoder.flush());
        match read {
            Ok(read) => Ok(read.unwrap_or_else(|| RecordBatch::new_empty(SchemaRef::clone(&self.schema)))),
            Err(error) => {
                self.decoder = decoder(&self.schema)?;
                Err(error)
            }
        }
    }
}

fn decoder(schema: &SchemaRef) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new(SchemaRef::clone(schema)).with_batch_size(1).build_decoder()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};

    use super::*;

    /// A table of `(key VARCHAR, usd DOUBLE, since TIMESTAMP)` for up to three keys.
    fn table() -> LatestRows {
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let columns = [("key", DataType::Utf8View), ("usd", DataType::Float64), ("since", instant)];
        let fields: Vec<_> = columns.into_iter().map(|(name, typed)| Field::new(name, typed, true)).collect();
        LatestRows::try_new(Arc::new(Schema::new(fields)), 3).unwrap()
    }

    fn absorb(table: &mut LatestRows, key: &str, value: Option<&str>) -> Result<Absorbed, TooManyRows> {
        let (key, payload) = (Some(key.as_bytes()), value.map(str::as_bytes));
        table.absorb(&RecordRef {
            topic: "t",
            partition: 2,
            offset: 7,
            timestamp_ms: 0,
            key,
            payload,
            ..RecordRef::default()
        })
    }

    fn rows(table: &LatestRows) -> Vec<(String, Option<f64>)> {
        let batch = table.rows().unwrap();
        let keys = batch.column(0).as_string_view().iter().map(|key| key.unwrap().to_owned());
        keys.zip(batch.column(1).as_primitive::<Float64Type>().iter()).collect()
    }

    #[track_caller]
    fn check_refused(key: &[u8], value: &str, reason: &str) {
        let mut table = table();
        absorb(&mut table, "a", Some("{\"usd\":1}")).unwrap();
        let (key, payload) = (Some(key), Some(value.as_bytes()));
        let record =
            RecordRef { topic: "t", partition: 2, offset: 7, timestamp_ms: 0, key, payload, ..RecordRef::default() };
        let Ok(Absorbed::Refused(refused)) = table.absorb(&record) else { panic!("taken") };
        let text = refused.to_string();
        assert!(text.starts_with("t[2] offset 7: ") && text.contains(reason), "{text}");
        assert_eq!(rows(&table), [("a".to_owned(), Some(1.0))], "the row before stays");
        assert_eq!(table.refused().collect::<Vec<_>>(), [&refused]);
        assert_eq!(absorb(&mut table, "b", Some("{\"usd\":2}")), Ok(Absorbed::Changed), "the next row is read");
    }

    #[test]
    fn the_latest_value_of_each_key_is_a_row_in_the_order_of_the_keys() {
        let mut table = table();
        let mut take = |key, value| absorb(&mut table, key, value).unwrap();
        assert_eq!(take("b", Some("{\"usd\":1,\"note\":{\"x\":1}}")), Absorbed::Changed);
        assert_eq!(take("a", Some("{\"usd\":\"2.5\"}")), Absorbed::Changed);
        assert_eq!(take("b", Some("{\"usd\":3}")), Absorbed::Changed);
        assert_eq!(take("b", Some("{\"usd\":3}")), Absorbed::Unchanged);
        assert_eq!(take("c", Some("{}")), Absorbed::Changed);
        let expected = [("a", Some(2.5)), ("b", Some(3.0)), ("c", None)].map(|(key, usd)| (key.to_owned(), usd));
        assert_eq!(rows(&table), expected);
    }

    #[test]
    fn a_tombstone_deletes_its_key_and_forgets_what_was_refused() {
        let mut table = table();
        absorb(&mut table, "a", Some("{\"usd\":1}")).unwrap();
        assert!(matches!(absorb(&mut table, "a", Some("null")), Ok(Absorbed::Refused(_))));
        assert_eq!(absorb(&mut table, "a", None), Ok(Absorbed::Changed));
        assert_eq!(absorb(&mut table, "a", None), Ok(Absorbed::Unchanged));
        assert_eq!((rows(&table), table.refused().len()), (Vec::new(), 0));
    }

    #[test]
    fn what_is_no_row_is_refused_with_its_place_and_the_row_before_stays() {
        check_refused(b"a", "[1]", "its value is JSON but no object");
        check_refused(b"a", "{\"usd\":1} {\"usd\":2}", "its value is no JSON object");
        check_refused(b"a", "", "its value is no JSON object");
        check_refused(b"a", "{\"usd\":\"lots\"}", "column `usd`: failed to parse");
        check_refused(b"a", "{\"usd\":{\"eur\":1}}", "column `usd`: ");
        check_refused(b"a", "{\"since\":\"yesterday\"}", "column `since`: ");
        check_refused(b"\xff", "{\"usd\":1}", "its key is no UTF-8 text");
    }

    #[test]
    fn a_record_without_a_key_is_refused() {
        let mut table = table();
        let payload = Some(&b"{\"usd\":1}"[..]);
        let record = RecordRef {
            topic: "t",
            partition: 0,
            offset: 1,
            timestamp_ms: 0,
            key: None,
            payload,
            ..RecordRef::default()
        };
        let Ok(Absorbed::Refused(refused)) = table.absorb(&record) else { panic!("taken") };
        assert_eq!(refused.to_string(), "t[0] offset 1: it has no key");
    }

    #[test]
    fn the_key_of_the_record_counts_and_not_a_member_of_its_value() {
        let mut table = table();
        absorb(&mut table, "a", Some("{\"key\":\"other\"}")).unwrap();
        assert_eq!(rows(&table), [("a".to_owned(), None)]);
    }

    #[test]
    fn a_column_that_must_not_be_null_is_not() {
        let declared = Schema::new(vec![Field::new("usd", DataType::Float64, false)]);
        let mut table = LatestRows::try_new(Arc::new(declared), 3).unwrap();
        let Ok(Absorbed::Refused(refused)) = absorb(&mut table, "a", Some("{}")) else { panic!("taken") };
        assert_eq!(refused.reason, "column `usd` must not be null");
        absorb(&mut table, "a", Some("{\"usd\":1}")).unwrap();
        assert_eq!(table.rows().unwrap().num_rows(), 1);
    }

    #[test]
    fn more_keys_than_the_limit_are_an_error_and_a_new_value_of_an_old_key_is_not() {
        let mut table = table();
        for key in ["a", "b", "c"] {
            absorb(&mut table, key, Some("{}")).unwrap();
        }
        assert_eq!(absorb(&mut table, "d", Some("{}")), Err(TooManyRows { rows_max: 3 }));
        assert_eq!(absorb(&mut table, "a", Some("{\"usd\":1}")), Ok(Absorbed::Changed));
        table.clear();
        assert_eq!(absorb(&mut table, "d", Some("{}")), Ok(Absorbed::Changed));
    }

    #[test]
    fn a_long_reason_is_cut() {
        let value = format!("{{\"usd\":\"{}\"}}", "ü".repeat(5_000));
        let Ok(Absorbed::Refused(refused)) = absorb(&mut table(), "a", Some(&value)) else { panic!("taken") };
        assert!(refused.reason.chars().count() <= REASON_CHARS_MAX + 2, "{}", refused.reason);
    }

    #[test]
    fn many_batches_become_one() {
        let mut table = LatestRows::try_new(table().declared, ROWS_MAX).unwrap();
        for number in 0..=BATCH_ROWS {
            absorb(&mut table, &format!("{number:06}"), Some(&format!("{{\"usd\":{number}}}"))).unwrap();
        }
        let batch = table.rows().unwrap();
        assert_eq!(batch.num_rows(), BATCH_ROWS + 1);
        assert_eq!(batch.column(0).as_string_view().value(BATCH_ROWS), "008192");
    }
}
