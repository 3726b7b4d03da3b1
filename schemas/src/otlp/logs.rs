//! Rows of `logs`.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData};

use super::RecordMeta;
use super::cell::Cell;
use super::derive::Item;
use super::names::Names;
use super::plan::Slots;
use super::rows::Rows;
use super::spans::{id, of_scope};
use crate::tables::Field;

/// Appends every log record of a screened record.
pub(super) fn append_logs<'a>(rows: &mut Rows, names: &Names, data: &'a LogsData, record: &RecordMeta<'a>) {
    let mut slots = Slots::new(&rows.plan, 1);
    for resource_logs in &data.resource_logs {
        let resource = resource_logs.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        slots.enter_resource(&rows.plan, names.attributes(resource));
        for scope_logs in &resource_logs.scope_logs {
            let scope = scope_logs.scope.as_ref();
            slots.enter_scope(&rows.plan, names.attributes(scope.map_or(&[][..], |s| &s.attributes)));
            for log in &scope_logs.log_records {
                slots.enter_record(&rows.plan, names.attributes(&log.attributes));
                rows.append(&mut slots, &[LogItem { log, scope }], record);
            }
        }
    }
}

struct LogItem<'a> {
    log: &'a LogRecord,
    scope: Option<&'a InstrumentationScope>,
}

impl<'a> Item<'a> for LogItem<'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        let log = self.log;
        match field {
            Field::EventTime => match Cell::time(log.time_unix_nano) {
                Cell::Null => Cell::time(log.observed_time_unix_nano),
                time => time,
            },
            Field::ObservedTime => Cell::time(log.observed_time_unix_nano),
            Field::TraceId => id(&log.trace_id),
            Field::SpanId => id(&log.span_id),
            Field::EventName => Cell::text(&log.event_name),
            Field::SeverityText => Cell::text(&log.severity_text),
            Field::SeverityNumber if log.severity_number > 0 => Cell::Int(i64::from(log.severity_number)),
            Field::Body => body(log),
            other => of_scope(self.scope, other),
        }
    }
}

fn body(log: &LogRecord) -> Cell<'_> {
    match log.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => Cell::text(text),
        _ => Cell::Null,
    }
}
