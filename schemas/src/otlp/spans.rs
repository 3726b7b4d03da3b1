//! Rows of `spans` and `span_events`.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, TracesData};

use super::RecordMeta;
use super::cell::Cell;
use super::derive::Item;
use super::leaf::{Node, usage_leaves};
use super::plan::{Level, Slots};
use super::rows::Rows;
use crate::tables::Field;

const NANOS_PER_MS: f64 = 1e6;
const EXCEPTION: &str = "exception";

/// Appends every span of a screened record.
pub(super) fn append_spans<'a>(rows: &mut Rows, data: &'a TracesData, record: &RecordMeta<'a>) {
    let mut slots = Slots::new(&rows.plan);
    let has_leaves = rows.has_leaves();
    let mut nodes = Vec::new();
    for resource_spans in &data.resource_spans {
        let resource = resource_spans.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        slots.enter_resource(&rows.plan, resource);
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.as_ref();
            slots.enter_scope(&rows.plan, scope.map_or(&[][..], |s| &s.attributes));
            for span in &scope_spans.spans {
                slots.enter_record(&rows.plan, &span.attributes);
                for event in span.events.iter().filter(|event| event.name == EXCEPTION) {
                    slots.add(&rows.plan, Level::Parent, exception_type(event));
                }
                let bears_usage = rows.append(&slots, &SpanItem { span, scope }, record);
                if has_leaves {
                    nodes.push(node(span, bears_usage));
                }
            }
        }
    }
    if has_leaves {
        rows.append_leaves(&usage_leaves(&nodes));
    }
}

/// The one attribute that a span takes from its exception events.
fn exception_type(event: &Event) -> &[opentelemetry_proto::tonic::common::v1::KeyValue] {
    let at = event.attributes.iter().position(|attribute| attribute.key == "exception.type");
    at.map_or(&[], |at| &event.attributes[at..=at])
}

fn node(span: &Span, bears_usage: bool) -> Node<'_> {
    let (trace_id, span_id, parent_span_id) = (&span.trace_id, &span.span_id, &span.parent_span_id);
    Node { trace_id, span_id, parent_span_id, bears_usage }
}

/// Appends every event of every span of a screened record.
pub(super) fn append_events<'a>(rows: &mut Rows, data: &'a TracesData, record: &RecordMeta<'a>) {
    let mut slots = Slots::new(&rows.plan);
    for resource_spans in &data.resource_spans {
        let resource = resource_spans.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        slots.enter_resource(&rows.plan, resource);
        for scope_spans in &resource_spans.scope_spans {
            append_scope_events(rows, &mut slots, scope_spans, record);
        }
    }
}

fn append_scope_events<'a>(
    rows: &mut Rows,
    slots: &mut Slots<'a>,
    scope_spans: &'a ScopeSpans,
    record: &RecordMeta<'a>,
) {
    let scope = scope_spans.scope.as_ref();
    slots.enter_scope(&rows.plan, scope.map_or(&[][..], |s| &s.attributes));
    for span in &scope_spans.spans {
        for event in &span.events {
            slots.enter_record(&rows.plan, &event.attributes);
            slots.add(&rows.plan, Level::Parent, &span.attributes);
            rows.append(slots, &EventItem { event, span, scope }, record);
        }
    }
}

struct SpanItem<'a> {
    span: &'a Span,
    scope: Option<&'a InstrumentationScope>,
}

impl<'a> Item<'a> for SpanItem<'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        let span = self.span;
        match field {
            Field::EventTime => Cell::time(span.end_time_unix_nano),
            Field::StartTime => Cell::time(span.start_time_unix_nano),
            Field::TraceId => Cell::Id(&span.trace_id),
            Field::SpanId => Cell::Id(&span.span_id),
            Field::ParentSpanId => id(&span.parent_span_id),
            Field::Name | Field::SpanName => Cell::Str(&span.name),
            Field::Kind => Cell::Str(kind(span.kind)),
            Field::StatusCode => Cell::Str(status(span)),
            Field::StatusMessage => span.status.as_ref().map_or(Cell::Null, |status| Cell::text(&status.message)),
            Field::DurationMs => duration_ms(span),
            other => of_scope(self.scope, other),
        }
    }
}

struct EventItem<'a> {
    event: &'a Event,
    span: &'a Span,
    scope: Option<&'a InstrumentationScope>,
}

impl<'a> Item<'a> for EventItem<'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        match field {
            Field::EventTime => match Cell::time(self.event.time_unix_nano) {
                Cell::Null => Cell::time(self.span.end_time_unix_nano),
                time => time,
            },
            Field::Name => Cell::Str(&self.event.name),
            Field::SpanName => Cell::Str(&self.span.name),
            Field::TraceId => Cell::Id(&self.span.trace_id),
            Field::SpanId => Cell::Id(&self.span.span_id),
            other => of_scope(self.scope, other),
        }
    }
}

/// What the scope says of its items.
pub(super) fn of_scope(scope: Option<&InstrumentationScope>, field: Field) -> Cell<'_> {
    match (field, scope) {
        (Field::ScopeName, Some(scope)) => Cell::text(&scope.name),
        (Field::ScopeVersion, Some(scope)) => Cell::text(&scope.version),
        _ => Cell::Null,
    }
}

/// An identifier; all zero means that there is none.
pub(super) fn id(bytes: &[u8]) -> Cell<'_> {
    if bytes.iter().all(|b| *b == 0) { Cell::Null } else { Cell::Id(bytes) }
}

fn duration_ms(span: &Span) -> Cell<'static> {
    match (Cell::time(span.start_time_unix_nano), Cell::time(span.end_time_unix_nano)) {
        (Cell::Time(start), Cell::Time(end)) => Cell::Float((end - start) as f64 / NANOS_PER_MS),
        _ => Cell::Null,
    }
}

fn kind(kind: i32) -> &'static str {
    let kind = SpanKind::try_from(kind).unwrap_or(SpanKind::Unspecified);
    kind.as_str_name().trim_start_matches("SPAN_KIND_")
}

fn status(span: &Span) -> &'static str {
    let code = span.status.as_ref().map_or(0, |status| status.code);
    StatusCode::try_from(code).unwrap_or(StatusCode::Unset).as_str_name().trim_start_matches("STATUS_CODE_")
}
