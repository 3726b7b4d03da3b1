//! Parquet files.
//!
//! They carry types of their own, more than reference tables have. Each column first becomes what a reference table
//! would call it, then what was declared, as a CSV cell would; what does not go without loss is refused.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{BATCH_ROWS, nullable};

/// Parses a whole file that may be broken, which the library sometimes answers by a panic: it checks less than it
/// indexes. Whoever watches the file must outlive that.
pub(super) fn parse_untrusted(file: File, declared: Option<&SchemaRef>) -> Result<RecordBatch, String> {
    // Nothing that is seen here is seen again after a panic.
    panic::catch_unwind(AssertUnwindSafe(|| parse(file, declared)))
        .unwrap_or_else(|_| Err("it cannot be read as Parquet: it is damaged".to_string()))
}

/// Parses a whole file; what is wrong is told with column, row group and row, both from 1, where they are known.
fn parse(file: File, declared: Option<&SchemaRef>) -> Result<RecordBatch, String> {
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        .map_err(|error| format!("it cannot be read as Parquet: {}", words_of(&error)))?;
    let target = match declared {
        Some(declared) => Arc::clone(declared),
        None => as_reference_table(metadata.schema())?,
    };
    let columns = places(metadata.schema(), &target)?;
    let table = Table { file, metadata, columns };
    let (mut batches, mut first_row) = (Vec::new(), 1);
    for group in 0..table.metadata.metadata().num_row_groups() {
        for batch in table.read(group)? {
            let at = Place { group, first_row };
            batches.push(fit_all(&batch, &target, at)?);
            first_row += batch.num_rows();
        }
    }
    concat_batches(&target, &batches).map_err(|error| error.to_string())
}

/// A file, and the numbers of the columns that are wanted of it.
struct Table {
    file: File,
    metadata: ArrowReaderMetadata,
    columns: Vec<usize>,
}

impl Table {
    fn read(&self, group: usize) -> Result<Vec<RecordBatch>, String> {
        let read = self.read_columns(group, &self.columns);
        read.map_err(|error| self.locate(group, &error))
    }

    fn read_columns(&self, group: usize, columns: &[usize]) -> Result<Vec<RecordBatch>, ParquetError> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone());
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let reader = builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
        Ok(reader.collect::<Result<Vec<_>, _>>()?)
    }

    /// Reads column by column until one fails, to tell which.
    fn locate(&self, group: usize, error: &ParquetError) -> String {
        let failed = self.columns.iter().find_map(|column| {
            let error = self.read_columns(group, &[*column]).err()?;
            Some((self.metadata.schema().field(*column).name(), error))
        });
        let group = group + 1;
        match failed {
            Some((column, error)) => format!("column `{column}`, row group {group}: {}", words_of(&error)),
            None => format!("row group {group}: {}", words_of(error)),
        }
    }
}

/// Where a batch begins.
#[derive(Clone, Copy)]
struct Place {
    /// From 0.
    group: usize,
    /// The file's number, from 1, of the first row.
    first_row: usize,
}

/// All columns of the file, with the types of a reference table.
fn as_reference_table(found: &SchemaRef) -> Result<SchemaRef, String> {
    if found.fields().is_empty() {
        return Err("it has no column, and none is declared".to_string());
    }
    let mut seen = BTreeSet::new();
    if let Some(field) = found.fields().iter().find(|field| !seen.insert(field.name())) {
        return Err(format!("column name `{}` stands twice in the file", field.name()));
    }
    let typed = |field: &FieldRef| match reference_type(field.data_type()) {
        Some(data_type) => Ok(Arc::new(Field::new(field.name(), data_type, true))),
        None => Err(format!(
            "column `{}` is {}, which reference tables do not have: declare the columns that are needed",
            field.name(),
            field.data_type()
        )),
    };
    Ok(nullable(found.fields().iter().map(typed).collect::<Result<Vec<_>, _>>()?))
}

/// The numbers in the file of the columns of `target`, which they must be able to become.
fn places(found: &Schema, target: &Schema) -> Result<Vec<usize>, String> {
    let place = |field: &FieldRef| {
        let name = field.name();
        let place = found.index_of(name).map_err(|_| format!("column `{name}` is declared and not in the file"))?;
        let (from, to) = (found.field(place).data_type(), field.data_type());
        match reference_type(from) {
            Some(ours) if becomes(&ours, to) => Ok(place),
            _ => Err(format!("column `{name}` is {from} in the file and is declared {to}")),
        }
    };
    target.fields().iter().map(place).collect()
}

/// What a reference table calls a type, if it has one that every value of it goes into.
fn reference_type(found: &DataType) -> Option<DataType> {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8View),
        DataType::Dictionary(_, values) => reference_type(values),
        DataType::Boolean | DataType::Date32 => Some(found.clone()),
        DataType::Date64 => Some(DataType::Date32),
        DataType::Timestamp(..) => Some(DataType::Timestamp(TimeUnit::Nanosecond, None)),
        whole if whole.is_integer() => Some(DataType::Int64),
        number if number.is_floating() || number.is_decimal() => Some(DataType::Float64),
        _ => None,
    }
}

