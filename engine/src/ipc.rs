//! Record batches as bytes, without their schema.
//!
//! What the two stages send each other and what the state log keeps are Arrow IPC record-batch messages. Both ends know
//! the columns from the rule, so the schema, which would be longer than most batches, is left out.
//!
//! Layout: length of the message's metadata (4 bytes, little endian), metadata, buffers.

use std::collections::HashMap;
use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{StreamReader, read_record_batch};
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

/// Writes a batch, in pieces that follow each other.
pub(crate) fn encode(batch: &RecordBatch) -> Result<[Vec<u8>; 2], ArrowError> {
    let columns = batch.columns().iter().map(own_buffers).collect();
    let batch = RecordBatch::try_new(batch.schema(), columns)?;
    let mut dictionaries = DictionaryTracker::new(true);
    let options = IpcWriteOptions::default();
    let (_, encoded) =
        IpcDataGenerator::default().encode(&batch, &mut dictionaries, &options, &mut IpcWriteContext::default())?;
    let length = u32::try_from(encoded.ipc_message.len()).map_err(|_| malformed("metadata of more than 4 GiB"))?;
    let mut head = Vec::with_capacity(4 + encoded.ipc_message.len());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&encoded.ipc_message);
    Ok([head, encoded.arrow_data])
}

/// Reads a batch of the given columns.
pub(crate) fn decode(bytes: &[u8], schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| malformed("no length"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (metadata, buffers) = rest.split_at_checked(length).ok_or_else(|| malformed("cut off"))?;
    let message = root_as_message(metadata).map_err(|e| malformed(&e.to_string()))?;
    // The reader trusts the offsets it finds.
    if usize::try_from(message.bodyLength()) != Ok(buffers.len()) {
        return Err(malformed("cut off"));
    }
    let batch = message.header_as_record_batch().ok_or_else(|| malformed("no record batch"))?;
    if batch.compression().is_some() {
        return Err(malformed(COMPRESSED));
    }
    let buffers = Buffer::from(buffers);
    let read = || read_record_batch(&buffers, batch, Arc::clone(&schema), &HashMap::new(), None, &message.version());
    let batch = guarded(read)?;
    RecordBatch::try_new(schema, batch.columns().to_vec())
}

/// Reads batches that have their schema before them.
pub(crate) fn decode_stream(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    check_messages(bytes).ok_or_else(|| malformed("cut off, or its buffers are compressed"))?;
    guarded(|| StreamReader::try_new(Cursor::new(bytes), None)?.collect())
}

/// We compress nothing: the reader would make room for whatever length is named.
const COMPRESSED: &str = "its buffers are compressed";

/// Whether every message of a stream lies within it, as it is: the reader would first make room for what is not there.
fn check_messages(mut bytes: &[u8]) -> Option<()> {
    const CONTINUES: [u8; 4] = [0xff; 4];
    while !bytes.is_empty() {
        bytes = bytes.strip_prefix(&CONTINUES).unwrap_or(bytes);
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
        let (metadata, rest) = rest.split_at_checked(length)?;
        if metadata.is_empty() {
            return Some(());
        }
        let message = root_as_message(metadata).ok()?;
        if message.header_as_record_batch().is_some_and(|batch| batch.compression().is_some()) {
            return None;
        }
        bytes = rest.get(usize::try_from(message.bodyLength()).ok()?..)?;
    }
    Some(())
}

/// Arrow's readers panic at buffers that do not fit each other.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    panic::catch_unwind(AssertUnwindSafe(read)).map_err(|_| malformed("its buffers do not fit"))?
}

fn malformed(what: &str) -> ArrowError {
    ArrowError::IpcError(format!("a stored batch is malformed: {what}"))
}

/// A column that holds no bytes but its own: string views point into the buffers of the batches they came from, and
/// those would be written whole.
pub(crate) fn own_buffers(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        DataType::Struct(fields) => {
            let rows = column.as_struct();
            let children = rows.columns().iter().map(own_buffers).collect();
            Arc::new(StructArray::new(fields.clone(), children, rows.nulls().cloned()))
        }
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn batch(names: Vec<&str>) -> RecordBatch {
        let fields = vec![Field::new("k0", DataType::Utf8View, true), Field::new("s0", DataType::Float64, true)];
        let numbers: Float64Array = names.iter().map(|n| f64::from(u32::try_from(n.len()).unwrap())).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from(names)), Arc::new(numbers)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn a_slice_survives_the_round_trip_and_takes_nothing_else_along() {
        let long = "a team with a name that is longer than twelve bytes";
        let whole = batch(std::iter::repeat_n(long, 1_000).chain(["b"]).collect());
        let slice = whole.slice(999, 2);
        let bytes = encode(&slice).unwrap().concat();
        assert!(bytes.len() < 1_000, "{}", bytes.len());
        assert_eq!(decode(&bytes, slice.schema()).unwrap(), slice);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = batch(vec!["a", "b"]);
        let bytes = encode(&whole).unwrap().concat();
        for length in [0, 3, 20, bytes.len() - 60] {
            assert!(decode(&bytes[..length], whole.schema()).is_err(), "{length}");
        }
    }

    #[test]
    fn bytes_that_were_changed_are_an_error_or_a_batch_and_no_panic() {
        let whole = batch(vec!["a", "b", "a name of more than twelve bytes"]);
        let bytes = encode(&whole).unwrap().concat();
        let mut random = fastrand::Rng::with_seed(1);
        let mut refused = 0;
        for _ in 0..5_000 {
            let mut changed = bytes.clone();
            let at = random.usize(..changed.len());
            changed[at] = random.u8(..);
            refused += u32::from(decode(&changed, whole.schema()).is_err());
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn a_stream_that_was_changed_is_an_error_or_batches_and_no_panic() {
        let whole = batch(vec!["a", "b", "a name of more than twelve bytes"]);
        let mut writer = StreamWriter::try_new(Vec::new(), &whole.schema()).unwrap();
        writer.write(&whole).unwrap();
        let bytes = writer.into_inner().unwrap();
        assert_eq!(decode_stream(&bytes).unwrap(), [whole]);
        let mut random = fastrand::Rng::with_seed(1);
        let mut refused = 0;
        for _ in 0..5_000 {
            let mut changed = bytes.clone();
            let at = random.usize(..changed.len());
            changed[at] = random.u8(..);
            refused += u32::from(decode_stream(&changed).is_err());
        }
        assert!(refused > 100, "{refused}");
    }
}
