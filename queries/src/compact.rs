//! What is remembered does not hold on to what is forgotten.
//!
//! Arrow's views of strings longer than 12 bytes point into buffers that filtered and concatenated columns go on
//! sharing: a history that is trimmed and appended to at every close would keep every buffer it ever had.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// The column with buffers of its own values alone.
pub(crate) fn compact(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column,
    }
}