/// Whether values of a reference table's type can be declared to be of another.
fn becomes(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Utf8View, _) | (_, DataType::Utf8View) => true,
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => true,
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (from, to) => from == to,
    }
}

/// The columns of `target` out of `read`, in its order.
fn fit_all(read: &RecordBatch, target: &SchemaRef, at: Place) -> Result<RecordBatch, String> {
    let fitted = target.fields().iter().map(|field| {
        let column = read.column_by_name(field.name()).ok_or_else(|| format!("column `{}` is gone", field.name()))?;
        fit_field(column, field).map_err(|(row, message)| {
            let Place { group, first_row } = at;
            format!("row {} in row group {}, column `{}`: {message}", first_row + row, group + 1, field.name())
        })
    });
    let columns = fitted.collect::<Result<Vec<_>, String>>()?;
    RecordBatch::try_new(Arc::clone(target), columns).map_err(|error| error.to_string())
}

/// The column as the field wants it, or the number of the first row that does not fit, and why.
fn fit_field(column: &ArrayRef, field: &Field) -> Result<ArrayRef, (usize, String)> {
    let fitted = fit(column, field.data_type()).map_err(|error| {
        let one = |row: usize| Some((row, fit(&column.slice(row, 1), field.data_type()).err()?));
        let (row, error) = (0..column.len()).find_map(one).unwrap_or((0, error));
        (row, words_of_arrow(&error))
    })?;
    match (0..fitted.len()).find(|row| !field.is_nullable() && fitted.is_null(*row)) {
        Some(row) => Err((row, "it must not be null".to_string())),
        None => Ok(fitted),
    }
}

fn fit(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let Some(ours) = reference_type(column.data_type()) else {
        return Err(ArrowError::CastError(format!("{} is no type of reference tables", column.data_type())));
    };
    let column = cast_with_options(column, &ours, &strict)?;
    if (&ours, target) == (&DataType::Float64, &DataType::Int64) {
        let mut numbers = column.as_primitive::<Float64Type>().iter().flatten();
        if let Some(broken) = numbers.find(|number| number.fract() != 0.0) {
            return Err(ArrowError::CastError(format!("{broken} is no whole number")));
        }
    }
    cast_with_options(&column, target, &strict)
}

/// The library's message without the name of its kind.
fn words_of(error: &ParquetError) -> String {
    match error {
        ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text) => text.clone(),
        ParquetError::ArrowError(text) => text.trim_start_matches("Parquet argument error: ").to_string(),
        other => other.to_string(),
    }
}

