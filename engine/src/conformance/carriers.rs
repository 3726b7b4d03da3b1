//! Which services send their events as log records: the table `event_carriers`, with more rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::error::ArrowError;

/// The reference table that says it.
pub const EVENT_CARRIERS: &str = "event_carriers";

const LOG: &str = "log";

/// `carriers` (`[service, carrier]`) and these services, whose events are log records.
///
/// # Errors
/// The table has other columns.
pub fn with_log_services<'a>(
    carriers: &RecordBatch,
    services: impl IntoIterator<Item = &'a str>,
) -> Result<RecordBatch, ArrowError> {
    let services: Vec<&str> = services.into_iter().collect();
    let words = vec![LOG; services.len()];
    let schema = carriers.schema();
    let columns: [ArrayRef; 2] = [Arc::new(StringArray::from(services)), Arc::new(StringArray::from(words))];
    let fitted = columns.iter().enumerate().map(|(number, column)| match schema.fields().get(number) {
        Some(field) => cast(column, field.data_type()),
        None => Ok(Arc::clone(column)),
    });
    let added = RecordBatch::try_new(Arc::clone(&schema), fitted.collect::<Result<_, _>>()?)?;
    concat_batches(&schema, [carriers, &added])
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn services_are_added_to_those_that_are_there() {
        let field = |name| Field::new(name, DataType::Utf8View, true);
        let schema = Arc::new(Schema::new(vec![field("service"), field("carrier")]));
        let one = with_log_services(&RecordBatch::new_empty(Arc::clone(&schema)), ["gateway"]).unwrap();
        let two = with_log_services(&one, ["proxy"]).unwrap();
        let [services, carriers] = [0, 1].map(|column| two.column(column).as_string_view().iter().flatten().collect());
        assert_eq!((services, carriers), (vec!["gateway", "proxy"], vec!["log", "log"]));
        let narrow = RecordBatch::new_empty(Arc::new(Schema::new(vec![field("service")])));
        assert!(with_log_services(&narrow, ["proxy"]).is_err());
    }
}