fn words_of_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(text) | ArrowError::ComputeError(text) | ArrowError::ParseError(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use arrow::array::{
        Decimal128Array, DictionaryArray, Float64Array, Int32Array, ListArray, StringArray, StringViewArray,
        TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::{Date32Type, Int32Type, Int64Type, TimestampNanosecondType};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// A file with these columns, two rows to a row group.
    fn file(columns: &[(&str, ArrayRef)]) -> File {
        file_with(columns, WriterProperties::builder().set_max_row_group_row_count(Some(2)).build())
    }

    fn file_with(columns: &[(&str, ArrayRef)], properties: WriterProperties) -> File {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.iter().map(|(name, column)| (*name, Arc::clone(column), true)),
        );
        let (batch, file) = (batch.unwrap(), tempfile::tempfile().unwrap());
        let mut writer = ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file
    }

    fn declare(columns: &[(&str, DataType, bool)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>()))
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    const INSTANT: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

    #[track_caller]
    fn check_flaw(columns: &[(&str, ArrayRef)], declared: Option<&SchemaRef>, expected: &str) {
        assert_eq!(parse(file(columns), declared).unwrap_err(), expected);
    }

    #[test]
    fn types_of_the_file_become_those_of_reference_tables() {
        let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let decimals = Decimal128Array::from(vec![150, 25, 1]).with_precision_and_scale(9, 2).unwrap();
        let instants = TimestampMillisecondArray::from(vec![1, 2, 3]).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 5] = [
            ("team", texts(&["x", "y", "z"])),
            ("kind", Arc::new(dictionary)),
            ("usd", Arc::new(decimals)),
            ("n", Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]))),
            ("since", Arc::new(instants)),
        ];
        let batch = parse(file(&columns), None).unwrap();
        let schema = batch.schema();
        let types: Vec<_> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8View, DataType::Utf8View, DataType::Float64, DataType::Int64, INSTANT]);
        assert_eq!(batch.column(1).as_string_view().value(2), "a");
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().values(), &[1.5, 0.25, 0.01]);
        assert!(batch.column(3).is_null(1));
        assert_eq!(batch.column(4).as_primitive::<TimestampNanosecondType>().value(2), 3_000_000);
    }

    #[test]
    fn declared_columns_are_found_by_name_and_others_ignored() {
        let tags = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None]);
        let columns: [(&str, ArrayRef); 4] = [
            ("tags", Arc::new(tags)),
            ("n", Arc::new(Float64Array::from(vec![Some(7.0), None]))),
            ("usd", texts(&["1.5", "2"])),
            ("since", texts(&["2026-01-01", "2026-01-02"])),
        ];
        let declared = declare(&[
            ("since", DataType::Date32, true),
            ("n", DataType::Int64, true),
            ("usd", DataType::Float64, false),
        ]);
        let batch = parse(file(&columns), Some(&declared)).unwrap();
        assert_eq!(batch.schema(), declared);
        assert_eq!(batch.column(0).as_primitive::<Date32Type>().value(0), 20_454);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(1), 2.0);
        check_flaw(
            &columns,
            None,
            "column `tags` is List(Int32), which reference tables do not have: declare the columns that are needed",
        );
    }

    #[test]
    fn a_bad_value_is_named_with_row_row_group_and_column() {
        let declared = declare(&[("usd", DataType::Float64, true)]);
        check_flaw(
            &[("usd", texts(&["1", "2", "3", "lots"]))],
            Some(&declared),
            "row 4 in row group 2, column `usd`: Cannot cast string 'lots' to value of Float64 type",
        );
        let declared = declare(&[("n", DataType::Int64, true)]);
        check_flaw(
            &[("n", Arc::new(Float64Array::from(vec![1.0, 2.0, 2.5])))],
            Some(&declared),
            "row 3 in row group 2, column `n`: 2.5 is no whole number",
        );
        check_flaw(
            &[("n", Arc::new(UInt64Array::from(vec![1, u64::MAX])))],
            None,
            "row 2 in row group 1, column `n`: Can't cast value 18446744073709551615 to type Int64",
        );
    }

    #[test]
    fn a_null_where_none_may_be_is_named() {
        let declared = declare(&[("team", DataType::Utf8View, false)]);
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), None]));
        check_flaw(&[("team", column)], Some(&declared), "row 3 in row group 2, column `team`: it must not be null");
    }

    #[test]
    fn a_declared_column_must_be_there_and_fit() {
        let columns = [("since", Arc::new(TimestampMillisecondArray::from(vec![1])) as ArrayRef)];
        let declared = declare(&[("usd", DataType::Float64, true)]);
        check_flaw(&columns, Some(&declared), "column `usd` is declared and not in the file");
        let declared = declare(&[("since", DataType::Float64, true)]);
        check_flaw(&columns, Some(&declared), "column `since` is Timestamp(ms) in the file and is declared Float64");
    }

    #[test]
    fn many_row_groups_become_one_and_none_an_empty_table() {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..20_000));
        let batch = parse(file_with(&[("n", numbers)], WriterProperties::default()), None).unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(19_999), 19_999);
        let batch = parse(file(&[("team", texts(&[]))]), None).unwrap();
        assert_eq!((batch.num_rows(), batch.schema().field(0).data_type()), (0, &DataType::Utf8View));
    }

    #[test]
    fn snappy_and_zstd_are_read() {
        for codec in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
            let properties = WriterProperties::builder().set_compression(codec).build();
            let batch = parse(file_with(&[("team", texts(&["x"; 100]))], properties), None).unwrap();
            assert_eq!(batch.num_rows(), 100);
        }
    }

    #[test]
    fn what_is_no_parquet_is_said() {
        let mut csv = tempfile::tempfile().unwrap();
        csv.write_all(b"team,usd\na,1\nb,2\n").unwrap();
        let message = parse(csv, None).unwrap_err();
        assert!(message.starts_with("it cannot be read as Parquet: "), "{message}");
    }

    #[test]
    fn whichever_byte_is_wrong_the_reader_is_outlived() {
        let columns: [(&str, ArrayRef); 2] =
            [("team", texts(&["x", "y", "z"])), ("n", Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])))];
        let mut bytes = Vec::new();
        let mut whole = file(&columns);
        whole.rewind().unwrap();
        whole.read_to_end(&mut bytes).unwrap();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                bytes[at] ^= flip;
                let mut broken = tempfile::tempfile().unwrap();
                broken.write_all(&bytes).unwrap();
                drop(parse_untrusted(broken, None));
                bytes[at] ^= flip;
            }
        }
    }

    #[test]
    fn a_broken_page_is_named_with_column_and_row_group() {
        let columns = [("team", texts(&["x"; 4])), ("kind", texts(&["y"; 4]))];
        let mut broken = file(&columns);
        let metadata = ArrowReaderMetadata::load(&broken, ArrowReaderOptions::new()).unwrap();
        let (begin, _) = metadata.metadata().row_group(1).column(1).byte_range();
        broken.seek(std::io::SeekFrom::Start(begin)).unwrap();
        broken.write_all(&[0xff; 8]).unwrap();
        let message = parse(broken, None).unwrap_err();
        assert!(message.starts_with("column `kind`, row group 2: "), "{message}");
    }
}
